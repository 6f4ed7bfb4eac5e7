/** Stores far larger than the disk below them, and loads that touch all of them. */
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { KeelsonError } from "#lib/model/errors.ts";
import { openFileDisk } from "#services/chunk-store/file-disk.ts";
import { blockBytes } from "#services/chunk-store/limits.ts";
import { ScaledDisk } from "./disks.ts";
import { type Engine, sparseFile } from "./engine.ts";

/** A store that has made no checkpoint by then makes none. */
const mostWrites = 2 ** 24;

export function scaledDisk(path: string, sizeBytes: number): ScaledDisk {
  return new ScaledDisk(openFileDisk(sparseFile(path, sizeBytes)));
}

/** The engine's payload holds nothing but the block that takes no space. */
export function loadPattern(engine: Engine, disk: ScaledDisk): void {
  for (let at = 0; at < engine.payload.length; at += blockBytes) {
    engine.payload.set(disk.pattern, at);
  }
}

/**
 * Where `i` stands when the numbers below 2^bits (2 to 31) are shuffled: each comes once (both steps,
 * an odd factor and a shift to the right, can be undone).
 */
export function shuffled(i: number, bits: number): number {
  const mask = 2 ** bits - 1;
  const half = bits >>> 1;
  let place = i;
  for (const factor of [0x9e3779b1, 0x85ebca6b, 0xc2b2ae35]) {
    place = Math.imul(place, factor) & mask;
    place ^= place >>> half;
  }
  return place;
}

/** Writes one block at each of `count` places (in bytes), `depth` a batch; ends with a flush. */
export function writeBlocks(
  engine: Engine,
  depth: number,
  count: number,
  place: (i: number) => number,
  flushEveryBatches = Number.POSITIVE_INFINITY,
): void {
  engine.shape("write", blockBytes, depth);
  for (let i = 0, batch = 1; i < count; i += depth, batch++) {
    for (let row = 0; row < depth; row++) engine.aim(row, place(i + row));
    engine.execute();
    if (batch % flushEveryBatches === 0 || i + depth >= count) engine.flush();
  }
}

/** Writes, 32 and then a flush, until a checkpoint has ended; gives how many it took. */
export function writeToCheckpoint(engine: Engine, place: () => number): number {
  const depth = 32;
  const { checkpoints } = engine;
  for (let writes = 0; writes < mostWrites; writes += depth) {
    if (engine.checkpoints !== checkpoints) return writes;
    writeBlocks(engine, depth, depth, place, 1);
  }
  throw new KeelsonError("UNAVAILABLE", `${mostWrites} writes brought no checkpoint.`);
}

/** So that what an earlier store left is neither counted nor collected within what is timed. */
export function collectGarbage(): void {
  setFlagsFromString("--expose-gc");
  (runInNewContext("gc") as () => void)();
}
