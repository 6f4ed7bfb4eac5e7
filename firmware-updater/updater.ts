/** The service: its parts joined, an earlier life's plan taken up, operations as the API asks. */
import { randomUUID } from "node:crypto";
import { join } from "node:path";
import { type Release, readRelease, targetOf } from "#lib/bundle/release.ts";
import type { BundleTarget } from "#lib/bundle/target.ts";
import { readTrust, type Trust, trustOf } from "#lib/bundle/trust.ts";
import { compareVersions } from "#lib/bundle/version.ts";
import { explainError, KeelsonError } from "#lib/model/errors.ts";
import type { Log } from "#lib/service/log.ts";
import { grubenvPath } from "./boot-entries.ts";
import { BootLoaders } from "./boot-loaders.ts";
import { Executor, type Machine } from "./executor.ts";
import { inspectFailure } from "./failure.ts";
import { type Files, RealFiles } from "./files.ts";
import { runGate } from "./gate.ts";
import {
  espFreeBytes,
  type HostPaths,
  onBattery,
  type RunningSystem,
  readRunningSystem,
  requestRestart,
  syncDisks,
  uptimeSeconds,
  writeTrial,
} from "./host.ts";
import { NodeFormats, wayBack } from "./node-formats.ts";
import { checkSources, Offers } from "./offers.ts";
import {
  defaultGate,
  judgePreflight,
  makePlan,
  type PlanRequest,
  previewPlan,
  viewPlan,
} from "./plan.ts";
import { RealProbes } from "./probes.ts";
import { recover } from "./recovery.ts";
import type {
  NodeSlots,
  OfferedBundle,
  PlanStart,
  SlotName,
  SourceSettings,
  UpgradePlan,
  UpgradeState,
  Verdict,
} from "./schema.ts";
import { SlotWriter } from "./slot-writer.ts";
import {
  type BootDisk,
  findBootDisk,
  otherSlot,
  slotOfRoot,
  triesLeft,
  viewSlot,
} from "./slots.ts";
import { type Arrival, largestBundleBytes, Spool, type SpooledBundle } from "./spool.ts";
import { StateFile, type StoredPlan } from "./state.ts";

export interface UpdaterOptions extends HostPaths {
  readonly trustFile: string;
  readonly storeSocket: string;
  readonly storeDevice: string | null;
  readonly httpsPort: number;
  /** `boot-attempts` of the initrd and the deadline unit. */
  readonly attemptsFile: string;
  /** Folders that sticks are mounted below. */
  readonly sticks: string;
  readonly log: Log;
  /** For tests: what else the machine itself and its image would say. */
  readonly system?: RunningSystem;
  readonly releaseFile?: string;
}

/** A UKI and, while it is replaced, its copy; the kernel, initrd and microcode for GRUB. */
const espReserveBytes = 16 * 2 ** 20;

export class Updater {
  readonly #options: UpdaterOptions;
  readonly #files: Files = new RealFiles();
  readonly #system: RunningSystem;
  readonly #disk: BootDisk;
  readonly #slot: SlotName;
  readonly #writer: SlotWriter;
  readonly #executor: Executor;
  readonly #spool: Spool;
  readonly #offers: Offers;
  readonly #probes: RealProbes;
  readonly #formats: NodeFormats;
  readonly #waiters = new Set<() => void>();
  #changes: number;

  private constructor(options: UpdaterOptions) {
    this.#options = options;
    this.#system = options.system ?? readRunningSystem(options);
    if (this.#files.size(grubenvPath(options.esp)) === undefined) {
      throw new KeelsonError("UNAVAILABLE", `The boot disk's ESP is not at ${options.esp}.`, {
        operation: "look at the boot disk",
        remedy: "keelson-boot-disk.service mounts it: see its log.",
      });
    }
    this.#disk = findBootDisk(this.#files, this.#system.bootDisk, options.esp);
    const slot = slotOfRoot(this.#files, this.#disk, this.#system.rootHash);
    if (slot === undefined) {
      throw new KeelsonError("CONFLICT", "No slot of the boot disk holds the running root.", {
        object: this.#system.bootDisk,
        remedy: "Was this node started from another disk? Install again, the store can be kept.",
      });
    }
    this.#slot = slot;
    this.#writer = new SlotWriter(this.#files, this.#disk);
    this.#probes = new RealProbes({
      storeSocket: options.storeSocket,
      httpsPort: options.httpsPort,
      readBlock: () => {
        if (options.storeDevice !== null) this.#files.readBack(options.storeDevice, 0, 4096);
      },
    });
    this.#spool = new Spool({
      folder: join(options.state, "spool"),
      trust: () => this.#trust(),
      target: () => this.#target(),
      signed: ({ trustState }) => this.#executor.update({ trust: trustState }),
      now: () => new Date().toISOString(),
    });
    this.#formats = new NodeFormats(options.state, () => this.#release());
    this.#executor = new Executor({
      store: new StateFile(options.state, this.#formats.file, options.log),
      writer: this.#writer,
      loaders: new BootLoaders(this.#files, this.#disk),
      bundles: this.#spool,
      machine: this.#machine(),
      changed: () => this.#tell(),
    });
    this.#changes = this.#executor.state.revision * 1_000_000;
    this.#offers = new Offers({
      spool: this.#spool,
      folders: [
        { kind: "directory", folder: join(options.state, "incoming") },
        { kind: "usb", folder: options.sticks },
      ],
      sources: () => this.#executor.state.sources,
      wanted: (version) =>
        compareVersions(version, this.#system.version) > 0 ||
        version === this.#target().lastWorkedVersion,
      changed: () => this.#tell(),
      log: options.log,
    });
  }

  static async start(options: UpdaterOptions): Promise<Updater> {
    const updater = new Updater(options);
    await updater.#spool.open((name, why) =>
      options.log.warn("a bundle in the spool is of no use and was deleted", { name, why }),
    );
    updater.#takeUp();
    updater.#offers.start();
    return updater;
  }

  describe(): string {
    return `${this.#system.version} in slot ${this.#slot.toUpperCase()}`;
  }

  async stop(): Promise<void> {
    this.#offers.stop();
  }

  // -- what an earlier life left

  #takeUp(): void {
    const { log } = this.#options;
    const { plan } = this.#executor.state;
    this.#rememberRunningSlot();
    const decision = recover(plan, {
      rootHash: this.#system.rootHash,
      bootId: this.#system.bootId,
      triesLeft:
        plan === null
          ? undefined
          : triesLeft(
              this.#files,
              this.#disk,
              plan.toSlot,
              plan.to.rootHash,
              this.#system.firmware,
            ),
    });
    log.info("taking up", {
      plan: plan?.id ?? "none",
      decision: decision.kind,
      ...(decision.kind === "resume" ? { step: decision.step } : {}),
    });
    switch (decision.kind) {
      case "none":
        this.#inBackground(() => this.#keepInstallation());
        return;
      case "resume":
        this.#spool.toSlot = plan!.toSlot;
        this.#inBackground(() => this.#executor.resume(decision.step, this.#system.bootId));
        return;
      case "fail":
        this.#executor.endFailed(decision.why);
        return;
      case "returned":
        this.#inBackground(() => this.#executor.endReturned());
    }
  }

  #rememberRunningSlot(): void {
    const { version, rootHash } = this.#system;
    const known = this.#executor.state.slots[this.#slot];
    if (known?.rootHash === rootHash && known.dataFormats !== undefined) return;
    const { slots } = this.#executor.state;
    const { dataFormats } = this.#release();
    const record =
      known?.rootHash === rootHash ? known : { version, rootHash, worked: false, failed: false };
    this.#executor.update({ slots: { ...slots, [this.#slot]: { ...record, dataFormats } } });
  }

  /** The first good start of an installation: there is nothing to return to, so nothing restarts. */
  async #keepInstallation(): Promise<void> {
    const { state } = this.#executor;
    const record = state.slots[this.#slot]!;
    if (record.worked) return this.#raiseFormats();
    const startedAt = new Date().toISOString();
    const verdict = await runGate({
      settings: { holdSeconds: 10, deadlineSeconds: 3600 },
      baseline: null,
      probes: this.#probes,
      uptimeSeconds,
      tell: () => {},
    });
    if (!verdict.ok) {
      this.#options.log.warn("this installation has not been well yet", { why: verdict.why });
      return;
    }
    await this.#writer.keep(this.#slot, this.#running(), undefined);
    this.#raiseFormats();
    this.#executor.update({
      slots: { ...this.#executor.state.slots, [this.#slot]: { ...record, worked: true } },
      history: [
        {
          planId: randomUUID(),
          kind: "installation",
          fromVersion: null,
          toVersion: record.version,
          result: "done",
          startedAt,
          endedAt: new Date().toISOString(),
          message: null,
        },
        ...this.#executor.state.history,
      ],
    });
    this.#options.log.info("this slot is kept", { slot: this.#slot });
  }

  #raiseFormats(): void {
    try {
      this.#formats.raise();
    } catch (error) {
      this.#options.log.error("formats of data stay as they are", { why: explainError(error) });
    }
  }

  #inBackground(work: () => Promise<unknown>): void {
    work().catch((error) => this.#options.log.error("upgrade", { why: explainError(error) }));
  }

  // -- operations

  state(): UpgradeState {
    const { state, progress } = this.#executor;
    return {
      revision: this.#changes,
      nodes: [this.#nodeSlots()],
      bundles: this.#bundles(),
      plan: state.plan === null ? null : viewPlan(state.plan, this.#system.nodeName, progress),
      history: state.history,
      lastFailure: state.lastFailure,
      sources: { ...state.sources, ...this.#offers.lastCheck },
      spool: { freeBytes: this.#spool.freeBytes(), limitBytes: largestBundleBytes },
    };
  }

  /** The state, once it is newer than `after`, or after `waitMs`. */
  async stateAfter(after: number, waitMs: number, signal: AbortSignal): Promise<UpgradeState> {
    if (this.#changes <= after && waitMs > 0) {
      await new Promise<void>((resolve) => {
        const done = () => {
          clearTimeout(timer);
          this.#waiters.delete(done);
          resolve();
        };
        const timer = setTimeout(done, waitMs);
        signal.addEventListener("abort", done, { once: true });
        this.#waiters.add(done);
      });
    }
    return this.state();
  }

  async receive(arrival: Arrival): Promise<OfferedBundle> {
    const bundle = await this.#spool.receive(arrival);
    this.#tell();
    return this.#viewBundle(bundle);
  }

  fetch(id: string): OfferedBundle {
    this.#offers.fetch(id);
    return this.#bundles().find((bundle) => bundle.id === id)!;
  }

  bundleFile(id: string): SpooledBundle {
    return this.#spool.get(id);
  }

  removeBundle(id: string): void {
    const { plan } = this.#executor.state;
    if (plan?.state === "running" && plan.bundleId === id) {
      throw new KeelsonError("IN_USE", "The running upgrade uses this bundle.", {
        object: id,
        remedy: "Wait until it ends, or cancel it.",
      });
    }
    if (this.#offers.forget(id)) return;
    this.#spool.remove(id);
    this.#tell();
  }

  preview(id: string): UpgradePlan {
    return previewPlan(this.#request(this.#spool.get(id), {}), this.#system.nodeName);
  }

  startPlan({ bundleId, gate }: PlanStart): UpgradePlan {
    const bundle = this.#spool.get(bundleId);
    const verdict = this.#startable(bundle);
    if (!verdict.ok) {
      throw new KeelsonError("CONFLICT", verdict.why, { operation: "start upgrade" });
    }
    return this.#start(this.#request(bundle, gate ?? {}));
  }

  rollBack(): UpgradePlan {
    const other = this.#executor.state.slots[otherSlot(this.#slot)];
    const { wayBack } = this.#nodeSlots();
    if (!wayBack.ok || other === undefined) {
      const why = wayBack.ok ? "The other slot is empty." : wayBack.why;
      throw new KeelsonError("CONFLICT", why, {
        operation: "boot the other slot",
        remedy: "Upgrade by a bundle instead.",
      });
    }
    this.#refuseWhileRunning();
    return this.#start({
      id: randomUUID(),
      kind: "rollback",
      from: this.#running(),
      fromSlot: this.#slot,
      to: { version: other.version, rootHash: other.rootHash },
      bundleId: null,
      gate: defaultGate,
      startedAt: new Date().toISOString(),
    });
  }

  cancel(): UpgradePlan {
    const plan = this.state().plan;
    if (plan === null || plan.state !== "running") {
      throw new KeelsonError("CONFLICT", "No upgrade is running.", { operation: "cancel upgrade" });
    }
    if (!plan.cancellable) {
      throw new KeelsonError("CONFLICT", "The new version is armed: it can't be cancelled.", {
        operation: "cancel upgrade",
        remedy: "Let it end; `keelson upgrade rollback` goes back afterwards.",
      });
    }
    this.#executor.cancel();
    return plan;
  }

  async setSources(sources: SourceSettings, signal: AbortSignal): Promise<UpgradeState> {
    await checkSources(sources, signal);
    this.#executor.update({ sources });
    this.#inBackground(() => this.#offers.check());
    return this.state();
  }

  async checkSources(): Promise<UpgradeState> {
    await this.#offers.check();
    return this.state();
  }

  clearFailure(): void {
    this.#executor.update({ lastFailure: null });
  }

  // -- inside

  #start(request: PlanRequest): UpgradePlan {
    this.#refuseWhileRunning();
    const plan = makePlan(request);
    this.#spool.toSlot = plan.toSlot;
    this.#inBackground(() => this.#executor.run(plan));
    return this.state().plan!;
  }

  #refuseWhileRunning(): void {
    if (!this.#executor.running) return;
    throw new KeelsonError("CONFLICT", "An upgrade is running already.", {
      operation: "start upgrade",
      remedy: "`keelson upgrade watch` shows it.",
    });
  }

  #request(bundle: SpooledBundle, gate: Partial<typeof defaultGate>): PlanRequest {
    const { version, rootHash } = bundle.manifest;
    return {
      id: randomUUID(),
      kind: "upgrade",
      from: this.#running(),
      fromSlot: this.#slot,
      to: { version, rootHash },
      bundleId: bundle.id,
      gate: {
        holdSeconds: gate.holdSeconds ?? defaultGate.holdSeconds,
        deadlineSeconds: gate.deadlineSeconds ?? defaultGate.deadlineSeconds,
      },
      startedAt: new Date().toISOString(),
    };
  }

  #startable(bundle: SpooledBundle): Verdict {
    if (this.#executor.running) return { ok: false, why: "An upgrade is running." };
    const { version } = bundle.manifest;
    const running = this.#system.version;
    if (version === running || compareVersions(version, running) === 0) {
      return { ok: false, why: `${running} is running already.` };
    }
    const back = this.#target().lastWorkedVersion;
    if (compareVersions(version, running) < 0 && version !== back) {
      return { ok: false, why: `${version} is older than ${running}, and did not last work here.` };
    }
    const data = this.#formats.against(version, bundle.manifest.dataFormats);
    if (data !== undefined) return { ok: false, why: data };
    const own = this.#executor.state.slots[this.#slot];
    if (own?.worked !== true) {
      return { ok: false, why: `${running} itself has not been found well yet.` };
    }
    return { ok: true };
  }

  #bundles(): OfferedBundle[] {
    return [
      ...this.#spool.list().map((bundle) => this.#viewBundle(bundle)),
      ...this.#offers.remote(),
    ].sort((one, two) => (one.offeredAt < two.offeredAt ? 1 : -1));
  }

  #viewBundle(bundle: SpooledBundle): OfferedBundle {
    const { id, manifest, source, offeredAt, sizeBytes } = bundle;
    return {
      id,
      version: manifest.version,
      notes: manifest.notes,
      sizeBytes,
      source,
      state: "here",
      receivedBytes: sizeBytes,
      message: null,
      developmentKey: manifest.development,
      offeredAt,
      startable: this.#startable(bundle),
    };
  }

  #nodeSlots(): NodeSlots {
    const { slots } = this.#executor.state;
    const view = (slot: SlotName) =>
      viewSlot(this.#files, this.#disk, slot, slots[slot], this.#system.firmware);
    const other = view(otherSlot(this.#slot));
    return {
      node: this.#system.nodeName,
      firmware: this.#system.firmware,
      running: view(this.#slot),
      other,
      wayBack: wayBack(other, slots[other.slot], this.#formats),
      developmentBuild: this.#system.developmentBuild,
    };
  }

  #running() {
    return { version: this.#system.version, rootHash: this.#system.rootHash };
  }

  #trust(): Trust {
    return trustOf(readTrust(this.#options.trustFile), this.#executor.state.trust);
  }

  #target(): BundleTarget {
    const { slots, plan } = this.#executor.state;
    const other = slots[otherSlot(this.#slot)];
    // A plan that was allowed to begin is judged by what was true then: its slot is empty now.
    const back = plan?.state === "running" ? plan.to : other?.worked === true ? other : undefined;
    return targetOf(this.#release(), this.#formats.held(), back?.version);
  }

  #release(): Release {
    return readRelease(this.#options.releaseFile);
  }

  #tell(): void {
    this.#changes++;
    for (const wake of [...this.#waiters]) wake();
  }

  #machine(): Machine {
    const options = this.#options;
    return {
      bootId: this.#system.bootId,
      now: () => new Date().toISOString(),
      syncDisks,
      raiseFormats: () => this.#raiseFormats(),
      setTrial: (trial) => writeTrial(options, trial),
      requestRestart: (reason) => {
        options.log.info("restart", { reason });
        requestRestart(options, reason);
      },
      preflight: (plan) => this.#preflight(plan),
      gate: (plan, tell) =>
        runGate({
          settings: plan.gate,
          baseline: plan.baseline,
          probes: this.#probes,
          uptimeSeconds,
          tell,
        }),
      inspectFailure: (plan) => inspectFailure(plan, options.attemptsFile),
    };
  }

  async #preflight(plan: StoredPlan) {
    const space =
      plan.bundleId === null ? undefined : this.#spool.get(plan.bundleId).manifest.space;
    const slot = this.#disk.slots[plan.toSlot];
    const { against, notes } = judgePreflight({
      slots: this.#nodeSlots(),
      rootBytes: space?.rootBytes ?? 0,
      verityBytes: space?.verityBytes ?? 0,
      slotRootBytes: slot.rootBytes,
      slotVerityBytes: slot.verityBytes,
      espFreeBytes: espFreeBytes(this.#options.esp),
      espNeededBytes: this.#espNeeded(space?.espBytes ?? 0),
      onBattery: onBattery(),
      storeProblem: (await this.#probes.storeProblem()) ?? undefined,
    });
    if (against.length > 0) {
      throw new KeelsonError("CONFLICT", against.join(" "), { operation: "preflight" });
    }
    if (plan.bundleId !== null) {
      const ending = this.#formats.wayBackEnds(this.#spool.get(plan.bundleId).manifest);
      if (ending !== undefined) notes.push(ending);
    }
    return { notes, baseline: await this.#probes.baseline() };
  }

  /** What the other slot has on the ESP now makes room. */
  #espNeeded(bytes: number): number {
    if (bytes === 0) return espReserveBytes;
    const folder = join(this.#options.esp, "keelson", otherSlot(this.#slot));
    const old = this.#files
      .list(folder)
      .reduce((sum, name) => sum + (this.#files.size(join(folder, name)) ?? 0), 0);
    return Math.max(espReserveBytes, bytes + espReserveBytes - old);
  }
}
