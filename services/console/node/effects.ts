/** Carries out what the menus ask for, and looks at the node. */
import { execFile } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { explainError, isKeelsonError, KeelsonError } from "#lib/model/errors.ts";
import { unixClient, unixFetch, unwrap } from "#lib/rpc/client.ts";
import type { Log } from "#lib/service/log.ts";
import { writeStateFile } from "#lib/service/state-file.ts";
import type { ConsoleApi } from "#services/api/api.ts";
import type { NetworkApi } from "#services/network/api.ts";
import type { NetworkView } from "#services/network/schema.ts";
import { type NodeFacts, readUnitStates, type SlotFacts } from "./facts.ts";
import { readJournal } from "./journal.ts";
import { listSticks, writeOnStick } from "./media.ts";
import type { NodeEffect, NodeEvent, Wish } from "./node.ts";
import { makeSupportBundle, supportFolder } from "./support.ts";

const run = promisify(execFile);

export const watchedUnits = [
  "keelson-chunk-store",
  "keelson-iscsi-target",
  "keelson-netboot",
  "keelson-network",
  "keelson-cluster-store",
  "keelson-firmware-updater",
  "keelson-api",
];

export interface NodeWorldOptions {
  /** Where the services' sockets are. */
  readonly run: string;
  /** Where node.json is. */
  readonly state: string;
  readonly log: Log;
  /** Gives a line to another program, and takes it again. */
  readonly release: (line: string) => void;
  readonly take: (line: string) => void;
}

/** The installed node as this console reaches it: other services' sockets, systemd, the journal. */
export class NodeWorld {
  readonly #options: NodeWorldOptions;
  readonly #api: ReturnType<typeof unixClient<ConsoleApi>>;
  readonly #network: ReturnType<typeof unixClient<NetworkApi>>;

  constructor(options: NodeWorldOptions) {
    this.#options = options;
    this.#api = unixClient<ConsoleApi>(join(options.run, "api/console.sock"), 20_000);
    this.#network = unixClient<NetworkApi>(join(options.run, "network/api.sock"), 20_000);
  }

  async look(): Promise<NodeFacts> {
    const { run: folder, state } = this.#options;
    const environment = readOr(join(folder, "node.env"), "");
    const release = readOr("/etc/os-release", "");
    const [units, overview, network, slots] = await Promise.all([
      this.#units().catch(() => []),
      unwrap(this.#api.v1.overview.$get()).catch(() => undefined),
      this.#networkView().catch(() => undefined),
      this.#slots().catch(() => undefined),
    ]);
    return {
      name: field(environment, "KEELSON_NODE_NAME"),
      version: field(release, "IMAGE_VERSION"),
      developmentBuild: field(release, "VARIANT_ID") === "development",
      unconfigured: !existsSync(join(state, "node.json")),
      units,
      api:
        overview === undefined
          ? undefined
          : {
              name: overview.node.name,
              version: overview.node.version,
              developmentBuild: overview.node.devBuild,
              addresses: overview.node.addresses.map(({ address }) => address),
              fingerprint: overview.leafFingerprint,
              caFingerprint: overview.node.certificateFingerprint,
              conditions: overview.conditions,
            },
      network,
      slots,
    };
  }

  async carryOut(effect: NodeEffect): Promise<NodeEvent> {
    try {
      return await this.#perform(effect);
    } catch (error) {
      if (!isKeelsonError(error)) this.#options.log.error("unexpected", { why: String(error) });
      return { kind: "failed", request: effect.request, message: explainError(error) };
    }
  }

  async #perform(effect: NodeEffect): Promise<NodeEvent> {
    const { request } = effect;
    const told = (notice: string, to: "status" | "menu" | "confirm"): NodeEvent => ({
      ...{ kind: "told", request, notice, to },
    });
    switch (effect.kind) {
      case "apply":
        await unwrap(
          this.#network.v1.apply.$post({
            json: { config: effect.config, confirmWithinSeconds: 60 },
          }),
        );
        await this.#record(effect, "apply network settings");
        return { kind: "applied", request };
      case "keep":
        await unwrap(this.#network.v1.confirm.$post({ json: { id: effect.id } }));
        await this.#record(effect, "confirm network settings");
        return told("The network settings are kept.", "status");
      case "revert":
        await unwrap(this.#network.v1.revert.$post({ json: { id: effect.id } }));
        await this.#record(effect, "revert network settings");
        return told("The network is as it was before.", "status");
      case "setPassword": {
        const { password, removeSecondFactor } = effect;
        await unwrap(
          this.#api.v1["admin-password"].$post({ json: { password, removeSecondFactor } }),
        );
        await this.#record(effect, "reset the password of admin");
        return told("admin has a new password; all of admin's sessions have ended.", "menu");
      }
      case "readLogs":
        return { kind: "log", request, lines: await readJournal(effect.search) };
      case "listMedia":
        return { kind: "media", request, media: await listSticks() };
      case "bundle":
        return await this.#bundle(effect.target, request);
      case "shell":
        await this.#shell(effect);
        return told("The shell was closed.", "menu");
      case "restart":
      case "powerOff":
        await this.#record(effect, effect.kind === "restart" ? "restart" : "shut down");
        await run("systemctl", ["--no-block", effect.kind === "restart" ? "reboot" : "poweroff"]);
        return told("Going down ...", "status");
      case "otherSlot":
        await this.#bootOtherSlot();
        await this.#record(effect, "boot the other slot");
        return told("Restarting with the other version ...", "status");
      case "reset":
        await this.#record(effect, "factory reset");
        writeStateFile(
          join(this.#options.state, "factory-reset.json"),
          `${JSON.stringify({ version: 1, erasePool: effect.erasePool })}\n`,
        );
        await run("systemctl", ["--no-block", "reboot"]);
        return told("Restarting ...", "status");
    }
  }

  /** In the audit log; where api doesn't answer, in the journal alone. */
  async #record(wish: Wish | { kind: string }, action: string, detail = ""): Promise<void> {
    this.#options.log.info("console", { action, detail });
    const post = unixFetch(join(this.#options.run, "api/console.sock"), 5_000);
    await post("http://unix/v1/audit", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({
        ...{ via: "console", action, target: null, outcome: "done" },
        detail: detail === "" ? null : detail,
      }),
    }).catch(() => {
      this.#options.log.warn("not in the audit log: api does not answer", { action: wish.kind });
    });
  }

  /** Its JSON leaves out what is undefined. */
  async #networkView(): Promise<NetworkView> {
    return (await unwrap(this.#network.v1.network.$get())) as NetworkView;
  }

  async #units() {
    const properties = "--property=Id,LoadState,ActiveState,Result,ConditionResult";
    const names = watchedUnits.map((name) => `${name}.service`);
    const { stdout } = await run("systemctl", ["show", properties, ...names]);
    return readUnitStates(stdout);
  }

  async #bundle(target: string, request: number): Promise<NodeEvent> {
    const made = await makeSupportBundle({
      run: this.#options.run,
      state: this.#options.state,
      facts: await this.look(),
    });
    await this.#record({ kind: "bundle" }, "make a support bundle", target);
    if (target !== "url") {
      const place = await writeOnStick(target, made.path, made.name);
      return { kind: "support", request, url: "", place };
    }
    const { token } = await unwrap(
      this.#api.v1["support-bundle"].$post({ json: { file: made.name } }),
    );
    const facts = await this.look();
    const address = facts.api?.addresses[0] ?? facts.name;
    const host = address.includes(":") ? `[${address}]` : address;
    const url = `https://${host}/api/v1/support-bundle/${token}`;
    return {
      kind: "support",
      request,
      url,
      place: join(supportFolder(this.#options.run), made.name),
    };
  }

  async #shell({ password, line }: { password: string; line: string }): Promise<void> {
    await unwrap(this.#api.v1["admin-password"].check.$post({ json: { password } }));
    const name = line.replace(/^\/dev\//, "");
    const unit = `keelson-shell@${name.replaceAll("/", "-")}.service`;
    await this.#record({ kind: "shell" }, "open a shell", name);
    const { release, take } = this.#options;
    release(line);
    try {
      // Returns when the shell has ended.
      await run("systemctl", ["start", "--wait", unit]);
    } catch (cause) {
      throw new KeelsonError("INTERNAL", `The shell on ${name} ended badly.`, {
        remedy: `See: journalctl -u ${unit}`,
        cause,
      });
    } finally {
      take(line);
      await this.#record({ kind: "shell" }, "close the shell", name);
    }
  }

  async #slots(): Promise<SlotFacts | undefined> {
    const socket = join(this.#options.run, "firmware-updater/api.sock");
    if (!existsSync(socket)) return undefined;
    const answer = await unixFetch(socket, 10_000)("http://unix/v1/state");
    if (!answer.ok) return undefined;
    const { nodes } = (await answer.json()) as {
      nodes: {
        running: { slot: string };
        other: { slot: string; version: string | null; state: string };
        wayBack: { ok: boolean };
      }[];
    };
    const [node] = nodes;
    if (node === undefined) return undefined;
    const { running, other, wayBack } = node;
    return {
      running: running.slot.toUpperCase(),
      other: other.slot.toUpperCase(),
      otherVersion: other.version,
      why: whyNot[other.state] ?? (wayBack.ok ? undefined : unreadableData),
    };
  }

  async #bootOtherSlot(): Promise<void> {
    const socket = join(this.#options.run, "firmware-updater/api.sock");
    await unwrap(unixFetch(socket, 30_000)("http://unix/v1/rollback", { method: "POST" }) as never);
  }
}

const unreadableData = "has a version that can't read this node's data";

/** Why the other slot isn't booted, by its state (firmware-updater/schema.ts); `good` has no reason. */
const whyNot: Readonly<Record<string, string>> = {
  empty: "is empty",
  unfinished: "was not written to its end",
  trial: "is being tried just now",
  failed: "failed to start",
};

function field(text: string, name: string): string {
  return new RegExp(`^${name}="?([^"\n]*)"?$`, "m").exec(text)?.[1] ?? "";
}

function readOr(path: string, other: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return other;
  }
}
