/**
 * Scenario `network`: an appliance with a bond of two ports that carries the backplane as a VLAN,
 * and a neighbour on the other end of the cables. Fail-over and fail-back under traffic, MTU,
 * networks refused, changes that revert themselves, also over a reset, and the firewall as declared.
 */
import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { AnswersInput } from "#lib/answer-file/schema.ts";
import { KeelsonError } from "#lib/model/errors.ts";
import type { NetworkConfigInput } from "#lib/network/schema.ts";
import { hashPassword } from "#lib/password/password.ts";
import type { Firewall, Network } from "#services/api/network-schema.ts";
import type { Condition } from "#services/api/schema.ts";
import { openAccessPort } from "./access-port.ts";
import {
  ApplianceClient,
  type ApplianceOptions,
  applianceAnswers,
  createDisk,
  installAppliance,
  lanMac,
  limits,
  startAppliance,
} from "./appliance.ts";
import { freePort, type Machine } from "./machine.ts";
import { Neighbour, type PingResult } from "./neighbour.ts";
import { scanTcp } from "./nmap.ts";
import type { Scenario, ScenarioContext } from "./scenario.ts";
import { createSegment, type Segment } from "./segment.ts";

const diskBytes = 8 * 2 ** 30;
const ports = ["52:54:00:4b:00:11", "52:54:00:4b:00:12"] as const;
/** QEMU's names of their cables: the LAN's is net0. */
const cables = ["net1", "net2"] as const;
const backplane = { address: "10.99.0.1", vlan: 20, mtu: 9000 } as const;
const netboot = { address: "10.77.0.1", pool: "10.77.0.100-10.77.0.199" } as const;
/** QEMU's NAT is 10.0.2.0/24. */
const overlapping = "10.0.2.200/28";
const pingIntervalMs = 50;
/** Pings that a change of ports may cost: half a second, on a machine that is emulated. */
const mayLose = 10;
const settleMs = 60_000;

const bonded: NetworkConfigInput = {
  bonds: [{ name: "bond0", ports: [...ports], primary: ports[0] }],
  lan: { interface: lanMac },
  backplane: {
    interface: "bond0",
    vlan: backplane.vlan,
    address: `${backplane.address}/24`,
    mtu: backplane.mtu,
  },
};

export function networkAnswers(password: string): AnswersInput {
  return applianceAnswers(hashPassword(password), { network: bonded });
}

export const networkScenario: Scenario = {
  name: "network",
  summary: "bond fail-over under traffic, VLAN, MTU, changes that revert themselves, firewall",
  async run(context) {
    const { directory, step } = context;
    const password = randomBytes(9).toString("base64url");
    const disk = join(directory, "appliance.raw");
    createDisk(disk, diskBytes);
    await step("the answer file with bond, VLAN and backplane installs", () =>
      installAppliance(
        {
          ...{ name: "install", directory, disk, iso: context.iso, firmware: "bios" },
          acceleration: context.acceleration.acceleration,
        },
        networkAnswers(password),
      ),
    );
    await networkSteps(context, disk, password);
  },
};

/** All that is shown of an installed disk. */
export async function networkSteps(
  context: ScenarioContext,
  disk: string,
  password: string,
): Promise<void> {
  const { directory, acceleration } = context;
  const segment = await createSegment(join(directory, "hub"));
  const options: ApplianceOptions = {
    name: "appliance",
    directory,
    disk,
    firmware: "bios",
    acceleration: acceleration.acceleration,
    httpsPort: await freePort(),
    moreNics: ports.map((mac) => ({ mac, segment })),
    ...(context.verbose ? { onLine: (line: string) => context.note(line) } : {}),
  };
  const machine = await startAppliance(options);
  const node = new Node(options.httpsPort, machine, password);
  try {
    await context.step("it boots with its networks as the answer file says", () =>
      bootsAsConfigured(node),
    );
    await withNeighbour(segment, backplane.vlan, async (neighbour) => {
      await context.step("the neighbour reaches the backplane by its VLAN, and only so", () =>
        reachedByVlanOnly(neighbour, segment),
      );
      await context.step("9000 bytes pass in one piece, 9001 don't", () => passesMtu(neighbour));
      await failOver(context, node, neighbour);
      await context.step("with another primary port the bond is made anew, and taken back", () =>
        madeAnew(node, neighbour),
      );
      await context.step("nmap finds every port closed on the backplane, though some listen", () =>
        closedOnBackplane(neighbour, segment),
      );
    });
    await refusals(context, node);
    await context.step("a change that cuts the LAN off reverts itself", () => revertsItself(node));
    await context.step("network boot on the bond is applied and confirmed", () =>
      confirmNetboot(node),
    );
    await withNeighbour(segment, undefined, (neighbour) =>
      context.step("nmap finds open on the netboot network what is declared, all else closed", () =>
        openAsDeclared(neighbour, segment, node),
      ),
    );
    await context.step("a reset in the middle of a change boots what was confirmed", () =>
      resetInBetween(node),
    );
    await withNeighbour(segment, undefined, (neighbour) =>
      context.step("after it, network boot serves where it was confirmed", async () => {
        const state = await neighbour.knockTcp(netboot.address, [80]);
        expectEqual(state.get(80), "open", "port 80 on the netboot network");
      }),
    );
  } finally {
    await machine.kill();
    await segment.close();
  }
}

class Node {
  readonly machine: Machine;
  readonly #api: ApplianceClient;
  readonly #password: string;

  constructor(httpsPort: number, machine: Machine, password: string) {
    this.machine = machine;
    this.#api = new ApplianceClient(httpsPort);
    this.#password = password;
  }

  async up(): Promise<void> {
    await this.#api.waitUntilUp(this.machine, limits.bootMs);
    for (let tries = 1; ; tries++) {
      try {
        return await this.#api.logIn(this.#password);
      } catch (error) {
        // Hashing a password takes its time on a machine that is emulated, and busy with starting.
        if (tries === 5 || error instanceof KeelsonError) throw error;
        await sleep(5_000);
      }
    }
  }

  network(): Promise<Network> {
    return this.#api.call<Network>("GET", "/network");
  }

  firewall(): Promise<Firewall> {
    return this.#api.call<Firewall>("GET", "/network/firewall");
  }

  async apply(config: NetworkConfigInput, confirmWithinSeconds = 120): Promise<string> {
    const body = { config, confirmWithinSeconds };
    return (await this.#api.call<{ id: string }>("POST", "/network/apply", body)).id;
  }

  confirm(id: string): Promise<void> {
    return this.#api.call("POST", "/network/confirm", { id });
  }

  revert(id: string): Promise<void> {
    return this.#api.call("POST", "/network/revert", { id });
  }

  async condition(id: string): Promise<Condition | undefined> {
    const all = await this.#api.call<Condition[]>("GET", "/conditions");
    return all.find((condition) => condition.id === id);
  }

  /** The network once `wanted` holds; TIMEOUT with what it was instead. */
  async until(what: string, wanted: (network: Network) => boolean, withinMs = settleMs) {
    const end = Date.now() + withinMs;
    let last: Network | undefined;
    while (Date.now() < end) {
      last = await this.network().catch(() => undefined);
      if (last !== undefined && wanted(last)) return last;
      await sleep(1_000);
    }
    const { links, ...rest } = last ?? { links: [] };
    const shown = JSON.stringify({ ...rest, links: links.map(({ name }) => name) });
    throw new KeelsonError("TIMEOUT", `Never: ${what}. ${shown}`);
  }
}

async function withNeighbour(
  segment: Segment,
  vlan: number | undefined,
  work: (neighbour: Neighbour) => Promise<unknown>,
): Promise<void> {
  const neighbour = await joinSegment(segment, vlan);
  try {
    await work(neighbour);
  } finally {
    neighbour.leave();
  }
}

function joinSegment(segment: Segment, vlan: number | undefined): Promise<Neighbour> {
  return Neighbour.join({
    path: segment.path,
    mac: "52:54:00:4b:00:99",
    address: vlan === undefined ? "10.77.0.9" : "10.99.0.9",
    ...(vlan === undefined ? {} : { vlan }),
  });
}

function bondOf(network: Network) {
  return network.links.find(({ name }) => name === "bond0")?.bond;
}

/** Name of the port with this hardware address. */
function portNamed(network: Network, mac: string): string | undefined {
  return network.links.find(({ kind, permanentMac }) => kind === "port" && permanentMac === mac)
    ?.name;
}

async function bootsAsConfigured(node: Node): Promise<void> {
  await node.up();
  const network = await node.until(
    "no differences",
    ({ differences, problems }) => differences.length + problems.length === 0,
  );
  expectEqual(network.roles.backplane, "backplane", "the backplane's interface");
  expectEqual(network.firewall.active, true, "the firewall is active");
  expectEqual(bondOf(network)?.activePort, portNamed(network, ports[0]), "the active port");
  const vlan = network.links.find(({ name }) => name === "backplane");
  expectEqual(vlan?.vlan, { id: backplane.vlan, parent: "bond0" }, "the VLAN");
  expectEqual(vlan?.mtu, backplane.mtu, "the backplane's MTU");
}

async function reachedByVlanOnly(neighbour: Neighbour, segment: Segment): Promise<void> {
  const { lost } = await neighbour.ping(backplane.address, { count: 10, intervalMs: 100 });
  expectEqual(lost, 0, "pings lost");
  for (const vlan of [undefined, backplane.vlan + 1]) {
    const stranger = await joinSegment(segment, vlan);
    const found = await stranger.resolve(backplane.address, 2_000);
    stranger.leave();
    if (found === undefined) continue;
    throw new KeelsonError("INTERNAL", `The backplane answers in VLAN ${vlan ?? "none"}.`);
  }
}

async function passesMtu(neighbour: Neighbour): Promise<void> {
  const ping = (sizeBytes: number) =>
    neighbour.ping(backplane.address, { count: 5, intervalMs: 100, sizeBytes });
  expectEqual((await ping(backplane.mtu)).lost, 0, "pings of 9000 bytes lost");
  expectEqual((await ping(backplane.mtu + 1)).lost, 5, "pings of 9001 bytes lost");
}

async function failOver(
  { step, note }: ScenarioContext,
  node: Node,
  neighbour: Neighbour,
): Promise<void> {
  const { machine } = node;
  /** Pings for ten seconds and, after two of them, changes the first port's link. */
  const during = async (up: boolean): Promise<PingResult> => {
    const pings = neighbour.ping(backplane.address, { count: 200, intervalMs: pingIntervalMs });
    await sleep(2_000);
    await machine.command("set_link", { name: cables[0], up });
    return pings;
  };
  const report = (what: string, { sent, lost, longestGapMs }: PingResult) => {
    note(`${what}: ${lost} of ${sent} pings lost, ${longestGapMs} ms without an answer at most`);
    if (lost > mayLose) throw new KeelsonError("INTERNAL", `${lost} pings were lost.`);
  };
  const announced = neighbour.announcements;
  await step("a cable is pulled under traffic: the other port takes over", async () => {
    report("fail-over", await during(false));
    const network = await node.until("the second port is active", (each) => {
      const second = portNamed(each, ports[1]);
      return second !== undefined && bondOf(each)?.activePort === second;
    });
    if (!network.differences.some(({ kind }) => kind === "degraded")) {
      throw new KeelsonError("INTERNAL", "The bond is not called degraded.");
    }
    if (neighbour.announcements === announced) {
      throw new KeelsonError("INTERNAL", "The bond did not announce its new port.");
    }
    await conditionBecomes(node, "NETWORK_BOND_DEGRADED:bond0", "true");
  });
  await step("the cable is back: so is the traffic, on the primary port", async () => {
    report("fail-back", await during(true));
    await node.until(
      "the first port is active",
      (each) => bondOf(each)?.activePort === portNamed(each, ports[0]),
    );
    await conditionBecomes(node, "NETWORK_BOND_DEGRADED:bond0", "false");
  });
}

async function madeAnew(node: Node, neighbour: Neighbour): Promise<void> {
  // A bond has the hardware address of its primary port.
  const reached = async () => {
    neighbour.forget();
    return (await neighbour.ping(backplane.address, { count: 5, intervalMs: 100 })).lost === 0;
  };
  const onPort = (mac: string) => (each: Network) =>
    each.differences.length === 0 && bondOf(each)?.activePort === portNamed(each, mac);
  const id = await node.apply({
    ...bonded,
    bonds: [{ name: "bond0", ports: [...ports], primary: ports[1] }],
  });
  await node.until("applied", ({ pending }) => pending?.applied === true);
  await node.until("on the second port", onPort(ports[1]));
  expectEqual(await reached(), true, "the neighbour is reached");
  await node.revert(id);
  await node.until("on the first port", onPort(ports[0]));
  expectEqual(await reached(), true, "the neighbour is reached again");
}

async function conditionBecomes(node: Node, id: string, status: string): Promise<void> {
  const end = Date.now() + settleMs;
  for (;;) {
    const found = (await node.condition(id))?.status;
    if (found === status) return;
    if (Date.now() > end) throw new KeelsonError("TIMEOUT", `${id} is ${found}, not ${status}.`);
    await sleep(2_000);
  }
}

async function closedOnBackplane(neighbour: Neighbour, segment: Segment): Promise<void> {
  const access = await openAccessPort(segment, backplane.vlan, `${segment.path}.access`);
  try {
    const found = await scanTcp({ segment: access, address: "10.99.0.8/24" }, backplane.address);
    expectEqual(found, allClosedBut([]), "TCP on the backplane");
  } finally {
    await access.close();
  }
  const udp = await neighbour.knockUdp(backplane.address, [53, 67, 69, 5353, 5355]);
  expectEqual([...new Set(udp.values())], ["closed"], "UDP on the backplane");
}

const allClosedBut = (open: readonly number[]) => ({
  open,
  filtered: [],
  closedCount: 65_535 - open.length,
});

async function openAsDeclared(neighbour: Neighbour, segment: Segment, node: Node): Promise<void> {
  const { open: declared } = await node.firewall();
  const netbootPorts = (protocol: string) =>
    declared
      .filter((each) => each.protocol === protocol && each.interfaces?.includes("bond0"))
      .map(({ port }) => port);
  expectEqual(netbootPorts("tcp"), [80, 443, 3260], "declared");
  // Nothing listens on 80 before the restart that network boot was said to need.
  const found = await scanTcp({ segment, address: "10.77.0.8/24" }, netboot.address);
  expectEqual(found, allClosedBut([443, 3260]), "TCP on the netboot network");
  const udp = await neighbour.knockUdp(netboot.address, [53, 5353, 5355]);
  expectEqual([...new Set(udp.values())], ["closed"], "undeclared UDP");
}

async function refusals({ step }: ScenarioContext, node: Node): Promise<void> {
  const refused: [string, NetworkConfigInput, RegExp][] = [
    [
      "a backplane within what DHCP gave the LAN",
      { ...bonded, backplane: { interface: "bond0", vlan: 20, address: overlapping } },
      /overlaps with the LAN's 10\.0\.2\.\d+\/24.*DHCP gave it/,
    ],
    [
      "a port that is not there",
      { ...bonded, lan: { interface: "enp99s0" } },
      /No interface 'enp99s0' for the LAN; there are: /,
    ],
    [
      "a port that the bond has",
      { ...bonded, lan: { interface: ports[0] } },
      /lan\.interface: .* is a port of bond0; say bond0/,
    ],
  ];
  for (const [name, config, message] of refused) {
    await step(`refused: ${name}`, async () => {
      const error = await node.apply(config).then(
        () => undefined,
        (each: unknown) => each,
      );
      if (!(error instanceof KeelsonError) || error.code !== "INVALID_ARGUMENT") {
        throw new KeelsonError("INTERNAL", `It was not refused: ${error}`);
      }
      if (!message.test(error.message)) throw error;
      expectEqual((await node.network()).pending, null, "what waits");
    });
  }
}

/** An address that QEMU's NAT knows nothing of: as after a typing error. */
const cutOff: NetworkConfigInput = {
  ...bonded,
  lan: { interface: lanMac, address: "192.0.2.10/24", gateway: "192.0.2.1" },
};

async function untilCutOff(node: Node): Promise<void> {
  const end = Date.now() + settleMs;
  while (Date.now() < end) {
    const reached = await Promise.race([
      node.network().then(
        () => true,
        () => false,
      ),
      sleep(5_000).then(() => false),
    ]);
    if (!reached) return;
    await sleep(500);
  }
  throw new KeelsonError("TIMEOUT", "The change had no effect: the API still answers.");
}

async function revertsItself(node: Node): Promise<void> {
  const before = await node.network();
  const id = await node.apply(cutOff, 30);
  await untilCutOff(node);
  const after = await node.until("back again", ({ pending }) => pending === null, 180_000);
  expectEqual(after.config, before.config, "the configuration");
  expectEqual(after.lastChange?.id, id, "the last change");
  expectEqual(after.lastChange?.reason, "Nobody confirmed it within 30 seconds.", "its end");
  await node.until("no differences", ({ differences }) => differences.length === 0);
}

async function confirmNetboot(node: Node): Promise<void> {
  const { interface: bond, vlan, address } = bonded.backplane!;
  const id = await node.apply({
    ...bonded,
    // Untagged beside the VLAN: the port then has the MTU that network boot needs.
    backplane: { interface: bond, vlan, address },
    netboot: {
      ...{ interface: "bond0", mode: "server", address: `${netboot.address}/24` },
      pool: netboot.pool,
    },
  });
  await node.until("applied", ({ pending }) => pending?.applied === true);
  await node.until("no differences", ({ differences }) => differences.length === 0);
  await node.confirm(id);
  const { config, restartNeeded } = await node.network();
  expectEqual(config.netboot?.interface, "bond0", "what was confirmed");
  if (restartNeeded === null) {
    throw new KeelsonError("INTERNAL", "Nothing says that network boot waits for a restart.");
  }
}

async function resetInBetween(node: Node): Promise<void> {
  const { config } = await node.network();
  await node.apply(cutOff, 900);
  await untilCutOff(node);
  await node.machine.command("system_reset");
  await sleep(5_000);
  await node.up();
  const after = await node.until("settled", ({ differences }) => differences.length === 0);
  expectEqual(after.config, config, "the configuration");
  expectEqual(after.pending, null, "what waits");
  if (!/restarted before it was confirmed/.test(after.lastChange?.reason ?? "")) {
    throw new KeelsonError("INTERNAL", `It says: ${after.lastChange?.reason ?? "nothing"}`);
  }
}

function expectEqual(found: unknown, wanted: unknown, what: string): void {
  const [left, right] = [JSON.stringify(found), JSON.stringify(wanted)];
  if (left === right) return;
  throw new KeelsonError("INTERNAL", `${what}: ${left}, expected ${right}.`);
}
