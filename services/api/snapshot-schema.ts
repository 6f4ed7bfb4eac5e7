/**
 * Snapshots and their schedules, as api says and accepts them; `schema.ts` for the rest.
 *
 *   GET    /snapshots                     -> Snapshot[]
 *   POST   /snapshots                     SnapshotCreate -> Snapshot[]   all of one instant
 *   GET    /snapshots/{id}                -> Snapshot
 *   PATCH  /snapshots/{id}                SnapshotChange -> Snapshot     name, description, hold
 *   DELETE /snapshots/{id}                -> 204
 *   POST   /snapshots/{id}/attach         SnapshotAttach -> ExportCreated   a clone, exported
 *   POST   /volumes/{id}/revert           VolumeRevert -> VolumeReverted
 *   GET    /volumes/{id}/differences      ?from=&to=&after= -> Differences
 *   GET    /snapshot-schedules            -> SnapshotSchedule[]
 *   POST   /snapshot-schedules            SnapshotScheduleCreate -> SnapshotSchedule
 *   GET    /snapshot-schedules/{id}       -> SnapshotSchedule
 *   PATCH  /snapshot-schedules/{id}       SnapshotScheduleChange -> SnapshotSchedule
 *   DELETE /snapshot-schedules/{id}       -> 204                         its snapshots stay
 *
 * A clone is made by POST /volumes with `origin: {snapshotId}`.
 */
import { z } from "zod";
import { weekdays } from "./local-time.ts";
import { iqnSchema, maxVolumeBytes, nameSchema, uuidSchema } from "./schema.ts";

/** ISO 8601, UTC. */
const time = z.string().meta({ format: "date-time" });

/** Of one instant: their records are written in one transaction, which has room for so many. */
export const mostVolumes = 40;

const description = z.string().max(500, "A description has at most 500 characters.");

export const snapshotSchema = z
  .object({
    id: z.string(),
    name: z.string(),
    description: z.string(),
    volumeId: z.string(),
    /** Null: the volume is gone. */
    volumeName: z.string().nullable(),
    /** Shared by the snapshots of one instant. */
    groupId: z.string(),
    /** `missing`: the store no longer has it. */
    state: z.enum(["creating", "ready", "missing", "deleting"]),
    /** It can't be deleted, by hand or by a schedule, until it is released. */
    hold: z.boolean(),
    sizeBytes: z.number(),
    /** What it sees of its volume's own blocks; null while the store can't be asked. */
    referencedBytes: z.number().nullable(),
    /** Deleting it frees this much, as long as the others stay. */
    exclusiveBytes: z.number().nullable(),
    /** Who has it open now. */
    openCount: z.number().int().nullable(),
    /** Volumes that were cloned from it. */
    clones: z.array(z.object({ id: z.string(), name: z.string() })),
    /** The schedule it came from; its name is null when that is gone. */
    scheduleId: z.string().nullable(),
    scheduleName: z.string().nullable(),
    createdAt: time,
  })
  .meta({ id: "Snapshot" });

export const snapshotCreateSchema = z
  .strictObject({
    /** Ids of volumes: the snapshots are of one instant. */
    volumes: z.array(uuidSchema).min(1, "Name a volume.").max(mostVolumes),
    /** The same for all of them. */
    name: nameSchema,
    description: description.default(""),
  })
  .refine(({ volumes }) => new Set(volumes).size === volumes.length, {
    message: "Each volume may stand there once.",
    path: ["volumes"],
  })
  .meta({ id: "SnapshotCreate" });

export const snapshotChangeSchema = z
  .strictObject({
    name: nameSchema.optional(),
    description: description.optional(),
    hold: z.boolean().optional(),
  })
  .meta({ id: "SnapshotChange" });

export const snapshotAttachSchema = z
  .strictObject({
    /** The machine that is to read files from it. */
    initiator: iqnSchema,
    /** `none`: the initiator's name alone is enough. */
    chap: z.enum(["generate", "none"]).default("generate"),
  })
  .meta({ id: "SnapshotAttach" });

export const volumeRevertSchema = z
  .strictObject({
    snapshotId: uuidSchema,
    /** Takes a snapshot of what is there now first: the way back. */
    keepPresent: z.boolean().default(true),
  })
  .meta({ id: "VolumeRevert" });

export const volumeRevertedSchema = z
  .object({
    volumeId: z.string(),
    /** What the volume is now. */
    snapshotId: z.string(),
    /** The snapshot of what it was before; null if that was not kept. */
    kept: snapshotSchema.nullable(),
  })
  .meta({ id: "VolumeReverted" });

export const differencesQuerySchema = z.object({
  /** A snapshot of this volume. */
  from: uuidSchema,
  /** A later snapshot of it; without it, the volume as it is now. */
  to: uuidSchema.optional(),
  /** `next` of the page before. */
  after: z.coerce.number().int().min(0).max(maxVolumeBytes).default(0),
});

export const differencesSchema = z
  .object({
    /** In the order of their offsets, whole blocks of 4096 bytes. */
    ranges: z.array(
      z.object({
        offsetBytes: z.number(),
        lengthBytes: z.number(),
        /** It reads zero in the later state. */
        zero: z.boolean(),
      }),
    ),
    /** Where the next page begins; null after the last one. */
    next: z.number().nullable(),
    /** Of all pages; told with the first one, null if there are too many to count in 2 s. */
    changedBytes: z.number().nullable(),
  })
  .meta({ id: "Differences" });

// ---- schedules

const clockTime = z
  .string()
  .regex(/^([01]\d|2[0-3]):[0-5]\d$/, "Give a time like 02:30.")
  .meta({ example: "02:30" });

/** `daily` and `weekly` are by the node's time zone; `every` counts from midnight UTC, 1970. */
export const whenSchema = z.discriminatedUnion("kind", [
  z.strictObject({
    kind: z.literal("every"),
    minutes: z
      .number()
      .int()
      .min(5, "At most every 5 minutes.")
      .max(7 * 1440),
  }),
  z.strictObject({ kind: z.literal("daily"), at: clockTime }),
  z.strictObject({
    kind: z.literal("weekly"),
    days: z.array(z.enum(weekdays)).min(1, "Name a day.").max(7),
    at: clockTime,
  }),
]);
export type When = z.infer<typeof whenSchema>;

const count = z.number().int().min(1).max(1000).optional();

/**
 * Of each of the newest so many hours (days, weeks, months) that have one, the last snapshot is
 * kept; `last` is of the newest ones whatever their time. What any of them keeps stays. None given:
 * all stay.
 */
export const keepSchema = z.strictObject({
  last: count,
  hours: count,
  days: count,
  weeks: count,
  months: count,
});
export type Keep = z.infer<typeof keepSchema>;

/** Shorter than other names: that of each snapshot is this and its time. */
const scheduleName = nameSchema.refine((name) => name.length <= 40, {
  message: "A schedule's name has at most 40 characters.",
});
const volumeIds = z
  .array(uuidSchema)
  .min(1, "Name a volume.")
  .max(mostVolumes)
  .refine((ids) => new Set(ids).size === ids.length, "Each volume may stand there once.");

export const scheduleSchema = z
  .object({
    id: z.string(),
    name: z.string(),
    volumeIds: z.array(z.string()),
    when: whenSchema,
    keep: keepSchema,
    enabled: z.boolean(),
    /** Null while it is not enabled. */
    nextRunAt: time.nullable(),
    lastRun: z.object({ at: time, taken: z.number().int(), deleted: z.number().int() }).nullable(),
    /** Why its last try failed, or what it could not take. */
    failure: z.string().nullable(),
    /** IANA name; of the node. */
    timeZone: z.string(),
    snapshotCount: z.number().int(),
    createdAt: time,
  })
  .meta({ id: "SnapshotSchedule" });

export const scheduleCreateSchema = z
  .strictObject({
    name: scheduleName,
    volumeIds,
    when: whenSchema,
    keep: keepSchema.default({}),
    enabled: z.boolean().default(true),
  })
  .meta({ id: "SnapshotScheduleCreate" });

export const scheduleChangeSchema = z
  .strictObject({
    name: scheduleName.optional(),
    volumeIds: volumeIds.optional(),
    when: whenSchema.optional(),
    keep: keepSchema.optional(),
    enabled: z.boolean().optional(),
  })
  .meta({ id: "SnapshotScheduleChange" });

export type Snapshot = z.infer<typeof snapshotSchema>;
export type SnapshotCreate = z.infer<typeof snapshotCreateSchema>;
export type SnapshotChange = z.infer<typeof snapshotChangeSchema>;
export type SnapshotAttach = z.infer<typeof snapshotAttachSchema>;
export type VolumeRevert = z.infer<typeof volumeRevertSchema>;
export type VolumeReverted = z.infer<typeof volumeRevertedSchema>;
export type Differences = z.infer<typeof differencesSchema>;
export type SnapshotSchedule = z.infer<typeof scheduleSchema>;
export type ScheduleCreate = z.infer<typeof scheduleCreateSchema>;
export type ScheduleChange = z.infer<typeof scheduleChangeSchema>;
