import { describe, expect, test } from "vitest";
import { instantOf, localTime } from "./local-time.ts";
import { believableMs, due, expired, type Kept } from "./snapshot-plan.ts";
import type { Keep, When } from "./snapshot-schema.ts";

const at = (text: string) => Date.parse(text);
const iso = (atMs: number) => new Date(atMs).toISOString().replace(".000Z", "Z");

const hourly: When = { kind: "every", minutes: 60 };
const nightly: When = { kind: "daily", at: "02:30" };
const weekend: When = { kind: "weekly", days: ["saturday", "sunday"], at: "23:00" };

describe("what is due", () => {
  // 2026-11-28 is a Saturday.
  const table: [string, When, string, string, string, string][] = [
    [
      "on time",
      hourly,
      "UTC",
      "2026-11-28T11:00:00Z",
      "2026-11-28T12:00:01Z",
      "run 2026-11-28T12:00:00Z",
    ],
    [
      "done already",
      hourly,
      "UTC",
      "2026-11-28T12:00:00Z",
      "2026-11-28T12:00:11Z",
      "wait 2026-11-28T13:00:00Z",
    ],
    [
      "missed for days: once, its newest time",
      hourly,
      "UTC",
      "2026-11-20T11:00:00Z",
      "2026-11-28T12:40:00Z",
      "run 2026-11-28T12:00:00Z",
    ],
    [
      "just made: not a time gone by",
      nightly,
      "UTC",
      "2026-11-28T12:00:00Z",
      "2026-11-28T12:00:00Z",
      "wait 2026-11-29T02:30:00Z",
    ],
    [
      "in the zone's night",
      nightly,
      "Europe/Stockholm",
      "2026-11-27T12:00:00Z",
      "2026-11-28T01:30:00Z",
      "run 2026-11-28T01:30:00Z",
    ],
    [
      "not yet in the zone",
      nightly,
      "Europe/Stockholm",
      "2026-11-27T12:00:00Z",
      "2026-11-28T01:29:59Z",
      "wait 2026-11-28T01:30:00Z",
    ],
    [
      "summer",
      nightly,
      "Europe/Stockholm",
      "2026-06-30T12:00:00Z",
      "2026-07-01T00:30:00Z",
      "run 2026-07-01T00:30:00Z",
    ],
    [
      "the night without 02:30: an hour later",
      nightly,
      "Europe/Stockholm",
      "2026-03-28T12:00:00Z",
      "2026-03-29T01:30:00Z",
      "run 2026-03-29T01:30:00Z",
    ],
    [
      "the same in New York",
      nightly,
      "America/New_York",
      "2026-03-07T12:00:00Z",
      "2026-03-08T07:30:00Z",
      "run 2026-03-08T07:30:00Z",
    ],
    [
      "the night with two 02:30: the first",
      nightly,
      "Europe/Stockholm",
      "2026-10-24T12:00:00Z",
      "2026-10-25T00:30:00Z",
      "run 2026-10-25T00:30:00Z",
    ],
    [
      "and not the second",
      nightly,
      "Europe/Stockholm",
      "2026-10-25T00:30:00Z",
      "2026-10-25T01:30:00Z",
      "wait 2026-10-26T01:30:00Z",
    ],
    [
      "a day of the week",
      weekend,
      "UTC",
      "2026-11-27T00:00:00Z",
      "2026-11-28T23:00:00Z",
      "run 2026-11-28T23:00:00Z",
    ],
    [
      "days off",
      weekend,
      "UTC",
      "2026-11-29T23:00:00Z",
      "2026-11-30T23:00:00Z",
      "wait 2026-12-05T23:00:00Z",
    ],
    [
      "a clock at 1970",
      hourly,
      "UTC",
      "2026-11-28T12:00:00Z",
      "1970-01-01T00:10:00Z",
      "clockWrong",
    ],
    [
      "a clock that went back a little",
      hourly,
      "UTC",
      "2026-11-28T12:00:00Z",
      "2026-11-28T11:59:58Z",
      "wait 2026-11-28T13:00:00Z",
    ],
    [
      "a clock that went back a day",
      hourly,
      "UTC",
      "2026-11-28T12:00:00Z",
      "2026-11-27T12:00:10Z",
      "clockWentBack 2026-11-27T12:00:10Z",
    ],
    [
      "years ahead once, right again",
      nightly,
      "UTC",
      "2031-01-01T02:30:00Z",
      "2026-11-28T12:00:00Z",
      "clockWentBack 2026-11-28T12:00:00Z",
    ],
  ];
  test.each(table)("%s", (_name, when, zone, doneUntil, now, expected) => {
    const found = due(when, at(doneUntil), at(now), zone);
    const shown =
      found.kind === "run"
        ? `run ${iso(found.slotMs)}`
        : found.kind === "wait"
          ? `wait ${iso(found.nextMs)}`
          : found.kind === "clockWentBack"
            ? `clockWentBack ${iso(found.doneUntilMs)}`
            : found.kind;
    expect(shown).toBe(expected);
  });

  test("a clock that goes back and forth makes no storm: one run each time of the schedule", () => {
    let doneUntilMs = at("2026-11-28T12:00:00Z");
    let runs = 0;
    for (let step = 0; step < 2000; step++) {
      // Ten seconds a step, and an hour back each 400 steps.
      const nowMs = at("2026-11-28T12:00:00Z") + step * 10_000 - Math.floor(step / 400) * 3_600_000;
      const found = due(hourly, doneUntilMs, nowMs, "UTC");
      if (found.kind === "run") {
        runs++;
        doneUntilMs = found.slotMs;
      } else if (found.kind === "clockWentBack") doneUntilMs = found.doneUntilMs;
    }
    // 5.5 hours by a steady clock.
    expect(runs).toBeLessThanOrEqual(6);
    expect(runs).toBeGreaterThan(0);
  });
});

describe("what is let go", () => {
  const now = at("2026-11-28T12:00:00Z");
  const hour = 3_600_000;
  const day = 24 * hour;
  /** The newest first, each `stepMs` before. */
  const series = (
    count: number,
    stepMs: number,
    change: (n: number) => Partial<Kept> = () => ({}),
  ): Kept[] =>
    Array.from({ length: count }, (_, n) => ({
      id: `${n}`,
      createdMs: now - n * stepMs,
      epoch: count - n,
      pinned: false,
      ...change(n),
    }));
  const kept = (snapshots: readonly Kept[], keep: Keep, zone = "UTC", nowMs = now) => {
    const gone = new Set(expired(snapshots, keep, nowMs, zone));
    return snapshots.filter(({ id }) => !gone.has(id)).map(({ id }) => Number(id));
  };
  const range = (from: number, to: number, step = 1) =>
    Array.from({ length: Math.floor((to - from) / step) + 1 }, (_, i) => from + i * step);

  const table: [string, Kept[], Keep, number[]][] = [
    ["no rule: all stay", series(5, hour), {}, range(0, 4)],
    ["the last ones", series(10, hour), { last: 3 }, [0, 1, 2]],
    ["one an hour", series(12, hour / 4), { hours: 2 }, [0, 1]],
    ["the last of each day", series(72, hour), { days: 3 }, [0, 13, 37]],
    ["the last of each week, from Monday", series(40, day), { weeks: 3 }, [0, 6, 13]],
    ["the last of each month", series(100, day), { months: 3 }, [0, 28, 59]],
    [
      "rules together keep what any of them keeps",
      series(72, hour),
      { last: 2, days: 2 },
      [0, 1, 13],
    ],
    ["months with none don't count", series(3, 90 * day), { months: 3 }, [0, 1, 2]],
    ["fewer than asked for: all stay", series(3, day), { days: 7 }, [0, 1, 2]],
    [
      "held, open and cloned ones stay",
      series(6, hour, (n) => ({ pinned: n > 3 })),
      { last: 1 },
      [0, 4, 5],
    ],
    [
      "a pinned one stands for its day",
      series(4, day, (n) => ({ pinned: n === 1 })),
      { days: 2 },
      [0, 1],
    ],
    ["nothing is there", [], { last: 1 }, []],
  ];
  test.each(table)("%s", (_name, snapshots, keep, expected) => {
    expect(kept(snapshots, keep)).toEqual(expected);
  });

  test("a grandfather, fathers and sons: two years of hourly ones", () => {
    const later = now + 3 * 365 * day;
    const hours = series(2 * 365 * 24, hour, (n) => ({ createdMs: later - n * hour }));
    const rules = { hours: 24, days: 7, weeks: 4, months: 12 };
    const left = kept(hours, rules, "UTC", later);
    expect(left.slice(0, 24)).toEqual(range(0, 23));
    // Some stand for a day, a week and a month at once.
    expect(left.length).toBeLessThan(24 + 7 + 4 + 12);
    expect(left.length).toBeGreaterThan(24 + 4 + 2 + 9);
    expect(left.at(-1)! * hour).toBeGreaterThan(330 * day);
  });

  test("kept by one run, it is kept by the next: applied each hour, the same ones are left", () => {
    const keep: Keep = { hours: 3, days: 3, weeks: 2 };
    let there: Kept[] = [];
    for (let n = 0; n < 24 * 30; n++) {
      const nowMs = at("2026-10-01T00:00:00Z") + n * hour;
      there.push({ id: `${n}`, createdMs: nowMs, epoch: n + 1, pinned: false });
      const gone = new Set(expired(there, keep, nowMs, "UTC"));
      there = there.filter(({ id }) => !gone.has(id));
    }
    const all = Array.from({ length: 24 * 30 }, (_, n) => ({
      ...{ id: `${n}`, createdMs: at("2026-10-01T00:00:00Z") + n * hour },
      ...{ epoch: n + 1, pinned: false },
    }));
    const gone = new Set(expired(all, keep, all.at(-1)!.createdMs, "UTC"));
    expect(there.map(({ id }) => id)).toEqual(
      all.filter(({ id }) => !gone.has(id)).map(({ id }) => id),
    );
  });

  test("the days are the zone's", () => {
    // 23:30 and 00:30 UTC: one day in Stockholm, two in London.
    const two = [
      { id: "0", createdMs: at("2026-11-28T00:30:00Z"), epoch: 2, pinned: false },
      { id: "1", createdMs: at("2026-11-27T23:30:00Z"), epoch: 1, pinned: false },
    ];
    expect(kept(two, { days: 5 }, "Europe/Stockholm")).toEqual([0]);
    expect(kept(two, { days: 5 }, "Europe/London")).toEqual([0, 1]);
  });

  test.each([
    ["1970", 0],
    ["last month", now - 30 * day],
    ["next year", now + 365 * day],
  ])("a clock of %s: what counts by time isn't deleted for its age", (_name, nowMs) => {
    const left = kept(series(10, day), { days: 10 }, "UTC", nowMs);
    expect(left).toEqual(range(0, 9));
  });

  test("those of a time that can't be believed are left alone and stand for nothing", () => {
    const odd = (n: number) =>
      n === 1 ? { createdMs: 5_000 } : n === 2 ? { createdMs: now + 400 * day } : {};
    expect(kept(series(6, day, odd), { last: 2 })).toEqual([0, 1, 2, 3]);
  });

  test("the newest stays, by the store's order, also if its clock said otherwise", () => {
    const back = series(4, day, (n) => (n === 0 ? { createdMs: now - 9 * day } : {}));
    expect(kept(back, { days: 1 })).toContain(0);
    for (const keep of [{ last: 1 }, { hours: 1 }, { months: 1 }]) {
      expect(kept(series(1, day), keep)).toEqual([0]);
    }
  });
});

describe("a zone's wall clock", () => {
  test.each(["UTC", "Europe/Stockholm", "America/New_York", "Asia/Kolkata", "Pacific/Chatham"])(
    "%s: there and back, each 59 hours for two years",
    (zone) => {
      for (let n = 0; n < 300; n++) {
        const ms = Math.floor((believableMs + n * 59 * 3_600_000) / 60_000) * 60_000;
        const back = instantOf(localTime(ms, zone), zone);
        // The second of two equal times of a clock that was set back gives the first.
        expect([0, 3_600_000]).toContain(ms - back);
      }
    },
  );
});
