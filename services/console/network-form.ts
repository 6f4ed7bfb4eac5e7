/**
 * The node's networks as fields: the wizard's pages and the status screen's menu are the same.
 * Field ids are places in the network configuration where they can be. Pure.
 */
import { parseMacAddress } from "#lib/model/ids.ts";
import { checkAgainstLan } from "#lib/network/check.ts";
import {
  checkNetworkConfig,
  type NetworkConfig,
  type NetworkConfigInput,
} from "#lib/network/schema.ts";
import type { Field } from "./form.ts";

export type Values = Readonly<Record<string, string>>;

export interface PortView {
  readonly name: string;
  readonly mac: string;
  readonly carrier: boolean;
}

export const initialNetwork: Values = {
  port: "first",
  secondPort: "",
  "lan.vlan": "",
  mode: "dhcp",
  "lan.address": "",
  "lan.gateway": "",
  "lan.dns": "",
  "lan.mtu": "",
  backplane: "none",
  backplanePort: "",
  "backplane.vlan": "",
  "backplane.address": "",
  "backplane.mtu": "",
};

const bondName = "bond0";

/** `a, b c` to its words. */
export function wordsOf(text: string | undefined): string[] {
  return (text ?? "").split(/[\s,]+/).filter((word) => word !== "");
}

/** A number where it is one; else the text, which the schema refuses with its message. */
function numberOf(text: string | undefined): { value?: number } {
  const typed = text?.trim() ?? "";
  if (typed === "") return {};
  return { value: (/^\d{1,9}$/.test(typed) ? Number(typed) : typed) as number };
}

/** What is typed as a configuration; `base` keeps what has no field here (netboot). */
export function networkOf(values: Values, base: NetworkConfigInput = {}): NetworkConfigInput {
  const fixed = values.mode === "static";
  const bonded = hasSecondPort(values);
  const gateway = values["lan.gateway"]?.trim() ?? "";
  const dns = wordsOf(values["lan.dns"]);
  const vlan = numberOf(values["lan.vlan"]);
  const mtu = numberOf(values["lan.mtu"]);
  const kept = base.bonds?.filter(({ name }) => name !== bondName) ?? [];
  const bonds = bonded
    ? [...kept, { name: bondName, ports: [values.port ?? "", values.secondPort ?? ""] }]
    : kept;
  const backplane = backplaneOf(values);
  return {
    ...(bonds.length > 0 ? { bonds } : {}),
    lan: {
      interface: bonded ? bondName : values.port || "first",
      ...(vlan.value === undefined ? {} : { vlan: vlan.value }),
      address: fixed ? (values["lan.address"]?.trim() ?? "") : "dhcp",
      ...(fixed && gateway !== "" ? { gateway } : {}),
      ...(dns.length > 0 ? { dns } : {}),
      ...(mtu.value === undefined ? {} : { mtu: mtu.value }),
    },
    ...(backplane === undefined ? {} : { backplane }),
    ...(base.netboot === undefined ? {} : { netboot: base.netboot }),
  };
}

export function hasSecondPort(values: Values): boolean {
  return values.port !== "first" && values.port !== "" && (values.secondPort ?? "") !== "";
}

function backplaneOf(values: Values): NetworkConfigInput["backplane"] {
  if (values.backplane !== "vlan" && values.backplane !== "port") return undefined;
  const vlan = numberOf(values["backplane.vlan"]);
  const mtu = numberOf(values["backplane.mtu"]);
  return {
    interface: values.backplane === "vlan" ? "lan" : (values.backplanePort ?? ""),
    ...(vlan.value === undefined ? {} : { vlan: vlan.value }),
    address: values["backplane.address"]?.trim() ?? "",
    ...(mtu.value === undefined ? {} : { mtu: mtu.value }),
  };
}

/** The fields' texts for a configuration that is there. */
export function valuesOf(config: NetworkConfig, ports: readonly PortView[]): Values {
  const { bonds, lan, backplane } = config;
  const bond = bonds.find(({ name }) => name === lan.interface);
  const first = bond?.primary ?? bond?.ports[0];
  const second = bond?.ports.find((each) => each !== first);
  const number = (value: number | undefined) => (value === undefined ? "" : String(value));
  return {
    ...initialNetwork,
    port: selectorOf(first ?? lan.interface, ports),
    secondPort: second === undefined ? "" : selectorOf(second, ports),
    "lan.vlan": number(lan.vlan),
    mode: lan.address === "dhcp" ? "dhcp" : "static",
    "lan.address": lan.address === "dhcp" ? "" : lan.address,
    "lan.gateway": lan.gateway ?? "",
    "lan.dns": lan.dns.join(" "),
    "lan.mtu": number(lan.mtu),
    backplane: backplane === undefined ? "none" : backplane.interface === "lan" ? "vlan" : "port",
    backplanePort:
      backplane === undefined || backplane.interface === "lan"
        ? ""
        : selectorOf(backplane.interface, ports),
    "backplane.vlan": number(backplane?.vlan),
    "backplane.address": backplane?.address ?? "",
    "backplane.mtu": number(backplane?.mtu),
  };
}

/** Ports are listed by MAC address: names may change with cards that come and go. */
function selectorOf(selector: string, ports: readonly PortView[]): string {
  const mac = parseMacAddress(selector);
  const found = ports.find(
    (port) => port.name === selector || (mac !== undefined && parseMacAddress(port.mac) === mac),
  );
  return found?.mac ?? selector;
}

/**
 * What is wrong, by field id, the first message of each. `lanAddresses` are those that the LAN has
 * now, with prefix length: with DHCP, only they show that the backplane overlaps.
 */
export function networkProblems(
  config: NetworkConfigInput,
  lanAddresses: readonly string[],
): Record<string, string> {
  const problems: Record<string, string> = {};
  const checked = checkNetworkConfig(config);
  const list = checked.ok
    ? checked.config.lan.address === "dhcp"
      ? checkAgainstLan(checked.config, lanAddresses)
      : []
    : checked.problems;
  for (const { path, message } of list) problems[fieldOf(path, config)] ??= sentence(message);
  return problems;
}

function fieldOf(path: string, config: NetworkConfigInput): string {
  if (path.startsWith("bonds.")) return "secondPort";
  if (path === "lan.interface") return "port";
  if (path === "backplane.interface") {
    return config.backplane?.interface === "lan" ? "backplane" : "backplanePort";
  }
  return path.replace(/\.\d+.*$/, "");
}

export function sentence(message: string): string {
  const text = message.charAt(0).toUpperCase() + message.slice(1);
  return /[.!?]$/.test(text) ? text : `${text}.`;
}

const line = (text = "", bold = false): Field => ({ kind: "line", text, bold });

function portOption(id: string, { name, mac, carrier }: PortView): Field {
  const label = `${name.padEnd(12)} ${mac}  ${carrier ? "cable in" : "no link"}`;
  return { kind: "option", id, value: mac, label };
}

/** Ids of the LAN's page, for its problems. */
export const lanFields = [
  "port",
  "secondPort",
  "lan.vlan",
  "lan.address",
  "lan.gateway",
  "lan.dns",
  "lan.mtu",
];
export const backplaneFields = [
  "backplane",
  "backplanePort",
  "backplane.vlan",
  "backplane.address",
  "backplane.mtu",
];

export function lanPage(values: Values, ports: readonly PortView[]): Field[] {
  const fixed = values.mode === "static";
  const others = ports.filter(({ mac }) => mac !== values.port);
  const canBond = values.port !== "first" && others.length > 0;
  return [
    line("The LAN is where the browser, iSCSI and clients reach this node."),
    {
      kind: "choice",
      id: "mode",
      label: "Address",
      options: [
        { value: "dhcp", label: "by DHCP" },
        { value: "static", label: "fixed" },
      ],
    },
    ...(fixed
      ? [
          { kind: "text" as const, id: "lan.address", label: "Address/prefix" },
          { kind: "text" as const, id: "lan.gateway", label: "Gateway" },
        ]
      : []),
    { kind: "text", id: "lan.dns", label: "DNS servers" },
    { kind: "text", id: "lan.vlan", label: "VLAN number" },
    line(
      fixed
        ? "    Address such as 192.0.2.10/24. VLAN number empty: no tag."
        : "    Left empty: DNS servers as DHCP says, no VLAN tag.",
    ),
    line("Port:"),
    { kind: "option", id: "port", value: "first", label: "the first one" },
    ...ports.map((port) => portOption("port", port)),
    ...(canBond
      ? [
          line("Second port, that takes over when the first has no link (bond):"),
          { kind: "option" as const, id: "secondPort", value: "", label: "none" },
          ...others.map((port) => portOption("secondPort", port)),
        ]
      : []),
  ];
}

export function backplanePage(values: Values, ports: readonly PortView[]): Field[] {
  const kind = values.backplane;
  const taken = [values.port, ...(hasSecondPort(values) ? [values.secondPort] : [])];
  return [
    line(
      "The backplane carries what nodes say to each other. A single node needs none; it can be added later. Its subnet must not overlap the LAN's.",
    ),
    line(),
    {
      kind: "choice",
      id: "backplane",
      label: "Backplane",
      options: [
        { value: "none", label: "none" },
        { value: "vlan", label: "VLAN on the LAN's port" },
        { value: "port", label: "own port" },
      ],
    },
    ...(kind === "none"
      ? []
      : [
          { kind: "text" as const, id: "backplane.address", label: "Address/prefix" },
          { kind: "text" as const, id: "backplane.vlan", label: "VLAN number" },
          { kind: "text" as const, id: "backplane.mtu", label: "MTU" },
          line("    MTU: empty for 1500; 9000 where every switch on the way takes it."),
        ]),
    ...(kind === "port"
      ? [
          line("Port:"),
          ...ports
            .filter(({ mac }) => !taken.includes(mac))
            .map((port) => portOption("backplanePort", port)),
        ]
      : []),
  ];
}

/** Rows for a summary. */
export function networkRows(values: Values, ports: readonly PortView[]): [string, string][] {
  const name = (mac: string | undefined) => ports.find((port) => port.mac === mac)?.name ?? mac;
  const tag = (text: string | undefined) => ((text ?? "") === "" ? "" : `, VLAN ${text}`);
  const port = values.port === "first" ? "the first port" : (name(values.port) ?? "");
  const bond = hasSecondPort(values) ? `, then ${name(values.secondPort)}` : "";
  const fixed = values.mode === "static";
  const kind = values.backplane;
  return [
    ["LAN", `${port}${bond}${tag(values["lan.vlan"])}`],
    [
      "Address",
      fixed ? `${values["lan.address"]}, gateway ${values["lan.gateway"] || "none"}` : "by DHCP",
    ],
    ["DNS", values["lan.dns"] || (fixed ? "none" : "by DHCP")],
    [
      "Backplane",
      kind === "vlan" || kind === "port"
        ? `${values["backplane.address"]} on ${kind === "vlan" ? "the LAN's port" : name(values.backplanePort)}${tag(values["backplane.vlan"])}`
        : "none",
    ],
  ];
}
