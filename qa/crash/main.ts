/** `node qa/crash/main.ts`: kills services under a verified load; exit 1 if anything was lost. */
import { parseArgs } from "node:util";
import { explainError } from "#lib/model/errors.ts";
import { runCrash } from "./crash.ts";

const help = `Usage: node qa/crash/main.ts [OPTIONS]

kill -9 of chunk-store and iscsi-target in turn under a verified write load: nothing acknowledged
may be lost, no block torn, and the initiator's session must come back.

  --rounds N      kills (default 50)
  --seed N        repeats a run's times and choices
  --no-native     the services without the addon
  --directory D   where the store's file stands meanwhile
  --json          the result as JSON`;

const { values } = parseArgs({
  options: {
    rounds: { type: "string", default: "50" },
    seed: { type: "string" },
    "no-native": { type: "boolean", default: false },
    directory: { type: "string" },
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
  console.error("crash: --rounds and --seed take whole numbers. See --help.");
  process.exit(2);
}
try {
  if (!values.json) console.log(`${rounds} kills under load, seed ${seed}`);
  const result = await runCrash({
    rounds,
    seed,
    addon: !values["no-native"],
    ...(values.directory === undefined ? {} : { directory: values.directory }),
    onRound: ({ round, killed, backMs, acknowledged }) => {
      if (!values.json) {
        console.log(
          `${String(round).padStart(3)}  ${killed.padEnd(12)}  back after ${backMs} ms, ${acknowledged} writes acknowledged`,
        );
      }
    },
  });
  if (values.json) console.log(JSON.stringify(result));
  else {
    const { lost, torn, foreign, invented, errors } = result;
    console.log(
      `${result.writes} writes, ${result.reads} reads checked, ${result.flushes} flushes, ${result.logins} log-ins`,
    );
    console.log(
      `lost ${lost}, torn ${torn}, foreign ${foreign}, invented ${invented}, errors ${errors}`,
    );
    for (const line of result.complaints) console.log(`  ${line}`);
    console.log(result.passed ? "passed" : "FAILED");
  }
  process.exit(result.passed ? 0 : 1);
} catch (error) {
  console.error(`crash: ${explainError(error)} (seed ${seed})`);
  process.exit(1);
}
