/**
 * Bundles that are elsewhere: in a folder, on a stick, in a channel, on a neighbour. They are
 * listed, and copied into the spool when asked for; only there are they believed.
 */
import { createReadStream, existsSync, readdirSync } from "node:fs";
import { basename, join } from "node:path";
import { explainError, KeelsonError } from "#lib/model/errors.ts";
import type { Log } from "#lib/service/log.ts";
import { type Channel, readChannel, readRemote } from "./channel.ts";
import type { OfferedBundle, SourceKind, SourceSettings } from "./schema.ts";
import { bundlesIn, remoteId, type Spool } from "./spool.ts";

export interface OffersOptions {
  readonly spool: Spool;
  readonly folders: readonly { readonly kind: "directory" | "usb"; readonly folder: string }[];
  sources(): SourceSettings;
  readonly changed: () => void;
  readonly log: Log;
}

const checkMs = 6 * 3600_000;
/** Sticks come and go between checks of the channel. */
const folderCheckMs = 15_000;

type Mutable<Value> = { -readonly [Key in keyof Value]: Value[Key] };

export class Offers {
  readonly #options: OffersOptions;
  #remote = new Map<string, Mutable<OfferedBundle>>();
  #timers: NodeJS.Timeout[] = [];
  readonly #ended = new AbortController();
  lastCheck: { checkedAt: string | null; message: string | null } = {
    checkedAt: null,
    message: null,
  };

  constructor(options: OffersOptions) {
    this.#options = options;
  }

  start(): void {
    this.#timers = [
      setInterval(() => this.#checkFolders(), folderCheckMs).unref(),
      setInterval(() => void this.check(), checkMs).unref(),
    ];
    this.#checkFolders();
  }

  stop(): void {
    for (const timer of this.#timers) clearInterval(timer);
    this.#ended.abort(new KeelsonError("CANCELLED", "The updater stops."));
  }

  /** What is not in the spool yet. */
  remote(): OfferedBundle[] {
    const here = new Set(this.#options.spool.list().map(({ manifest }) => manifest.version));
    return [...this.#remote.values()].filter(
      ({ version, state }) => state !== "remote" || version === null || !here.has(version),
    );
  }

  /** True if it was an offer from elsewhere: it goes from the list until it is found again. */
  forget(id: string): boolean {
    const found = this.#remote.delete(id);
    if (found) this.#options.changed();
    return found;
  }

  /** Looks at all sources now. */
  async check(): Promise<void> {
    this.#checkFolders();
    const { channel, neighbour } = this.#options.sources();
    const messages: string[] = [];
    const places: [SourceKind, string][] = [
      ...(channel === null ? [] : [["channel", channel] as [SourceKind, string]]),
      ...(neighbour === null ? [] : [["node", neighbour] as [SourceKind, string]]),
    ];
    for (const [kind, where] of places) {
      try {
        const found: Channel = await readChannel(where, kind === "node", this.#ended.signal);
        for (const { url, version, sizeBytes, notes } of found.bundles) {
          this.#offer(kind, url, sizeBytes, version, notes);
        }
      } catch (error) {
        messages.push(`${where}: ${explainError(error)}`);
      }
    }
    this.lastCheck = {
      checkedAt: new Date().toISOString(),
      message: messages.length === 0 ? null : messages.join(" "),
    };
    this.#options.changed();
  }

  #checkFolders(): void {
    const seen = new Set<string>();
    for (const { kind, folder } of this.#options.folders) {
      for (const each of kind === "usb" ? foldersIn(folder) : [folder]) {
        for (const { path, sizeBytes } of bundlesIn(each)) {
          seen.add(this.#offer(kind, path, sizeBytes, versionOfName(path), ""));
        }
      }
    }
    for (const [id, { source, state }] of this.#remote) {
      const gone = (source.kind === "usb" || source.kind === "directory") && !seen.has(id);
      if (gone && state !== "fetching") {
        this.#remote.delete(id);
        this.#options.changed();
      }
    }
  }

  #offer(
    kind: SourceKind,
    where: string,
    sizeBytes: number,
    version: string | null,
    notes: string,
  ): string {
    const id = remoteId(kind, where, sizeBytes);
    if (this.#remote.has(id)) return id;
    this.#remote.set(id, {
      id,
      version,
      notes,
      sizeBytes,
      source: { kind, where },
      state: "remote",
      receivedBytes: 0,
      message: null,
      developmentKey: false,
      offeredAt: new Date().toISOString(),
      startable: { ok: false, why: "It is not on this node yet: fetch it first." },
    });
    this.#options.changed();
    return id;
  }

  /** Copies it into the spool, in the background; its state and message say how it goes. */
  fetch(id: string): void {
    const offer = this.#remote.get(id);
    if (offer === undefined) {
      throw new KeelsonError("NOT_FOUND", `No bundle ${id} is offered.`, { object: id });
    }
    if (offer.state === "fetching") return;
    Object.assign(offer, { state: "fetching", receivedBytes: 0, message: null });
    this.#options.changed();
    void this.#copy(offer);
  }

  async #copy(offer: Mutable<OfferedBundle>): Promise<void> {
    const { spool, changed, log } = this.#options;
    const { kind, where } = offer.source;
    let told = 0;
    try {
      await spool.receive({
        source:
          kind === "usb" || kind === "directory"
            ? fileSource(where, kind)
            : readRemote(where, offer.sizeBytes, kind === "node", this.#ended.signal),
        from: offer.source,
        lengthBytes: offer.sizeBytes,
        received: (bytes) => {
          offer.receivedBytes = bytes;
          if (bytes - told < offer.sizeBytes / 100) return;
          told = bytes;
          changed();
        },
      });
      this.#remote.delete(offer.id);
    } catch (error) {
      Object.assign(offer, { state: "refused", message: explainError(error) });
      log.warn("a bundle was not taken", { where, why: explainError(error) });
    }
    changed();
  }
}

function foldersIn(folder: string): string[] {
  if (!existsSync(folder)) return [];
  return readdirSync(folder, { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map(({ name }) => join(folder, name));
}

function versionOfName(path: string): string | null {
  return /^keelson-(.+)\.kbundle$/i.exec(basename(path))?.[1] ?? null;
}

async function* fileSource(path: string, kind: "usb" | "directory") {
  try {
    yield* createReadStream(path, { highWaterMark: 1 << 20 });
  } catch (cause) {
    throw new KeelsonError(
      "MEDIA_ERROR",
      kind === "usb"
        ? "The stick was pulled, or can't be read, before the bundle was copied."
        : `${path} can't be read: ${(cause as Error).message}.`,
      {
        operation: "copy bundle",
        object: path,
        remedy: kind === "usb" ? "Plug it in again, and fetch the bundle again." : "Copy it again.",
        cause,
      },
    );
  }
}
