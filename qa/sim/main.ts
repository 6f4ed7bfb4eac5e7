import { availableParallelism } from "node:os";
import { parseArgs } from "node:util";
import { runLanes, type SeedFailure } from "./lanes.ts";
import { hunt, mutants } from "./mutants.ts";
import { play } from "./play.ts";
import { SimFailure } from "./run.ts";
import { shrink } from "./shrink.ts";

const usage = `Usage: npm run sim -- [options]

Runs the real store on a simulated disk: crashes at any disk call, power cuts that keep any subset
of unflushed sectors, failed flushes, a disk that fills up. Each fifteenth seed is a group: two stores, the
connections to them, and the writer that keeps them alike. A failing seed is printed with the command
that plays it again.

  --seeds N      how many seeds (default 200)
  --seed S       the first one (default 1); alone: only this one
  --ops N        steps of each (default 450: more than 2,000 requests)
  --steps LIST   of --seed only these steps, as 3,17,40; says what each of them does
  --no-shrink    leaves the first failing seed as long as it is
  --lanes N      seeds at a time (default: as many as there are processors)
  --mutants      plants bugs in copies of the source, one by one: each must be found within
                 --seeds seeds (default 2000)
  --only TEXT    of these, those with TEXT in their name
  --until-failure  ends with the first seed that fails
  --json         one JSON document at the end
  --help`;

function number(name: string, text: string | undefined, fallback: number): number {
  const value = text === undefined ? fallback : Number(text);
  if (Number.isSafeInteger(value) && value > 0) return value;
  console.error(`sim: --${name} ${text} is not a whole number above 0. See --help.`);
  process.exit(1);
}

function readArguments() {
  try {
    return parseArgs({
      options: {
        seeds: { type: "string" },
        seed: { type: "string" },
        ops: { type: "string" },
        steps: { type: "string" },
        "no-shrink": { type: "boolean" },
        lanes: { type: "string" },
        mutants: { type: "boolean" },
        only: { type: "string" },
        "until-failure": { type: "boolean" },
        json: { type: "boolean" },
        help: { type: "boolean" },
      },
    }).values;
  } catch (error) {
    console.error(`sim: ${(error as Error).message} See --help.`);
    process.exit(1);
  }
}

const values = readArguments();
// An exit takes what mutants run in along.
for (const signal of ["SIGINT", "SIGTERM"] as const) {
  process.once(signal, () => process.exit(signal === "SIGINT" ? 130 : 143));
}
if (values.help === true) {
  console.log(usage);
  process.exit(0);
}
const first = number("seed", values.seed, 1);
const operations = number("ops", values.ops, 450);
const lanesWanted = number("lanes", values.lanes, availableParallelism());
const defaultSeeds = values.mutants === true ? 2000 : values.seed === undefined ? 200 : 1;
const seeds = number("seeds", values.seeds, defaultSeeds);

async function runMutants(): Promise<boolean> {
  const waiting = mutants.filter(({ name }) => name.includes(values.only ?? ""));
  const found: { mutant: string; foundAfterSeeds: number | null }[] = [];
  const lane = async () => {
    for (let mutant = waiting.shift(); mutant !== undefined; mutant = waiting.shift()) {
      const result = await hunt(mutant, { first, seeds, operations });
      found.push({ mutant: mutant.name, foundAfterSeeds: result.seeds ?? null });
      if (values.json === true) continue;
      const text = result.seeds === undefined ? "NOT FOUND" : `seed ${result.seeds}`;
      console.log(`${text.padEnd(12)} ${mutant.name}`);
    }
  };
  await Promise.all(Array.from({ length: availableParallelism() }, lane));
  const missed = found.filter(({ foundAfterSeeds }) => foundAfterSeeds === null).length;
  if (values.json === true) console.log(JSON.stringify({ mutants: found }));
  else console.log(`${found.length - missed} of ${found.length} planted bugs found`);
  return missed === 0 && found.length > 0;
}

/** One seed, some of its steps, told one by one. */
function replay(list: string): boolean {
  const steps = list.split(",").map((text) => number("steps", text, 0));
  const trace = (step: number, what: string) => console.log(`${String(step).padStart(5)}  ${what}`);
  try {
    play({ seed: first, operations, steps, ...(values.json === true ? {} : { trace }) });
    console.log("it does not fail");
    return true;
  } catch (error) {
    if (!(error instanceof SimFailure)) throw error;
    console.log(`FAILED ${error.message}`);
    return false;
  }
}

function shrinkFirst(failures: readonly SeedFailure[]) {
  if (failures.length === 0 || values["no-shrink"] === true) return undefined;
  const [{ seed }] = failures;
  const shrunk = shrink({ seed, operations });
  return shrunk && { seed, ...shrunk };
}

async function runSeeds(): Promise<boolean> {
  const started = performance.now();
  const total: Record<string, number> = {};
  const failures: SeedFailure[] = [];
  let done = 0;
  const lanes = Math.min(lanesWanted, seeds);
  const until = values["until-failure"] === true;
  await runLanes(lanes, { first, seeds, operations, until }, (result) => {
    if ("counts" in result) {
      for (const [name, count] of Object.entries(result.counts)) {
        total[name] = (total[name] ?? 0) + count;
      }
    } else {
      failures.push(result);
      if (values.json !== true) {
        console.error(`FAILED ${result.what}`);
        console.error(`  again: npm run sim -- --seed ${result.seed} --ops ${operations}`);
      }
    }
    done++;
    if (values.json !== true && process.stderr.isTTY) process.stderr.write(`\r${done}/${seeds} `);
  });
  failures.sort((a, b) => a.seed - b.seed);
  const seconds = Math.round((performance.now() - started) / 100) / 10;
  const shrunk = shrinkFirst(failures);
  if (values.json === true) {
    console.log(JSON.stringify({ seeds: done, seconds, total, failures, shrunk: shrunk ?? null }));
  } else {
    if (shrunk !== undefined) {
      const { seed, steps, what, tries } = shrunk;
      console.error(`shrunk to ${steps.length} steps in ${tries} runs: ${what}`);
      console.error(
        `  again: npm run sim -- --seed ${seed} --ops ${operations} --steps ${steps.join(",")}`,
      );
    }
    const counts = Object.entries(total).map(([name, count]) => `${name} ${count}`);
    console.log(`${done} seeds in ${seconds} s, ${failures.length} failed: ${counts.join(", ")}`);
  }
  return failures.length === 0;
}

const good =
  values.steps !== undefined
    ? replay(values.steps)
    : await (values.mutants === true ? runMutants() : runSeeds());
process.exitCode = good ? 0 : 1;
