/** `read-cpu` and `read-direct`: random reads of 4 KiB, 32 at once. */
import { spawnSync } from "node:child_process";
import { closeSync, openSync, readFileSync, readSync } from "node:fs";
import { join } from "node:path";
import { KeelsonError } from "#lib/model/errors.ts";
import { Random } from "#lib/sim/random.ts";
import { openFileDisk } from "#services/chunk-store/file-disk.ts";
import { blockBytes } from "#services/chunk-store/limits.ts";
import {
  type Comparison,
  type ComparisonOptions,
  type Figure,
  inTurn,
  spread,
  timed,
  versus,
} from "./comparison.ts";
import { addon, Engine } from "./engine.ts";
import { RawRows, writtenFile } from "./raw.ts";

const depth = 32;
const batchesPerLook = 8;
const directBar = { atLeast: 0.8 };

export const readCpu: Comparison = {
  name: "read-cpu",
  needBytes: (regionBytes) => 3 * regionBytes,
  method: [
    "4 KiB random reads, 32 a batch, of a volume and of a plain file of the same size, both written in order and wholly in the page cache.",
    "Processor time, user and system, of all threads of this process (process.cpuUsage) a read. The plain file is read by the addon's rows (one crossing a batch) and by fs.readSync; the peer is the cheaper one.",
  ],
  run: compareReadCpu,
};

async function compareReadCpu(options: ComparisonOptions): Promise<Figure[]> {
  const { directory, regionBytes, seconds, progress } = options;
  const path = writtenFile(join(directory, "plain"), regionBytes);
  const store = writtenFile(join(directory, "store"), 2 * regionBytes);
  const file = openFileDisk(store);
  const engine = Engine.create({ file }, regionBytes);
  engine.fill();
  engine.shape("read", blockBytes, depth);
  const rows = new RawRows(path, "read", blockBytes, depth);
  const fd = openSync(path, "r");
  const random = new Random(1);
  const blocks = regionBytes / blockBytes;
  const cpu = (batch: () => void) =>
    timed(seconds, batchesPerLook * depth, () => {
      for (let i = 0; i < batchesPerLook; i++) batch();
    }).cpuUs;
  const missedBefore = bytesFromDevice();
  const values = await inTurn(options, "us/read", {
    store: () => cpu(() => readAnywhere(engine, random, blocks)),
    rows: () => cpu(() => readAnywhere(rows, random, blocks)),
    readSync: () =>
      cpu(() => {
        for (let row = 0; row < depth; row++) {
          const position = random.below(blocks) * blockBytes;
          readSync(fd, rows.payload, row * blockBytes, blockBytes, position);
        }
      }),
  });
  const missed = bytesFromDevice() - missedBefore;
  if (missed > regionBytes / 16) {
    progress(`the page cache was NOT warm: ${missed} bytes came from the device`);
  }
  const rowsAreCheaper = spread(values.rows).median <= spread(values.readSync).median;
  const peer = rowsAreCheaper ? values.rows : values.readSync;
  closeSync(fd);
  rows.close();
  engine.stop();
  const name = `4k-randread-qd32-warm, to ${rowsAreCheaper ? "the addon's rows" : "fs.readSync"}`;
  return [versus(name, "us/read", values.store, peer, { atMost: 1.8 })];
}

function readAnywhere(target: Engine | RawRows, random: Random, blocks: number): void {
  for (let row = 0; row < depth; row++) target.aim(row, random.below(blocks) * blockBytes);
  target.execute();
}

/** What this process has had read from storage so far. */
function bytesFromDevice(): number {
  return Number(/^read_bytes: (\d+)$/m.exec(readFileSync("/proc/self/io", "utf8"))?.[1] ?? 0);
}

export const readDirect: Comparison = {
  name: "read-direct",
  needBytes: (regionBytes) => 3 * regionBytes,
  method: [
    "4 KiB random reads past the page cache (O_DIRECT): the store's 32 a batch, against fio's psync with 32 threads on a plain file of the same size; both files written before.",
  ],
  run: compareReadDirect,
};

async function compareReadDirect(options: ComparisonOptions): Promise<readonly Figure[]> {
  const { directory, regionBytes } = options;
  const name = "4k-randread-qd32-direct";
  const path = writtenFile(join(directory, "plain"), regionBytes);
  const plain = () => directReads(path, options);
  const store = writtenFile(join(directory, "store"), 2 * regionBytes);
  const file = openFileDisk(store, addon(), "direct");
  const engine = Engine.create({ file }, regionBytes);
  engine.fill();
  engine.shape("read", blockBytes, depth);
  const random = new Random(1);
  const blocks = regionBytes / blockBytes;
  const values = await inTurn(options, "reads/s", {
    store: () =>
      timed(options.seconds, depth, () => readAnywhere(engine, random, blocks)).perSecond,
    plain,
  });
  engine.stop();
  return [versus(name, "reads/s", values.store, values.plain, directBar)];
}

function directReads(path: string, { seconds, regionBytes }: ComparisonOptions): number {
  const { status, stdout, stderr, error } = spawnSync(
    "fio",
    [
      ...["--name=direct", `--filename=${path}`, `--size=${regionBytes}`, "--rw=randread"],
      ...[`--bs=${blockBytes}`, "--direct=1", "--ioengine=psync", "--thread"],
      ...[`--numjobs=${depth}`, "--group_reporting", "--norandommap"],
      ...["--time_based", `--runtime=${seconds}`, "--output-format=json"],
    ],
    { encoding: "utf8" },
  );
  if (status !== 0) {
    throw new KeelsonError("UNAVAILABLE", `fio failed: ${error?.message ?? stderr.trim()}`, {
      remedy: "Install the Debian package fio.",
    });
  }
  return (JSON.parse(stdout) as { jobs: { read: { iops: number } }[] }).jobs[0].read.iops;
}
