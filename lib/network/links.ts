/** The machine's links as iproute2 shows them: `ip -json -details address show`. Pure. */
import type { PortFacts } from "./resolve.ts";

export interface LinkState {
  readonly name: string;
  /** `port`: hardware; else what the kernel calls it: bond, vlan, veth. */
  readonly kind: string;
  readonly mac: string;
  /** MAC address it was made with, which a bond may have replaced. */
  readonly permanentMac: string;
  /** Switched on by whoever configures it. */
  readonly up: boolean;
  /** A cable with something at its other end. */
  readonly carrier: boolean;
  /** Undefined: not known. */
  readonly speedMbps?: number | undefined;
  readonly mtu: number;
  readonly mtuMax: number | undefined;
  /** With prefix length; link-local ones of IPv6 left out. */
  readonly addresses: readonly LinkAddress[];
  readonly bond: BondState | undefined;
  readonly vlan: { readonly id: number; readonly parent: string } | undefined;
  /** Bond that has it as a port. */
  readonly master: string | undefined;
}

export interface LinkAddress {
  readonly address: string;
  /** From DHCP or router advertisements. */
  readonly dynamic: boolean;
}

export interface BondState {
  readonly mode: string;
  /** Port that carries the traffic; undefined: none has a link. */
  readonly activePort: string | undefined;
  readonly primary: string | undefined;
  readonly miimonMs: number;
}

interface IpLink {
  readonly ifname: string;
  readonly link?: string;
  readonly link_type: string;
  readonly flags: readonly string[];
  readonly address?: string;
  readonly permaddr?: string;
  readonly mtu: number;
  readonly max_mtu?: number;
  readonly master?: string;
  readonly linkinfo?: {
    readonly info_kind?: string;
    readonly info_data?: {
      readonly id?: number;
      readonly mode?: string;
      readonly active_slave?: string;
      readonly primary?: string;
      readonly miimon?: number;
    };
    readonly info_slave_data?: { readonly perm_hwaddr?: string };
  };
  readonly addr_info?: readonly {
    readonly family: string;
    readonly local?: string;
    readonly prefixlen: number;
    readonly scope: string;
    readonly dynamic?: boolean;
  }[];
}

/** Links that are Ethernet; the loopback is not. */
export function readLinks(json: string): LinkState[] {
  const links = JSON.parse(json) as IpLink[];
  return links.filter(({ link_type }) => link_type === "ether").map(linkState);
}

function linkState(link: IpLink): LinkState {
  const { linkinfo, flags } = link;
  const kind = linkinfo?.info_kind ?? "port";
  const details = linkinfo?.info_data;
  const mac = link.address ?? "";
  return {
    name: link.ifname,
    kind,
    mac,
    permanentMac: linkinfo?.info_slave_data?.perm_hwaddr ?? link.permaddr ?? mac,
    up: flags.includes("UP"),
    carrier: flags.includes("LOWER_UP"),
    mtu: link.mtu,
    mtuMax: (link.max_mtu ?? 0) > 0 ? link.max_mtu : undefined,
    addresses: (link.addr_info ?? [])
      .filter(({ scope, local }) => scope === "global" && local !== undefined)
      .map(({ local, prefixlen, dynamic }) => ({
        address: `${local}/${prefixlen}`,
        dynamic: dynamic === true,
      })),
    bond:
      kind === "bond"
        ? {
            mode: details?.mode ?? "",
            activePort: details?.active_slave,
            primary: details?.primary,
            miimonMs: details?.miimon ?? 0,
          }
        : undefined,
    vlan: kind === "vlan" ? { id: details?.id ?? 0, parent: link.link ?? "" } : undefined,
    master: link.master,
  };
}

/** The links that a configuration may name, in the order of their names' numbers. */
export function portsOf(
  links: readonly LinkState[],
  kinds: readonly string[] = ["port"],
): PortFacts[] {
  return links
    .filter(({ kind }) => kinds.includes(kind))
    .map(({ name, permanentMac, mtuMax }) => ({ name, mac: permanentMac, mtuMax }))
    .sort((a, b) => a.name.localeCompare(b.name, "en", { numeric: true }));
}
