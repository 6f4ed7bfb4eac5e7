/** keelson-node-setup: at each boot of an installed node, before the network; then the screen. */
import { execFile } from "node:child_process";
import { chmodSync, chownSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { networkInterfaces } from "node:os";
import { dirname, join } from "node:path";
import { connect } from "node:tls";
import { promisify } from "node:util";
import { parseNodeConfig } from "#lib/answer-file/node-config.ts";
import { openConsole } from "#lib/console/console.ts";
import { explainError, KeelsonError } from "#lib/model/errors.ts";
import { portsOf, readLinks } from "#lib/network/links.ts";
import type { PortFacts } from "#lib/network/resolve.ts";
import type { NetworkConfig } from "#lib/network/schema.ts";
import { confirmedName, readStored } from "#lib/network/stored.ts";
import type { Log } from "#lib/service/log.ts";
import { runService } from "#lib/service/main.ts";
import { readStateFile, writeStateFile } from "#lib/service/state-file.ts";
import { accountIds } from "./accounts.ts";
import { type RenderedFile, renderNode } from "./render.ts";
import { readUnitStates, statusScreen, type UnitState } from "./status.ts";

const usage = `Usage: keelson-node-setup [options]

Writes node.env, network.json and secrets of this boot from node.json, sets host name and
time zone, then shows the node's state on its screen and serial port.

  --state DIR     where node.json is (default /var/lib/keelson)
  --run DIR       where node.env goes (default /run/keelson)
  --root DIR      write all files below DIR and set nothing (for tests)
  --screen PATH   terminal to print to, repeatable (default /dev/tty1 and /dev/ttyS0)
  --once          end when the files are written
  --help`;

const units = [
  "keelson-chunk-store",
  "keelson-iscsi-target",
  "keelson-netboot",
  "keelson-cluster-store",
  "keelson-network",
  "keelson-api",
];
/** Quick while the node starts, slow once it is well: each look costs a process and a handshake. */
const startingMs = 3_000;
const steadyMs = 30_000;

const run = promisify(execFile);

await runService({
  name: "keelson-node-setup",
  usage,
  options: {
    state: { type: "string", default: "/var/lib/keelson" },
    run: { type: "string", default: "/run/keelson" },
    root: { type: "string", default: "" },
    screen: { type: "string", multiple: true, default: ["/dev/tty1", "/dev/ttyS0"] },
    once: { type: "boolean", default: false },
  },
  async start({ values, log }) {
    const console = openConsole(values.once ? [] : values.screen);
    const path = join(values.root, values.state, "node.json");
    if (!existsSync(path)) {
      const error = new KeelsonError("NOT_FOUND", `This disk is not fully installed: no ${path}.`, {
        operation: "set up node",
        remedy: "Boot the installation medium and install again.",
      });
      console.print("", `Keelson: ${error.message}`, `  ${error.remedy}`);
      throw error;
    }
    const config = parseNodeConfig(readFileSync(path, "utf8"), path);
    const version = imageVersion();
    if (values.root === "") await settleDevices(log);
    const rendered = renderNode(config, {
      ports: await listPorts(),
      version,
      confirmed: confirmedNetwork(join(values.root, values.state, "network", confirmedName), log),
    });
    for (const file of rendered.files) writeRendered(values.root, relocated(file, values.run));
    for (const warning of rendered.warnings) log.warn(warning);
    if (values.root === "") {
      // The kernel's name; /etc is read-only and hostnamed may not run yet.
      try {
        writeFileSync("/proc/sys/kernel/hostname", config.name);
      } catch (error) {
        log.warn("the host name can't be set", { why: (error as Error).message });
      }
    }
    log.info("node is set up", {
      name: config.name,
      lan: rendered.lan,
      netboot: rendered.netboot,
      store: config.store.device,
    });
    if (values.once) setImmediate(() => process.exit(0));

    let timer: NodeJS.Timeout | undefined;
    let shown = "";
    const look = async (): Promise<void> => {
      const facts = {
        version,
        name: config.name,
        addresses: addressesOf(rendered.lan),
        fingerprint: await certificateFingerprint(443),
        units: await unitStates(),
        warnings: rendered.warnings,
      };
      const lines = statusScreen(facts);
      const text = lines.join("\n");
      if (text !== shown) {
        shown = text;
        console.print(...lines);
        writeStateFile(join(values.run, "status.txt"), `${text.trim()}\n`);
        chmodSync(join(values.run, "status.txt"), 0o644);
      }
      const steady = /Health {7}good/.test(text);
      timer = setTimeout(() => void look().catch(onFault), steady ? steadyMs : startingMs);
    };
    const onFault = (error: unknown): void => {
      log.warn("the status screen can't be drawn", { why: (error as Error).message });
      timer = setTimeout(() => void look().catch(onFault), steadyMs);
    };
    if (!values.once && values.root === "") setImmediate(() => void look().catch(onFault));
    return {
      status: `set up as ${config.name}`,
      async stop() {
        clearTimeout(timer);
        console.close();
      },
    };
  },
});

/** Interfaces get their lasting names from udev; before that they are all `eth0`. */
async function settleDevices(log: Log): Promise<void> {
  await run("udevadm", ["settle", "--timeout=60"]).catch((error) =>
    log.warn("devices are still being set up", { why: (error as Error).message }),
  );
}

async function listPorts(): Promise<PortFacts[]> {
  const { stdout } = await run("ip", ["-json", "-details", "address", "show"]);
  return portsOf(readLinks(stdout));
}

/** What keelson-network keeps; where it can't be read, that service says so too. */
function confirmedNetwork(path: string, log: Log): NetworkConfig | undefined {
  try {
    const value = readStateFile(path);
    return value === undefined ? undefined : readStored(value, path).network;
  } catch (error) {
    log.warn(explainError(error));
    return undefined;
  }
}

function relocated(file: RenderedFile, runFolder: string): RenderedFile {
  return { ...file, path: file.path.replace(/^\/run\/keelson(?=\/)/, runFolder) };
}

function writeRendered(root: string, file: RenderedFile): void {
  const path = join(root, file.path);
  mkdirSync(dirname(path), { recursive: true });
  // Made private first: a secret is never readable, not even between two calls.
  writeFileSync(path, file.content, { mode: 0o600 });
  if (file.owner !== undefined && process.getuid?.() === 0 && root === "") {
    const { uid, gid } = accountIds(file.owner);
    chownSync(path, uid, gid);
  }
  chmodSync(path, file.mode);
}

/** IMAGE_VERSION of os-release(5). */
function imageVersion(): string {
  const text = readFileSync("/etc/os-release", "utf8");
  return /^IMAGE_VERSION="?([^"\n]*)"?$/m.exec(text)?.[1] ?? "unknown";
}

function addressesOf(name: string | undefined): string[] {
  return (networkInterfaces()[name ?? ""] ?? [])
    .filter(({ internal, address }) => !internal && !address.startsWith("fe80:"))
    .map(({ address }) => address);
}

async function unitStates(): Promise<UnitState[]> {
  const properties = "--property=Id,LoadState,ActiveState,Result,ConditionResult";
  const names = units.map((name) => `${name}.service`);
  const { stdout } = await run("systemctl", ["show", properties, ...names]);
  return readUnitStates(stdout);
}

/** Of whatever the API shows: this is for a person to compare, so nothing is verified here. */
function certificateFingerprint(port: number): Promise<string | undefined> {
  return new Promise((resolve) => {
    const socket = connect({ host: "127.0.0.1", port, rejectUnauthorized: false }, () => {
      resolve(socket.getPeerCertificate().fingerprint256);
      socket.destroy();
    });
    socket.setTimeout(5_000, () => {
      resolve(undefined);
      socket.destroy();
    });
    socket.once("error", () => resolve(undefined));
  });
}
