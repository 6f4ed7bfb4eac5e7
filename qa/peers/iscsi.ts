/**
 * Our iSCSI target over the chunk store (thin, checksummed, two processes) against tgt over a raw
 * file on the same file system: same client, in turn, round after round.
 */
import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync } from "node:fs";
import { join } from "node:path";
import { BlockNode, freePort } from "#qa/crash/block-node.ts";
import { type Endpoint, type Load, measure, median, type Sample } from "./measure.ts";
import { Tgt } from "./tgt.ts";

export interface IscsiOptions {
  readonly rounds: number;
  readonly seconds: number;
  readonly directory: string;
  readonly regionBytes: number;
  /** Names of workloads to run; all when empty. */
  readonly only: readonly string[];
  readonly progress: (line: string) => void;
  /** Given to `node` of our services, for profiling. */
  readonly environment?: NodeJS.ProcessEnv;
}

interface Workload {
  readonly name: string;
  readonly mode: Load["mode"];
  readonly blockBytes: number;
  readonly depth: number;
  /** Our CPU per I/O may be at most this part of tgt's. */
  readonly bar?: number;
  /** Which of the two volumes: each is filled with the block size it is tested with. */
  readonly disk: number;
}

const small = 4096;
const large = 256 * 1024;
/**
 * Each fill of the store goes to fresh blocks: so many passes write every block of its sparse file
 * once, as one pass does for a raw file. Without it our writes would be measured while ext4
 * allocates the file, tgt's while it overwrites.
 */
const fillPasses = 4;

export const workloads: readonly Workload[] = [
  { name: "4k-randread-qd32", mode: "randread", blockBytes: small, depth: 32, bar: 0.5, disk: 0 },
  { name: "4k-randwrite-qd32", mode: "randwrite", blockBytes: small, depth: 32, bar: 0.6, disk: 0 },
  { name: "4k-randread-qd1", mode: "randread", blockBytes: small, depth: 1, disk: 0 },
  { name: "4k-randwrite-qd1", mode: "randwrite", blockBytes: small, depth: 1, disk: 0 },
  { name: "256k-read-qd4", mode: "read", blockBytes: large, depth: 4, disk: 1 },
  { name: "256k-write-qd4", mode: "write", blockBytes: large, depth: 4, disk: 1 },
];

export interface Comparison {
  readonly workload: string;
  readonly ours: Sample;
  readonly tgt: Sample;
  /** Medians of each round's ratio, ours to tgt's. */
  readonly cpuRatio: number;
  readonly iopsRatio: number;
  readonly bar: number | null;
  readonly met: boolean | null;
}

export interface IscsiResult {
  readonly rounds: number;
  readonly seconds: number;
  readonly regionBytes: number;
  readonly comparisons: readonly Comparison[];
  readonly passed: boolean;
}

export async function compareIscsi(options: IscsiOptions): Promise<IscsiResult> {
  const directory = mkdtempSync(join(options.directory, "keelson-peers-"));
  let ours: BlockNode | undefined;
  let tgt: Tgt | undefined;
  try {
    const { regionBytes } = options;
    ours = await BlockNode.start({
      directory,
      volumesBytes: [regionBytes, regionBytes],
      storeBytes: Math.max(4 * regionBytes, 2 ** 30),
      firstPort: 21_100,
      ...(options.environment === undefined ? {} : { environment: options.environment }),
    });
    const files = [0, 1].map((index) => sparseFile(join(directory, `tgt${index}`), regionBytes));
    tgt = await Tgt.start(`127.0.0.1:${await freePort(21_200)}`, directory, files);
    const pids = Object.values(ours.supervisor.pids);
    const endpoints = (disk: number): Record<"ours" | "tgt", Endpoint> => ({
      ours: { portal: ours!.portal, iqn: ours!.iqn(disk), lun: 0, pids },
      tgt: { portal: tgt!.portal, iqn: tgt!.iqn(disk), lun: 1, pids: tgt!.pids },
    });
    const chosen = workloads.filter(
      ({ name }) => options.only.length === 0 || options.only.includes(name),
    );
    const comparisons: Comparison[] = [];
    for (const disk of new Set(chosen.map((workload) => workload.disk))) {
      const blockBytes = disk === 0 ? small : large;
      for (let pass = 1; pass <= fillPasses; pass++) {
        for (const [name, endpoint] of Object.entries(endpoints(disk))) {
          options.progress(`filling ${name} with blocks of ${blockBytes} bytes, pass ${pass}`);
          await measure(endpoint, { mode: "fill", blockBytes, depth: 32, seconds: 0, regionBytes });
        }
      }
      for (const workload of chosen.filter((entry) => entry.disk === disk)) {
        comparisons.push(await compare(workload, endpoints(disk), options));
      }
    }
    return {
      rounds: options.rounds,
      seconds: options.seconds,
      regionBytes,
      comparisons,
      passed: comparisons.every(({ met }) => met !== false),
    };
  } finally {
    tgt?.stop();
    await ours?.stop();
    rmSync(directory, { recursive: true, force: true });
  }
}

async function compare(
  workload: Workload,
  endpoints: Record<"ours" | "tgt", Endpoint>,
  options: IscsiOptions,
): Promise<Comparison> {
  const { seconds, regionBytes } = options;
  const load: Load = { ...workload, seconds, regionBytes };
  const samples: Record<"ours" | "tgt", Sample[]> = { ours: [], tgt: [] };
  for (let round = 0; round < options.rounds; round++) {
    // Who goes first changes, so that neither always finds the other's dirty pages.
    const order = round % 2 === 0 ? (["ours", "tgt"] as const) : (["tgt", "ours"] as const);
    for (const who of order) samples[who].push(await measure(endpoints[who], load));
    const [mine, theirs] = [samples.ours[round], samples.tgt[round]];
    options.progress(
      `${workload.name} round ${round + 1}: ${mine.cpuUsPerIo.toFixed(2)} us and ${mine.iops.toFixed(0)}/s, tgt ${theirs.cpuUsPerIo.toFixed(2)} us and ${theirs.iops.toFixed(0)}/s`,
    );
  }
  const ratio = (of: (sample: Sample) => number) =>
    median(samples.ours.map((sample, round) => of(sample) / of(samples.tgt[round])));
  const cpuRatio = ratio(({ cpuUsPerIo }) => cpuUsPerIo);
  const bar = workload.bar ?? null;
  return {
    workload: workload.name,
    ours: middle(samples.ours),
    tgt: middle(samples.tgt),
    cpuRatio,
    iopsRatio: ratio(({ iops }) => iops),
    bar,
    met: bar === null ? null : cpuRatio <= bar,
  };
}

function middle(samples: readonly Sample[]): Sample {
  const of = (pick: (sample: Sample) => number) => median(samples.map(pick));
  return {
    iops: of(({ iops }) => iops),
    cpuUsPerIo: of(({ cpuUsPerIo }) => cpuUsPerIo),
    p50Us: of(({ p50Us }) => p50Us),
    p99Us: of(({ p99Us }) => p99Us),
  };
}

function sparseFile(path: string, sizeBytes: number): string {
  const fd = openSync(path, "w");
  ftruncateSync(fd, sizeBytes);
  closeSync(fd);
  return path;
}

export function formatTable(result: IscsiResult): string {
  const head = [
    "workload",
    "us/IO",
    "tgt",
    "ratio",
    "bar",
    "IOPS",
    "tgt",
    "ratio",
    "p99 us",
    "tgt",
  ];
  const rows = result.comparisons.map(({ workload, ours, tgt, cpuRatio, iopsRatio, bar, met }) => [
    workload,
    ours.cpuUsPerIo.toFixed(2),
    tgt.cpuUsPerIo.toFixed(2),
    cpuRatio.toFixed(2),
    bar === null ? "" : `${bar} ${met ? "met" : "MISSED"}`,
    ours.iops.toFixed(0),
    tgt.iops.toFixed(0),
    iopsRatio.toFixed(2),
    String(ours.p99Us),
    String(tgt.p99Us),
  ]);
  const widths = head.map((_, column) =>
    Math.max(...[head, ...rows].map((row) => row[column].length)),
  );
  return [head, ...rows]
    .map((row) =>
      row
        .map((cell, i) => (i === 0 ? cell.padEnd(widths[i]) : cell.padStart(widths[i])))
        .join("  "),
    )
    .join("\n");
}
