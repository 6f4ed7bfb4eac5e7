/**
 * A checkpoint puts the map on disk as it is after record S, so that the log before it can be
 * written again:
 *
 *   1. map pages that are dirty, index, bitmap, tables, directory -> fresh slots
 *   2. device flush: the log up to S and all of these are durable
 *   3. superblock (the older of the two) -> leads to the new slots, tail = S + 1
 *   4. device flush: old slots, and what records up to S freed, are reusable
 *
 * Step 1 goes in slices between requests; steps 2 and 4 wait without blocking. Requests go on
 * meanwhile and their records follow S: a page that one is about to change is written before, as it
 * is, and index, bitmap and tables are copies (checkpoint-image.ts). A crash before 4 finds the
 * older superblock, whose slots nobody has written over.
 */
import { blockBytes } from "../limits.ts";
import { CheckpointImage, type TableName, tableNames } from "./checkpoint-image.ts";
import {
  bitmapWordsPerPage,
  directorySlotsPerBlock,
  encodeSuperblock,
  maxDirectoryBlocks,
  PageKind,
  pageHeaderBytes,
  sealPage,
  snapshotFormat,
} from "./layout.ts";
import type { Store } from "./store.ts";

export interface Checkpoint {
  readonly sequence: number;
  readonly tailSector: number;
  /** Sectors of the log that it sets free. */
  readonly sectors: number;
  /** Slots to free when its superblock is durable. */
  readonly freed: number[];
  readonly image: CheckpointImage;
  readonly writer: PageWriter;
  /** Writes one page more each time; ends early when the store retires. */
  readonly pages: Iterator<void>;
  /** Pages left to write, about. */
  pagesLeft: number;
  stage: "pages" | "flush" | "superblock";
}

/** Only when none is under way. `advanceCheckpoint` brings it to its end. */
export function beginCheckpoint(store: Store): void {
  if (store.failure !== null) return;
  const { log } = store;
  const image = new CheckpointImage(store);
  store.checkpoint = {
    sequence: log.sequence,
    tailSector: log.headSector,
    sectors: log.usedSectors,
    freed: store.retiredSlots,
    image,
    writer: new PageWriter(store),
    pages: writePages(store),
    pagesLeft: image.pages,
    stage: "pages",
  };
  store.retiredSlots = [];
  // A program that knows no better would free again what later pages took (mount.ts, takePages).
  if (store.superblock.format < snapshotFormat) advanceCheckpoint(store, Number.POSITIVE_INFINITY);
}

/** Writes some pages; after the last one the rest goes by itself, as flushes finish. */
export function advanceCheckpoint(store: Store, pages: number): void {
  const { checkpoint } = store;
  if (checkpoint === null || !writeSome(store, checkpoint, pages)) return;
  checkpoint.stage = "flush";
  store.afterFlush((ok) => {
    if (!ok || store.checkpoint !== checkpoint || checkpoint.stage !== "flush") return;
    if (!writeSuperblock(store, checkpoint, false)) return;
    store.afterFlush((durable) => {
      if (durable && store.checkpoint === checkpoint) finish(store, checkpoint);
    });
  });
}

/** All steps, blocking: takes over the checkpoint under way, or makes one. */
export function checkpointNow(store: Store, clean = false): void {
  if (store.checkpoint === null) beginCheckpoint(store);
  const { checkpoint } = store;
  if (checkpoint === null) return;
  if (checkpoint.stage === "pages" && !writeSome(store, checkpoint, Number.POSITIVE_INFINITY)) {
    return;
  }
  if (checkpoint.stage !== "superblock") {
    if (!store.flushSync() || !writeSuperblock(store, checkpoint, clean)) return;
  }
  if (store.flushSync()) finish(store, checkpoint);
}

/** A record that the checkpoint under way has not come to is about to change. */
export function writeDue(store: Store, record: number, frame: number): void {
  const { checkpoint } = store;
  if (checkpoint === null) return;
  putMapPage(store, checkpoint, record, frame);
  // Its page may be read back at once.
  checkpoint.writer.push();
}

/** True when all pages are written. */
function writeSome(store: Store, checkpoint: Checkpoint, pages: number): boolean {
  if (checkpoint.stage !== "pages") return false;
  let done = false;
  for (let i = 0; i < pages && !done; i++) done = checkpoint.pages.next().done === true;
  checkpoint.writer.push();
  return done && store.failure === null;
}

// ---- pages ---------------------------------------------------------------------------------

/** Of the checkpoint under way when it is first asked for one. */
function* writePages(store: Store): Generator<void> {
  const { index, cache } = store;
  const checkpoint = store.checkpoint!;
  for (const record of checkpoint.image.due) {
    if (index.due[record] === 0) continue;
    const frame = cache.load(record);
    if (frame < 0) return store.retire("a map page could not be read back");
    if (!putMapPage(store, checkpoint, record, frame)) return;
    yield;
  }
  yield* writeIndex(store, checkpoint);
  yield* writeBitmap(store, checkpoint);
  yield* writeTables(store, checkpoint);
  yield* writeDirectory(store, checkpoint);
}

function putMapPage(store: Store, checkpoint: Checkpoint, record: number, frame: number): boolean {
  const { image, freed, writer } = checkpoint;
  const { index, cache, log } = store;
  const slot = takeSlot(store);
  if (slot < 0) return false;
  index.due[record] = 0;
  checkpoint.pagesLeft--;
  const before = index.slot[record];
  if (before !== 0) freed.push(before);
  image.move(record, before, slot);
  index.moveSlot(record, slot);
  cache.encode(frame, writer.place(slot), log.mountGeneration, checkpoint.sequence);
  cache.markClean(frame);
  return true;
}

/** Seals a page that is not of the map and gives it a slot. False when the store is retired. */
function putHidden(
  store: Store,
  checkpoint: Checkpoint,
  slots: number[],
  kind: PageKind,
  page: number,
  count: number,
  fill: (bytes: Uint8Array) => void,
): boolean {
  const { writer, sequence, freed } = checkpoint;
  const slot = takeSlot(store);
  if (slot < 0) return false;
  checkpoint.pagesLeft--;
  if (slots[page] !== undefined) freed.push(slots[page]);
  slots[page] = slot;
  const { superblock, log, checksum } = store;
  const bytes = writer.place(slot);
  fill(bytes);
  const { mountGeneration } = log;
  sealPage(bytes, kind, superblock.pool, mountGeneration, sequence, page, count, 0, checksum);
  return true;
}

function takeSlot(store: Store): number {
  const slot = store.allocator.allocateMetadata();
  if (slot < 0) store.retire("a checkpoint found no room");
  return slot;
}

function* writeIndex(store: Store, checkpoint: Checkpoint): Generator<void> {
  const { image } = checkpoint;
  for (const [page, content] of image.index) {
    const put = (bytes: Uint8Array) => bytes.set(new Uint8Array(content.buffer), pageHeaderBytes);
    const count = image.recordsOf(page);
    if (!putHidden(store, checkpoint, store.hidden.index, PageKind.index, page, count, put)) return;
    yield;
  }
}

function* writeBitmap(store: Store, checkpoint: Checkpoint): Generator<void> {
  const { bitmap, bitmapDirty } = checkpoint.image;
  for (let page = 0; page < bitmapDirty.length; page++) {
    if (bitmapDirty[page] === 0) continue;
    const first = page * bitmapWordsPerPage;
    const words = bitmap.subarray(first, first + bitmapWordsPerPage);
    const put = (bytes: Uint8Array) =>
      bytes.set(new Uint8Array(words.buffer, words.byteOffset, words.byteLength), pageHeaderBytes);
    const { hidden } = store;
    const count = bitmapWordsPerPage;
    if (!putHidden(store, checkpoint, hidden.bitmap, PageKind.bitmap, page, count, put)) return;
    yield;
  }
}

/** Always written anew. */
function* writeTables(store: Store, checkpoint: Checkpoint): Generator<void> {
  const { hidden } = store;
  for (const name of tableNames) {
    renewAll(store, checkpoint, name);
    for (const [page, { page: content, count }] of checkpoint.image.tables[name].entries()) {
      const put = (bytes: Uint8Array) => bytes.set(content);
      if (!putHidden(store, checkpoint, hidden[name], PageKind[name], page, count, put)) return;
      yield;
    }
  }
}

function* writeDirectory(store: Store, checkpoint: Checkpoint): Generator<void> {
  const { hidden } = store;
  const slots = [
    ...hidden.index,
    ...hidden.bitmap,
    ...hidden.volumes,
    ...hidden.snapshots,
    ...hidden.cells,
    ...hidden.operations,
  ];
  const pages = Math.ceil(slots.length / directorySlotsPerBlock);
  if (pages > maxDirectoryBlocks) return store.retire("its directory is full");
  renewAll(store, checkpoint, "directory");
  for (let page = 0; page < pages; page++) {
    const first = page * directorySlotsPerBlock;
    const some = slots.slice(first, first + directorySlotsPerBlock);
    const put = (bytes: Uint8Array) => {
      const view = new DataView(bytes.buffer, bytes.byteOffset, blockBytes);
      for (const [i, slot] of some.entries()) view.setUint32(pageHeaderBytes + i * 4, slot, true);
    };
    const { directory } = PageKind;
    if (!putHidden(store, checkpoint, hidden.directory, directory, page, some.length, put)) return;
    yield;
  }
}

function renewAll({ hidden }: Store, { freed }: Checkpoint, name: TableName | "directory"): void {
  for (const slot of hidden[name]) freed.push(slot);
  hidden[name] = [];
}

// ---- the end -------------------------------------------------------------------------------

function finish(store: Store, checkpoint: Checkpoint): void {
  store.checkpoint = null;
  store.checkpoints++;
  store.log.usedSectors -= checkpoint.sectors;
  store.log.superblockSequence = store.superblock.sequence;
  for (const slot of checkpoint.freed) store.allocator.release(slot);
  store.allocator.releasePending(checkpoint.sequence);
}

function writeSuperblock(store: Store, checkpoint: Checkpoint, clean: boolean): boolean {
  const { superblock, hidden } = store;
  const { image } = checkpoint;
  superblock.sequence++;
  superblock.clean = clean;
  superblock.checkpointSequence = checkpoint.sequence;
  superblock.tailSector = checkpoint.tailSector;
  superblock.nextLineage = store.lineages.nextNumber;
  superblock.nextEpoch = store.lineages.nextEpoch;
  superblock.indexPages = image.indexPages;
  superblock.bitmapPages = store.allocator.pages;
  superblock.volumePages = hidden.volumes.length;
  superblock.snapshotPages = hidden.snapshots.length;
  superblock.cellPages = hidden.cells.length;
  superblock.operationPages = hidden.operations.length;
  superblock.recordCount = image.records;
  superblock.directory = [...hidden.directory];
  checkpoint.stage = "superblock";
  return putSuperblock(store);
}

/** Writes the superblock to the slot that the one before it does not use. */
export function putSuperblock(store: Store): boolean {
  const bytes = encodeSuperblock(store.superblock, store.checksum);
  const position = (store.superblock.sequence % 2) * blockBytes;
  if (store.disk.write(bytes, 0, blockBytes, position)) return true;
  store.retire("a write of its superblock failed");
  return false;
}

const writerPages = 64;
/** Of all writers: nothing stays in it from one slice to the next. */
const writerBuffer = new Uint8Array(writerPages * blockBytes);

/** Collects pages and writes those that lie next to each other in one go. */
class PageWriter {
  private first = 0;
  private count = 0;
  private readonly store: Store;

  constructor(store: Store) {
    this.store = store;
  }

  /** Room for a page that will stand in `slot`, filled with zeroes. */
  place(slot: number): Uint8Array {
    if (this.count === writerPages || slot !== this.first + this.count) this.push();
    if (this.count === 0) this.first = slot;
    const page = writerBuffer.subarray(this.count * blockBytes, (this.count + 1) * blockBytes);
    this.count++;
    page.fill(0);
    return page;
  }

  push(): void {
    if (this.count === 0) return;
    const position = this.first * blockBytes;
    const bytes = this.count * blockBytes;
    const good = this.store.disk.write(writerBuffer, 0, bytes, position);
    if (!good) this.store.retire("a checkpoint could not be written");
    this.store.noteWritten(bytes);
    this.count = 0;
  }
}
