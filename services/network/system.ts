/** The machine below: ip, nft, networkd. All that changes it is here. */
import { execFile, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { promisify } from "node:util";
import { KeelsonError } from "#lib/model/errors.ts";
import { type LinkState, readLinks } from "#lib/network/links.ts";
import { madeLinks, type NetworkFile } from "#lib/network/networkd.ts";
import type { Log } from "#lib/service/log.ts";

export interface NetworkSystem {
  links(): Promise<LinkState[]>;
  /** Replaces the packet filter as a whole, or changes nothing and throws. */
  loadFirewall(rules: string): Promise<void>;
  /** Gives networkd these files and nothing else; ports in `unused` are switched off. */
  configure(files: readonly NetworkFile[], unused: readonly string[]): Promise<void>;
}

const run = promisify(execFile);
/** Says which files networkd was told of: what a crash left half done is done again. */
const markerName = ".keelson-applied";
const ours = /-keelson-[^/]*\.(network|netdev)$/;

export interface SystemOptions {
  /** networkd's folder of run-time files. */
  readonly folder: string;
  /** There while networkd runs. */
  readonly networkdRuns: () => boolean;
  readonly log: Log;
}

export class LinuxNetwork implements NetworkSystem {
  readonly #options: SystemOptions;

  constructor(options: SystemOptions) {
    this.#options = options;
  }

  async links(): Promise<LinkState[]> {
    const { stdout } = await command("ip", ["-json", "-details", "address", "show"]);
    return readLinks(stdout).map((link) => ({ ...link, speedMbps: speedOf(link.name) }));
  }

  async loadFirewall(rules: string): Promise<void> {
    const child = spawn("nft", ["-f", "-"], { stdio: ["pipe", "ignore", "pipe"] });
    let said = "";
    child.stderr.on("data", (part) => {
      said += part;
    });
    child.stdin.on("error", () => {});
    child.stdin.end(rules);
    const code = await new Promise<number | null>((resolve, reject) => {
      child.once("error", reject);
      child.once("close", resolve);
    });
    if (code === 0) return;
    const why = said.trim().split("\n")[0] ?? "";
    throw new KeelsonError("INTERNAL", `nft refused the rules: ${why}`, {
      operation: "load firewall",
      remedy: "Report this with the support bundle.",
    });
  }

  async configure(files: readonly NetworkFile[], unused: readonly string[]): Promise<void> {
    const { folder, networkdRuns } = this.#options;
    mkdirSync(folder, { recursive: true });
    const marker = join(folder, markerName);
    const wanted = createHash("sha256")
      .update(JSON.stringify([files, unused]))
      .digest("hex");
    const before = readFiles(folder);
    if (existsSync(marker) && readFileSync(marker, "utf8") === wanted) {
      if (sameFiles(before, files) && (await this.#missing(files)).length === 0) return;
    }
    rmSync(marker, { force: true });
    // Before networkd starts there is nothing to tell it.
    if (networkdRuns()) {
      for (const name of staleLinks(before, files, await this.links())) {
        await command("ip", ["link", "delete", name]).catch(() => {});
      }
      writeFiles(folder, before, files);
      await this.#reload(files);
      for (const name of unused) {
        const quiet = () => {};
        await command("ip", ["link", "set", name, "nomaster", "down"]).catch(quiet);
        await command("ip", ["address", "flush", "dev", name]).catch(quiet);
      }
    } else {
      writeFiles(folder, before, files);
    }
    writeFileSync(marker, wanted, { mode: 0o644 });
  }

  /** Bonds and VLANs that these files make and the machine hasn't got. */
  async #missing(files: readonly NetworkFile[]): Promise<string[]> {
    if (!this.#options.networkdRuns()) return [];
    const there = (await this.links()).map(({ name }) => name);
    return [...madeLinks(files).keys()].filter((name) => !there.includes(name));
  }

  /** Until every bond and VLAN is there: networkd may not have seen yet that the old one went. */
  async #reload(files: readonly NetworkFile[]): Promise<void> {
    let missing: string[] = [];
    for (let round = 0; round < 4; round++) {
      await command("networkctl", ["reload"]);
      for (let look = 0; look < 5; look++) {
        missing = await this.#missing(files);
        if (missing.length === 0) return;
        await delay(500);
      }
    }
    throw new KeelsonError("INTERNAL", `networkd did not make ${missing.join(", ")}.`, {
      operation: "configure network",
      remedy: "See journalctl -u systemd-networkd.",
    });
  }
}

/**
 * Bonds and VLANs that are no longer wanted, or wanted otherwise; what an earlier run left behind
 * counts too. VLANs first: a bond takes its own along.
 */
export function staleLinks(
  before: readonly NetworkFile[],
  after: readonly NetworkFile[],
  links: readonly Pick<LinkState, "name" | "kind">[],
): string[] {
  const [old, wanted] = [madeLinks(before), madeLinks(after)];
  return links
    .filter(({ kind }) => kind === "bond" || kind === "vlan")
    .filter(({ name }) => !wanted.has(name) || old.get(name) !== wanted.get(name))
    .sort((a, b) => b.kind.localeCompare(a.kind))
    .map(({ name }) => name);
}

function readFiles(folder: string): NetworkFile[] {
  return readdirSync(folder)
    .filter((name) => ours.test(name))
    .map((name) => ({ name, content: readFileSync(join(folder, name), "utf8") }));
}

function sameFiles(left: readonly NetworkFile[], right: readonly NetworkFile[]): boolean {
  return (
    left.length === right.length &&
    right.every((file) =>
      left.some(({ name, content }) => name === file.name && content === file.content),
    )
  );
}

function writeFiles(
  folder: string,
  before: readonly NetworkFile[],
  after: readonly NetworkFile[],
): void {
  for (const { name } of before) {
    if (!after.some((file) => file.name === name)) rmSync(join(folder, name), { force: true });
  }
  for (const { name, content } of after) {
    if (before.some((file) => file.name === name && file.content === content)) continue;
    // networkd reads what ends in .network and .netdev only.
    writeFileSync(join(folder, `${name}.new`), content, { mode: 0o644 });
    renameSync(join(folder, `${name}.new`), join(folder, name));
  }
}

/** ethtool(8)'s speed; undefined where the driver doesn't say, or there is no link. */
function speedOf(name: string): number | undefined {
  try {
    const speed = Number(readFileSync(`/sys/class/net/${name}/speed`, "utf8"));
    return speed > 0 ? speed : undefined;
  } catch {
    return undefined;
  }
}

async function command(program: string, args: readonly string[]): Promise<{ stdout: string }> {
  try {
    return await run(program, args, { timeout: 30_000, maxBuffer: 16 << 20 });
  } catch (cause) {
    const { stderr, message } = cause as { stderr?: string; message: string };
    const why = (stderr ?? "").trim().split("\n")[0] || message;
    throw new KeelsonError("INTERNAL", `${program} ${args.join(" ")}: ${why}`, {
      operation: "configure network",
      remedy: "Report this with the support bundle.",
      cause,
    });
  }
}

/** networkd keeps the state of each link here while it runs, and its folder goes with it. */
export function networkdRunsIn(folder = "/run/systemd/netif"): boolean {
  return existsSync(join(folder, "state"));
}
