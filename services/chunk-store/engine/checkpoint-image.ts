/**
 * What a checkpoint writes beside map pages, as it is after record S: the index, the bitmap and the
 * tables are copied when it begins, since requests go on while it writes. Pages that are written
 * later put their new places into the copies.
 */
import type { ChunkIndex } from "./chunk-index.ts";
import {
  bitmapBlocksPerPage,
  indexRecordBytes,
  indexRecordsPerPage,
  snapshotFormat,
} from "./layout.ts";
import type { Store } from "./store.ts";
import {
  encodeCells,
  encodeLineages,
  encodeOperations,
  encodeSnapshots,
  type TablePage,
} from "./tables.ts";

const slotOffset = 12;

export const tableNames = ["volumes", "snapshots", "cells", "operations"] as const;
export type TableName = (typeof tableNames)[number];

export class CheckpointImage {
  /** Dirty records; those that were written since are no longer due in the index. */
  readonly due: Uint32Array;
  readonly indexPages: number;
  readonly records: number;
  /** Content of the index pages that are out of date on disk, without their headers. */
  readonly index = new Map<number, DataView>();
  readonly bitmap: Uint32Array;
  readonly bitmapDirty: Uint8Array;
  readonly tables: Readonly<Record<TableName, readonly TablePage[]>>;

  constructor(store: Store) {
    const { index, cache, allocator, hidden, lineages, superblock } = store;
    this.indexPages = index.pages;
    this.records = index.count;
    this.due = takeDue(index, (record) => cache.isDirty(record), cache.dirtyCount);
    for (let page = 0; page < index.pages; page++) {
      if (index.dirtyPages[page] === 1 || hidden.index[page] === undefined)
        this.copyIndex(store, page);
    }
    for (const record of this.due) {
      const page = (record / indexRecordsPerPage) | 0;
      if (!this.index.has(page)) this.copyIndex(store, page);
    }
    this.bitmap = allocator.words.slice();
    this.bitmapDirty = allocator.dirtyPages.slice();
    for (let page = 0; page < allocator.pages; page++) {
      if (hidden.bitmap[page] === undefined) this.bitmapDirty[page] = 1;
    }
    for (const list of notInBitmap(store)) {
      for (const block of list) this.bitmap[block >>> 5] &= ~(1 << (block & 31));
    }
    // What an older program would not keep up must not be there when it has written.
    const young = superblock.format >= snapshotFormat;
    this.tables = {
      volumes: encodeLineages(lineages),
      snapshots: encodeSnapshots(lineages),
      cells: young ? encodeCells(lineages) : [],
      operations: young ? encodeOperations(lineages) : [],
    };
    index.dirtyPages.fill(0);
    allocator.dirtyPages.fill(0);
  }

  /** That it has to write, about. */
  get pages(): number {
    const tables = Object.values(this.tables).reduce((sum, table) => sum + table.length, 0);
    return this.due.length + this.index.size + this.bitmapDirty.length + tables + 1;
  }

  /** The map page of a record lies in another slot from now on; before: 0, it had none. */
  move(record: number, before: number, slot: number): void {
    const page = this.index.get((record / indexRecordsPerPage) | 0)!;
    page.setUint32((record % indexRecordsPerPage) * indexRecordBytes + slotOffset, slot, true);
    this.bitmap[slot >>> 5] |= 1 << (slot & 31);
    this.bitmapDirty[(slot / bitmapBlocksPerPage) | 0] = 1;
    if (before === 0) return;
    this.bitmap[before >>> 5] &= ~(1 << (before & 31));
    this.bitmapDirty[(before / bitmapBlocksPerPage) | 0] = 1;
  }

  /** Records on an index page. */
  recordsOf(page: number): number {
    return Math.min(indexRecordsPerPage, this.records - page * indexRecordsPerPage);
  }

  private copyIndex({ index }: Store, page: number): void {
    const first = page * indexRecordsPerPage;
    const count = this.recordsOf(page);
    const view = new DataView(new ArrayBuffer(count * indexRecordBytes));
    for (let i = 0, at = 0; i < count; i++, at += indexRecordBytes) {
      view.setUint32(at, index.lineage[first + i], true);
      view.setUint32(at + 4, index.chunk[first + i], true);
      view.setUint32(at + 8, index.epoch[first + i], true);
      view.setUint32(at + slotOffset, index.slot[first + i], true);
    }
    this.index.set(page, view);
  }
}

function takeDue(
  index: ChunkIndex,
  isDirty: (record: number) => boolean,
  count: number,
): Uint32Array {
  const due = new Uint32Array(count);
  let found = 0;
  for (let record = 0; record < index.count; record++) {
    if (index.lineage[record] === 0 || !isDirty(record)) continue;
    due[found++] = record;
    index.due[record] = 1;
  }
  return due.subarray(0, found);
}

/** Taken in memory, free in the bitmap of the checkpoint. */
function notInBitmap(store: Store): (readonly number[] | Uint32Array)[] {
  return [
    store.retiredSlots,
    ...Object.values(store.hidden),
    store.allocator.pendingList(),
    store.stagedPointers.subarray(0, store.stagedCount),
  ];
}
