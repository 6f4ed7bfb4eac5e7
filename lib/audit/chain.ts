/**
 * The audit log as a chain: each entry bears the SHA-256 of the one before it, so that whoever
 * keeps one hash (a head) can tell later whether anything up to it was changed, taken out, or cut
 * off. api writes it, `keelson audit verify` checks it without trusting api.
 *
 *   hash     = SHA-256(canonical JSON of the entry without `hash`), 64 hexadecimal digits
 *   previous = the hash of sequence - 1; of 64 zeroes for the first
 *
 * A line of the log is the entry's canonical JSON and a newline. Canonical: keys in order of their
 * code units, no white space (RFC 8785 for the values that occur: text, whole numbers, null).
 */
import { createHash } from "node:crypto";
import { z } from "zod";

const hash = z.string().regex(/^[0-9a-f]{64}$/);
const text = z.string().max(1000);

export const auditEntrySchema = z
  .strictObject({
    /** From 1 on, without gaps. */
    sequence: z.int().min(1),
    /** Wall clock, ISO 8601 in UTC: it may be wrong, the sequence isn't. */
    time: text,
    /** Who; null before a log-in. A name that no account has is never written. */
    user: text.nullable(),
    /** By what: `session`, `token:ID`, `none`, or the socket it came by: `console`. */
    via: text,
    /** From where: an IP address, or `local`. */
    address: text,
    /** The route, such as `DELETE /volumes/{id}`. */
    action: text,
    /** The permission it needed; `anyone` and `account` where it needed none. */
    permission: text,
    /** The id of what it was done to. */
    target: text.nullable(),
    outcome: z.enum(["done", "refused", "failed"]),
    /** HTTP's status of the answer. */
    status: z.int().min(0).max(999),
    /** More for a person; never a secret. */
    detail: text.nullable(),
    previous: hash,
    hash,
  })
  .meta({ id: "AuditEntry" });

export const auditHeadSchema = z
  .strictObject({ sequence: z.int().min(0), hash, time: text })
  .meta({ id: "AuditHead", description: "What to keep elsewhere: the newest entry's hash." });

export type AuditEntry = z.infer<typeof auditEntrySchema>;
export type AuditHead = z.infer<typeof auditHeadSchema>;
/** An entry before it has its place in the chain. */
export type AuditEvent = Omit<AuditEntry, "sequence" | "time" | "previous" | "hash">;

export const firstPrevious = "0".repeat(64);

/** INVALID values (fractions, undefined) don't pass the schema, so they can't come here. */
export function canonicalJson(value: unknown): string {
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(",")}]`;
  const fields = Object.entries(value)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([key, field]) => `${JSON.stringify(key)}:${canonicalJson(field)}`);
  return `{${fields.join(",")}}`;
}

export function hashOf(entry: Omit<AuditEntry, "hash"> & { readonly hash?: string }): string {
  const { hash: _own, ...rest } = entry;
  return createHash("sha256").update(canonicalJson(rest)).digest("hex");
}

export function chainEntry(
  event: AuditEvent,
  time: string,
  last: Pick<AuditHead, "sequence" | "hash">,
): AuditEntry {
  const body = { ...event, time, sequence: last.sequence + 1, previous: last.hash };
  return { ...body, hash: hashOf(body) };
}

/** The entry that a line is, or why it is none. */
export function readLine(line: string): AuditEntry | { readonly fault: string } {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    return { fault: "is not JSON" };
  }
  const parsed = auditEntrySchema.safeParse(value);
  if (!parsed.success) return { fault: "is not an audit entry" };
  if (canonicalJson(parsed.data) !== line) return { fault: "is not written as api writes it" };
  if (hashOf(parsed.data) !== parsed.data.hash) return { fault: "was changed: its hash is wrong" };
  return parsed.data;
}

/** Its target is the first sequence that is still there. */
export const deletionAction = "delete the oldest audit entries";

export type Verdict =
  | {
      readonly ok: true;
      readonly entries: number;
      /** Above 1 where the oldest entries were deleted. */
      readonly firstSequence: number;
      /** False: entries before the first are missing, and nothing in the log says why. */
      readonly beginningExplained: boolean;
      /** Heads given that are older than the first entry: nothing is left to compare them with. */
      readonly uncheckedHeads: number;
      readonly head: AuditHead;
    }
  | { readonly ok: false; readonly line: number; readonly fault: string };

/** Reads a log's lines in order; ask for the verdict after the last. */
export class ChainVerifier {
  readonly #wanted: Map<number, string>;
  readonly #deletions = new Set<number>();
  #line = 0;
  #first = 0;
  #last: AuditEntry | undefined;
  #fault: { readonly line: number; readonly fault: string } | undefined;

  /** `heads` were exported earlier and kept elsewhere: the log must contain each of them. */
  constructor(heads: readonly Pick<AuditHead, "sequence" | "hash">[] = []) {
    this.#wanted = new Map();
    for (const head of heads) {
      const known = this.#wanted.get(head.sequence);
      if (known !== undefined && known !== head.hash) {
        this.#fault = { line: 0, fault: `two different heads are given for ${head.sequence}` };
      }
      this.#wanted.set(head.sequence, head.hash);
    }
  }

  add(line: string): void {
    this.#line++;
    if (this.#fault !== undefined) return;
    const entry = readLine(line);
    const fault = "fault" in entry ? `the line ${entry.fault}` : this.#misfit(entry);
    if (fault !== undefined) {
      this.#fault = { line: this.#line, fault };
      return;
    }
    this.#last = entry as AuditEntry;
    if (this.#last.action === deletionAction) this.#deletions.add(Number(this.#last.target));
    if (this.#first === 0) this.#first = this.#last.sequence;
  }

  #misfit(entry: AuditEntry): string | undefined {
    const { sequence } = entry;
    const last = this.#last;
    if (last !== undefined && sequence !== last.sequence + 1) {
      return `entry ${sequence} follows entry ${last.sequence}: entries are missing or out of order`;
    }
    const previous = last?.hash ?? (sequence === 1 ? firstPrevious : entry.previous);
    if (entry.previous !== previous) {
      return `entry ${sequence} doesn't follow the one before it: that one was replaced`;
    }
    const wanted = this.#wanted.get(sequence);
    if (wanted !== undefined && wanted !== entry.hash) {
      return `entry ${sequence} is not the one whose head was exported: the log was rewritten`;
    }
    return undefined;
  }

  verdict(): Verdict {
    if (this.#fault !== undefined) return { ok: false, ...this.#fault };
    const end = this.#last?.sequence ?? 0;
    const newest = Math.max(0, ...this.#wanted.keys());
    if (newest > end) {
      const fault = `the log ends at entry ${end}, but a head of entry ${newest} was exported: it was cut off`;
      return { ok: false, line: this.#line, fault };
    }
    const { sequence, hash: newestHash, time } = this.#last ?? emptyHead;
    return {
      ok: true,
      entries: this.#line,
      firstSequence: this.#first,
      beginningExplained: this.#first <= 1 || this.#deletions.has(this.#first),
      uncheckedHeads: [...this.#wanted.keys()].filter((each) => each > 0 && each < this.#first)
        .length,
      head: { sequence, hash: newestHash, time },
    };
  }
}

export const emptyHead: AuditHead = { sequence: 0, hash: firstPrevious, time: "" };
