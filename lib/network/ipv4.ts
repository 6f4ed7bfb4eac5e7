/** IPv4 addresses as unsigned 32-bit numbers, for the checks of a configuration. */

/** `10.0.0.1` to a number; undefined if it isn't a dotted quad. */
export function parseIpv4(text: string): number | undefined {
  const match = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/.exec(text);
  if (match === null) return undefined;
  const bytes = match.slice(1).map(Number);
  if (bytes.some((byte) => byte > 255)) return undefined;
  return bytes.reduce((sum, byte) => sum * 256 + byte, 0);
}

export function formatIpv4(address: number): string {
  return [24, 16, 8, 0].map((shift) => (address >>> shift) & 255).join(".");
}

export interface Ipv4Subnet {
  readonly address: number;
  /** 1 to 30. */
  readonly prefix: number;
  readonly first: number;
  readonly last: number;
}

/** `10.0.0.1/24`: a host's address with its prefix; `first` and `last` are the usable hosts. */
export function parseIpv4Subnet(text: string): Ipv4Subnet | undefined {
  const [host, length, ...rest] = text.split("/");
  const address = parseIpv4(host);
  if (address === undefined || rest.length > 0 || !/^\d{1,2}$/.test(length ?? "")) return undefined;
  const prefix = Number(length);
  if (prefix < 1 || prefix > 30) return undefined;
  const size = 2 ** (32 - prefix);
  const network = Math.floor(address / size) * size;
  return { address, prefix, first: network + 1, last: network + size - 2 };
}

export function subnetContains(subnet: Ipv4Subnet, address: number): boolean {
  return address >= subnet.first && address <= subnet.last;
}

/** True if the two share an address; one may lie within the other. */
export function subnetsOverlap(left: Ipv4Subnet, right: Ipv4Subnet): boolean {
  const size = 2 ** (32 - Math.min(left.prefix, right.prefix));
  return Math.floor(left.address / size) === Math.floor(right.address / size);
}

/** `a-b` with a <= b. */
export function parsePool(text: string): { first: number; last: number } | undefined {
  const [from, to, ...rest] = text.split("-");
  const first = parseIpv4(from?.trim() ?? "");
  const last = parseIpv4(to?.trim() ?? "");
  if (first === undefined || last === undefined || rest.length > 0 || first > last) {
    return undefined;
  }
  return { first, last };
}
