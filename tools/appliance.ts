/**
 * `npm run appliance`: the real image, installed in a virtual machine, with its console on
 * https://127.0.0.1:8443. The disk is kept, so the second run only boots it.
 */
import { randomBytes } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { explainError, KeelsonError } from "#lib/model/errors.ts";
import { parseSize } from "#lib/model/size.ts";
import { hashPassword } from "#lib/password/password.ts";
import { chooseAcceleration } from "#qa/vm/acceleration.ts";
import {
  ApplianceClient,
  type ApplianceOptions,
  applianceAnswers,
  createDisk,
  installAppliance,
  limits,
  startAppliance,
} from "#qa/vm/appliance.ts";
import { clientMacs, startClient } from "#qa/vm/client.ts";
import { clientImage, clientPassword } from "#qa/vm/client-image.ts";
import { ensureIso } from "#qa/vm/iso.ts";
import type { Firmware, Machine } from "#qa/vm/machine.ts";
import { importImage } from "#qa/vm/netboot.ts";
import { createSegment } from "#qa/vm/segment.ts";
import type { BootEntry, Client, Image } from "#services/api/schema.ts";

const help = `Usage: npm run appliance [-- OPTIONS]

Builds the ISO (or takes the one in build/), installs it unattended in QEMU, boots it, and forwards
its console to https://127.0.0.1:8443. The disk is kept in .cache/appliance: a second run boots it
at once. Ctrl-C powers it off; a second Ctrl-C pulls the plug.

  --port N              another port than 8443
  --client bios|uefi    add a diskless machine that boots Debian 13 from the appliance
  --fresh               install anew; what the old disk held is lost
  --firmware uefi|bios  of the appliance (default uefi)
  --memory SIZE         of the appliance (default 2G)
  --disk-size SIZE      of a new disk, sparse (default 32G)
  --state DIR           where disk and password are kept (default .cache/appliance)
  --json                one line of JSON when ready, nothing else on stdout
  --help

KEELSON_ACCELERATION=tcg|kvm overrides the probe for KVM.`;

const defaultState = resolve(import.meta.dirname, "../.cache/appliance");
/** A clean power-off under emulation; then the plug is pulled. */
const stopMs = 180_000;

/** Files of an appliance. */
interface Place {
  readonly directory: string;
  readonly disk: string;
  readonly passwordFile: string;
  /** Written when an installation is complete: a disk without it is a torso. */
  readonly installedFile: string;
}

function placeIn(directory: string): Place {
  return {
    directory,
    disk: join(directory, "disk.raw"),
    passwordFile: join(directory, "admin-password"),
    installedFile: join(directory, "installed.json"),
  };
}

interface Arguments {
  readonly place: Place;
  readonly port: number;
  readonly client: Firmware | undefined;
  readonly fresh: boolean;
  readonly firmware: Firmware;
  readonly memoryMiB: number;
  readonly diskBytes: number;
  readonly json: boolean;
}

function readArguments(): Arguments {
  const { values } = parseArgs({
    options: {
      port: { type: "string", default: "8443" },
      client: { type: "string" },
      fresh: { type: "boolean", default: false },
      firmware: { type: "string", default: "uefi" },
      memory: { type: "string", default: "2G" },
      "disk-size": { type: "string", default: "32G" },
      state: { type: "string", default: defaultState },
      json: { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) {
    console.log(help);
    process.exit(0);
  }
  const firmware = (name: string, value: string): Firmware => {
    if (value === "bios" || value === "uefi") return value;
    throw new KeelsonError("INVALID_ARGUMENT", `--${name} must be bios or uefi, not '${value}'.`);
  };
  const size = (name: string, value: string, least: number): number => {
    const bytes = parseSize(value);
    if (bytes !== undefined && bytes >= least) return bytes;
    throw new KeelsonError(
      "INVALID_ARGUMENT",
      `--${name} must be a size of at least ${least / 2 ** 20}M, not '${value}'.`,
    );
  };
  const port = Number(values.port);
  if (!Number.isInteger(port) || port < 1 || port > 65_535) {
    throw new KeelsonError("INVALID_ARGUMENT", `--port must be 1 to 65535, not '${values.port}'.`);
  }
  return {
    place: placeIn(resolve(values.state)),
    port,
    client: values.client === undefined ? undefined : firmware("client", values.client),
    fresh: values.fresh,
    firmware: firmware("firmware", values.firmware),
    memoryMiB: Math.floor(size("memory", values.memory, 1 << 30) / 2 ** 20),
    diskBytes: size("disk-size", values["disk-size"], 6 * 2 ** 30),
    json: values.json,
  };
}

async function requireFreePort(port: number): Promise<void> {
  const server = createServer();
  try {
    await new Promise<void>((done, failed) => {
      server.once("error", failed);
      server.listen(port, "127.0.0.1", done);
    });
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    throw new KeelsonError(
      "PORT_IN_USE",
      code === "EACCES"
        ? `This user may not listen on port ${port}.`
        : `Port ${port} of 127.0.0.1 is in use.`,
      { remedy: "Stop what uses it, or give another with --port N.", cause },
    );
  }
  await new Promise((done) => server.close(done));
}

const started = Date.now();
let quiet = false;

function say(text: string): void {
  const seconds = ((Date.now() - started) / 1000).toFixed(1).padStart(7);
  (quiet ? console.error : console.log)(`${seconds} s  ${text}`);
}

async function main(): Promise<void> {
  const arguments_ = readArguments();
  quiet = arguments_.json;
  const { directory, disk, passwordFile } = arguments_.place;
  await requireFreePort(arguments_.port);
  mkdirSync(directory, { recursive: true });
  const { acceleration, reason } = await chooseAcceleration();
  say(`${acceleration === "kvm" ? "KVM" : "emulation"}: ${reason}`);

  const machines: Machine[] = [];
  stopOnSignals(machines);
  const options: ApplianceOptions = {
    name: "appliance",
    directory,
    disk,
    firmware: arguments_.firmware,
    acceleration,
    memoryMiB: arguments_.memoryMiB,
    httpsPort: arguments_.port,
    segment: await createSegment(join(directory, "hub")),
  };
  const installedNow = await installIfNeeded(options, arguments_);
  const password = readFileSync(passwordFile, "utf8").trim();

  say("starting the appliance");
  const machine = await startAppliance(options);
  machines.push(machine);
  const api = new ApplianceClient(arguments_.port);
  await api.waitUntilUp(machine, limits.bootMs);
  await api.logIn(password);
  say(`ready; what the machine says is in ${machine.serial.path}`);
  announce(api.url, password, installedNow, arguments_);
  if (arguments_.client !== undefined) {
    machines.push(await addClient(arguments_.client, api, options));
  }
  await machine.exited;
  say("the appliance has powered itself off");
  await Promise.all(machines.map((each) => each.kill()));
  process.exit(0);
}

/** True if it installed: then the password is new. */
async function installIfNeeded(options: ApplianceOptions, arguments_: Arguments): Promise<boolean> {
  const { directory, disk, passwordFile, installedFile } = arguments_.place;
  const kept = existsSync(installedFile) && existsSync(disk) && existsSync(passwordFile);
  if (kept && !arguments_.fresh) {
    const { iso, firmware } = JSON.parse(readFileSync(installedFile, "utf8"));
    say(
      `the disk of an earlier run is used again (--fresh installs anew; it boots by ${firmware})`,
    );
    const current = await ensureIso((line) => say(line));
    if (iso !== isoStamp(current)) say("note: the ISO has been built anew since; --fresh takes it");
    return false;
  }
  for (const path of [installedFile, disk, passwordFile, join(directory, "appliance.vars.qcow2")]) {
    rmSync(path, { force: true });
  }
  const iso = await ensureIso((line) => say(line));
  say(`ISO: ${iso}, ${(statSync(iso).size / 1e6).toFixed(0)} MB`);
  const password = randomBytes(12).toString("base64url");
  writeFileSync(passwordFile, `${password}\n`, { mode: 0o600 });
  createDisk(disk, arguments_.diskBytes);
  say("installing");
  await installAppliance(
    {
      ...options,
      name: "installer",
      iso,
      onLine: (line) => {
        if (/^\s+\d+ %|^Installing |^Installation |^Answers:/.test(line)) say(line.trimEnd());
      },
    },
    applianceAnswers(hashPassword(password), { node: { name: "keelson" } }),
  );
  writeFileSync(
    installedFile,
    JSON.stringify({ iso: isoStamp(iso), firmware: arguments_.firmware }),
  );
  return true;
}

function isoStamp(path: string): string {
  const { size, mtimeMs } = statSync(path);
  return `${size}-${mtimeMs}`;
}

function announce(
  url: string,
  password: string,
  installedNow: boolean,
  arguments_: Arguments,
): void {
  const { passwordFile } = arguments_.place;
  if (arguments_.json) {
    const shown = installedNow ? { password } : {};
    console.log(JSON.stringify({ ready: true, url, user: "admin", ...shown, passwordFile }));
    return;
  }
  const credentials = installedNow
    ? `password  ${password}   (not shown again; kept in ${passwordFile})`
    : `password  in ${passwordFile}`;
  console.log(`\n  console   ${url}\n  user      admin\n  ${credentials}\n`);
  console.log("  Ctrl-C powers it off.\n");
}

/** Imports the client's Debian once, binds the client's MAC to it, starts the machine, tells its stages. */
async function addClient(
  firmware: Firmware,
  api: ApplianceClient,
  options: ApplianceOptions,
): Promise<Machine> {
  const mac = clientMacs[firmware];
  const images = await api.call<Image[]>("GET", "/images");
  let imageId = images.find(({ name, state }) => name === "debian-13" && state === "ready")?.id;
  if (imageId === undefined) {
    say("making the client's disk, an ordinary Debian 13");
    const path = await clientImage();
    say(`uploading ${(statSync(path).size / 1e6).toFixed(0)} MB`);
    imageId = await importImage(api, path);
    say("imported");
  }
  const entries = await api.call<BootEntry[]>("GET", "/boot-entries");
  if (!entries.some((entry) => entry.mac === mac)) {
    await api.call("POST", "/boot-entries", { name: `client-${firmware}`, imageId, mac });
  }
  const machine = await startClient({
    name: `client-${firmware}`,
    directory: options.directory,
    firmware,
    acceleration: options.acceleration,
    segment: options.segment!,
  });
  say(`client ${mac} (${firmware}) started; its serial port is in ${machine.serial.path}`);
  void tellStages(api, mac, machine);
  machine.serial.waitFor(/client login: $/m, limits.installMs).then(
    () => say(`client: Debian is up (root, password ${clientPassword})`),
    (error) => say(`client: ${explainError(error)}`),
  );
  return machine;
}

async function tellStages(api: ApplianceClient, mac: string, machine: Machine): Promise<void> {
  let told = "";
  while (machine.running) {
    const clients = await api.call<Client[]>("GET", "/clients").catch(() => []);
    const client = clients.find((each) => each.mac === mac);
    const text = client?.failure ?? client?.stage ?? "";
    if (text !== "" && text !== told) say(`client: ${text}`);
    told = text;
    await sleep(1_000);
  }
}

/** The terminal and `npm run` may each deliver a Ctrl-C: what comes within two seconds is one. */
function stopOnSignals(machines: Machine[]): void {
  let stoppingSince: number | undefined;
  const stop = async () => {
    if (stoppingSince !== undefined) {
      if (Date.now() - stoppingSince < 2_000) return;
      say("pulling the plug");
      await Promise.all(machines.map((machine) => machine.kill()));
      process.exit(130);
    }
    stoppingSince = Date.now();
    say("powering off; Ctrl-C again pulls the plug");
    const [appliance, ...clients] = machines;
    await Promise.all(clients.map((client) => client.kill()));
    const clean = appliance === undefined || (await appliance.powerOff(stopMs));
    say(clean ? "powered off" : "it did not power off in time: the plug was pulled");
    process.exit(clean ? 0 : 1);
  };
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    process.on(signal, () => void stop());
  }
}

try {
  await main();
} catch (error) {
  console.error(`keelson: ${explainError(error)}`);
  process.exit(1);
}
