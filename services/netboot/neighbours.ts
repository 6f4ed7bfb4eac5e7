/**
 * Which MAC answers to an address, from the kernel's neighbour table: no raw sockets, no
 * privileges.
 */
import { createSocket } from "node:dgram";
import { readFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { type MacAddress, parseMacAddress } from "#lib/model/ids.ts";
import { formatIpv4, type Ipv4 } from "#lib/wire/dhcp/address.ts";

/** The MAC of `ip` if the kernel has a complete entry (`0x2` in /proc/net/arp). */
export async function neighbourOf(ip: string): Promise<MacAddress | undefined> {
  let table: string;
  try {
    table = await readFile("/proc/net/arp", "utf8");
  } catch {
    return undefined;
  }
  for (const line of table.split("\n").slice(1)) {
    const [address, , flags, mac] = line.split(/\s+/);
    if (address === ip && (Number(flags) & 2) !== 0) return parseMacAddress(mac);
  }
  return undefined;
}

/** How long an ARP answer is waited for. */
const probeMs = 400;
const discardPort = 9;

/**
 * True if a machine other than `mac` answers ARP for `ip`. A datagram to the discard port makes
 * the kernel ask.
 */
export async function addressInUse(ip: Ipv4, mac: MacAddress): Promise<boolean> {
  const text = formatIpv4(ip);
  const socket = createSocket("udp4");
  try {
    await new Promise<void>((resolve) => {
      socket.once("error", () => resolve());
      socket.send(new Uint8Array(1), discardPort, text, () => resolve());
    });
    await sleep(probeMs);
  } finally {
    socket.close();
  }
  const owner = await neighbourOf(text);
  return owner !== undefined && owner !== mac;
}
