/**
 * The health gate: a new version is kept only if all that worked before the restart works again,
 * without a gap for a while, before a deadline. A crash loop that looks well at each glance is seen
 * by its count of restarts.
 */
import { setTimeout as sleep } from "node:timers/promises";
import type { GateSettings } from "./schema.ts";
import type { Baseline } from "./state.ts";

export interface UnitHealth {
  readonly name: string;
  /** systemd's ActiveState and SubState. */
  readonly active: string;
  readonly sub: string;
  /** NRestarts. */
  readonly restarts: number;
}

export interface Health {
  readonly units: readonly UnitHealth[];
  /** Links that are up, and whether they have an IPv4 address. */
  readonly links: Baseline["links"];
  /** What is wrong with each; null: nothing. */
  readonly api: string | null;
  readonly store: string | null;
}

export interface HealthProbes {
  observe(): Promise<Health>;
}

export type GateVerdict = { readonly ok: true } | { readonly ok: false; readonly why: string };

export const sampleMs = 5_000;

/** What is wrong now, by name; empty if all is well. */
export function judgeHealth(health: Health, baseline: Baseline | null): string[] {
  const wanted = new Set([...neededUnits, ...(baseline?.units ?? [])]);
  const problems: string[] = [];
  for (const name of wanted) {
    const unit = health.units.find((each) => each.name === name);
    if (unit?.active === "active") continue;
    const how = unit === undefined ? "is not there" : `is ${unit.active} (${unit.sub})`;
    problems.push(`service ${name} ${how}`);
  }
  if (health.api !== null) problems.push(`API: ${health.api}`);
  if (health.store !== null) problems.push(`store: ${health.store}`);
  for (const link of baseline?.links ?? []) {
    const now = health.links.find(({ mac }) => mac === link.mac);
    if (now === undefined) problems.push(`network: ${link.name} (${link.mac}) is not up`);
    else if (link.ipv4 && !now.ipv4) problems.push(`network: ${link.name} has no IPv4 address`);
  }
  return problems;
}

/** Of every node, whatever ran before. */
export const neededUnits = ["cluster-store", "chunk-store", "iscsi-target", "api"] as const;

export interface GateOptions {
  readonly settings: GateSettings;
  readonly baseline: Baseline | null;
  readonly probes: HealthProbes;
  /** Seconds since the machine's start: the deadline counts from there. */
  uptimeSeconds(): number;
  tell(message: string, percent: number): void;
  readonly pauseMs?: number;
}

export async function runGate(options: GateOptions): Promise<GateVerdict> {
  const { settings, baseline, probes, tell } = options;
  let wellSince: number | undefined;
  let restarts = new Map<string, number>();
  let last: string[] = ["nothing was seen yet"];
  for (;;) {
    const now = options.uptimeSeconds();
    const health = await probes.observe();
    const problems = judgeHealth(health, baseline);
    for (const { name, restarts: count } of health.units) {
      const before = restarts.get(name);
      if (before !== undefined && count > before) {
        problems.push(`service ${name} fell over and was started again (${count} times so far)`);
      }
    }
    restarts = new Map(health.units.map(({ name, restarts: count }) => [name, count]));
    if (problems.length === 0) {
      wellSince ??= now;
      const held = now - wellSince;
      if (held >= settings.holdSeconds) return { ok: true };
      tell(
        `All is well, for ${Math.floor(held)} of ${settings.holdSeconds} s.`,
        Math.min(99, (100 * held) / settings.holdSeconds),
      );
    } else {
      wellSince = undefined;
      last = problems;
      tell(`Not yet: ${problems.join("; ")}.`, 0);
    }
    if (now > settings.deadlineSeconds) {
      return {
        ok: false,
        why: `Not well for ${settings.holdSeconds} s within ${settings.deadlineSeconds} s of the start: ${last.join("; ")}.`,
      };
    }
    await sleep(options.pauseMs ?? sampleMs);
  }
}
