/** What chunk-store says and accepts on its control socket; the schemas validate, the types are inferred. */
import { z } from "zod";
import { maxVolumeBytes, sectorBytes } from "./limits.ts";

export const uuidSchema = z
  .string()
  .toLowerCase()
  .regex(
    /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/,
    "must be a UUID such as 6f1f9a3e-7c0b-4c59-9d53-0d7c2f3f8a11",
  );

/** A whole number of 512-byte sectors. */
export const volumeSizeSchema = z
  .number()
  .int()
  .min(sectorBytes)
  .max(maxVolumeBytes)
  .multipleOf(sectorBytes, "must be a multiple of 512 bytes");

/** GET /v1/store */
export interface StoreInfo {
  readonly id: string;
  readonly pool: string;
  /** Path of the device or file. */
  readonly device: string;
  /** `failed`: a flush or a log write failed; every request is refused until the store is restarted. */
  readonly state: "mounted" | "failed";
  /** Why it failed; null while mounted. */
  readonly reason: string | null;
  /** `used + metadata + reclaiming + reserved + free` add up to `size`. */
  readonly sizeBytes: number;
  /** Blocks that hold volumes' data. */
  readonly usedBytes: number;
  /** Of `used`: of deleted volumes and snapshots, which clones still see or which are being freed. */
  readonly hiddenBytes: number;
  /** Superblocks, log, map pages, index, bitmap, tables. */
  readonly metadataBytes: number;
  /** Freed, to be reusable once the freeing log entry is durable and stated so. */
  readonly reclaimingBytes: number;
  /** Kept back so that a full store can still mount, delete and checkpoint. */
  readonly reservedBytes: number;
  /** What writers may still fill. */
  readonly freeBytes: number;
  readonly formatVersion: number;
  /** True: this format is not yet kept from release to release. */
  readonly experimental: boolean;
  /** Grows by one at each mount. */
  readonly mountGeneration: number;
  /** Flushes asked for by clients, and flushes the device was asked for. */
  readonly flushesRequested: number;
  readonly flushesDone: number;
  readonly checkpoints: number;
  readonly checksumErrors: number;
}

/** GET /v1/store: also what scrubs found, until one ends that found none. */
export interface ServedStoreInfo extends StoreInfo {
  readonly badBlocks: BadBlocks;
}

/** GET /v1/volumes, GET /v1/volumes/:id */
export interface VolumeInfo {
  readonly id: string;
  readonly sizeBytes: number;
  /** Blocks of its own that its newest state has: not what it sees of its origin. */
  readonly usedBytes: number;
  /** Blocks of its own that only snapshots still have. */
  readonly snapshotBytes: number;
  /** The volume that it is a clone of. */
  readonly parent: string | null;
  /** The snapshot of that volume; null if the volume is sealed, and for no clone. */
  readonly snapshot: string | null;
  /** Its visible snapshots. */
  readonly snapshots: number;
  /** Sealed: read-only for good, may be cloned. */
  readonly sealed: boolean;
  readonly readOnly: boolean;
  /** Clones made of it that still exist. */
  readonly clones: number;
  /** Gateways and NBD clients that have it open now. */
  readonly openCount: number;
}

/** PUT /v1/volumes/:id. Idempotent: the same body again gives the same volume, another body CONFLICT. */
export const putVolumeSchema = z.union([
  z.strictObject({ sizeBytes: volumeSizeSchema }),
  /** A clone of a sealed volume, as large as it or larger. */
  z.strictObject({ parent: uuidSchema, sizeBytes: volumeSizeSchema.optional() }),
  /** A clone of a snapshot. */
  z.strictObject({ snapshot: uuidSchema, sizeBytes: volumeSizeSchema.optional() }),
]);
export type PutVolume = z.infer<typeof putVolumeSchema>;

/** PATCH /v1/volumes/:id: grows; a smaller size is refused. */
export const patchVolumeSchema = z.strictObject({ sizeBytes: volumeSizeSchema });
export type PatchVolume = z.infer<typeof patchVolumeSchema>;

/** DELETE /v1/volumes/:id?force=true deletes even if it is open: its users then get errors. */
export const deleteVolumeQuerySchema = z.object({ force: z.enum(["true", "false"]).optional() });

/** GET /v1/snapshots, GET /v1/snapshots/:id. It opens and exports by its id, as a volume does. */
export interface SnapshotInfo {
  readonly id: string;
  readonly volume: string;
  readonly sizeBytes: number;
  /** RFC 3339. */
  readonly createdAt: string;
  /** Of snapshots of one descent, the greater one is the later one. */
  readonly epoch: number;
  /** What it sees of its volume's own blocks. */
  readonly referencedBytes: number;
  /** What nobody else sees: deleting it frees this much, as long as the others stay. */
  readonly exclusiveBytes: number;
  readonly clones: number;
  readonly openCount: number;
}

/** More in one log record than any node has volumes. */
const mostSnapshots = 256;

/**
 * POST /v1/snapshots: all of them at one instant. Idempotent: the same body again gives the same
 * snapshots; CONFLICT if some of the ids are taken.
 */
export const createSnapshotsSchema = z
  .strictObject({
    snapshots: z
      .array(z.strictObject({ id: uuidSchema, volume: uuidSchema }))
      .min(1)
      .max(mostSnapshots),
  })
  .refine(({ snapshots }) => new Set(snapshots.map(({ id }) => id)).size === snapshots.length, {
    message: "each id may stand there once",
  })
  .refine(
    ({ snapshots }) => new Set(snapshots.map(({ volume }) => volume)).size === snapshots.length,
    { message: "each volume may stand there once" },
  );
export type CreateSnapshots = z.infer<typeof createSnapshotsSchema>;

/** DELETE /v1/snapshots/:id?force=true deletes even if it is open. */
export const deleteSnapshotQuerySchema = deleteVolumeQuerySchema;

/** POST /v1/volumes/:id/revert. The volume must not be open; what was written since is gone. */
export const revertVolumeSchema = z.strictObject({ snapshot: uuidSchema });

/**
 * GET /v1/differences?from=&to=: ids of volumes or snapshots. Without `from`: all that `to` has.
 * `after` is an answer's `next`.
 */
export const differencesQuerySchema = z.object({
  from: uuidSchema.optional(),
  to: uuidSchema,
  after: z.coerce.number().int().min(0).max(maxVolumeBytes).default(0),
});
export type DifferencesQuery = z.infer<typeof differencesQuerySchema>;

export interface DifferencesPage {
  /** In the order of their offsets. */
  readonly ranges: readonly {
    readonly offsetBytes: number;
    readonly lengthBytes: number;
    /** It reads zero in the later state. */
    readonly zero: boolean;
  }[];
  /** Where the next page begins; null after the last one. */
  readonly next: number | null;
}

/** PUT /v1/scrub/settings */
export const scrubSettingsSchema = z.strictObject({
  /** From the end of one to the start of the next; 0: only when told. */
  everyDays: z.number().int().min(0).max(365),
  /** What it may read at most. */
  bytesPerSecond: z
    .number()
    .int()
    .min(2 ** 20)
    .max(2 ** 36),
});
export type ScrubSettings = z.infer<typeof scrubSettingsSchema>;

export const badBlockSchema = z.object({
  /** On the device, in blocks of 4 KiB. */
  block: z.number(),
  volume: z.string(),
  /** In the volume. */
  offsetBytes: z.number(),
  /** The oldest snapshot that has it; null: only the volume's present state does. */
  snapshot: z.string().nullable(),
  /** `map`: the page that leads to up to 1 MiB from this offset on. */
  why: z.enum(["unreadable", "checksum", "map"]),
});

export const badBlocksSchema = z.object({
  count: z.number(),
  /** Null if there are none. */
  first: badBlockSchema.nullable(),
});
export type BadBlocks = z.infer<typeof badBlocksSchema>;

export const scrubRunSchema = z.object({
  startedAt: z.string(),
  /** Null while it runs. */
  endedAt: z.string().nullable(),
  state: z.enum(["running", "finished", "stopped", "failed"]),
  /** Why it failed. */
  reason: z.string().nullable(),
  progressPercent: z.number(),
  readBytes: z.number(),
  /** Pages and superblocks that were written anew from memory. */
  healed: z.number(),
  badCount: z.number(),
  /** The first of them. */
  bad: z.array(badBlockSchema),
});
export type ScrubRun = z.infer<typeof scrubRunSchema>;

/** GET /v1/scrub; POST /v1/scrub starts one, DELETE /v1/scrub stops it. */
export const scrubInfoSchema = z.object({
  settings: scrubSettingsSchema,
  /** Null: only when told. */
  nextAt: z.string().nullable(),
  /** The one that runs, or the last one. */
  run: scrubRunSchema.nullable(),
});
export type ScrubInfo = z.infer<typeof scrubInfoSchema>;

/** POST /v1/volumes/:id/nbd-grants */
export const nbdGrantSchema = z.strictObject({ readOnly: z.boolean().default(false) });

export interface NbdGrant {
  /** Export name, good for one connection: `nbd+unix:///TOKEN?socket=SOCKET`. */
  readonly token: string;
  /** Path of the NBD socket. */
  readonly socket: string;
  /** Whole URI for qemu-img and friends. */
  readonly uri: string;
  /** RFC 3339; an unused token dies then. */
  readonly expires: string;
}

export const volumeIdParameterSchema = z.object({ id: uuidSchema });
