/**
 * Where uploads stand until they are whole: `<image>.<boot>.<total>`, total 0 where the sender did
 * not say. One that broke off is kept, to be continued. `<boot>` is the start of the machine that
 * wrote it: of another start's it is not known what reached the disk, so it goes.
 */
import { mkdirSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { open, rm, statfs } from "node:fs/promises";
import { join } from "node:path";
import { KeelsonError } from "#lib/model/errors.ts";
import { formatSize } from "#lib/model/size.ts";
import type { Clock } from "./clock.ts";

/** Left free on the spool's file system: the cluster store may live there too. */
const reserveBytes = 64 * 2 ** 20;

/** What of a file a request brings. */
export interface Part {
  /** Where its first byte belongs. */
  readonly fromByte: number;
  /** Of the whole file; null where the sender doesn't say. */
  readonly totalBytes: number | null;
}

interface Entry {
  readonly path: string;
  readonly totalBytes: number | null;
  bytes: number;
  /** By the clock since boot. */
  writtenMs: number;
}

export class UploadSpool {
  readonly #folder: string;
  readonly #clock: Clock;
  readonly #boot: string;
  readonly #entries = new Map<string, Entry>();

  constructor(folder: string, clock: Clock, bootId = readBootId()) {
    this.#folder = folder;
    this.#clock = clock;
    this.#boot = bootId.slice(0, 8);
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    for (const name of readdirSync(folder)) {
      const path = join(folder, name);
      const [id, boot, total] = name.split(".");
      if (boot !== this.#boot || !/^\d+$/.test(total ?? "")) {
        rmSync(path, { recursive: true, force: true });
        continue;
      }
      const totalBytes = Number(total) === 0 ? null : Number(total);
      const writtenMs = clock.bootMs();
      this.#entries.set(id, { path, totalBytes, bytes: statSync(path).size, writtenMs });
    }
  }

  /** Images that have a file here. */
  get ids(): string[] {
    return [...this.#entries.keys()];
  }

  /** How much of an upload is here; 0 if nothing is. */
  receivedBytes(id: string): number {
    return this.#entries.get(id)?.bytes ?? 0;
  }

  /** How long ago its last byte came, or this process started. */
  idleMs(id: string): number {
    const entry = this.#entries.get(id);
    return entry === undefined ? 0 : this.#clock.bootMs() - entry.writtenMs;
  }

  /** Of an upload that is here. */
  path(id: string): string {
    return this.#entries.get(id)!.path;
  }

  async remove(id: string): Promise<void> {
    const entry = this.#entries.get(id);
    this.#entries.delete(id);
    if (entry !== undefined) await rm(entry.path, { force: true });
  }

  /** CONFLICT if `part` is not the one that is missing. One from byte 0 begins anew. */
  expect(id: string, part: Part): void {
    if (part.fromByte === 0) return;
    const entry = this.#entries.get(id);
    const bytes = entry?.bytes ?? 0;
    if (part.fromByte !== bytes) {
      throw new KeelsonError("CONFLICT", `The node has ${bytes} bytes of it.`, {
        object: id,
        remedy: `Go on at byte ${bytes}, not ${part.fromByte}: receivedBytes of the image says it.`,
      });
    }
    const { totalBytes } = entry!;
    if (totalBytes !== null && part.totalBytes !== totalBytes) {
      throw new KeelsonError(
        "CONFLICT",
        `The upload began with a file of ${totalBytes} bytes, this one has ${part.totalBytes}.`,
        { object: id, remedy: "Go on with the same file, or delete the image and import anew." },
      );
    }
  }

  /**
   * Adds `part` to what is here; null once all of it is, else why it broke off (what came is kept).
   * When `signal` aborts, its reason is thrown if it is a KeelsonError; any other only breaks it
   * off. NO_SPACE; CONFLICT as `expect`; INVALID_ARGUMENT if more comes than the file has.
   */
  async receive(
    id: string,
    body: AsyncIterable<Uint8Array>,
    part: Part,
    signal: AbortSignal,
    onBytes: (received: number) => void,
  ): Promise<KeelsonError | null> {
    this.expect(id, part);
    if (part.fromByte === 0) await this.remove(id);
    const { bavail, bsize } = await statfs(this.#folder);
    const roomBytes = Math.max(0, bavail * bsize - reserveBytes) + part.fromByte;
    const noRoom = () =>
      new KeelsonError("NO_SPACE", `The node has ${formatSize(roomBytes)} for an upload.`, {
        operation: "upload image",
        remedy: "Import a smaller file (qcow2 is smaller than raw), or free space on /var.",
      });
    if (part.totalBytes !== null && part.totalBytes > roomBytes) throw noRoom();
    const entry = this.#entry(id, part.totalBytes);
    const file = await open(entry.path, "a", 0o600);
    let toldBytes = entry.bytes;
    try {
      for await (const bytes of untilAborted(body, signal)) {
        signal.throwIfAborted();
        const after = entry.bytes + bytes.byteLength;
        if (part.totalBytes !== null && after > part.totalBytes) throw tooMuch(part.totalBytes);
        if (after > roomBytes) throw noRoom();
        await file.writeFile(bytes);
        entry.bytes = after;
        entry.writtenMs = this.#clock.bootMs();
        if (entry.bytes - toldBytes < 1 << 20) continue;
        toldBytes = entry.bytes;
        onBytes(entry.bytes);
      }
    } catch (error) {
      if (error instanceof KeelsonError) throw error;
      if ((error as NodeJS.ErrnoException).code === "ENOSPC") throw noRoom();
      return brokeOff(entry.bytes, part, error);
    } finally {
      await file.close();
      // A write that failed half-way may have left some of its bytes.
      if (this.#entries.get(id) === entry) entry.bytes = statSync(entry.path).size;
    }
    onBytes(entry.bytes);
    const whole = part.totalBytes === null || entry.bytes === part.totalBytes;
    return whole ? null : brokeOff(entry.bytes, part);
  }

  #entry(id: string, totalBytes: number | null): Entry {
    const known = this.#entries.get(id);
    if (known !== undefined) return known;
    const path = join(this.#folder, `${id}.${this.#boot}.${totalBytes ?? 0}`);
    const entry = { path, totalBytes, bytes: 0, writtenMs: this.#clock.bootMs() };
    this.#entries.set(id, entry);
    return entry;
  }
}

function readBootId(): string {
  return readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
}

function tooMuch(totalBytes: number): KeelsonError {
  return new KeelsonError("INVALID_ARGUMENT", `More came than a file of ${totalBytes} bytes has.`, {
    operation: "upload image",
    remedy: "Delete the image and import it anew.",
  });
}

function brokeOff(bytes: number, { totalBytes }: Part, cause?: unknown): KeelsonError {
  const of = totalBytes === null ? "" : ` of ${totalBytes}`;
  return new KeelsonError("INVALID_ARGUMENT", `The upload broke off after ${bytes}${of} bytes.`, {
    operation: "upload image",
    remedy: "What came is kept for a day: continue it, or delete the image.",
    ...(cause === undefined ? {} : { cause }),
  });
}

/** Also while it waits for a sender that has gone silent. */
async function* untilAborted(
  body: AsyncIterable<Uint8Array>,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  const parts = body[Symbol.asyncIterator]();
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  aborted.catch(() => {});
  const stop = () => reject(signal.reason);
  if (signal.aborted) stop();
  signal.addEventListener("abort", stop, { once: true });
  try {
    for (;;) {
      const next = parts.next();
      next.catch(() => {});
      const { done, value } = await Promise.race([next, aborted]);
      if (done) return;
      yield value;
    }
  } finally {
    signal.removeEventListener("abort", stop);
    // Not awaited: a silent sender never answers it.
    if (!signal.aborted) await parts.return?.();
    else void parts.return?.();
  }
}
