/**
 * Resolved networks to the files of systemd-networkd (systemd.netdev(5), systemd.network(5)). Pure:
 * the same input gives the same bytes.
 */
import type { BaseLink, NetworkRole, ResolvedNetwork, ResolvedVlan } from "./resolve.ts";
import type { NetworkConfig } from "./schema.ts";

export interface NetworkFile {
  /** Without a folder; networkd reads them in the order of their names. */
  readonly name: string;
  readonly content: string;
}

export interface NetworkdInput {
  readonly config: NetworkConfig;
  readonly resolved: ResolvedNetwork;
  readonly hostName: string;
  /** Time servers for timesyncd; empty: what DHCP says. */
  readonly ntp: readonly string[];
}

type Section = readonly [name: string, ...lines: string[]];

/** Every file of the node's networks; nothing for a port that no network uses. */
export function renderNetworkd(input: NetworkdInput): NetworkFile[] {
  return input.resolved.links.flatMap((link) => [
    ...(link.bond === undefined ? [] : bondFiles(link)),
    baseFile(link, input),
    ...link.tagged.flatMap((vlan) => vlanFiles(vlan, input)),
  ]);
}

/** Names of the interfaces that these files make, by which they are removed when no longer wanted. */
export function madeLinks(files: readonly NetworkFile[]): Map<string, string> {
  return new Map(
    files
      .filter(({ name }) => name.endsWith(".netdev"))
      .map(({ content }) => [/^Name=(.*)$/m.exec(content)![1], content]),
  );
}

function bondFiles({ name, mac, bond, mtu }: BaseLink): NetworkFile[] {
  const { ports, primary, miimonMs } = bond!;
  return [
    file(`20-keelson-${name}.netdev`, [
      ["NetDev", `Name=${name}`, "Kind=bond", `MACAddress=${mac}`],
      [
        "Bond",
        "Mode=active-backup",
        `MIIMonitorSec=${miimonMs}ms`,
        // Back to the primary port as soon as it has a link again.
        "PrimaryReselectPolicy=always",
        // Switches learn the new way at once, not with the next frame that happens to be sent.
        "GratuitousARP=3",
        // A bond with other ports is another bond: it is made anew, and this line shows it.
        `# Ports: ${ports.map(({ mac }) => mac).join(" ")}`,
      ],
    ]),
    ...ports.map((port) =>
      file(`20-keelson-${port.name}.network`, [
        ["Match", `PermanentMACAddress=${port.mac}`],
        ["Link", `MTUBytes=${mtu}`],
        ["Network", `Bond=${name}`, ...(port === primary ? ["PrimarySlave=yes"] : [])],
      ]),
    ),
  ];
}

function baseFile(link: BaseLink, input: NetworkdInput): NetworkFile {
  const { name, mac, bond, mtu, untagged, tagged } = link;
  const vlans = tagged.map((vlan) => `VLAN=${vlan.name}`);
  // By MAC and kind: a bond or VLAN on top has the same address.
  const match: Section = [
    "Match",
    bond === undefined ? `PermanentMACAddress=${mac}` : `Name=${name}`,
  ];
  const role = untagged[0];
  const sections = role === undefined ? [carrierOnly()] : roleSections(role, input);
  const [[network, ...lines], ...others] = sections;
  return file(`30-keelson-${name}.network`, [
    match,
    ["Link", `MTUBytes=${mtu}`],
    [network, ...lines, ...vlans],
    ...others,
  ]);
}

function vlanFiles({ name, vlan, mtu }: ResolvedVlan, input: NetworkdInput): NetworkFile[] {
  return [
    file(`40-keelson-${name}.netdev`, [
      ["NetDev", `Name=${name}`, "Kind=vlan"],
      ["VLAN", `Id=${vlan}`],
    ]),
    file(`40-keelson-${name}.network`, [
      ["Match", `Name=${name}`],
      ["Link", `MTUBytes=${mtu}`],
      ...roleSections(name as NetworkRole, input),
    ]),
  ];
}

/** A port that only carries VLANs has no address of its own, not even a link-local one. */
function carrierOnly(): Section {
  return ["Network", "LinkLocalAddressing=no", "IPv6AcceptRA=no"];
}

function roleSections(role: NetworkRole, input: NetworkdInput): Section[] {
  if (role === "lan") return lanSections(input);
  const address = input.config[role]?.address;
  return [
    [
      "Network",
      ...(address === undefined ? [] : [`Address=${address}`]),
      "LinkLocalAddressing=no",
      "IPv6AcceptRA=no",
      // The services bind this address before a cable is in.
      "ConfigureWithoutCarrier=yes",
    ],
  ];
}

function lanSections({ config, hostName, ntp }: NetworkdInput): Section[] {
  const { lan } = config;
  const servers = [
    ...lan.dns.map((server) => `DNS=${server}`),
    // networkd hands them to timesyncd; they come before what DHCP says.
    ...(ntp.length > 0 ? [`NTP=${ntp.join(" ")}`] : []),
  ];
  if (lan.address === "dhcp") {
    return [
      ["Network", "DHCP=yes", ...servers],
      [
        "DHCPv4",
        `Hostname=${hostName}`,
        // The node's name is its own; asking for another also starts a service to be refused by.
        "UseHostname=no",
        // Given addresses of its own, the node does not take other servers on top.
        ...(lan.dns.length > 0 ? ["UseDNS=no"] : []),
      ],
    ];
  }
  return [
    [
      "Network",
      `Address=${lan.address}`,
      ...(lan.gateway === undefined ? [] : [`Gateway=${lan.gateway}`]),
      ...servers,
      "ConfigureWithoutCarrier=yes",
    ],
  ];
}

function file(name: string, sections: readonly Section[]): NetworkFile {
  const content = sections.map(([title, ...lines]) => [`[${title}]`, ...lines, ""].join("\n"));
  return { name, content: content.join("\n") };
}
