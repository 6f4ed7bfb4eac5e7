/**
 * Bytes of the store's format, version 1. `docs/formats/store.md` describes them.
 *
 *   block 0, 1      superblocks, written in turn
 *   block 2 ..      log ring
 *   the rest        data blocks, map pages, index, bitmap, tables, directory: anywhere
 *
 * All integers are little-endian. The hot parts (log entries, map pages) are written through
 * Uint32Array views, so a big-endian machine is refused at mount.
 */
import { KeelsonError } from "#lib/model/errors.ts";
import { blockBytes, chunkBlocks } from "../limits.ts";
import type { Checksum } from "./disk.ts";

/** What this program reads; docs/formats/upgrade.md says which one it writes. */
export const formatVersions = { oldest: 0, newest: 1 } as const;
/** The first one that has snapshots. */
export const snapshotFormat = 1;
/** In a superblock, of 4 bytes. */
export const superblockFlagsOffset = 20;
export const superblockFlag = { experimental: 1, clean: 2 } as const;

/** A map pointer that says "zeroes, whatever the parent has". 0 says "nothing here". */
export const holePointer = 0xffffffff;

export const logSectorBytes = 512;
export const recordHeaderBytes = 64;
export const entryBytes = 32;
export const pageHeaderBytes = 64;
export const pageGenerationOffset = 24;
export const indexRecordBytes = 16;
export const indexRecordsPerPage = (blockBytes - pageHeaderBytes) / indexRecordBytes;
export const bitmapWordsPerPage = (blockBytes - pageHeaderBytes) / 4;
export const bitmapBlocksPerPage = bitmapWordsPerPage * 32;
export const directorySlotsPerBlock = (blockBytes - pageHeaderBytes) / 4;
export const volumeRecordBytes = 96;
export const volumesPerPage = Math.floor((blockBytes - pageHeaderBytes) / volumeRecordBytes);
export const snapshotRecordBytes = 64;
export const snapshotsPerPage = (blockBytes - pageHeaderBytes) / snapshotRecordBytes;
export const operationRecordBytes = 32;
export const operationsPerPage = (blockBytes - pageHeaderBytes) / operationRecordBytes;
export const cellRecordBytes = 24;
export const cellsPerPage = (blockBytes - pageHeaderBytes) / cellRecordBytes;
/** Words of a map page in memory: pointers, checksums, birth epochs. */
export const mapWords = chunkBlocks * 3;

export const EntryType = {
  write: 1,
  discard: 2,
  volumeCreate: 3,
  volumeIdentity: 4,
  volumeSeal: 5,
  volumeResize: 6,
  volumeDelete: 7,
  /** Of a lineage whose newest state is deleted: what was after an epoch is gone. */
  headForget: 8,
  snapshotCreate: 9,
  snapshotDelete: 10,
  /** What only this snapshot kept is freed; its interval is the next one's. */
  snapshotForget: 11,
  /** Frees what of a chunk's record only a deleted snapshot kept. */
  dropOld: 12,
  /** Frees what of a chunk was after an epoch. */
  dropHead: 13,
  /** A writer has the volume from here on. */
  claim: 14,
  /** An operation of a group, with its version: all of it stands before this entry. */
  operation: 15,
  /** All members have everything up to a version durable. */
  groupFlush: 16,
} as const;

/** Of a discard entry. `hole` hides the parent's block; `drop` forgets the whole map record. */
export const EntryFlag = { hole: 1, drop: 2 } as const;

/** Of an operation: its sectors read zero; more of it follows. */
export const OperationFlag = { discards: 1, partly: 2 } as const;

export const PageKind = {
  map: fourBytes("KMAP"),
  index: fourBytes("KIDX"),
  bitmap: fourBytes("KBMP"),
  volumes: fourBytes("KVOL"),
  snapshots: fourBytes("KSNP"),
  cells: fourBytes("KCEL"),
  operations: fourBytes("KOPS"),
  directory: fourBytes("KDIR"),
} as const;
export type PageKind = (typeof PageKind)[keyof typeof PageKind];

const recordMagic = fourBytes("KLOG");
const superblockMagic = new TextEncoder().encode("KEELSON-STORE-SB");
const superblockCrcOffset = 24;
const directoryOffset = 1024;
export const maxDirectoryBlocks = (blockBytes - directoryOffset) / 4;

export interface Superblock {
  /** Of the whole store. */
  format: number;
  clean: boolean;
  readonly pool: Uint8Array;
  readonly store: Uint8Array;
  /** Of this superblock: the greater of the two valid ones counts. */
  sequence: number;
  mountGeneration: number;
  readonly deviceBlocks: number;
  readonly logFirstBlock: number;
  readonly logBlocks: number;
  /** Log records up to this one are in the map pages that this superblock leads to. */
  checkpointSequence: number;
  /** Ring sector where record `checkpointSequence + 1` begins. */
  tailSector: number;
  /** At most this many dirty map pages between two checkpoints: bounds replay's memory. */
  readonly checkpointPages: number;
  nextLineage: number;
  nextEpoch: number;
  indexPages: number;
  bitmapPages: number;
  volumePages: number;
  snapshotPages: number;
  cellPages: number;
  operationPages: number;
  recordCount: number;
  readonly createdMs: number;
  /** Blocks of the directory: the slots of the pages of index, bitmap and tables. */
  directory: number[];
}

export function encodeSuperblock(value: Superblock, checksum: Checksum): Uint8Array {
  const bytes = new Uint8Array(blockBytes);
  const view = new DataView(bytes.buffer);
  bytes.set(superblockMagic, 0);
  view.setUint32(16, value.format, true);
  view.setUint32(
    superblockFlagsOffset,
    superblockFlag.experimental | (value.clean ? superblockFlag.clean : 0),
    true,
  );
  bytes.set(value.pool, 32);
  bytes.set(value.store, 48);
  setUint64(view, 64, value.sequence);
  setUint64(view, 72, value.mountGeneration);
  setUint64(view, 80, value.deviceBlocks);
  view.setUint32(88, blockBytes, true);
  view.setUint32(92, chunkBlocks, true);
  view.setUint32(96, value.logFirstBlock, true);
  view.setUint32(100, value.logBlocks, true);
  setUint64(view, 104, value.checkpointSequence);
  view.setUint32(112, value.tailSector, true);
  view.setUint32(116, value.checkpointPages, true);
  view.setUint32(120, value.nextLineage, true);
  view.setUint32(124, value.nextEpoch, true);
  view.setUint32(128, value.indexPages, true);
  view.setUint32(132, value.bitmapPages, true);
  view.setUint32(136, value.volumePages, true);
  view.setUint32(140, value.directory.length, true);
  view.setUint32(144, value.recordCount, true);
  view.setUint32(148, value.snapshotPages, true);
  view.setUint32(152, value.cellPages, true);
  view.setUint32(156, value.operationPages, true);
  setUint64(view, 160, value.createdMs);
  for (let i = 0; i < value.directory.length; i++) {
    view.setUint32(directoryOffset + i * 4, value.directory[i], true);
  }
  view.setUint32(superblockCrcOffset, checksum(bytes, 0, blockBytes), true);
  return bytes;
}

/**
 * `foreign`: not ours at all (no magic). `damaged`: ours, but its checksum does not match.
 * Throws FORMAT_UNKNOWN for a version or block size this program does not know.
 */
export function decodeSuperblock(
  bytes: Uint8Array,
  device: string,
  checksum: Checksum,
): Superblock | "foreign" | "damaged" {
  if (!superblockMagic.every((byte, i) => bytes[i] === byte)) return "foreign";
  const copy = bytes.slice(0, blockBytes);
  const view = new DataView(copy.buffer);
  const crc = view.getUint32(superblockCrcOffset, true);
  view.setUint32(superblockCrcOffset, 0, true);
  if (checksum(copy, 0, blockBytes) !== crc) return "damaged";
  const format = view.getUint32(16, true);
  const block = view.getUint32(88, true);
  const chunk = view.getUint32(92, true);
  const { oldest, newest } = formatVersions;
  if (format < oldest || format > newest || block !== blockBytes || chunk !== chunkBlocks) {
    throw new KeelsonError(
      "FORMAT_UNKNOWN",
      `${device} holds a Keelson store of format ${format} (blocks of ${block} bytes, chunks of ${chunk} blocks); this program knows formats ${oldest} to ${newest}, with blocks of ${blockBytes} bytes.`,
      {
        operation: "mount store",
        object: device,
        remedy: "Use the release that made it, or a newer one. Nothing was changed.",
      },
    );
  }
  const directoryBlocks = Math.min(view.getUint32(140, true), maxDirectoryBlocks);
  return {
    format,
    clean: (view.getUint32(superblockFlagsOffset, true) & superblockFlag.clean) !== 0,
    pool: copy.slice(32, 48),
    store: copy.slice(48, 64),
    sequence: getUint64(view, 64),
    mountGeneration: getUint64(view, 72),
    deviceBlocks: getUint64(view, 80),
    logFirstBlock: view.getUint32(96, true),
    logBlocks: view.getUint32(100, true),
    checkpointSequence: getUint64(view, 104),
    tailSector: view.getUint32(112, true),
    checkpointPages: view.getUint32(116, true),
    nextLineage: view.getUint32(120, true),
    nextEpoch: view.getUint32(124, true),
    indexPages: view.getUint32(128, true),
    bitmapPages: view.getUint32(132, true),
    volumePages: view.getUint32(136, true),
    snapshotPages: view.getUint32(148, true),
    cellPages: view.getUint32(152, true),
    operationPages: view.getUint32(156, true),
    recordCount: view.getUint32(144, true),
    createdMs: getUint64(view, 160),
    directory: Array.from({ length: directoryBlocks }, (_, i) =>
      view.getUint32(directoryOffset + i * 4, true),
    ),
  };
}

export interface RecordHeader {
  readonly sequence: number;
  readonly mountGeneration: number;
  /** Every record up to this one was durable when this one was written. */
  readonly durableSequence: number;
  /** The newest superblock known durable then: an older one found at mount means one was lost. */
  readonly superblockSequence: number;
  readonly entryCount: number;
}

/** Sectors of a record with `entryCount` entries. */
export function recordSectors(entryCount: number): number {
  return Math.ceil((recordHeaderBytes + entryCount * entryBytes) / logSectorBytes);
}

/**
 * Completes a record whose entries already stand from byte 64 on. `view` covers the same memory as
 * `bytes`. The checksum covers everything from byte 8 to the last entry.
 */
export function sealRecord(
  bytes: Uint8Array,
  view: DataView,
  store: Uint8Array,
  entryCount: number,
  sequence: number,
  mountGeneration: number,
  durableSequence: number,
  superblockSequence: number,
  checksum: Checksum,
): void {
  view.setUint32(0, recordMagic, true);
  setUint64(view, 8, sequence);
  setUint64(view, 16, mountGeneration);
  setUint64(view, 24, durableSequence);
  setUint64(view, 32, superblockSequence);
  view.setUint32(40, entryCount, true);
  view.setUint32(44, 0, true);
  bytes.set(store, 48);
  view.setUint32(4, checksum(bytes, 8, recordHeaderBytes - 8 + entryCount * entryBytes), true);
}

/** Header of the record at the start of `bytes`, or how many bytes are needed to tell, or undefined. */
export function openRecord(
  bytes: Uint8Array,
  store: Uint8Array,
  maxEntries: number,
  checksum: Checksum,
): RecordHeader | number | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.getUint32(0, true) !== recordMagic) return undefined;
  for (let i = 0; i < 16; i++) if (bytes[48 + i] !== store[i]) return undefined;
  const entryCount = view.getUint32(40, true);
  if (entryCount > maxEntries) return undefined;
  const length = recordHeaderBytes + entryCount * entryBytes;
  if (length > bytes.byteLength) return length;
  if (checksum(bytes, 8, length - 8) !== view.getUint32(4, true)) return undefined;
  return {
    sequence: getUint64(view, 8),
    mountGeneration: getUint64(view, 16),
    durableSequence: getUint64(view, 24),
    superblockSequence: getUint64(view, 32),
    entryCount,
  };
}

/**
 * Header of every page that a checkpoint writes; `a`, `b`, `c` identify it: lineage, chunk, epoch of
 * a map page; page number, count and 0 of the others.
 */
export function sealPage(
  page: Uint8Array,
  kind: PageKind,
  pool: Uint8Array,
  mountGeneration: number,
  sequence: number,
  a: number,
  b: number,
  c: number,
  checksum: Checksum,
): void {
  const view = new DataView(page.buffer, page.byteOffset, blockBytes);
  view.setUint32(0, kind, true);
  page.set(pool, 8);
  setUint64(view, pageGenerationOffset, mountGeneration);
  setUint64(view, 32, sequence);
  view.setUint32(40, a, true);
  view.setUint32(44, b, true);
  view.setUint32(48, c, true);
  view.setUint32(52, 0, true);
  setUint64(view, 56, 0);
  view.setUint32(4, checksum(page, 8, blockBytes - 8), true);
}

/** True if `page` is whole, of this kind and pool, and identified by `a` (and by `b`, `c` if a map page). */
export function checkPage(
  page: Uint8Array,
  kind: PageKind,
  pool: Uint8Array,
  a: number,
  b: number,
  c: number,
  checksum: Checksum,
): boolean {
  const view = new DataView(page.buffer, page.byteOffset, blockBytes);
  if (view.getUint32(0, true) !== kind) return false;
  for (let i = 0; i < 16; i++) if (page[8 + i] !== pool[i]) return false;
  if (view.getUint32(40, true) !== a) return false;
  if (kind === PageKind.map && (view.getUint32(44, true) !== b || view.getUint32(48, true) !== c)) {
    return false;
  }
  return checksum(page, 8, blockBytes - 8) === view.getUint32(4, true);
}

export function setUint64(view: DataView, offset: number, value: number): void {
  view.setUint32(offset, value % 2 ** 32, true);
  view.setUint32(offset + 4, Math.floor(value / 2 ** 32), true);
}

export function getUint64(view: DataView, offset: number): number {
  return view.getUint32(offset, true) + view.getUint32(offset + 4, true) * 2 ** 32;
}

function fourBytes(text: string): number {
  return new DataView(new TextEncoder().encode(text).buffer).getUint32(0, true);
}

export function uuidBytes(uuid: string): Uint8Array {
  return Uint8Array.from(uuid.replaceAll("-", "").match(/../g)!, (pair) =>
    Number.parseInt(pair, 16),
  );
}

export function uuidText(bytes: Uint8Array): string {
  const hex = Array.from(bytes.subarray(0, 16), (byte) => byte.toString(16).padStart(2, "0")).join(
    "",
  );
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}
