/** One measurement: a load against a target, and the processor time the target's processes took. */
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { KeelsonError } from "#lib/model/errors.ts";
import { cProgram } from "#qa/crash/c-program.ts";

export interface Endpoint {
  readonly portal: string;
  readonly iqn: string;
  readonly lun: number;
  readonly pids: readonly number[];
}

export interface Load {
  readonly mode: "randread" | "randwrite" | "read" | "write" | "fill";
  readonly blockBytes: number;
  readonly depth: number;
  readonly seconds: number;
  readonly regionBytes: number;
}

export interface Sample {
  readonly iops: number;
  /** Processor time of all of the target's processes, user and system. */
  readonly cpuUsPerIo: number;
  readonly p50Us: number;
  readonly p99Us: number;
}

/** USER_HZ is 100 on every Linux that Debian builds. */
const microsPerTick = 10_000;

/** utime + stime of a process, all its threads. proc_pid_stat(5): fields 14 and 15. */
function cpuUs(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) * microsPerTick;
}

const totalCpuUs = (pids: readonly number[]) => pids.reduce((sum, pid) => sum + cpuUs(pid), 0);

export async function measure(endpoint: Endpoint, load: Load): Promise<Sample> {
  const program = cProgram(join(import.meta.dirname, "load.c"));
  const { portal, iqn, lun, pids } = endpoint;
  const { mode, blockBytes, depth, seconds, regionBytes } = load;
  const args = [portal, iqn, lun, mode, blockBytes, depth, seconds, regionBytes].map(String);
  const before = totalCpuUs(pids);
  const child = spawn(program, args, { stdio: ["ignore", "pipe", "pipe"] });
  let output = "";
  let complaint = "";
  child.stdout.on("data", (chunk) => {
    output += chunk;
  });
  child.stderr.on("data", (chunk) => {
    complaint += chunk;
  });
  const status = await new Promise((resolve) => child.on("close", resolve));
  const used = totalCpuUs(pids) - before;
  if (status !== 0) {
    throw new KeelsonError("UNAVAILABLE", `The load failed: ${complaint.trim()} ${output.trim()}`, {
      operation: mode,
      object: iqn,
    });
  }
  const result = JSON.parse(output) as {
    ios: number;
    seconds: number;
    p50Us: number;
    p99Us: number;
  };
  return {
    iops: result.ios / result.seconds,
    cpuUsPerIo: used / result.ios,
    p50Us: result.p50Us,
    p99Us: result.p99Us,
  };
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}
