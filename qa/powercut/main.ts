/** `node qa/powercut/main.ts`: cuts the power of a store under load; exit 1 if anything was lost. */
import { parseArgs } from "node:util";
import { explainError } from "#lib/model/errors.ts";
import { runPowerCuts } from "./powercut.ts";

const help = `Usage: node qa/powercut/main.ts [options]

The real chunk-store on a FUSE file system of our own. Under a verified load it is killed, and any
subset of the sectors it had not flushed is dropped. Nothing flushed may be lost, no block torn, and
the store is sound by \`keelson store check\` each time.
Then the same on a disk whose flushes do nothing: that must be found out.

  --rounds N       power cuts (default 50)
  --seed N         the load's and the cuts' (default: by the clock)
  --fio            fio also fills a volume before each cut, flushed, and verifies it afterwards
  --direct         the store with --direct
  --no-native      the store without the addon
  --json           the result as JSON
  --help`;

const { values } = parseArgs({
  options: {
    rounds: { type: "string", default: "50" },
    seed: { type: "string" },
    fio: { type: "boolean", default: false },
    direct: { type: "boolean", default: false },
    "no-native": { type: "boolean", default: false },
    json: { type: "boolean", default: false },
    help: { type: "boolean", default: false },
  },
});
if (values.help) {
  console.log(help);
  process.exit(0);
}
const rounds = Number(values.rounds);
const seed = values.seed === undefined ? Date.now() % 1_000_000 : Number(values.seed);
if (!Number.isInteger(rounds) || rounds < 1 || !Number.isInteger(seed)) {
  console.error("powercut: --rounds and --seed take whole numbers. See --help.");
  process.exit(2);
}
for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => process.exit(130));
const addon = !values["no-native"];
const { direct } = values;
const onRound = (round: number, text: string) => {
  if (!values.json) console.log(`${String(round).padStart(3)}  ${text}`);
};
try {
  if (!values.json) console.log(`${rounds} power cuts, seed ${seed}`);
  const result = await runPowerCuts({ rounds, seed, addon, direct, fio: values.fio, onRound });
  const mutant = await runPowerCuts({ rounds: 10, seed, addon, direct, swallowFlushes: true });
  if (values.json) console.log(JSON.stringify({ seed, ...result, withoutFlushes: mutant }));
  else {
    const { writes, flushes, lost, torn, foreign } = result;
    console.log(`${result.rounds} cuts, ${writes} writes, ${flushes} flushes`);
    console.log(`lost ${lost}, torn ${torn}, foreign ${foreign}`);
    if (result.problem !== null) console.log(`FAILED: ${result.problem}`);
    console.log(
      mutant.problem === null
        ? "FAILED: a disk whose flushes do nothing was not found out"
        : `flushes that do nothing: found out at cut ${mutant.rounds}`,
    );
  }
  process.exit(result.problem === null && mutant.problem !== null ? 0 : 1);
} catch (error) {
  console.error(`powercut: ${explainError(error)}`);
  process.exit(1);
}
