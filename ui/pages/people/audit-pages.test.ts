import { expect, test } from "vitest";
import { auditQuery, noFilters, withNewer } from "./audit-pages.ts";

const entry = (sequence: number) => ({ sequence }) as never;
const page = (sequences: number[], next: number | null) => ({
  entries: sequences.map(entry),
  next,
});

test("newer entries go before those at hand, once", () => {
  expect(withNewer([entry(3), entry(2)], page([5, 4, 3, 2], 2))).toEqual([
    entry(5),
    entry(4),
    entry(3),
    entry(2),
  ]);
});

test("nothing new leaves the list as it is", () => {
  const known = [entry(3)];
  expect(withNewer(known, page([3], 3))).toBe(known);
});

test("more was written than one page holds: the list starts anew, with no gap in it", () => {
  expect(withNewer([entry(3)], page([9, 8, 7], 7))).toBeUndefined();
});

test("a log that was empty, and whose first page is all there is", () => {
  expect(withNewer([], page([2, 1], null))).toEqual([entry(2), entry(1)]);
});

test("empty filters and times that can't be read are not asked for", () => {
  expect(auditQuery({ ...noFilters, user: " ann ", since: "20-" }, 10)).toBe(
    "/audit?limit=10&user=ann",
  );
  expect(auditQuery({ ...noFilters, until: "2026-11-21T05:00:00Z" }, 10, 7)).toBe(
    "/audit?limit=10&until=2026-11-21T05%3A00%3A00.000Z&before=7",
  );
});
