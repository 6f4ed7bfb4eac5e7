/** IPv4 addresses as unsigned 32-bit numbers, as DHCP carries them: 10.0.0.1 is 0x0a000001. */
import type { Branded, MacAddress } from "#lib/model/ids.ts";

export type Ipv4 = Branded<number, "Ipv4">;

export const unspecified = 0 as Ipv4;
export const limitedBroadcast = 0xffffffff as Ipv4;

/** Dotted quad to number; undefined for anything else, leading zeros included. */
export function parseIpv4(text: string): Ipv4 | undefined {
  const parts = text.split(".");
  if (parts.length !== 4) return undefined;
  let value = 0;
  for (const part of parts) {
    if (!/^(0|[1-9]\d{0,2})$/.test(part) || Number(part) > 255) return undefined;
    value = value * 256 + Number(part);
  }
  return value as Ipv4;
}

export function formatIpv4(address: Ipv4): string {
  return `${address >>> 24}.${(address >>> 16) & 255}.${(address >>> 8) & 255}.${address & 255}`;
}

export interface Subnet {
  readonly network: Ipv4;
  /** 1 to 32. */
  readonly prefix: number;
  readonly mask: Ipv4;
  readonly broadcast: Ipv4;
}

/** `10.0.0.0/24`; host bits may be set and are dropped. Undefined if unreadable. */
export function parseSubnet(text: string): Subnet | undefined {
  const match = /^([\d.]+)\/(\d{1,2})$/.exec(text);
  const address = match === null ? undefined : parseIpv4(match[1]);
  const prefix = Number(match?.[2]);
  if (address === undefined || prefix < 1 || prefix > 32) return undefined;
  const mask = ((0xffffffff << (32 - prefix)) >>> 0) as Ipv4;
  const network = ((address & mask) >>> 0) as Ipv4;
  return { network, prefix, mask, broadcast: ((network | ~mask) >>> 0) as Ipv4 };
}

export function contains(subnet: Subnet, address: Ipv4): boolean {
  return (address & subnet.mask) >>> 0 === subnet.network;
}

/** True for an address a host can have in `subnet`: not the network's, not its broadcast. */
export function isHost(subnet: Subnet, address: Ipv4): boolean {
  if (!contains(subnet, address)) return false;
  return subnet.prefix >= 31 || (address !== subnet.network && address !== subnet.broadcast);
}

export function formatMac(bytes: Uint8Array): MacAddress {
  return Array.from(bytes.subarray(0, 6), (byte) => byte.toString(16).padStart(2, "0")).join(
    ":",
  ) as MacAddress;
}

export function macBytes(mac: MacAddress): Uint8Array {
  return Uint8Array.from(mac.split(":"), (part) => Number.parseInt(part, 16));
}
