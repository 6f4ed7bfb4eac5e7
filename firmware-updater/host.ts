/** The machine as it is: kernel line, firmware, disks, restarts. Nothing here decides anything. */
import { spawnSync } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statfsSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { KeelsonError } from "#lib/model/errors.ts";
import { writeStateFile } from "#lib/service/state-file.ts";
import { rootHashOf } from "./uki.ts";

export interface HostPaths {
  readonly state: string;
  readonly run: string;
  readonly esp: string;
  /** Names the boot disk: written by the initrd. */
  readonly bootDiskFile: string;
}

export interface RunningSystem {
  readonly version: string;
  readonly developmentBuild: boolean;
  readonly rootHash: string;
  readonly bootId: string;
  readonly firmware: "uefi" | "bios";
  readonly nodeName: string;
  readonly bootDisk: string;
}

export function readRunningSystem(paths: HostPaths): RunningSystem {
  const release = readFileSync("/usr/lib/os-release", "utf8");
  const field = (name: string) => new RegExp(`^${name}="?([^"\n]*)"?$`, "m").exec(release)?.[1];
  const rootHash = rootHashOf(readFileSync("/proc/cmdline", "utf8").trim());
  const version = field("IMAGE_VERSION");
  if (rootHash === undefined || version === undefined || !existsSync(paths.bootDiskFile)) {
    throw new KeelsonError("UNSUPPORTED", "This is not an installed Keelson node.", {
      operation: "look at the running system",
      remedy: "Upgrades are for nodes that were installed from the image.",
    });
  }
  return {
    version,
    developmentBuild: field("VARIANT_ID") !== "release",
    rootHash,
    bootId: readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim(),
    firmware: existsSync("/sys/firmware/efi") ? "uefi" : "bios",
    nodeName: process.env.KEELSON_NODE_NAME ?? "this node",
    bootDisk: readFileSync(paths.bootDiskFile, "utf8").trim(),
  };
}

export function uptimeSeconds(): number {
  return Number(readFileSync("/proc/uptime", "utf8").split(" ")[0]);
}

export function espFreeBytes(esp: string): number {
  const { bavail, bsize } = statfsSync(esp);
  return bavail * bsize;
}

/** sync(2): everything, not only what this process wrote. */
export function syncDisks(): void {
  spawnSync("/usr/bin/sync", { timeout: 300_000 });
}

/** What the deadline unit goes by, at the next start (docs/formats/upgrade.md). */
export function writeTrial(
  { state }: HostPaths,
  trial: { readonly rootHash: string; readonly deadlineSeconds: number } | null,
): void {
  const path = join(state, "trial");
  if (trial === null) rmSync(path, { force: true });
  else writeStateFile(path, `${trial.rootHash} ${trial.deadlineSeconds}\n`);
}

/** keelson-restart.path sees the file and restarts the machine: this process may not. */
export function requestRestart({ run }: HostPaths, reason: string): void {
  mkdirSync(run, { recursive: true });
  writeFileSync(join(run, "restart"), `${reason.replaceAll("\n", " ")}\n`);
}

/**
 * True while any UPS or laptop battery discharges without mains; undefined where there is neither,
 * as on most servers.
 */
export function onBattery(folder = "/sys/class/power_supply"): boolean | undefined {
  if (!existsSync(folder)) return undefined;
  const read = (name: string, file: string) => {
    try {
      return readFileSync(join(folder, name, file), "utf8").trim();
    } catch {
      return "";
    }
  };
  const names = readdirSync(folder);
  const mains = names.filter((name) => ["Mains", "USB"].includes(read(name, "type")));
  if (mains.length > 0) return !mains.some((name) => read(name, "online") === "1");
  const batteries = names.filter((name) => ["UPS", "Battery"].includes(read(name, "type")));
  if (batteries.length === 0) return undefined;
  return batteries.some((name) => read(name, "status") === "Discharging");
}
