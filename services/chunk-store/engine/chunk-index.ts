/**
 * Where the map pages of each (lineage, chunk) lie: the one structure that is wholly in memory, in
 * columns of typed arrays, about 57 bytes a record with its hash. A record keeps its number for
 * life; index page n of the disk holds records n * 252 and on.
 *
 *   hash (lineage, chunk) -> newest record -> older -> older ...     by falling epoch
 *
 * A record is what its chunk is from its epoch on, until the next newer record's epoch. Each is also
 * in the list of its cell (cells.ts), so that what a snapshot leaves behind is found without a search.
 */
import type { Cell } from "./cells.ts";
import { indexRecordsPerPage } from "./layout.ts";

export class ChunkIndex {
  lineage = new Uint32Array(256);
  chunk = new Uint32Array(256);
  epoch = new Uint32Array(256);
  /** Block of the map page on disk, 0 if it has never been written. */
  slot = new Uint32Array(256);
  /** Frame of the page cache that holds the page, or -1. */
  frame = new Int32Array(256).fill(-1);
  /** List of changes (deltas.ts) to the page on disk while no frame holds it, or -1. */
  deltas = new Int32Array(256).fill(-1);
  /** 1: the checkpoint under way has to write the page as it is now, before it changes. */
  due = new Uint8Array(256);
  /** The chunk's next older record and the next newer one, or -1. */
  older = new Int32Array(256).fill(-1);
  newer = new Int32Array(256).fill(-1);
  private previous = new Int32Array(256).fill(-1);
  private next = new Int32Array(256).fill(-1);
  /** Records ever used: numbers below this are live or on the free list. */
  count = 0;
  live = 0;
  /** Live ones that have a slot. */
  slots = 0;
  dirtyPages = new Uint8Array(8);
  private readonly unused: number[] = [];
  /** Chunks: each has one place in the hash. */
  private keys = 0;
  private table = new Int32Array(1024);

  get pages(): number {
    return Math.ceil(this.count / indexRecordsPerPage);
  }

  /** Newest record of a chunk, or -1. */
  find(lineage: number, chunk: number): number {
    const mask = this.table.length - 1;
    let at = hash(lineage, chunk) & mask;
    for (;;) {
      const record = this.table[at] - 1;
      if (record < 0) return -1;
      if (this.chunk[record] === chunk && this.lineage[record] === lineage) return record;
      at = (at + 1) & mask;
    }
  }

  /** What the chunk was at an epoch, or -1. */
  findAsOf(lineage: number, chunk: number, epoch: number): number {
    let record = this.find(lineage, chunk);
    while (record >= 0 && this.epoch[record] > epoch) record = this.older[record];
    return record;
  }

  /** A new newest record of a chunk; its epoch is past that of the one before it. */
  add(lineage: number, chunk: number, epoch: number): number {
    const record = this.unused.pop() ?? this.count++;
    this.set(record, lineage, chunk, epoch, 0);
    this.link(record);
    this.touch(record);
    return record;
  }

  /** Before so many are loaded: else all columns and the hash would grow by doubling. */
  reserve(records: number): void {
    this.ensure(records);
    let size = this.table.length;
    while (size < records * 2) size *= 2;
    this.table = new Int32Array(size);
  }

  /** A record as loaded from an index page; lineage 0 is an unused one. */
  load(record: number, lineage: number, chunk: number, epoch: number, slot: number): void {
    if (record >= this.count) this.count = record + 1;
    this.set(record, lineage, chunk, epoch, slot);
    if (lineage === 0) this.unused.push(record);
    else this.link(record);
  }

  /** It must be in no cell's list any more. */
  remove(record: number): void {
    const [older, newer] = [this.older[record], this.newer[record]];
    if (older >= 0) this.newer[older] = newer;
    if (newer >= 0) this.older[newer] = older;
    else this.replaceKey(record, older);
    if (this.slot[record] !== 0) this.slots--;
    this.lineage[record] = 0;
    this.slot[record] = 0;
    this.frame[record] = -1;
    this.unused.push(record);
    this.live--;
    this.touch(record);
  }

  /** `moveSlot`, which the index page on disk does not show yet. */
  setSlot(record: number, slot: number): void {
    this.moveSlot(record, slot);
    this.touch(record);
  }

  moveSlot(record: number, slot: number): void {
    if (this.slot[record] === 0) this.slots++;
    this.slot[record] = slot;
  }

  /** The index page of a record is out of date on disk. */
  touch(record: number): void {
    this.dirtyPages[(record / indexRecordsPerPage) | 0] = 1;
  }

  // ---- lists of cells ------------------------------------------------------------------------

  putInto(cell: Cell, record: number): void {
    this.previous[record] = -1;
    this.next[record] = cell.head;
    if (cell.head >= 0) this.previous[cell.head] = record;
    cell.head = record;
    cell.records++;
  }

  takeOutOf(cell: Cell, record: number): void {
    const [previous, next] = [this.previous[record], this.next[record]];
    if (next >= 0) this.previous[next] = previous;
    if (previous >= 0) this.next[previous] = next;
    else cell.head = next;
    cell.records--;
  }

  /** The record after `record` in its cell's list, or -1. */
  after(record: number): number {
    return this.next[record];
  }

  /** Hands the whole list of one cell to another. */
  join(from: Cell, to: Cell): void {
    if (from.head >= 0) {
      // By reference, but for the shorter list's end.
      const [front, back] = from.records <= to.records ? [from, to] : [to, from];
      let last = front.head;
      if (last < 0) to.head = from.head;
      else {
        while (this.next[last] >= 0) last = this.next[last];
        this.next[last] = back.head;
        if (back.head >= 0) this.previous[back.head] = last;
        to.head = front.head;
      }
    }
    to.records += from.records;
    from.head = -1;
    from.records = 0;
  }

  // ---- hash ----------------------------------------------------------------------------------

  /** Into its chunk's chain, by epoch. */
  private link(record: number): void {
    this.live++;
    const newest = this.find(this.lineage[record], this.chunk[record]);
    if (newest < 0) {
      this.keys++;
      if (this.keys * 2 > this.table.length) this.rehash(record);
      this.insert(record);
      return;
    }
    let newer = -1;
    let older = newest;
    while (older >= 0 && this.epoch[older] > this.epoch[record]) {
      newer = older;
      older = this.older[older];
    }
    this.older[record] = older;
    this.newer[record] = newer;
    if (older >= 0) this.newer[older] = record;
    if (newer >= 0) this.older[newer] = record;
    else this.table[this.placeOf(newest)] = record + 1;
  }

  private placeOf(record: number): number {
    const mask = this.table.length - 1;
    let at = hash(this.lineage[record], this.chunk[record]) & mask;
    while (this.table[at] !== record + 1) at = (at + 1) & mask;
    return at;
  }

  /** The chunk's newest record goes: the older one takes its place, or the chunk goes. */
  private replaceKey(record: number, older: number): void {
    let at = this.placeOf(record);
    if (older >= 0) {
      this.table[at] = older + 1;
      return;
    }
    this.keys--;
    // Closes the gap, so that no probe sequence is cut (Knuth, algorithm R).
    const mask = this.table.length - 1;
    let next = (at + 1) & mask;
    while (this.table[next] !== 0) {
      const other = this.table[next] - 1;
      const home = hash(this.lineage[other], this.chunk[other]) & mask;
      if (((next - home) & mask) >= ((next - at) & mask)) {
        this.table[at] = this.table[next];
        at = next;
      }
      next = (next + 1) & mask;
    }
    this.table[at] = 0;
  }

  private insert(record: number): void {
    const mask = this.table.length - 1;
    let at = hash(this.lineage[record], this.chunk[record]) & mask;
    while (this.table[at] !== 0) at = (at + 1) & mask;
    this.table[at] = record + 1;
  }

  /** Twice as large, without `missing`. */
  private rehash(missing: number): void {
    this.table = new Int32Array(this.table.length * 2);
    for (let record = 0; record < this.count; record++) {
      if (this.lineage[record] === 0 || this.newer[record] >= 0 || record === missing) continue;
      this.insert(record);
    }
  }

  private set(record: number, lineage: number, chunk: number, epoch: number, slot: number): void {
    this.ensure(record);
    this.lineage[record] = lineage;
    this.chunk[record] = chunk;
    this.epoch[record] = epoch;
    this.slot[record] = slot;
    if (slot !== 0) this.slots++;
    this.frame[record] = -1;
    this.deltas[record] = -1;
    this.due[record] = 0;
    this.older[record] = -1;
    this.newer[record] = -1;
  }

  private ensure(record: number): void {
    if (record < this.lineage.length) return;
    const size = Math.max(this.lineage.length * 2, record + 1);
    this.lineage = grown(this.lineage, size);
    this.chunk = grown(this.chunk, size);
    this.epoch = grown(this.epoch, size);
    this.slot = grown(this.slot, size);
    this.frame = grownLinks(this.frame, size);
    this.deltas = grownLinks(this.deltas, size);
    this.due = grownMarks(this.due, size);
    this.older = grownLinks(this.older, size);
    this.newer = grownLinks(this.newer, size);
    this.previous = grownLinks(this.previous, size);
    this.next = grownLinks(this.next, size);
    const pages = Math.ceil(size / indexRecordsPerPage) + 1;
    this.dirtyPages = grownMarks(this.dirtyPages, Math.max(this.dirtyPages.length, pages));
  }
}

function grown(column: Uint32Array<ArrayBuffer>, size: number): Uint32Array<ArrayBuffer> {
  const next = new Uint32Array(size);
  next.set(column);
  return next;
}

function grownMarks(column: Uint8Array<ArrayBuffer>, size: number): Uint8Array<ArrayBuffer> {
  const next = new Uint8Array(size);
  next.set(column);
  return next;
}

function grownLinks(column: Int32Array<ArrayBuffer>, size: number): Int32Array<ArrayBuffer> {
  const next = new Int32Array(size).fill(-1);
  next.set(column);
  return next;
}

function hash(lineage: number, chunk: number): number {
  let mixed = Math.imul(chunk, 0x9e3779b1) ^ Math.imul(lineage, 0x85ebca6b);
  mixed ^= mixed >>> 15;
  mixed = Math.imul(mixed, 0x2c1b3c6d);
  return (mixed ^ (mixed >>> 13)) >>> 0;
}
