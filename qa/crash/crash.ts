/**
 * kill -9 of chunk-store and iscsi-target in turn, under a verified write load: what was
 * acknowledged must be there, no block may be torn, the initiator's session must come back.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { KeelsonError } from "#lib/model/errors.ts";
import { BlockNode } from "./block-node.ts";
import { cProgram } from "./c-program.ts";

export interface CrashOptions {
  /** Kills, alternating between the two services. */
  readonly rounds: number;
  /** Makes the times of the kills and the load's choices repeatable. */
  readonly seed?: number;
  readonly blocks?: number;
  readonly depth?: number;
  readonly addon?: boolean;
  /** Default: below the system's temporary folder; must be on a real file system. */
  readonly directory?: string;
  readonly onRound?: (round: CrashRound) => void;
}

export interface CrashRound {
  readonly round: number;
  readonly killed: "chunk-store" | "iscsi-target";
  /** From the kill until a further write was acknowledged. */
  readonly backMs: number;
  /** Writes acknowledged so far. */
  readonly acknowledged: number;
}

/** What the load saw: see verify.c. All of lost, torn, foreign, invented, errors must be 0. */
export interface CrashCounts {
  readonly writes: number;
  readonly reads: number;
  readonly flushes: number;
  readonly logins: number;
  readonly unanswered: number;
  readonly errors: number;
  readonly lost: number;
  readonly torn: number;
  readonly foreign: number;
  readonly invented: number;
}

export interface CrashResult extends CrashCounts {
  readonly rounds: readonly CrashRound[];
  readonly killsOfStore: number;
  readonly killsOfTarget: number;
  /** Longest time from a kill to a further acknowledged write. */
  readonly worstBackMs: number;
  readonly passed: boolean;
  /** What the load complained about, at most 20 lines. */
  readonly complaints: readonly string[];
}

export interface LoadTarget {
  readonly portal: string;
  readonly iqn: string;
}

const comeBackLimitMs = 60_000;
/** The load tells what was acknowledged every 100 ms. */
const settleMs = 150;

export async function runCrash(options: CrashOptions): Promise<CrashResult> {
  const seed = options.seed ?? Date.now() % 1_000_000;
  const directory = mkdtempSync(join(options.directory ?? tmpdir(), "keelson-crash-"));
  let node: BlockNode | undefined;
  let load: VerifiedLoad | undefined;
  try {
    const blocks = options.blocks ?? 16_384;
    node = await BlockNode.start({
      directory,
      volumesBytes: [blocks * 4096],
      storeBytes: Math.max(4 * blocks * 4096, 2 ** 30),
      firstPort: 21_000,
      ...(options.addon === undefined ? {} : { addon: options.addon }),
    });
    load = new VerifiedLoad(
      { portal: node.portal, iqn: node.iqn(0) },
      blocks,
      options.depth ?? 16,
      seed,
    );
    const random = generator(seed);
    const rounds: CrashRound[] = [];
    await load.furtherWrites(1, comeBackLimitMs);
    for (let round = 1; round <= options.rounds; round++) {
      await new Promise((resolve) => setTimeout(resolve, 50 + random() * 250));
      const killed = round % 2 === 1 ? "chunk-store" : "iscsi-target";
      const startMs = performance.now();
      const restarts = node.supervisor.restarts(killed);
      const { logins } = load;
      node.kill(killed);
      await started(node, killed, restarts);
      // The load has told by then of all that was answered before the kill.
      await new Promise((resolve) => setTimeout(resolve, settleMs));
      if (killed === "iscsi-target") await load.furtherLogin(logins, comeBackLimitMs);
      await load.furtherWrites(1, comeBackLimitMs);
      const result = {
        round,
        killed,
        backMs: Math.round(performance.now() - startMs),
        acknowledged: load.acknowledged,
      } as const;
      rounds.push(result);
      options.onRound?.(result);
    }
    const counts = await load.finish();
    return summary(rounds, counts, load.complaints);
  } finally {
    load?.kill();
    await node?.stop();
    rmSync(directory, { recursive: true, force: true });
  }
}

/** Resolves when the supervisor has noticed the end and started the service again. */
async function started(node: BlockNode, service: string, restarts: number): Promise<void> {
  const endMs = performance.now() + comeBackLimitMs;
  while (node.supervisor.restarts(service) === restarts) {
    if (performance.now() > endMs) throw new KeelsonError("TIMEOUT", `${service} did not restart.`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

function summary(
  rounds: readonly CrashRound[],
  counts: CrashCounts,
  complaints: readonly string[],
): CrashResult {
  const killsOfTarget = rounds.filter(({ killed }) => killed === "iscsi-target").length;
  const faults = counts.lost + counts.torn + counts.foreign + counts.invented + counts.errors;
  return {
    ...counts,
    rounds,
    killsOfStore: rounds.length - killsOfTarget,
    killsOfTarget,
    worstBackMs: Math.max(0, ...rounds.map(({ backMs }) => backMs)),
    // A session lost and not seen again would show as fewer log-ins than kills.
    passed: faults === 0 && counts.writes > 0 && counts.logins >= 1 + killsOfTarget,
    complaints,
  };
}

/** verify.c as a child process. */
export class VerifiedLoad {
  acknowledged = 0;
  logins = 0;
  readonly complaints: string[] = [];
  private readonly child: ChildProcess;
  private counts: CrashCounts | undefined;
  private exited = false;
  private waiting: (() => void) | undefined;

  constructor(target: LoadTarget, blocks: number, depth: number, seed: number) {
    const program = cProgram(join(import.meta.dirname, "verify.c"));
    const args = [target.portal, target.iqn, "0", blocks, depth, seed].map(String);
    this.child = spawn(program, args, { stdio: ["ignore", "pipe", "pipe"] });
    createInterface({ input: this.child.stdout! }).on("line", (line) => this.line(line));
    createInterface({ input: this.child.stderr! }).on("line", (line) => {
      if (this.complaints.length < 20) this.complaints.push(line);
    });
    this.child.on("close", () => {
      this.exited = true;
      this.waiting?.();
    });
  }

  private line(line: string): void {
    if (line.startsWith("acked ")) this.acknowledged = Number(line.slice(6));
    else if (line.startsWith("up ")) this.logins++;
    else if (line.startsWith("{")) this.counts = JSON.parse(line) as CrashCounts;
    this.waiting?.();
  }

  private async until(condition: () => boolean, limitMs: number, what: string): Promise<void> {
    const timer = setTimeout(() => this.waiting?.(), limitMs);
    const endMs = performance.now() + limitMs;
    try {
      while (!condition()) {
        if (this.exited || performance.now() >= endMs) {
          const why = this.exited ? "the load ended" : `not within ${limitMs / 1000} s`;
          const said = this.complaints.slice(-3).join("; ");
          throw new KeelsonError("TIMEOUT", `${what}: ${why}. ${said}`.trimEnd());
        }
        await new Promise<void>((resolve) => {
          this.waiting = resolve;
        });
      }
    } finally {
      clearTimeout(timer);
      this.waiting = undefined;
    }
  }

  async furtherWrites(count: number, limitMs: number): Promise<void> {
    const wanted = this.acknowledged + count;
    await this.until(() => this.acknowledged >= wanted, limitMs, "Waiting for further writes");
  }

  /** Waits for a log-in after the first `before`. */
  async furtherLogin(before: number, limitMs: number): Promise<void> {
    await this.until(() => this.logins > before, limitMs, "Waiting for the session to come back");
  }

  /** Ends the writes, has every block read back. */
  async finish(): Promise<CrashCounts> {
    this.child.kill("SIGTERM");
    await this.until(() => this.counts !== undefined, 120_000, "Reading all blocks back");
    return this.counts!;
  }

  kill(): void {
    if (!this.exited) this.child.kill("SIGKILL");
  }
}

/** xorshift32: numbers from 0 to 1 that a seed repeats. */
function generator(seed: number): () => number {
  let state = (seed | 0) ^ 0x9e3779b9 || 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 32;
  };
}
