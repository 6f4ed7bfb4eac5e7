/**
 * A condition: is a fault there? True, False or Unknown; absent counts as Unknown. What it was
 * judged from may be bad: then it is Unknown, with the reason, and never False.
 *
 *            finding true             finding false
 *   false  ------------------> true  ---------------> false      `since` moves only on a change
 *     \________ unknown ________/                                of status
 */
import { type Checked, type Reading, read } from "./checked.ts";

export type Status = "true" | "false" | "unknown";
export type Severity = "critical" | "warning" | "notice" | "info";

export interface Finding {
  readonly status: Status;
  readonly severity: Severity;
  /** Why the status is what it is; a sentence. */
  readonly reason: string;
  readonly remedy: string | null;
}

export interface ConditionState extends Finding {
  /** Wall clock, for people: ISO 8601. */
  readonly since: string;
  readonly lastSeenAt: string;
  /** Boot-time clock; null: not muted. */
  readonly mutedUntilMs: number | null;
}

const severityOrder: readonly Severity[] = ["info", "notice", "warning", "critical"];

/** A fault's finding from one checked value; unknown when it can't be read. */
export function judge<Value>(
  checked: Checked<Value>,
  nowMs: number,
  severity: Severity,
  decide: (value: Value) => Finding | null,
  calm: string,
): Finding {
  const reading: Reading<Value> = read(checked, nowMs);
  if (!reading.known) {
    return { status: "unknown", severity, reason: reading.reason, remedy: null };
  }
  return decide(reading.value) ?? { status: "false", severity, reason: calm, remedy: null };
}

/** Three-valued or: one true is enough; unknown hides no true and is hidden by none but true. */
export function either(left: Status, right: Status): Status {
  if (left === "true" || right === "true") return "true";
  return left === "unknown" || right === "unknown" ? "unknown" : "false";
}

/** Three-valued and. */
export function both(left: Status, right: Status): Status {
  return not(either(not(left), not(right)));
}

export function not(status: Status): Status {
  if (status === "unknown") return "unknown";
  return status === "true" ? "false" : "true";
}

/**
 * The condition after a finding. `at` is the wall clock, `nowMs` the boot-time clock. A mute lapses
 * with its time, and when the condition gets worse than what was muted.
 */
export function advance(
  previous: ConditionState | undefined,
  finding: Finding,
  at: string,
  nowMs: number,
): ConditionState {
  const changed = previous === undefined || previous.status !== finding.status;
  return {
    ...finding,
    since: changed ? at : previous.since,
    lastSeenAt: at,
    mutedUntilMs: keepsMute(previous, finding, nowMs) ? previous!.mutedUntilMs : null,
  };
}

function keepsMute(previous: ConditionState | undefined, finding: Finding, nowMs: number): boolean {
  if (previous === undefined || previous.mutedUntilMs === null) return false;
  if (previous.mutedUntilMs <= nowMs) return false;
  const worseStatus = finding.status === "true" && previous.status !== "true";
  const worseSeverity =
    severityOrder.indexOf(finding.severity) > severityOrder.indexOf(previous.severity);
  return !worseStatus && !worseSeverity;
}
