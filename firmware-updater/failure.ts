/**
 * What failed boots left behind. The initrd and the deadline unit append a line each to
 * `boot-attempts` (units/bin/trial-deadline, image/initrd): `TIME BOOT-ID ROOT-HASH EVENT`.
 */
import { execFile } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import type { BootAttempt, UpgradeFailure } from "./schema.ts";
import type { StoredPlan } from "./state.ts";

const run = promisify(execFile);
const logLines = 200;
const reached = {
  var: "mounted /var",
  started: "started services",
  deadline: "waited for the health gate",
} as const;
type BootEvent = keyof typeof reached;

export interface AttemptLine {
  readonly at: string;
  readonly bootId: string;
  readonly rootHash: string;
  readonly event: BootEvent;
}

/** Lines that a power cut left half are passed over. */
export function parseAttempts(text: string): AttemptLine[] {
  return text.split("\n").flatMap((line) => {
    const match = /^(\d{9,11}) ([0-9a-f-]{32,36}) ([0-9a-f]{64}) (var|started|deadline)$/.exec(
      line,
    );
    if (match === null) return [];
    return [
      {
        at: new Date(Number(match[1]) * 1000).toISOString(),
        bootId: match[2].replaceAll("-", ""),
        rootHash: match[3],
        event: match[4] as BootEvent,
      },
    ];
  });
}

/** Attempts of the plan's new version since its restart, oldest first. */
export function attemptsOf(plan: StoredPlan, lines: readonly AttemptLine[]): BootAttempt[] {
  const attempts = new Map<string, BootAttempt>();
  for (const { bootId, rootHash, event, at } of lines) {
    // The clock of a failed boot may have been wrong; the root hash is not.
    if (rootHash !== plan.to.rootHash) continue;
    const before = attempts.get(bootId);
    attempts.set(bootId, {
      bootId,
      startedAt: before?.startedAt ?? at,
      reached: reached[event],
      reason: event === "deadline" ? "the health gate did not end in time" : null,
    });
  }
  return [...attempts.values()].slice(-5);
}

export function reasonOf(plan: StoredPlan, attempts: readonly BootAttempt[]): string {
  const { version } = plan.to;
  if (attempts.length === 0) {
    return `${version} did not get as far as mounting /var in three tries: its kernel or its initrd failed, or its root did not verify.`;
  }
  const last = attempts.at(-1)!;
  const times = attempts.length === 1 ? "once" : `${attempts.length} times`;
  if (last.reason !== null) {
    return `${version} started ${times}; ${last.reason} (${plan.gate.deadlineSeconds} s).`;
  }
  return `${version} started ${times} and got as far as: ${last.reached}. It went down without a word of its health gate.`;
}

export async function inspectFailure(
  plan: StoredPlan,
  attemptsFile: string,
): Promise<Pick<UpgradeFailure, "attempts" | "log" | "reason">> {
  const text = existsSync(attemptsFile) ? readFileSync(attemptsFile, "utf8") : "";
  const attempts = attemptsOf(plan, parseAttempts(text));
  const bootId = plan.gateBootId?.replaceAll("-", "") ?? attempts.at(-1)?.bootId;
  const log = bootId === undefined ? [] : await journalOf(bootId);
  return { attempts, reason: reasonOf(plan, attempts), log: log.length > 0 ? log : pstoreLines() };
}

async function journalOf(bootId: string): Promise<string[]> {
  try {
    const { stdout } = await run(
      "journalctl",
      [`--boot=${bootId}`, "--no-pager", "--quiet", "--output=short-iso", `--lines=${logLines}`],
      { timeout: 60_000, maxBuffer: 8 << 20, env: { LC_ALL: "C", PATH: "/usr/bin:/bin" } },
    );
    return stdout.split("\n").filter((line) => line !== "");
  } catch {
    return [];
  }
}

/** A panic's last words, where the machine has a place for them (systemd-pstore collects them). */
function pstoreLines(folder = "/var/lib/systemd/pstore"): string[] {
  try {
    const newest = readdirSync(folder).sort().at(-1);
    if (newest === undefined) return [];
    const inside = readdirSync(join(folder, newest), { recursive: true, encoding: "utf8" });
    const name = inside.find((each) => /dmesg/.test(each));
    if (name === undefined) return [];
    return readFileSync(join(folder, newest, name), "utf8")
      .split("\n")
      .slice(-logLines);
  } catch {
    return [];
  }
}
