/** Scrubs of the chunk store, as the API says and takes them. */
import { z } from "zod";

const time = z.string();

export const scrubSettingsSchema = z
  .strictObject({
    /** From the end of one to the start of the next; 0: only when told. */
    everyDays: z.number().int().min(0).max(365),
    /** What it may read at most: 1 MiB to 64 GiB a second. */
    bytesPerSecond: z
      .number()
      .int()
      .min(2 ** 20)
      .max(2 ** 36),
  })
  .meta({ id: "ScrubSettings" });
export type ScrubSettings = z.infer<typeof scrubSettingsSchema>;

export const scrubSchema = z
  .object({
    settings: scrubSettingsSchema,
    /** Null: only when told, or one runs now. */
    nextAt: time.nullable(),
    /** The one that runs, or the last one. */
    run: z
      .object({
        startedAt: time,
        /** Null while it runs. */
        endedAt: time.nullable(),
        state: z.enum(["running", "finished", "stopped", "failed"]),
        /** Why it failed. */
        reason: z.string().nullable(),
        progressPercent: z.number(),
        readBytes: z.number(),
        /** Pages of the map and superblocks that were written anew from memory. */
        healed: z.number(),
        badCount: z.number(),
        /** The first thousand of them. */
        bad: z.array(
          z.object({
            /** On the device, in blocks of 4 KiB. */
            block: z.number(),
            volumeId: z.string(),
            volumeName: z.string().nullable(),
            offsetBytes: z.number(),
            /** The oldest snapshot that has it; null: only the volume's present state does. */
            snapshotId: z.string().nullable(),
            /** `map`: the page that leads to up to 1 MiB from this offset on. */
            why: z.enum(["unreadable", "checksum", "map"]),
          }),
        ),
      })
      .nullable(),
  })
  .meta({ id: "Scrub" });
export type Scrub = z.infer<typeof scrubSchema>;
