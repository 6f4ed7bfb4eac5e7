import { expect, test } from "vitest";
import type { SnapshotSchedule } from "../../../services/api/snapshot-schema.ts";
import { bodyOf, draftOf, faultsOf, isWhole, type ScheduleDraft } from "./schedule-draft.ts";

test.each<Pick<SnapshotSchedule, "when" | "keep">>([
  { when: { kind: "every", minutes: 15 }, keep: { last: 3 } },
  { when: { kind: "daily", at: "23:59" }, keep: {} },
  {
    when: { kind: "weekly", days: ["monday", "friday"], at: "00:00" },
    keep: { weeks: 8, months: 2 },
  },
])("what is edited and not changed stays: %j", (schedule) => {
  const draft = draftOf(schedule as SnapshotSchedule);
  expect(isWhole(faultsOf(draft))).toBe(true);
  expect(bodyOf(draft)).toEqual(schedule);
});

test.each<[string, Partial<ScheduleDraft>]>([
  ["too often", { kind: "every", minutes: "4" }],
  ["no number", { kind: "every", minutes: "1e3" }],
  ["no time", { kind: "daily", at: "24:00" }],
  ["no day", { kind: "weekly", days: [] }],
  ["keeps none", { keep: { ...draftOf(undefined).keep, days: "0" } }],
  ["keeps too many", { keep: { ...draftOf(undefined).keep, last: "1001" } }],
])("%s is a fault", (_name, change) => {
  expect(isWhole(faultsOf({ ...draftOf(undefined), ...change }))).toBe(false);
});

test("what isn't asked for can't be a fault", () => {
  const draft: ScheduleDraft = { ...draftOf(undefined), kind: "daily", minutes: "x", days: [] };
  expect(isWhole(faultsOf(draft))).toBe(true);
});
