/**
 * Map pages in memory, under a fixed budget: one flat array of frames. When room is needed a frame
 * that was not used lately goes; what of it no checkpoint has written yet stays as deltas, and is put
 * over the page from disk when that is needed again.
 *
 *   clean record    its page on disk is up to date
 *   dirty record    its changed cells are marked in its frame, or are deltas: until a checkpoint
 *   due record      dirty as of a checkpoint under way, which has not come to it yet
 */
import { blockBytes, chunkBlocks } from "../limits.ts";
import type { ChunkIndex } from "./chunk-index.ts";
import { Deltas } from "./deltas.ts";
import type { Checksum, Disk } from "./disk.ts";
import { checkPage, mapWords, PageKind, pageHeaderBytes, sealPage } from "./layout.ts";

/** Of `changed`, a frame: a bit for each block. */
const changedWords = chunkBlocks / 32;
const frameBytes = (mapWords + changedWords) * 4;
const deltaBytes = 17;
const leastFrames = 16;
const leastDeltas = 1024;
const nothing = new Uint8Array(0);
/** Of the memory, in percent; the rest is for deltas. */
const framesShare = 60;

export class PageCache {
  readonly frames: number;
  /** Frame f: pointers at f * 768, checksums 256 words on, birth epochs 512 words on. */
  readonly words: Uint32Array;
  readonly dirty: Uint8Array;
  /** Dirty records, in memory or not. */
  dirtyCount = 0;
  readonly deltas: Deltas;
  /** With more deltas than this, a checkpoint is urgent. */
  readonly mostDeltas: number;
  /** Frame that a `load` must not take from its page, or -1. */
  held = -1;
  /** Called before a due record changes: it must be written as it is. */
  onDue: (record: number, frame: number) => void = () => {};
  private readonly changed: Uint32Array;
  private readonly recordOf: Int32Array;
  private readonly referenced: Uint8Array;
  private hand = 0;
  private readonly index: ChunkIndex;
  private readonly disk: Disk;
  private readonly pool: Uint8Array;
  private readonly checksum: Checksum;
  private readonly page = new Uint8Array(blockBytes);
  private staged = nothing;
  private stagedSlot = 0;
  private readonly pageMap = new Uint32Array(this.page.buffer, pageHeaderBytes, mapWords);

  /** `memoryBytes`: what there is at least is taken in any case. */
  constructor(
    memoryBytes: number,
    index: ChunkIndex,
    disk: Disk,
    pool: Uint8Array,
    checksum: Checksum,
  ) {
    const forFrames = (memoryBytes * framesShare) / 100;
    this.frames = Math.max(leastFrames, Math.floor(forFrames / frameBytes));
    this.mostDeltas = Math.max(leastDeltas, Math.floor((memoryBytes - forFrames) / deltaBytes));
    this.deltas = new Deltas(this.mostDeltas);
    this.words = new Uint32Array(this.frames * mapWords);
    this.changed = new Uint32Array(this.frames * changedWords);
    this.dirty = new Uint8Array(this.frames);
    this.recordOf = new Int32Array(this.frames).fill(-1);
    this.referenced = new Uint8Array(this.frames);
    this.index = index;
    this.disk = disk;
    this.pool = pool;
    this.checksum = checksum;
  }

  /** `load` takes from `pages` what stands from `slot` on, until the next call. They may not change. */
  stage(pages = nothing, slot = 0): void {
    this.staged = pages;
    this.stagedSlot = slot;
  }

  /** Frame of a record's page, read from disk if need be; -1 if the page is unreadable. */
  load(record: number): number {
    const { index } = this;
    const cached = index.frame[record];
    if (cached >= 0) {
      this.referenced[cached] = 1;
      return cached;
    }
    const slot = index.slot[record];
    if (slot !== 0) {
      const good =
        this.readPage(slot) &&
        checkPage(
          this.page,
          PageKind.map,
          this.pool,
          index.lineage[record],
          index.chunk[record],
          index.epoch[record],
          this.checksum,
        );
      if (!good) return -1;
    }
    const frame = this.evict();
    this.recordOf[frame] = record;
    this.referenced[frame] = 1;
    index.frame[record] = frame;
    const base = frame * mapWords;
    if (slot === 0) this.words.fill(0, base, base + mapWords);
    else this.words.set(this.pageMap, base);
    if (index.deltas[record] >= 0) this.putDeltasBack(record, frame);
    return frame;
  }

  private readPage(slot: number): boolean {
    const at = (slot - this.stagedSlot) * blockBytes;
    if (at < 0 || at >= this.staged.length) {
      return this.disk.read(this.page, 0, blockBytes, slot * blockBytes);
    }
    this.page.set(this.staged.subarray(at, at + blockBytes));
    return true;
  }

  /** Before cells of the frame change. */
  beginChange(frame: number): void {
    const record = this.recordOf[frame];
    if (this.index.due[record] === 1) this.onDue(record, frame);
    if (this.dirty[frame] === 0) {
      this.dirty[frame] = 1;
      this.dirtyCount++;
    }
  }

  /** Changes a cell; after `beginChange`. */
  set(frame: number, block: number, pointer: number, crc: number, epoch: number): void {
    const cell = frame * mapWords + block;
    this.words[cell] = pointer;
    this.words[cell + chunkBlocks] = crc;
    this.words[cell + 2 * chunkBlocks] = epoch;
    this.changed[frame * changedWords + (block >>> 5)] |= 1 << (block & 31);
  }

  /** Makes one frame's cells those of another; after `beginChange`. */
  copy(from: number, to: number): void {
    this.words.copyWithin(to * mapWords, from * mapWords, (from + 1) * mapWords);
    this.changed.fill(0xffffffff, to * changedWords, (to + 1) * changedWords);
  }

  /** True if the disk does not have the record as it is. */
  isDirty(record: number): boolean {
    const frame = this.index.frame[record];
    return frame >= 0 ? this.dirty[frame] === 1 : this.index.deltas[record] >= 0;
  }

  /** The record goes, or is clean: its frame is free, whatever it held. */
  forget(record: number): void {
    const { index } = this;
    if (this.isDirty(record)) this.dirtyCount--;
    this.deltas.take(index.deltas[record], () => {});
    index.deltas[record] = -1;
    const frame = index.frame[record];
    if (frame < 0) return;
    this.clean(frame);
    this.recordOf[frame] = -1;
    index.frame[record] = -1;
  }

  record(frame: number): number {
    return this.recordOf[frame];
  }

  /** Puts a frame's page, sealed, at the start of `into`. */
  encode(frame: number, into: Uint8Array, mountGeneration: number, sequence: number): void {
    const record = this.recordOf[frame];
    const base = frame * mapWords;
    this.pageMap.set(this.words.subarray(base, base + mapWords));
    this.page.fill(0, pageHeaderBytes + mapWords * 4);
    sealPage(
      this.page,
      PageKind.map,
      this.pool,
      mountGeneration,
      sequence,
      this.index.lineage[record],
      this.index.chunk[record],
      this.index.epoch[record],
      this.checksum,
    );
    into.set(this.page);
  }

  /** The frame's page is on disk as it is. */
  markClean(frame: number): void {
    if (this.dirty[frame] === 1) this.dirtyCount--;
    this.clean(frame);
  }

  private clean(frame: number): void {
    this.dirty[frame] = 0;
    this.changed.fill(0, frame * changedWords, (frame + 1) * changedWords);
  }

  private evict(): number {
    // Two rounds suffice: the first clears the marks.
    for (let step = this.frames * 2 + 1; step > 0; step--) {
      const frame = this.hand;
      this.hand = frame + 1 === this.frames ? 0 : frame + 1;
      const record = this.recordOf[frame];
      if (record < 0) return frame;
      if (frame === this.held) continue;
      if (this.referenced[frame] === 1) {
        this.referenced[frame] = 0;
        continue;
      }
      if (this.dirty[frame] === 1) this.keepAsDeltas(record, frame);
      this.index.frame[record] = -1;
      this.recordOf[frame] = -1;
      return frame;
    }
    throw new Error("every map page in memory is held");
  }

  private keepAsDeltas(record: number, frame: number): void {
    const { words, deltas } = this;
    const base = frame * mapWords;
    let list = -1;
    for (let word = 0; word < changedWords; word++) {
      let bits = this.changed[frame * changedWords + word];
      for (let block = word * 32; bits !== 0; bits >>>= 1, block++) {
        if ((bits & 1) === 0) continue;
        const cell = base + block;
        list = deltas.add(
          list,
          block,
          words[cell],
          words[cell + chunkBlocks],
          words[cell + 2 * chunkBlocks],
        );
      }
    }
    this.index.deltas[record] = list;
    if (list < 0) this.dirtyCount--;
    this.clean(frame);
  }

  private putDeltasBack(record: number, frame: number): void {
    const { index } = this;
    const list = index.deltas[record];
    index.deltas[record] = -1;
    this.dirty[frame] = 1;
    this.deltas.take(list, (block, pointer, crc, epoch) =>
      this.set(frame, block, pointer, crc, epoch),
    );
  }
}
