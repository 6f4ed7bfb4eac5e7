import { spawnSync } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { checkAgainstLan } from "./check.ts";
import { renderFirewall } from "./firewall.ts";
import { parseIpv4, parseIpv4Subnet, subnetsOverlap } from "./ipv4.ts";
import { madeLinks, renderNetworkd } from "./networkd.ts";
import { parsePortDeclaration } from "./ports.ts";
import { type PortFacts, resolveNetwork } from "./resolve.ts";
import { checkNetworkConfig, type NetworkConfig, type NetworkConfigInput } from "./schema.ts";

const ports: PortFacts[] = [
  { name: "enp1s0", mac: "52:54:00:00:00:01", mtuMax: 9216 },
  { name: "enp2s0", mac: "52:54:00:00:00:02", mtuMax: 9216 },
  { name: "enp3s0", mac: "52:54:00:00:00:03", mtuMax: 1500 },
];

function checked(value: NetworkConfigInput): NetworkConfig {
  const result = checkNetworkConfig(value);
  if (!result.ok) throw new Error(JSON.stringify(result.problems));
  return result.config;
}

const bond0 = { name: "bond0", ports: ["enp1s0", "enp2s0"] };
const netboot = {
  ...{ interface: "enp3s0", mode: "server" as const, address: "10.77.0.1/24" },
  pool: "10.77.0.100-10.77.0.199",
};
const lanStatic = { address: "192.0.2.10/24", gateway: "192.0.2.1", dns: ["192.0.2.1"] };

/** Name of its golden folder -> what is rendered into it. */
const goldens: Record<string, NetworkConfigInput> = {
  "dhcp-first": {},
  "static-lan-and-netboot": { lan: { interface: "enp1s0", ...lanStatic }, netboot },
  "netboot-on-the-lan": {
    lan: { interface: "enp1s0", ...lanStatic },
    netboot: { interface: "enp1s0", mode: "server", pool: "192.0.2.50-192.0.2.60" },
  },
  "bond-with-backplane-vlan": {
    bonds: [
      {
        ...bond0,
        ports: ["enp1s0", "52:54:00:00:00:02"],
        primary: "52-54-00-00-00-02",
        miimonMs: 50,
      },
    ],
    lan: { interface: "bond0", address: "dhcp", dns: ["9.9.9.9"], mtu: 9000 },
    backplane: { vlan: 20, address: "10.99.0.1/24", mtu: 9000 },
    netboot,
  },
  "one-port-all-tagged": {
    lan: { interface: "enp1s0", vlan: 10, ...lanStatic },
    backplane: { vlan: 20, address: "10.99.0.1/24", mtu: 4000 },
  },
  "netboot-beside-the-backplane": {
    bonds: [bond0],
    lan: { interface: "enp3s0" },
    backplane: { interface: "bond0", vlan: 20, address: "10.99.0.1/24" },
    netboot: { ...netboot, interface: "bond0" },
  },
  "backplane-port-of-its-own": {
    lan: { interface: "enp1s0" },
    backplane: { interface: "52:54:00:00:00:02", address: "10.99.0.1/24", mtu: 9216 },
  },
};

describe("golden files", () => {
  test.each(Object.entries(goldens))("%s", (name, input) => {
    const config = checked(input);
    const resolved = resolveNetwork(config, ports);
    expect(resolved.problems).toEqual([]);
    const files = renderNetworkd({ config, resolved, hostName: "k1", ntp: ["ntp.example"] });
    const made = [...files, { name: "keelson.nft", content: firewallOf(config) }];
    const folder = join(import.meta.dirname, "golden", name);
    if (process.env.KEELSON_UPDATE_GOLDEN !== undefined) {
      mkdirSync(folder, { recursive: true });
      for (const file of made) writeFileSync(join(folder, file.name), file.content);
    }
    expect(made.map((file) => file.name).sort()).toEqual(readdirSync(folder).sort());
    for (const file of made) {
      expect(file.content, file.name).toBe(readFileSync(join(folder, file.name), "utf8"));
    }
  });

  test("the interfaces that files make are known by name", () => {
    const config = checked(goldens["bond-with-backplane-vlan"]);
    const resolved = resolveNetwork(config, ports);
    const files = renderNetworkd({ config, resolved, hostName: "k1", ntp: [] });
    expect([...madeLinks(files).keys()]).toEqual(["bond0", "backplane"]);
    expect(resolved.roles).toEqual({ lan: "bond0", backplane: "backplane", netboot: "enp3s0" });
  });
});

function firewallOf(config: NetworkConfig): string {
  const folder = join(import.meta.dirname, "../../units/ports.d");
  const declarations = ["api.json", "iscsi-target.json", "netboot.json"].map((name) =>
    parsePortDeclaration(readFileSync(join(folder, name), "utf8"), name),
  );
  const { roles } = resolveNetwork(config, ports);
  return renderFirewall({ declarations, roles, lanByDhcp: config.lan.address === "dhcp" });
}

describe("what is refused, and how", () => {
  const backplane = { vlan: 20, address: "10.99.0.1/24" };
  test.each<[string, RegExp, unknown]>([
    ["lan.mtu", /not an MTU from 1280 \(IPv6's least\) to 9216 bytes/, { lan: { mtu: 1279 } }],
    ["lan.mtu", /9217 is not an MTU/, { lan: { mtu: 9217 } }],
    ["lan.vlan", /0 is not a VLAN number from 1 to 4094/, { lan: { vlan: 0 } }],
    ["lan.vlan", /4095 is not a VLAN number/, { lan: { vlan: 4095 } }],
    ["lan.vlan", /1\.5 is not a VLAN number/, { lan: { vlan: 1.5 } }],
    ["lan", /'speed' is not known here; known are: interface, vlan/, { lan: { speed: 1 } }],
    ["lan.gateway", /not in the subnet/, { lan: { ...lanStatic, gateway: "192.0.3.1" } }],
    ["lan.gateway", /this node's own/, { lan: { ...lanStatic, gateway: "192.0.2.10" } }],
    ["lan.gateway", /DHCP gives the gateway/, { lan: { gateway: "192.0.2.1" } }],
    ["bonds.0.ports", /at least 2 ports/, { bonds: [{ ...bond0, ports: ["enp1s0"] }] }],
    ["bonds.0.mode", /active-backup/, { bonds: [{ ...bond0, mode: "802.3ad" }] }],
    ["bonds.0.name", /a bond's name/, { bonds: [{ ...bond0, name: "team0" }] }],
    ["bonds.0.name", /no network uses bond0/, { bonds: [bond0] }],
    [
      "bonds.0.ports.1",
      /used twice; bond0 has it already/,
      { bonds: [{ ...bond0, ports: ["52:54:00:00:00:01", "52-54-00-00-00-01"] }] },
    ],
    [
      "bonds.1.ports.0",
      /enp2s0 is used twice; bond0 has it already/,
      { bonds: [bond0, { name: "bond1", ports: ["enp2s0", "enp3s0"] }] },
    ],
    [
      "bonds.0.primary",
      /enp3s0 is not one of its ports: enp1s0, enp2s0/,
      { bonds: [{ ...bond0, primary: "enp3s0" }], lan: { interface: "bond0" } },
    ],
    ["bonds.0.miimonMs", /milliseconds from 10/, { bonds: [{ ...bond0, miimonMs: 0 }] }],
    [
      "lan.interface",
      /enp1s0 is a port of bond0; say bond0/,
      { bonds: [bond0], lan: { interface: "enp1s0" } },
    ],
    ["lan.interface", /there is no bond1; bonds are: none/, { lan: { interface: "bond1" } }],
    ["backplane.vlan", /must be a tagged VLAN/, { backplane: { address: "10.99.0.1/24" } }],
    ["backplane.vlan", /20 is the LAN's/, { lan: { vlan: 20 }, backplane }],
    ["backplane.address", /is missing/, { backplane: { vlan: 20 } }],
    ["backplane.address", /not an IPv4/, { backplane: { vlan: 20, address: "dhcp" } }],
    [
      "backplane.mtu",
      /above the 1500 of the LAN's port/,
      { backplane: { ...backplane, mtu: 9000 } },
    ],
    [
      "backplane.address",
      /10\.99\.0\.1\/24 overlaps with the LAN's 10\.99\.0\.200\/16/,
      { lan: { address: "10.99.0.200/16" }, backplane },
    ],
    [
      "backplane.address",
      /overlaps with netboot's/,
      { backplane: { vlan: 20, address: "10.77.0.9/28" }, netboot },
    ],
    [
      "netboot.interface",
      /enp3s0 is used twice; the backplane has it already\. A VLAN/,
      { backplane: { interface: "enp3s0", address: "10.99.0.1/24" }, netboot },
    ],
    [
      "backplane.mtu",
      /9000 is above the 1500 of enp3s0, where netboot is too/,
      { backplane: { interface: "enp3s0", vlan: 7, address: "10.99.0.1/24", mtu: 9000 }, netboot },
    ],
  ])("%s: %s", (path, message, value) => {
    const result = checkNetworkConfig(value);
    expect(result.ok).toBe(false);
    const found = result.ok ? [] : result.problems.filter((problem) => problem.path === path);
    expect(found.map((problem) => problem.message).join("; ")).toMatch(message);
  });

  test("what DHCP gave the LAN is held against the backplane", () => {
    const config = checked({ backplane });
    expect(checkAgainstLan(config, ["192.0.2.7/24", "2001:db8::7/64"])).toEqual([]);
    expect(checkAgainstLan(config, ["10.99.0.77/24"])).toEqual([
      {
        path: "backplane.address",
        message:
          "10.99.0.1/24 overlaps with the LAN's 10.99.0.77/24; give the backplane a subnet of its own (DHCP gave it 10.99.0.77/24)",
      },
    ]);
  });

  test.each<[string, RegExp, NetworkConfigInput]>([
    [
      "lan.interface",
      /^No interface 'enp9s9' for the LAN; there are: enp1s0 \(/,
      { lan: { interface: "enp9s9" } },
    ],
    [
      "netboot.interface",
      /enp1s0 is used twice; the LAN has it already/,
      { lan: { interface: "enp1s0" }, netboot: { ...netboot, interface: "52:54:00:00:00:01" } },
    ],
    [
      "lan.interface",
      /enp1s0 is used twice; bond0 has it already/,
      {
        bonds: [bond0],
        lan: { interface: "52:54:00:00:00:01" },
        backplane: { interface: "bond0", address: "10.99.0.1/24" },
      },
    ],
    [
      "lan.mtu",
      /9000 is above what enp3s0 can do, 1500/,
      { lan: { interface: "enp3s0", mtu: 9000 } },
    ],
    [
      "backplane.mtu",
      /9000 is above the 1500 of enp1s0 that carries it/,
      {
        lan: { interface: "enp1s0" },
        backplane: {
          ...{ interface: "52:54:00:00:00:01", vlan: 20, address: "10.99.0.1/24", mtu: 9000 },
        },
      },
    ],
    [
      "lan.mtu",
      /9000 is above what enp3s0 can do/,
      {
        bonds: [{ name: "bond0", ports: ["enp1s0", "enp3s0"] }],
        lan: { interface: "bond0", mtu: 9000 },
      },
    ],
  ])("on this machine: %s %s", (path, message, input) => {
    const { problems } = resolveNetwork(checked(input), ports);
    expect(problems.find((problem) => problem.path === path)?.message).toMatch(message);
  });

  test("a missing port takes its network only, and a bond works with what is left", () => {
    const config = checked({
      bonds: [{ ...bond0, primary: "enp1s0" }],
      lan: { interface: "bond0" },
      netboot,
    });
    const { roles, links, problems } = resolveNetwork(config, [ports[1]]);
    expect(roles).toEqual({ lan: "bond0" });
    expect(links[0].bond?.primary.name).toBe("enp2s0");
    expect(problems.map(({ path }) => path)).toEqual(["bonds.0.ports.0", "netboot.interface"]);
  });

  test("`first` leaves alone what is named and what bonds have", () => {
    const found = resolveNetwork(
      checked({
        bonds: [bond0],
        lan: { interface: "first" },
        backplane: { interface: "bond0", address: "10.99.0.1/24" },
      }),
      ports,
    );
    expect(found.roles).toEqual({ lan: "enp3s0", backplane: "bond0" });
  });
});

test("two subnets overlap exactly when they share an address", () => {
  let seed = 7;
  const random = (below: number) => {
    seed = (seed * 1_103_515_245 + 12_345) % 2 ** 31;
    return Math.floor((seed / 2 ** 31) * below);
  };
  let overlaps = 0;
  for (let round = 0; round < 2_000; round++) {
    const subnet = () => {
      const prefix = 24 + random(7);
      const address = `10.0.${random(2)}.${1 + random(253)}`;
      return parseIpv4Subnet(`${address}/${prefix}`)!;
    };
    const [a, b] = [subnet(), subnet()];
    const from = parseIpv4("10.0.0.0")!;
    const within = (each: typeof a, at: number) => at >= each.first - 1 && at <= each.last + 1;
    const shared = Array.from({ length: 512 }, (_, i) => from + i).some(
      (at) => within(a, at) && within(b, at),
    );
    if (shared) overlaps++;
    expect(subnetsOverlap(a, b), JSON.stringify([a, b])).toBe(shared);
    expect(subnetsOverlap(b, a)).toBe(shared);
  }
  expect(overlaps).toBeGreaterThan(100);
});

test.skipIf(spawnSync("nft", ["--version"]).status !== 0 || process.getuid?.() !== 0)(
  "nft takes every golden rule set, twice in a row",
  () => {
    for (const name of Object.keys(goldens)) {
      const path = join(import.meta.dirname, "golden", name, "keelson.nft");
      const script = `nft -f '${path}' && nft -f '${path}' && nft list table inet keelson`;
      const result = spawnSync("unshare", ["--net", "sh", "-c", script], { encoding: "utf8" });
      expect(result.stderr, name).toBe("");
      expect(result.stdout.match(/chain input/g)).toHaveLength(1);
    }
  },
);
