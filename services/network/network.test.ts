import { setTimeout as delay } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import { isKeelsonError } from "#lib/model/errors.ts";
import type { LinkState } from "#lib/network/links.ts";
import type { NetworkFile } from "#lib/network/networkd.ts";
import type { NetworkConfig } from "#lib/network/schema.ts";
import type { StoredNetwork } from "#lib/network/stored.ts";
import { type NetworkStore, NodeNetwork } from "./network.ts";
import { type NetworkSystem, staleLinks } from "./system.ts";

const installed: NetworkConfig = {
  bonds: [],
  lan: { interface: "first", address: "dhcp", dns: [] },
};
const fixed = { lan: { interface: "enp1s0", address: "192.0.2.10/24" } };

function port(name: string, number: number, addresses: LinkState["addresses"] = []): LinkState {
  const mac = `52:54:00:00:00:0${number}`;
  return {
    ...{ name, kind: "port", mac, permanentMac: mac, up: true, carrier: true },
    ...{ mtu: 1500, mtuMax: 9000, addresses, bond: undefined, vlan: undefined, master: undefined },
  };
}

/** A machine that remembers what it was told, and disks that outlive the service. */
class Machine implements NetworkSystem, NetworkStore {
  list = [port("enp1s0", 1, [{ address: "10.0.0.7/24", dynamic: true }]), port("enp2s0", 2)];
  files: readonly NetworkFile[] = [];
  rules = "";
  refusesFirewall = false;
  refuses: ((files: readonly NetworkFile[]) => boolean) | undefined;
  disk = new Map<string, StoredNetwork>();

  async links() {
    return this.list;
  }
  async loadFirewall(rules: string) {
    if (this.refusesFirewall) throw new Error("no such table");
    this.rules = rules;
  }
  async configure(files: readonly NetworkFile[]) {
    if (this.refuses?.(files)) throw new Error("networkd did not make it");
    this.files = files;
  }
  confirmed = () => this.disk.get("confirmed");
  pending = () => this.disk.get("pending");
  writeConfirmed = (stored: StoredNetwork) => void this.disk.set("confirmed", stored);
  writePending = (stored: StoredNetwork) => void this.disk.set("pending", stored);
  removePending = () => void this.disk.delete("pending");

  start() {
    return NodeNetwork.start({
      handover: { version: 1, hostName: "k1", ntp: [], network: installed },
      ...{ store: this, system: this, declarations: [], graceMs: 5, retryMs: 5 },
      log: { error() {}, warn() {}, info() {}, debug() {} },
    });
  }

  get lan(): "dhcp" | "static" | "none" {
    const file = this.files.find(({ name }) => name === "30-keelson-enp1s0.network")?.content;
    if (file === undefined) return "none";
    return file.includes("DHCP=yes") ? "dhcp" : "static";
  }
}

async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  const end = Date.now() + 60_000;
  while (!(await condition())) {
    if (Date.now() > end) throw new Error("it never came");
    await delay(5);
  }
}

const applied = (network: NodeNetwork) =>
  until(async () => (await network.view()).pending?.applied === true);

describe("a change of the network", () => {
  test("confirmed: it is what boots", async () => {
    const machine = new Machine();
    const network = await machine.start();
    expect(machine.lan).toBe("dhcp");
    const { id } = await network.apply(fixed, 60);
    expect(machine.pending()?.id).toBe(id);
    expect(machine.confirmed()).toBeUndefined();
    await applied(network);
    expect(machine.lan).toBe("static");
    expect((await network.view()).pending).toMatchObject({ id, secondsLeft: 60 });
    network.confirm(id);
    expect(machine.pending()).toBeUndefined();
    expect(await network.view()).toMatchObject({
      pending: null,
      config: { lan: { address: "192.0.2.10/24" } },
      lastChange: { id, outcome: "confirmed" },
    });
    await network.stop();
    machine.files = [];
    await (await machine.start()).stop();
    expect(machine.lan).toBe("static");
  });

  test("nobody confirms: it reverts itself and says so", async () => {
    const machine = new Machine();
    const network = await machine.start();
    const { id } = await network.apply(fixed, 0.05);
    await applied(network);
    await until(() => machine.lan === "dhcp");
    expect(machine.disk.size).toBe(0);
    expect((await network.view()).lastChange).toMatchObject({
      outcome: "reverted",
      reason: "Nobody confirmed it within 0.05 seconds.",
    });
    expect(() => network.confirm(id)).toThrow(/reverted already. Nobody confirmed it/);
  });

  test("taken back by hand", async () => {
    const machine = new Machine();
    const network = await machine.start();
    const { id } = await network.apply(fixed, 60);
    await applied(network);
    await network.revert(id);
    expect(machine.lan).toBe("dhcp");
    expect(machine.pending()).toBeUndefined();
    await expect(network.revert(id)).rejects.toThrow(/reverted already/);
  });

  test("taken back before it was carried out, it never is", async () => {
    const machine = new Machine();
    const network = await machine.start();
    const { id } = await network.apply(fixed, 60);
    expect(() => network.confirm(id)).toThrow(/still being applied/);
    await network.revert(id);
    await delay(30);
    expect(machine.lan).toBe("dhcp");
  });

  test("killed while it waits: the next start has the confirmed one", async () => {
    const machine = new Machine();
    const network = await machine.start();
    await network.apply(fixed, 60);
    await applied(network);
    // As after kill -9: no more of this process; its timer is only stopped for the test's sake.
    await network.stop();
    expect(machine.lan).toBe("static");
    const next = await machine.start();
    expect(machine.lan).toBe("dhcp");
    expect(machine.pending()).toBeUndefined();
    expect((await next.view()).lastChange).toMatchObject({
      outcome: "reverted",
      reason: expect.stringMatching(/restarted before it was confirmed/),
    });
  });

  test("killed between confirming and forgetting that it waited: it is confirmed", async () => {
    const machine = new Machine();
    const network = await machine.start();
    const { id } = await network.apply(fixed, 60);
    await applied(network);
    const pending = machine.pending()!;
    network.confirm(id);
    machine.writePending(pending);
    await network.stop();
    const next = await machine.start();
    expect(machine.lan).toBe("static");
    expect((await next.view()).lastChange?.outcome).toBe("confirmed");
  });

  test("that networkd can't carry out reverts with the reason", async () => {
    const machine = new Machine();
    const network = await machine.start();
    machine.refuses = (files) => !files.some(({ content }) => content.includes("DHCP=yes"));
    await network.apply(fixed, 60);
    await until(async () => (await network.view()).lastChange !== null);
    expect((await network.view()).lastChange).toMatchObject({
      outcome: "reverted",
      reason: "It could not be applied: networkd did not make it",
    });
    expect(machine.lan).toBe("dhcp");
  });

  test("where the way back fails too, it is tried until it works", async () => {
    const machine = new Machine();
    const network = await machine.start();
    const { id } = await network.apply(fixed, 60);
    await applied(network);
    let refusals = 0;
    machine.refuses = () => refusals++ < 3;
    await network.revert(id);
    expect(machine.lan).toBe("static");
    await until(() => machine.lan === "dhcp");
    expect(refusals).toBe(4);
  });

  test("one at a time, also of two that arrive together", async () => {
    const machine = new Machine();
    const network = await machine.start();
    const both = await Promise.allSettled([network.apply(fixed, 60), network.apply(fixed, 60)]);
    expect(both.map(({ status }) => status).sort()).toEqual(["fulfilled", "rejected"]);
    const refused = both.find((each) => each.status === "rejected")!;
    expect(isKeelsonError(refused.reason, "CONFLICT")).toBe(true);
    await network.stop();
  });
});

describe("refused before anything is touched", () => {
  test.each<[string, unknown, RegExp]>([
    ["nothing", undefined, /must be an object with: bonds, lan, backplane, netboot/],
    ["a field", { lan: { mtu: 20 } }, /lan\.mtu: 20 is not an MTU/],
    ["two faults at once", { lan: { mtu: 20, vlan: 9999 } }, /lan\.vlan: .*; lan\.mtu: /],
    ["a port that isn't there", { lan: { interface: "eth9" } }, /No interface 'eth9'.*enp1s0/],
    ["an MTU above the port's", { lan: { mtu: 9216 } }, /above what enp1s0 can do, 9000/],
    [
      "a backplane in the subnet that DHCP gave",
      { backplane: { vlan: 7, address: "10.0.0.200/28" } },
      /10\.0\.0\.200\/28 overlaps with the LAN's 10\.0\.0\.7\/24.*DHCP gave it/,
    ],
  ])("%s", async (_, config, message) => {
    const machine = new Machine();
    const network = await machine.start();
    const before = machine.files;
    const error = await network.apply(config, 60).catch((each) => each);
    expect(isKeelsonError(error, "INVALID_ARGUMENT")).toBe(true);
    expect(error.message).toMatch(message);
    expect(machine.files).toBe(before);
    expect(machine.disk.size).toBe(0);
  });
});

test("a firewall that nft refuses is told, and the network comes up", async () => {
  const machine = new Machine();
  machine.refusesFirewall = true;
  const network = await machine.start();
  expect(machine.lan).toBe("dhcp");
  expect((await network.view()).firewall).toEqual({ active: false, failure: "no such table" });
});

test("a changed netboot is used by its services only after a restart", async () => {
  const machine = new Machine();
  const network = await machine.start();
  const netboot = { interface: "enp2s0", mode: "proxy", address: "10.77.0.1/24" };
  const { id } = await network.apply({ ...fixed, netboot }, 60);
  await applied(network);
  network.confirm(id);
  expect((await network.view()).restartNeeded).toMatch(/until the node restarts/);
});

test("a bond with other ports is made anew, and what an earlier run left is taken away", () => {
  const netdev = (name: string, line: string) => ({
    name: `20-keelson-${name}.netdev`,
    content: `[NetDev]\nName=${name}\nKind=bond\n# ${line}\n`,
  });
  const links = [
    { name: "bond0", kind: "bond" },
    { name: "backplane", kind: "vlan" },
    { name: "bond7", kind: "bond" },
    { name: "enp1s0", kind: "port" },
  ];
  const before = [netdev("bond0", "a b")];
  expect(staleLinks(before, before, links)).toEqual(["backplane", "bond7"]);
  expect(staleLinks(before, [netdev("bond0", "a c")], links)).toEqual([
    "backplane",
    "bond0",
    "bond7",
  ]);
});
