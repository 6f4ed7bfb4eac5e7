/** `metadata`: what a random overwrite costs the device beside its data. */
import { join } from "node:path";
import { Random } from "#lib/sim/random.ts";
import { blockBytes, chunkBytes } from "#services/chunk-store/limits.ts";
import {
  alone,
  type Bar,
  type Comparison,
  type ComparisonOptions,
  type Figure,
} from "./comparison.ts";
import type { ScaledDisk } from "./disks.ts";
import { Engine } from "./engine.ts";
import { loadPattern, scaledDisk, shuffled, writeBlocks, writeToCheckpoint } from "./scaled.ts";

const volumeBytes = 256 * 2 ** 30;
const deviceBytes = 300 * 2 ** 30;
const volumeBlocks = volumeBytes / blockBytes;
const chunks = volumeBytes / chunkBytes;
/** Blocks of each chunk that a thin volume has: one in 64. */
const thinBlocks = 4;
const thinStride = 64;
/** Thin chunks that are written at the same time while the volume is filled. */
const windowChunks = 4096;
const depth = 32;
const ampleMemoryBytes = 2 ** 30;
const smallMemoryBytes = 256 * 2 ** 20;
const leastCheckpoints = 2;

export const metadata: Comparison = {
  name: "metadata",
  // The map of a full volume once, and what the checkpoints of the rounds write anew.
  needBytes: () => 6 * 2 ** 30,
  method: [
    "A volume of 256 GiB on a device of 300 GiB: random 4 KiB overwrites all over it, 32 and then a flush. Bytes are counted at the engine's Disk: all that is written, less the data.",
    "Each round is from one checkpoint's end to the next one's, so that its pages are shared by the writes it sums up. A flush is counted as done but not made: it writes nothing itself.",
    "thin: one block in 64 is there, and is overwritten; full: all are. Memory for the map: 1 GiB; then 256 MiB, the same store mounted again.",
    "Scaled: the file is sparse, and a block of the load's data is one bit in the benchmark's memory; the store's log and map are really written and read.",
  ],
  run: async (options) => [
    ...measureVolume(options, "thin", { atMost: 512 }, { atMost: 1024 }),
    ...measureVolume(options, "full", null, null),
  ],
};

function measureVolume(
  options: ComparisonOptions,
  name: "thin" | "full",
  ampleBar: Bar | null,
  smallBar: Bar | null,
): Figure[] {
  const { progress } = options;
  const disk = scaledDisk(join(options.directory, name), deviceBytes);
  const { file } = disk;
  try {
    const ample = Engine.create({ file, disk, memoryBytes: ampleMemoryBytes }, volumeBytes);
    loadPattern(ample, disk);
    progress(`writing the ${name} volume`);
    if (name === "full") ample.fill();
    else writeBlocks(ample, depth, chunks * thinBlocks, thinPlace);
    // One sequence for both: the same again would free what lies together since the first time.
    const random = new Random(3);
    const overwritten = () => (name === "full" ? anyPlace(random) : anyThinPlace(random));
    progress(`${name}, 1 GiB of memory`);
    const withAmple = bytesPerWrite(ample, disk, overwritten, options);
    ample.stop();
    progress(`${name}, 256 MiB of memory`);
    const small = Engine.mount({ file, disk, memoryBytes: smallMemoryBytes });
    loadPattern(small, disk);
    const withSmall = bytesPerWrite(small, disk, overwritten, options);
    small.drop();
    return [
      alone(`${name}, 1 GiB of memory`, "bytes/write", withAmple, ampleBar),
      alone(`${name}, 256 MiB of memory`, "bytes/write", withSmall, smallBar),
    ];
  } finally {
    disk.end();
  }
}

const anyPlace = (random: Random) => random.below(volumeBlocks) * blockBytes;
const anyThinPlace = (random: Random) =>
  placeInChunk(random.below(chunks), random.below(thinBlocks));

/** In which order a thin volume is filled: at random within some thousand chunks, those in turn. */
function thinPlace(i: number): number {
  const bits = Math.log2(windowChunks * thinBlocks);
  const within = shuffled(i % 2 ** bits, bits);
  const chunk = Math.floor(i / 2 ** bits) * windowChunks + Math.floor(within / thinBlocks);
  return placeInChunk(chunk, within % thinBlocks);
}

/** The thin volume's `which`th block of a chunk: another in each chunk. */
function placeInChunk(chunk: number, which: number): number {
  const block = which * thinStride + (shuffled(chunk, Math.log2(chunks)) % thinStride);
  return chunk * chunkBytes + block * blockBytes;
}

/** Bytes beside the data, of each checkpoint's span. */
function bytesPerWrite(
  engine: Engine,
  disk: ScaledDisk,
  place: () => number,
  { rounds, progress }: ComparisonOptions,
): number[] {
  writeToCheckpoint(engine, place);
  return Array.from({ length: Math.max(rounds, leastCheckpoints) }, () => {
    const before = disk.writtenBytes;
    const writes = writeToCheckpoint(engine, place);
    const bytes = (disk.writtenBytes - before) / writes - blockBytes;
    progress(`${writes} writes, ${bytes.toFixed(0)} bytes beside each`);
    return bytes;
  });
}
