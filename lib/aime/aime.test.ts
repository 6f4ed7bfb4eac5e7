import { describe, expect, test } from "vitest";
import { bad, type Checked, derive, good, read, uncertain, unobserved } from "./checked.ts";
import {
  advance,
  both,
  type ConditionState,
  either,
  type Finding,
  judge,
  not,
  type Severity,
  type Status,
} from "./condition.ts";

const origin = { source: "chunk-store", atMs: 10_000, maxAgeMs: 5_000 };

describe("checked value", () => {
  const cases: [string, Checked<number>, number, number | string, string | null][] = [
    ["good and fresh", good(7, origin), 14_999, 7, null],
    ["good, its age reached", good(7, origin), 15_000, "chunk-store was last heard 5 s ago.", null],
    ["uncertain and fresh", uncertain(7, "one sample", origin), 10_000, 7, "one sample"],
    ["uncertain and old", uncertain(7, "one", origin), 99_000, /last heard 89 s/.source, null],
    ["bad and fresh", bad("no answer", origin), 10_000, "no answer", null],
    ["never observed", unobserved("netboot"), 0, "netboot has not been asked yet.", null],
  ];
  test.each(cases)("%s", (_name, checked, nowMs, expected, caveat) => {
    const reading = read(checked, nowMs);
    if (typeof expected === "number") {
      expect(reading).toEqual({ known: true, value: expected, caveat });
    } else {
      expect(reading.known).toBe(false);
      expect("value" in reading).toBe(false);
      if (!reading.known) expect(reading.reason).toContain(expected);
    }
  });

  test("what is derived is as good as its source, and bad sources compute nothing", () => {
    const double = (value: number) => value * 2;
    expect(derive(good(7, origin), double)).toEqual(good(14, origin));
    expect(derive(uncertain(7, "why", origin), double)).toEqual(uncertain(14, "why", origin));
    const never = () => {
      throw new Error("computed from a bad value");
    };
    expect(derive(bad("no answer", origin), never)).toEqual(bad("no answer", origin));
  });
});

describe("three-valued logic", () => {
  const table: [Status, Status, Status, Status][] = [
    ["false", "false", "false", "false"],
    ["false", "true", "true", "false"],
    ["false", "unknown", "unknown", "false"],
    ["true", "false", "true", "false"],
    ["true", "true", "true", "true"],
    ["true", "unknown", "true", "unknown"],
    ["unknown", "false", "unknown", "false"],
    ["unknown", "true", "true", "unknown"],
    ["unknown", "unknown", "unknown", "unknown"],
  ];
  test.each(table)("%s, %s: either %s, both %s", (left, right, or, and) => {
    expect(either(left, right)).toBe(or);
    expect(both(left, right)).toBe(and);
  });
  test("not", () => {
    expect((["true", "false", "unknown"] as const).map(not)).toEqual(["false", "true", "unknown"]);
  });
});

describe("condition", () => {
  const finding = (status: Status, severity: Severity = "warning"): Finding => ({
    status,
    severity,
    reason: "because",
    remedy: null,
  });

  test("a bad or stale input makes it unknown with the reason, never false", () => {
    const full = (used: number) => (used > 90 ? finding("true") : null);
    expect(judge(good(95, origin), 10_001, "warning", full, "room")).toEqual(finding("true"));
    expect(judge(good(5, origin), 10_001, "warning", full, "room")).toMatchObject({
      status: "false",
      reason: "room",
    });
    for (const value of [bad("no answer", origin), unobserved("x")]) {
      expect(judge(value, 10_001, "warning", full, "room").status).toBe("unknown");
    }
    expect(judge(good(5, origin), 15_001, "warning", full, "room").status).toBe("unknown");
  });

  const statuses: Status[] = ["true", "false", "unknown"];
  const transitions = statuses.flatMap((from) => statuses.map((to) => [from, to] as const));
  test.each(transitions)("%s then %s: since moves only on a change", (from, to) => {
    const before = advance(undefined, finding(from), "t1", 0);
    expect(before.since).toBe("t1");
    const after = advance(before, finding(to), "t2", 0);
    expect(after.since).toBe(from === to ? "t1" : "t2");
    expect(after.lastSeenAt).toBe("t2");
    expect(after.status).toBe(to);
  });

  const muted = (status: Status, severity: Severity): ConditionState => ({
    ...advance(undefined, finding(status, severity), "t1", 0),
    mutedUntilMs: 1000,
  });
  const mutes: [string, ConditionState, Finding, number, boolean][] = [
    ["goes on while it stays the same", muted("true", "warning"), finding("true"), 999, true],
    ["lapses with its time", muted("true", "warning"), finding("true"), 1000, false],
    ["lapses when it gets worse", muted("true", "warning"), finding("true", "critical"), 1, false],
    ["stays when it gets better", muted("true", "critical"), finding("true"), 1, true],
    ["stays when it ends", muted("true", "warning"), finding("false"), 1, true],
    ["lapses when it comes back", muted("false", "warning"), finding("true"), 1, false],
    ["lapses when unknown turns true", muted("unknown", "warning"), finding("true"), 1, false],
    ["stays when nobody knows", muted("true", "warning"), finding("unknown"), 1, true],
  ];
  test.each(mutes)("a mute %s", (_name, before, next, nowMs, kept) => {
    expect(advance(before, next, "t2", nowMs).mutedUntilMs).toBe(kept ? 1000 : null);
  });
});
