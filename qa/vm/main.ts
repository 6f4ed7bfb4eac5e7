/** `npm run vm -- <scenario>`: the real image in QEMU. */
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { explainError } from "#lib/model/errors.ts";
import { chooseAcceleration } from "./acceleration.ts";
import { Installations } from "./installations.ts";
import { ensureIso } from "./iso.ts";
import type { Firmware } from "./machine.ts";
import type { ScenarioContext, StepResult } from "./scenario.ts";
import { scenarios } from "./scenarios.ts";

const help = `Usage: npm run vm -- SCENARIO... [options]

Boots the real image in QEMU (emulated, unless a probe guest runs under KVM within 20 s).
Builds the ISO first if there is none in build/.

${scenarios.map(({ name, summary }) => `  ${name.padEnd(12)} ${summary}`).join("\n")}

  --all                 every scenario
  --list                names and summaries
  --firmware bios|uefi  only this firmware of the appliance
  --client bios|uefi    only this firmware of the diskless clients
  --iso FILE            test this ISO
  --cuts N              scenario upgrade: pull the plug N times (default 30; 0: never)
  --snapshots N         scenario database: take N of them (default 20)
  --seed N              of what is random (default: of the clock)
  --broken KIND         scenario rollback: only this kind of broken release (repeatable)
  --keep                keep disks and logs; they are kept anyway when a step fails
  --verbose             show what the machines say
  --json                one line a step, and one at the end
  --help`;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    all: { type: "boolean", default: false },
    list: { type: "boolean", default: false },
    firmware: { type: "string" },
    client: { type: "string" },
    iso: { type: "string" },
    cuts: { type: "string", default: "30" },
    snapshots: { type: "string", default: "20" },
    seed: { type: "string" },
    broken: { type: "string", multiple: true, default: [] },
    keep: { type: "boolean", default: false },
    verbose: { type: "boolean", default: false },
    json: { type: "boolean", default: false },
    help: { type: "boolean", default: false },
  },
});

function end(message: string, code: number): never {
  (code === 0 ? console.log : console.error)(message);
  process.exit(code);
}

function firmwares(value: string | undefined, option: string): Firmware[] {
  if (value === undefined) return ["bios", "uefi"];
  if (value === "bios" || value === "uefi") return [value];
  return end(`--${option} must be bios or uefi, not '${value}'`, 2);
}

function numberOf(text: string, option: string): number {
  return /^\d{1,9}$/.test(text) ? Number(text) : end(`--${option} must be a number`, 2);
}

if (values.help) end(help, 0);
if (values.list) {
  for (const { name, summary } of scenarios) {
    console.log(values.json ? JSON.stringify({ name, summary }) : `${name.padEnd(12)} ${summary}`);
  }
  process.exit(0);
}
const unknown = positionals.filter((name) => !scenarios.some((each) => each.name === name));
if (unknown.length > 0) {
  end(`no scenario '${unknown[0]}'; there are: ${scenarios.map(({ name }) => name).join(", ")}`, 2);
}
const chosen = scenarios.filter(({ name }) => values.all || positionals.includes(name));
if (chosen.length === 0) end(help, 2);

const base = resolve(import.meta.dirname, "../../.cache/vm");
mkdirSync(base, { recursive: true });
const directory = mkdtempSync(join(base, "run-"));
const results: StepResult[] = [];
const say = (text: string) => {
  if (!values.json) console.log(text);
};
const seconds = (from: number) => Math.round((Date.now() - from) / 100) / 10;
// Machines die with this process; what is left is the scratch directory.
for (const signal of ["SIGINT", "SIGTERM"] as const) {
  process.once(signal, () => process.exit(signal === "SIGINT" ? 130 : 143));
}

const acceleration = await chooseAcceleration();
say(`acceleration: ${acceleration.acceleration} (${acceleration.reason})`);
let iso: string;
try {
  iso = values.iso === undefined ? await ensureIso(say) : resolve(values.iso);
} catch (error) {
  end(explainError(error), 1);
}

// One after the other, beside the machines of the scenarios before: a machine keeps one core busy.
void (async () => {
  for (const { prepare } of chosen) await prepare?.().catch(() => {});
})();

const installations = new Installations(join(directory, "installed"));
for (const scenario of chosen) {
  const started = Date.now();
  say(`\n${scenario.name}: ${scenario.summary}`);
  const reported = new WeakSet<object>();
  const record = (name: string, from: number, error?: unknown) => {
    const result: StepResult = {
      scenario: scenario.name,
      name,
      ok: error === undefined,
      seconds: seconds(from),
      ...(error === undefined ? {} : { error: explainError(error) }),
    };
    results.push(result);
    if (values.json) console.log(JSON.stringify(result));
    else {
      say(`  ${result.ok ? "ok    " : "FAILED"} ${String(result.seconds).padStart(6)} s  ${name}`);
      if (result.error !== undefined)
        say(`         ${result.error.replaceAll("\n", "\n         ")}`);
    }
  };
  const context: ScenarioContext = {
    firmwares: firmwares(values.firmware, "firmware"),
    clients: firmwares(values.client, "client"),
    acceleration,
    directory: join(directory, scenario.name),
    iso,
    installations,
    verbose: values.verbose,
    cuts: numberOf(values.cuts, "cuts"),
    snapshots: numberOf(values.snapshots, "snapshots"),
    seed: numberOf(values.seed ?? String(Date.now() % 1_000_000), "seed"),
    broken: values.broken,
    async step(name, run) {
      const from = Date.now();
      try {
        const result = await run();
        record(name, from);
        return result;
      } catch (error) {
        record(name, from, error);
        if (typeof error === "object" && error !== null) reported.add(error);
        throw error;
      }
    },
    async group(name, run) {
      say(`  -- ${name}`);
      const from = Date.now();
      try {
        await run();
      } catch (error) {
        if (!reported.has(error as object)) record(name, from, error);
      }
    },
    note: (text) => say(`           ${text}`),
  };
  mkdirSync(context.directory, { recursive: true });
  try {
    await scenario.run(context);
  } catch (error) {
    if (!reported.has(error as object)) record("run", started, error);
  }
  say(`  ${scenario.name}: ${seconds(started)} s`);
}

const failed = results.filter(({ ok }) => !ok).length;
if (failed === 0 && !values.keep) rmSync(directory, { recursive: true, force: true });
else say(`\nkept: ${directory}`);
if (values.json) {
  console.log(JSON.stringify({ passed: results.length - failed, failed, directory }));
} else {
  console.log(`\n${results.length - failed} passed, ${failed} failed`);
}
process.exit(failed === 0 ? 0 : 1);
