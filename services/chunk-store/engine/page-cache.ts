/**
 * Map pages in memory, under a fixed budget: one flat array of frames. Only clean frames are
 * evicted (second chance); dirty ones leave by a checkpoint. The store starts a checkpoint before
 * more than `checkpointPages` are dirty, and has four times as many frames.
 */
import { blockBytes } from "../limits.ts";
import type { ChunkIndex } from "./chunk-index.ts";
import type { Checksum, Disk } from "./disk.ts";
import { checkPage, mapWords, PageKind, pageHeaderBytes, sealPage } from "./layout.ts";

export class PageCache {
  readonly frames: number;
  /** Frame f: pointers at f * 768, checksums 256 words on, birth epochs 512 words on. */
  readonly words: Uint32Array;
  readonly dirty: Uint8Array;
  dirtyCount = 0;
  /** Frame that a `load` must not take from its page, or -1. */
  held = -1;
  private readonly recordOf: Int32Array;
  private readonly referenced: Uint8Array;
  private hand = 0;
  private readonly index: ChunkIndex;
  private readonly disk: Disk;
  private readonly pool: Uint8Array;
  private readonly checksum: Checksum;
  private readonly page = new Uint8Array(blockBytes);
  private readonly pageWords = new Uint32Array(this.page.buffer);

  constructor(frames: number, index: ChunkIndex, disk: Disk, pool: Uint8Array, checksum: Checksum) {
    this.frames = frames;
    this.words = new Uint32Array(frames * mapWords);
    this.dirty = new Uint8Array(frames);
    this.recordOf = new Int32Array(frames).fill(-1);
    this.referenced = new Uint8Array(frames);
    this.index = index;
    this.disk = disk;
    this.pool = pool;
    this.checksum = checksum;
  }

  /** Frame of a record's page, read from disk if need be; -1 if the page is unreadable. */
  load(record: number): number {
    const cached = this.index.frame[record];
    if (cached >= 0) {
      this.referenced[cached] = 1;
      return cached;
    }
    const slot = this.index.slot[record];
    if (slot !== 0) {
      const good =
        this.disk.read(this.page, 0, blockBytes, slot * blockBytes) &&
        checkPage(
          this.page,
          PageKind.map,
          this.pool,
          this.index.lineage[record],
          this.index.chunk[record],
          this.index.epoch[record],
          this.checksum,
        );
      if (!good) return -1;
    }
    const frame = this.evict();
    this.recordOf[frame] = record;
    this.referenced[frame] = 1;
    this.index.frame[record] = frame;
    const base = frame * mapWords;
    if (slot === 0) this.words.fill(0, base, base + mapWords);
    else {
      const first = pageHeaderBytes / 4;
      for (let i = 0; i < mapWords; i++) this.words[base + i] = this.pageWords[first + i];
    }
    return frame;
  }

  markDirty(frame: number): void {
    if (this.dirty[frame] === 0) {
      this.dirty[frame] = 1;
      this.dirtyCount++;
    }
  }

  /** The record goes: its frame is free, whatever it held. */
  forget(record: number): void {
    const frame = this.index.frame[record];
    if (frame < 0) return;
    if (this.dirty[frame] === 1) {
      this.dirty[frame] = 0;
      this.dirtyCount--;
    }
    this.recordOf[frame] = -1;
    this.index.frame[record] = -1;
  }

  record(frame: number): number {
    return this.recordOf[frame];
  }

  /** Puts a frame's page, sealed, at `offset` of `into`, and calls it clean. */
  write(
    frame: number,
    into: Uint8Array,
    offset: number,
    mountGeneration: number,
    sequence: number,
  ): void {
    const record = this.recordOf[frame];
    const base = frame * mapWords;
    const first = pageHeaderBytes / 4;
    for (let i = 0; i < mapWords; i++) this.pageWords[first + i] = this.words[base + i];
    this.pageWords.fill(0, first + mapWords);
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
    into.set(this.page, offset);
    this.dirty[frame] = 0;
    this.dirtyCount--;
  }

  private evict(): number {
    // Three rounds suffice: the first clears the marks, and the dirty are bounded.
    for (let step = this.frames * 3; step > 0; step--) {
      const frame = this.hand;
      this.hand = frame + 1 === this.frames ? 0 : frame + 1;
      const record = this.recordOf[frame];
      if (record < 0) return frame;
      if (frame === this.held) continue;
      if (this.dirty[frame] === 1) continue;
      if (this.referenced[frame] === 1) {
        this.referenced[frame] = 0;
        continue;
      }
      this.index.frame[record] = -1;
      this.recordOf[frame] = -1;
      return frame;
    }
    throw new Error("every map page in memory is dirty");
  }
}
