import { cpSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { simulateGroup } from "./group-run.ts";
import { hunt, mutants, plant } from "./mutants.ts";
import { simulate } from "./run.ts";
import { shrink } from "./shrink.ts";

const operations = 150;
const root = join(import.meta.dirname, "../..");

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

  test("a group of two loses nothing, stays alike, and believes no writer that was replaced", () => {
    const total: Record<string, number> = {};
    for (let seed = 1; seed <= 30; seed++) {
      for (const [name, count] of Object.entries(simulateGroup({ seed, operations: 120 }))) {
        total[name] = (total[name] ?? 0) + count;
      }
    }
    for (const count of Object.values(total)) expect(count).toBeGreaterThan(0);
    expect(total.writersCrashed).toBeGreaterThan(60);
    expect(total.oldWritersRefused).toBeGreaterThan(20);
  });

  test("a seed plays the same again, and a step does what it did when others are left out", () => {
    const whole: string[] = [];
    const options = { seed: 42, operations };
    const counts = simulate({ ...options, trace: (step, what) => whole.push(`${step} ${what}`) });
    expect(simulate(options)).toEqual(counts);
    const part: string[] = [];
    const steps = Array.from({ length: operations }, (_, i) => i + 1).filter((i) => i % 3 !== 0);
    simulate({ ...options, steps, trace: (step, what) => part.push(`${step} ${what}`) });
    const kinds = (lines: string[]) =>
      lines.filter((line) => /^\d+ (flush|crash|compare two states)$/.test(line));
    expect(kinds(part)).toEqual(kinds(whole).filter((line) => Number.parseInt(line, 10) % 3 !== 0));
    expect(kinds(part).length).toBeGreaterThan(5);
  });

  test("a run that does not fail is not shrunk", () => {
    expect(shrink({ seed: 42, operations })).toBeUndefined();
  });
});

describe("planted bugs", () => {
  test("fit the source as it is", () => {
    const folder = mkdtempSync(join(tmpdir(), "keelson-mutants-"));
    try {
      for (const mutant of mutants) {
        for (const path of ["services/chunk-store/engine", "lib/volume"]) {
          cpSync(join(root, path), join(folder, path), { recursive: true });
        }
        expect(() => plant(folder, mutant)).not.toThrow();
      }
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  test("one of them is found, in its copy of the tree, by a run that is then made short", async () => {
    const mutant = mutants.find(({ name }) => name.startsWith("a freed block is reused at once"))!;
    // How short a run becomes depends on the seed: from this one on, one is found that shrinks well.
    const found = await hunt(mutant, { first: 60, seeds: 200, operations, shrink: true });
    expect(found.seeds).toEqual(expect.any(Number));
    expect(found.steps!.length).toBeGreaterThan(0);
    expect(found.steps!.length).toBeLessThan(40);
  });
});
