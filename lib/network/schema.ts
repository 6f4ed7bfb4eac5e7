/**
 * The networks of a node, version 1: the LAN (console, API, iSCSI), the backplane (nodes among
 * themselves), netboot (machines without disks), and the bonds below them. The answer file, the
 * node's configuration, the wizard and the API all take this.
 *
 *     ports        enp1s0   enp2s0      enp3s0
 *                     \       /            |
 *     bonds             bond0              |
 *                      /     \             |
 *     networks      lan   backplane     netboot
 *                         (VLAN 20)
 */
import { z } from "zod";
import { parseMacAddress } from "#lib/model/ids.ts";
import { checkNetworks, type Problem } from "./check.ts";
import { address, addressWithPrefix, interfaceName, known, port, text, whole } from "./fields.ts";
import { parsePool } from "./ipv4.ts";

/** Versions of the form that this program reads. */
export const networkConfigVersion = 1;

export const mtuMin = 1280;
export const mtuMax = 9216;

const vlan = whole("a VLAN number from 1 to 4094", 1, 4094);
const mtu = whole(`an MTU from ${mtuMin} (IPv6's least) to ${mtuMax} bytes`, mtuMin, mtuMax);
const servers = z.array(address, { error: "must be a list of IPv4 addresses" });

const bond = known({
  name: text('a bond\'s name: "bond" and up to 8 digits or letters, such as "bond0"', (value) =>
    isBondName(value),
  ),
  /** The first is the primary one unless `primary` says otherwise. */
  ports: z
    .array(port, { error: "must be a list of ports" })
    .min(2, { error: "must have at least 2 ports: with one there is nothing to fail over to" })
    .max(8, { error: "must have at most 8 ports" }),
  mode: z
    .literal("active-backup", {
      error: 'must be "active-backup": one port carries all, the others wait; any switch will do',
    })
    .default("active-backup"),
  /** Carries the traffic whenever it has a link. */
  primary: port.optional(),
  /** How often the link of each port is looked at, in milliseconds. */
  miimonMs: whole("a number of milliseconds from 10 to 10000", 10, 10_000).default(100),
});

const lan = known({
  interface: interfaceName.default("first"),
  vlan: vlan.optional(),
  address: z
    .union([z.literal("dhcp"), addressWithPrefix], {
      error: 'must be "dhcp", or an IPv4 address with its prefix length, such as "192.0.2.10/24"',
    })
    .default("dhcp"),
  gateway: address.optional(),
  dns: servers.default([]),
  mtu: mtu.optional(),
});

const backplane = known({
  /** `lan`: the LAN's own port or bond, and then a VLAN of it. */
  interface: text(
    '"lan" (a VLAN on the LAN\'s port), a bond, an interface name, or a MAC address',
    (value) => value !== "first" && interfaceName.safeParse(value).success,
  ).default("lan"),
  vlan: vlan.optional(),
  address: addressWithPrefix,
  mtu: mtu.optional(),
});

const netboot = known({
  interface: interfaceName,
  mode: z.enum(["server", "proxy"], {
    error: 'must be "server" (this node is the DHCP server) or "proxy" (beside another one)',
  }),
  address: addressWithPrefix.optional(),
  pool: text(
    'a range of addresses such as "10.77.0.100-10.77.0.199"',
    (value) => parsePool(value) !== undefined,
  ).optional(),
  gateway: address.optional(),
  dns: servers.default([]),
});

/** The form alone, for schemas that it is part of and that give `checkNetworks` their own path. */
export const networkShape = known({
  bonds: z.array(bond, { error: "must be a list of bonds" }).max(8).default([]),
  lan: lan.prefault({}),
  backplane: backplane.optional(),
  netboot: netboot.optional(),
});

/** Form and sense of a node's networks. */
export const networkConfig = networkShape.superRefine((value, context) => {
  for (const { path, message } of checkNetworks(value)) {
    context.addIssue({ code: "custom", path: path.split("."), message, input: undefined });
  }
});

/** Checked, defaults filled in. */
export type NetworkConfig = z.output<typeof networkShape>;
/** What a program that writes one gives. */
export type NetworkConfigInput = z.input<typeof networkShape>;
export type BondConfig = NetworkConfig["bonds"][number];
export type LanConfig = NetworkConfig["lan"];
export type BackplaneConfig = NonNullable<NetworkConfig["backplane"]>;
export type NetbootConfig = NonNullable<NetworkConfig["netboot"]>;

export type NetworkCheck =
  | { readonly ok: true; readonly config: NetworkConfig }
  | { readonly ok: false; readonly problems: readonly Problem[] };

/** Everything that is wrong with `value`, by path, or the checked configuration. */
export function checkNetworkConfig(value: unknown): NetworkCheck {
  const result = networkConfig.safeParse(value);
  if (result.success) return { ok: true, config: result.data };
  return {
    ok: false,
    problems: result.error.issues.map((issue) => ({
      path: issue.path.join("."),
      message: issue.message,
    })),
  };
}

export function isBondName(value: string): boolean {
  return /^bond[a-z0-9]{1,8}$/.test(value) && parseMacAddress(value) === undefined;
}
