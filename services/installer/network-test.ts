/**
 * Tries a network configuration on the live system: the same files that an installed node gets,
 * then address, gateway and name servers are asked. It stays in place, so that what was tried is
 * what the rest of the installation runs on.
 */
import { createSocket } from "node:dgram";
import { Resolver } from "node:dns/promises";
import { chmodSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { networkInterfaces } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { isKeelsonError } from "#lib/model/errors.ts";
import { checkAgainstLan } from "#lib/network/check.ts";
import { madeLinks, type NetworkFile, renderNetworkd } from "#lib/network/networkd.ts";
import { resolveNetwork } from "#lib/network/resolve.ts";
import type { NetworkConfig } from "#lib/network/schema.ts";
import type { Command } from "./command.ts";
import { listPorts } from "./ports.ts";
import type { Probe } from "./schema.ts";

const folder = "/run/systemd/network";
/** Before 80-keelson-live.network, which has every port ask for an address. */
const ourFile = /^\d\d-keelson-.*\.(?:network|netdev)$/;
const addressMs = 25_000;
const answerMs = 4_000;

export async function tryNetwork(
  config: NetworkConfig,
  hostName: string,
  ntp: readonly string[],
  run: Command,
): Promise<Probe[]> {
  const ports = listPorts();
  const resolved = resolveNetwork(config, ports);
  if (resolved.problems.length > 0) {
    return resolved.problems.map(({ message }) => ({ what: "Ports", ok: false, result: message }));
  }
  await apply(renderNetworkd({ config, resolved, hostName, ntp }), run);
  const { lan, backplane } = resolved.roles;
  const probes: Probe[] = [];
  const address = await waitForAddress(lan ?? "", addressMs);
  probes.push({
    what: `Address of the LAN (${lan})`,
    ok: address !== undefined,
    result:
      address ??
      (config.lan.address === "dhcp"
        ? "no DHCP server gave one within 25 s; is the cable in, and the VLAN right?"
        : "the port did not take it; is the cable in?"),
  });
  if (address !== undefined && config.lan.address === "dhcp") {
    for (const { message } of checkAgainstLan(config, [address])) {
      probes.push({ what: "Backplane", ok: false, result: message });
    }
  }
  const lease = readLease(lan ?? "");
  const gateway = config.lan.gateway ?? lease.gateway;
  if (gateway !== undefined) probes.push(await probeGateway(gateway, lan ?? ""));
  else probes.push({ what: "Gateway", ok: config.lan.address !== "dhcp", result: "none" });
  const servers = config.lan.dns.length > 0 ? config.lan.dns : lease.dns;
  probes.push(...(await Promise.all(servers.map(probeServer))));
  if (servers.length === 0) {
    probes.push({ what: "DNS servers", ok: false, result: "none: names can't be looked up" });
  }
  if (backplane !== undefined) {
    const up = await waitForCarrier(backplane, answerMs);
    probes.push({
      what: `Backplane (${backplane})`,
      ok: up,
      result: up ? "the port has a link" : "no link; is the cable in?",
    });
  }
  return probes;
}

async function apply(files: readonly NetworkFile[], run: Command): Promise<void> {
  mkdirSync(folder, { recursive: true });
  const before = readdirSync(folder).filter((name) => ourFile.test(name));
  const old = madeLinks(
    before.map((name) => ({ name, content: readFileSync(join(folder, name), "utf8") })),
  );
  for (const name of before) rmSync(join(folder, name));
  for (const { name, content } of files) {
    writeFileSync(join(folder, name), content);
    // networkd is another user, and this service's own mask keeps files to itself.
    chmodSync(join(folder, name), 0o644);
  }
  const wanted = madeLinks(files);
  for (const [name, content] of old) {
    if (wanted.get(name) !== content) await run("networkctl", ["delete", name]).catch(() => "");
  }
  await run("networkctl", ["reload"]);
}

async function waitForAddress(name: string, timeoutMs: number): Promise<string | undefined> {
  const until = performance.now() + timeoutMs;
  for (;;) {
    const found = networkInterfaces()[name]?.find(({ family }) => family === "IPv4");
    if (found?.cidr != null) return found.cidr;
    if (performance.now() > until) return undefined;
    await sleep(500);
  }
}

/** networkd's own record of a lease, by the port's number. */
function readLease(name: string): { gateway: string | undefined; dns: string[] } {
  try {
    const index = readFileSync(`/sys/class/net/${name}/ifindex`, "utf8").trim();
    const text = readFileSync(`/run/systemd/netif/leases/${index}`, "utf8");
    const value = (key: string) => new RegExp(`^${key}=(.*)$`, "m").exec(text)?.[1] ?? "";
    const [gateway] = value("ROUTER").split(" ").filter(Boolean);
    return { gateway, dns: value("DNS").split(" ").filter(Boolean) };
  } catch {
    return { gateway: undefined, dns: [] };
  }
}

/**
 * Whether it is on the wire, not whether it answers pings: firewalls drop those. A datagram to it
 * has the kernel ask for its hardware address, which needs no privilege.
 */
async function probeGateway(gateway: string, name: string): Promise<Probe> {
  const what = `Gateway ${gateway}`;
  const socket = createSocket("udp4");
  socket.on("error", () => {});
  try {
    const until = performance.now() + answerMs;
    for (;;) {
      // Port 9 discards. Without a route there is nothing to send: then nobody is found either.
      socket.send("", 9, gateway, () => {});
      await sleep(250);
      const table = readFileSync("/proc/net/arp", "utf8");
      if (isNeighbour(table, gateway, name)) return { what, ok: true, result: "answers" };
      if (performance.now() > until) {
        return { what, ok: false, result: "does not answer on this network" };
      }
    }
  } finally {
    socket.close();
  }
}

/** Whether the kernel's ARP table has a complete entry (flag 2) of an address at a device. */
export function isNeighbour(table: string, address: string, device: string): boolean {
  return table.split("\n").some((row) => {
    const [ip, , flags, mac, , at] = row.trim().split(/\s+/);
    const complete = (Number(flags) & 2) !== 0 && mac !== "00:00:00:00:00:00";
    return ip === address && at === device && complete;
  });
}

async function probeServer(server: string): Promise<Probe> {
  const what = `DNS server ${server}`;
  const resolver = new Resolver({ timeout: answerMs, tries: 2 });
  resolver.setServers([server]);
  try {
    await resolver.resolveNs(".");
    return { what, ok: true, result: "answers" };
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    // Any answer is one, also "refused" and "no such name": a closed network has its own root.
    const silent = code === "ETIMEOUT" || code === "ECONNREFUSED" || code === "ECANCELLED";
    if (!silent && !isKeelsonError(error)) return { what, ok: true, result: "answers" };
    return { what, ok: false, result: "does not answer" };
  }
}

/** A VLAN's interface is made only now, and has its port's carrier a moment later. */
async function waitForCarrier(name: string, timeoutMs: number): Promise<boolean> {
  const until = performance.now() + timeoutMs;
  while (!carrierOf(name)) {
    if (performance.now() > until) return false;
    await sleep(250);
  }
  return true;
}

function carrierOf(name: string): boolean {
  try {
    return readFileSync(`/sys/class/net/${name}/carrier`, "utf8").trim() === "1";
  } catch {
    return false;
  }
}
