/** One node for the scenarios `upgrade` and `rollback`: installed once, then run from overlays. */
import { spawnSync } from "node:child_process";
import { constants, copyFileSync, createReadStream, existsSync, rmSync, statSync } from "node:fs";
import { basename, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { isKeelsonError, KeelsonError } from "#lib/model/errors.ts";
import type { OfferedBundle, UpgradePlan, UpgradeState } from "#services/api/upgrade-schema.ts";
import { ApplianceClient, type ApplianceOptions, limits, startAppliance } from "./appliance.ts";
import { type NodeDisk, overlay, overlayFiles } from "./installations.ts";
import { type Firmware, freePort, type Machine } from "./machine.ts";
import type { ScenarioContext } from "./scenario.ts";
import { writeStick } from "./seed.ts";
import { createSegment } from "./segment.ts";

/** A guest of one emulated core feels each question. */
const pollMs = 3_000;
/** A guest of an emulated machine may take this long for what is asked of it. */
export const planMs = 3_600_000;

export class UpgradeNode {
  readonly client: ApplianceClient;
  readonly password: string;
  readonly #options: ApplianceOptions & { readonly variables: string };
  machine: Machine | undefined;
  /** As it was taken: none if it has to boot. */
  readonly #state: string | undefined;
  #starts = 0;

  private constructor(options: ApplianceOptions, { state, password, ...files }: NodeDisk) {
    this.#options = { ...options, ...files, diskFormat: "qcow2" };
    this.#state = state;
    this.password = password;
    this.client = new ApplianceClient(options.httpsPort);
  }

  /** The image under test, installed and not started yet. */
  static async install(firmware: Firmware, context: ScenarioContext): Promise<UpgradeNode> {
    const installed = await context.installations.get(firmware, context);
    return UpgradeNode.#of(firmware, context, overlay(installed, context.directory, firmware));
  }

  /** The image under test, installed; one that served in a scenario before, if there is one. */
  static async take(firmware: Firmware, context: ScenarioContext): Promise<UpgradeNode> {
    const disk = await context.installations.take(firmware, context, firmware);
    return UpgradeNode.#of(firmware, context, disk);
  }

  static async #of(firmware: Firmware, context: ScenarioContext, disk: NodeDisk) {
    const { directory } = context;
    return new UpgradeNode(
      {
        name: firmware,
        directory,
        disk: disk.disk,
        firmware,
        acceleration: context.acceleration.acceleration,
        httpsPort: await freePort(),
        // It serves diskless clients there, though none come.
        segment: await createSegment(join(directory, `${firmware}.hub`)),
        ...(context.verbose ? { onLine: (line: string) => context.note(line) } : {}),
      },
      disk,
    );
  }

  /** It is off then, and its disk is gone. */
  async end(): Promise<void> {
    await this.kill();
    await this.#options.segment?.close();
    rmSync(this.#options.disk, { force: true });
    rmSync(this.#options.variables, { force: true });
  }

  /** Another node that has what this one has on its disk, saved states too; this one must be off. */
  async copy(name: string): Promise<UpgradeNode> {
    const segment = await createSegment(join(this.#options.directory, `${name}.hub`));
    const files = overlayFiles(this.#options.directory, name);
    for (const file of ["disk", "variables"] as const) {
      const from = this.#options[file];
      if (existsSync(from)) copyFileSync(from, files[file], constants.COPYFILE_FICLONE);
    }
    const own = { name, httpsPort: await freePort(), segment };
    return new UpgradeNode({ ...this.#options, ...own }, { ...files, password: this.password });
  }

  /** Its first start here: it goes on where it was taken, if it was serving then. */
  startFirst(): Promise<Machine> {
    return this.start(this.#state);
  }

  /** Starts it, or lets it go on from a state that `machine.saveState` kept. */
  async start(state?: string): Promise<Machine> {
    const name = `${this.#options.name}-${++this.#starts}`;
    this.machine = await startAppliance({
      ...this.#options,
      name,
      ...(state === undefined ? {} : { state }),
    });
    // It answers once the state is loaded. Killed before, it may leave disks whose saved states
    // share blocks that QEMU takes for the running one's own, and writes over.
    if (state !== undefined) await this.machine.command("query-status");
    return this.machine;
  }

  /** INTERNAL if a kill left its disk files damaged as files: the guest isn't to blame for that. */
  checkDiskFiles(): void {
    // There are no variables under BIOS.
    for (const path of [this.#options.disk, this.#options.variables].filter(existsSync)) {
      const { status, stdout } = spawnSync("qemu-img", ["check", "--output=json", path], {
        encoding: "utf8",
        // A line for each block that nothing uses.
        stdio: ["ignore", "pipe", "ignore"],
      });
      // 3: there are such blocks, as a kill may leave them; nothing is wrong with the rest.
      if (status === 0 || status === 3) continue;
      throw new KeelsonError("INTERNAL", `QEMU left ${path} damaged: ${stdout?.trim()}`);
    }
  }

  async kill(): Promise<void> {
    await this.machine?.kill();
    this.machine = undefined;
  }

  async powerOff(): Promise<void> {
    const clean = await this.machine?.powerOff(limits.stopMs);
    this.machine = undefined;
    if (clean === false) throw new KeelsonError("TIMEOUT", "The node did not power off.");
  }

  /** Until the API answers and takes the log-in; the machine may restart meanwhile. */
  async waitUntilUp(timeoutMs: number = limits.bootMs): Promise<void> {
    const until = Date.now() + timeoutMs;
    for (;;) {
      try {
        await this.client.logIn(this.password);
        return;
      } catch (error) {
        if (this.machine?.running !== true || Date.now() > until) {
          throw new KeelsonError(
            "TIMEOUT",
            `The node is not up: ${(error as Error).message}. ${this.machine?.serial.tail(30)}`,
          );
        }
        await sleep(pollMs);
      }
    }
  }

  /** The state; undefined while the node does not answer. */
  async tryState(): Promise<UpgradeState | undefined> {
    try {
      return await this.client.call<UpgradeState>("GET", "/upgrade");
    } catch (error) {
      if (isKeelsonError(error, "UNAUTHENTICATED")) {
        await this.client.logIn(this.password).catch(() => {});
      }
      return undefined;
    }
  }

  async waitFor(
    what: string,
    holds: (state: UpgradeState) => boolean,
    timeoutMs = planMs,
  ): Promise<UpgradeState> {
    const until = Date.now() + timeoutMs;
    let last: UpgradeState | undefined;
    while (Date.now() < until) {
      const state = await this.tryState();
      if (state !== undefined && holds(state)) return state;
      last = state ?? last;
      if (this.machine?.running !== true) {
        throw new KeelsonError("UNAVAILABLE", `QEMU ended. ${this.machine?.serial.tail(30)}`);
      }
      await sleep(pollMs);
    }
    throw new KeelsonError(
      "TIMEOUT",
      `No ${what}. Last seen: ${JSON.stringify(last?.plan ?? last)}. ${this.machine?.serial.tail(30)}`,
    );
  }

  /** The installation has been found well and its slot is kept. */
  async waitUntilKept(): Promise<UpgradeState> {
    return await this.waitFor(
      "kept installation",
      ({ nodes }) => nodes[0].running.state === "good",
    );
  }

  async upload(path: string): Promise<OfferedBundle> {
    const { size } = statSync(path);
    return await this.client.upload<OfferedBundle>(
      `/upgrade/bundles?name=${encodeURIComponent(basename(path))}`,
      createReadStream(path, { highWaterMark: 1 << 20 }),
      size,
      "POST",
    );
  }

  /** The bundle comes on a stick: under emulation a fifth of the time of an upload. */
  async fetchFromStick(path: string): Promise<OfferedBundle> {
    const stick = join(this.#options.directory, `${this.#options.name}.stick.img`);
    writeStick(stick, path);
    const onStick = ({ bundles }: UpgradeState, state: OfferedBundle["state"]) =>
      bundles.find(
        (each) =>
          each.source.kind === "usb" &&
          each.source.where.endsWith(basename(path)) &&
          each.state === state,
      );
    await this.machine!.plugIn("releases", stick);
    try {
      const seen = await this.waitFor(
        "bundle on the stick",
        (state) => onStick(state, "remote") !== undefined,
      );
      await this.client.call("POST", `/upgrade/bundles/${onStick(seen, "remote")!.id}/fetch`);
      const after = await this.waitFor(
        "copy of the bundle",
        (state) => onStick(state, "here") !== undefined || onStick(state, "refused") !== undefined,
      );
      const refused = onStick(after, "refused")?.message;
      if (refused !== undefined) throw new KeelsonError("INTERNAL", `It was refused: ${refused}`);
      return onStick(after, "here")!;
    } finally {
      await this.machine?.pullOut("releases").catch(() => {});
      rmSync(stick, { force: true });
    }
  }

  async startUpgrade(
    bundleId: string,
    gate: { holdSeconds: number; deadlineSeconds: number },
  ): Promise<UpgradePlan> {
    return await this.client.call<UpgradePlan>("POST", "/upgrade/start", { bundleId, gate });
  }

  /** Until the plan has ended one way or the other. */
  async waitForEnd(planId?: string): Promise<{ state: UpgradeState; plan: UpgradePlan }> {
    const state = await this.waitFor(
      "end of the plan",
      ({ plan }) =>
        plan !== null && plan.state !== "running" && (planId === undefined || plan.id === planId),
    );
    return { state, plan: state.plan! };
  }
}
