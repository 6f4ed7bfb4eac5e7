/**
 * Runs the schedules: `snapshot-plan.ts` says what is due, this does it. One run at a time.
 *
 * A run is done when its snapshots are there; only then does `doneUntil` move. So an end of api in
 * between makes a second run, never none. Old snapshots go after new ones came, never instead.
 */
import type { AuditEvent } from "#lib/audit/chain.ts";
import { explainError } from "#lib/model/errors.ts";
import type { Log } from "#lib/service/log.ts";
import type { Clock } from "./clock.ts";
import { nodeTimeZone } from "./local-time.ts";
import type { Policy } from "./policy.ts";
import type { Reconciler } from "./reconciler.ts";
import { due, expired } from "./snapshot-plan.ts";
import type { ScheduleRecord, SnapshotRecord } from "./snapshot-records.ts";
import { type Snapshots, stamp } from "./snapshots.ts";

export interface ScheduleRunnerOptions {
  readonly policy: Policy;
  readonly reconciler: Reconciler;
  readonly snapshots: Snapshots;
  readonly clock: Clock;
  readonly log: Log;
  readonly record: (event: AuditEvent) => Promise<void>;
  /** Told when a failure comes or goes. */
  readonly onFailures: () => void;
  readonly timeZone?: string;
  readonly intervalMs?: number;
}

const retryMs = 60_000;
/** What a transaction of the cluster store has room for. */
const recordsAtOnce = 100;

export class ScheduleRunner {
  readonly #options: ScheduleRunnerOptions;
  readonly #failures = new Map<string, string>();
  readonly #retryAtMs = new Map<string, number>();
  #running: Promise<void> | undefined;
  #timer: NodeJS.Timeout | undefined;
  #stopped = false;

  constructor(options: ScheduleRunnerOptions) {
    this.#options = options;
  }

  /** By schedule id: why its last try failed. */
  get failures(): ReadonlyMap<string, string> {
    return this.#failures;
  }

  start(): void {
    if (this.#stopped) return;
    this.#timer = setInterval(() => void this.run(), this.#options.intervalMs ?? 10_000);
    void this.run();
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    clearInterval(this.#timer);
    await this.#running;
  }

  /** All that is due; never rejects. */
  run(): Promise<void> {
    this.#running ??= this.#runAll().finally(() => {
      this.#running = undefined;
    });
    return this.#running;
  }

  async #runAll(): Promise<void> {
    const { policy, clock } = this.#options;
    const schedules = policy.list("snapshot-schedule").filter(({ enabled }) => enabled);
    for (const id of this.#failures.keys()) {
      if (!schedules.some((schedule) => schedule.id === id)) this.#fail(id, null);
    }
    for (const schedule of schedules) {
      if ((this.#retryAtMs.get(schedule.id) ?? 0) > clock.bootMs()) continue;
      try {
        await this.#runOne(schedule);
      } catch (error) {
        const why = explainError(error);
        this.#retryAtMs.set(schedule.id, clock.bootMs() + retryMs);
        // Told once, not each minute.
        if (this.#failures.get(schedule.id) === why) continue;
        this.#fail(schedule.id, why);
        await this.#record(schedule, "failed", why);
      }
    }
  }

  async #runOne(schedule: ScheduleRecord): Promise<void> {
    const { clock, snapshots, timeZone = nodeTimeZone() } = this.#options;
    const nowMs = Date.parse(clock.now());
    const found = due(schedule.when, Date.parse(schedule.doneUntil), nowMs, timeZone);
    switch (found.kind) {
      case "wait":
        return;
      case "clockWrong":
        this.#fail(schedule.id, `The node's clock says ${clock.now()}: it is not set.`);
        return;
      case "clockWentBack":
        await this.#update(schedule.id, { doneUntil: time(found.doneUntilMs) });
        return;
      case "run": {
        const { usable, unusable } = this.#volumesOf(schedule);
        const taken =
          usable.length === 0
            ? []
            : await snapshots.create(
                {
                  volumes: usable,
                  name: `${schedule.name}-${stamp(nowMs)}`,
                  description: "",
                },
                schedule.id,
              );
        const deleted = await this.#expire(schedule, nowMs, timeZone);
        await this.#update(schedule.id, {
          doneUntil: time(found.slotMs),
          lastRun: { at: time(nowMs), taken: taken.length, deleted: deleted.length },
        });
        const without = unusable.length === 0 ? null : `No snapshot of ${unusable.join(", ")}.`;
        this.#fail(schedule.id, without);
        const gone = deleted.length === 0 ? "" : `: ${deleted.map(({ name }) => name).join(", ")}`;
        await this.#record(
          schedule,
          without === null ? "done" : "failed",
          `${taken.length} taken, ${deleted.length} deleted${gone}. ${without ?? ""}`.trimEnd(),
        );
      }
    }
  }

  /** One that is damaged must not keep the others from being taken. */
  #volumesOf({ volumeIds }: ScheduleRecord): { usable: string[]; unusable: string[] } {
    const usable: string[] = [];
    const unusable: string[] = [];
    for (const id of volumeIds) {
      const volume = this.#options.policy.find("volume", id);
      if (volume?.state === "ready" && !volume.sealed) usable.push(id);
      else unusable.push(volume === undefined ? id : `${volume.name} (${volume.state})`);
    }
    return { usable, unusable };
  }

  /** Only what is known to be there counts, and only if the store was asked after the new one came. */
  async #expire(
    schedule: ScheduleRecord,
    nowMs: number,
    timeZone: string,
  ): Promise<readonly SnapshotRecord[]> {
    const { policy, reconciler } = this.#options;
    await reconciler.settle();
    const { snapshots } = reconciler.observation;
    if (snapshots.quality === "bad") return [];
    const infos = new Map(snapshots.value.map((info) => [info.id, info]));
    const cloned = new Set(policy.list("volume").map(({ parentSnapshotId }) => parentSnapshotId));
    const own = policy
      .list("snapshot")
      .filter(({ scheduleId, state }) => scheduleId === schedule.id && state === "ready");
    const ids = [...Map.groupBy(own, ({ volumeId }) => volumeId).values()].flatMap((records) =>
      expired(
        records.flatMap(({ id, hold }) => {
          const info = infos.get(id);
          if (info === undefined) return [];
          const { epoch, clones, openCount, createdAt } = info;
          const pinned = hold || clones > 0 || openCount > 0 || cloned.has(id);
          return [{ id, epoch, pinned, createdMs: Date.parse(createdAt) }];
        }),
        schedule.keep,
        nowMs,
        timeZone,
      ),
    );
    if (ids.length === 0) return [];
    const deleted: SnapshotRecord[] = [];
    for (let at = 0; at < ids.length; at += recordsAtOnce) {
      const some = await policy.change((draft) =>
        ids.slice(at, at + recordsAtOnce).flatMap((id) => {
          const record = draft.get("snapshot", id);
          // Somebody may have taken hold of it this moment.
          if (record === undefined || record.hold || record.state !== "ready") return [];
          draft.put("snapshot", { ...record, state: "deleting" });
          return [record];
        }),
      );
      deleted.push(...some);
    }
    await reconciler.settle();
    return deleted;
  }

  async #update(id: string, change: Partial<ScheduleRecord>): Promise<void> {
    await this.#options.policy.change((draft) => {
      const record = draft.get("snapshot-schedule", id);
      if (record !== undefined) draft.put("snapshot-schedule", { ...record, ...change });
    });
  }

  #fail(id: string, why: string | null): void {
    if ((this.#failures.get(id) ?? null) === why) return;
    if (why === null) this.#failures.delete(id);
    else this.#failures.set(id, why);
    this.#options.onFailures();
  }

  async #record(
    schedule: ScheduleRecord,
    outcome: "done" | "failed",
    detail: string,
  ): Promise<void> {
    const { log, record } = this.#options;
    const line = { schedule: schedule.name, what: detail };
    if (outcome === "done") log.info("snapshot schedule run", line);
    else log.warn("snapshot schedule failed", line);
    await record({
      ...{ user: null, via: "schedule", address: "local", permission: "storage:write" },
      action: `snapshot schedule ${schedule.name}`,
      target: schedule.id,
      outcome,
      status: 0,
      detail: detail.slice(0, 500),
    });
  }
}

function time(atMs: number): string {
  return new Date(atMs).toISOString();
}
