/** Volumes served over NBD by a process of their own: the real chunk-store, and qcow2 by QEMU. */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { randomUUID } from "node:crypto";
import { closeSync, existsSync, mkdirSync, openSync, readFileSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { join } from "node:path";
import { createInterface, type Interface } from "node:readline";
import { setTimeout as delay } from "node:timers/promises";
import { KeelsonError } from "#lib/model/errors.ts";
import { NbdClient } from "#lib/nbd/client.ts";
import { unixFetch } from "#lib/rpc/client.ts";
import { endProcess } from "#qa/processes.ts";
import { openFileDisk } from "#services/chunk-store/file-disk.ts";
import type { NbdGrant } from "#services/chunk-store/schema.ts";
import { Supervisor } from "#tools/supervisor.ts";
import { format } from "./engine.ts";
import { writtenFile } from "./raw.ts";
import type { SnapshotSource } from "./snapshot-source.ts";

/** One volume, open. */
export interface ServedVolume {
  readonly client: NbdClient;
  readonly snapshots: SnapshotSource;
}

/** chunk-store on a store in a file that is wholly written; its volumes by one-time NBD grants. */
export class ChunkStore {
  private readonly supervisor: Supervisor;
  private readonly run: string;

  private constructor(supervisor: Supervisor, run: string) {
    this.supervisor = supervisor;
    this.run = run;
  }

  static async start(directory: string, storeBytes: number): Promise<ChunkStore> {
    const path = writtenFile(join(directory, "store"), storeBytes);
    const file = openFileDisk(path);
    format({ file });
    file.close();
    const supervisor = new Supervisor({ logDirectory: join(directory, "log") });
    const run = join(directory, "run");
    const state = join(directory, "state");
    await supervisor.start({
      name: "chunk-store",
      args: ["--state", state, "--run", run, "--device", path],
    });
    return new ChunkStore(supervisor, run);
  }

  async volume(sizeBytes: number): Promise<ServedVolume> {
    const id = randomUUID();
    const path = `/v1/volumes/${id}`;
    await this.call("PUT", path, { sizeBytes });
    const grant = (await this.call("POST", `${path}/nbd-grants`, {})) as NbdGrant;
    return {
      client: await NbdClient.connect(grant.socket, grant.token),
      snapshots: this.snapshotsOf(id),
    };
  }

  private snapshotsOf(volume: string): SnapshotSource {
    const ids = new Map<string, string>();
    return {
      takeSnapshot: async (name) => {
        const id = randomUUID();
        await this.call("POST", "/v1/snapshots", { snapshots: [{ id, volume }] });
        ids.set(name, id);
      },
      deleteSnapshot: async (name) => {
        await this.call("DELETE", `/v1/snapshots/${ids.get(name)}`);
        ids.delete(name);
      },
    };
  }

  private async call(method: string, path: string, body?: object): Promise<unknown> {
    const answer = await unixFetch(join(this.run, "api.sock"))(`http://unix${path}`, {
      method,
      ...(body === undefined
        ? {}
        : { headers: { "content-type": "application/json" }, body: JSON.stringify(body) }),
    });
    if (answer.status === 204) return undefined;
    if (answer.ok) return await answer.json();
    throw new KeelsonError("UNAVAILABLE", `${method} ${path}: ${await answer.text()}`);
  }

  async stop(): Promise<void> {
    await this.supervisor.stop();
  }
}

const exportName = "disk";
const startMs = 10_000;

/** qemu-storage-daemon on a qcow2 file: write-back through the page cache, flushes are honoured. */
export class Qcow2 implements ServedVolume, SnapshotSource {
  readonly client: NbdClient;
  readonly snapshots = this;
  private readonly child: ChildProcess;
  private readonly monitor: Monitor;

  private constructor(child: ChildProcess, client: NbdClient, monitor: Monitor) {
    this.child = child;
    this.client = client;
    this.monitor = monitor;
  }

  static async start(directory: string, sizeBytes: number): Promise<Qcow2> {
    mkdirSync(directory, { recursive: true });
    const place = (name: string) => join(directory, name);
    const image = place("disk.qcow2");
    const made = spawnSync("qemu-img", ["create", "-f", "qcow2", image, String(sizeBytes)]);
    if (made.status !== 0) throw missing(`qemu-img: ${made.error?.message ?? made.stderr}`);
    const log = openSync(place("log"), "w");
    const cache = "cache.direct=off,cache.no-flush=off";
    const child = spawn(
      "qemu-storage-daemon",
      [
        ...["--blockdev", `driver=file,node-name=file,filename=${image},${cache}`],
        ...["--blockdev", `driver=qcow2,node-name=${exportName},file=file,${cache}`],
        ...["--nbd-server", `addr.type=unix,addr.path=${place("nbd.sock")}`],
        ...["--export", `type=nbd,id=nbd,node-name=${exportName},name=${exportName},writable=on`],
        ...["--chardev", `socket,id=qmp,path=${place("qmp.sock")},server=on,wait=off`],
        ...["--monitor", "chardev=qmp"],
      ],
      { stdio: ["ignore", log, log] },
    );
    closeSync(log);
    let error: Error | undefined;
    child.once("error", (cause) => {
      error = cause;
    });
    for (let waited = 0; !existsSync(place("qmp.sock")) || !existsSync(place("nbd.sock")); ) {
      if (error !== undefined || child.exitCode !== null || waited > startMs) {
        child.kill("SIGKILL");
        throw missing(error?.message ?? readFileSync(place("log"), "utf8").trim());
      }
      await delay(50);
      waited += 50;
    }
    try {
      const client = await NbdClient.connect(place("nbd.sock"), exportName);
      return new Qcow2(child, client, await Monitor.connect(place("qmp.sock")));
    } catch (cause) {
      child.kill("SIGKILL");
      throw cause;
    }
  }

  async takeSnapshot(name: string): Promise<void> {
    await this.monitor.execute("blockdev-snapshot-internal-sync", { device: exportName, name });
  }

  async deleteSnapshot(name: string): Promise<void> {
    const device = exportName;
    await this.monitor.execute("blockdev-snapshot-delete-internal-sync", { device, name });
  }

  async stop(): Promise<void> {
    this.monitor.close();
    await endProcess(this.child, "SIGKILL");
  }
}

/** QEMU's monitor: a line of JSON each way, one command at a time. */
class Monitor {
  private readonly socket: Socket;
  private readonly lines: Interface;
  private answer: ((line: string) => void) | undefined;

  private constructor(socket: Socket) {
    this.socket = socket;
    this.lines = createInterface({ input: socket });
    // Events come between answers; nothing here waits for one.
    this.lines.on("line", (line) => {
      if (!("event" in JSON.parse(line))) this.answer?.(line);
    });
  }

  static async connect(path: string): Promise<Monitor> {
    const monitor = new Monitor(connect(path));
    await monitor.next();
    await monitor.execute("qmp_capabilities", {});
    return monitor;
  }

  async execute(command: string, parameters: object): Promise<void> {
    this.socket.write(JSON.stringify({ execute: command, arguments: parameters }));
    const { error } = JSON.parse(await this.next()) as { error?: { desc: string } };
    if (error !== undefined) throw new KeelsonError("UNAVAILABLE", `${command}: ${error.desc}.`);
  }

  private next(): Promise<string> {
    return new Promise((resolve, reject) => {
      this.answer = resolve;
      this.socket.once("error", reject);
    });
  }

  close(): void {
    this.lines.close();
    this.socket.destroy();
  }
}

function missing(what: string): KeelsonError {
  return new KeelsonError("UNAVAILABLE", `qcow2 is not served: ${what}.`, {
    remedy: "Install the Debian packages qemu-utils and qemu-system-common.",
  });
}
