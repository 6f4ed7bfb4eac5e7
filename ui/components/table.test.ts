import { expect, test } from "vitest";
import { visibleRange } from "./table.tsx";

const rowPx = 50;

test("at the top: the rows of the window and some more", () => {
  expect(visibleRange(200, 1000, rowPx, 5000)).toEqual([0, 28]);
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
