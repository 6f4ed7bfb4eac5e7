/**
 * What changed from one state to a later one of the same descent, without a look at what did not:
 * chunks that have a record born in between are known by the cells of their lineages.
 */
import { KeelsonError } from "#lib/model/errors.ts";
import { chunkBlocks } from "../limits.ts";
import type { Lineage } from "./lineages.ts";
import { resolve, unreadable, zeroes } from "./resolve.ts";
import type { Store } from "./store.ts";

/** A volume or snapshot as of its epoch. */
export interface State {
  readonly lineage: Lineage;
  readonly epoch: number;
}

/** Blocks of 4 KiB of the volume. */
export interface Difference {
  readonly first: number;
  count: number;
  /** They read zero in the later state. */
  readonly zero: boolean;
}

export interface Differences {
  readonly ranges: Difference[];
  /** Where to go on, in chunks; null at the end. */
  readonly nextChunk: number | null;
}

/**
 * Of at most `limit` changed chunks from `firstChunk` on, in order. `from` null: everything that
 * `to` has. CONFLICT if `to` does not descend from `from`; MEDIA_ERROR if a map page is unreadable.
 */
export function findDifferences(
  store: Store,
  from: State | null,
  to: State,
  firstChunk: number,
  limit: number,
): Differences {
  const chunks = changedChunks(store, from, to, firstChunk);
  const ranges: Difference[] = [];
  for (const chunk of chunks.slice(0, limit)) compareChunk(store, from, to, chunk, ranges);
  return { ranges, nextChunk: chunks.length > limit ? chunks[limit] : null };
}

function changedChunks(
  { index }: Store,
  from: State | null,
  to: State,
  firstChunk: number,
): Uint32Array {
  const chunks = new Set<number>();
  let line: Lineage | null = to.lineage;
  for (let epoch = to.epoch; line !== null; epoch = line.forkEpoch, line = line.parent) {
    const isLast: boolean = line === from?.lineage;
    if (isLast && from!.epoch > epoch) break;
    const low = isLast ? from!.epoch : 0;
    for (const { birth, head } of line.cells) {
      if (birth <= low || birth > epoch) continue;
      for (let record = head; record >= 0; record = index.after(record)) {
        if (index.chunk[record] >= firstChunk) chunks.add(index.chunk[record]);
      }
    }
    if (isLast) return Uint32Array.from(chunks).sort();
  }
  if (from === null) return Uint32Array.from(chunks).sort();
  throw new KeelsonError("CONFLICT", "The later state does not descend from the earlier one.", {
    operation: "compare",
    object: to.lineage.uuid,
    remedy: "Compare a volume with a snapshot of its own, or of what it is a clone of.",
  });
}

function compareChunk(
  store: Store,
  from: State | null,
  to: State,
  chunk: number,
  ranges: Difference[],
): void {
  for (let block = 0; block < chunkBlocks; block++) {
    const before = from === null ? 0 : pointerOf(store, from, chunk, block);
    const after = pointerOf(store, to, chunk, block);
    if (before === after) continue;
    const first = chunk * chunkBlocks + block;
    const last = ranges.at(-1);
    const zero = after === 0;
    if (last !== undefined && last.first + last.count === first && last.zero === zero) last.count++;
    else ranges.push({ first, count: 1, zero });
  }
}

function pointerOf(store: Store, state: State, chunk: number, block: number): number {
  const cell = resolve(store, state.lineage, state.epoch, chunk, block);
  if (cell === zeroes) return 0;
  if (cell !== unreadable) return store.cache.words[cell];
  throw new KeelsonError("MEDIA_ERROR", `A map page of volume ${state.lineage.uuid} is damaged.`, {
    operation: "compare",
    object: state.lineage.uuid,
    remedy: "Check the device.",
  });
}
