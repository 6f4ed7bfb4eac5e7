/**
 * Reads what a store has of data and compares it with its checksums, one map record at a time: for
 * the offline check, and for the scrub of a running store.
 */
import { blockBytes, chunkBlocks } from "../limits.ts";
import { holePointer, mapWords } from "./layout.ts";
import { firstSnapshotFrom } from "./lineages.ts";
import type { Store } from "./store.ts";

/** A block that can't be read or is not what was written. */
export interface BadBlock {
  /** On the device, in blocks of 4 KiB. */
  readonly block: number;
  readonly volume: string;
  /** In the volume. */
  readonly offsetBytes: number;
  /** The oldest snapshot that has it; null: only the volume's present state does. */
  readonly snapshot: string | null;
  /** `map`: the page that leads to up to 1 MiB from this offset on. */
  readonly why: "unreadable" | "checksum" | "map";
}

export class DataScan {
  /** Where it goes on: map record * 256 + block of the chunk. */
  position = 0;
  blocks = 0;
  private readonly store: Store;
  private readonly onBad: (bad: BadBlock) => void;
  private readonly buffer = new Uint8Array(chunkBlocks * blockBytes);

  constructor(store: Store, onBad: (bad: BadBlock) => void) {
    this.store = store;
    this.onBad = onBad;
  }

  /** Map records looked at; `store.index.count` when all are. */
  get record(): number {
    return Math.floor(this.position / chunkBlocks);
  }

  get done(): boolean {
    return this.record >= this.store.index.count;
  }

  /**
   * Verifies what the present record has and newer ones have not: all of it, or what `mostReads`
   * reads give. The blocks read.
   */
  step(mostReads = chunkBlocks): number {
    const { index, cache } = this.store;
    const { record } = this;
    const first = this.position % chunkBlocks;
    this.position = (record + 1) * chunkBlocks;
    if (record >= index.count || index.lineage[record] === 0) return 0;
    const wasThere = index.frame[record] >= 0;
    const words = this.wordsOf(record);
    if (words === undefined) {
      this.tell(record, 0, index.slot[record], index.epoch[record], "map");
      return 0;
    }
    const newerRecord = index.newer[record];
    const newer = newerRecord < 0 ? undefined : this.wordsOf(newerRecord);
    const own = (block: number) => {
      const pointer = words[block];
      return pointer !== 0 && pointer !== holePointer && newer?.[block] !== pointer;
    };
    let read = 0;
    let block = first;
    for (let reads = 0; block < chunkBlocks && reads < mostReads; ) {
      if (!own(block)) {
        block++;
        continue;
      }
      let count = 1;
      while (own(block + count) && words[block + count] === words[block] + count) count++;
      this.verify(record, words, block, count);
      read += count;
      block += count;
      reads++;
    }
    if (block < chunkBlocks) this.position = record * chunkBlocks + block;
    // What only this looked at must not push out what users need.
    if (!wasThere && index.frame[record] >= 0 && cache.dirty[index.frame[record]] === 0) {
      cache.forget(record);
    }
    this.blocks += read;
    return read;
  }

  /** Blocks of the chunk that lie one after the other on the device. */
  private verify(record: number, words: Uint32Array, first: number, count: number): void {
    const { disk, checksum } = this.store;
    const start = words[first] * blockBytes;
    disk.forget?.(start, count * blockBytes);
    const whole = disk.read(this.buffer, 0, count * blockBytes, start);
    for (let i = 0; i < count; i++) {
      const at = i * blockBytes;
      const readable = whole || disk.read(this.buffer, at, blockBytes, start + at);
      const good =
        readable && checksum(this.buffer, at, blockBytes) === words[chunkBlocks + first + i];
      if (good) continue;
      const block = first + i;
      const why = readable ? "checksum" : "unreadable";
      this.tell(record, block, words[block], words[2 * chunkBlocks + block], why);
    }
  }

  /** `epoch`: it was born then. */
  private tell(
    record: number,
    inChunk: number,
    block: number,
    epoch: number,
    why: BadBlock["why"],
  ): void {
    const { index, lineages } = this.store;
    const lineage = lineages.byNumber.get(index.lineage[record]);
    if (lineage === undefined) return;
    this.onBad({
      block,
      volume: lineage.uuid,
      offsetBytes: (index.chunk[record] * chunkBlocks + inChunk) * blockBytes,
      snapshot: lineage.snapshots[firstSnapshotFrom(lineage, epoch)]?.uuid ?? null,
      why,
    });
  }

  private wordsOf(record: number): Uint32Array | undefined {
    const { cache } = this.store;
    const frame = cache.load(record);
    return frame < 0 ? undefined : cache.words.slice(frame * mapWords, (frame + 1) * mapWords);
  }
}
