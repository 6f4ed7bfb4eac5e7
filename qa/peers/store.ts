/**
 * `npm run peers -- store`: the store's engine in ratios, to plain files, to qcow2, to itself. Each
 * comparison runs in a process of its own, so that the next one begins with an empty heap, and in a
 * directory of its own, which is removed however it ends.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { cpus, loadavg } from "node:os";
import { join } from "node:path";
import { KeelsonError } from "#lib/model/errors.ts";
import { formatSize } from "#lib/model/size.ts";
import { comparisons } from "./store/all.ts";
import type { ChildOptions, ChildReply } from "./store/child.ts";
import { type Comparison, type Figure, meets, type NotMeasured } from "./store/comparison.ts";
import { freeBytes, keepFreeBytes } from "./store/disks.ts";

export interface StoreOptions {
  readonly rounds: number;
  readonly seconds: number;
  readonly regionBytes: number;
  readonly directory: string;
  /** Names of comparisons to run; all when empty. */
  readonly only: readonly string[];
  /** Also given to `node` of each comparison, for profiling. */
  readonly flags: readonly string[];
  readonly progress: (line: string) => void;
}

export interface StoreResult {
  readonly rounds: number;
  readonly seconds: number;
  readonly regionBytes: number;
  readonly machine: string;
  /** Runnable processes over the last minute, before and after. */
  readonly load: readonly [before: number, after: number];
  readonly comparisons: readonly {
    readonly name: string;
    readonly method: readonly string[];
    readonly figures: readonly (Figure | NotMeasured)[];
  }[];
  readonly passed: boolean;
}

export async function compareStore(options: StoreOptions): Promise<StoreResult> {
  const { rounds, seconds, regionBytes, only } = options;
  const chosen = comparisons.filter(({ name }) => only.length === 0 || only.includes(name));
  const before = loadavg()[0];
  const results: { name: string; method: readonly string[]; figures: ChildReply["figures"] }[] = [];
  for (const comparison of chosen) {
    const { name, method } = comparison;
    results.push({ name, method, figures: await runAside(comparison, options) });
  }
  return {
    rounds,
    seconds,
    regionBytes,
    machine: `${cpus().length} x ${cpus()[0].model.trim()}`,
    load: [before, loadavg()[0]],
    comparisons: results,
    passed: results.every(({ figures }) =>
      figures.every((figure) => "notMeasured" in figure || meets(figure) !== false),
    ),
  };
}

async function runAside(
  { name, needBytes }: Comparison,
  options: StoreOptions,
): Promise<ChildReply["figures"]> {
  const needed = needBytes(options.regionBytes);
  const free = freeBytes(options.directory);
  if (free < needed + keepFreeBytes) {
    throw new KeelsonError(
      "NO_SPACE",
      `${options.directory} has ${formatSize(free)} free; ${name} takes ${formatSize(needed)}, and ${formatSize(keepFreeBytes)} must stay.`,
      { operation: name, object: options.directory, remedy: "Give another --directory." },
    );
  }
  const directory = mkdtempSync(join(options.directory, `keelson-peers-${name}-`));
  const { rounds, seconds, regionBytes, progress } = options;
  const own: ChildOptions = { name, rounds, seconds, regionBytes, directory };
  // A process group of its own: whatever it started ends with it, also when it is killed.
  const child = spawn(
    process.execPath,
    [
      ...["--disable-warning=ExperimentalWarning", ...options.flags],
      ...[join(import.meta.dirname, "store", "child.ts"), JSON.stringify(own)],
    ],
    { detached: true, stdio: ["ignore", "inherit", "inherit", "ipc"] },
  );
  const cleanUp = () => {
    endGroup(child);
    rmSync(directory, { recursive: true, force: true });
  };
  process.on("exit", cleanUp);
  try {
    progress(`${name}: ${formatSize(free)} free`);
    return await replyOf(child, name, (line) => progress(`${name}: ${line}`));
  } finally {
    process.off("exit", cleanUp);
    cleanUp();
  }
}

function replyOf(
  child: ChildProcess,
  name: string,
  progress: (line: string) => void,
): Promise<ChildReply["figures"]> {
  return new Promise((resolve, reject) => {
    let reply: ChildReply | undefined;
    child.on("message", (message: ChildReply | { progress: string }) => {
      if ("progress" in message) progress(message.progress);
      else reply = message;
    });
    child.once("error", reject);
    child.once("close", (code, signal) => {
      if (reply !== undefined && code === 0) return resolve(reply.figures);
      reject(
        new KeelsonError("UNAVAILABLE", `${name} failed: ${signal ?? `exit ${code}`}.`, {
          operation: name,
          remedy: "Its own message stands above.",
        }),
      );
    });
  });
}

function endGroup({ pid }: ChildProcess): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, "SIGKILL");
  } catch {
    // All of it has ended.
  }
}

export function formatStore(result: StoreResult): string {
  const { load, machine, rounds, seconds, regionBytes } = result;
  const lines = [
    `Machine: ${machine}; load average ${load.map((each) => each.toFixed(1)).join(" before, ")} after: others' work is in the figures.`,
    `${rounds} rounds, each side once a round in turn, ${seconds} s a measurement, after one round that does not count; regions of ${formatSize(regionBytes)} unless said.`,
    "The store's engine runs in the benchmark's process: executor, batches and turns as in the store's thread, on a file through file-disk.ts and the addon; queue depth is the rows of a batch.",
    "Ratios are store to peer, round by round: min / median / max. Bars are for the median.",
  ];
  for (const { name, method, figures } of result.comparisons) {
    lines.push("", name, ...method.map((line) => `  ${line}`), "");
    lines.push(...table(figures.filter((figure) => "value" in figure)));
    for (const figure of figures) {
      if ("notMeasured" in figure) lines.push(`  ${figure.name}: ${figure.notMeasured}`);
    }
  }
  return lines.join("\n");
}

function table(figures: readonly Figure[]): string[] {
  if (figures.length === 0) return [];
  const number = (value: number) =>
    Math.abs(value) >= 100 ? value.toFixed(0) : Number(value.toPrecision(3)).toString();
  const rows = figures.map((figure) => {
    const { name, value, unit, sides, bar } = figure;
    const met = meets(figure);
    return [
      name,
      `${number(value.min)} / ${number(value.median)} / ${number(value.max)} ${unit}`,
      sides === undefined
        ? ""
        : `${number(sides.store.median)} to ${number(sides.peer.median)} ${sides.unit}`,
      bar === null ? "no bar" : `bar: ${barText(bar)}, ${met ? "met" : "MISSED"}`,
    ];
  });
  const widths = [0, 1, 2].map((column) => Math.max(...rows.map((row) => row[column].length)));
  return rows.map((row) =>
    `  ${row.map((cell, i) => cell.padEnd(widths[i] ?? 0)).join("  ")}`.trimEnd(),
  );
}

function barText(bar: NonNullable<Figure["bar"]>): string {
  if ("atMost" in bar) return `at most ${bar.atMost}`;
  if ("atLeast" in bar) return `at least ${bar.atLeast}`;
  return `each ${bar.exactly}`;
}
