import { expect, test } from "vitest";
import { attemptsOf, parseAttempts, reasonOf } from "./failure.ts";
import { defaultGate, makePlan } from "./plan.ts";

const [oldHash, newHash] = ["a".repeat(64), "b".repeat(64)];
const plan = makePlan({
  id: "1",
  kind: "upgrade",
  from: { version: "2026.11.0", rootHash: oldHash },
  fromSlot: "a",
  to: { version: "2026.12.0", rootHash: newHash },
  bundleId: "x",
  gate: defaultGate,
  startedAt: "",
});
const [first, second] = ["0".repeat(31), "1".repeat(31)].map((text) => `${text}f`);

test("a version that never mounted /var", () => {
  const lines = parseAttempts(`1795000000 ${first} ${oldHash} var\n`);
  const attempts = attemptsOf(plan, lines);
  expect(attempts).toEqual([]);
  expect(reasonOf(plan, attempts)).toMatch(/did not get as far as mounting \/var in three tries/);
});

test("a version that started twice and whose gate did not end", () => {
  const text = [
    `1795000000 ${first} ${newHash} var`,
    `1795000001 ${first} ${newHash} started`,
    `1795000300 ${second} ${newHash} var`,
    `1795000301 ${second} ${newHash} started`,
    `1795000900 ${second} ${newHash} deadline`,
    "17950009",
  ].join("\n");
  const attempts = attemptsOf(plan, parseAttempts(text));
  expect(attempts.map(({ bootId, reached }) => [bootId, reached])).toEqual([
    [first, "started services"],
    [second, "waited for the health gate"],
  ]);
  expect(attempts[0].startedAt).toBe(new Date(1795000000000).toISOString());
  expect(reasonOf(plan, attempts)).toMatch(
    /2026.12.0 started 2 times; the health gate did not end/,
  );
});

test("a version that went down without a word", () => {
  const attempts = attemptsOf(plan, parseAttempts(`1795000000 ${first} ${newHash} started\n`));
  expect(reasonOf(plan, attempts)).toMatch(/started once and got as far as: started services/);
});
