/** `sequential` and `flush`: the store beside a plain file on the same disk. */
import { join } from "node:path";
import { Random } from "#lib/sim/random.ts";
import { openFileDisk } from "#services/chunk-store/file-disk.ts";
import { blockBytes } from "#services/chunk-store/limits.ts";
import {
  alone,
  type Comparison,
  type ComparisonOptions,
  type Figure,
  inTurn,
  timed,
  versus,
} from "./comparison.ts";
import { CountingDisk } from "./disks.ts";
import { Engine } from "./engine.ts";
import { forgetFile, RawRows, writtenFile } from "./raw.ts";

const mebibyte = 2 ** 20;
const largeDepth = 4;
/** As often as a guest that copies files would flush; the store itself does not wait longer either. */
const flushEveryBatches = 16;
const flushesCounted = 100;

/** What both sides can do: requests of one size, a batch at a time. */
interface Target {
  aim(row: number, position: number): void;
  execute(): void;
  flush(): void;
}

export const sequential: Comparison = {
  name: "sequential",
  needBytes: (regionBytes) => 4 * regionBytes,
  method: [
    "1 MiB in order, 4 a batch, over the whole volume and a plain file of the same size, both files written before.",
    "Writes: a flush (store) or fdatasync (plain) every 64 MiB, within the time measured. Then reads, from the device: the page cache of the file is dropped before each pass.",
  ],
  run: compareSequential,
};

async function compareSequential(options: ComparisonOptions): Promise<Figure[]> {
  const { directory, regionBytes, seconds } = options;
  const path = writtenFile(join(directory, "plain"), regionBytes);
  const store = writtenFile(join(directory, "store"), 3 * regionBytes);
  const engine = Engine.create({ file: openFileDisk(store) }, regionBytes);
  engine.fill();
  const plain = {
    read: new RawRows(path, "read", mebibyte, largeDepth),
    write: new RawRows(path, "write", mebibyte, largeDepth),
  };
  const batches = Math.floor(regionBytes / mebibyte / largeDepth);
  const aim = (target: Target, batch: number) => {
    for (let row = 0; row < largeDepth; row++) {
      target.aim(row, (batch * largeDepth + row) * mebibyte);
    }
  };
  /** MiB a second, of whole passes: the cache is dropped before each, which is not in the time. */
  const read = (target: Target, file: string) => {
    let elapsedMs = 0;
    let passes = 0;
    for (; elapsedMs < seconds * 1000; passes++) {
      forgetFile(file);
      const started = performance.now();
      for (let batch = 0; batch < batches; batch++) {
        aim(target, batch);
        target.execute();
      }
      elapsedMs += performance.now() - started;
    }
    return (passes * batches * largeDepth * 1000) / elapsedMs;
  };
  let batch = 0;
  const write = (target: Target) =>
    timed(seconds, flushEveryBatches * largeDepth, () => {
      for (let i = 0; i < flushEveryBatches; i++) {
        aim(target, batch++ % batches);
        target.execute();
      }
      target.flush();
    }).perSecond;
  // Before the reads: those leave the plain file in the page cache, and the store's fresh blocks out.
  engine.shape("write", mebibyte, largeDepth);
  const writes = await inTurn(options, "MiB/s written", {
    store: () => write(engine),
    plain: () => write(plain.write),
  });
  engine.shape("read", mebibyte, largeDepth);
  const reads = await inTurn(options, "MiB/s read", {
    store: () => read(engine, store),
    plain: () => read(plain.read, path),
  });
  engine.stop();
  plain.read.close();
  plain.write.close();
  const bar = { atLeast: 0.85 };
  return [
    versus("1m-read", "MiB/s", reads.store, reads.plain, bar),
    versus("1m-write", "MiB/s", writes.store, writes.plain, bar),
  ];
}

export const flush: Comparison = {
  name: "flush",
  needBytes: (regionBytes) => 3 * regionBytes,
  method: [
    `Flushes of the device that one SYNCHRONIZE CACHE (the store's flush) makes, each of ${flushesCounted} after a write: all counted at the engine's Disk, checkpoints' too.`,
    "4 KiB at a random place and a flush, one at a time, against pwrite and fdatasync on a plain file of the same size; both files written before.",
  ],
  run: compareFlush,
};

async function compareFlush(options: ComparisonOptions): Promise<Figure[]> {
  const { directory, regionBytes, seconds } = options;
  const path = writtenFile(join(directory, "plain"), regionBytes);
  const file = openFileDisk(writtenFile(join(directory, "store"), 2 * regionBytes));
  const disk = new CountingDisk(file);
  const engine = Engine.create({ file, disk }, regionBytes);
  engine.fill();
  engine.settle();
  engine.shape("write", blockBytes, 1);
  const plain = new RawRows(path, "write", blockBytes, 1);
  const random = new Random(2);
  const blocks = regionBytes / blockBytes;
  const writeAndFlush = (target: Target) => {
    target.aim(0, random.below(blocks) * blockBytes);
    target.execute();
    target.flush();
  };
  const counted = Array.from({ length: flushesCounted }, () => {
    const before = disk.flushes;
    writeAndFlush(engine);
    return disk.flushes - before;
  });
  const values = await inTurn(options, "writes/s", {
    store: () => timed(seconds, 1, () => writeAndFlush(engine)).perSecond,
    plain: () => timed(seconds, 1, () => writeAndFlush(plain)).perSecond,
  });
  engine.stop();
  disk.end();
  plain.close();
  return [
    alone("device flushes a flush", "flushes", counted, { exactly: 1 }),
    versus("4k-write-flush-qd1", "writes/s", values.store, values.plain, { atLeast: 0.7 }),
  ];
}
