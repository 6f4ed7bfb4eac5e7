/** A range of addresses with what its clients are told: one for an interface, one for a relay. */
import {
  contains,
  type Ipv4,
  isHost,
  parseIpv4,
  parseSubnet,
  type Subnet,
} from "#lib/wire/dhcp/address.ts";
import type { InterfacePolicy, NetbootConfig, RelayedPolicy } from "./schema.ts";

export interface Scope {
  /** The interface's name, or the relayed subnet as text: leases carry it. */
  readonly name: string;
  readonly subnet: Subnet;
  /** Absent: reserved addresses only. */
  readonly pool?: { readonly first: Ipv4; readonly last: Ipv4 };
  readonly router?: Ipv4;
  readonly dns: readonly Ipv4[];
  readonly domain?: string;
  readonly leaseSeconds: number;
}

type ScopePolicy = Omit<RelayedPolicy, "subnet"> & { readonly subnet?: string | undefined };

function scopeOf(name: string, policy: ScopePolicy): Scope | undefined {
  const subnet = policy.subnet === undefined ? undefined : parseSubnet(policy.subnet);
  if (subnet === undefined) return undefined;
  const pool =
    policy.pool === undefined
      ? {}
      : { pool: { first: parseIpv4(policy.pool.first)!, last: parseIpv4(policy.pool.last)! } };
  return {
    name,
    subnet,
    ...pool,
    ...(policy.router === undefined ? {} : { router: parseIpv4(policy.router)! }),
    dns: policy.dns.map((text) => parseIpv4(text)!),
    ...(policy.domain === undefined ? {} : { domain: policy.domain }),
    leaseSeconds: policy.leaseSeconds,
  };
}

/** Of an interface in server mode. */
export function interfaceScope(policy: InterfacePolicy): Scope | undefined {
  return policy.mode === "server" ? scopeOf(policy.name, policy) : undefined;
}

/** The subnet a relay speaks for: one of its own, or the one of an interface. */
export function relayedScope(config: NetbootConfig, giaddr: Ipv4): Scope | undefined {
  for (const policy of config.relayed) {
    const scope = scopeOf(policy.subnet, policy);
    // A relay's own address is the usual router of the segment behind it.
    if (scope !== undefined && contains(scope.subnet, giaddr)) return { router: giaddr, ...scope };
  }
  for (const policy of config.interfaces) {
    const scope = interfaceScope(policy);
    if (scope !== undefined && contains(scope.subnet, giaddr)) return scope;
  }
  return undefined;
}

export function poolSize(scope: Scope): number {
  return scope.pool === undefined ? 0 : scope.pool.last - scope.pool.first + 1;
}

export function inPool(scope: Scope, address: Ipv4): boolean {
  return (
    scope.pool !== undefined &&
    address >= scope.pool.first &&
    address <= scope.pool.last &&
    isHost(scope.subnet, address)
  );
}
