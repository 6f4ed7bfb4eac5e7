/** Reads the log after a checkpoint, decides where it ends, and applies it. */
import { KeelsonError } from "#lib/model/errors.ts";
import { blockBytes } from "../limits.ts";
import { applyEntries } from "./apply.ts";
import type { Disk } from "./disk.ts";
import {
  EntryType,
  logSectorBytes,
  openRecord,
  type RecordHeader,
  recordHeaderBytes,
  recordSectors,
} from "./layout.ts";
import { entryWords, maxRecordEntries } from "./log.ts";
import type { Store } from "./store.ts";

interface Found {
  readonly sector: number;
  readonly header: RecordHeader;
}

/**
 * Leaves the store as the log says, its head where the next record goes. Gives the highest mount
 * generation seen, and how many records it has applied. `ended`: the log surely ends at its tail, so
 * the rest of the ring need not be read.
 *
 * Throws FORMAT_CORRUPT, having changed nothing, if the log misses a record that a later one states
 * durable, or states durable a newer superblock than the one found.
 */
export function replayLog(
  store: Store,
  superblockGeneration: number,
  ended: boolean,
): { readonly generation: number; readonly records: number } {
  const reader = new RecordReader(store);
  const { log } = store;
  const records: Found[] = [];
  let sector = log.headSector;
  let sequence = log.sequence;
  // A record of an earlier mount than the checkpoint's is one that a mount has dropped.
  let generation = log.mountGeneration;
  let used = 0;
  let durable = log.sequence;
  for (;;) {
    const header = reader.open(sector, log.sectors - used);
    if (header === undefined) break;
    if (header.sequence !== sequence + 1 || header.mountGeneration < generation) break;
    if (header.superblockSequence > store.superblock.sequence) throw superblockLost(store);
    records.push({ sector, header });
    sequence++;
    generation = header.mountGeneration;
    durable = Math.max(durable, header.durableSequence);
    const sectors = recordSectors(header.entryCount);
    used += sectors;
    sector = (sector + sectors) % log.sectors;
  }
  const newest = Math.max(generation, superblockGeneration);
  if (!ended) refuseLostRecords(store, reader, sector, sequence, newest);

  let end = records.length;
  for (let i = 0; i < records.length; i++) {
    if (records[i].header.sequence <= durable) continue;
    if (!verify(store, reader, records[i])) {
      end = i;
      break;
    }
  }
  const taken = records.slice(0, end);
  const replay = new Replay(
    store,
    sum(taken, ({ header }) => header.entryCount),
  );
  for (const { sector: at, header } of taken) {
    reader.open(at, log.sectors);
    replay.add(reader.words, header.entryCount);
    const sectors = recordSectors(header.entryCount);
    log.headSector = (at + sectors) % log.sectors;
    log.usedSectors += sectors;
    log.sequence = header.sequence;
  }
  replay.end();
  return { generation: newest, records: taken.length };
}

const sum = (records: readonly Found[], of: (record: Found) => number) =>
  records.reduce((total, record) => total + of(record), 0);

/** Entries that are sorted at once, at most: 64 MB. */
const mostSorted = 2 ** 21;
/** 128 KiB: of more the kernel may leave some when it reads ahead. */
const mostRunBlocks = 32;
/** Blocks between two pages that are not worth another read. */
const runGap = 4;
/** So many are being read while the one before them is applied: 4 MiB at most. */
const aheadRuns = 32;

interface Run {
  readonly slot: number;
  readonly blocks: number;
  /** Its entries end before this one. */
  readonly end: number;
}

/**
 * Applies entries as the running store did, but those of blocks sorted by where their map pages lie
 * on disk: each page is read once and not once for each entry, and with its neighbours. Entries of
 * one chunk keep their order; those of different chunks have nothing in common but space, and the
 * allocator counts how often a block was taken and freed. All others are in their order.
 */
class Replay {
  private readonly store: Store;
  private readonly words: Uint32Array;
  /** Place, then entry: 32 bits and 21 fit into a number's 53. */
  private readonly keys: Float64Array;
  private readonly pages: Uint8Array<ArrayBuffer>;
  private count = 0;

  constructor(store: Store, entries: number) {
    this.store = store;
    this.words = new Uint32Array(Math.min(entries, mostSorted) * entryWords);
    this.keys = new Float64Array(Math.min(entries, mostSorted));
    const blocks = Math.min(entries * (1 + runGap), mostRunBlocks);
    this.pages = new Uint8Array(blocks * blockBytes);
    store.allocator.beginReplay();
  }

  /** The entries of a record. FORMAT_CORRUPT if a map page can't be read. */
  add(words: Uint32Array, count: number): void {
    const first = recordHeaderBytes / 4;
    for (let i = 0; i < count; i++) {
      const at = first + i * entryWords;
      const type = words[at] & 0xff;
      if (type === EntryType.operation || type === EntryType.groupFlush) {
        // Of a volume, not of its blocks.
        this.apply(words, at, 1);
        continue;
      }
      if (type !== EntryType.write && type !== EntryType.discard) {
        this.applySorted();
        // To the record's end: some entries belong together.
        this.apply(words, at, count - i);
        return;
      }
      if (this.count === this.keys.length) this.applySorted();
      const to = this.count * entryWords;
      for (let word = 0; word < entryWords; word++) this.words[to + word] = words[at + word];
      this.keys[this.count] = this.place(words[at + 1], words[at + 2]) * mostSorted + this.count;
      this.count++;
    }
  }

  end(): void {
    this.applySorted();
    this.store.allocator.endReplay();
  }

  /** Slot of the chunk's newest map page; below 1, and one for each chunk, where none was written. */
  private place(lineage: number, chunk: number): number {
    const { index } = this.store;
    const record = index.find(lineage, chunk);
    return record < 0 ? 0 : index.slot[record] || -1 - record;
  }

  private applySorted(): void {
    const { disk, cache } = this.store;
    const keys = this.keys.subarray(0, this.count).sort();
    const ahead = this.runs(keys);
    for (let i = 0; i < aheadRuns; i++) readAhead(disk, ahead.next().value);
    let first = 0;
    for (const { slot, blocks, end } of this.runs(keys)) {
      readAhead(disk, ahead.next().value);
      const pages = this.pages.subarray(0, blocks * blockBytes);
      // If one of them is unreadable, each is read by itself.
      if (disk.read(pages, 0, pages.length, slot * blockBytes)) cache.stage(pages, slot);
      else cache.stage();
      for (const key of keys.subarray(first, end)) {
        this.apply(this.words, (key - placeOf(key) * mostSorted) * entryWords, 1);
      }
      first = end;
    }
    cache.stage();
    this.count = 0;
  }

  /** Sorted entries, by pages that lie so close that they are read in one go. */
  private *runs(keys: Float64Array): Generator<Run, undefined> {
    let slot = 0;
    let blocks = 0;
    let last = 0;
    for (let i = 0; i < keys.length; i++) {
      const next = placeOf(keys[i]);
      if (next <= last) continue;
      if (blocks === 0 || next > last + 1 + runGap || next - slot >= mostRunBlocks) {
        if (blocks > 0) yield { slot, blocks, end: i };
        slot = next;
      }
      blocks = next - slot + 1;
      last = next;
    }
    yield { slot, blocks, end: keys.length };
  }

  private apply(words: Uint32Array, at: number, count: number): void {
    const { store } = this;
    if (applyEntries(store, words, at, count, 0, true)) return;
    throw new KeelsonError(
      "FORMAT_CORRUPT",
      `A map page that the log of the store on ${store.device} changes is damaged.`,
      { operation: "mount store", object: store.device, remedy: "Nothing was changed." },
    );
  }
}

const placeOf = (key: number) => Math.floor(key / mostSorted);

function readAhead(disk: Disk, run: Run | undefined): void {
  if (run !== undefined && run.blocks > 0) {
    disk.readAhead?.(run.slot * blockBytes, run.blocks * blockBytes);
  }
}

/** True if every block that the record names holds what it was written with. */
function verify(store: Store, reader: RecordReader, record: Found): boolean {
  reader.open(record.sector, store.log.sectors);
  const block = new Uint8Array(blockBytes);
  for (let i = 0; i < record.header.entryCount; i++) {
    const at = recordHeaderBytes / 4 + i * entryWords;
    if ((reader.words[at] & 0xff) !== EntryType.write) continue;
    const pointer = reader.words[at + 3];
    if (!store.disk.read(block, 0, blockBytes, pointer * blockBytes)) return false;
    if (store.checksum(block, 0, blockBytes) !== reader.words[at + 4]) return false;
  }
  return true;
}

/**
 * The log seems to end after `sequence`. If a record further on, of the last mount, states that the
 * next one was durable, then the log did not end there: it is damaged, and mounting would silently
 * drop what was flushed.
 */
function refuseLostRecords(
  store: Store,
  reader: RecordReader,
  endSector: number,
  sequence: number,
  generation: number,
): void {
  const { log } = store;
  for (let sector = 0; sector < log.sectors; sector++) {
    if (!reader.looksLikeRecord(sector)) continue;
    const header = reader.open(sector, log.sectors);
    if (header === undefined || header.sequence <= sequence) continue;
    if (header.mountGeneration >= generation && header.durableSequence > sequence) {
      throw new KeelsonError(
        "FORMAT_CORRUPT",
        `Log record ${sequence + 1} of the store on ${store.device} (sector ${endSector} of its log) is damaged, though record ${header.sequence} says that it was durable.`,
        { operation: "mount store", object: store.device, remedy: "Nothing was changed." },
      );
    }
  }
}

function superblockLost(store: Store): KeelsonError {
  return new KeelsonError(
    "FORMAT_CORRUPT",
    `The newest superblock of the store on ${store.device} is damaged, and the older one is out of date.`,
    { operation: "mount store", object: store.device, remedy: "Nothing was changed." },
  );
}

const windowSectors = 2048;

/** Reads records at any sector of the ring through a window of 1 MiB. */
class RecordReader {
  private readonly store: Store;
  private readonly window: Uint8Array;
  private windowSector = -1;
  private windowCount = 0;
  private readonly buffer = new Uint8Array(recordSectors(maxRecordEntries) * logSectorBytes);
  /** The record last opened; entry i at word 16 + i * 8. */
  readonly words = new Uint32Array(this.buffer.buffer);

  constructor(store: Store) {
    this.store = store;
    this.window = new Uint8Array(Math.min(windowSectors, store.log.sectors) * logSectorBytes);
  }

  /** The record that begins at `sector` and takes at most `room` sectors, if there is a valid one. */
  open(sector: number, room: number): RecordHeader | undefined {
    const { log, superblock, checksum } = this.store;
    if (!this.copy(sector, 1)) return undefined;
    const first = this.buffer.subarray(0, logSectorBytes);
    const found = openRecord(first, superblock.store, maxRecordEntries, checksum);
    if (typeof found !== "number") return found;
    const sectors = Math.ceil(found / logSectorBytes);
    if (sectors > room || sectors > log.sectors || !this.copy(sector, sectors)) return undefined;
    const whole = this.buffer.subarray(0, sectors * logSectorBytes);
    const header = openRecord(whole, superblock.store, maxRecordEntries, checksum);
    return typeof header === "number" ? undefined : header;
  }

  looksLikeRecord(sector: number): boolean {
    if (!this.load(sector)) return false;
    const at = (sector - this.windowSector) * logSectorBytes;
    return this.window[at] === 0x4b && this.window[at + 1] === 0x4c && this.window[at + 2] === 0x4f;
  }

  private load(sector: number): boolean {
    if (this.windowSector >= 0 && sector >= this.windowSector) {
      if (sector < this.windowSector + this.windowCount) return true;
    }
    const { log } = this.store;
    this.windowCount = Math.min(this.window.length / logSectorBytes, log.sectors - sector);
    this.windowSector = sector;
    if (log.read(this.window, sector, this.windowCount)) return true;
    this.windowSector = -1;
    return false;
  }

  private copy(sector: number, count: number): boolean {
    for (let i = 0; i < count; i++) {
      const from = (sector + i) % this.store.log.sectors;
      if (!this.load(from)) return false;
      const at = (from - this.windowSector) * logSectorBytes;
      this.buffer.set(this.window.subarray(at, at + logSectorBytes), i * logSectorBytes);
    }
    return true;
  }
}
