/** A schedule as it is typed, and as api takes it. Pure. */
import type { Weekday } from "../../../services/api/local-time.ts";
import type { Keep, SnapshotSchedule, When } from "../../../services/api/snapshot-schema.ts";

export const keepRules = ["last", "hours", "days", "weeks", "months"] as const;
export type KeepRule = (typeof keepRules)[number];

export interface ScheduleDraft {
  readonly kind: When["kind"];
  readonly minutes: string;
  readonly at: string;
  readonly days: readonly Weekday[];
  readonly keep: Readonly<Record<KeepRule, string>>;
}

export function draftOf(schedule: SnapshotSchedule | undefined): ScheduleDraft {
  const when: When = schedule?.when ?? { kind: "daily", at: "02:30" };
  const keep: Keep = schedule?.keep ?? { days: 7, weeks: 4, months: 6 };
  return {
    kind: when.kind,
    minutes: when.kind === "every" ? String(when.minutes) : "60",
    at: when.kind === "every" ? "02:30" : when.at,
    days: when.kind === "weekly" ? when.days : ["saturday"],
    keep: Object.fromEntries(keepRules.map((rule) => [rule, String(keep[rule] ?? "")])) as Record<
      KeepRule,
      string
    >,
  };
}

/** What can't be taken as it is typed. */
export interface ScheduleFaults {
  readonly minutes: boolean;
  readonly at: boolean;
  readonly days: boolean;
  readonly keep: ReadonlySet<KeepRule>;
}

export function faultsOf(draft: ScheduleDraft): ScheduleFaults {
  return {
    minutes: draft.kind === "every" && !isCount(draft.minutes, 5, 10_080),
    at: draft.kind !== "every" && !/^([01]\d|2[0-3]):[0-5]\d$/.test(draft.at),
    days: draft.kind === "weekly" && draft.days.length === 0,
    keep: new Set(
      keepRules.filter((rule) => draft.keep[rule] !== "" && !isCount(draft.keep[rule], 1, 1000)),
    ),
  };
}

export function isWhole(faults: ScheduleFaults): boolean {
  return !faults.minutes && !faults.at && !faults.days && faults.keep.size === 0;
}

function isCount(text: string, least: number, most: number): boolean {
  const count = Number(text);
  return /^\d+$/.test(text) && count >= least && count <= most;
}

/** Of a draft without faults. */
export function bodyOf(draft: ScheduleDraft): { when: When; keep: Keep } {
  const when: When =
    draft.kind === "every"
      ? { kind: "every", minutes: Number(draft.minutes) }
      : draft.kind === "daily"
        ? { kind: "daily", at: draft.at }
        : { kind: "weekly", days: [...draft.days], at: draft.at };
  const keep = Object.fromEntries(
    keepRules
      .filter((rule) => draft.keep[rule] !== "")
      .map((rule) => [rule, Number(draft.keep[rule])]),
  );
  return { when, keep };
}
