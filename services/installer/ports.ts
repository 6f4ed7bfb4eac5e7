/** The machine's Ethernet ports, with their cables. */
import { readdirSync, readFileSync, realpathSync } from "node:fs";
import { networkInterfaces } from "node:os";
import { join } from "node:path";
import type { PortFacts } from "#lib/network/resolve.ts";
import type { InterfaceView } from "./schema.ts";

/** Ports with hardware behind them, in the order of their names' numbers. */
export function listPorts(folder = "/sys/class/net"): PortFacts[] {
  return readdirSync(folder)
    .filter((name) => {
      try {
        realpathSync(join(folder, name, "device"));
        return readFileSync(join(folder, name, "type"), "utf8").trim() === "1";
      } catch {
        return false;
      }
    })
    .map((name) => ({ name, mac: readFileSync(join(folder, name, "address"), "utf8").trim() }))
    .sort((a, b) => a.name.localeCompare(b.name, "en", { numeric: true }));
}

export function viewPorts(folder = "/sys/class/net"): InterfaceView[] {
  const all = networkInterfaces();
  return listPorts(folder).map(({ name, mac }) => ({
    name,
    mac,
    carrier: carrierOf(join(folder, name)),
    addresses: (all[name] ?? []).flatMap(({ family, cidr }) =>
      family === "IPv4" && cidr !== null ? [cidr] : [],
    ),
  }));
}

/** A port that is down has no carrier to read. */
function carrierOf(path: string): boolean {
  try {
    return readFileSync(join(path, "carrier"), "utf8").trim() === "1";
  } catch {
    return false;
  }
}
