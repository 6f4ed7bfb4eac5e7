/**
 * Format, mount and replay.
 *
 *   flush the device      what is read from here on is durable, also after a kill -9
 *   superblocks           the newer valid one
 *   directory             -> tables, index, bitmap as of its checkpoint
 *   log, pass 1           records in sequence from the tail; D = the highest durable sequence stated
 *   log, pass 2           records after D: every block they name must match its checksum; the log
 *                         ends before the first record with one that does not
 *   log, pass 3           apply what is left
 *   superblock + record   a new mount generation; the record states the whole log durable
 *   flush the device      only now may anything be allocated
 *
 * Whole records are dropped, and all that follow: what was flushed is a prefix of the log, so
 * nothing flushed is dropped, and what remains is as it was at one instant.
 */
import { KeelsonError } from "#lib/model/errors.ts";
import { formatSize } from "#lib/model/size.ts";
import { blockBytes, maxDeviceBytes, minDeviceBytes } from "../limits.ts";
import { Allocator } from "./allocator.ts";
import { alive } from "./cells.ts";
import { checkpointNow, putSuperblock } from "./checkpoint.ts";
import { ChunkIndex } from "./chunk-index.ts";
import type { Checksum, Disk } from "./disk.ts";
import {
  bitmapWordsPerPage,
  checkPage,
  decodeSuperblock,
  directorySlotsPerBlock,
  formatVersions,
  getUint64,
  indexRecordsPerPage,
  PageKind,
  type PageKind as PageKindType,
  pageGenerationOffset,
  pageHeaderBytes,
  type Superblock,
  snapshotFormat,
  uuidBytes,
} from "./layout.ts";
import { intervalOf, type Lineage, Lineages } from "./lineages.ts";
import { Log } from "./log.ts";
import { PageCache } from "./page-cache.ts";
import { replayLog } from "./replay.ts";
import { Store } from "./store.ts";
import {
  type Decode,
  decodeCells,
  decodeLineages,
  decodeOperations,
  decodeSnapshots,
} from "./tables.ts";

export interface FormatOptions {
  readonly device: string;
  readonly pool: string;
  readonly store: string;
  readonly nowMs: number;
  readonly checksum: Checksum;
  /** To write; default: the newest. */
  readonly format?: number;
}

export interface MountOptions {
  readonly device: string;
  readonly checksum: Checksum;
  /** For map pages; what the format needs at least is taken in any case. */
  readonly memoryBytes: number;
  /** Refuses a store of another pool. */
  readonly pool?: string | undefined;
  /** To write from now on; an older store is brought forward, a newer one stays. Default: newest. */
  readonly format?: number;
}

const firstLogBlock = 2;

/** Makes a store on a device that the caller knows to be blank. Whatever it holds is lost. */
export function formatStore(disk: Disk, options: FormatOptions): void {
  const { device } = options;
  if (disk.sizeBytes < minDeviceBytes || disk.sizeBytes > maxDeviceBytes) {
    throw new KeelsonError(
      "INVALID_ARGUMENT",
      `${device} has ${formatSize(disk.sizeBytes)}; a store needs ${formatSize(minDeviceBytes)} to ${formatSize(maxDeviceBytes)}.`,
      { operation: "create store", object: device, remedy: "Give another size or device." },
    );
  }
  const deviceBlocks = Math.floor(disk.sizeBytes / blockBytes);
  const logBlocks = Math.min(65536, Math.max(64, Math.floor(deviceBlocks / 64)));
  const superblock: Superblock = {
    format: options.format ?? formatVersions.newest,
    clean: false,
    pool: uuidBytes(options.pool),
    store: uuidBytes(options.store),
    sequence: 0,
    mountGeneration: 0,
    deviceBlocks,
    logFirstBlock: firstLogBlock,
    logBlocks,
    checkpointSequence: 0,
    tailSector: 0,
    checkpointPages: Math.max(32, Math.floor(deviceBlocks / 128)),
    nextLineage: 1,
    nextEpoch: 1,
    indexPages: 0,
    bitmapPages: 0,
    volumePages: 0,
    snapshotPages: 0,
    cellPages: 0,
    operationPages: 0,
    recordCount: 0,
    createdMs: options.nowMs,
    directory: [],
  };
  const store = assemble(disk, superblock, { ...options, memoryBytes: 0 });
  // Nothing that an earlier store left there can pass for a record.
  if (!zero(disk, firstLogBlock + logBlocks)) throw unreadable(device);
  if (!disk.flushSync() || !putSuperblock(store) || !disk.flushSync()) throw unreadable(device);
}

/** The first blocks of a disk; what reads zero already is not written, so a sparse file stays so. */
function zero(disk: Disk, blocks: number): boolean {
  const zeroes = new Uint8Array(64 * blockBytes);
  const found = new Uint8Array(zeroes.length);
  for (let block = 0; block < blocks; block += 64) {
    const bytes = Math.min(64, blocks - block) * blockBytes;
    const position = block * blockBytes;
    if (!disk.read(found, 0, bytes, position)) return false;
    const blank = Buffer.compare(found.subarray(0, bytes), zeroes.subarray(0, bytes)) === 0;
    if (!blank && !disk.write(zeroes, 0, bytes, position)) return false;
  }
  return true;
}

export function mountStore(disk: Disk, options: MountOptions): Store {
  if (new Uint8Array(new Uint32Array([1]).buffer)[0] !== 1) {
    throw new KeelsonError("UNSUPPORTED", "A store needs a little-endian machine.");
  }
  const { device } = options;
  if (!disk.flushSync()) throw unreadable(device);
  const { superblock, ended } = readSuperblock(disk, options);
  const store = assemble(disk, superblock, options);
  if (superblock.directory.length > 0) loadCheckpoint(store);
  else store.allocator.recount();
  takeFixedBlocks(store);
  const { generation, records } = replayLog(store, superblock.mountGeneration, ended);
  if (records > 0) takePages(store);
  const { log } = store;
  log.mountGeneration = generation + 1;
  superblock.mountGeneration = log.mountGeneration;
  superblock.sequence++;
  superblock.clean = false;
  log.durable = log.sequence;
  const good = putSuperblock(store) && store.appendRecord() && store.flushSync();
  if (!good) throw unreadable(device);
  log.superblockSequence = superblock.sequence;
  log.statedDurable = log.stated;
  if (log.usedSectors * 2 > log.sectors) checkpointNow(store);
  store.raiseFormat(options.format ?? formatVersions.newest);
  return store;
}

/**
 * `ended`: a shutdown has flushed everything and written nothing since. With one of the two damaged
 * that is not sure: it may have been the newer one.
 */
function readSuperblock(
  disk: Disk,
  options: MountOptions,
): { readonly superblock: Superblock; readonly ended: boolean } {
  const { device, checksum } = options;
  const bytes = new Uint8Array(2 * blockBytes);
  const large = disk.sizeBytes >= bytes.length;
  if (large && !disk.read(bytes, 0, bytes.length, 0)) throw unreadable(device);
  const found = [0, 1].map((slot) =>
    decodeSuperblock(bytes.subarray(slot * blockBytes, (slot + 1) * blockBytes), device, checksum),
  );
  const valid = found.filter((each) => typeof each === "object");
  if (valid.length === 0) {
    if (found.includes("damaged")) {
      throw new KeelsonError(
        "FORMAT_CORRUPT",
        `Both superblocks of the store on ${device} are damaged.`,
        { operation: "mount store", object: device, remedy: "Nothing was changed." },
      );
    }
    throw new KeelsonError("FORMAT_UNKNOWN", `${device} does not hold a Keelson store.`, {
      operation: "mount store",
      object: device,
      remedy: "Give the device of a store, or a path where there is no file yet with --create.",
    });
  }
  const superblock = valid.reduce((a, b) => (b.sequence > a.sequence ? b : a));
  if (superblock.deviceBlocks * blockBytes > disk.sizeBytes) {
    throw new KeelsonError(
      "FORMAT_CORRUPT",
      `${device} has shrunk: its store has ${superblock.deviceBlocks} blocks of 4 KiB, the device has ${Math.floor(disk.sizeBytes / blockBytes)} now.`,
      {
        operation: "mount store",
        object: device,
        remedy: "Restore its former size. Nothing was changed.",
      },
    );
  }
  const pool = options.pool === undefined ? undefined : uuidBytes(options.pool);
  if (pool?.some((byte, i) => byte !== superblock.pool[i]) === true) {
    throw new KeelsonError("CONFLICT", `The store on ${device} belongs to another pool.`, {
      operation: "mount store",
      object: device,
      remedy: "Give the device of this pool, or no --pool to take the one it has.",
    });
  }
  return { superblock, ended: superblock.clean && valid.length === 2 };
}

function assemble(disk: Disk, superblock: Superblock, options: MountOptions): Store {
  const { checksum, device } = options;
  const index = new ChunkIndex();
  const log = new Log(
    disk,
    superblock.logFirstBlock,
    superblock.logBlocks,
    superblock.store,
    checksum,
  );
  log.sequence = superblock.checkpointSequence;
  log.headSector = superblock.tailSector;
  log.superblockSequence = superblock.sequence;
  return new Store({
    device,
    disk,
    checksum,
    superblock,
    allocator: new Allocator(superblock.deviceBlocks),
    index,
    cache: new PageCache(options.memoryBytes, index, disk, superblock.pool, checksum),
    log,
    lineages: new Lineages(),
  });
}

function takeFixedBlocks(store: Store): void {
  const { allocator, superblock, hidden } = store;
  const end = superblock.logFirstBlock + superblock.logBlocks;
  for (let block = 0; block < end; block++) allocator.take(block);
  for (const slots of Object.values(hidden)) {
    for (const slot of slots) allocator.take(slot);
  }
}

/**
 * What the log freed after a checkpoint began, the checkpoint may have taken for its pages: replay
 * has freed those again.
 */
function takePages({ allocator, index, hidden, retiredSlots }: Store): void {
  for (let record = 0; record < index.count; record++) {
    if (index.slot[record] !== 0) allocator.take(index.slot[record]);
  }
  for (const slots of [retiredSlots, ...Object.values(hidden)]) {
    for (const slot of slots) allocator.take(slot);
  }
}

function loadCheckpoint(store: Store): void {
  const { superblock, hidden, index, allocator, lineages, device } = store;
  const reader = new PageReader(store);
  const { page, view } = reader;
  hidden.directory = [...superblock.directory];
  const slots: number[] = [];
  reader.read(hidden.directory, PageKind.directory, "directory", (_, count) => {
    const here = Math.min(count, directorySlotsPerBlock);
    for (let at = 0; at < here; at++) slots.push(view.getUint32(pageHeaderBytes + at * 4, true));
    store.log.mountGeneration = getUint64(view, pageGenerationOffset);
  });
  const take = (count: number) => slots.splice(0, count);
  hidden.index = take(superblock.indexPages);
  hidden.bitmap = take(superblock.bitmapPages);
  const loadTable = (pages: number, kind: PageKindType, what: string, decode: Decode) => {
    const taken = take(pages);
    reader.read(taken, kind, what, (_, count) => {
      if (!decode(lineages, page, count)) throw unreadable(device);
    });
    return taken;
  };
  const { volumes, snapshots, cells, operations } = PageKind;
  hidden.volumes = loadTable(superblock.volumePages, volumes, "volume table", decodeLineages);
  hidden.snapshots = loadTable(
    superblock.snapshotPages,
    snapshots,
    "snapshot table",
    decodeSnapshots,
  );
  hidden.cells = loadTable(superblock.cellPages, cells, "space table", decodeCells);
  hidden.operations = loadTable(
    superblock.operationPages,
    operations,
    "operation table",
    decodeOperations,
  );
  if (superblock.format < snapshotFormat) {
    // Without snapshots nothing has died that is still there.
    for (const lineage of lineages.byNumber.values()) lineage.live.blocks = lineage.ownedBlocks;
  }
  lineages.countChildren();
  lineages.nextNumber = Math.max(lineages.nextNumber, superblock.nextLineage);
  lineages.nextEpoch = Math.max(lineages.nextEpoch, superblock.nextEpoch);
  index.reserve(Math.min(superblock.recordCount, hidden.index.length * indexRecordsPerPage));
  const words = new Uint32Array(page.buffer, pageHeaderBytes, bitmapWordsPerPage);
  reader.read(hidden.index, PageKind.index, "index", (number, count) => {
    const end = Math.min(count, indexRecordsPerPage);
    for (let i = 0, at = 0; i < end; i++, at += 4) {
      const record = number * indexRecordsPerPage + i;
      index.load(record, words[at], words[at + 1], words[at + 2], words[at + 3]);
    }
  });
  fillCells(store);
  reader.read(hidden.bitmap, PageKind.bitmap, "bitmap", (number) => {
    allocator.words.set(words, number * bitmapWordsPerPage);
  });
  allocator.recount();
}

const pagesAtOnce = 256;

/** Reads pages by number, and those that lie next to each other in one go. */
class PageReader {
  /** The one that is being told of. */
  readonly page = new Uint8Array(blockBytes);
  readonly view = new DataView(this.page.buffer);
  private readonly store: Store;
  private run = new Uint8Array(blockBytes);

  constructor(store: Store) {
    this.store = store;
  }

  /** FORMAT_CORRUPT if one of them is not what it should be. */
  read(
    slots: readonly number[],
    kind: PageKindType,
    what: string,
    each: (number: number, count: number) => void,
  ): void {
    const { superblock, checksum, device } = this.store;
    for (let first = 0; first < slots.length; ) {
      let count = 1;
      while (count < pagesAtOnce && slots[first + count] === slots[first] + count) count++;
      // One of them may be all that can't be read.
      if (!this.readRun(slots[first], count)) count = this.readRun(slots[first], 1) ? 1 : 0;
      for (let i = 0; i < Math.max(1, count); i++) {
        this.page.set(this.run.subarray(i * blockBytes, (i + 1) * blockBytes));
        const number = first + i;
        if (count === 0 || !checkPage(this.page, kind, superblock.pool, number, 0, 0, checksum)) {
          throw new KeelsonError(
            "FORMAT_CORRUPT",
            `Block ${slots[number]} of ${device}, page ${number} of its ${what}, is damaged.`,
            { operation: "mount store", object: device, remedy: "Nothing was changed." },
          );
        }
        each(number, this.view.getUint32(44, true));
      }
      first += count;
    }
  }

  private readRun(slot: number, count: number): boolean {
    const { disk, superblock } = this.store;
    if (slot + count > superblock.deviceBlocks) return false;
    const bytes = count * blockBytes;
    if (this.run.length < bytes) this.run = new Uint8Array(bytes);
    return disk.read(this.run, 0, bytes, slot * blockBytes);
  }
}

/** Each record into the list of its cell. */
function fillCells({ index, lineages, device }: Store): void {
  let lineage: Lineage | undefined;
  for (let record = 0; record < index.count; record++) {
    const number = index.lineage[record];
    if (number === 0) continue;
    if (lineage?.number !== number) lineage = lineages.byNumber.get(number);
    if (lineage === undefined) throw unreadable(device);
    const newer = index.newer[record];
    const death = newer < 0 ? alive : intervalOf(lineage, index.epoch[newer]);
    index.putInto(lineage.cells.at(intervalOf(lineage, index.epoch[record]), death), record);
  }
}

function unreadable(device: string): KeelsonError {
  return new KeelsonError("MEDIA_ERROR", `${device} gave an error while its store was mounted.`, {
    operation: "mount store",
    object: device,
    remedy: "Check the device and its cabling.",
  });
}
