/**
 * Drives the services to policy: observe, plan, do, until nothing is left to do. Runs at start, at
 * each change of policy and every few seconds. Every step may be repeated; what fails is kept as a
 * problem (a condition shows it) and tried again at the next run.
 */
import { bad, type Checked, good, unobserved } from "#lib/aime/checked.ts";
import { explainError, isKeelsonError } from "#lib/model/errors.ts";
import type { Log } from "#lib/service/log.ts";
import type { ServedStoreInfo, SnapshotInfo, VolumeInfo } from "#services/chunk-store/schema.ts";
import type { ExportsView, SessionsView, TargetStatus } from "#services/iscsi-target/schema.ts";
import type { NetbootStatus } from "#services/netboot/schema.ts";
import type { Clock } from "./clock.ts";
import type { NetbootConfigInput, Peers } from "./peers.ts";
import { plan, type Step, type Wanted } from "./plan.ts";
import type { Policy, VolumeRecord } from "./policy.ts";
import { doSnapshotStep } from "./snapshot-executor.ts";
import type { SnapshotCalls } from "./snapshots.ts";

export interface Observation {
  readonly store: Checked<ServedStoreInfo>;
  readonly volumes: Checked<readonly VolumeInfo[]>;
  readonly snapshots: Checked<readonly SnapshotInfo[]>;
  readonly target: Checked<TargetStatus>;
  readonly exports: Checked<ExportsView>;
  readonly sessions: Checked<SessionsView>;
  readonly netboot: Checked<NetbootStatus>;
}

/** A step that failed and will be tried again. */
export interface Problem {
  readonly step: Step["kind"];
  /** Volume id, or the service's name. */
  readonly object: string;
  readonly reason: string;
  readonly since: string;
}

export interface ReconcilerOptions {
  readonly policy: Policy;
  readonly peers: Peers;
  readonly clock: Clock;
  readonly log: Log;
  /** Snapshots are made at once, not here: what is seen meanwhile is no ground for steps. */
  readonly snapshotCalls: SnapshotCalls;
  /** What netboot is to serve, from policy and this node's interfaces. */
  readonly netbootInterfaces: () => NetbootConfigInput["interfaces"];
  readonly intervalMs?: number;
}

/** An observation counts until a few rounds were missed. */
const maxAgeMs = 20_000;
const mostRounds = 5;

export class Reconciler {
  readonly #options: ReconcilerOptions;
  readonly #problems = new Map<string, Problem>();
  readonly #listeners = new Set<() => void>();
  readonly #putDigest: { exports: string | null; netboot: string | null } = {
    exports: null,
    netboot: null,
  };
  #observation: Observation = {
    store: unobserved("chunk-store"),
    volumes: unobserved("chunk-store"),
    snapshots: unobserved("chunk-store"),
    target: unobserved("iscsi-target"),
    exports: unobserved("iscsi-target"),
    sessions: unobserved("iscsi-target"),
    netboot: unobserved("netboot"),
  };
  #running: Promise<void> | undefined;
  /** A run asked for while one runs: it may have read the policy before the change. */
  #next: Promise<void> | undefined;
  #timer: NodeJS.Timeout | undefined;
  #stopped = false;

  constructor(options: ReconcilerOptions) {
    this.#options = options;
  }

  get observation(): Observation {
    return this.#observation;
  }

  get problems(): readonly Problem[] {
    return [...this.#problems.values()];
  }

  /** Told after each run. */
  onRun(listener: () => void): void {
    this.#listeners.add(listener);
  }

  start(): void {
    this.#options.policy.onChange(() => void this.settle());
    this.#timer = setInterval(() => void this.settle(), this.#options.intervalMs ?? 5_000);
    void this.settle();
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    clearInterval(this.#timer);
    await this.#running;
  }

  /** Resolves when a run that began after this call has ended; never rejects. */
  settle(): Promise<void> {
    if (this.#stopped) return Promise.resolve();
    if (this.#running === undefined) {
      this.#running = this.#run().finally(() => {
        this.#running = undefined;
      });
      return this.#running;
    }
    this.#next ??= this.#running.then(() => {
      this.#next = undefined;
      return this.settle();
    });
    return this.#next;
  }

  async #run(): Promise<void> {
    const failed = new Map<string, Problem>();
    try {
      for (let round = 0; round < mostRounds; round++) {
        const calls = this.#options.snapshotCalls.mark();
        await this.#observe();
        const quiet = this.#options.snapshotCalls.quietSince(calls);
        const steps = plan(this.#wanted(), {
          volumes: known(this.#observation.volumes),
          snapshots: quiet ? known(this.#observation.snapshots) : null,
          exports: known(this.#observation.exports),
          netboot: known(this.#observation.netboot),
          putDigest: this.#putDigest,
        }).filter((step) => !failed.has(objectOf(step)));
        if (steps.length === 0) break;
        for (const step of steps) await this.#try(step, failed);
      }
    } catch (error) {
      // The cluster store is away: policy can't be changed, services keep what they have.
      failed.set("policy", this.#problem("readyVolume", "policy", error));
    }
    this.#problems.clear();
    for (const [object, problem] of failed) this.#problems.set(object, problem);
    for (const listener of this.#listeners) listener();
  }

  #wanted(): Wanted {
    const { policy, netbootInterfaces } = this.#options;
    return {
      generation: policy.revision,
      volumes: policy.list("volume"),
      snapshots: policy.list("snapshot"),
      images: policy.list("image"),
      boots: policy.list("boot"),
      exports: policy.list("export"),
      netboot: netbootInterfaces(),
    };
  }

  async #observe(): Promise<void> {
    const { store, target, netboot } = this.#options.peers;
    const [info, volumes, snapshots, status, exports, sessions, boot] = await Promise.all([
      this.#ask("chunk-store", store.info()),
      this.#ask("chunk-store", store.volumes()),
      this.#ask("chunk-store", store.snapshots()),
      this.#ask("iscsi-target", target.status()),
      this.#ask("iscsi-target", target.exports()),
      this.#ask("iscsi-target", target.sessions()),
      this.#ask("netboot", netboot.status()),
    ]);
    this.#observation = {
      store: info,
      volumes,
      snapshots,
      target: status,
      exports,
      sessions,
      netboot: boot,
    };
  }

  async #ask<Answer>(source: string, answer: Promise<Answer>): Promise<Checked<Answer>> {
    try {
      const value = await answer;
      return good(value, { source, atMs: this.#options.clock.bootMs(), maxAgeMs });
    } catch (error) {
      const origin = { source, atMs: this.#options.clock.bootMs(), maxAgeMs };
      return bad(explainError(error), origin);
    }
  }

  async #try(step: Step, failed: Map<string, Problem>): Promise<void> {
    const object = objectOf(step);
    // A volume's later steps make no sense after an earlier one failed.
    if (failed.has(object)) return;
    try {
      await this.#do(step);
    } catch (error) {
      if (step.kind === "createVolume" && isFinal(error)) {
        await this.#change(step.id, ["creating"], {
          state: "failed",
          failure: explainError(error),
        });
        this.#options.log.warn("volume can't be made", {
          volume: step.id,
          why: explainError(error),
        });
        failed.set(object, this.#problem(step.kind, object, error));
        return;
      }
      const problem = this.#problem(step.kind, object, error);
      if (this.#problems.get(object)?.reason !== problem.reason) {
        this.#options.log.warn("step failed, will be tried again", {
          step: step.kind,
          object,
          why: problem.reason,
        });
      }
      failed.set(object, problem);
    }
  }

  #problem(step: Step["kind"], object: string, error: unknown): Problem {
    const reason = explainError(error);
    const before = this.#problems.get(object);
    const since = before?.step === step ? before.since : this.#options.clock.now();
    return { step, object, reason, since };
  }

  async #do(step: Step): Promise<void> {
    const { store, target, netboot } = this.#options.peers;
    switch (step.kind) {
      case "createVolume":
        await store.put(step.id, step.body);
        return;
      case "readyVolume":
        await this.#change(step.id, ["creating", "failed"], { state: "ready", failure: null });
        return;
      case "loseVolume":
        await this.#change(step.id, ["ready"], { state: "failed", failure: step.failure });
        return;
      case "resizeVolume":
        await store.resize(step.id, step.sizeBytes);
        return;
      case "sealVolume":
        await store.seal(step.id);
        return;
      case "putExports":
        await target.put(step.body);
        this.#putDigest.exports = step.digest;
        return;
      case "putNetboot":
        await netboot.put(step.body);
        this.#putDigest.netboot = step.digest;
        return;
      case "revertVolume":
        await store.revert(step.id, step.snapshotId);
        await this.#options.policy.change((draft) => {
          const record = draft.get("volume", step.id);
          if (record?.revertTo !== step.snapshotId) return;
          const { revertTo: _done, ...rest } = record;
          draft.put("volume", rest);
        });
        return;
      case "deleteVolume":
        await store.delete(step.id).catch((error) => {
          if (!isKeelsonError(error, "NOT_FOUND")) throw error;
        });
        return;
      case "forgetVolume":
        await this.#options.policy.change((draft) => {
          if (draft.get("volume", step.id)?.state === "deleting") draft.delete("volume", step.id);
        });
        return;
      default:
        await doSnapshotStep(step, this.#options);
    }
  }

  /** Only from the states that the plan saw: somebody may have asked for its deletion since. */
  async #change(
    id: string,
    from: readonly VolumeRecord["state"][],
    change: Pick<VolumeRecord, "state" | "failure">,
  ): Promise<void> {
    await this.#options.policy.change((draft) => {
      const record = draft.get("volume", id);
      if (record !== undefined && from.includes(record.state)) {
        draft.put("volume", { ...record, ...change });
      }
    });
  }
}

function objectOf(step: Step): string {
  if (step.kind === "putExports") return "iscsi-target";
  return step.kind === "putNetboot" ? "netboot" : step.id;
}

function known<Value>(checked: Checked<Value>): Value | null {
  return checked.quality === "bad" ? null : checked.value;
}

/** Asking again gives the same answer until a person changes something. */
function isFinal(error: unknown): boolean {
  return (["INVALID_ARGUMENT", "CONFLICT", "NO_SPACE", "NOT_FOUND", "UNSUPPORTED"] as const).some(
    (code) => isKeelsonError(error, code),
  );
}
