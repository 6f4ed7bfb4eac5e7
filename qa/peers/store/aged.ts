/** `aged`: what a random write costs once free space is in pieces everywhere. */
import { join } from "node:path";
import { Random } from "#lib/sim/random.ts";
import { openFileDisk } from "#services/chunk-store/file-disk.ts";
import { blockBytes } from "#services/chunk-store/limits.ts";
import {
  type Comparison,
  type ComparisonOptions,
  type Figure,
  inTurn,
  versus,
} from "./comparison.ts";
import { ScaledDisk } from "./disks.ts";
import { Engine } from "./engine.ts";
import { forgetFile, writtenFile } from "./raw.ts";
import { loadPattern, writeBlocks } from "./scaled.ts";

const deviceBytes = 2 * 2 ** 30;
const volumeBytes = 0.75 * deviceBytes;
const volumeBlocks = volumeBytes / blockBytes;
const overwrites = 10;
const depth = 32;
const flushEveryBatches = 32;
/** Half of what is free on the fresh store: none of it is used twice. */
const writesMeasured = 65_536;

export const aged: Comparison = {
  name: "aged",
  needBytes: () => 2 * deviceBytes,
  method: [
    "A device of 2 GiB (its file written before), a volume of 75 % of it. fresh: the volume was written once, in order; it is made anew for each round. aged: then 10 times its size in random 4 KiB overwrites.",
    `Processor time of all threads a write: ${writesMeasured} random 4 KiB overwrites, 32 a batch, a flush every ${depth * flushEveryBatches}. Nothing of the file is in the page cache before. Data and flushes are real there; while filling and ageing both are left out, since only the layout counts.`,
  ],
  run: compareAged,
};

async function compareAged(options: ComparisonOptions): Promise<Figure[]> {
  const { directory, progress } = options;
  const random = new Random(4);
  const anywhere = () => random.below(volumeBlocks) * blockBytes;
  const device = (name: string) =>
    new ScaledDisk(openFileDisk(writtenFile(join(directory, name), deviceBytes)));
  const filled = (disk: ScaledDisk) => {
    real(disk, false);
    const engine = Engine.create({ file: disk.file, disk }, volumeBytes);
    loadPattern(engine, disk);
    engine.fill();
    return engine;
  };
  const cpu = (engine: Engine, disk: ScaledDisk) => {
    // What was written before is not this round's to write back; and what lies in large folios since
    // the file was made costs ext4 a walk over each at every 4 KiB: no block device has those.
    disk.file.flushSync();
    forgetFile(disk.file.path);
    real(disk, true);
    const before = process.cpuUsage();
    writeBlocks(engine, depth, writesMeasured, anywhere, flushEveryBatches);
    const { user, system } = process.cpuUsage(before);
    engine.settle();
    return (user + system) / writesMeasured;
  };
  const agedDisk = device("aged");
  const old = filled(agedDisk);
  for (let pass = 1; pass <= overwrites; pass++) {
    progress(`ageing, ${pass} of ${overwrites}`);
    writeBlocks(old, depth, volumeBlocks, anywhere, flushEveryBatches);
  }
  const freshDisk = device("fresh");
  const values = await inTurn(options, "us/write", {
    aged: () => cpu(old, agedDisk),
    fresh: () => {
      const young = filled(freshDisk);
      const used = cpu(young, freshDisk);
      young.drop();
      return used;
    },
  });
  old.drop();
  agedDisk.end();
  freshDisk.end();
  const name = "4k-randwrite-qd32, aged to fresh";
  return [versus(name, "us/write", values.aged, values.fresh, { atMost: 2.5 })];
}

/** Data and flushes are the device's; or only the layout is made, without either. */
function real(disk: ScaledDisk, on: boolean): void {
  disk.keepAll = on;
  disk.skipFlushes = !on;
}
