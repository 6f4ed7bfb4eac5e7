/**
 * node.json and the machine's interfaces to the files of this boot (docs/formats/node.md). Pure.
 */
import type { NodeConfig } from "#lib/answer-file/node-config.ts";
import { type PortFacts, resolveNetwork } from "#lib/network/resolve.ts";
import type { NetworkConfig } from "#lib/network/schema.ts";
import type { NetworkHandover } from "#lib/network/stored.ts";

export interface RenderedFile {
  readonly path: string;
  readonly content: string;
  readonly mode: number;
  /** User and group that own it; root if undefined. */
  readonly owner?: string;
}

export interface RenderedNode {
  readonly files: readonly RenderedFile[];
  /** Name of the interface with the LAN's address, and of netboot's. */
  readonly lan: string | undefined;
  readonly netboot: string | undefined;
  /** What could not be done as configured, for the screen. */
  readonly warnings: readonly string[];
}

export interface RenderFacts {
  readonly ports: readonly PortFacts[];
  readonly version: string;
  /** Networks as changed and confirmed since the installation. */
  readonly confirmed?: NetworkConfig | undefined;
}

export function renderNode(config: NodeConfig, facts: RenderFacts): RenderedNode {
  const network = facts.confirmed ?? config.network;
  const { roles, problems } = resolveNetwork(network, facts.ports);
  const files: RenderedFile[] = [];
  const handover: NetworkHandover = {
    version: 1,
    ...{ hostName: config.name, ntp: config.ntp, network: config.network },
  };
  files.push({
    path: "/run/keelson/network.json",
    content: `${JSON.stringify(handover, undefined, 2)}\n`,
    mode: 0o644,
  });
  files.push({
    path: "/run/keelson/admin.hash",
    content: `${config.adminHash}\n`,
    mode: 0o400,
    owner: "keelson-api",
  });
  const ready = network.netboot !== undefined && roles.netboot !== undefined;
  if (ready) files.push({ path: "/run/keelson/netboot.enabled", content: "", mode: 0o644 });
  files.push({
    path: "/run/keelson/node.env",
    content: environmentText(
      environment(config, network, facts, { lan: roles.lan, netboot: roles.netboot }),
    ),
    mode: 0o644,
  });
  const warnings = problems.map(({ message }) => message);
  return { files, lan: roles.lan, netboot: roles.netboot, warnings };
}

function environment(
  config: NodeConfig,
  network: NetworkConfig,
  facts: RenderFacts,
  links: { readonly lan: string | undefined; readonly netboot: string | undefined },
): Record<string, string> {
  const { lan, netboot } = network;
  const lanAddress = lan.address === "dhcp" ? "" : lan.address.split("/")[0];
  const off = netboot === undefined || links.netboot === undefined;
  const shared = netboot !== undefined && netboot.address === undefined;
  const [address, prefix] = shared
    ? [lanAddress, lan.address.split("/")[1] ?? ""]
    : (netboot?.address ?? "").split("/");
  return {
    KEELSON_NODE_NAME: config.name,
    KEELSON_NODE_ID: config.id,
    KEELSON_VERSION: facts.version,
    KEELSON_STORE_DEVICE: config.store.device,
    KEELSON_LAN_INTERFACE: links.lan ?? "",
    KEELSON_LAN_ADDRESS: lanAddress,
    KEELSON_HTTPS_HOST: "::",
    KEELSON_HTTPS_PORT: "443",
    KEELSON_ADMIN_HASH_FILE: "/run/keelson/admin.hash",
    KEELSON_ISCSI_HOST: "0.0.0.0",
    KEELSON_ISCSI_PORT: "3260",
    KEELSON_PORTAL_ADDRESS: address || lanAddress,
    KEELSON_NETBOOT_MODE: off ? "off" : netboot.mode,
    KEELSON_NETBOOT_INTERFACE: links.netboot ?? "",
    KEELSON_NETBOOT_ADDRESS: off ? "" : address,
    KEELSON_NETBOOT_PREFIX: off ? "" : (prefix ?? ""),
    KEELSON_NETBOOT_POOL: off ? "" : (netboot.pool ?? ""),
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
