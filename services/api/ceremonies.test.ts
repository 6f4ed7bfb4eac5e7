import { expect, test } from "vitest";
import { Ceremonies } from "./ceremonies.ts";

let nowMs = 0;
const clock = { bootMs: () => nowMs, now: () => new Date(nowMs).toISOString() };

test("taken once, and not after its end", () => {
  const ceremonies = new Ceremonies<string>(clock, { lifeMs: 1000 });
  const [first, second] = [ceremonies.begin("a", "one"), ceremonies.begin("a", "two")];
  expect(ceremonies.take(first)).toBe("one");
  expect(ceremonies.take(first)).toBeUndefined();
  expect(ceremonies.take("made up")).toBeUndefined();
  expect(ceremonies.take(undefined)).toBeUndefined();
  nowMs += 1000;
  expect(ceremonies.take(second)).toBeUndefined();
});

test("a flood from one network drops its own, never another's", () => {
  const ceremonies = new Ceremonies<number>(clock, { mostPerNetwork: 3, most: 5 });
  const mine = ceremonies.begin("mine", 1);
  const flood = Array.from({ length: 1000 }, (_, i) => ceremonies.begin("flood", i));
  expect(ceremonies.size).toBe(4);
  expect(ceremonies.take(flood[996])).toBeUndefined();
  expect(ceremonies.take(flood[997])).toBe(997);
  for (const network of ["x", "y", "z"]) ceremonies.begin(network, 0);
  expect(ceremonies.size).toBe(5);
  expect(ceremonies.take(mine)).toBe(1);
});

test("what has ended makes room", () => {
  const ceremonies = new Ceremonies<number>(clock, { lifeMs: 1000, most: 10 });
  for (let i = 0; i < 10; i++) ceremonies.begin(`n${i}`, i);
  nowMs += 1000;
  ceremonies.begin("later", 1);
  expect(ceremonies.size).toBe(1);
});
