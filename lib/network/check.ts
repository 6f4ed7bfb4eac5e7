/** What no single field shows: networks against each other. Pure, without the machine. */
import { parseMacAddress } from "#lib/model/ids.ts";
import {
  type Ipv4Subnet,
  parseIpv4,
  parseIpv4Subnet,
  parsePool,
  subnetContains,
  subnetsOverlap,
} from "./ipv4.ts";
import type { NetworkConfig } from "./schema.ts";

export interface Problem {
  /** `lan.gateway`, `bonds.0.ports.1`; empty for the whole. */
  readonly path: string;
  readonly message: string;
}

type Refuse = (path: string, message: string) => void;

/** Every fault; none when the networks fit together. Fields are of their form already. */
export function checkNetworks(config: NetworkConfig): Problem[] {
  const problems: Problem[] = [];
  const refuse: Refuse = (path, message) => problems.push({ path, message });
  checkBonds(config, refuse);
  checkLan(config, refuse);
  checkBackplane(config, refuse);
  checkNetboot(config, refuse);
  return problems;
}

/** Two selectors that are the same text or the same MAC address. */
export function sameSelector(left: string, right: string): boolean {
  const mac = parseMacAddress(left);
  return left === right || (mac !== undefined && mac === parseMacAddress(right));
}

/** True if the backplane is a VLAN on the port or bond that the LAN has. */
export function sharesLanPort({ lan, backplane }: NetworkConfig): boolean {
  if (backplane === undefined) return false;
  return backplane.interface === "lan" || sameSelector(backplane.interface, lan.interface);
}

/** What an MTU is where nobody says. */
export const mtuDefault = 1500;

/** The port's MTU that its networks ask for; `undefined`: none of them says. */
export function portMtu(
  networks: readonly { readonly vlan?: number | undefined; readonly mtu?: number | undefined }[],
): number | undefined {
  const untagged = networks.find(({ vlan }) => vlan === undefined);
  if (untagged !== undefined) return untagged.mtu;
  if (networks.every(({ mtu }) => mtu === undefined)) return undefined;
  return Math.max(...networks.map(({ mtu }) => mtu ?? mtuDefault));
}

function checkBonds({ bonds, lan, backplane, netboot }: NetworkConfig, refuse: Refuse): void {
  const owners: { readonly port: string; readonly bond: string }[] = [];
  bonds.forEach(({ name, ports, primary }, index) => {
    const path = `bonds.${index}`;
    if (bonds.findIndex((other) => other.name === name) !== index) {
      refuse(`${path}.name`, `${name} is there twice`);
    }
    ports.forEach((port, at) => {
      const owner = owners.find((each) => sameSelector(each.port, port));
      if (owner !== undefined) {
        refuse(`${path}.ports.${at}`, `${port} is used twice; ${owner.bond} has it already`);
      }
      owners.push({ port, bond: name });
    });
    if (primary !== undefined && !ports.some((port) => sameSelector(port, primary))) {
      refuse(`${path}.primary`, `${primary} is not one of its ports: ${ports.join(", ")}`);
    }
  });
  const names = bonds.map(({ name }) => name);
  const users: [string, string | undefined][] = [
    ["lan.interface", lan.interface],
    ["backplane.interface", backplane?.interface === "lan" ? undefined : backplane?.interface],
    ["netboot.interface", netboot?.interface],
  ];
  for (const [path, selector] of users) {
    if (selector === undefined) continue;
    const owner = owners.find(({ port }) => sameSelector(port, selector));
    if (owner !== undefined) {
      refuse(path, `${selector} is a port of ${owner.bond}; say ${owner.bond}`);
    }
    if (/^bond[a-z0-9]{1,8}$/.test(selector) && !names.includes(selector)) {
      refuse(path, `there is no ${selector}; bonds are: ${names.join(", ") || "none"}`);
    }
  }
  bonds.forEach(({ name }, index) => {
    if (!users.some(([, selector]) => selector === name)) {
      refuse(
        `bonds.${index}.name`,
        `no network uses ${name}; name it as an interface, or leave it out`,
      );
    }
  });
}

function checkLan({ lan }: NetworkConfig, refuse: Refuse): void {
  if (lan.gateway === undefined) return;
  if (lan.address === "dhcp") {
    refuse("lan.gateway", "is only allowed with a static address; DHCP gives the gateway");
    return;
  }
  const subnet = parseIpv4Subnet(lan.address);
  const gateway = parseIpv4(lan.gateway);
  if (subnet === undefined || gateway === undefined) return;
  if (!subnetContains(subnet, gateway)) {
    refuse("lan.gateway", `${lan.gateway} is not in the subnet of ${lan.address}`);
  } else if (gateway === subnet.address) {
    refuse("lan.gateway", `${lan.gateway} is this node's own address`);
  }
}

function checkBackplane(config: NetworkConfig, refuse: Refuse): void {
  const { lan, backplane, netboot } = config;
  if (backplane === undefined) return;
  if (sharesLanPort(config)) {
    if (backplane.vlan === undefined) {
      refuse("backplane.vlan", "is missing; on the LAN's port the backplane must be a tagged VLAN");
    } else if (backplane.vlan === lan.vlan) {
      refuse("backplane.vlan", `${backplane.vlan} is the LAN's; give the backplane one of its own`);
    }
    const most = portMtu([lan, backplane]) ?? mtuDefault;
    if (lan.vlan === undefined && (backplane.mtu ?? 0) > most) {
      refuse(
        "backplane.mtu",
        `${backplane.mtu} is above the ${most} of the LAN's port that carries it; raise lan.mtu, or use a port of its own`,
      );
    }
  }
  const subnet = parseIpv4Subnet(backplane.address);
  const others: [string, string | undefined][] = [
    ["the LAN", lan.address],
    ["netboot", netboot?.address],
  ];
  for (const [name, address] of others) {
    const message = overlapMessage(subnet, backplane.address, name, address ?? "");
    if (message !== undefined) refuse("backplane.address", message);
  }
  if (netboot === undefined || !sameSelector(netboot.interface, backplane.interface)) return;
  if (backplane.vlan === undefined) {
    refuse(
      "netboot.interface",
      `${netboot.interface} is used twice; the backplane has it already. A VLAN for the backplane lets both be there`,
    );
  } else if ((backplane.mtu ?? 0) > mtuDefault) {
    refuse(
      "backplane.mtu",
      `${backplane.mtu} is above the ${mtuDefault} of ${netboot.interface}, where netboot is too; use another port for one of them`,
    );
  }
}

function overlapMessage(
  subnet: Ipv4Subnet | undefined,
  own: string,
  name: string,
  address: string,
): string | undefined {
  const other = parseIpv4Subnet(address);
  if (subnet === undefined || other === undefined || !subnetsOverlap(subnet, other)) return;
  return `${own} overlaps with ${name}'s ${address}; give the backplane a subnet of its own`;
}

/**
 * The backplane against the addresses that DHCP gave the LAN, which no configuration shows.
 * `lanAddresses` with prefix lengths; those of IPv6 are passed over.
 */
export function checkAgainstLan(
  { backplane }: Pick<NetworkConfig, "backplane">,
  lanAddresses: readonly string[],
): Problem[] {
  if (backplane === undefined) return [];
  const subnet = parseIpv4Subnet(backplane.address);
  return lanAddresses.flatMap((address) => {
    const message = overlapMessage(subnet, backplane.address, "the LAN", address);
    return message === undefined
      ? []
      : [{ path: "backplane.address", message: `${message} (DHCP gave it ${address})` }];
  });
}

function checkNetboot({ lan, netboot }: NetworkConfig, refuse: Refuse): void {
  if (netboot === undefined) return;
  const lanSubnet = lan.address === "dhcp" ? undefined : parseIpv4Subnet(lan.address);
  const shared = sameSelector(netboot.interface, lan.interface);
  if (shared && netboot.address !== undefined) {
    refuse("netboot.address", "this interface has the address of network.lan already");
  }
  if (!shared && netboot.address === undefined) {
    refuse("netboot.address", "is missing; an interface of its own needs an address");
  }
  if (netboot.mode === "proxy") {
    if (netboot.pool !== undefined) {
      refuse("netboot.pool", "is not allowed as proxy: the other server gives addresses");
    }
    return;
  }
  if (shared && lanSubnet === undefined) {
    refuse(
      "netboot.mode",
      'a DHCP server needs a static address on its interface: set network.lan.address, or use mode "proxy"',
    );
  }
  if (netboot.pool === undefined) {
    refuse("netboot.pool", "is missing; a DHCP server needs addresses to give");
    return;
  }
  const subnet = shared ? lanSubnet : parseIpv4Subnet(netboot.address ?? "");
  if (subnet !== undefined) checkPool(netboot.pool, subnet, refuse);
}

function checkPool(range: string, subnet: Ipv4Subnet, refuse: Refuse): void {
  const pool = parsePool(range);
  if (pool === undefined) return;
  if (!subnetContains(subnet, pool.first) || !subnetContains(subnet, pool.last)) {
    refuse("netboot.pool", `${range} is not in the subnet of this interface's address`);
  }
  if (subnet.address >= pool.first && subnet.address <= pool.last) {
    refuse("netboot.pool", `${range} holds this node's own address`);
  }
}
