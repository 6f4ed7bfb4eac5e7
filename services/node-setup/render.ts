/**
 * node.json and the machine's interfaces to the files of this boot (docs/formats/node.md). Pure.
 */
import type { NodeConfig } from "#lib/answer-file/node-config.ts";
import { type InterfaceFacts, resolveInterface } from "./interfaces.ts";

export interface RenderedFile {
  readonly path: string;
  readonly content: string;
  readonly mode: number;
  /** User and group that own it; root if undefined. */
  readonly owner?: string;
}

export interface RenderedNode {
  readonly files: readonly RenderedFile[];
  readonly lan: InterfaceFacts | undefined;
  readonly netboot: InterfaceFacts | undefined;
  /** What could not be done as configured, for the screen. */
  readonly warnings: readonly string[];
}

export interface RenderFacts {
  readonly interfaces: readonly InterfaceFacts[];
  readonly version: string;
}

const networkFolder = "/run/systemd/network";

export function renderNode(config: NodeConfig, facts: RenderFacts): RenderedNode {
  const warnings: string[] = [];
  const { lan, netboot } = config.network;
  const find = (selector: string, what: string, taken: readonly string[] = []) => {
    const found = resolveInterface(selector, facts.interfaces, taken);
    if (found === undefined) {
      const there = facts.interfaces.map(({ name, mac }) => `${name} (${mac})`).join(", ");
      warnings.push(`No interface '${selector}' for ${what}; there are: ${there || "none"}.`);
    }
    return found;
  };
  const shared = netboot !== undefined && netboot.interface === lan.interface;
  // An interface named outright is taken before `first` chooses.
  const named = [lan.interface, netboot?.interface]
    .filter((selector) => selector !== undefined && selector !== "first")
    .flatMap((selector) => resolveInterface(selector!, facts.interfaces)?.name ?? []);
  const lanInterface = find(lan.interface, "the LAN", named);
  const netbootInterface =
    netboot === undefined
      ? undefined
      : shared
        ? lanInterface
        : find(
            netboot.interface,
            "netboot",
            lanInterface === undefined ? named : [lanInterface.name],
          );
  const files: RenderedFile[] = [];
  if (lanInterface !== undefined) {
    files.push(networkFile("10-keelson-lan", lanInterface, lanLines(config)));
  }
  if (netboot?.address !== undefined && netbootInterface !== undefined && !shared) {
    files.push(
      networkFile("20-keelson-netboot", netbootInterface, [
        "[Network]",
        `Address=${netboot.address}`,
        "LinkLocalAddressing=no",
        "IPv6AcceptRA=no",
        // The services bind this address before a cable is in.
        "ConfigureWithoutCarrier=yes",
      ]),
    );
  }
  files.push({
    path: "/run/keelson/admin.hash",
    content: `${config.adminHash}\n`,
    mode: 0o400,
    owner: "keelson-api",
  });
  const ready = netboot !== undefined && netbootInterface !== undefined;
  if (ready) files.push({ path: "/run/keelson/netboot.enabled", content: "", mode: 0o644 });
  files.push({
    path: "/run/keelson/node.env",
    content: environmentText(
      environment(config, facts, lanInterface, ready ? netbootInterface : undefined),
    ),
    mode: 0o644,
  });
  return { files, lan: lanInterface, netboot: netbootInterface, warnings };
}

function networkFile(name: string, link: InterfaceFacts, lines: readonly string[]): RenderedFile {
  return {
    path: `${networkFolder}/${name}.network`,
    // By MAC and kind: a bridge or VLAN on top has the same address.
    content: ["[Match]", `PermanentMACAddress=${link.mac}`, "", ...lines, ""].join("\n"),
    mode: 0o644,
  };
}

function lanLines(config: NodeConfig): string[] {
  const { lan } = config.network;
  const servers = [
    ...lan.dns.map((server) => `DNS=${server}`),
    // networkd hands them to timesyncd; they come before what DHCP says.
    ...(config.ntp.length > 0 ? [`NTP=${config.ntp.join(" ")}`] : []),
  ];
  if (lan.address === "dhcp") {
    return [
      ...["[Network]", "DHCP=yes", ...servers, ""],
      ...["[DHCPv4]", `Hostname=${config.name}`],
      // Given addresses of its own, the node does not take other servers on top.
      ...(lan.dns.length > 0 ? ["UseDNS=no"] : []),
    ];
  }
  return [
    "[Network]",
    `Address=${lan.address}`,
    ...(lan.gateway === undefined ? [] : [`Gateway=${lan.gateway}`]),
    ...servers,
    "ConfigureWithoutCarrier=yes",
  ];
}

function environment(
  config: NodeConfig,
  facts: RenderFacts,
  lan: InterfaceFacts | undefined,
  netbootLink: InterfaceFacts | undefined,
): Record<string, string> {
  const { netboot } = config.network;
  const lanAddress =
    config.network.lan.address === "dhcp" ? "" : config.network.lan.address.split("/")[0];
  const shared = netboot !== undefined && netboot.address === undefined;
  const [address, prefix] = shared
    ? [lanAddress, config.network.lan.address.split("/")[1] ?? ""]
    : (netboot?.address ?? "").split("/");
  return {
    KEELSON_NODE_NAME: config.name,
    KEELSON_NODE_ID: config.id,
    KEELSON_VERSION: facts.version,
    KEELSON_STORE_DEVICE: config.store.device,
    KEELSON_LAN_INTERFACE: lan?.name ?? "",
    KEELSON_LAN_ADDRESS: lanAddress,
    KEELSON_HTTPS_HOST: "::",
    KEELSON_HTTPS_PORT: "443",
    KEELSON_ADMIN_HASH_FILE: "/run/keelson/admin.hash",
    KEELSON_ISCSI_HOST: "0.0.0.0",
    KEELSON_ISCSI_PORT: "3260",
    KEELSON_PORTAL_ADDRESS: address || lanAddress,
    KEELSON_NETBOOT_MODE: netbootLink === undefined ? "off" : netboot!.mode,
    KEELSON_NETBOOT_INTERFACE: netbootLink?.name ?? "",
    KEELSON_NETBOOT_ADDRESS: netbootLink === undefined ? "" : address,
    KEELSON_NETBOOT_PREFIX: netbootLink === undefined ? "" : (prefix ?? ""),
    KEELSON_NETBOOT_POOL: netbootLink === undefined ? "" : (netboot!.pool ?? ""),
    KEELSON_NETBOOT_GATEWAY: netboot?.gateway ?? "",
    KEELSON_NETBOOT_DNS: (netboot?.dns ?? []).join(","),
    TZ: config.timeZone,
  };
}

/** Every value is of a set without quotes, blanks or line breaks: the schema sees to it. */
function environmentText(values: Record<string, string>): string {
  return Object.entries(values)
    .map(([name, value]) => `${name}=${value}\n`)
    .join("");
}
