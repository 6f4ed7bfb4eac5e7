/**
 * Bundles in the spool: received in one pass that writes while it checks, so that a bad one is
 * refused at its first wrong byte and never stands there as a bundle.
 */
import { createHash, randomUUID } from "node:crypto";
import {
  closeSync,
  createReadStream,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  renameSync,
  rmSync,
  statfsSync,
  statSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { inspectBundle, verifyBundle } from "#lib/bundle/file.ts";
import { type BundleManifest, grubSlotConfig } from "#lib/bundle/manifest.ts";
import { readBundle } from "#lib/bundle/reader.ts";
import type { Signer } from "#lib/bundle/signature.ts";
import type { BundleTarget } from "#lib/bundle/target.ts";
import type { Trust } from "#lib/bundle/trust.ts";
import { explainError, KeelsonError } from "#lib/model/errors.ts";
import { readStateFile, writeStateFile } from "#lib/service/state-file.ts";
import { type LoaderParts, loaderPartNames } from "./boot-loaders.ts";
import type { BundleParts } from "./executor.ts";
import type { SlotName, SourceKind } from "./schema.ts";
import type { SlotPartName } from "./slot-writer.ts";

export const largestBundleBytes = 1600 * 2 ** 20;
/** Left free on /var for everybody else. */
const reservedBytes = 256 * 2 ** 20;

const noteSchema = z.object({
  source: z.object({
    kind: z.enum(["upload", "directory", "usb", "channel", "node"]),
    where: z.string(),
  }),
  offeredAt: z.string(),
});
type Note = z.infer<typeof noteSchema>;

export interface SpooledBundle extends Note {
  readonly id: string;
  readonly path: string;
  readonly manifest: BundleManifest;
  readonly sizeBytes: number;
}

export interface SpoolOptions {
  readonly folder: string;
  trust(): Trust;
  target(): BundleTarget;
  /** A good bundle's signer was seen: older keys may end by it. */
  signed(signer: Signer): void;
  now(): string;
}

export interface Arrival {
  readonly source: AsyncIterable<Uint8Array>;
  readonly from: Note["source"];
  /** Null: not told beforehand. */
  readonly lengthBytes: number | null;
  readonly received?: (bytes: number) => void;
}

export class Spool implements BundleParts {
  readonly #options: SpoolOptions;
  readonly #bundles = new Map<string, SpooledBundle>();
  /** The slot that the next `unpack` is for. */
  toSlot: SlotName = "b";

  constructor(options: SpoolOptions) {
    this.#options = options;
    mkdirSync(options.folder, { recursive: true, mode: 0o750 });
  }

  /** What an earlier life left: whole bundles are kept, half-received ones go. */
  async open(warn: (what: string, why: string) => void): Promise<void> {
    const { folder } = this.#options;
    for (const name of readdirSync(folder)) {
      const path = join(folder, name);
      if (name.endsWith(".part")) rmSync(path, { force: true });
      const id = /^([0-9a-f]{32})\.kbundle$/.exec(name)?.[1];
      if (id === undefined) continue;
      try {
        const { manifest } = await inspectBundle(path, this.#options.trust());
        const note = noteSchema.safeParse(readStateFile(join(folder, `${id}.json`)));
        const unknown: Note = {
          source: { kind: "directory", where: path },
          offeredAt: this.#options.now(),
        };
        this.#bundles.set(id, {
          ...(note.success ? note.data : unknown),
          ...{ id, path, manifest, sizeBytes: statSync(path).size },
        });
      } catch (error) {
        warn(name, explainError(error));
        rmSync(path, { force: true });
      }
    }
  }

  list(): SpooledBundle[] {
    return [...this.#bundles.values()];
  }

  get(id: string): SpooledBundle {
    const found = this.#bundles.get(id);
    if (found !== undefined) return found;
    throw new KeelsonError("NOT_FOUND", `There is no bundle ${id} on this node.`, {
      object: id,
      remedy: "`keelson upgrade list` shows those there are.",
    });
  }

  freeBytes(): number {
    const { bavail, bsize } = statfsSync(this.#options.folder);
    return Math.max(0, bavail * bsize - reservedBytes);
  }

  /** Receives a bundle; it is there as a whole when this returns, and not at all when it throws. */
  async receive(arrival: Arrival): Promise<SpooledBundle> {
    const { folder } = this.#options;
    this.#checkRoom(arrival.lengthBytes ?? 0);
    const part = join(folder, `${randomUUID()}.part`);
    const file = openSync(part, "wx", 0o640);
    try {
      const reader = await readBundle(
        this.#copied(arrival, file),
        this.#options.trust(),
        this.#options.target(),
      );
      this.#checkRoom(reader.totalBytes);
      for await (const { pieces } of reader.parts()) for await (const _ of pieces);
      fsyncSync(file);
      const { manifest } = reader;
      const id = manifest.buildId;
      const note: Note = { source: arrival.from, offeredAt: this.#options.now() };
      writeStateFile(join(folder, `${id}.json`), JSON.stringify(note));
      const path = join(folder, `${id}.kbundle`);
      renameSync(part, path);
      const directory = openSync(folder, "r");
      fsyncSync(directory);
      closeSync(directory);
      const bundle = { ...note, id, path, manifest, sizeBytes: reader.totalBytes };
      this.#bundles.set(id, bundle);
      this.#options.signed(reader.signer);
      return bundle;
    } finally {
      closeSync(file);
      rmSync(part, { force: true });
    }
  }

  remove(id: string): void {
    const { path } = this.get(id);
    this.#bundles.delete(id);
    rmSync(path, { force: true });
    rmSync(join(this.#options.folder, `${id}.json`), { force: true });
  }

  #checkRoom(bytes: number): void {
    if (bytes > largestBundleBytes) {
      throw new KeelsonError("INVALID_ARGUMENT", "The file is larger than any bundle.", {
        operation: "receive bundle",
        remedy: "Give a file named keelson-VERSION.kbundle.",
      });
    }
    const free = this.freeBytes();
    if (bytes <= free) return;
    const mebibytes = (count: number) => Math.ceil(count / 2 ** 20);
    throw new KeelsonError(
      "NO_SPACE",
      `The bundle needs ${mebibytes(bytes)} MiB and /var has ${mebibytes(free)} MiB to give.`,
      { operation: "receive bundle", remedy: "Delete bundles that aren't needed any more." },
    );
  }

  async *#copied({ source, lengthBytes, received }: Arrival, file: number) {
    let total = 0;
    for await (const bytes of source) {
      try {
        for (let done = 0; done < bytes.length; ) done += writeSync(file, bytes, done);
      } catch (cause) {
        throw new KeelsonError("NO_SPACE", "/var is full: the bundle was not kept.", {
          operation: "receive bundle",
          remedy: "Delete bundles that aren't needed any more.",
          cause,
        });
      }
      total += bytes.length;
      if (total > largestBundleBytes) this.#checkRoom(total);
      received?.(total);
      yield bytes;
    }
    if (lengthBytes !== null && total < lengthBytes) {
      throw new KeelsonError(
        "CANCELLED",
        `The transfer ended after ${total} of ${lengthBytes} bytes.`,
        { operation: "receive bundle", remedy: "Send it again." },
      );
    }
  }

  totalBytes(id: string): number {
    return this.get(id).sizeBytes;
  }

  dataFormats(id: string) {
    return this.get(id).manifest.dataFormats;
  }

  async loaders(id: string): Promise<LoaderParts> {
    const stream = createReadStream(this.get(id).path, { highWaterMark: 1 << 20 });
    // Kept by now, its version is the running one: what it is to this node was judged before.
    const reader = await readBundle(stream, this.#options.trust());
    const found = new Map<string, Buffer>();
    for await (const { name, pieces } of reader.parts()) {
      const bytes: Uint8Array[] = [];
      for await (const piece of pieces) {
        if ((loaderPartNames as readonly string[]).includes(name)) bytes.push(Buffer.from(piece));
      }
      found.set(name, Buffer.concat(bytes));
    }
    const entries = loaderPartNames.map((name) => [name, found.get(name)!]);
    return Object.fromEntries(entries) as LoaderParts;
  }

  async verify(id: string, advance: (percent: number) => void, signal: AbortSignal): Promise<void> {
    const { path, sizeBytes } = this.get(id);
    let done = 0;
    await verifyBundle(path, this.#options.trust(), this.#options.target(), {
      signal,
      advance: (bytes) => {
        done += bytes;
        advance(Math.min(99, (100 * done) / sizeBytes));
      },
    });
  }

  async unpack(
    id: string,
    use: (
      name: SlotPartName,
      sizeBytes: number,
      pieces: AsyncIterable<Uint8Array>,
    ) => Promise<void>,
    signal: AbortSignal,
  ) {
    const { path } = this.get(id);
    const stream = createReadStream(path, { highWaterMark: 1 << 20, signal });
    const reader = await readBundle(stream, this.#options.trust(), this.#options.target());
    for await (const { name, sizeBytes, pieces } of reader.parts()) {
      if ((slotParts as readonly string[]).includes(name)) {
        await use(name as SlotPartName, sizeBytes, pieces);
      }
    }
    const slotConfig = grubSlotConfig(this.toSlot, reader.manifest.kernelLine);
    return { slotConfig, totalBytes: reader.totalBytes };
  }
}

const slotParts: readonly SlotPartName[] = [
  "root",
  "verity",
  "uki",
  "vmlinuz",
  "microcode",
  "initrd",
];

/** Of what is elsewhere: of its place and size. */
export function remoteId(kind: SourceKind, where: string, sizeBytes: number): string {
  return createHash("sha256").update(`${kind}\0${where}\0${sizeBytes}`).digest("hex").slice(0, 32);
}
