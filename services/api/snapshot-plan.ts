/**
 * When a schedule takes snapshots and which of them it lets go. Pure: `schedule-runner.ts` does it.
 *
 *   clock before 2026                     it isn't set yet: nothing is taken, nothing deleted
 *   doneUntil more than 5 min ahead       the clock went back: doneUntil follows it, nothing is taken
 *   a time of the schedule since doneUntil  one run, however many were missed
 *   else                                  wait
 */
import { dateOf, dayNumber, instantOf, localTime, weekdays } from "./local-time.ts";
import type { Keep, When } from "./snapshot-schema.ts";

/** No node of this product lived before: a clock that says so has lost its battery. */
export const believableMs = Date.UTC(2026, 0, 1);
/** A clock that is corrected by less makes no difference. */
const toleranceMs = 5 * 60_000;

export type Due =
  | { readonly kind: "clockWrong" }
  | { readonly kind: "clockWentBack"; readonly doneUntilMs: number }
  | { readonly kind: "run"; readonly slotMs: number }
  | { readonly kind: "wait"; readonly nextMs: number };

export function due(when: When, doneUntilMs: number, nowMs: number, zone: string): Due {
  if (nowMs < believableMs) return { kind: "clockWrong" };
  if (doneUntilMs > nowMs + toleranceMs) return { kind: "clockWentBack", doneUntilMs: nowMs };
  const slotMs = latestSlot(when, nowMs, zone);
  if (slotMs > doneUntilMs) return { kind: "run", slotMs };
  return { kind: "wait", nextMs: nextSlot(when, Math.max(nowMs, doneUntilMs), zone) };
}

/** The newest time of the schedule up to now. */
function latestSlot(when: When, nowMs: number, zone: string): number {
  if (when.kind === "every")
    return Math.floor(nowMs / (when.minutes * 60_000)) * when.minutes * 60_000;
  return slotsAround(when, nowMs, zone).findLast((slotMs) => slotMs <= nowMs)!;
}

export function nextSlot(when: When, afterMs: number, zone: string): number {
  if (when.kind === "every") {
    return (Math.floor(afterMs / (when.minutes * 60_000)) + 1) * when.minutes * 60_000;
  }
  return slotsAround(when, afterMs, zone).find((slotMs) => slotMs > afterMs)!;
}

/** Those of 8 days before and after: at least one each, in order. */
function slotsAround(when: Exclude<When, { kind: "every" }>, atMs: number, zone: string): number[] {
  const [hour, minute] = when.at.split(":").map(Number);
  const today = dayNumber(localTime(atMs, zone));
  return Array.from({ length: 17 }, (_, i) => today - 8 + i)
    .filter((day) => when.kind === "daily" || when.days.includes(weekdays[(day + 3) % 7]))
    .map((day) => instantOf({ ...dateOf(day), hour, minute }, zone));
}

/** A snapshot of one schedule and one volume that is there. */
export interface Kept {
  readonly id: string;
  readonly createdMs: number;
  /** The store's order: of one volume the greater one is the later one, whatever the clock said. */
  readonly epoch: number;
  /** Held, open or cloned: never deleted, but it stands for its time as others do. */
  readonly pinned: boolean;
}

/**
 * Ids to delete, of one schedule's snapshots of one volume. Nothing depends on their age, so a clock
 * that is wrong deletes nothing by that. Those of a time that can't be believed are left alone.
 */
export function expired(
  snapshots: readonly Kept[],
  keep: Keep,
  nowMs: number,
  zone: string,
): string[] {
  if (nowMs < believableMs || Object.values(keep).every((count) => count === undefined)) return [];
  const newestFirst = snapshots.toSorted((a, b) => b.epoch - a.epoch);
  // The last good one stays whatever else is said.
  const stays = new Set(newestFirst.slice(0, 1).map(({ id }) => id));
  const counted = newestFirst.filter(
    ({ createdMs }) => createdMs >= believableMs && createdMs <= nowMs + toleranceMs,
  );
  for (const { id } of counted.slice(0, keep.last ?? 0)) stays.add(id);
  for (const [rule, bucketOf] of Object.entries(buckets)) {
    const seen = new Set<string>();
    const most = keep[rule as keyof typeof buckets] ?? 0;
    for (const { id, createdMs } of counted) {
      if (seen.size >= most) break;
      const bucket = bucketOf(createdMs, zone);
      if (seen.has(bucket)) continue;
      seen.add(bucket);
      stays.add(id);
    }
  }
  return counted.filter(({ id, pinned }) => !pinned && !stays.has(id)).map(({ id }) => id);
}

const buckets = {
  hours: (atMs: number, zone: string) => {
    const { hour } = localTime(atMs, zone);
    return `${dayNumber(localTime(atMs, zone))} ${hour}`;
  },
  days: (atMs: number, zone: string) => String(dayNumber(localTime(atMs, zone))),
  // Weeks begin on Monday; day 0, 1970-01-01, was a Thursday.
  weeks: (atMs: number, zone: string) =>
    String(Math.floor((dayNumber(localTime(atMs, zone)) + 3) / 7)),
  months: (atMs: number, zone: string) => {
    const { year, month } = localTime(atMs, zone);
    return `${year}-${month}`;
  },
} as const;
