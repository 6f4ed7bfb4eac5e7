import { describe, expect, test } from "vitest";
import { bad, good } from "#lib/aime/checked.ts";
import { networkDifferences } from "#lib/network/differences.ts";
import { portsOf, readLinks } from "#lib/network/links.ts";
import { resolveNetwork } from "#lib/network/resolve.ts";
import { checkNetworkConfig, type NetworkConfig } from "#lib/network/schema.ts";
import type { NetworkView } from "#services/network/schema.ts";
import { networkFaults } from "./network-conditions.ts";

const origin = { source: "network", atMs: 1000, maxAgeMs: 20_000 };

const checked = checkNetworkConfig({
  bonds: [{ name: "bond0", ports: ["enp2s0", "enp3s0"] }],
  lan: { interface: "enp1s0" },
  backplane: { interface: "bond0", vlan: 20, address: "10.99.0.1/24", mtu: 9000 },
});
if (!checked.ok) throw new Error("the test's own networks are wrong");
const config: NetworkConfig = checked.config;

/** As `ip -json -details address show` prints them: only what is read. */
function machine(
  change: { first?: boolean; second?: boolean; active?: string; mtu?: number } = {},
) {
  const { first = true, second = true, active = "enp2s0", mtu = 9000 } = change;
  const flags = (carrier: boolean) => ["BROADCAST", "UP", ...(carrier ? ["LOWER_UP"] : [])];
  const port = (name: string, number: number, carrier: boolean, rest: object) => ({
    ...{ ifname: name, link_type: "ether", flags: flags(carrier), mtu: 9000, max_mtu: 65535 },
    address: `52:54:00:00:00:0${number}`,
    ...rest,
  });
  const slave = (number: number) => ({
    master: "bond0",
    address: "52:54:00:00:00:02",
    linkinfo: {
      info_slave_kind: "bond",
      info_slave_data: { perm_hwaddr: `52:54:00:00:00:0${number}` },
    },
  });
  const inet = (local: string, dynamic = false) => ({
    addr_info: [{ family: "inet", local, prefixlen: 24, scope: "global", dynamic }],
  });
  return readLinks(
    JSON.stringify([
      { ifname: "lo", link_type: "loopback", flags: ["UP", "LOWER_UP"], mtu: 65536 },
      port("enp1s0", 1, true, { mtu: 1500, ...inet("192.0.2.7", true) }),
      port("enp2s0", 2, first, slave(2)),
      port("enp3s0", 3, second, slave(3)),
      port("bond0", 2, first || second, {
        linkinfo: {
          info_kind: "bond",
          info_data: {
            ...{ mode: "active-backup", miimon: 100, primary: "enp2s0" },
            ...(first || second ? { active_slave: active } : {}),
          },
        },
      }),
      port("backplane", 2, first || second, {
        ...{ link: "bond0", mtu, linkinfo: { info_kind: "vlan", info_data: { id: 20 } } },
        ...inet("10.99.0.1"),
      }),
    ]),
  );
}

function view(links = machine(), change: Partial<NetworkView> = {}): NetworkView {
  const { roles, problems } = resolveNetwork(config, portsOf(links));
  const resolved = resolveNetwork(config, portsOf(links));
  return {
    ...{ config, links, roles, problems, pending: null, lastChange: null, restartNeeded: null },
    differences: networkDifferences(config, resolved, links),
    firewall: { active: true, failure: null },
    ...change,
  };
}

function there(given: NetworkView) {
  return networkFaults(good(given, origin), 2000)
    .filter(({ finding }) => finding.status === "true")
    .map(({ code, subject, finding }) => [code, subject, finding.severity, finding.reason]);
}

describe("the node's own networks", () => {
  test("as configured: every condition is there to be read, and none is true", () => {
    const all = networkFaults(good(view(), origin), 2000);
    expect(there(view())).toEqual([]);
    expect(new Set(all.map(({ code }) => code)).size).toBe(8);
  });

  test("nothing known, or not this node's to set up: nothing is claimed", () => {
    expect(networkFaults(bad("away", origin), 2000)).toEqual([]);
    expect(networkFaults(good(view(), origin), 60_000)).toEqual([]);
    expect(networkFaults(null, 2000)).toEqual([]);
  });

  test.each<[string, NetworkView, unknown[]]>([
    [
      "one cable of the bond is out",
      view(machine({ first: false, active: "enp3s0" })),
      [["NETWORK_BOND_DEGRADED", "bond0", "warning", "enp2s0, a port of bond0, has no link."]],
    ],
    [
      "both cables of the bond are out",
      view(machine({ first: false, second: false })),
      [
        [
          ...["NETWORK_LINK_DOWN", "bond0", "warning"],
          "bond0 has no link. None of its ports has a link.",
        ],
        [
          ...["NETWORK_BOND_DEGRADED", "bond0", "warning"],
          "enp2s0, a port of bond0, has no link. enp3s0, a port of bond0, has no link.",
        ],
      ],
    ],
    [
      "the bond stays on its second port",
      view(machine({ active: "enp3s0" })),
      [
        [
          ...["NETWORK_DIFFERS", null, "warning"],
          "bond0 runs on enp3s0, though its primary port enp2s0 has a link.",
        ],
      ],
    ],
    [
      "an MTU that somebody changed",
      view(machine({ mtu: 1500 })),
      [["NETWORK_DIFFERS", null, "warning", "The MTU of backplane is 1500, not 9000."]],
    ],
    [
      "DHCP gave an address in the backplane",
      view(machine(), { problems: [{ path: "backplane.address", message: "overlaps" }] }),
      [["NETWORK_BACKPLANE_OVERLAP", null, "critical", "backplane.address: overlaps"]],
    ],
    [
      "no firewall",
      view(machine(), { firewall: { active: false, failure: "nft refused the rules" } }),
      [["FIREWALL_INACTIVE", null, "critical", "nft refused the rules"]],
    ],
    [
      "a change waits",
      view(machine(), { pending: { id: "x", config, applied: true, secondsLeft: 12 } }),
      [
        [
          ...["NETWORK_CHANGE_WAITING", null, "notice"],
          "It takes itself back unless it is confirmed.",
        ],
      ],
    ],
    [
      "a card was taken out",
      view(machine().filter(({ name }) => name !== "enp1s0")),
      [
        [
          ...["NETWORK_PORT_MISSING", null, "warning"],
          "No interface 'enp1s0' for the LAN; there are: enp2s0 (52:54:00:00:00:02), enp3s0 (52:54:00:00:00:03).",
        ],
      ],
    ],
  ])("%s", (_, given, faults) => {
    expect(there(given)).toEqual(faults);
  });
});
