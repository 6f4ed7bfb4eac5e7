/**
 * `npm run dev`: one node's services as ordinary processes, unprivileged, on loopback. They are
 * driven through the same HTTP API as on the appliance; a service that dies is started again.
 */
import { randomBytes } from "node:crypto";
import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { dataFormats, raised } from "#lib/data-format/formats.ts";
import { HeldFormatsFile } from "#lib/data-format/held.ts";
import { explainError, KeelsonError } from "#lib/model/errors.ts";
import { parseSize } from "#lib/model/size.ts";
import { hashPassword } from "#lib/password/password.ts";
import { writeStateFile } from "#lib/service/state-file.ts";
import { bundleConsole } from "#tools/bundle-console.ts";
import { DevApi, type DevTarget } from "#tools/dev-api.ts";
import { type ServiceSpec, Supervisor } from "#tools/supervisor.ts";

const help = `Usage: npm run dev [-- OPTIONS]

  --state DIR           where everything is kept (default .dev)
  --volume NAME:SIZE    make a thin volume and export it, open to loopback (repeatable)
  --store-size SIZE     size of a new store's file, sparse (default 64G)
  --http-port N         port of API and console, 0 = a free one (default 0)
  --iscsi-port N        port of the iSCSI target, 0 = a free one (default 0)
  --boot-port N         port of netboot's HTTP, 0 = a free one (default 0)
  --bind ADDRESS        listen here instead of 127.0.0.1
  --no-native           run without the addon
  --json                one line of JSON when ready, nothing else on stdout
  --help

The console's user is admin; its password is in DIR/admin-password. Ctrl-C ends everything.`;

interface VolumeRequest {
  readonly name: string;
  readonly sizeBytes: number;
}

function readArguments() {
  const { values } = parseArgs({
    options: {
      state: { type: "string", default: ".dev" },
      volume: { type: "string", multiple: true, default: [] },
      "store-size": { type: "string", default: "64G" },
      "http-port": { type: "string", default: "0" },
      "iscsi-port": { type: "string", default: "0" },
      "boot-port": { type: "string", default: "0" },
      bind: { type: "string", default: "127.0.0.1" },
      "no-native": { type: "boolean", default: false },
      json: { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) {
    console.log(help);
    process.exit(0);
  }
  for (const name of ["http-port", "iscsi-port", "boot-port"] as const)
    readPort(name, values[name]);
  if (parseSize(values["store-size"]) === undefined) {
    throw invalid(`--store-size ${values["store-size"]} is not a size; write it like 64G.`);
  }
  return { ...values, volumes: values.volume.map(readVolume) };
}

function invalid(message: string): KeelsonError {
  return new KeelsonError("INVALID_ARGUMENT", message, { remedy: "See npm run dev -- --help." });
}

function readPort(name: string, text: string): number {
  const port = Number(text);
  if (!/^\d+$/.test(text) || port > 65_535) throw invalid(`--${name} ${text} is not a port.`);
  return port;
}

function readVolume(text: string): VolumeRequest {
  const [name, size, ...rest] = text.split(":");
  const sizeBytes = size === undefined ? undefined : parseSize(size);
  if (rest.length > 0 || name === "" || sizeBytes === undefined) {
    throw invalid(`--volume ${text} can't be read; write it like scratch:10G.`);
  }
  return { name, sizeBytes };
}

/** The admin's password, made at the first start; api gets its hash, as on the appliance. */
function readPassword(state: string): string {
  const path = join(state, "admin-password");
  if (!existsSync(path)) {
    const password = randomBytes(12).toString("base64url");
    writeStateFile(join(state, "admin-password-hash"), `${hashPassword(password)}\n`);
    writeStateFile(path, `${password}\n`);
  }
  return readFileSync(path, "utf8").trim();
}

/** There is no older version to return to: everything is written in its newest format. */
function writeNewestFormats(state: string): void {
  const held = new HeldFormatsFile(join(state, "formats.json"));
  held.write(raised(held.read(), dataFormats));
  process.env.KEELSON_FORMATS = held.path;
}

async function startServices(
  supervisor: Supervisor,
  options: ReturnType<typeof readArguments>,
  state: string,
): Promise<{ http: string; boot: string }> {
  const native = options["no-native"] ? ["--no-native"] : [];
  const place = (name: string) => ["--state", join(state, name), "--run", join(state, "run", name)];
  const run = (name: string) => join(state, "run", name);
  const device = join(state, "chunk-store", "store.img");
  mkdirSync(join(state, "chunk-store"), { recursive: true, mode: 0o700 });
  /** With port 0 the first start takes a free port; a restart takes the same one. */
  const listening = (
    name: string,
    flag: string,
    port: string,
    key: string,
    args: string[],
  ): ServiceSpec => {
    const at = (address: string) => [...place(name), flag, address, ...args];
    return {
      name,
      args: at(`${options.bind}:${port}`),
      restartArgs: (addresses) => at(addresses[key].replace(/^https?:\/\//, "")),
    };
  };
  const build = join(import.meta.dirname, "..", "build");
  await supervisor.start({
    name: "chunk-store",
    args: [
      ...place("chunk-store"),
      "--device",
      device,
      "--create",
      options["store-size"],
      ...native,
    ],
  });
  await supervisor.start(
    listening("iscsi-target", "--portal", options["iscsi-port"], "portal", [
      ...["--store-run", run("chunk-store")],
      ...native,
    ]),
  );
  const { http: boot } = await supervisor.start(
    listening("netboot", "--http", options["boot-port"], "http", [
      ...["--api-run", run("api")],
      "--no-dhcp",
      "--no-tftp",
    ]),
  );
  const { http } = await supervisor.start(
    listening("api", "--http", options["http-port"], "http", [
      ...["--store-run", run("chunk-store")],
      ...["--iscsi-run", run("iscsi-target")],
      ...["--netboot-run", run("netboot"), "--network-run", run("network")],
      ...["--cluster-store", `sqlite:${join(state, "cluster-store.sqlite")}`],
      ...["--admin-password-hash-file", join(state, "admin-password-hash")],
      ...["--ui", join(build, "ui")],
    ]),
  );
  return { http, boot };
}

function printForPeople(
  http: string,
  passwordPath: string,
  targets: readonly DevTarget[],
  portal: string,
): void {
  console.log(`Keelson is ready at ${http}`);
  console.log(`  user admin, password in ${passwordPath}`);
  console.log(`  iSCSI portal ${portal}`);
  for (const target of targets)
    console.log(`    ${target.volume}: iscsi://${portal}/${target.iqn}/${target.lun}`);
  console.log("Ctrl-C ends it.");
}

async function main(): Promise<void> {
  const options = readArguments();
  const state = resolve(options.state);
  mkdirSync(state, { recursive: true, mode: 0o700 });
  const password = readPassword(state);
  writeNewestFormats(state);
  const supervisor = new Supervisor({
    logDirectory: join(state, "log"),
    onRestart: (name, reason) =>
      console.error(`keelson: ${name} ended (${reason}); starting it again`),
    onFailure: (error) => console.error(`keelson: ${explainError(error)}`),
  });
  let stopping: Promise<void> | undefined;
  const stop = (status: number) => {
    stopping ??= supervisor.stop().then(() => process.exit(status));
    return stopping;
  };
  process.on("SIGTERM", () => stop(0));
  process.on("SIGINT", () => stop(0));
  process.on("SIGHUP", () => stop(0));
  try {
    await bundleConsole({ outDir: join(import.meta.dirname, "..", "build", "ui") });
    const { http, boot } = await startServices(supervisor, options, state);
    const api = await DevApi.logIn(http, password);
    const targets: DevTarget[] = [];
    for (const volume of options.volumes) targets.push(await api.exportVolume(volume));
    const node = await api.node();
    const portal = node.portals[0];
    if (options.json) {
      const pids = supervisor.pids;
      console.log(JSON.stringify({ ready: true, http, boot, iscsi: { portal, targets }, pids }));
    } else {
      printForPeople(http, join(options.state, "admin-password"), targets, portal);
    }
  } catch (error) {
    console.error(`keelson: ${explainError(error)}`);
    await stop(1);
  }
}

try {
  await main();
} catch (error) {
  console.error(`keelson: ${explainError(error)}`);
  process.exit(2);
}
