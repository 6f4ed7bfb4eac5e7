import { cpSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { hunt, mutants, plant } from "./mutants.ts";
import { simulate } from "./run.ts";

const operations = 150;
const engine = join(import.meta.dirname, "../../services/chunk-store/engine");

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

describe("planted bugs", () => {
  test("fit the source as it is", () => {
    const folder = mkdtempSync(join(tmpdir(), "keelson-mutants-"));
    try {
      for (const mutant of mutants) {
        cpSync(engine, join(folder, "services/chunk-store/engine"), { recursive: true });
        expect(() => plant(folder, mutant)).not.toThrow();
      }
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  test("one of them is found, in its copy of the tree", { timeout: 120_000 }, async () => {
    const mutant = mutants.find(({ name }) => name.startsWith("a freed block is reused at once"))!;
    expect(await hunt(mutant, { first: 1, seeds: 200, operations: 300 })).toMatchObject({
      seeds: expect.any(Number),
    });
  });
});
