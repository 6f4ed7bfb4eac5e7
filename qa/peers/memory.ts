/**
 * `npm run peers -- memory`: what the services of one node keep in memory, as PSS (each shared page
 * divided among those who share it), measured natively: the bundles of the image, its Node, etcd,
 * in a network and mount name space of their own, after a small load.
 */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import {
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { gptTypes, slotUuids } from "#firmware-updater/gpt.ts";
import { architecture, hardware } from "#image/release-facts.ts";
import { dataFormats } from "#lib/data-format/formats.ts";
import { KeelsonError } from "#lib/model/errors.ts";
import { hashPassword } from "#lib/password/password.ts";
import { bundleServices } from "#tools/bundle-services.ts";

export const limitBytes = 300 * 2 ** 20;
const password = "memory-measure";
const readyMs = 60_000;
/** What a load leaves behind is collected, and timers have run once. */
const calmMs = 12_000;

export interface ServiceMemory {
  readonly name: string;
  readonly pssBytes: number;
  readonly privateBytes: number;
}

interface Started {
  readonly name: string;
  readonly child: ChildProcess;
}

/** Runs itself again in name spaces of its own: nothing of the machine's network is touched. */
export function enterNamespaces(args: readonly string[]): never {
  const { status, error } = spawnSync(
    "unshare",
    [
      "--net",
      "--mount",
      "--propagation",
      "private",
      process.execPath,
      "--disable-warning=ExperimentalWarning",
      ...args,
    ],
    { stdio: "inherit", env: { ...process.env, KEELSON_MEMORY_INSIDE: "1" } },
  );
  if (error !== undefined) {
    throw new KeelsonError("UNAVAILABLE", `unshare can't be run: ${error.message}.`, {
      remedy: "Run this as root, with util-linux installed.",
    });
  }
  process.exit(status ?? 1);
}

export async function measureMemory(
  flags: readonly string[],
  progress: (line: string) => void,
): Promise<ServiceMemory[]> {
  const folder = mkdtempSync(join(tmpdir(), "keelson-memory-"));
  const started: Started[] = [];
  try {
    spawnSync("ip", ["link", "set", "lo", "up"]);
    progress("bundling the services");
    await bundleServices({ outDir: join(folder, "bundle") });
    await startAll(folder, flags, started, progress);
    progress("load");
    await load();
    await delay(calmMs);
    return started.map(({ name, child }) => ({ name, ...memoryOf(child.pid!) }));
  } finally {
    for (const { child } of started.toReversed()) await stop(child);
    rmSync(folder, { recursive: true, force: true });
  }
}

async function startAll(
  folder: string,
  flags: readonly string[],
  started: Started[],
  progress: (line: string) => void,
): Promise<void> {
  const state = (name: string) => join(folder, "state", name);
  const run = (name: string) => join(folder, "run", name);
  const place = (name: string) => ["--state", state(name), "--run", run(name)];
  const logs = join(folder, "logs");
  for (const name of ["cluster-store", "chunk-store", "network"]) {
    mkdirSync(state(name), { recursive: true, mode: 0o700 });
    mkdirSync(run(name), { recursive: true, mode: 0o700 });
  }
  mkdirSync(logs);
  writeFileSync(join(folder, "admin.hash"), `${hashPassword(password)}\n`);
  const logged = (name: string) => openSync(join(logs, `${name}.log`), "a");
  const unit = unitOf("cluster-store");
  const [program, ...etcdArgs] = /^ExecStart=(.*)$/m.exec(unit)![1].split(" ");
  const log = logged("cluster-store");
  started.push({
    name: "cluster-store",
    child: spawn(
      program,
      etcdArgs.map((arg) =>
        arg
          .replace("/var/lib/keelson/cluster-store", state("cluster-store"))
          // Older etcd takes no absolute path of a socket; here nobody else is on the network.
          .replace("unix:///run/keelson/cluster-store/etcd.sock", "http://127.0.0.1:2379"),
      ),
      {
        cwd: run("cluster-store"),
        stdio: ["ignore", log, log],
        env: { ...process.env, ...environmentOf(unit) },
      },
    ),
  });
  closeSync(log);
  const node = async (name: string, args: readonly string[]): Promise<void> => {
    const output = logged(name);
    const bundle = join(folder, "bundle", `${name}.js`);
    const child = spawn(process.execPath, [...nodeFlags(name), ...flags, bundle, ...args], {
      stdio: ["ignore", output, output, "ipc"],
      env: { ...process.env, ...environmentOf(unitOf(name)) },
    });
    closeSync(output);
    started.push({ name, child });
    const answer = await Promise.race([
      new Promise<string>((resolve) => child.once("message", () => resolve("ready"))),
      new Promise<string>((resolve) => child.once("exit", (code) => resolve(`ended with ${code}`))),
      delay(readyMs, "was not ready in time"),
    ]);
    if (answer === "ready") return progress(`${name} is ready`);
    const said = readFileSync(join(logs, `${name}.log`), "utf8")
      .trim()
      .split("\n")
      .at(-1);
    throw new KeelsonError("UNAVAILABLE", `${name} ${answer}: ${said}`);
  };
  const device = join(state("chunk-store"), "store.img");
  await node("chunk-store", [...place("chunk-store"), "--device", device, "--create", "1G"]);
  await node("iscsi-target", [
    ...[...place("iscsi-target"), "--store-run", run("chunk-store"), "--portal", "127.0.0.1:3260"],
  ]);
  await node("netboot", [
    ...[...place("netboot"), "--api-run", run("api"), "--http", "127.0.0.1:8081"],
    ...["--no-dhcp", "--no-tftp"],
  ]);
  const handover = {
    ...{ version: 1, hostName: "k1", ntp: [] },
    network: { lan: { interface: "lan0", address: "192.0.2.1/24" } },
  };
  writeFileSync(join(folder, "network.json"), JSON.stringify(handover));
  await node("network", [
    ...place("network"),
    ...["--handover", join(folder, "network.json"), "--networkd", join(folder, "networkd")],
    ...[
      "--netif",
      join(folder, "netif"),
      "--ports",
      join(import.meta.dirname, "../../units/ports.d"),
    ],
  ]);
  await node("api", [
    ...[...place("api"), "--https", "127.0.0.1:8443", "--http", "127.0.0.1:8080"],
    ...["--store-run", run("chunk-store"), "--iscsi-run", run("iscsi-target")],
    ...["--netboot-run", run("netboot"), "--network-run", run("network")],
    ...["--cluster-store", "etcd:http://127.0.0.1:2379"],
    ...["--admin-password-hash-file", join(folder, "admin.hash")],
  ]);
  pretendInstalled(folder);
  await node("firmware-updater", [
    ...[...place("firmware-updater"), "--esp", join(folder, "esp")],
    ...["--boot-disk", join(folder, "boot-disk"), "--attempts", join(folder, "attempts")],
    ...["--sticks", join(folder, "sticks"), "--store-run", run("chunk-store")],
    ...["--trust", join(folder, "trust.json"), "--release", join(folder, "release.json")],
  ]);
  const places = ["--state", join(folder, "state"), "--run", join(folder, "run")];
  await node("console", ["--line", "/dev/null", ...places]);
}

/** In this mount name space the machine is a node that was installed from the image. */
function pretendInstalled(folder: string): void {
  for (const name of ["esp/EFI/Linux", "esp/keelson", "sticks"])
    mkdirSync(join(folder, name), { recursive: true });
  writeFileSync(
    join(folder, "esp/keelson/grubenv"),
    "# GRUB Environment Block\n".padEnd(1024, "#"),
  );
  const disk = join(folder, "disk");
  writeFileSync(disk, "");
  truncateSync(disk, 16 << 20);
  const pair = (root: string, verity: string) =>
    `type=${gptTypes.root}, size=1MiB${root}\ntype=${gptTypes.rootVerity}, size=1MiB${verity}\n`;
  const rootHash = "a".repeat(32) + "b".repeat(32);
  const { root, verity } = slotUuids(rootHash);
  const table = `label: gpt\n${pair(`, uuid=${root}`, `, uuid=${verity}`)}${pair("", "")}`;
  spawnSync("sfdisk", ["--quiet", disk], { input: table });
  writeFileSync(join(folder, "boot-disk"), `${disk}\n`);
  writeFileSync(join(folder, "cmdline"), `roothash=${rootHash}\n`);
  writeFileSync(
    join(folder, "trust.json"),
    readFileSync(join(import.meta.dirname, "../../image/trust/roots.json")),
  );
  const release = { version: "2026.11.0", development: false, architecture, hardware, dataFormats };
  writeFileSync(join(folder, "release.json"), JSON.stringify(release));
  writeFileSync(join(folder, "os-release"), "IMAGE_VERSION=2026.11.0\n");
  for (const [file, place] of [
    ["cmdline", "/proc/cmdline"],
    ["os-release", "/usr/lib/os-release"],
  ]) {
    const { status, stderr } = spawnSync("mount", ["--bind", join(folder, file), place]);
    if (status !== 0) throw new KeelsonError("UNAVAILABLE", `Can't mount ${place}: ${stderr}`);
  }
}

function unitOf(name: string): string {
  const path = join(import.meta.dirname, `../../units/system/keelson-${name}.service`);
  return readFileSync(path, "utf8");
}

/** Node's flags of the unit, so that what is measured is what runs. */
function nodeFlags(name: string): string[] {
  const line = /^ExecStart=\/usr\/lib\/keelson\/node (.*)$/m.exec(unitOf(name))?.[1];
  return (line ?? "").split(" ").filter((word, at, all) => {
    const script = all.findIndex((each) => each.endsWith(".js"));
    return word.startsWith("--") && at < script;
  });
}

/** `Environment=A=1 B=2` of a unit. */
function environmentOf(unit: string): Record<string, string> {
  const words = [...unit.matchAll(/^Environment=(.*)$/gm)].flatMap(([, line]) => line.split(" "));
  return Object.fromEntries(words.map((word) => word.split("=", 2) as [string, string]));
}

/** What a person's afternoon leaves: volumes, exports, lists read over and over, an open stream. */
async function load(): Promise<void> {
  const base = "http://127.0.0.1:8080/api/v1";
  const call = async (method: string, path: string, token: string, body?: unknown) => {
    const answer = await fetch(`${base}${path}`, {
      method,
      headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    if (!answer.ok) {
      throw new KeelsonError("UNAVAILABLE", `${method} ${path}: ${await answer.text()}`);
    }
    return answer.status === 204 ? undefined : await answer.json();
  };
  const { token } = await call("POST", "/session", "", { user: "admin", password });
  const stream = new AbortController();
  void fetch(`${base}/events`, {
    headers: { authorization: `Bearer ${token}` },
    signal: stream.signal,
  })
    .then(async (answer) => {
      for await (const _ of answer.body as unknown as AsyncIterable<unknown>);
    })
    .catch(() => {});
  for (let index = 0; index < 20; index++) {
    const volume = await call("POST", "/volumes", token, {
      name: `volume-${index}`,
      sizeBytes: 64 << 20,
    });
    await call("POST", "/exports", token, {
      name: `export-${index}`,
      volumeId: volume.id,
      initiators: ["iqn.2026-11.org.example:client"],
    });
  }
  const paths = [
    "/node",
    "/store",
    "/volumes",
    "/exports",
    "/conditions",
    "/tasks",
    "/openapi.json",
  ];
  for (let round = 0; round < 50; round++) {
    await Promise.all(paths.map((path) => call("GET", path, token)));
  }
  stream.abort();
}

/** proc_pid_smaps(5), of all its threads. */
function memoryOf(pid: number): { pssBytes: number; privateBytes: number } {
  const text = readFileSync(`/proc/${pid}/smaps_rollup`, "utf8");
  const field = (name: string) =>
    Number(new RegExp(`^${name}:\\s+(\\d+) kB$`, "m").exec(text)?.[1] ?? Number.NaN) * 1024;
  return {
    pssBytes: field("Pss"),
    privateBytes: field("Private_Clean") + field("Private_Dirty"),
  };
}

async function stop(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = new Promise((resolve) => child.once("exit", resolve));
  child.kill("SIGTERM");
  const late = setTimeout(() => child.kill("SIGKILL"), 10_000);
  await ended;
  clearTimeout(late);
}

export function formatMemory(rows: readonly ServiceMemory[]): string {
  const mib = (bytes: number) => (bytes / 2 ** 20).toFixed(1).padStart(7);
  const line = (name: string, pss: number, own: number) =>
    `${name.padEnd(18)} ${mib(pss)} ${mib(own)}`;
  const sum = (pick: (row: ServiceMemory) => number) =>
    rows.reduce((total, row) => total + pick(row), 0);
  return [
    `${"service".padEnd(18)} ${"PSS".padStart(7)} ${"private".padStart(7)}   MiB`,
    ...rows.map(({ name, pssBytes, privateBytes }) => line(name, pssBytes, privateBytes)),
    line(
      "total",
      sum((row) => row.pssBytes),
      sum((row) => row.privateBytes),
    ),
  ].join("\n");
}
