/** `mount`: how long a store with as many chunks as 1 TiB of data has takes to come up. */
import { join } from "node:path";
import { Random } from "#lib/sim/random.ts";
import { blockBytes, chunkBytes } from "#services/chunk-store/limits.ts";
import { alone, type Comparison, type ComparisonOptions, type Figure } from "./comparison.ts";
import { Engine } from "./engine.ts";
import { forgetFile } from "./raw.ts";
import {
  collectGarbage,
  loadPattern,
  scaledDisk,
  shuffled,
  writeBlocks,
  writeToCheckpoint,
} from "./scaled.ts";

const volumeBytes = 2 ** 40;
const deviceBytes = 1.25 * volumeBytes;
const chunkBits = Math.log2(volumeBytes / chunkBytes);
const chunks = 2 ** chunkBits;
const depth = 32;
/** Of what a checkpoint sums up: so much is in the log when the store is dropped. */
const logPart = 0.9;

export const mount: Comparison = {
  name: "mount",
  // A map page of each chunk, once from filling and once more in part.
  needBytes: () => 8 * 2 ** 30,
  method: [
    "mountStore and one block read. A volume of 1 TiB on a device of 1.25 TiB; scaled: one block of each of its 1,048,576 chunks is written, in random order, so that there are as many map pages and index records as for 1 TiB of data, and a bitmap of the whole device, but 1/256 of the data.",
    "The file is sparse, and a block of the load's data is one bit in the benchmark's memory; the store's log and map are really written and read.",
    "clean: after a shutdown, nothing of the file in the page cache, as at a boot. kill -9: random overwrites, 32 a flush, until 90 % of a checkpoint's worth is in the log, then the store is dropped without a word; page cache as it is. power cut: the same, nothing in the page cache.",
  ],
  run: measureMounts,
};

async function measureMounts(options: ComparisonOptions): Promise<Figure[]> {
  const { directory, rounds, progress } = options;
  const disk = scaledDisk(join(directory, "store"), deviceBytes);
  const random = new Random(5);
  const anyChunk = () => placeOf(random.below(chunks));
  const { file } = disk;
  try {
    let engine = Engine.create({ file, disk }, volumeBytes);
    loadPattern(engine, disk);
    progress(`writing a block of each of ${chunks} chunks`);
    writeBlocks(engine, depth, chunks, (i) => placeOf(shuffled(i, chunkBits)));
    writeToCheckpoint(engine, anyChunk);
    const span = writeToCheckpoint(engine, anyChunk);
    progress(`a checkpoint sums up ${span} writes`);
    const seconds: Record<"clean" | "killed" | "cut", number[]> = {
      clean: [],
      killed: [],
      cut: [],
    };
    const remount = (cold: boolean) => {
      disk.file.flushSync();
      if (cold) forgetFile(file.path);
      collectGarbage();
      const started = performance.now();
      engine = Engine.mount({ file, disk });
      engine.shape("read", blockBytes, 1);
      engine.aim(0, anyChunk());
      engine.execute();
      const took = (performance.now() - started) / 1000;
      loadPattern(engine, disk);
      return took;
    };
    for (let round = 0; round < rounds; round++) {
      for (const name of ["killed", "cut"] as const) {
        writeToCheckpoint(engine, anyChunk);
        writeBlocks(engine, depth, logPart * span, anyChunk, 1);
        engine.drop();
        seconds[name].push(remount(name === "cut"));
      }
      engine.stop();
      seconds.clean.push(remount(true));
      const [clean, killed, cut] = [seconds.clean, seconds.killed, seconds.cut].map((all) =>
        all[round].toFixed(3),
      );
      progress(`round ${round + 1}: clean ${clean}, kill -9 ${killed}, power cut ${cut} s`);
    }
    engine.drop();
    return [
      alone("clean stop", "s", seconds.clean, { atMost: 1 }),
      alone("kill -9", "s", seconds.killed, { atMost: 10 }),
      alone("power cut", "s", seconds.cut, { atMost: 10 }),
    ];
  } finally {
    disk.end();
  }
}

/** The one block of a chunk that is written: another in each. */
function placeOf(chunk: number): number {
  const block = shuffled(chunk, chunkBits) % (chunkBytes / blockBytes);
  return chunk * chunkBytes + block * blockBytes;
}
