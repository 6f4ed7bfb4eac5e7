import { expect, test } from "vitest";
import { SpinPolicy } from "./spin.ts";

const after = (...batches: [count: number, waitedUs: number, times: number][]) => {
  const policy = new SpinPolicy();
  for (const [count, waitedUs, times] of batches) {
    for (let index = 0; index < times; index++) policy.observe(count, waitedUs);
  }
  return policy.budgetUs;
};

test("requests one by one and close together: spins", () => {
  expect(after([1, 10, 100])).toBe(50);
  expect(after([2, 20, 100])).toBe(50);
});
test("not before it has seen enough of them", () => {
  expect(after([1, 10, 63])).toBe(0);
});
test("one deep batch ends it for a while", () => {
  expect(after([1, 10, 100], [3, 10, 1])).toBe(0);
  expect(after([1, 10, 100], [3, 10, 1], [1, 10, 64])).toBe(50);
});
test("far apart: sleeps; close together again: spins again", () => {
  expect(after([1, 10, 100], [1, 100, 20])).toBe(0);
  expect(after([1, 100, 100], [1, 5, 30])).toBe(50);
});
test("one long pause doesn't matter for long", () => {
  expect(after([1, 5, 100], [1, 1e6, 1], [1, 5, 5])).toBe(50);
});
