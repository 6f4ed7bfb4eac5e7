/** One node for the scenarios `upgrade` and `rollback`: installed once, then run from overlays. */
import { spawnSync } from "node:child_process";
import { constants, copyFileSync, createReadStream, existsSync, rmSync, statSync } from "node:fs";
import { basename, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { isKeelsonError, KeelsonError } from "#lib/model/errors.ts";
import type { OfferedBundle, UpgradePlan, UpgradeState } from "#services/api/upgrade-schema.ts";
import { ApplianceClient, type ApplianceOptions, limits, startAppliance } from "./appliance.ts";
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
  readonly #options: ApplianceOptions;
  readonly #base: string;
  machine: Machine | undefined;
  #starts = 0;

  private constructor(options: ApplianceOptions, password: string, base: string) {
    this.#options = options;
    this.password = password;
    this.#base = base;
    this.client = new ApplianceClient(options.httpsPort);
  }

  /** The image under test, installed. */
  static async install(firmware: Firmware, context: ScenarioContext): Promise<UpgradeNode> {
    const { directory } = context;
    const { disk, password } =
      context.installations.used(firmware) ?? (await context.installations.get(firmware, context));
    const options: ApplianceOptions = {
      name: firmware,
      directory,
      disk,
      firmware,
      acceleration: context.acceleration.acceleration,
      httpsPort: await freePort(),
      // It serves diskless clients there, though none come.
      segment: await createSegment(join(directory, `${firmware}.hub`)),
      ...(context.verbose ? { onLine: (line: string) => context.note(line) } : {}),
    };
    return new UpgradeNode(overlayOptions(options, firmware), password, disk);
  }

  /** Everything since the installation is forgotten. */
  reset(): void {
    createOverlay(this.#options.disk, this.#base, "raw");
    rmSync(this.#options.variables!, { force: true });
  }

  /** It is off then, and its disk is gone. */
  async end(): Promise<void> {
    await this.kill();
    await this.#options.segment?.close();
    rmSync(this.#options.disk, { force: true });
    rmSync(this.#options.variables!, { force: true });
  }

  /** Another node that has what this one has on its disk, saved states too; this one must be off. */
  async copy(name: string): Promise<UpgradeNode> {
    const segment = await createSegment(join(this.#options.directory, `${name}.hub`));
    const ownPort = { httpsPort: await freePort(), segment };
    const options = overlayOptions({ ...this.#options, ...ownPort }, name);
    for (const [from, to] of [
      [this.#options.disk, options.disk],
      [this.#options.variables!, options.variables!],
    ]) {
      if (existsSync(from)) copyFileSync(from, to, constants.COPYFILE_FICLONE);
    }
    return new UpgradeNode(options, this.password, this.#base);
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
    for (const path of [this.#options.disk, this.#options.variables!].filter(existsSync)) {
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

/** `options` with disk and variables of its own, named after the node. */
function overlayOptions(options: ApplianceOptions, name: string): ApplianceOptions {
  const file = (ending: string) => join(options.directory, `${name}.${ending}`);
  return {
    ...options,
    name,
    disk: file("qcow2"),
    diskFormat: "qcow2",
    variables: file("vars.qcow2"),
  };
}

function createOverlay(path: string, base: string, format: "raw" | "qcow2"): void {
  rmSync(path, { force: true });
  runQemuImg(["create", "-q", "-f", "qcow2", "-b", base, "-F", format, path]);
}

function runQemuImg(arguments_: string[]): void {
  const result = spawnSync("qemu-img", arguments_, { encoding: "utf8" });
  if (result.status === 0) return;
  throw new KeelsonError(
    "UNAVAILABLE",
    `qemu-img failed: ${result.error?.message ?? result.stderr.trim()}.`,
  );
}
