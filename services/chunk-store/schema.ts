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
  /** Superblocks, log, map pages, index, bitmap. */
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

/** GET /v1/volumes, GET /v1/volumes/:id */
export interface VolumeInfo {
  readonly id: string;
  readonly sizeBytes: number;
  /** Blocks of its own: what deleting it frees (for a parent: once its clones are gone too). */
  readonly usedBytes: number;
  /** The sealed volume that it is a clone of. */
  readonly parent: string | null;
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
]);
export type PutVolume = z.infer<typeof putVolumeSchema>;

/** PATCH /v1/volumes/:id: grows; a smaller size is refused. */
export const patchVolumeSchema = z.strictObject({ sizeBytes: volumeSizeSchema });
export type PatchVolume = z.infer<typeof patchVolumeSchema>;

/** DELETE /v1/volumes/:id?force=true deletes even if it is open: its users then get errors. */
export const deleteVolumeQuerySchema = z.object({ force: z.enum(["true", "false"]).optional() });

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
