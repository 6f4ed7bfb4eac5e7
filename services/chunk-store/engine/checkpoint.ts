/**
 * A checkpoint puts the map on disk as it is after record S, so that the log before it can be
 * written again:
 *
 *   1. dirty map pages, index, bitmap, tables, directory -> fresh slots
 *   2. device flush: the log up to S and all of these are durable
 *   3. superblock (the older of the two) -> leads to the new slots, tail = S + 1
 *   4. device flush: old slots, and what records up to S freed, are reusable
 *
 * Steps 2 and 4 wait without blocking; requests go on and their records follow S. A crash before 4
 * finds the older superblock, whose slots nobody has written over.
 */
import { blockBytes } from "../limits.ts";
import {
  bitmapWordsPerPage,
  directorySlotsPerBlock,
  encodeSuperblock,
  indexRecordsPerPage,
  maxDirectoryBlocks,
  PageKind,
  pageHeaderBytes,
  sealPage,
  snapshotFormat,
} from "./layout.ts";
import type { Store } from "./store.ts";
import { encodeCells, encodeLineages, encodeSnapshots } from "./tables.ts";

export interface Checkpoint {
  readonly sequence: number;
  readonly tailSector: number;
  /** Sectors of the log that it sets free. */
  readonly sectors: number;
  /** Slots to free when its superblock is durable. */
  readonly freed: number[];
  stage: "pages" | "superblock";
}

/** Step 1 at once, the rest by itself as flushes finish. Only when none is under way. */
export function beginCheckpoint(store: Store): void {
  const checkpoint = writePages(store);
  if (checkpoint === undefined) return;
  store.checkpoint = checkpoint;
  store.afterFlush((ok) => {
    if (!ok || store.checkpoint !== checkpoint || checkpoint.stage !== "pages") return;
    if (!writeSuperblock(store, checkpoint, false)) return;
    store.afterFlush((durable) => {
      if (durable && store.checkpoint === checkpoint) finish(store, checkpoint);
    });
  });
}

/** All steps, blocking: takes over the checkpoint under way, or makes one. */
export function checkpointNow(store: Store, clean = false): void {
  const checkpoint = store.checkpoint ?? writePages(store);
  if (checkpoint === undefined) return;
  store.checkpoint = checkpoint;
  if (checkpoint.stage === "pages") {
    if (!store.flushSync() || !writeSuperblock(store, checkpoint, clean)) return;
  }
  if (store.flushSync()) finish(store, checkpoint);
}

function finish(store: Store, checkpoint: Checkpoint): void {
  store.checkpoint = null;
  store.checkpoints++;
  store.log.usedSectors -= checkpoint.sectors;
  store.log.superblockSequence = store.superblock.sequence;
  for (const slot of checkpoint.freed) store.allocator.release(slot);
  store.allocator.releasePending(checkpoint.sequence);
}

function writeSuperblock(store: Store, checkpoint: Checkpoint, clean: boolean): boolean {
  const { superblock } = store;
  superblock.sequence++;
  superblock.clean = clean;
  superblock.checkpointSequence = checkpoint.sequence;
  superblock.tailSector = checkpoint.tailSector;
  superblock.nextLineage = store.lineages.nextNumber;
  superblock.nextEpoch = store.lineages.nextEpoch;
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

/** Collects pages and writes those that lie next to each other in one go. */
class PageWriter {
  private readonly buffer = new Uint8Array(64 * blockBytes);
  private first = 0;
  private count = 0;
  private readonly store: Store;
  good = true;

  constructor(store: Store) {
    this.store = store;
  }

  /** Room for a page that will stand in `slot`, filled with zeroes. */
  place(slot: number): Uint8Array {
    if (this.count === 64 || slot !== this.first + this.count) this.push();
    if (this.count === 0) this.first = slot;
    const page = this.buffer.subarray(this.count * blockBytes, (this.count + 1) * blockBytes);
    this.count++;
    page.fill(0);
    return page;
  }

  push(): void {
    if (this.count === 0) return;
    const position = this.first * blockBytes;
    this.good =
      this.store.disk.write(this.buffer, 0, this.count * blockBytes, position) && this.good;
    this.count = 0;
  }
}

function writePages(store: Store): Checkpoint | undefined {
  if (store.failure !== null) return undefined;
  const { log } = store;
  const checkpoint: Checkpoint = {
    sequence: log.sequence,
    tailSector: log.headSector,
    sectors: log.usedSectors,
    freed: [],
    stage: "pages",
  };
  const writer = new PageWriter(store);
  const complete = writeMapPages(store, writer) && writeHidden(store, writer, checkpoint);
  writer.push();
  if (complete && writer.good) return checkpoint;
  store.retire("a checkpoint could not be written");
  return undefined;
}

function writeMapPages(store: Store, writer: PageWriter): boolean {
  const { cache, index, allocator, log } = store;
  for (let frame = 0; cache.dirtyCount > 0 && frame < cache.frames; frame++) {
    if (cache.dirty[frame] === 0) continue;
    const record = cache.record(frame);
    const slot = allocator.allocateMap();
    if (slot < 0) return false;
    if (index.slot[record] !== 0) store.retireSlot(index.slot[record]);
    index.setSlot(record, slot);
    cache.write(frame, writer.place(slot), 0, log.mountGeneration, log.sequence);
  }
  return true;
}

/** Index, bitmap, tables and directory: new slots for the pages that changed, then their content. */
function writeHidden(store: Store, writer: PageWriter, checkpoint: Checkpoint): boolean {
  const { allocator, index, hidden, lineages, superblock, log } = store;
  checkpoint.freed.push(...store.retiredSlots);
  const persistedFree = [...store.retiredSlots];
  store.retiredSlots = [];
  const renew = (slots: number[], page: number): boolean => {
    const slot = allocator.allocateHidden();
    if (slot < 0) return false;
    if (slots[page] !== undefined) checkpoint.freed.push(slots[page]);
    slots[page] = slot;
    return true;
  };
  const indexPages: number[] = [];
  const bitmapPages: number[] = [];
  for (let page = 0; page < index.pages; page++) {
    if (index.dirtyPages[page] === 1 || hidden.index[page] === undefined) indexPages.push(page);
  }
  for (let page = 0; page < allocator.pages; page++) {
    if (allocator.dirtyPages[page] === 1 || hidden.bitmap[page] === undefined) {
      bitmapPages.push(page);
    }
  }
  // What an older program would not keep up must not be there when it has written.
  const young = superblock.format >= snapshotFormat;
  const tables = [
    { name: "volumes", kind: PageKind.volumes, pages: encodeLineages(lineages) },
    { name: "snapshots", kind: PageKind.snapshots, pages: encodeSnapshots(lineages) },
    { name: "cells", kind: PageKind.cells, pages: young ? encodeCells(lineages) : [] },
  ] as const;
  for (const name of ["volumes", "snapshots", "cells", "directory"] as const) {
    for (const slot of hidden[name]) checkpoint.freed.push(slot);
    hidden[name] = [];
  }
  const oldHidden = [...checkpoint.freed];
  const tablePages = tables.reduce((sum, table) => sum + table.pages.length, 0);
  const pages = index.pages + allocator.pages + tablePages;
  const directoryBlocks = Math.ceil(pages / directorySlotsPerBlock);
  if (directoryBlocks > maxDirectoryBlocks) return false;
  const allocated =
    indexPages.every((page) => renew(hidden.index, page)) &&
    bitmapPages.every((page) => renew(hidden.bitmap, page)) &&
    tables.every((table) => table.pages.every((_, page) => renew(hidden[table.name], page))) &&
    Array.from({ length: directoryBlocks }).every((_, i) => renew(hidden.directory, i));
  if (!allocated) return false;

  const seal = (page: Uint8Array, kind: PageKind, a: number, b: number) =>
    sealPage(
      page,
      kind,
      superblock.pool,
      log.mountGeneration,
      log.sequence,
      a,
      b,
      0,
      store.checksum,
    );
  for (const page of indexPages)
    writeIndexPage(store, page, writer.place(hidden.index[page]), seal);
  const notInBitmap = [
    persistedFree,
    oldHidden,
    checkpoint.freed,
    ...Object.values(hidden),
    allocator.pendingList(),
    store.stagedPointers.subarray(0, store.stagedCount),
  ];
  withoutBits(allocator.words, notInBitmap, () => {
    for (const page of bitmapPages) {
      const bytes = writer.place(hidden.bitmap[page]);
      const first = page * bitmapWordsPerPage;
      const words = allocator.words.subarray(first, first + bitmapWordsPerPage);
      bytes.set(new Uint8Array(words.buffer, words.byteOffset, words.byteLength), pageHeaderBytes);
      seal(bytes, PageKind.bitmap, page, bitmapWordsPerPage);
    }
  });
  for (const table of tables) {
    table.pages.forEach(({ page: content, count }, i) => {
      const bytes = writer.place(hidden[table.name][i]);
      bytes.set(content);
      seal(bytes, table.kind, i, count);
    });
  }
  const slots = [
    ...hidden.index,
    ...hidden.bitmap,
    ...hidden.volumes,
    ...hidden.snapshots,
    ...hidden.cells,
  ];
  for (let i = 0; i < directoryBlocks; i++) {
    const bytes = writer.place(hidden.directory[i]);
    const view = new DataView(bytes.buffer, bytes.byteOffset, blockBytes);
    const some = slots.slice(i * directorySlotsPerBlock, (i + 1) * directorySlotsPerBlock);
    some.forEach((slot, at) => {
      view.setUint32(pageHeaderBytes + at * 4, slot, true);
    });
    seal(bytes, PageKind.directory, i, some.length);
  }
  index.dirtyPages.fill(0);
  index.dirtyCount = 0;
  allocator.dirtyPages.fill(0);
  allocator.dirtyCount = 0;
  superblock.indexPages = index.pages;
  superblock.bitmapPages = allocator.pages;
  superblock.volumePages = hidden.volumes.length;
  superblock.snapshotPages = hidden.snapshots.length;
  superblock.cellPages = hidden.cells.length;
  superblock.recordCount = index.count;
  superblock.directory = [...hidden.directory];
  return true;
}

function writeIndexPage(
  store: Store,
  page: number,
  bytes: Uint8Array,
  seal: (page: Uint8Array, kind: PageKind, a: number, b: number) => void,
): void {
  const { index } = store;
  const view = new DataView(bytes.buffer, bytes.byteOffset, blockBytes);
  const first = page * indexRecordsPerPage;
  const last = Math.min(index.count, first + indexRecordsPerPage);
  for (let record = first, at = pageHeaderBytes; record < last; record++, at += 16) {
    view.setUint32(at, index.lineage[record], true);
    view.setUint32(at + 4, index.chunk[record], true);
    view.setUint32(at + 8, index.epoch[record], true);
    view.setUint32(at + 12, index.slot[record], true);
  }
  seal(bytes, PageKind.index, page, last - first);
}

/** Runs `action` with the bits of all these blocks cleared; then puts back those that were set. */
function withoutBits(
  words: Uint32Array,
  lists: readonly (readonly number[] | Uint32Array)[],
  action: () => void,
): void {
  const cleared: number[] = [];
  for (const list of lists) {
    for (const block of list) {
      const bit = 1 << (block & 31);
      if ((words[block >>> 5] & bit) === 0) continue;
      words[block >>> 5] &= ~bit;
      cleared.push(block);
    }
  }
  action();
  for (const block of cleared) words[block >>> 5] |= 1 << (block & 31);
}
