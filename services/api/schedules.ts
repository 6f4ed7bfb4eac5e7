/** Snapshot schedules as people change them; `schedule-runner.ts` runs them. */
import { randomUUID } from "node:crypto";
import type { Clock } from "./clock.ts";
import { type Draft, notFound, type Policy } from "./policy.ts";
import type { ScheduleRecord } from "./snapshot-records.ts";
import type { ScheduleChange, ScheduleCreate } from "./snapshot-schema.ts";

export class Schedules {
  readonly #policy: Policy;
  readonly #clock: Clock;

  constructor(policy: Policy, clock: Clock) {
    this.#policy = policy;
    this.#clock = clock;
  }

  async create(body: ScheduleCreate): Promise<ScheduleRecord> {
    const now = this.#clock.now();
    return await this.#policy.change((draft) => {
      requireVolumes(draft, body.volumeIds);
      const record: ScheduleRecord = {
        ...body,
        id: randomUUID(),
        createdAt: now,
        // Its first run is the next time that comes, not one that has just gone by.
        doneUntil: now,
        lastRun: null,
      };
      draft.put("snapshot-schedule", record);
      return record;
    });
  }

  async change(id: string, body: ScheduleChange): Promise<ScheduleRecord> {
    return await this.#policy.change((draft) => {
      const before = draft.get("snapshot-schedule", id);
      if (before === undefined) throw notFound("snapshot-schedule", id);
      requireVolumes(draft, body.volumeIds ?? []);
      const resumed = body.enabled === true && !before.enabled;
      const moved = body.when !== undefined;
      const record: ScheduleRecord = {
        ...before,
        name: body.name ?? before.name,
        volumeIds: body.volumeIds ?? before.volumeIds,
        when: body.when ?? before.when,
        keep: body.keep ?? before.keep,
        enabled: body.enabled ?? before.enabled,
        doneUntil: resumed || moved ? this.#clock.now() : before.doneUntil,
      };
      draft.put("snapshot-schedule", record);
      return record;
    });
  }

  /** Its snapshots stay, and nothing deletes them any more but a person. */
  async delete(id: string): Promise<void> {
    await this.#policy.change((draft) => {
      if (draft.get("snapshot-schedule", id) === undefined) throw notFound("snapshot-schedule", id);
      draft.delete("snapshot-schedule", id);
    });
  }
}

function requireVolumes(draft: Draft, ids: readonly string[]): void {
  for (const id of ids) {
    const volume = draft.get("volume", id);
    if (volume === undefined || volume.state === "deleting") throw notFound("volume", id);
  }
}
