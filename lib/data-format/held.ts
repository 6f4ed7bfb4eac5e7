/**
 * Which formats a node's data may be written in: `formats.json` of keelson-firmware-updater, its
 * only writer, which raises it when a version is kept.
 *
 *   absent               2026.11.0's formats: a new node, until its first version is kept
 *   on trial             what the old version left: whatever is written, the old slot reads it
 *   kept (commit)        raised to what the new version reads; services then write theirs anew
 */
import { existsSync, type StatsListener, unwatchFile, watchFile } from "node:fs";
import { z } from "zod";
import { isKeelsonError, KeelsonError } from "#lib/model/errors.ts";
import { readStateFile, writeStateFile } from "#lib/service/state-file.ts";
import {
  dataFormats,
  type FormatName,
  type FormatRange,
  firstFormats,
  formatToWrite,
  type HeldFormats,
} from "./formats.ts";

export const heldFormatsPath = "/var/lib/keelson/firmware-updater/formats.json";
/** Kept versions are days apart: a service notices within so long. One stat(2) each time. */
const lookMs = 30_000;

const fileSchema = z.object({
  format: z.literal(1),
  formats: z.record(z.string().max(100), z.int().min(0)),
});

export class HeldFormatsFile {
  readonly path: string;

  /** Where there is no such node (`npm run dev`, tests) the file is missing, and that is all. */
  constructor(path = process.env.KEELSON_FORMATS ?? heldFormatsPath) {
    this.path = path;
  }

  /** FORMAT_CORRUPT, FORMAT_UNKNOWN: nothing may be written on such a node before it is mended. */
  read(): HeldFormats {
    const raw = this.#document();
    if (raw === undefined) return firstFormats;
    const parsed = fileSchema.safeParse(raw);
    if (parsed.success) return { ...firstFormats, ...parsed.data.formats };
    const format = (raw as { format?: unknown } | null)?.format;
    throw new KeelsonError(
      typeof format === "number" && format > 1 ? "FORMAT_UNKNOWN" : "FORMAT_CORRUPT",
      `${this.path} says which formats this node's data has, and can't be read.`,
      {
        operation: "look at the data's formats",
        object: this.path,
        remedy:
          "Boot the version that wrote it; after damage, delete it if only one ever ran here.",
      },
    );
  }

  #document(): unknown {
    try {
      return readStateFile(this.path);
    } catch (cause) {
      if (isKeelsonError(cause)) throw cause;
      const why = (cause as NodeJS.ErrnoException).code ?? (cause as Error).message;
      throw new KeelsonError("UNAVAILABLE", `${this.path} can't be read: ${why}.`, {
        operation: "look at the data's formats",
        object: this.path,
        remedy: "keelson-firmware-updater keeps it, mode 0644 in a folder of 0751: see its log.",
        cause,
      });
    }
  }

  /** False: nothing was ever kept here, and `read` gives the first release's formats. */
  get isWritten(): boolean {
    return existsSync(this.path);
  }

  /** For its one writer. Everybody on the node may read it. */
  write(held: HeldFormats): void {
    writeStateFile(this.path, `${JSON.stringify({ format: 1, formats: held })}\n`, 0o644);
  }

  /** What may be written now. */
  writes(name: FormatName, range: FormatRange = dataFormats[name]): number {
    return formatToWrite(range, this.read()[name]);
  }

  /** Tells when the file has changed; the process may end meanwhile. Gives the function that ends it. */
  onChange(listener: () => void, everyMs = lookMs): () => void {
    const look: StatsListener = (now, before) => {
      if (now.mtimeMs !== before.mtimeMs || now.ino !== before.ino) listener();
    };
    watchFile(this.path, { interval: everyMs, persistent: false }, look);
    return () => unwatchFile(this.path, look);
  }
}
