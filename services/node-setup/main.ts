/** keelson-node-setup: at each boot of an installed node, before the network. */
import { execFile } from "node:child_process";
import { chmodSync, chownSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { parseNodeConfig } from "#lib/answer-file/node-config.ts";
import { HeldFormatsFile } from "#lib/data-format/held.ts";
import { explainError, KeelsonError } from "#lib/model/errors.ts";
import { portsOf, readLinks } from "#lib/network/links.ts";
import type { PortFacts } from "#lib/network/resolve.ts";
import type { NetworkConfig } from "#lib/network/schema.ts";
import { storedNetworks } from "#lib/network/stored.ts";
import type { Log } from "#lib/service/log.ts";
import { runService } from "#lib/service/main.ts";
import { accountIds } from "./accounts.ts";
import { type RenderedFile, renderNode } from "./render.ts";

const usage = `Usage: keelson-node-setup [options]

Writes node.env, network.json and secrets of this boot from node.json, and sets host name and
time zone.

  --state DIR     where node.json is (default /var/lib/keelson)
  --run DIR       where node.env goes (default /run/keelson)
  --root DIR      write all files below DIR and set nothing (for tests)
  --help`;

const run = promisify(execFile);

await runService({
  name: "keelson-node-setup",
  usage,
  options: {
    state: { type: "string", default: "/var/lib/keelson" },
    run: { type: "string", default: "/run/keelson" },
    root: { type: "string", default: "" },
  },
  async start({ values, log }) {
    const path = join(values.root, values.state, "node.json");
    if (!existsSync(path)) {
      throw new KeelsonError("NOT_FOUND", `This disk is not fully installed: no ${path}.`, {
        operation: "set up node",
        remedy: "Boot the installation medium and install again.",
      });
    }
    const config = parseNodeConfig(readFileSync(path, "utf8"), path);
    const version = imageVersion();
    if (values.root === "") await settleDevices(log);
    const rendered = renderNode(config, {
      ports: await listPorts(),
      version,
      confirmed: confirmedNetwork(join(values.root, values.state, "network"), log),
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
    // Everything stands in files now; the unit stays as done.
    setImmediate(() => process.exit(0));
    return { status: `set up as ${config.name}`, stop: async () => {} };
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
function confirmedNetwork(folder: string, log: Log): NetworkConfig | undefined {
  try {
    return storedNetworks(folder, new HeldFormatsFile()).confirmed.read()?.network;
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
