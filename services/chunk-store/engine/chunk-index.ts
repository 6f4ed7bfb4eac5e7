/**
 * Where the map page of each (lineage, chunk) lies: the one structure that is wholly in memory, in
 * columns of typed arrays, about 28 bytes a chunk with its hash. A record keeps its number for life;
 * index page n of the disk holds records n * 252 and on.
 *
 * A record also names its epoch. Today a lineage has one record a chunk, that of its live epoch.
 */
import { indexRecordsPerPage } from "./layout.ts";

export class ChunkIndex {
  lineage = new Uint32Array(256);
  chunk = new Uint32Array(256);
  epoch = new Uint32Array(256);
  /** Block of the map page on disk, 0 if it has never been written. */
  slot = new Uint32Array(256);
  /** Frame of the page cache that holds the page, or -1. */
  frame = new Int32Array(256).fill(-1);
  /** Records ever used: numbers below this are live or on the free list. */
  count = 0;
  live = 0;
  dirtyPages = new Uint8Array(8);
  dirtyCount = 0;
  private readonly unused: number[] = [];
  private table = new Int32Array(1024);

  get pages(): number {
    return Math.ceil(this.count / indexRecordsPerPage);
  }

  /** Record of a chunk, or -1. */
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

  add(lineage: number, chunk: number, epoch: number): number {
    const record = this.unused.pop() ?? this.count++;
    this.place(record, lineage, chunk, epoch, 0);
    return record;
  }

  /** A record as loaded from an index page; lineage 0 is an unused one. */
  load(record: number, lineage: number, chunk: number, epoch: number, slot: number): void {
    if (record >= this.count) this.count = record + 1;
    if (lineage === 0) {
      this.ensure(record);
      this.lineage[record] = 0;
      this.frame[record] = -1;
      this.unused.push(record);
    } else this.place(record, lineage, chunk, epoch, slot);
  }

  remove(record: number): void {
    const mask = this.table.length - 1;
    let at = hash(this.lineage[record], this.chunk[record]) & mask;
    while (this.table[at] !== record + 1) at = (at + 1) & mask;
    // Closes the gap, so that no probe sequence is cut (Knuth, algorithm R).
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
    this.lineage[record] = 0;
    this.slot[record] = 0;
    this.frame[record] = -1;
    this.unused.push(record);
    this.live--;
    this.touch(record);
  }

  /** The index page of a record is out of date on disk. */
  touch(record: number): void {
    const page = (record / indexRecordsPerPage) | 0;
    if (this.dirtyPages[page] === 0) {
      this.dirtyPages[page] = 1;
      this.dirtyCount++;
    }
  }

  private place(record: number, lineage: number, chunk: number, epoch: number, slot: number): void {
    this.ensure(record);
    this.lineage[record] = lineage;
    this.chunk[record] = chunk;
    this.epoch[record] = epoch;
    this.slot[record] = slot;
    this.frame[record] = -1;
    this.live++;
    if (this.live * 2 > this.table.length) this.rehash();
    else this.insert(record);
    this.touch(record);
  }

  private insert(record: number): void {
    const mask = this.table.length - 1;
    let at = hash(this.lineage[record], this.chunk[record]) & mask;
    while (this.table[at] !== 0) at = (at + 1) & mask;
    this.table[at] = record + 1;
  }

  private rehash(): void {
    this.table = new Int32Array(this.table.length * 2);
    for (let record = 0; record < this.count; record++) {
      if (this.lineage[record] !== 0) this.insert(record);
    }
  }

  private ensure(record: number): void {
    if (record < this.lineage.length) return;
    const size = Math.max(this.lineage.length * 2, record + 1);
    this.lineage = grown(this.lineage, size);
    this.chunk = grown(this.chunk, size);
    this.epoch = grown(this.epoch, size);
    this.slot = grown(this.slot, size);
    const frame = new Int32Array(size).fill(-1);
    frame.set(this.frame);
    this.frame = frame;
    const pages = Math.ceil(size / indexRecordsPerPage) + 1;
    const dirty = new Uint8Array(Math.max(this.dirtyPages.length, pages));
    dirty.set(this.dirtyPages);
    this.dirtyPages = dirty;
  }
}

function grown(column: Uint32Array<ArrayBuffer>, size: number): Uint32Array<ArrayBuffer> {
  const next = new Uint32Array(size);
  next.set(column);
  return next;
}

function hash(lineage: number, chunk: number): number {
  let mixed = Math.imul(chunk, 0x9e3779b1) ^ Math.imul(lineage, 0x85ebca6b);
  mixed ^= mixed >>> 15;
  mixed = Math.imul(mixed, 0x2c1b3c6d);
  return (mixed ^ (mixed >>> 13)) >>> 0;
}
