/**
 * Which blocks are taken. A freed block waits in `pending` until the store says it may be written
 * again; its bit stays set so long, but the persisted bitmap already calls it free (a mount starts
 * with nothing pending, see mount.ts).
 *
 * Data and metadata are allocated by two cursors, each from a run of free blocks, so that a batch of
 * writes lies in one piece and map pages don't break data runs. On an aged store free space is in
 * pieces everywhere: a cursor that leaves single blocks to grow finds pieces a third longer than one
 * that fills every hole it passes (2.3 instead of 1.75 blocks at 75 % full), each a write to the disk.
 */
import { bitmapBlocksPerPage, bitmapWordsPerPage } from "./layout.ts";

/** Gives the blocks from `next` to before `end`, and looks for the next run from there on. */
interface Cursor {
  next: number;
  end: number;
}

/** Words looked at for each block of the longest run so far: is there a longer one? */
const wordsPerBlock = 2;
/** Words looked at for a run of more than one block; then one is good enough. */
const searchWords = 256;
/** Nobody looks for a longer one. */
const goodRunBlocks = 32;
const longestRunBlocks = 65_536;

export class Allocator {
  readonly blocks: number;
  readonly words: Uint32Array;
  /** Free blocks by bitmap page: full pages are skipped. */
  readonly freeByPage: Uint32Array;
  /** Bitmap pages whose persisted form is out of date. */
  readonly dirtyPages: Uint8Array;
  freeBlocks = 0;
  private readonly data: Cursor = { next: 0, end: 0 };
  private readonly metadata: Cursor = { next: 0, end: 0 };
  private pendingBlocks = new Uint32Array(1024);
  private pendingSequences = new Float64Array(1024);
  private pendingHead = 0;
  pendingCount = 0;
  /** While a log is replayed: blocks taken while they were taken, and how often more. */
  private takenMore: Map<number, number> | undefined;

  constructor(blocks: number) {
    this.blocks = blocks;
    const pages = Math.ceil(blocks / bitmapBlocksPerPage);
    this.words = new Uint32Array(pages * bitmapWordsPerPage);
    this.freeByPage = new Uint32Array(pages);
    this.dirtyPages = new Uint8Array(pages);
    // Metadata is taken from the middle on: it seldom meets the data cursor on a young store.
    this.metadata.end = blocks >>> 1;
    this.metadata.next = this.metadata.end;
  }

  get pages(): number {
    return this.freeByPage.length;
  }

  /** Counts what is free, after the words were loaded; what lies past the device is taken. */
  recount(): void {
    for (let block = this.blocks; block < this.words.length * 32; block++) {
      this.words[block >>> 5] |= 1 << (block & 31);
    }
    this.freeBlocks = 0;
    for (let page = 0; page < this.pages; page++) {
      let used = 0;
      const end = (page + 1) * bitmapWordsPerPage;
      for (let i = page * bitmapWordsPerPage; i < end; i++) used += bitCount(this.words[i]);
      this.freeByPage[page] = bitmapBlocksPerPage - used;
      this.freeBlocks += bitmapBlocksPerPage - used;
    }
  }

  isUsed(block: number): boolean {
    return (this.words[block >>> 5] & (1 << (block & 31))) !== 0;
  }

  /**
   * Until `endReplay` a block is free when it was released as often as it was taken: its next owner
   * may take it before its last one has let go, as long as each takes before it lets go itself.
   */
  beginReplay(): void {
    this.takenMore = new Map();
  }

  endReplay(): void {
    this.takenMore = undefined;
  }

  /** Takes a given block, if it is free: for replay and fixed regions. */
  take(block: number): void {
    if (this.isUsed(block)) {
      this.takenMore?.set(block, (this.takenMore.get(block) ?? 0) + 1);
      return;
    }
    this.words[block >>> 5] |= 1 << (block & 31);
    this.freeByPage[(block / bitmapBlocksPerPage) | 0]--;
    this.freeBlocks--;
  }

  /** A block for data, or -1 when none is free. The persisted bitmap will show it. */
  allocateData(): number {
    const block = this.allocate(this.data);
    if (block >= 0) this.touch(block);
    return block;
  }

  /** A block for a page of a checkpoint, whose own copy of the bitmap shows what of them it shows. */
  allocateMetadata(): number {
    return this.allocate(this.metadata);
  }

  /** Marks the persisted bitmap page of a block as out of date. */
  touch(block: number): void {
    this.dirtyPages[(block / bitmapBlocksPerPage) | 0] = 1;
  }

  /** Free at once: only for a block that nothing on the disk can lead to any more. */
  release(block: number): void {
    if (!this.isUsed(block)) return;
    const more = this.takenMore?.get(block);
    if (more !== undefined) {
      if (more === 1) this.takenMore!.delete(block);
      else this.takenMore!.set(block, more - 1);
      return;
    }
    this.words[block >>> 5] &= ~(1 << (block & 31));
    this.freeByPage[(block / bitmapBlocksPerPage) | 0]++;
    this.freeBlocks++;
  }

  /** Freed by log record `sequence`: reusable after `releasePending` has reached it. */
  free(block: number, sequence: number): void {
    this.touch(block);
    if (this.pendingCount === this.pendingBlocks.length) this.growPending();
    const at = (this.pendingHead + this.pendingCount++) & (this.pendingBlocks.length - 1);
    this.pendingBlocks[at] = block;
    this.pendingSequences[at] = sequence;
  }

  /** Makes reusable what records up to `sequence` freed. */
  releasePending(sequence: number): void {
    const mask = this.pendingBlocks.length - 1;
    while (this.pendingCount > 0 && this.pendingSequences[this.pendingHead] <= sequence) {
      this.release(this.pendingBlocks[this.pendingHead]);
      this.pendingHead = (this.pendingHead + 1) & mask;
      this.pendingCount--;
    }
  }

  /** Freed blocks that wait. */
  pendingList(): Uint32Array {
    const list = new Uint32Array(this.pendingCount);
    for (let i = 0; i < this.pendingCount; i++) {
      list[i] = this.pendingBlocks[(this.pendingHead + i) & (this.pendingBlocks.length - 1)];
    }
    return list;
  }

  private allocate(cursor: Cursor): number {
    for (;;) {
      while (cursor.next < cursor.end) {
        const block = cursor.next++;
        const bit = 1 << (block & 31);
        if ((this.words[block >>> 5] & bit) !== 0) continue;
        this.words[block >>> 5] |= bit;
        this.freeByPage[(block / bitmapBlocksPerPage) | 0]--;
        this.freeBlocks--;
        return block;
      }
      if (!this.findRun(cursor)) return -1;
    }
  }

  /** Moves the cursor to the next run that is worth it; false when nothing is free. */
  private findRun(cursor: Cursor): boolean {
    if (this.freeBlocks === 0) return false;
    const total = this.words.length;
    let best = 0;
    let bestLength = 0;
    // Block numbers go up to 2^32: no signed operation on them, only on words.
    let word = (cursor.end >>> 5) % total;
    let free = ~this.words[word] & (-1 << (cursor.end & 31));
    for (let seen = 0; seen <= searchWords && seen <= total; seen++) {
      while (free !== 0) {
        const start = word * 32 + lowestBit(free);
        const end = this.endOfRun(start);
        if (end - start > bestLength) {
          best = start;
          bestLength = end - start;
        }
        if (end >= (word + 1) * 32) break;
        free &= -1 << (end & 31);
      }
      const enough = bestLength > 1 ? wordsPerBlock * bestLength : searchWords;
      if (bestLength >= goodRunBlocks || seen >= enough) break;
      word = (word + 1) % total;
      free = ~this.words[word];
    }
    if (bestLength === 0) best = this.findAny(word);
    cursor.next = best;
    cursor.end = bestLength === 0 ? this.endOfRun(best) : best + bestLength;
    return true;
  }

  /** First free block in or after word `from`, or else of all: there is one. */
  private findAny(from: number): number {
    const firstPage = (from / bitmapWordsPerPage) | 0;
    for (let i = 0; ; i++) {
      const page = (firstPage + i) % this.pages;
      if (this.freeByPage[page] === 0) continue;
      let word = page * bitmapWordsPerPage;
      if (i === 0) word = from;
      const last = (page + 1) * bitmapWordsPerPage;
      for (; word < last; word++) {
        const free = ~this.words[word];
        if (free !== 0) return word * 32 + lowestBit(free);
      }
    }
  }

  /** Where the run of free blocks from `start` ends. */
  private endOfRun(start: number): number {
    const longest = Math.min(start + longestRunBlocks, this.words.length * 32);
    let block = start;
    while (block < longest) {
      const used = this.words[block >>> 5] >>> (block & 31);
      if (used !== 0) return block + lowestBit(used);
      block = ((block >>> 5) + 1) * 32;
    }
    return block;
  }

  private growPending(): void {
    const size = this.pendingBlocks.length * 2;
    const blocks = new Uint32Array(size);
    const sequences = new Float64Array(size);
    for (let i = 0; i < this.pendingCount; i++) {
      const from = (this.pendingHead + i) & (this.pendingBlocks.length - 1);
      blocks[i] = this.pendingBlocks[from];
      sequences[i] = this.pendingSequences[from];
    }
    this.pendingBlocks = blocks;
    this.pendingSequences = sequences;
    this.pendingHead = 0;
  }
}

/** Number of the lowest bit that is set, of a word that is not 0. */
function lowestBit(word: number): number {
  return 31 - Math.clz32(word & -word);
}

function bitCount(word: number): number {
  let bits = word - ((word >>> 1) & 0x55555555);
  bits = (bits & 0x33333333) + ((bits >>> 2) & 0x33333333);
  return Math.imul((bits + (bits >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24;
}
