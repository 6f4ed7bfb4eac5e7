import { describe, expect, test } from "vitest";
import { drawnRuns, rowAfterKey, sortRows, TextFilter, visibleRange } from "./rows.ts";

const rowPx = 50;

test("at the top: the rows of the window and some more", () => {
  expect(visibleRange(200, 1000, rowPx, 5000)).toEqual([0, 22]);
});

test("in the middle: what is seen lies within, and no more than a window and its margins", () => {
  const [first, last] = visibleRange(-10_000, 1000, rowPx, 5000);
  expect(first).toBeLessThanOrEqual(200);
  expect(last).toBeGreaterThanOrEqual(220);
  expect(last - first).toBeLessThan(50);
});

test("past the end, and with nothing to draw, it stays within the rows", () => {
  expect(visibleRange(-1_000_000, 1000, rowPx, 10)).toEqual([10, 10]);
  expect(visibleRange(0, 1000, rowPx, 0)).toEqual([0, 0]);
  expect(visibleRange(5000, 1000, rowPx, 10)).toEqual([0, 0]);
});

test("the row with the focus stays drawn, wherever the window went", () => {
  expect(drawnRuns([100, 140], undefined)).toEqual([[100, 140]]);
  expect(drawnRuns([100, 140], 120)).toEqual([[100, 140]]);
  expect(drawnRuns([100, 140], 3)).toEqual([
    [3, 4],
    [100, 140],
  ]);
  expect(drawnRuns([100, 140], 140)).toEqual([
    [100, 140],
    [140, 141],
  ]);
  expect(drawnRuns([0, 0], undefined)).toEqual([]);
});

describe("sorting", () => {
  const names = (list: readonly string[], down = false) => sortRows(list, (name) => name, down);

  test("numbers in names go by their value, upwards and downwards", () => {
    expect(names(["disk-10", "Disk-9", "disk-1"])).toEqual(["disk-1", "Disk-9", "disk-10"]);
    expect(names(["a2", "a10", "a1"], true)).toEqual(["a10", "a2", "a1"]);
  });

  test("leading zeroes don't count, beyond 2^53 neither", () => {
    expect(names(["v007", "v6"])).toEqual(["v6", "v007"]);
    expect(names(["9007199254740993", "9007199254740992"])).toEqual([
      "9007199254740992",
      "9007199254740993",
    ]);
  });

  test("other scripts are compared the way people do", () => {
    expect(names(["\u00e9tage", "etage-2", "zone"])).toEqual(["\u00e9tage", "etage-2", "zone"]);
  });

  test("what is equal keeps its order", () => {
    const rows = [
      { name: "a", at: 1 },
      { name: "a", at: 2 },
    ];
    expect(sortRows(rows, (row) => row.name, true)).toEqual(rows);
  });
});

test("a filter takes all words in any order, and asks for a row's text once", () => {
  let asked = 0;
  const rows = [{ name: "Lab PC 07" }, { name: "office" }];
  const filter = new TextFilter<{ name: string }>((row) => {
    asked++;
    return row.name;
  });
  expect(filter.apply(rows, "07 lab")).toEqual([rows[0]]);
  expect(filter.apply(rows, "off")).toEqual([rows[1]]);
  expect(filter.apply(rows, " ")).toBe(rows);
  expect(asked).toBe(2);
});

test.each([
  ["ArrowDown", 3, 4],
  ["ArrowDown", 99, 99],
  ["ArrowUp", 0, 0],
  ["PageDown", 95, 99],
  ["PageUp", 5, 0],
  ["Home", 50, 0],
  ["End", 0, 99],
  ["Enter", 5, undefined],
  ["constructor", 5, undefined],
])("%s in row %d of 100 goes to %s", (key, current, next) => {
  expect(rowAfterKey(key, current, 100)).toBe(next);
});
