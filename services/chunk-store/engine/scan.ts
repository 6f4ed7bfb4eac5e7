/**
 * Reads what a store has of data and compares it with its checksums, one map record at a time: for
 * the offline check, and for the scrub of a running store.
 */
import { blockBytes, chunkBlocks } from "../limits.ts";
import { holePointer, mapWords } from "./layout.ts";
import { firstSnapshotFrom, intervalOf } from "./lineages.ts";
import type { Store } from "./store.ts";

/** A block of data that can't be read or is not what was written. */
export interface BadBlock {
  /** On the device, in blocks of 4 KiB. */
  readonly block: number;
  readonly volume: string;
  /** In the volume. */
  readonly offsetBytes: number;
  /** The oldest snapshot that has it; null: only the volume's present state does. */
  readonly snapshot: string | null;
  readonly why: "unreadable" | "checksum";
}

export class DataScan {
  /** Map records looked at so far; `store.index.count` when all are. */
  record = 0;
  blocks = 0;
  private readonly store: Store;
  private readonly onBad: (bad: BadBlock) => void;
  private readonly buffer = new Uint8Array(chunkBlocks * blockBytes);

  constructor(store: Store, onBad: (bad: BadBlock) => void) {
    this.store = store;
    this.onBad = onBad;
  }

  get done(): boolean {
    return this.record >= this.store.index.count;
  }

  /** Verifies what the next record has and newer ones have not: up to 1 MiB. The blocks read. */
  step(): number {
    const { index, cache } = this.store;
    const record = this.record++;
    if (record >= index.count || index.lineage[record] === 0) return 0;
    const wasThere = index.frame[record] >= 0;
    const words = this.wordsOf(record);
    // A map page that can't be read is the audit's to report: nothing is known of its blocks.
    if (words === undefined) return 0;
    const newerRecord = index.newer[record];
    const newer = newerRecord < 0 ? undefined : this.wordsOf(newerRecord);
    const own: number[] = [];
    for (let block = 0; block < chunkBlocks; block++) {
      const pointer = words[block];
      if (pointer !== 0 && pointer !== holePointer && newer?.[block] !== pointer) own.push(block);
    }
    own.sort((a, b) => words[a] - words[b]);
    for (let first = 0; first < own.length; ) {
      let end = first + 1;
      while (end < own.length && words[own[end]] === words[own[end - 1]] + 1) end++;
      this.verify(record, words, own.slice(first, end));
      first = end;
    }
    // What only this looked at must not push out what users need.
    if (!wasThere && index.frame[record] >= 0 && cache.dirty[index.frame[record]] === 0) {
      cache.forget(record);
    }
    this.blocks += own.length;
    return own.length;
  }

  /** Blocks of the chunk that lie one after the other on the device. */
  private verify(record: number, words: Uint32Array, run: readonly number[]): void {
    const { disk, checksum } = this.store;
    const start = words[run[0]] * blockBytes;
    const whole = disk.read(this.buffer, 0, run.length * blockBytes, start);
    run.forEach((block, i) => {
      const at = i * blockBytes;
      const readable = whole || disk.read(this.buffer, at, blockBytes, start + at);
      const good = readable && checksum(this.buffer, at, blockBytes) === words[chunkBlocks + block];
      if (!good) this.report(record, words, block, readable ? "checksum" : "unreadable");
    });
  }

  private report(record: number, words: Uint32Array, block: number, why: BadBlock["why"]): void {
    const { index, lineages } = this.store;
    const lineage = lineages.byNumber.get(index.lineage[record]);
    if (lineage === undefined) return;
    const born = intervalOf(lineage, words[2 * chunkBlocks + block]);
    this.onBad({
      block: words[block],
      volume: lineage.uuid,
      offsetBytes: (index.chunk[record] * chunkBlocks + block) * blockBytes,
      snapshot: lineage.snapshots[firstSnapshotFrom(lineage, born)]?.uuid ?? null,
      why,
    });
  }

  private wordsOf(record: number): Uint32Array | undefined {
    const { cache } = this.store;
    const frame = cache.load(record);
    return frame < 0 ? undefined : cache.words.slice(frame * mapWords, (frame + 1) * mapWords);
  }
}
