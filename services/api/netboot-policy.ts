/** Network boot by interface: what is wanted, from policy, the answer file and this node's addresses. */
import { KeelsonError } from "#lib/model/errors.ts";
import { type NodeAddress, readNetbootDefault, subnetOf } from "./node.ts";
import type { NetbootConfigInput } from "./peers.ts";
import type { Policy } from "./policy.ts";
import type { NetbootChange, NetbootSettings } from "./schema.ts";

const off: NetbootSettings = {
  mode: "off",
  pool: null,
  gateway: null,
  dns: [],
  leaseSeconds: 3600,
};

export interface NetbootInterface {
  readonly name: string;
  readonly mac: string | null;
  readonly address: string | null;
  readonly prefixLength: number | null;
  readonly settings: NetbootSettings;
}

/** Interfaces that this node has, or that somebody has settings for. */
export function netbootInterfaces(
  policy: Pick<Policy, "list">,
  addresses: readonly NodeAddress[],
  byDefault: ReturnType<typeof readNetbootDefault> = readNetbootDefault(),
): NetbootInterface[] {
  const settings = new Map(policy.list("netboot").map((record) => [record.id, record.settings]));
  if (byDefault !== null && !settings.has(byDefault.name)) {
    settings.set(byDefault.name, byDefault.settings);
  }
  const names = new Set([...addresses.map((entry) => entry.interface), ...settings.keys()]);
  return [...names].sort().map((name) => {
    const own = addresses.find((entry) => entry.interface === name && entry.family === "IPv4");
    return {
      name,
      mac: addresses.find((entry) => entry.interface === name)?.mac ?? null,
      address: own?.address ?? null,
      prefixLength: own?.prefixLength ?? null,
      settings: settings.get(name) ?? off,
    };
  });
}

/** What netboot is given: a server without an address has no subnet yet and is left out. */
export function netbootConfig(
  interfaces: readonly NetbootInterface[],
): NetbootConfigInput["interfaces"][number][] {
  return interfaces
    .filter(({ settings }) => settings.mode !== "off")
    .filter(({ settings, address }) => settings.mode !== "server" || address !== null)
    .map(({ name, settings, address, prefixLength }) => ({
      name,
      mode: settings.mode,
      ...(address === null || prefixLength === null
        ? {}
        : { subnet: subnetOf(address, prefixLength) }),
      ...(settings.pool === null ? {} : { pool: settings.pool }),
      ...(settings.gateway === null ? {} : { router: settings.gateway }),
      dns: settings.dns,
      leaseSeconds: settings.leaseSeconds,
    }));
}

/** INVALID_ARGUMENT where netboot would refuse the whole of its policy for it. */
export function checkNetbootChange(
  change: NetbootChange,
  known: readonly NetbootInterface[],
): void {
  const { settings } = change;
  const own = known.find(({ name }) => name === change.interface);
  const refuse = (why: string, remedy: string) => {
    throw new KeelsonError("INVALID_ARGUMENT", why, {
      operation: "set network boot",
      object: change.interface,
      remedy,
    });
  };
  if (own === undefined) {
    refuse(`There is no interface ${change.interface}.`, "See keelson netboot for their names.");
    return;
  }
  if (settings.mode !== "server") return;
  if (own.address === null || own.prefixLength === null) {
    refuse(`${own.name} has no IPv4 address.`, "A DHCP server needs a fixed one of its own.");
    return;
  }
  const subnet = subnetOf(own.address, own.prefixLength);
  const inside = (address: string) => subnetOf(address, own.prefixLength!) === subnet;
  const { pool, gateway } = settings;
  if (pool !== null && !(inside(pool.first) && inside(pool.last))) {
    refuse(`The pool is not in ${subnet}.`, `Give addresses of ${subnet}.`);
  }
  if (pool !== null && numberOf(pool.first) > numberOf(pool.last)) {
    refuse("The pool's last address is before its first.", "Swap them.");
  }
  if (pool !== null) {
    const first = numberOf(subnet.split("/")[0]);
    const last = first + 2 ** (32 - own.prefixLength) - 1;
    if (numberOf(pool.first) === first || numberOf(pool.last) === last) {
      refuse("The pool holds the network's own or its broadcast address.", "Leave them out.");
    }
  }
  if (gateway !== null && !inside(gateway)) {
    refuse(`The gateway is not in ${subnet}.`, `Give an address of ${subnet}.`);
  }
}

function numberOf(address: string): number {
  return address.split(".").reduce((sum, byte) => sum * 256 + Number(byte), 0);
}
