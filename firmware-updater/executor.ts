/**
 * Carries out a plan, one step after the other. Before a step begins its state is on disk; each
 * step can be done again from its start. What ends the process (a restart, a power cut) is taken up
 * at the next start by recovery.ts.
 */
import { compareVersions } from "#lib/bundle/version.ts";
import { explainError, KeelsonError } from "#lib/model/errors.ts";
import type { BootLoaders, LoaderParts } from "./boot-loaders.ts";
import type { GateVerdict } from "./gate.ts";
import type { HistoryEntry, StepId, UpgradeFailure } from "./schema.ts";
import type { SlotPartName, SlotWriter } from "./slot-writer.ts";
import type { SlotRecord } from "./slots.ts";
import type { Baseline, StateStore, StoredPlan, StoredState, StoredStep } from "./state.ts";

export interface BundleParts {
  /** Reads and checks all of a bundle. */
  verify(bundleId: string, advance: (percent: number) => void, signal: AbortSignal): Promise<void>;
  /** Each part, checked again while it is used; throws after one that is not as signed. */
  unpack(
    bundleId: string,
    use: (
      name: SlotPartName,
      sizeBytes: number,
      pieces: AsyncIterable<Uint8Array>,
    ) => Promise<void>,
    signal: AbortSignal,
  ): Promise<{ readonly slotConfig: string; readonly totalBytes: number }>;
  totalBytes(bundleId: string): number;
  /** What its version reads of /var and stores. */
  dataFormats(bundleId: string): SlotRecord["dataFormats"];
  /** Its boot loaders, checked. */
  loaders(bundleId: string): Promise<LoaderParts>;
}

/** The machine, as far as a plan needs it. */
export interface Machine {
  readonly bootId: string;
  now(): string;
  /** Throws what is against going on; gives what is worth saying, and what works now. */
  preflight(
    plan: StoredPlan,
  ): Promise<{ readonly notes: readonly string[]; readonly baseline: Baseline }>;
  /** Every file system's data on its disk. */
  syncDisks(): void;
  /** Tells the deadline unit which root is on trial, durably; null: none is. */
  setTrial(trial: { readonly rootHash: string; readonly deadlineSeconds: number } | null): void;
  /** The running version is kept: from now on its own formats may be written. Never throws. */
  raiseFormats(): void;
  requestRestart(reason: string): void;
  gate(plan: StoredPlan, tell: (message: string, percent: number) => void): Promise<GateVerdict>;
  /** What the failed boots left behind. */
  inspectFailure(plan: StoredPlan): Promise<Pick<UpgradeFailure, "attempts" | "log" | "reason">>;
}

export interface ExecutorPorts {
  readonly store: StateStore;
  readonly writer: SlotWriter;
  readonly loaders: BootLoaders;
  readonly bundles: BundleParts;
  readonly machine: Machine;
  readonly changed: () => void;
}

const keptHistory = 50;
type Outcome = "done" | "waitsForRestart";

export class Executor {
  readonly #ports: ExecutorPorts;
  #state: StoredState;
  #abort = new AbortController();
  readonly progress: Partial<Record<StepId, number>> = {};

  constructor(ports: ExecutorPorts) {
    this.#ports = ports;
    this.#state = ports.store.load();
  }

  get state(): StoredState {
    return this.#state;
  }

  get running(): boolean {
    return this.#state.plan?.state === "running";
  }

  /** Replaces parts of the state, durably, and tells. */
  update(change: Partial<StoredState>): void {
    this.#state = { ...this.#state, ...change, revision: this.#state.revision + 1 };
    this.#ports.store.save(this.#state);
    this.#ports.changed();
  }

  /** Runs a new plan to its restart or its end. Never throws: what went wrong is in the plan. */
  async run(plan: StoredPlan): Promise<Outcome> {
    this.#abort = new AbortController();
    this.update({ plan });
    return await this.#steps();
  }

  /** Goes on with the plan of an earlier life. */
  async resume(step: StepId, bootId: string): Promise<Outcome> {
    this.#abort = new AbortController();
    const plan = this.#plan();
    const at = plan.steps.findIndex(({ id }) => id === step);
    const beforeGate = !["gate", "commit"].includes(step);
    this.#change({
      resumes: plan.resumes + (beforeGate ? 1 : 0),
      ...(beforeGate ? {} : { gateBootId: bootId }),
      steps: plan.steps.map((each, index): StoredStep => {
        // A restart that has taken place.
        if (index < at && each.state !== "done" && each.state !== "skipped") {
          return { ...each, state: "done", endedAt: this.#ports.machine.now() };
        }
        return index < at ? each : { ...each, state: "waiting", message: null };
      }),
    });
    return await this.#steps();
  }

  /** Before arming only; the plan ends at the next moment at which nothing is half done. */
  cancel(): void {
    this.#abort.abort(new KeelsonError("CANCELLED", "The upgrade was cancelled."));
  }

  /** The new version was tried, and this is the old one again. */
  async endReturned(): Promise<void> {
    const { machine, writer } = this.#ports;
    const plan = this.#plan();
    const found = await machine.inspectFailure(plan);
    const reason = plan.gateFailure ?? found.reason;
    if (plan.kind === "upgrade") writer.retire(plan.fromSlot, plan.from);
    else await writer.keep(plan.fromSlot, plan.from, plan.to);
    machine.setTrial(null);
    const failure: UpgradeFailure = {
      planId: plan.id,
      version: plan.to.version,
      at: machine.now(),
      reason,
      attempts: found.attempts,
      log: found.log,
    };
    this.#recordSlot(plan, { worked: false, failed: true });
    this.#end("returned", reason, { lastFailure: failure });
  }

  /** Ends a plan that never came to arming. */
  endFailed(why: string): void {
    const plan = this.#plan();
    if (plan.kind === "upgrade") this.#ports.writer.retire(plan.fromSlot, plan.from);
    this.#ports.machine.setTrial(null);
    this.#end("failed", why);
  }

  async #steps(): Promise<Outcome> {
    for (;;) {
      const step = this.#plan().steps.find(({ state }) => state === "waiting");
      if (step === undefined) {
        this.#end("done", null);
        return "done";
      }
      this.#setStep(step.id, { state: "running", startedAt: this.#ports.machine.now() });
      try {
        if (this.#plan().steps.find(({ id }) => id === "arm")?.state === "waiting") {
          this.#abort.signal.throwIfAborted();
        }
        const message = await this.#do(step.id);
        if (message === waits) return "waitsForRestart";
        this.#setStep(step.id, { state: "done", endedAt: this.#ports.machine.now(), message });
      } catch (error) {
        this.#stop(step.id, error);
        return this.#plan().state === "running" ? "waitsForRestart" : "done";
      }
    }
  }

  /** A step's words when it has ended. */
  async #do(step: StepId): Promise<string | null | typeof waits> {
    const { machine, bundles, writer } = this.#ports;
    const plan = this.#plan();
    switch (step) {
      case "verify":
        await bundles.verify(
          plan.bundleId!,
          (percent) => this.#advance(step, percent),
          this.#abort.signal,
        );
        return null;
      case "preflight": {
        const { notes, baseline } = await machine.preflight(plan);
        this.#change({ baseline });
        return notes.length === 0 ? null : notes.join(" ");
      }
      case "write":
        return await this.#write(plan);
      case "arm":
        machine.setTrial({
          rootHash: plan.to.rootHash,
          deadlineSeconds: plan.gate.deadlineSeconds,
        });
        if (plan.kind === "rollback") await writer.armBack(plan.fromSlot, plan.from, plan.to);
        else writer.arm(plan.toSlot, plan.to, Buffer.from(plan.ukiHead!, "base64"));
        return null;
      case "quiesce":
        machine.syncDisks();
        return null;
      case "restart":
        this.#change({ restartBootId: machine.bootId });
        machine.requestRestart(`upgrade to ${plan.to.version}`);
        return waits;
      case "gate":
        return await this.#gate(plan);
      case "commit": {
        const other = this.#state.slots[plan.fromSlot];
        await writer.keep(plan.toSlot, plan.to, other?.worked === true ? other : undefined);
        machine.setTrial(null);
        // Last: before this the old slot could still be needed, and reads only what it wrote itself.
        machine.raiseFormats();
        this.#recordSlot(plan, { worked: true, failed: false });
        return await this.#upgradeLoaders(plan);
      }
    }
  }

  /** They only go forward, and a node whose loader can't be replaced is none the worse for it. */
  async #upgradeLoaders(plan: StoredPlan): Promise<string | null> {
    const { bundles, loaders } = this.#ports;
    const present = this.#state.loaders ?? plan.from.version;
    if (plan.bundleId === null || compareVersions(plan.to.version, present) <= 0) return null;
    try {
      const replaced = await loaders.upgrade(await bundles.loaders(plan.bundleId));
      this.update({ loaders: plan.to.version });
      if (replaced.length === 0) return null;
      return `Boot loaders of ${plan.to.version} put in place: ${replaced.join(", ")}.`;
    } catch (error) {
      if (!(error instanceof KeelsonError)) throw error;
      return `The boot loaders could not be brought up to date. ${explainError(error)}`;
    }
  }

  async #write(plan: StoredPlan): Promise<string> {
    const { writer, bundles } = this.#ports;
    writer.retire(plan.fromSlot, plan.from);
    this.update({
      slots: {
        ...this.#state.slots,
        [plan.toSlot]: {
          ...{ ...plan.to, worked: false, failed: false },
          dataFormats: bundles.dataFormats(plan.bundleId!),
        },
      },
    });
    // Written, and read back.
    const total = bundles.totalBytes(plan.bundleId!) * 2;
    let done = 0;
    const advance = (bytes: number) => {
      done += bytes;
      this.#advance("write", Math.min(99, (100 * done) / total));
    };
    let ukiHead: string | null = null;
    const { slotConfig } = await bundles.unpack(
      plan.bundleId!,
      async (name, _size, pieces) => {
        this.#say("write", `Writing ${name}`);
        const head = await writer.writePart(plan.toSlot, plan.to, name, pieces, advance);
        if (head !== undefined) ukiHead = head.toString("base64");
      },
      this.#abort.signal,
    );
    await writer.finish(plan.toSlot, plan.to, slotConfig);
    this.#change({ ukiHead });
    this.#abort.signal.throwIfAborted();
    return "Written, read back, and the same.";
  }

  async #gate(plan: StoredPlan): Promise<string | typeof waits> {
    const { machine, writer } = this.#ports;
    // It had given up already, and only the restart was missing.
    const verdict: GateVerdict =
      plan.gateFailure !== null
        ? { ok: false, why: plan.gateFailure }
        : await machine.gate(plan, (message, percent) => {
            this.#advance("gate", percent);
            this.#say("gate", message);
          });
    if (verdict.ok) return `All well for ${plan.gate.holdSeconds} s.`;
    // Durable before the entry goes: the old version must be able to say why.
    this.#change({ gateFailure: verdict.why });
    writer.dismiss(plan.toSlot, plan.to);
    machine.syncDisks();
    machine.requestRestart(`${plan.to.version} failed its health gate: ${verdict.why}`);
    return waits;
  }

  #stop(step: StepId, error: unknown): void {
    const { machine } = this.#ports;
    const why = explainError(error);
    const cancelled = error instanceof KeelsonError && error.code === "CANCELLED";
    this.#setStep(step, { state: "failed", endedAt: machine.now(), message: why });
    const plan = this.#plan();
    if (step === "gate" || step === "commit") {
      // Only the old version can end this: it starts if this one is not kept.
      this.#change({ gateFailure: why });
      machine.requestRestart(why);
      return;
    }
    try {
      if (plan.kind === "upgrade") this.#ports.writer.retire(plan.fromSlot, plan.from);
      machine.setTrial(null);
    } catch (second) {
      this.#end("failed", `${why} ${explainError(second)}`);
      return;
    }
    this.#end(cancelled ? "cancelled" : "failed", why);
  }

  #end(
    result: HistoryEntry["result"],
    message: string | null,
    more: Partial<StoredState> = {},
  ): void {
    const plan = this.#plan();
    const endedAt = this.#ports.machine.now();
    const entry: HistoryEntry = {
      planId: plan.id,
      kind: plan.kind,
      fromVersion: plan.from.version,
      toVersion: plan.to.version,
      result,
      startedAt: plan.startedAt,
      endedAt,
      message,
    };
    const steps = plan.steps.map((step): StoredStep => {
      if (step.state === "waiting") return { ...step, state: "skipped" };
      if (step.state !== "running") return step;
      return { ...step, state: "failed", endedAt, message };
    });
    this.update({
      ...more,
      plan: { ...plan, steps, state: result, endedAt, failure: message, ukiHead: null },
      history: [entry, ...this.#state.history].slice(0, keptHistory),
    });
  }

  #recordSlot(plan: StoredPlan, outcome: { worked: boolean; failed: boolean }): void {
    const { slots } = this.#state;
    const record = { ...slots[plan.toSlot], ...plan.to, ...outcome };
    this.#state = { ...this.#state, slots: { ...slots, [plan.toSlot]: record } };
  }

  #plan(): StoredPlan {
    if (this.#state.plan === null) throw new KeelsonError("INTERNAL", "There is no plan.");
    return this.#state.plan;
  }

  #change(change: Partial<StoredPlan>): void {
    this.update({ plan: { ...this.#plan(), ...change } });
  }

  #setStep(id: StepId, change: Partial<StoredStep>): void {
    const steps = this.#plan().steps.map((step) =>
      step.id === id ? { ...step, ...change } : step,
    );
    this.#change({ steps });
  }

  #advance(step: StepId, percent: number): void {
    const before = Math.floor(this.progress[step] ?? -1);
    this.progress[step] = percent;
    if (Math.floor(percent) !== before) this.#ports.changed();
  }

  /** Said while it lasts; not worth a write to disk. */
  #say(id: StepId, message: string): void {
    const plan = this.#plan();
    const steps = plan.steps.map((step) => (step.id === id ? { ...step, message } : step));
    this.#state = { ...this.#state, plan: { ...plan, steps }, revision: this.#state.revision + 1 };
    this.#ports.changed();
  }
}

const waits: unique symbol = Symbol("waits for the restart");
