/**
 * Scenario `database`: PostgreSQL under pgbench in a client, on a LUN that its open-iscsi attaches
 * from the installed appliance. Snapshots are taken under load; each, attached to the client as a
 * clone, recovers, passes pg_amcheck and e2fsck, and holds what was committed when it was taken.
 * Between some of them client and appliance lose their power.
 */
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { KeelsonError } from "#lib/model/errors.ts";
import type { Export, ExportCreated, Volume } from "#services/api/schema.ts";
import type { Snapshot } from "#services/api/snapshot-schema.ts";
import {
  ApplianceClient,
  type ApplianceOptions,
  limits,
  netbootSubnet,
  startAppliance,
} from "./appliance.ts";
import { logInToClient, runOnClient, startClient } from "./client.ts";
import { clientImage, clientInitiator } from "./client-image.ts";
import { GuestDatabase, GuestDisk } from "./database-guest.ts";
import { expectThat } from "./expectation.ts";
import type { NodeDisk } from "./installations.ts";
import { freePort, type Machine } from "./machine.ts";
import type { Scenario, ScenarioContext } from "./scenario.ts";
import { createSegment, type Segment } from "./segment.ts";

const firmware = "uefi";
const clientFirmware = "bios";
const clientAddress = "10.77.0.2";
const clientBootMs = 1_200_000;
const servedMs = 120_000;
const volumeBytes = 2 * 2 ** 30;
const portal = `${netbootSubnet.address}:3260`;
const initiator = clientInitiator;
/** pgbench's: 15 MB each. */
const scale = 2;
const clients = 2;
const snapshotsBetweenCuts = 5;

export const databaseScenario: Scenario = {
  name: "database",
  summary: "PostgreSQL in a client over open-iscsi: --snapshots under load, power cuts in between",
  prepare: () => clientImage("database"),
  async run(context) {
    const segment = await createSegment(join(context.directory, "hub"));
    const run = new DatabaseRun(context, segment);
    try {
      await run.all();
    } finally {
      await run.end();
      await segment.close();
    }
  },
};

class DatabaseRun {
  private readonly context: ScenarioContext;
  private readonly segment: Segment;
  private api!: ApplianceClient;
  private node!: NodeDisk;
  private httpsPort = 0;
  private appliance: Machine | undefined;
  private client: Machine | undefined;
  private starts = 0;
  private image = "";
  private volumeId = "";
  private target = "";
  private disk!: GuestDisk;
  private database!: GuestDatabase;

  constructor(context: ScenarioContext, segment: Segment) {
    this.context = context;
    this.segment = segment;
  }

  async all(): Promise<void> {
    const { step, snapshots } = this.context;
    const building = clientImage("database");
    building.catch(() => {});
    this.node = await step("the appliance is installed", () =>
      this.context.installations.take(firmware, this.context, "appliance"),
    );
    this.httpsPort = await freePort();
    this.api = new ApplianceClient(this.httpsPort);
    this.image = await step("the client's disk: an ordinary Debian 13, PostgreSQL", () => building);
    await step("both boot: the API answers, the client reaches the appliance", () =>
      this.start(this.node.state),
    );
    await step("open-iscsi attaches a volume; a database with pgbench's tables is made on it", () =>
      this.makeDatabase(),
    );
    await this.database.startLoad(clients, 0);
    for (let number = 1; number <= snapshots; number++) {
      await step(`snapshot ${number} under load recovers as a clone, whole`, () =>
        this.snapshot(number),
      );
      if (number % snapshotsBetweenCuts !== 0) continue;
      await step("client and appliance lose power: what was committed is there", () =>
        this.cutPower(),
      );
    }
    await step("the database itself passes its checks, and its file system", async () => {
      await this.database.endLoad();
      await this.database.check();
      await this.database.stop();
      await this.disk.detach();
    });
  }

  async end(): Promise<void> {
    await Promise.all([this.client?.kill(), this.appliance?.kill()]);
  }

  // ---- machines

  private async start(state?: string): Promise<void> {
    await this.startAppliance(state);
    await this.startClient();
  }

  private async startAppliance(state?: string): Promise<void> {
    const { directory, acceleration, verbose, note } = this.context;
    const options: ApplianceOptions = {
      ...{ name: "appliance", directory, firmware, segment: this.segment },
      disk: this.node.disk,
      diskFormat: "qcow2",
      variables: this.node.variables,
      acceleration: acceleration.acceleration,
      httpsPort: this.httpsPort,
      ...(state === undefined ? {} : { state }),
      ...(verbose ? { onLine: note } : {}),
    };
    this.appliance = await startAppliance(options);
    await this.api.waitUntilUp(this.appliance, limits.bootMs);
    await this.api.logIn(this.node.password);
  }

  private async startClient(): Promise<void> {
    const { directory, acceleration } = this.context;
    this.client = await startClient({
      ...{ name: `client-${++this.starts}`, directory, firmware: clientFirmware },
      acceleration: acceleration.acceleration,
      segment: this.segment,
      image: this.image,
    });
    await logInToClient(this.client, clientBootMs);
    // A wrapped command line would stand in what it prints.
    await runOnClient(this.client, "stty cols 4000");
    const address = `${clientAddress}/${netbootSubnet.prefix}`;
    await runOnClient(
      this.client,
      `nic=$(ls /sys/class/net | grep -v lo) && ip address add ${address} dev $nic && ip link set $nic up`,
    );
    const connect = `exec 3<>/dev/tcp/${portal.replace(":", "/")}`;
    await runOnClient(this.client, `until (${connect}) 2>/dev/null; do sleep 1; done`);
  }

  private async cutPower(): Promise<void> {
    const least = await this.database.acknowledged();
    await this.end();
    await this.start();
    await this.attach();
    await this.database.start();
    await this.database.check();
    const last = await this.database.lastCommit();
    expectThat(last >= least, `Commit ${least} was acknowledged; the last is ${last}.`);
    this.context.note(`acknowledged ${least}, there ${last}`);
    await this.database.startLoad(clients, last);
  }

  // ---- volume and database

  private async makeDatabase(): Promise<void> {
    const volume = { name: "database", sizeBytes: volumeBytes };
    this.volumeId = (await this.api.call<Volume>("POST", "/volumes", volume)).id;
    const { targetIqn } = await this.api.call<ExportCreated>("POST", "/exports", {
      ...{ name: "database", volumeId: this.volumeId, initiators: [initiator] },
      chap: { kind: "none" },
    });
    this.target = targetIqn;
    await this.attach(true);
    await this.database.create(scale);
  }

  private async attach(format = false): Promise<void> {
    await this.untilServed(this.target);
    this.disk = new GuestDisk(this.client!, portal, this.target, "database");
    await this.disk.attach(format);
    this.database = new GuestDatabase(this.client!, this.disk.mountPoint, "database");
  }

  /** Taken, cloned, attached, recovered, checked, deleted. */
  private async snapshot(number: number): Promise<void> {
    const least = await this.database.acknowledged();
    const [snapshot] = await this.api.call<Snapshot[]>("POST", "/snapshots", {
      ...{ volumes: [this.volumeId], name: `under-load-${number}` },
    });
    // One may be committed, and its answer under way.
    const most = (await this.database.acknowledged()) + 1;
    const attached = await this.api.call<ExportCreated>(
      "POST",
      `/snapshots/${snapshot.id}/attach`,
      { initiator, chap: "none" },
    );
    await this.untilServed(attached.targetIqn);
    const disk = new GuestDisk(this.client!, portal, attached.targetIqn, "clone");
    await disk.attach();
    const clone = new GuestDatabase(this.client!, disk.mountPoint, "clone");
    await clone.start();
    await clone.check();
    const last = await clone.lastCommit();
    expectThat(
      last >= least && last <= most,
      `Its last commit is ${last}; it was taken between ${least} and ${most}.`,
    );
    await clone.stop();
    await disk.detach();
    await this.api.call("DELETE", `/exports/${attached.id}`);
    await this.api.call("DELETE", `/volumes/${attached.volumeId}`);
    await this.api.call("DELETE", `/snapshots/${snapshot.id}`);
    this.context.note(`its last commit is ${last}, of ${least} to ${most}`);
  }

  private async untilServed(target: string): Promise<void> {
    const untilMs = Date.now() + servedMs;
    const served = async () =>
      (await this.api.call<Export[]>("GET", "/exports")).some(
        ({ targetIqn, state }) => targetIqn === target && state === "ready",
      );
    while (!(await served())) {
      if (Date.now() > untilMs) throw new KeelsonError("TIMEOUT", `${target} is not served.`);
      await sleep(500);
    }
  }
}
