/** From a volume's block, as of an epoch, to where it lies. */
import { holePointer, mapWords } from "./layout.ts";
import type { Lineage } from "./lineages.ts";
import type { Store } from "./store.ts";

/** As an epoch to read as of: what is there now. */
export const newest = 0xffffffff;
/** Answers of `resolve` that are no cells. */
export const zeroes = -1;
export const unreadable = -2;

/**
 * Cell of the page cache that has the block's pointer, good until the next `load`; `zeroes` where
 * nothing was written, `unreadable` if a map page can't be read. What a lineage lacks, its parent
 * has as of the fork.
 */
export function resolve(
  { index, cache }: Store,
  lineage: Lineage,
  asOf: number,
  chunk: number,
  block: number,
): number {
  let line: Lineage | null = lineage;
  for (let epoch = asOf; line !== null; epoch = line.forkEpoch, line = line.parent) {
    const record = index.findAsOf(line.number, chunk, epoch);
    if (record < 0) continue;
    const frame = index.frame[record] >= 0 ? index.frame[record] : cache.load(record);
    if (frame < 0) return unreadable;
    const cell = frame * mapWords + block;
    const pointer = cache.words[cell];
    if (pointer === holePointer) return zeroes;
    if (pointer !== 0) return cell;
  }
  return zeroes;
}
