/** What policy keeps of snapshots: names and holds. That they exist, and what they hold, the store says. */
import { z } from "zod";
import { keepSchema, whenSchema } from "./snapshot-schema.ts";

export const snapshotRecord = z.object({
  id: z.string(),
  name: z.string(),
  description: z.string(),
  volumeId: z.string(),
  /** Shared by those of one instant. */
  groupId: z.string(),
  /**
   * `creating`: asked for, not yet known to be there. `missing`: it was there, and the store no
   * longer has it. `snapshots.ts` says in which order they are written.
   */
  state: z.enum(["creating", "ready", "missing", "deleting"]),
  /** Neither a person nor a schedule deletes it until it is released. */
  hold: z.boolean(),
  /** The schedule that took it, also after that is gone. */
  scheduleId: z.string().nullable(),
  sizeBytes: z.number(),
  createdAt: z.string(),
});
export type SnapshotRecord = z.infer<typeof snapshotRecord>;

export const scheduleRecord = z.object({
  id: z.string(),
  name: z.string(),
  volumeIds: z.array(z.string()),
  when: whenSchema,
  keep: keepSchema,
  enabled: z.boolean(),
  createdAt: z.string(),
  /** Runs up to here are made, or will not be: a run is due when a time of it lies behind this. */
  doneUntil: z.string(),
  lastRun: z
    .object({ at: z.string(), taken: z.number().int(), deleted: z.number().int() })
    .nullable(),
});
export type ScheduleRecord = z.infer<typeof scheduleRecord>;
