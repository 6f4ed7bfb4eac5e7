/** One node for the scenarios `upgrade` and `rollback`: installed once, then run from overlays. */
import { spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { createReadStream, rmSync, statSync } from "node:fs";
import { basename, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { isKeelsonError, KeelsonError } from "#lib/model/errors.ts";
import { hashPassword } from "#lib/password/password.ts";
import type { OfferedBundle, UpgradePlan, UpgradeState } from "#services/api/upgrade-schema.ts";
import {
  ApplianceClient,
  type ApplianceOptions,
  applianceAnswers,
  createDisk,
  installAppliance,
  limits,
  startAppliance,
} from "./appliance.ts";
import { type Firmware, freePort, type Machine } from "./machine.ts";
import type { ScenarioContext } from "./scenario.ts";

const diskBytes = 8 * 2 ** 30;
const pollMs = 1_000;
/** A guest of an emulated machine may take this long for what is asked of it. */
export const planMs = 3_600_000;

export class UpgradeNode {
  readonly client: ApplianceClient;
  readonly #options: ApplianceOptions;
  readonly #password: string;
  readonly #base: string;
  machine: Machine | undefined;
  #starts = 0;

  private constructor(options: ApplianceOptions, password: string, base: string) {
    this.#options = options;
    this.#password = password;
    this.#base = base;
    this.client = new ApplianceClient(options.httpsPort);
  }

  /** The image under test, installed. */
  static async install(firmware: Firmware, context: ScenarioContext): Promise<UpgradeNode> {
    const { directory } = context;
    const base = join(directory, `${firmware}.installed.raw`);
    const password = randomBytes(9).toString("base64url");
    createDisk(base, diskBytes);
    const options: ApplianceOptions = {
      name: firmware,
      directory,
      disk: base,
      firmware,
      acceleration: context.acceleration.acceleration,
      httpsPort: await freePort(),
      ...(context.verbose ? { onLine: (line: string) => context.note(line) } : {}),
    };
    const answers = applianceAnswers(hashPassword(password));
    const { network, ...rest } = answers;
    await installAppliance(
      { ...options, name: `${firmware}-install`, iso: context.iso },
      { ...rest, network: { lan: network!.lan } },
    );
    const overlay = join(directory, `${firmware}.qcow2`);
    return new UpgradeNode({ ...options, disk: overlay, diskFormat: "qcow2" }, password, base);
  }

  /** Everything since the last `keep` is forgotten. */
  reset(): void {
    createOverlay(this.#options.disk, this.#base, "raw");
  }

  /** What the disk holds now is what later overlays start from. The machine must be off. */
  keep(name: string): KeptDisk {
    const path = join(this.#options.directory, `${this.#options.name}.${name}.qcow2`);
    runQemuImg(["convert", "-O", "qcow2", this.#options.disk, path]);
    return {
      restore: () => createOverlay(this.#options.disk, path, "qcow2"),
      delete: () => rmSync(path, { force: true }),
    };
  }

  async start(): Promise<Machine> {
    const name = `${this.#options.name}-${++this.#starts}`;
    // UEFI keeps its variables, which are named after the machine.
    this.machine = await startAppliance({ ...this.#options, name });
    return this.machine;
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
        await this.client.logIn(this.#password);
        return;
      } catch (error) {
        if (this.machine?.running !== true || Date.now() > until) {
          throw new KeelsonError(
            "TIMEOUT",
            `The node is not up: ${(error as Error).message}. ${this.machine?.serial.tail(30)}`,
          );
        }
        await sleep(2 * pollMs);
      }
    }
  }

  /** The state; undefined while the node does not answer. */
  async tryState(): Promise<UpgradeState | undefined> {
    try {
      return await this.client.call<UpgradeState>("GET", "/upgrade");
    } catch (error) {
      if (isKeelsonError(error, "UNAUTHENTICATED")) {
        await this.client.logIn(this.#password).catch(() => {});
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

export interface KeptDisk {
  restore(): void;
  delete(): void;
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
