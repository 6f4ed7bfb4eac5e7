/**
 * The audit log's files: `<first sequence>.ndjson`, each a part of one chain (lib/audit/chain.ts).
 *
 *   append    one write and one fdatasync for all that wait; then they are answered
 *   rotate    a file past its size is left, the chain goes on in the next; the oldest is deleted
 *   recover   at start what a power cut tore off at the end is cut away, and kept beside the log
 *   no space  a file held in reserve makes room for what has been done already; from then on
 *             `requireWritable` refuses what would have to be recorded
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, unlinkSync } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { join } from "node:path";
import {
  type AuditEntry,
  type AuditEvent,
  type AuditHead,
  canonicalJson,
  chainEntry,
  deletionAction,
  emptyHead,
  readLine,
} from "#lib/audit/chain.ts";
import { explainError, KeelsonError } from "#lib/model/errors.ts";
import type { Clock } from "./clock.ts";

export interface AuditLogOptions {
  readonly directory: string;
  readonly clock: Clock;
  readonly maxFileBytes?: number;
  readonly keptFiles?: number;
  /** Told of each head that is on the disk. */
  readonly onHead?: (head: AuditHead) => void;
}

const digits = 12;
const reserveBytes = 1 << 20;
/** While nothing can be written these wait in memory; more can't come: changes are refused. */
const mostPending = 4096;
const blockBytes = 1 << 18;

interface Pending {
  readonly entry: AuditEntry;
  readonly done: () => void;
  readonly failed: (error: Error) => void;
}

interface LogFile {
  readonly first: number;
  readonly path: string;
  /** The newest entry on the disk; null: none yet. */
  head: AuditHead | null;
}

export class AuditLog {
  readonly #options: Required<Omit<AuditLogOptions, "onHead">> & Pick<AuditLogOptions, "onHead">;
  readonly #files: LogFile[] = [];
  #handle: FileHandle | undefined;
  #sizeBytes = 0;
  /** Files that are one too many, from the oldest on. */
  #rotatedAway = 0;
  /** Of the newest entry made, which may not be on the disk yet. */
  #last: AuditHead = emptyHead;
  #pending: Pending[] = [];
  #flushing: Promise<void> | undefined;
  #failure: string | null = null;
  #damage: string | null = null;

  private constructor(options: AuditLogOptions) {
    this.#options = { maxFileBytes: 8 << 20, keptFiles: 16, ...options };
  }

  /** Never fails because of what the log contains: a damaged log is gone on with, and `damage` says so. */
  static async open(options: AuditLogOptions): Promise<AuditLog> {
    const log = new AuditLog(options);
    mkdirSync(options.directory, { recursive: true, mode: 0o700 });
    await log.#findFiles();
    const found = await log.#recover();
    await log.#makeReserve().catch(() => {});
    if (found !== undefined) await log.append(foundAtStart(found)).catch(() => {});
    return log;
  }

  /** Of the newest entry on the disk. */
  get head(): AuditHead {
    return this.#files.findLast(({ head }) => head !== null)?.head ?? emptyHead;
  }

  /** Of each file that has entries, oldest first. */
  get fileHeads(): AuditHead[] {
    return this.#files.flatMap(({ head }) => (head === null ? [] : [head]));
  }

  get firstSequence(): number {
    return this.#files[0]?.first ?? 1;
  }

  /** Why nothing can be written; null: it can. */
  get failure(): string | null {
    return this.#failure;
  }

  /** What is wrong with the newest file's content as found at start; null: nothing. */
  get damage(): string | null {
    return this.#damage;
  }

  /**
   * UNAVAILABLE or NO_SPACE if what is done now could not be recorded; tries first to make it so
   * that it can.
   */
  async requireWritable(): Promise<void> {
    if (this.#failure === null) return;
    await this.#flush();
    if (this.#failure === null) return;
    throw new KeelsonError("UNAVAILABLE", `The audit log can't be written: ${this.#failure}`, {
      operation: "record a change",
      object: this.#options.directory,
      remedy: "Nothing was changed. Free space on /var; deleting is still possible.",
    });
  }

  /** Resolves when the entry is on the disk. Its place in the chain is taken at once. */
  append(event: AuditEvent): Promise<AuditEntry> {
    if (this.#pending.length >= mostPending) {
      return Promise.reject(new KeelsonError("UNAVAILABLE", "The audit log can't be written."));
    }
    const entry = chainEntry(event, this.#options.clock.now(), this.#last);
    this.#last = { sequence: entry.sequence, hash: entry.hash, time: entry.time };
    const { promise, resolve, reject } = Promise.withResolvers<AuditEntry>();
    this.#pending.push({ entry, done: () => resolve(entry), failed: reject });
    void this.#flush();
    return promise;
  }

  async close(): Promise<void> {
    await this.#flush();
    await this.#handle?.close();
    this.#handle = undefined;
  }

  // ---- reading

  /** Lines with their sequence, newest first, from the one before `before` on. */
  async *backwards(before = Number.POSITIVE_INFINITY): AsyncGenerator<AuditEntry> {
    for (const file of [...this.#files].reverse()) {
      if (file.first >= before || file.head === null) continue;
      for await (const line of linesBackwards(file.path)) {
        const entry = parseLenient(line);
        if (entry !== undefined && entry.sequence < before) yield entry;
      }
    }
  }

  /** The lines as they stand, oldest first, up to what is on the disk now. */
  async *lines(from = 1): AsyncGenerator<string> {
    const last = this.head.sequence;
    for (const [index, file] of [...this.#files].entries()) {
      const next = this.#files[index + 1];
      if (file.head === null || (next !== undefined && next.first <= from)) continue;
      // Of the newest, no more than is written whole.
      const bytes = next === undefined ? this.#sizeBytes : undefined;
      for await (const line of linesForwards(file.path, bytes)) {
        const sequence = parseLenient(line)?.sequence ?? from;
        if (sequence >= from && sequence <= last) yield line;
      }
    }
  }

  // ---- start

  async #findFiles(): Promise<void> {
    const { directory } = this.#options;
    const names = readdirSync(directory).filter((name) => /^\d{12}\.ndjson$/.test(name));
    for (const name of names.sort()) {
      const path = join(directory, name);
      this.#files.push({
        first: Number(name.slice(0, digits)),
        path,
        head: await headOfFile(path),
      });
    }
  }

  /** Opens the newest file. What was wrong with its end, for an entry of its own. */
  async #recover(): Promise<{ target: string; detail: string } | undefined> {
    const newest = this.#files.at(-1);
    if (newest === undefined) {
      await this.#beginFile(1);
      return undefined;
    }
    const content = readFileSync(newest.path);
    const { goodBytes, last, rest } = judgeEnd(content);
    const before = this.#files.slice(0, -1).findLast(({ head }) => head !== null)?.head;
    this.#last = last ?? before ?? { ...emptyHead, sequence: newest.first - 1 };
    this.#handle = await open(newest.path, "r+");
    this.#sizeBytes = content.length;
    if (rest === "damage") {
      // Nothing is taken away. The chain goes on from what its last line says of itself.
      this.#damage = `${newest.path} was changed after it was written.`;
      this.#last = newest.head ?? this.#last;
      if (content.at(-1) !== 10) await this.#writeNewline();
      return { target: newest.path, detail: this.#damage };
    }
    newest.head = last ?? null;
    if (rest === "newline") await this.#writeNewline();
    if (rest !== "torn") return undefined;
    const target = `torn-${String(this.#last.sequence + 1).padStart(digits, "0")}.bin`;
    const torn = await open(join(this.#options.directory, target), "w", 0o600);
    await torn.write(content.subarray(goodBytes));
    await torn.datasync();
    await torn.close();
    await this.#handle.truncate(goodBytes);
    await this.#handle.datasync();
    this.#sizeBytes = goodBytes;
    const bytes = content.length - goodBytes;
    return {
      target,
      detail: `${bytes} bytes of an entry that a power cut tore off are kept there`,
    };
  }

  async #writeNewline(): Promise<void> {
    await this.#handle!.write("\n", this.#sizeBytes);
    await this.#handle!.datasync();
    this.#sizeBytes++;
  }

  async #beginFile(first: number): Promise<void> {
    const name = `${String(first).padStart(digits, "0")}.ndjson`;
    const path = join(this.#options.directory, name);
    this.#handle = await open(path, "wx+", 0o600);
    this.#sizeBytes = 0;
    this.#files.push({ first, path, head: null });
    await syncDirectory(this.#options.directory);
  }

  async #makeReserve(): Promise<void> {
    const path = join(this.#options.directory, "reserve");
    if (existsSync(path) && statSync(path).size === reserveBytes) return;
    const file = await open(path, "w", 0o600);
    try {
      await file.writeFile(new Uint8Array(reserveBytes).fill(0x4b));
      await file.datasync();
    } finally {
      await file.close();
    }
  }

  // ---- writing

  /** One at a time; each takes all that wait. */
  #flush(): Promise<void> {
    this.#flushing ??= this.#flushOnce();
    return this.#flushing;
  }

  async #flushOnce(): Promise<void> {
    // After this turn, so that what is appended together is written together.
    await Promise.resolve();
    try {
      while ((await this.#writeBatch([...this.#pending])) && this.#pending.length > 0);
    } finally {
      // In the same turn as the last look at what waits: nothing can be appended in between.
      this.#flushing = undefined;
    }
  }

  /** False: nothing more can be written now. */
  async #writeBatch(batch: readonly Pending[]): Promise<boolean> {
    let full: unknown;
    try {
      if (this.#failure !== null) await this.#makeReserve();
      await this.#write(batch);
    } catch (error) {
      full = error;
      const written = this.#takeReserve() && (await this.#writeAgain(batch));
      if (!written) {
        this.#fail(error, batch);
        return false;
      }
    }
    this.#pending = this.#pending.slice(batch.length);
    for (const { done } of batch) done();
    // What was done is recorded; more is refused until there is room again.
    if (full !== undefined) this.#fail(full, []);
    else this.#failure = null;
    if (this.#rotatedAway > 0) void this.#deleteOldest().catch(() => {});
    return full === undefined;
  }

  async #writeAgain(batch: readonly Pending[]): Promise<boolean> {
    try {
      await this.#write(batch);
      return true;
    } catch {
      return false;
    }
  }

  async #write(batch: readonly Pending[]): Promise<void> {
    if (batch.length === 0) return;
    if (this.#sizeBytes >= this.#options.maxFileBytes) await this.#rotate(batch[0].entry.sequence);
    const bytes = Buffer.from(batch.map(({ entry }) => `${canonicalJson(entry)}\n`).join(""));
    const handle = this.#handle!;
    try {
      for (let done = 0; done < bytes.length; ) {
        const { bytesWritten } = await handle.write(bytes, done, undefined, this.#sizeBytes + done);
        done += bytesWritten;
      }
      await handle.datasync();
    } catch (error) {
      // Half a line would be followed by the next try's.
      await handle.truncate(this.#sizeBytes).catch(() => {});
      throw error;
    }
    this.#sizeBytes += bytes.length;
    const { sequence, hash, time } = batch.at(-1)!.entry;
    const head = { sequence, hash, time };
    this.#files.at(-1)!.head = head;
    this.#options.onHead?.(head);
  }

  async #rotate(first: number): Promise<void> {
    const old = this.#handle;
    await this.#beginFile(first);
    await old?.close();
    this.#rotatedAway = Math.max(0, this.#files.length - this.#options.keptFiles);
  }

  /** The chain says that its beginning is gone before it is: who only deletes it is found out. */
  async #deleteOldest(): Promise<void> {
    const going = this.#files.slice(0, this.#rotatedAway);
    this.#rotatedAway = 0;
    if (going.length === 0) return;
    const next = this.#files[going.length].first;
    await this.append(deletedUpTo(next));
    for (const { path } of going) unlinkSync(path);
    this.#files.splice(0, going.length);
  }

  /** True: there was one, and its room is free now. */
  #takeReserve(): boolean {
    try {
      unlinkSync(join(this.#options.directory, "reserve"));
      return true;
    } catch {
      return false;
    }
  }

  /** They stay in the queue, in their order; whoever waits for them is told. */
  #fail(error: unknown, batch: readonly Pending[]): void {
    const { code } = error as NodeJS.ErrnoException;
    this.#failure = code === "ENOSPC" ? "/var is full." : `${explainError(error)}.`;
    const told = new KeelsonError(
      "UNAVAILABLE",
      `The audit log can't be written: ${this.#failure}`,
    );
    for (const { failed } of batch) failed(told);
  }
}

function own(action: string, target: string | null, detail: string): AuditEvent {
  const none = { user: null, via: "none", address: "local", permission: "anyone" };
  return { ...none, action, target, outcome: "done", status: 0, detail };
}

function foundAtStart({ target, detail }: { target: string; detail: string }): AuditEvent {
  return own("check the audit log at start", target, detail);
}

function deletedUpTo(next: number): AuditEvent {
  const detail = "the oldest file was full long ago, and its place is needed";
  return own(deletionAction, String(next), detail);
}

interface End {
  /** Up to here it is a chain. */
  readonly goodBytes: number;
  readonly last: AuditHead | undefined;
  /** What follows: nothing; a good entry without its newline; half-written; or tampered with. */
  readonly rest: "none" | "newline" | "torn" | "damage";
}

/**
 * A power cut leaves a line without its end, or blocks of zeroes where data was not written in
 * order. A line that is whole, and JSON, and wrong, is no power cut's: it was changed.
 */
function judgeEnd(content: Buffer): End {
  let at = 0;
  let last: AuditHead | undefined;
  while (at < content.length) {
    const end = content.indexOf(10, at);
    const line = content.toString("utf8", at, end === -1 ? content.length : end);
    const entry = readLine(line);
    const follows =
      !("fault" in entry) &&
      (last === undefined ||
        (entry.sequence === last.sequence + 1 && entry.previous === last.hash));
    if (!follows) {
      const rest = content.subarray(at);
      const torn =
        end === -1 || rest.includes(0) || !rest.toString("utf8").split("\n").some(isJson);
      return { goodBytes: at, last, rest: torn ? "torn" : "damage" };
    }
    last = { sequence: entry.sequence, hash: entry.hash, time: entry.time };
    if (end === -1) return { goodBytes: content.length, last, rest: "newline" };
    at = end + 1;
  }
  return { goodBytes: at, last, rest: "none" };
}

function isJson(text: string): boolean {
  try {
    return typeof JSON.parse(text) === "object";
  } catch {
    return false;
  }
}

/** Of the last line that says what it is; null if there is none. */
async function headOfFile(path: string): Promise<AuditHead | null> {
  for await (const line of linesBackwards(path)) {
    const entry = parseLenient(line);
    if (entry !== undefined)
      return { sequence: entry.sequence, hash: entry.hash, time: entry.time };
  }
  return null;
}

/** For showing: an entry that was tampered with is shown too; `verify` is what tells. */
function parseLenient(line: string): AuditEntry | undefined {
  try {
    const value = JSON.parse(line) as AuditEntry | null;
    return Number.isInteger(value?.sequence) ? value! : undefined;
  } catch {
    return undefined;
  }
}

async function* linesForwards(path: string, bytes?: number): AsyncGenerator<string> {
  if (bytes === 0) return;
  const file = await open(path, "r");
  try {
    yield* file.readLines(bytes === undefined ? {} : { end: bytes - 1 });
  } finally {
    await file.close().catch(() => {});
  }
}

async function* linesBackwards(path: string): AsyncGenerator<string> {
  const file = await open(path, "r");
  try {
    let end = (await file.stat()).size;
    let tail = Buffer.alloc(0);
    while (end > 0) {
      const start = Math.max(0, end - blockBytes);
      const block = Buffer.alloc(end - start);
      await file.read(block, 0, block.length, start);
      const joined = Buffer.concat([block, tail]);
      // The first line may begin in the block before.
      const cut = start === 0 ? 0 : joined.indexOf(10) + 1;
      const whole = start !== 0 && cut === 0 ? "" : joined.toString("utf8", cut);
      tail = start !== 0 && cut === 0 ? joined : joined.subarray(0, cut);
      for (const line of whole.split("\n").reverse()) if (line !== "") yield line;
      end = start;
    }
  } finally {
    await file.close();
  }
}

async function syncDirectory(path: string): Promise<void> {
  const folder = await open(path, "r");
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}
