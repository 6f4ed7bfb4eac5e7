/**
 * Who has which address.
 *
 *   (free) --discover--> offered --request--> bound --renew--> bound
 *      ^                    |                   |
 *      +--- expired --------+---- release ------+        declined: somebody else uses it
 *
 * A client is known by its identifier (option 61, RFC 2131 section 4.2), else by its MAC. One
 * machine has several identifiers while it boots (firmware, iPXE, the system's DUID): a lease of
 * the same MAC is handed on when the one who asks, or the one who held it, is firmware, since the
 * other can't be running then. So the address that a booted system took over from iPXE stays its.
 */
import type { MacAddress } from "#lib/model/ids.ts";
import { formatIpv4, type Ipv4, isHost } from "#lib/wire/dhcp/address.ts";
import { inPool, type Scope } from "./scope.ts";

export interface Lease {
  readonly ip: Ipv4;
  readonly mac: MacAddress;
  /** Hex of option 61, or `mac:` and the MAC. */
  readonly clientId: string;
  readonly hostname?: string;
  /** The scope's name. */
  readonly scope: string;
  readonly state: "offered" | "bound" | "declined";
  /** Held by PXE firmware or iPXE. */
  readonly firmware: boolean;
  /** Wall clock, so that it survives a reboot. */
  readonly expiresAtMs: number;
}

export interface Claimant {
  readonly mac: MacAddress;
  readonly clientId: string;
  readonly firmware: boolean;
}

/** How long an offer waits for its request. */
export const offerMs = 60_000;
/** How long an address that somebody else was seen to use stays out. */
export const declineMs = 600_000;

export class LeaseTable {
  #leases = new Map<Ipv4, Lease>();
  #byClient = new Map<string, Ipv4>();
  #byMac = new Map<MacAddress, Ipv4>();
  #now: () => number;
  #reserved = new Map<MacAddress, Ipv4>();
  #reservedFor = new Map<Ipv4, MacAddress>();

  constructor(now: () => number, leases: Iterable<Lease> = []) {
    this.#now = now;
    for (const lease of leases) this.put(lease);
  }

  setReservations(reservations: Iterable<readonly [MacAddress, Ipv4]>): void {
    this.#reserved = new Map(reservations);
    this.#reservedFor = new Map([...this.#reserved].map(([mac, ip]) => [ip, mac]));
  }

  isReserved(ip: Ipv4): boolean {
    return this.#reservedFor.has(ip);
  }

  /** Live leases, by address. */
  all(): Lease[] {
    const now = this.#now();
    return [...this.#leases.values()]
      .filter((lease) => lease.expiresAtMs > now)
      .sort((a, b) => a.ip - b.ip);
  }

  /** The live lease of an address. */
  at(ip: Ipv4): Lease | undefined {
    const lease = this.#leases.get(ip);
    return lease !== undefined && lease.expiresAtMs > this.#now() ? lease : undefined;
  }

  put(lease: Lease): void {
    this.remove(lease.ip);
    const key = `${lease.scope} ${lease.clientId}`;
    const before = this.#byClient.get(key);
    if (before !== undefined && lease.state !== "declined") this.remove(before);
    this.#leases.set(lease.ip, lease);
    if (lease.state === "declined") return;
    this.#byClient.set(key, lease.ip);
    this.#byMac.set(lease.mac, lease.ip);
  }

  remove(ip: Ipv4): Lease | undefined {
    const lease = this.#leases.get(ip);
    if (lease === undefined) return undefined;
    this.#leases.delete(ip);
    const key = `${lease.scope} ${lease.clientId}`;
    if (this.#byClient.get(key) === ip) this.#byClient.delete(key);
    if (this.#byMac.get(lease.mac) === ip) this.#byMac.delete(lease.mac);
    return lease;
  }

  /** The lease that `claimant` holds or may take over in `scope`, expired ones included. */
  held(scope: Scope, claimant: Claimant): Lease | undefined {
    const own = this.#leases.get(
      this.#byClient.get(`${scope.name} ${claimant.clientId}`) ?? (0 as Ipv4),
    );
    if (own !== undefined) return own;
    const same = this.#leases.get(this.#byMac.get(claimant.mac) ?? (0 as Ipv4));
    if (same === undefined || same.scope !== scope.name) return undefined;
    const free = same.expiresAtMs <= this.#now();
    return free || same.firmware || claimant.firmware ? same : undefined;
  }

  /** True if `claimant` may have `ip`: its reservation, its lease, or a free address of the pool. */
  mayHave(scope: Scope, claimant: Claimant, ip: Ipv4, taken: ReadonlySet<Ipv4>): boolean {
    if (taken.has(ip) || !isHost(scope.subnet, ip)) return false;
    const reserved = this.#reserved.get(claimant.mac);
    if (reserved !== undefined && isHost(scope.subnet, reserved)) return reserved === ip;
    if (this.#reservedFor.has(ip) || !inPool(scope, ip)) return false;
    const lease = this.at(ip);
    return lease === undefined || this.held(scope, claimant)?.ip === ip;
  }

  /**
   * The address to offer: reservation, own lease, the one asked for, else the first free one from
   * a place that the MAC names, so that a client keeps its address even if all state is lost.
   * `taken` are addresses in use that no lease knows: this node's, the router's.
   */
  choose(
    scope: Scope,
    claimant: Claimant,
    wanted: Ipv4 | undefined,
    taken: ReadonlySet<Ipv4>,
  ): Ipv4 | undefined {
    const reserved = this.#reserved.get(claimant.mac);
    if (reserved !== undefined && isHost(scope.subnet, reserved) && !taken.has(reserved)) {
      return this.at(reserved)?.state === "declined" ? undefined : reserved;
    }
    const held = this.held(scope, claimant);
    for (const ip of [held?.ip, wanted]) {
      if (ip !== undefined && this.mayHave(scope, claimant, ip, taken)) return ip;
    }
    if (scope.pool === undefined) return undefined;
    const size = scope.pool.last - scope.pool.first + 1;
    const start = hash(claimant.mac) % size;
    let reuse: Lease | undefined;
    for (let index = 0; index < size; index++) {
      const ip = (scope.pool.first + ((start + index) % size)) as Ipv4;
      if (!this.mayHave(scope, claimant, ip, taken)) continue;
      const old = this.#leases.get(ip);
      if (old === undefined) return ip;
      if (reuse === undefined || old.expiresAtMs < reuse.expiresAtMs) reuse = old;
    }
    // Never-used addresses are gone: the one that expired first is the least missed.
    return reuse?.ip;
  }
}

/** FNV-1a, 32 bits. */
function hash(text: string): number {
  let value = 0x811c9dc5;
  for (let index = 0; index < text.length; index++) {
    value = Math.imul(value ^ text.charCodeAt(index), 0x01000193);
  }
  return value >>> 0;
}

/** One line of the journal. */
export function leaseRecord(lease: Lease): string {
  return JSON.stringify({ ...lease, ip: formatIpv4(lease.ip) });
}
