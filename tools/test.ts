/**
 * `npm test`: everything CI runs; ends with `N passed, N failed`. Its stages go in two lanes at
 * once: an emulated machine keeps one core busy, and the tests of processes the other.
 */
import { spawn } from "node:child_process";
import { createWriteStream, mkdirSync, readFileSync, rmSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join, relative } from "node:path";
import { createInterface } from "node:readline";
import { parseArgs } from "node:util";

const root = join(import.meta.dirname, "..");
const logs = join(root, "build", "test");

const help = `Usage: npm test [-- OPTIONS]

  --only STAGE   run this stage only (repeatable)
  --list         name the stages
  --json         one JSON line a stage instead of their output
  --help

Where there are two cores or more, the stages image and vm run beside the others,
which take one core then if there are less than four.
Output of each stage is kept in build/test/<stage>.log.`;

interface Stage {
  readonly name: string;
  readonly about: string;
  readonly command: readonly string[];
  /** Added where the other lane needs a core of the two there are. */
  readonly besideMachines?: readonly string[];
  /** Where vitest leaves its counts; other stages end with \`N passed, N failed\`. */
  readonly vitestReport?: string;
  /** A stage of one check: its exit status is the one result. */
  readonly single?: true;
  /** In the lane of emulated machines. */
  readonly machines?: true;
}

const vitestReport = join(logs, "vitest.json");
const stages: readonly Stage[] = [
  {
    name: "check",
    about: "format, lint, types, architecture",
    command: ["tools/check.ts"],
    single: true,
  },
  {
    name: "unit",
    about: "unit, table, property and contract tests",
    command: [
      "node_modules/vitest/vitest.mjs",
      "run",
      "--reporter=default",
      "--reporter=json",
      `--outputFile.json=${vitestReport}`,
    ],
    // Two would take a third of the emulator's core from it, and the emulator is what all wait for.
    besideMachines: ["--maxWorkers=1"],
    vitestReport,
  },
  {
    name: "sim",
    about: "the store on a simulated disk",
    command: ["qa/sim/main.ts", "--seeds", "1000"],
    besideMachines: ["--lanes", "1"],
    single: true,
  },
  { name: "lab", about: "services against real clients", command: ["qa/lab/main.ts"] },
  {
    name: "crash",
    about: "50 kills -9 of store and target under a verified load",
    command: ["qa/crash/main.ts", "--rounds", "50"],
    single: true,
  },
  {
    name: "powercut",
    about: "50 power cuts through FUSE",
    command: ["qa/powercut/main.ts", "--rounds", "50"],
    single: true,
  },
  {
    name: "image",
    about: "the ISO, from the locked packages",
    command: ["image/main.ts"],
    single: true,
    machines: true,
  },
  {
    name: "vm",
    about:
      "the ISO installed under OVMF; a BIOS client boots from it; an upgrade, and one that returns",
    command: [
      ...["qa/vm/main.ts", "install", "netboot", "release-day"],
      ...["--firmware", "uefi", "--client", "bios"],
    ],
    machines: true,
  },
];

interface Counts {
  readonly passed: number;
  readonly failed: number;
  /** What failed and its first words, to be said once more at the end. */
  readonly failures: readonly string[];
}

interface Outcome extends Counts {
  readonly stage: string;
  readonly seconds: number;
}

async function runStage(stage: Stage, onLine: (line: string) => void): Promise<Outcome> {
  const startedAt = Date.now();
  const log = createWriteStream(join(logs, `${stage.name}.log`));
  const added = atOnce.length > 1 && availableParallelism() < 4 ? (stage.besideMachines ?? []) : [];
  const child = spawn(
    process.execPath,
    ["--disable-warning=ExperimentalWarning", ...stage.command, ...added],
    {
      cwd: root,
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, FORCE_COLOR: "0" },
    },
  );
  let counted: { passed: number; failed: number } | undefined;
  const failures: string[] = [];
  let telling = false;
  for (const stream of [child.stdout, child.stderr]) {
    createInterface({ input: stream }).on("line", (line) => {
      log.write(`${line}\n`);
      onLine(line);
      const match = /^(\d+) passed, (\d+) failed/.exec(line.trim());
      if (match !== null) counted = { passed: Number(match[1]), failed: Number(match[2]) };
      telling = noteFailure(failures, line, telling);
    });
  }
  const status = await new Promise<number>((resolve) => {
    child.once("error", () => resolve(1));
    child.once("close", (code) => resolve(code ?? 1));
  });
  log.end();
  return {
    stage: stage.name,
    ...count(stage, status, counted, failures),
    seconds: (Date.now() - startedAt) / 1000,
  };
}

/** A line that says FAIL, with the indented lines below it: why. True while these go on. */
function noteFailure(failures: string[], line: string, telling: boolean): boolean {
  if (/^ *FAIL(ED)?\b/.test(line)) {
    failures.push(line.trim());
    return true;
  }
  if (telling && /^ {9}/.test(line)) {
    failures[failures.length - 1] += `\n${line.trim()}`;
    return true;
  }
  return false;
}

/** A stage that exits badly has failed, whatever it counted; one that counted nothing, too. */
function count(
  stage: Stage,
  status: number,
  counted: { passed: number; failed: number } | undefined,
  failures: readonly string[],
): Counts {
  if (stage.single) return { passed: status === 0 ? 1 : 0, failed: status === 0 ? 0 : 1, failures };
  const result =
    stage.vitestReport === undefined
      ? { passed: 0, failed: 0, ...counted, failures }
      : readVitestReport(stage.vitestReport);
  const bad = status !== 0 || result.passed === 0;
  return { ...result, failed: bad ? Math.max(1, result.failed) : result.failed };
}

interface VitestReport {
  readonly success: boolean;
  readonly numPassedTests: number;
  readonly numFailedTests: number;
  readonly testResults: readonly {
    readonly name: string;
    readonly status: string;
    readonly message: string;
    readonly assertionResults: readonly {
      readonly status: string;
      readonly fullName: string;
      readonly failureMessages: readonly string[];
    }[];
  }[];
}

function readVitestReport(path: string): Counts {
  try {
    const report: VitestReport = JSON.parse(readFileSync(path, "utf8"));
    // A file that could not even be loaded has no failed test to count.
    const failed = report.success ? 0 : Math.max(1, report.numFailedTests);
    const failures = report.testResults.flatMap(({ name, status, message, assertionResults }) => {
      const file = relative(root, name);
      const tests = assertionResults.filter((test) => test.status === "failed");
      if (status === "failed" && tests.length === 0) return [`${file}: ${message}`];
      return tests.map((test) => `${file}: ${test.fullName}: ${test.failureMessages.join(" ")}`);
    });
    return { passed: report.numPassedTests, failed, failures };
  } catch {
    return { passed: 0, failed: 1, failures: [`there is no report ${relative(root, path)}`] };
  }
}

const { values } = parseArgs({
  options: {
    only: { type: "string", multiple: true, default: [] },
    list: { type: "boolean", default: false },
    json: { type: "boolean", default: false },
    help: { type: "boolean", default: false },
  },
});
if (values.help) {
  console.log(help);
  process.exit(0);
}
if (values.list) {
  for (const { name, about } of stages) console.log(`${name.padEnd(12)} ${about}`);
  process.exit(0);
}
const unknown = values.only.filter((name) => !stages.some((stage) => stage.name === name));
if (unknown.length > 0) {
  console.error(`keelson: no such stage: ${unknown.join(", ")}; see --list`);
  process.exit(2);
}

rmSync(logs, { recursive: true, force: true });
mkdirSync(logs, { recursive: true });
const chosen = stages.filter(({ name }) => values.only.length === 0 || values.only.includes(name));
const lanes = [
  chosen.filter(({ machines }) => !machines),
  chosen.filter(({ machines }) => machines),
].filter((lane) => lane.length > 0);
const atOnce = availableParallelism() > 1 ? lanes : [lanes.flat()];
const outcomes: Outcome[] = [];
await Promise.all(
  atOnce.map(async (lane) => {
    for (const stage of lane) outcomes.push(await showStage(stage));
  }),
);

/** Lines carry the name of their stage where two run at once. */
async function showStage(stage: Stage): Promise<Outcome> {
  const prefix = atOnce.length > 1 ? `${stage.name.padEnd(9)}| ` : "";
  const onLine = values.json ? () => {} : (line: string) => console.log(`${prefix}${line}`);
  onLine(`=== ${stage.name}: ${stage.about}`);
  const outcome = await runStage(stage, onLine);
  if (values.json) console.log(JSON.stringify(outcome));
  return outcome;
}

console.log("");
for (const { stage, passed, failed, seconds } of outcomes) {
  console.log(
    `${failed === 0 ? "ok  " : "FAIL"} ${stage.padEnd(12)} ${passed} passed, ${failed} failed in ${seconds.toFixed(0)} s`,
  );
}
for (const { stage, failures } of outcomes) {
  for (const failure of failures) {
    const [first, ...more] = failure.split("\n").slice(0, 8);
    console.log([`FAIL ${stage}: ${first}`, ...more.map((line) => `     ${line}`)].join("\n"));
  }
}
const total = (key: "passed" | "failed") =>
  outcomes.reduce((sum, outcome) => sum + outcome[key], 0);
console.log(`${total("passed")} passed, ${total("failed")} failed`);
process.exit(total("failed") === 0 ? 0 : 1);
