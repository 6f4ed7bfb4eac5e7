/** Snapshots and schedules as they are shown: policy's names, the store's sizes. */
import { type Checked, read } from "#lib/aime/checked.ts";
import type { SnapshotInfo, StoreInfo, VolumeInfo } from "#services/chunk-store/schema.ts";
import type { Clock } from "./clock.ts";
import { nodeTimeZone } from "./local-time.ts";
import type { Policy } from "./policy.ts";
import type { Reconciler } from "./reconciler.ts";
import type { Store } from "./schema.ts";
import { believableMs, due } from "./snapshot-plan.ts";
import type { ScheduleRecord, SnapshotRecord } from "./snapshot-records.ts";
import type { Snapshot, SnapshotSchedule } from "./snapshot-schema.ts";

export interface SnapshotViewSources {
  readonly policy: Policy;
  readonly reconciler: Reconciler;
  readonly clock: Clock;
  readonly failures: () => ReadonlyMap<string, string>;
}

export class SnapshotViews {
  readonly #from: SnapshotViewSources;

  constructor(sources: SnapshotViewSources) {
    this.#from = sources;
  }

  list(): Snapshot[] {
    const look = this.#look();
    return this.#from.policy.list("snapshot").map((record) => look(record));
  }

  one(record: SnapshotRecord): Snapshot {
    return this.#look()(record);
  }

  /** Of a group: one look at everything for all of them. */
  those(records: readonly SnapshotRecord[]): Snapshot[] {
    return records.map(this.#look());
  }

  #look(): (record: SnapshotRecord) => Snapshot {
    const { policy, reconciler, clock } = this.#from;
    const checked: Checked<readonly SnapshotInfo[]> = reconciler.observation.snapshots;
    const reading = read(checked, clock.bootMs());
    const infos = new Map((reading.known ? reading.value : []).map((info) => [info.id, info]));
    const volumes = policy.list("volume");
    const names = new Map(volumes.map(({ id, name }) => [id, name]));
    const clones = Map.groupBy(
      volumes.filter(({ state }) => state !== "deleting"),
      ({ parentSnapshotId }) => parentSnapshotId,
    );
    const schedules = new Map(policy.list("snapshot-schedule").map(({ id, name }) => [id, name]));
    return (record) => {
      const info = infos.get(record.id);
      return {
        ...record,
        volumeName: names.get(record.volumeId) ?? null,
        referencedBytes: info?.referencedBytes ?? null,
        exclusiveBytes: info?.exclusiveBytes ?? null,
        openCount: info?.openCount ?? null,
        clones: (clones.get(record.id) ?? []).map(({ id, name }) => ({ id, name })),
        scheduleName: schedules.get(record.scheduleId ?? "") ?? null,
      };
    };
  }

  schedules(): SnapshotSchedule[] {
    return this.#from.policy.list("snapshot-schedule").map((record) => this.schedule(record));
  }

  schedule(record: ScheduleRecord): SnapshotSchedule {
    const { doneUntil, ...shown } = record;
    const { policy, failures, clock } = this.#from;
    const timeZone = nodeTimeZone();
    return {
      ...shown,
      nextRunAt: record.enabled ? nextRunAt(record, Date.parse(clock.now()), timeZone) : null,
      failure: failures().get(record.id) ?? null,
      timeZone,
      snapshotCount: policy.list("snapshot").filter(({ scheduleId }) => scheduleId === record.id)
        .length,
    };
  }
}

function nextRunAt(record: ScheduleRecord, nowMs: number, zone: string): string | null {
  if (nowMs < believableMs) return null;
  const doneUntilMs = Date.parse(record.doneUntil);
  const next = due(record.when, doneUntilMs, nowMs, zone);
  if (next.kind === "run") return new Date(next.slotMs).toISOString();
  return next.kind === "wait" ? new Date(next.nextMs).toISOString() : null;
}

/** Where the store's bytes are; volumes are asked a moment apart, so what differs is bounded. */
export function spaceOf(
  info: StoreInfo,
  volumes: readonly VolumeInfo[],
): NonNullable<Store["space"]> {
  const visible = Math.max(0, info.usedBytes - info.hiddenBytes);
  const written = volumes.reduce((sum, { usedBytes }) => sum + usedBytes, 0);
  const volumesBytes = Math.min(written, visible);
  return {
    volumesBytes,
    snapshotsBytes: visible - volumesBytes,
    hiddenBytes: info.hiddenBytes,
    metadataBytes: info.sizeBytes - info.freeBytes - info.usedBytes,
    freeBytes: info.freeBytes,
  };
}
