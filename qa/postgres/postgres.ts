/**
 * PostgreSQL under load on an ext4 on a volume, through API, target and store. Snapshots are taken
 * meanwhile, and between some of them everything loses its power. What each holds must recover as
 * after a power cut: PostgreSQL's and ext4's own checks find nothing, what was committed before the
 * snapshot was asked for is in it, and nothing from after its answer.
 */
import type { ChildProcess } from "node:child_process";
import { chmodSync, mkdirSync, mkdtempSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { dataFormats } from "#lib/data-format/formats.ts";
import { KeelsonError } from "#lib/model/errors.ts";
import { Random } from "#lib/sim/random.ts";
import { CutDisk } from "#qa/powercut/cut-disk.ts";
import { hasEnded } from "#qa/processes.ts";
import { type DevNode, startDevNode } from "#qa/ui/node.ts";
import type { Export, ExportCreated, Volume } from "#services/api/schema.ts";
import type { Snapshot } from "#services/api/snapshot-schema.ts";
import { checkDevice } from "#services/chunk-store/offline.ts";
import { openStore } from "#services/chunk-store/store-device.ts";
import { AttachedDisk } from "./attached-disk.ts";
import { type Commits, Database } from "./database.ts";

export interface PostgresOptions {
  readonly snapshots: number;
  /** The power goes after every so many snapshots. */
  readonly cutEvery: number;
  /** pgbench's: 100,000 accounts, some 15 MB, each. */
  readonly scale: number;
  readonly clients: number;
  readonly seed: number;
  readonly onStep: (text: string) => void;
  /** Ends it at its next step, with nothing left behind. */
  readonly signal: AbortSignal;
}

export interface PostgresResult {
  readonly snapshots: number;
  readonly powerCuts: number;
  readonly commits: number;
}

const volumeBytes = 2 * 2 ** 30;
const storeBytes = 2 ** 30;
const initiator = "iqn.2026-11.org.keelson.qa:database";

export async function runPostgres(options: PostgresOptions): Promise<PostgresResult> {
  const bench = new Bench(options);
  try {
    return await bench.run();
  } finally {
    await bench.end();
  }
}

class Bench {
  private readonly options: PostgresOptions;
  private readonly random: Random;
  private readonly directory = mkdtempSync(join(tmpdir(), "keelson-postgres-"));
  private power: CutDisk | undefined;
  private node: DevNode | undefined;
  private volumeId = "";
  private target = "";
  private disk: AttachedDisk | undefined;
  private clone: AttachedDisk | undefined;
  private database: Database | undefined;
  private cloned: Database | undefined;
  private pgbench: ChildProcess | undefined;
  private commits: Commits | undefined;
  private attachments = 0;

  constructor(options: PostgresOptions) {
    this.options = options;
    this.random = new Random(options.seed);
    // The user postgres passes through to its sockets.
    chmodSync(this.directory, 0o711);
  }

  async run(): Promise<PostgresResult> {
    const { snapshots, cutEvery, scale, onStep } = this.options;
    await this.startNode();
    await this.makeVolume();
    this.disk = await this.attach(this.target, true);
    this.database = new Database(this.disk.mountPoint, join(this.directory, "socket"));
    await this.database.create(scale);
    onStep("a database with pgbench's tables is made");
    this.startLoad(0);
    let powerCuts = 0;
    for (let number = 1; number <= snapshots; number++) {
      await this.pause(500, 3000);
      onStep(`snapshot ${number}: ${await this.snapshot(number)}`);
      if (number % cutEvery !== 0) continue;
      powerCuts++;
      onStep(`power cut ${powerCuts}: ${await this.cutPower()}`);
    }
    const commits = this.commits!.acknowledged;
    this.stopLoad();
    await this.database.check();
    await this.database.stop();
    await this.disk.detach();
    return { snapshots, powerCuts, commits };
  }

  // ---- the node and its volume

  private async startNode(): Promise<void> {
    const durable = join(this.directory, "durable.img");
    const state = join(this.directory, "node");
    const format = dataFormats["chunk-store"].newest;
    const made = openStore({
      ...{ path: durable, createBytes: storeBytes, pool: undefined, memoryBytes: 0, format },
    });
    made.store.shutdown();
    this.power = await CutDisk.mount(durable, join(this.directory, "power"), false);
    mkdirSync(join(state, "chunk-store"), { recursive: true });
    symlinkSync(this.power.file, join(state, "chunk-store", "store.img"));
    this.node = await startDevNode({ state });
  }

  private async makeVolume(): Promise<void> {
    const volume = { name: "database", sizeBytes: volumeBytes };
    this.volumeId = (await this.node!.call<Volume>("POST", "/volumes", volume)).id;
    const { targetIqn } = await this.node!.call<ExportCreated>("POST", "/exports", {
      ...{ name: "database", volumeId: this.volumeId, initiators: [initiator] },
      chap: { kind: "none" },
    });
    this.target = targetIqn;
  }

  private async attach(target: string, format = false): Promise<AttachedDisk> {
    const untilMs = Date.now() + 60_000;
    const ready = async () =>
      (await this.node!.call<Export[]>("GET", "/exports")).some(
        ({ targetIqn, state }) => targetIqn === target && state === "ready",
      );
    while (!(await ready())) {
      if (Date.now() > untilMs) throw new KeelsonError("TIMEOUT", `${target} is not served.`);
      await this.pause(100, 100);
    }
    const folder = join(this.directory, `disk-${++this.attachments}`);
    const portal = this.node!.iscsiPortal;
    return await AttachedDisk.attach({ portal, target, initiator }, folder, format);
  }

  // ---- the load

  private startLoad(from: number): void {
    this.pgbench = this.database!.load(this.options.clients);
    this.commits = this.database!.commits(from);
  }

  private stopLoad(): void {
    this.commits?.stop();
    this.pgbench?.kill("SIGKILL");
  }

  /** Without it nothing would be shown: a server that refuses to write ends its clients. */
  private requireLoad(): void {
    const ended = hasEnded(this.pgbench!) ? "pgbench" : this.commits!.ended ? "psql" : undefined;
    if (ended === undefined) return;
    throw new KeelsonError("INTERNAL", `${ended} ended; PostgreSQL says: ${this.database!.log}`);
  }

  // ---- what is shown

  /** Taken, cloned, attached, recovered, checked, deleted. */
  private async snapshot(number: number): Promise<string> {
    const node = this.node!;
    this.requireLoad();
    const least = this.commits!.acknowledged;
    const [snapshot] = await node.call<Snapshot[]>("POST", "/snapshots", {
      ...{ volumes: [this.volumeId], name: `under-load-${number}` },
    });
    // One may be committed, and its answer under way.
    const most = this.commits!.acknowledged + 1;
    const attached = await node.call<ExportCreated>("POST", `/snapshots/${snapshot.id}/attach`, {
      ...{ initiator, chap: "none" },
    });
    this.clone = await this.attach(attached.targetIqn);
    this.cloned = new Database(this.clone.mountPoint, join(this.directory, "socket-clone"));
    await this.cloned.start();
    await this.cloned.check();
    const last = await this.cloned.lastCommit();
    if (last < least || last > most) {
      throw new KeelsonError(
        "INTERNAL",
        `Its last commit is ${last}; it was taken between ${least} and ${most}.`,
      );
    }
    await this.cloned.stop();
    await this.clone.detach();
    this.clone = undefined;
    await node.call("DELETE", `/exports/${attached.id}`);
    await node.call("DELETE", `/volumes/${attached.volumeId}`);
    await node.call("DELETE", `/snapshots/${snapshot.id}`);
    return `its last commit is ${last}, of ${least} to ${most}`;
  }

  /** Node and database at once; the disk keeps any part of what it had not flushed. */
  private async cutPower(): Promise<string> {
    await this.node!.kill();
    const least = this.commits!.acknowledged;
    this.stopLoad();
    await this.database!.kill();
    await this.disk!.abandon();
    const kept = this.power!.cut(this.random.next(), this.random.pick([0, 10, 50, 90, 100]));
    const [problem] = checkDevice(this.power!.file, { data: true }).problems;
    if (problem !== undefined) {
      throw new KeelsonError("INTERNAL", `keelson store check: ${problem.text}`);
    }
    this.node = await startDevNode({ state: join(this.directory, "node") });
    this.disk = await this.attach(this.target);
    this.database = new Database(this.disk.mountPoint, join(this.directory, "socket"));
    await this.database.start();
    await this.database.check();
    const last = await this.database.lastCommit();
    if (last < least) {
      throw new KeelsonError("INTERNAL", `Commit ${least} was acknowledged; the last is ${last}.`);
    }
    this.startLoad(last);
    return `${kept}; acknowledged ${least}, there ${last}`;
  }

  async end(): Promise<void> {
    this.stopLoad();
    for (const database of [this.cloned, this.database]) await database?.kill();
    for (const disk of [this.clone, this.disk]) await disk?.abandon();
    await this.node?.stop();
    await this.power?.unmount();
    rmSync(this.directory, { recursive: true, force: true });
  }

  private pause(leastMs: number, mostMs: number): Promise<void> {
    const ms = leastMs + this.random.below(mostMs - leastMs + 1);
    this.options.signal.throwIfAborted();
    return new Promise((resolve) => setTimeout(resolve, ms));
  }
}
