/**
 * Bundles that are elsewhere: in a folder, on a stick, in a channel, on a neighbour. They are
 * listed, and copied into the spool when asked for; only there are they believed.
 */
import { existsSync, readdirSync } from "node:fs";
import { basename, join } from "node:path";
import { explainError, KeelsonError } from "#lib/model/errors.ts";
import type { Log } from "#lib/service/log.ts";
import { ChannelReader, checkNeighbour, type Origin } from "./channel.ts";
import { bundlesIn, copyOf } from "./folder-source.ts";
import type { OfferedBundle, SourceKind, SourceSettings } from "./schema.ts";
import { remoteId, type Spool } from "./spool.ts";

export interface OffersOptions {
  readonly spool: Spool;
  readonly folders: readonly { readonly kind: "directory" | "usb"; readonly folder: string }[];
  sources(): SourceSettings;
  /** Whether a version of a channel or a neighbour is worth offering. */
  wanted(version: string): boolean;
  readonly reader?: ChannelReader;
  readonly changed: () => void;
  readonly log: Log;
}

const checkMs = 6 * 3600_000;
/** Sticks come and go between checks of the channel. */
const folderCheckMs = 15_000;

type Mutable<Value> = { -readonly [Key in keyof Value]: Value[Key] };

export class Offers {
  readonly #options: OffersOptions;
  readonly #reader: ChannelReader;
  #remote = new Map<string, Mutable<OfferedBundle>>();
  readonly #copying = new Map<string, AbortController>();
  #timers: NodeJS.Timeout[] = [];
  readonly #ended = new AbortController();
  lastCheck: { checkedAt: string | null; message: string | null } = {
    checkedAt: null,
    message: null,
  };

  constructor(options: OffersOptions) {
    this.#options = options;
    this.#reader = options.reader ?? new ChannelReader();
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
    void this.#reader.close();
  }

  /** What is not in the spool yet. */
  remote(): OfferedBundle[] {
    const here = new Set(this.#options.spool.list().map(({ manifest }) => manifest.version));
    return [...this.#remote.values()].filter(
      ({ version, state }) => state !== "remote" || version === null || !here.has(version),
    );
  }

  /**
   * True if it was an offer from elsewhere: it goes from the list until it is found again, and is
   * not copied any further.
   */
  forget(id: string): boolean {
    const found = this.#remote.delete(id);
    this.#copying.get(id)?.abort(new KeelsonError("CANCELLED", "The bundle was deleted."));
    if (found) this.#options.changed();
    return found;
  }

  /**
   * Looks at all sources now. What a source no longer lists is no longer offered; one that doesn't
   * answer keeps what it listed before.
   */
  async check(): Promise<void> {
    this.#checkFolders();
    const messages: string[] = [];
    for (const kind of ["channel", "node"] as const) {
      const origin = originOf(kind, this.#options.sources());
      const listed = new Set<string>();
      try {
        const found =
          origin === null ? [] : (await this.#reader.readIndex(origin, this.#ended.signal)).bundles;
        for (const { url, version, sizeBytes, notes } of found) {
          if (!this.#options.wanted(version)) continue;
          listed.add(this.#offer(kind, url, sizeBytes, version, notes));
        }
        this.#keepOnly(kind, listed);
      } catch (error) {
        messages.push(`${origin?.address}: ${explainError(error)}`);
      }
    }
    this.lastCheck = {
      checkedAt: new Date().toISOString(),
      message: messages.length === 0 ? null : messages.join(" "),
    };
    this.#options.changed();
  }

  #keepOnly(kind: SourceKind, listed: ReadonlySet<string>): void {
    for (const [id, { source, state }] of this.#remote) {
      if (source.kind !== kind || listed.has(id) || state === "fetching") continue;
      this.#remote.delete(id);
      this.#options.changed();
    }
  }

  #checkFolders(): void {
    const seen = { usb: new Set<string>(), directory: new Set<string>() };
    for (const { kind, folder } of this.#options.folders) {
      for (const each of kind === "usb" ? foldersIn(folder) : [folder]) {
        for (const { path, sizeBytes } of bundlesIn(each)) {
          seen[kind].add(this.#offer(kind, path, sizeBytes, versionOfName(path), ""));
        }
      }
    }
    this.#keepOnly("usb", seen.usb);
    this.#keepOnly("directory", seen.directory);
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

  #download(
    kind: SourceKind,
    where: string,
    sizeBytes: number,
    deleted: AbortSignal,
  ): AsyncIterable<Uint8Array> {
    const origin = originOf(kind, this.#options.sources());
    const elsewhere =
      kind === "node" &&
      (origin === null || new URL(origin.address).origin !== new URL(where).origin);
    if (elsewhere || origin === null) {
      throw new KeelsonError("CONFLICT", `${new URL(where).host} is no longer a source.`, {
        operation: "fetch bundle",
        object: where,
        remedy: "Set it again, or look for new versions.",
      });
    }
    const signal = AbortSignal.any([this.#ended.signal, deleted]);
    return this.#reader.readBundle(where, sizeBytes, origin, signal);
  }

  async #copy(offer: Mutable<OfferedBundle>): Promise<void> {
    const { spool, changed, log } = this.#options;
    const { kind, where } = offer.source;
    const ended = new AbortController();
    this.#copying.set(offer.id, ended);
    let told = 0;
    try {
      await spool.receive({
        source:
          kind === "usb" || kind === "directory"
            ? copyOf(where, kind, offer.sizeBytes)
            : this.#download(kind, where, offer.sizeBytes, ended.signal),
        from: offer.source,
        lengthBytes: offer.sizeBytes,
        received: (bytes) => {
          ended.signal.throwIfAborted();
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
    } finally {
      this.#copying.delete(offer.id);
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

/** Null: there is none of this kind. */
function originOf(kind: SourceKind, { channel, ...rest }: SourceSettings): Origin | null {
  if (kind === "channel") return channel === null ? null : { address: channel, fingerprint: null };
  const { neighbour, neighbourFingerprint } = rest;
  // One that was set before there were fingerprints is no longer asked.
  if (neighbour === null || neighbourFingerprint === null) return null;
  return { address: neighbour, fingerprint: neighbourFingerprint };
}

/** Before they are set: a neighbour counts only with the fingerprint that a person has compared. */
export async function checkSources(
  { neighbour, neighbourFingerprint }: SourceSettings,
  signal: AbortSignal,
): Promise<void> {
  if (neighbour === null) return;
  await checkNeighbour({ address: neighbour, fingerprint: neighbourFingerprint }, signal);
}
