/** `npm run lab`: services against real clients in network namespaces. */
import { spawnSync } from "node:child_process";
import { parseArgs } from "node:util";
import { Lab, type TestResult } from "./lab.ts";
import { suites } from "./suites.ts";

const help = `Usage: npm run lab [-- options]

Runs the services against real clients in network namespaces. Needs root.
  --only NAME   a suite, or SUITE/TEXT: its tests whose name contains TEXT (repeatable)
  --list        the suites
  --json        one JSON object a test, then one with the totals
  --keep        keep the scratch folders

KEELSON_LAB_LOADERS=DIR has netboot serve the iPXE there instead of this machine's.`;

const { values } = parseArgs({
  options: {
    only: { type: "string", multiple: true, default: [] },
    list: { type: "boolean", default: false },
    json: { type: "boolean", default: false },
    keep: { type: "boolean", default: false },
    help: { type: "boolean", default: false },
  },
});
if (values.help) {
  console.log(help);
  process.exit(0);
}
if (values.list) {
  for (const suite of suites) console.log(`${suite.name.padEnd(14)} ${suite.summary}`);
  process.exit(0);
}
const unknown = values.only.filter(
  (name) => !suites.some((suite) => suite.name === name.split("/")[0]),
);
if (unknown.length > 0) {
  console.error(`lab: no suite ${unknown.join(", ")}; see --list`);
  process.exit(2);
}
if (process.getuid?.() !== 0) {
  console.error("lab: network namespaces need root; run it with sudo");
  process.exit(2);
}

function report(result: TestResult): void {
  if (values.json) {
    console.log(JSON.stringify(result));
    return;
  }
  const line = `${result.ok ? "ok  " : "FAIL"} ${result.suite}: ${result.name} (${(result.ms / 1000).toFixed(1)} s)`;
  console.log(line);
  if (result.error !== undefined) console.log(result.error.replaceAll(/^/gm, "     | "));
}

const results: TestResult[] = [];
let current: Lab | undefined;
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
  process.once(signal, async () => {
    await current?.end();
    process.exit(130);
  });
}

for (const suite of suites) {
  const chosen = values.only.filter((name) => name.split("/")[0] === suite.name);
  if (values.only.length > 0 && chosen.length === 0) continue;
  const filter = chosen.map((name) => name.split("/").slice(1).join("/")).find((text) => text);
  const lab = new Lab(suite.name, { report, filter, keep: values.keep });
  current = lab;
  const missing = suite.needs.filter(
    (name) => spawnSync("sh", ["-c", `command -v ${name}`]).status !== 0,
  );
  try {
    if (missing.length > 0) throw new Error(`programs missing: ${missing.join(", ")}`);
    await suite.run(lab);
    if (lab.results.length === 0) throw new Error("the suite showed nothing");
  } catch (error) {
    await lab.test(filter === undefined ? "set-up" : `set-up ${filter}`, async () => {
      throw error;
    });
  }
  await lab.end();
  current = undefined;
  results.push(...lab.results);
}

const passed = results.filter((result) => result.ok).length;
const failed = results.length - passed;
if (values.json) console.log(JSON.stringify({ passed, failed }));
else console.log(`${passed} passed, ${failed} failed`);
process.exit(failed === 0 && passed > 0 ? 0 : 1);
