/** What this node is: its name, its addresses, its build. */
import { existsSync, readFileSync } from "node:fs";
import { hostname, networkInterfaces } from "node:os";
import { bad, type Checked, good } from "#lib/aime/checked.ts";
import { type NetbootSettings, netbootSettingsSchema } from "./schema.ts";

export interface NodeIdentity {
  readonly name: string;
  readonly id: string | null;
  readonly version: string;
  readonly devBuild: boolean;
}

/** From node-setup's environment and the image's os-release; a source tree is a development build. */
export function readIdentity(
  environment: NodeJS.ProcessEnv = process.env,
  osRelease = readText("/etc/os-release"),
): NodeIdentity {
  const field = (name: string) => new RegExp(`^${name}="?([^"\n]*)"?$`, "m").exec(osRelease)?.[1];
  const isAppliance = field("ID") === "keelson";
  return {
    name: nonEmpty(environment.KEELSON_NODE_NAME) ?? hostname(),
    id: nonEmpty(environment.KEELSON_NODE_ID) ?? null,
    version:
      nonEmpty(environment.KEELSON_VERSION) ??
      (isAppliance ? field("VERSION_ID") : undefined) ??
      "dev",
    devBuild: !(isAppliance && field("VARIANT_ID") === "release"),
  };
}

function readText(path: string): string {
  return existsSync(path) ? readFileSync(path, "utf8") : "";
}

function nonEmpty(text: string | undefined): string | undefined {
  return text === undefined || text === "" ? undefined : text;
}

export interface NodeAddress {
  readonly interface: string;
  readonly mac: string | null;
  readonly address: string;
  readonly prefixLength: number;
  readonly family: "IPv4" | "IPv6";
}

/** Of all interfaces but loopback; link-local IPv6 left out. */
export function readAddresses(interfaces = networkInterfaces()): NodeAddress[] {
  return Object.entries(interfaces).flatMap(([name, addresses]) =>
    (addresses ?? [])
      .filter(({ internal, address }) => !internal && !address.startsWith("fe80:"))
      .map(({ address, mac, cidr, family }) => ({
        interface: name,
        mac: mac === "00:00:00:00:00:00" ? null : mac,
        address,
        prefixLength: Number(cidr?.split("/")[1] ?? 0),
        family,
      })),
  );
}

/** systemd-timesyncd(8): the file's presence says that a server has set the clock since boot. */
export function readClockState(
  nowMs: number,
  directory = "/run/systemd/timesync",
): Checked<boolean> {
  const origin = { source: "systemd-timesyncd", atMs: nowMs, maxAgeMs: 60_000 };
  if (existsSync(`${directory}/synchronized`)) return good(true, origin);
  if (existsSync(directory)) return good(false, origin);
  return bad("No time service of this node says whether the clock is right.", origin);
}

/** What the answer file said of network boot: holds until somebody changes it. */
export function readNetbootDefault(
  environment: NodeJS.ProcessEnv = process.env,
): { readonly name: string; readonly settings: NetbootSettings } | null {
  const name = nonEmpty(environment.KEELSON_NETBOOT_INTERFACE);
  const mode = nonEmpty(environment.KEELSON_NETBOOT_MODE);
  if (name === undefined || mode === undefined) return null;
  const [first, last] = (environment.KEELSON_NETBOOT_POOL ?? "").split("-");
  const parsed = netbootSettingsSchema.safeParse({
    mode,
    pool: first === "" || last === undefined ? null : { first, last },
    gateway: nonEmpty(environment.KEELSON_NETBOOT_GATEWAY) ?? null,
    dns: (environment.KEELSON_NETBOOT_DNS ?? "").split(",").filter((text) => text !== ""),
  });
  return parsed.success ? { name, settings: parsed.data } : null;
}

/** `10.77.0.1/24` to `10.77.0.0/24`. */
export function subnetOf(address: string, prefixLength: number): string {
  const bytes = address.split(".").map(Number);
  const value = bytes.reduce((sum, byte) => sum * 256 + byte, 0);
  const size = 2 ** (32 - prefixLength);
  const base = value - (value % size);
  const parts = [24, 16, 8, 0].map((shift) => Math.floor(base / 2 ** shift) % 256);
  return `${parts.join(".")}/${prefixLength}`;
}
