/**
 * The log ring: records of whole 512-byte sectors, one after the other. A sector that was written
 * is not written again before the tail has moved past it, so a torn write can only hit a record
 * that nobody was told is durable.
 *
 *   record = header (64 bytes) + entries (32 bytes each) + padding to 512
 *
 * What is known of durability, in record sequences:
 *   sequence        last record handed to the kernel
 *   durable         last one a finished flush covers
 *   stated          `durable` as the last record says it
 *   statedDurable   `durable` as a record says it that is itself durable: the rule for reuse
 */
import { blockBytes, sectorsPerBlock } from "../limits.ts";
import type { Checksum, Disk } from "./disk.ts";
import {
  entryBytes,
  logSectorBytes,
  recordHeaderBytes,
  recordSectors,
  sealRecord,
} from "./layout.ts";

export const maxRecordEntries = 4096;
const bufferBytes = recordSectors(maxRecordEntries) * logSectorBytes;
/** Kept free for the one-sector records of mounts that crash before they can checkpoint. */
const spareSectors = 64;
const firstEntryWord = recordHeaderBytes / 4;
export const entryWords = entryBytes / 4;

export class Log {
  readonly sectors: number;
  /** Most entries of one record: at most an eighth of the ring. */
  readonly recordEntries: number;
  headSector = 0;
  usedSectors = 0;
  sequence = 0;
  durable = 0;
  stated = 0;
  statedDurable = 0;
  mountGeneration = 0;
  superblockSequence = 0;
  /** Bytes handed to the kernel in the log, for statistics. */
  writtenBytes = 0;
  private readonly position: number;
  private readonly disk: Disk;
  private readonly store: Uint8Array;
  private readonly checksum: Checksum;
  private readonly buffer = new Uint8Array(bufferBytes);
  private readonly view = new DataView(this.buffer.buffer);
  /** Entries of the record being built, as words; entry i starts at word `16 + i * 8`. */
  readonly words = new Uint32Array(this.buffer.buffer);
  count = 0;

  constructor(
    disk: Disk,
    firstBlock: number,
    blocks: number,
    store: Uint8Array,
    checksum: Checksum,
  ) {
    this.disk = disk;
    this.position = firstBlock * blockBytes;
    this.sectors = blocks * sectorsPerBlock;
    this.recordEntries = Math.min(maxRecordEntries, Math.floor(this.sectors / 8) * 16 - 2);
    this.store = store;
    this.checksum = checksum;
  }

  entryWord(entry: number): number {
    return firstEntryWord + entry * entryWords;
  }

  /** Adds an entry to the record being built. */
  add(
    type: number,
    flags: number,
    block: number,
    lineage: number,
    chunk: number,
    pointer: number,
    crc: number,
    epoch: number,
    extraLow: number,
    extraHigh: number,
  ): void {
    let at = firstEntryWord + this.count++ * entryWords;
    this.words[at++] = type | (flags << 8) | (block << 16);
    this.words[at++] = lineage;
    this.words[at++] = chunk;
    this.words[at++] = pointer;
    this.words[at++] = crc;
    this.words[at++] = epoch;
    this.words[at++] = extraLow;
    this.words[at] = extraHigh;
  }

  /** True if the record being built, with `more` entries, fits before the tail. */
  fits(more: number): boolean {
    return this.usedSectors + recordSectors(this.count + more) + spareSectors < this.sectors;
  }

  /** Hands the record to the kernel. False on an I/O error: the log's state is then unknown. */
  append(): boolean {
    const sectors = recordSectors(this.count);
    const used = recordHeaderBytes + this.count * entryBytes;
    this.buffer.fill(0, used, sectors * logSectorBytes);
    sealRecord(
      this.buffer,
      this.view,
      this.store,
      this.count,
      this.sequence + 1,
      this.mountGeneration,
      this.durable,
      this.superblockSequence,
      this.checksum,
    );
    const beforeEnd = Math.min(sectors, this.sectors - this.headSector);
    const good =
      this.disk.write(
        this.buffer,
        0,
        beforeEnd * logSectorBytes,
        this.position + this.headSector * logSectorBytes,
      ) &&
      (beforeEnd === sectors ||
        this.disk.write(
          this.buffer,
          beforeEnd * logSectorBytes,
          (sectors - beforeEnd) * logSectorBytes,
          this.position,
        ));
    if (!good) return false;
    this.headSector = (this.headSector + sectors) % this.sectors;
    this.usedSectors += sectors;
    this.sequence++;
    this.stated = this.durable;
    this.writtenBytes += sectors * logSectorBytes;
    return true;
  }

  /** Reads `count` sectors from `sector` on, over the ring's end. */
  read(into: Uint8Array, sector: number, count: number): boolean {
    const beforeEnd = Math.min(count, this.sectors - sector);
    return (
      this.disk.read(
        into,
        0,
        beforeEnd * logSectorBytes,
        this.position + sector * logSectorBytes,
      ) &&
      (beforeEnd === count ||
        this.disk.read(
          into,
          beforeEnd * logSectorBytes,
          (count - beforeEnd) * logSectorBytes,
          this.position,
        ))
    );
  }
}
