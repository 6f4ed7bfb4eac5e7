/** chunk-store and iscsi-target as child processes, restarted as systemd would, volumes exported. */
import { randomUUID } from "node:crypto";
import { mkdirSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { KeelsonError } from "#lib/model/errors.ts";
import { unixFetch } from "#lib/rpc/client.ts";
import { Supervisor } from "#tools/supervisor.ts";

export interface BlockNodeOptions {
  /** Kept by the caller; the store's file and logs stand here. */
  readonly directory: string;
  /** One volume each, exported as LUN 0 of its own target, open to loopback. */
  readonly volumesBytes: readonly number[];
  readonly storeBytes: number;
  /** The first free one from here on is taken, and kept over restarts. */
  readonly firstPort: number;
  readonly addon?: boolean;
  /** Put before `node`: `["perf", "record", ...]`. */
  readonly prefix?: readonly string[];
  readonly environment?: NodeJS.ProcessEnv;
}

export class BlockNode {
  readonly supervisor: Supervisor;
  readonly portal: string;
  private readonly options: BlockNodeOptions;

  private constructor(options: BlockNodeOptions, portal: string) {
    this.options = options;
    this.portal = portal;
    this.supervisor = new Supervisor({ logDirectory: join(options.directory, "log") });
  }

  static async start(options: BlockNodeOptions): Promise<BlockNode> {
    const node = new BlockNode(options, `127.0.0.1:${await freePort(options.firstPort)}`);
    try {
      await node.startServices();
      await node.exportVolumes();
    } catch (error) {
      await node.stop();
      throw error;
    }
    return node;
  }

  private run(name: string): string {
    return join(this.options.directory, "run", name);
  }

  private async startServices(): Promise<void> {
    const { directory, storeBytes, addon, prefix, environment } = this.options;
    const extra = {
      env: { ...environment, ...(addon === false ? { KEELSON_NO_NATIVE: "1" } : {}) },
      ...(prefix === undefined ? {} : { prefix }),
    };
    const place = (name: string) => ["--state", join(directory, name), "--run", this.run(name)];
    mkdirSync(join(directory, "chunk-store"), { recursive: true, mode: 0o700 });
    mkdirSync(join(directory, "iscsi-target"), { recursive: true, mode: 0o700 });
    const native = addon === false ? ["--no-native"] : [];
    await this.supervisor.start({
      name: "chunk-store",
      args: [
        ...place("chunk-store"),
        "--device",
        join(directory, "chunk-store", "store.img"),
        "--create",
        String(storeBytes),
        ...native,
      ],
      ...extra,
    });
    await this.supervisor.start({
      name: "iscsi-target",
      args: [
        ...place("iscsi-target"),
        "--store-run",
        this.run("chunk-store"),
        "--portal",
        this.portal,
        ...native,
      ],
      ...extra,
    });
  }

  private async put(service: string, path: string, body: object): Promise<void> {
    const answer = await unixFetch(join(this.run(service), "api.sock"))(`http://unix${path}`, {
      method: "PUT",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
    });
    if (!answer.ok) {
      throw new KeelsonError("UNAVAILABLE", `PUT ${path}: ${await answer.text()}`, {
        object: service,
      });
    }
  }

  /** Name of the target that exports volume `index`. */
  iqn(index: number): string {
    return `iqn.2026-11.org.keelson.qa:disk${index}`;
  }

  private async exportVolumes(): Promise<void> {
    const exports = [];
    for (const [index, sizeBytes] of this.options.volumesBytes.entries()) {
      const volumeId = randomUUID();
      await this.put("chunk-store", `/v1/volumes/${volumeId}`, { sizeBytes });
      exports.push({ id: `disk${index}`, iqn: this.iqn(index), volumeId, openToLoopback: true });
    }
    await this.put("iscsi-target", "/v1/exports", { generation: 1, exports });
  }

  /** Ends a service without warning; the supervisor starts it again. */
  kill(service: "chunk-store" | "iscsi-target"): void {
    process.kill(this.supervisor.pids[service], "SIGKILL");
  }

  async stop(): Promise<void> {
    await this.supervisor.stop();
  }
}

/** The first port from `first` on that nobody listens on at loopback. */
export async function freePort(first: number): Promise<number> {
  for (let port = first; port < first + 100; port++) {
    const free = await new Promise<boolean>((resolve) => {
      const server = createServer();
      server.once("error", () => resolve(false));
      server.listen(port, "127.0.0.1", () => server.close(() => resolve(true)));
    });
    if (free) return port;
  }
  throw new KeelsonError("PORT_IN_USE", `No free port from ${first} to ${first + 99}.`);
}
