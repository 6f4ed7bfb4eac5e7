/** `node qa/postgres/main.ts`: PostgreSQL on the store, snapshots and power cuts under load. */
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { parseArgs } from "node:util";
import { explainError } from "#lib/model/errors.ts";
import { runPostgres } from "./postgres.ts";

const help = `Usage: node qa/postgres/main.ts [options]

PostgreSQL under pgbench on an ext4 on a volume, through iscsi-target and chunk-store, with QEMU's
initiator. Snapshots are taken under load, and the power of node and database is cut in between.
Each snapshot, attached as a clone, recovers, passes pg_amcheck and e2fsck, and holds exactly what
was committed when it was taken. Needs root, loop devices, /dev/fuse and PostgreSQL.

  --snapshots N    default 20
  --cut-every N    a power cut after every N snapshots (default 4)
  --scale N        pgbench's, 15 MB each (default 4)
  --clients N      pgbench's (default 4)
  --seed N         (default: by the clock)
  --json           the result as JSON
  --help`;

const { values } = parseArgs({
  options: {
    snapshots: { type: "string", default: "20" },
    "cut-every": { type: "string", default: "4" },
    scale: { type: "string", default: "4" },
    clients: { type: "string", default: "4" },
    seed: { type: "string", default: String(Date.now() % 1_000_000) },
    json: { type: "boolean", default: false },
    help: { type: "boolean", default: false },
  },
});
if (values.help) {
  console.log(help);
  process.exit(0);
}

function refuse(why: string): never {
  console.error(`postgres: ${why}`);
  process.exit(2);
}

function number(name: "snapshots" | "cut-every" | "scale" | "clients" | "seed", least = 1): number {
  const value = Number(values[name]);
  if (!Number.isInteger(value) || value < least)
    refuse(`--${name} takes a whole number. See --help.`);
  return value;
}

if (process.getuid?.() !== 0) refuse("loop devices need root; run it with sudo.");
if (!existsSync("/usr/lib/postgresql"))
  refuse("there is no PostgreSQL: apt-get install postgresql");

const options = {
  snapshots: number("snapshots"),
  cutEvery: number("cut-every"),
  scale: number("scale"),
  clients: number("clients"),
  seed: number("seed", 0),
};
const signals = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
const marker = "KEELSON_MOUNTS_ARE_ITS_OWN";

/** Mounts of its own: whatever happens to this process, none is left to the machine. */
async function runInside(): Promise<number> {
  const again = [process.execPath, ...process.execArgv, ...process.argv.slice(1)];
  const child = spawn("unshare", ["--mount", "--propagation=private", ...again], {
    stdio: "inherit",
    env: { ...process.env, [marker]: "1" },
  });
  for (const signal of signals) process.on(signal, () => child.kill(signal));
  return await new Promise((resolve) => {
    child.once("error", () => resolve(1));
    child.once("exit", (code) => resolve(code ?? 130));
  });
}

async function main(): Promise<number> {
  const stopping = new AbortController();
  for (const signal of signals) process.on(signal, () => stopping.abort(new Error(signal)));
  const say = (text: string) => {
    if (!values.json) console.log(text);
  };
  try {
    say(`seed ${options.seed}`);
    const result = await runPostgres({ ...options, onStep: say, signal: stopping.signal });
    const { snapshots, powerCuts, commits } = result;
    if (values.json) console.log(JSON.stringify({ seed: options.seed, ...result }));
    say(`${snapshots} snapshots, ${powerCuts} power cuts, ${commits} commits: all is there`);
    return 0;
  } catch (error) {
    if (stopping.signal.aborted) return 130;
    console.error(`FAILED: ${explainError(error)}`);
    return 1;
  }
}

process.exit(process.env[marker] === undefined ? await runInside() : await main());
