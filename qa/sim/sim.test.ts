import { describe, expect, test } from "vitest";
import { SimFailure, type SimMutant, simulate } from "./run.ts";

const operations = 150;

function firstFailure(mutant: SimMutant, seeds: number): number | undefined {
  for (let seed = 1; seed <= seeds; seed++) {
    try {
      simulate({ seed, operations: 300, mutant });
    } catch (error) {
      if (!(error instanceof SimFailure)) throw error;
      return seed;
    }
  }
  return undefined;
}

describe("the store on a simulated disk", () => {
  test("80 seeds lose nothing that was flushed or acknowledged", { timeout: 120_000 }, () => {
    let crashes = 0;
    let inMount = 0;
    for (let seed = 1; seed <= 80; seed++) {
      const counts = simulate({ seed, operations });
      crashes += counts.crashes;
      inMount += counts.crashesInMount;
    }
    expect(crashes).toBeGreaterThan(400);
    expect(inMount).toBeGreaterThan(40);
  });

  test("a seed plays the same again", () => {
    expect(simulate({ seed: 42, operations })).toEqual(simulate({ seed: 42, operations }));
  });
});

describe("planted bugs are found", () => {
  test.for<SimMutant>([
    "reuse-at-once",
    "reuse-when-durable",
    "ack-before-log",
    "skip-verify",
    "flush-does-nothing",
  ])("%s", { timeout: 120_000 }, (mutant) => {
    expect(firstFailure(mutant, 200)).toBeDefined();
  });
});
