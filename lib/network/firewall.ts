/**
 * The packet filter (nft(8)): what is declared is open on the networks it is declared for, and
 * nothing else. Pure; the text replaces the table as a whole, in one transaction.
 */
import type { PortDeclaration } from "./ports.ts";
import { type NetworkRole, networkRoles } from "./resolve.ts";

export const firewallTable = "keelson";

export interface FirewallInput {
  readonly declarations: readonly PortDeclaration[];
  /** Interface of each network; one that the node hasn't got is absent. */
  readonly roles: Partial<Readonly<Record<NetworkRole, string>>>;
  /** The LAN has its address from DHCP: its server's answers may come in. */
  readonly lanByDhcp: boolean;
}

/** A line of what is open, for people. */
export interface OpenPort {
  readonly service: string;
  readonly protocol: "tcp" | "udp";
  readonly port: number;
  readonly why: string;
  /** Interfaces it is open on; none if the node has no such network; null: on all. */
  readonly interfaces: readonly string[] | null;
  readonly networks: readonly string[];
  readonly newPerSecond: number | null;
}

export function openPorts({ declarations, roles }: FirewallInput): OpenPort[] {
  return declarations
    .flatMap(({ service, opens }) =>
      opens.map(({ protocol, port, networks, why, newPerSecond }) => ({
        ...{ service, protocol, port, why, networks },
        interfaces: networks.includes("any")
          ? null
          : unique(
              networkRoles
                .filter((role) => networks.includes(role))
                .flatMap((role) => roles[role] ?? []),
            ),
        newPerSecond: newPerSecond ?? null,
      })),
    )
    .sort((a, b) => a.port - b.port || a.protocol.localeCompare(b.protocol));
}

export function renderFirewall(input: FirewallInput): string {
  const open = openPorts(input).filter(({ interfaces }) => interfaces?.length !== 0);
  const limited = open.filter(({ newPerSecond }) => newPerSecond !== null);
  return `# Made by keelson-network; edits are lost. What a service opens stands in ports.d.
table inet ${firewallTable} {}
delete table inet ${firewallTable}
table inet ${firewallTable} {
${limited.flatMap(limitSets).join("")}  chain input {
    type filter hook input priority filter; policy drop;
    ct state established,related accept
    ct state invalid drop
    iif "lo" accept
    # An address is reached by its own interface only, or the backplane would answer on the LAN.
    fib daddr . iif type != { local, broadcast, multicast } drop
    icmp type { destination-unreachable, time-exceeded, parameter-problem } accept
    icmp type echo-request limit rate 200/second burst 400 packets accept
    icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem } accept
    icmpv6 type echo-request limit rate 200/second burst 400 packets accept
    # Neighbours, routers and group membership come from the link itself (RFC 4890 section 4.4.1).
    icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit, nd-router-advert, nd-redirect } ip6 hoplimit 255 accept
    icmpv6 type { mld-listener-query, mld-listener-report, mld-listener-done, mld2-listener-report } accept
${dhcpLines(input).join("")}${open.flatMap(openLines).join("")}    # As if nothing listened: a scan can't tell a closed port from one that is kept closed.
    meta pkttype host meta l4proto tcp reject with tcp reset
    meta pkttype host reject with icmpx type port-unreachable
  }
  chain forward {
    type filter hook forward priority filter; policy drop;
  }
}
`;
}

/** Answers of the LAN's DHCP server: to a broadcast or a group, so no connection is known. */
function dhcpLines({ roles, lanByDhcp }: FirewallInput): string[] {
  if (!lanByDhcp || roles.lan === undefined) return [];
  return [
    `    iifname "${roles.lan}" udp sport 67 udp dport 68 accept\n`,
    `    iifname "${roles.lan}" ip6 saddr fe80::/10 udp sport 547 udp dport 546 accept\n`,
  ];
}

function setName({ protocol, port }: OpenPort, family: 4 | 6): string {
  return `new_${protocol}_${port}_ip${family}`;
}

function limitSets(open: OpenPort): string[] {
  const set = (family: 4 | 6, type: string) =>
    `  set ${setName(open, family)} {\n    type ${type}\n    size 8192\n    flags dynamic,timeout\n    timeout 1m\n  }\n`;
  return [set(4, "ipv4_addr"), set(6, "ipv6_addr")];
}

function openLines(open: OpenPort): string[] {
  const { protocol, port, interfaces, service, newPerSecond } = open;
  const names = interfaces?.map((name) => `"${name}"`) ?? [];
  const from = names.length === 0 ? "" : `iifname { ${names.join(", ")} } `;
  const limit = (family: 4 | 6, source: string) =>
    `    ${from}${protocol} dport ${port} ct state new update @${setName(open, family)} { ${source} limit rate over ${newPerSecond}/second burst ${2 * newPerSecond!} packets } drop\n`;
  return [
    ...(newPerSecond === null ? [] : [limit(4, "ip saddr"), limit(6, "ip6 saddr")]),
    `    ${from}${protocol} dport ${port} accept comment "${service}"\n`,
  ];
}

function unique(names: readonly string[]): string[] {
  return [...new Set(names)];
}
