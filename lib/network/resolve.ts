/** A configuration against the ports that this machine has: which link is the LAN, and so on. */
import { parseMacAddress } from "#lib/model/ids.ts";
import { mtuDefault, type Problem, portMtu, sameSelector, sharesLanPort } from "./check.ts";
import type { BondConfig, NetworkConfig } from "./schema.ts";

/** An Ethernet port with hardware behind it. */
export interface PortFacts {
  readonly name: string;
  /** The one it was made with, whatever a bond has set since. */
  readonly mac: string;
  /** What its driver takes at most; undefined if it doesn't say. */
  readonly mtuMax?: number | undefined;
}

export type NetworkRole = "lan" | "backplane" | "netboot";
export const networkRoles: readonly NetworkRole[] = ["lan", "backplane", "netboot"];

/** A port or a bond, and what runs on it. */
export interface BaseLink {
  readonly name: string;
  /** MAC address by which a port is known, and which a bond shows. */
  readonly mac: string;
  readonly bond?: ResolvedBond | undefined;
  /** Always said: networkd leaves an MTU as it is when it is told none, so a revert would not. */
  readonly mtu: number;
  /** Roles on it without a tag, and with one. */
  readonly untagged: readonly NetworkRole[];
  readonly tagged: readonly ResolvedVlan[];
}

export interface ResolvedBond {
  readonly ports: readonly PortFacts[];
  readonly primary: PortFacts;
  readonly miimonMs: number;
}

export interface ResolvedVlan {
  /** Name of the VLAN's interface: that of its role. */
  readonly name: string;
  readonly vlan: number;
  readonly mtu: number;
}

export interface ResolvedNetwork {
  readonly links: readonly BaseLink[];
  /** Name of the interface that has the role's address; a role whose port is missing is absent. */
  readonly roles: Partial<Readonly<Record<NetworkRole, string>>>;
  /** What could not be done as configured. What has no problem is resolved all the same. */
  readonly problems: readonly Problem[];
}

interface Base {
  readonly name: string;
  readonly mac: string;
  readonly bond?: ResolvedBond;
  readonly ports: readonly PortFacts[];
}

interface Placed {
  readonly role: NetworkRole;
  readonly vlan: number | undefined;
  readonly mtu: number | undefined;
}

/** The port that `selector` (`first`, a name, a MAC) means; `first` skips the names in `taken`. */
export function findPort(
  selector: string,
  ports: readonly PortFacts[],
  taken: readonly string[] = [],
): PortFacts | undefined {
  if (selector === "first") return ports.find(({ name }) => !taken.includes(name));
  const mac = parseMacAddress(selector);
  return ports.find((each) =>
    mac === undefined ? each.name === selector : parseMacAddress(each.mac) === mac,
  );
}

/** Pure; `ports` in the order in which `first` looks at them. */
export function resolveNetwork(
  config: NetworkConfig,
  ports: readonly PortFacts[],
): ResolvedNetwork {
  const problems: Problem[] = [];
  const owners = new Map<string, string>();
  const missing = (path: string, selector: string, what: string) => {
    const there = ports.map(({ name, mac }) => `${name} (${mac})`).join(", ");
    const message = `No interface '${selector}' for ${what}; there are: ${there || "none"}.`;
    problems.push({ path, message });
  };

  const bonds = config.bonds.flatMap((bond, index) => {
    const found = bond.ports.flatMap((selector, at) => {
      const port = findPort(selector, ports);
      const path = `bonds.${index}.ports.${at}`;
      if (port === undefined) missing(path, selector, bond.name);
      const other = port === undefined ? undefined : owners.get(port.name);
      if (port === undefined || other === bond.name) return [];
      if (other !== undefined) {
        problems.push({ path, message: usedTwice(port.name, other) });
        return [];
      }
      owners.set(port.name, bond.name);
      return [port];
    });
    return found.length === 0 ? [] : [bondBase(bond, found)];
  });
  const { lan, backplane, netboot } = config;
  const onLanPort = sharesLanPort(config);
  const netbootOnLan = netboot !== undefined && sameSelector(netboot.interface, lan.interface);
  // An interface named outright is taken before `first` chooses.
  const selectors = [lan.interface, onLanPort ? undefined : backplane?.interface];
  const named = [...selectors, netboot?.interface].flatMap((selector) =>
    selector === undefined || selector === "first" ? [] : (findPort(selector, ports)?.name ?? []),
  );
  const roles: Partial<Record<NetworkRole, string>> = {};
  const placed = new Map<string, { readonly base: Base; readonly networks: Placed[] }>();
  const baseOf = (role: NetworkRole, selector: string): Base | undefined => {
    const bond = bonds.find(({ name }) => name === selector);
    if (bond !== undefined) return bond;
    const chosen = [...placed.keys()];
    const port = findPort(selector, ports, [...owners.keys(), ...named, ...chosen]);
    if (port === undefined) {
      missing(`${role}.interface`, selector, roleNames[role]);
      return undefined;
    }
    const owner = owners.get(port.name);
    if (owner === undefined) return { ...port, ports: [port] };
    problems.push({ path: `${role}.interface`, message: usedTwice(port.name, owner) });
    return undefined;
  };
  const place = (role: NetworkRole, base: Base | undefined, vlan?: number, mtu?: number) => {
    if (base === undefined) return;
    const entry = placed.get(base.name) ?? { base, networks: [] };
    const other = entry.networks.find((network) => network.vlan === vlan);
    if (other !== undefined) {
      const message = usedTwice(base.name, roleNames[other.role]);
      problems.push({ path: `${role}.interface`, message });
      return;
    }
    entry.networks.push({ role, vlan, mtu });
    placed.set(base.name, entry);
    // A VLAN's interface has the name of its role.
    roles[role] = vlan === undefined ? base.name : role;
  };
  const lanBase = baseOf("lan", lan.interface);
  place("lan", lanBase, lan.vlan, lan.mtu);
  if (backplane !== undefined) {
    const base = onLanPort ? lanBase : baseOf("backplane", backplane.interface);
    place("backplane", base, backplane.vlan, backplane.mtu);
  }
  if (netboot !== undefined && !netbootOnLan)
    place("netboot", baseOf("netboot", netboot.interface));
  if (netbootOnLan && roles.lan !== undefined) roles.netboot = roles.lan;

  const links = [...placed.values()].map(({ base, networks }) => {
    const asked = portMtu(networks);
    for (const port of base.ports) {
      if (asked === undefined || port.mtuMax === undefined || asked <= port.mtuMax) continue;
      const { role } = networks.find(({ mtu }) => mtu === asked) ?? networks[0];
      const message = `${asked} is above what ${port.name} can do, ${port.mtuMax}`;
      problems.push({ path: `${role}.mtu`, message });
    }
    const mtu = Math.min(asked ?? mtuDefault, ...base.ports.flatMap(({ mtuMax }) => mtuMax ?? []));
    for (const { role, vlan, mtu: wanted } of networks) {
      if (vlan === undefined || wanted === undefined || wanted <= (asked ?? mtuDefault)) continue;
      const message = `${wanted} is above the ${asked ?? mtuDefault} of ${base.name} that carries it`;
      problems.push({ path: `${role}.mtu`, message });
    }
    return {
      ...{ name: base.name, mac: base.mac, bond: base.bond, mtu },
      untagged: networks.flatMap(({ role, vlan }) => (vlan === undefined ? [role] : [])),
      tagged: networks.flatMap((network) =>
        network.vlan === undefined
          ? []
          : [
              {
                name: network.role,
                vlan: network.vlan,
                mtu: Math.min(network.mtu ?? mtuDefault, mtu),
              },
            ],
      ),
    };
  });
  return { links, roles, problems };
}

const roleNames = { lan: "the LAN", backplane: "the backplane", netboot: "netboot" } as const;

function usedTwice(name: string, owner: string): string {
  return `${name} is used twice; ${owner} has it already`;
}

/** A bond shows its primary port's address, so that a lease stays when a port becomes a bond. */
function bondBase(config: BondConfig, ports: readonly PortFacts[]): Base {
  const wanted = findPort(config.primary ?? config.ports[0], ports);
  const primary = wanted ?? ports[0];
  return {
    name: config.name,
    mac: primary.mac,
    ports,
    bond: { ports, primary, miimonMs: config.miimonMs },
  };
}
