/** `node qa/postgres/main.ts`: PostgreSQL on the store, snapshots and power cuts under load. */
import { spawnSync } from "node:child_process";
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

// Mounts of its own: whatever happens to this process, none is left to the machine.
const marker = "KEELSON_MOUNTS_ARE_ITS_OWN";
if (process.env[marker] === undefined) {
  const { status } = spawnSync(
    "unshare",
    [
      "--mount",
      "--propagation=private",
      process.execPath,
      ...process.execArgv,
      ...process.argv.slice(1),
    ],
    { stdio: "inherit", env: { ...process.env, [marker]: "1" } },
  );
  process.exit(status ?? 1);
}
const seed = number("seed", 0);
try {
  if (!values.json) console.log(`seed ${seed}`);
  const result = await runPostgres({
    snapshots: number("snapshots"),
    cutEvery: number("cut-every"),
    scale: number("scale"),
    clients: number("clients"),
    seed,
    onStep: (text) => {
      if (!values.json) console.log(text);
    },
  });
  if (values.json) console.log(JSON.stringify({ seed, ...result }));
  else {
    const { snapshots, powerCuts, commits } = result;
    console.log(
      `${snapshots} snapshots, ${powerCuts} power cuts, ${commits} commits: all is there`,
    );
  }
} catch (error) {
  console.error(`FAILED: ${explainError(error)}`);
  process.exit(1);
}
