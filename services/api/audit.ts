/**
 * What is recorded of requests: every change, every log-in, and every refusal, but refusals no
 * faster than they can be kept: somebody who guesses all day can neither fill /var nor push what
 * matters out of the log. How many weren't recorded is.
 */
import type { AuditEntry, AuditEvent, AuditHead } from "#lib/audit/chain.ts";
import type { Log } from "#lib/service/log.ts";
import { AuditLog, type AuditLogOptions } from "./audit-log.ts";
import type { AuditPage, AuditQuery } from "./audit-schema.ts";
import type { Clock } from "./clock.ts";

/** So many at once, then one each half minute: 2880 a day, some 1.5 MB. */
const burst = 100;
const refillMs = 30_000;
/** Entries looked at for one page; a filter that fits little goes on with the next page. */
const mostScanned = 20_000;

export class Audit {
  readonly log: AuditLog;
  readonly #clock: Clock;
  readonly #listeners: Set<(head: AuditHead) => void>;
  readonly #budgets = { refused: new Budget(), failed: new Budget() };

  private constructor(log: AuditLog, clock: Clock, listeners: Set<(head: AuditHead) => void>) {
    this.log = log;
    this.#clock = clock;
    this.#listeners = listeners;
  }

  /** Each head goes to the journal, and from there to wherever the journal is sent. */
  static async open(options: Omit<AuditLogOptions, "onHead">, journal: Log): Promise<Audit> {
    const listeners = new Set<(head: AuditHead) => void>();
    const onHead = (head: AuditHead) => {
      journal.info("audit head", { sequence: head.sequence, hash: head.hash });
      for (const listener of listeners) listener(head);
    };
    const log = await AuditLog.open({ ...options, onHead });
    if (log.damage !== null) journal.error("the audit log was tampered with", { why: log.damage });
    return new Audit(log, options.clock, listeners);
  }

  /** Told of each head that is on the disk; it must return at once. */
  onHead(listener: (head: AuditHead) => void): void {
    this.#listeners.add(listener);
  }

  /** Before a change: UNAVAILABLE if it could not be recorded. */
  requireWritable(): Promise<void> {
    return this.log.requireWritable();
  }

  /**
   * Resolves when the entry is on the disk; at once for a refusal or failure that is one too many.
   * Never rejects: what was done is done, and `log.failure` is a condition.
   */
  async record(event: AuditEvent): Promise<void> {
    const nowMs = this.#clock.bootMs();
    if (event.outcome !== "done" && !this.#budgets[event.outcome].take(nowMs)) return;
    for (const [outcome, budget] of Object.entries(this.#budgets)) {
      const count = budget.takeMissed(nowMs);
      if (count > 0) void this.log.append(missed(outcome as "refused", count)).catch(() => {});
    }
    await this.log.append(event).catch(() => {});
  }

  async page(query: AuditQuery): Promise<AuditPage> {
    const entries: AuditEntry[] = [];
    const since = query.since === undefined ? undefined : Date.parse(query.since);
    const until = query.until === undefined ? undefined : Date.parse(query.until);
    let scanned = 0;
    let oldest: number | null = null;
    for await (const entry of this.log.backwards(query.before)) {
      oldest = entry.sequence;
      const at = Date.parse(entry.time);
      const fits =
        (query.user === undefined || entry.user === query.user.toLowerCase()) &&
        (query.outcome === undefined || entry.outcome === query.outcome) &&
        (query.target === undefined || entry.target === query.target) &&
        (query.action === undefined ||
          entry.action.toLowerCase().includes(query.action.toLowerCase())) &&
        (since === undefined || at >= since) &&
        (until === undefined || at <= until);
      if (fits) entries.push(entry);
      if (entries.length === query.limit || ++scanned === mostScanned) break;
    }
    const next = oldest !== null && oldest > this.log.firstSequence ? oldest : null;
    const full = entries.length === query.limit || scanned === mostScanned;
    return { entries, next: full ? next : null };
  }

  close(): Promise<void> {
    return this.log.close();
  }
}

/** A bucket of tokens, and how many came when it was empty. */
class Budget {
  #left = burst;
  #filledMs = 0;
  #missed = 0;

  take(nowMs: number): boolean {
    const filled = Math.floor((nowMs - this.#filledMs) / refillMs);
    if (filled > 0) {
      this.#left = Math.min(burst, this.#left + filled);
      this.#filledMs = nowMs;
    }
    if (this.#left > 0) {
      this.#left--;
      return true;
    }
    this.#missed++;
    return false;
  }

  /** How many to tell of; that is an entry too, so it waits for its turn as well. */
  takeMissed(nowMs: number): number {
    const count = this.#missed;
    if (count === 0 || !this.take(nowMs)) {
      this.#missed = count;
      return 0;
    }
    this.#missed = 0;
    return count;
  }
}

function missed(outcome: "refused" | "failed", count: number): AuditEvent {
  const none = { user: null, via: "none", address: "local", permission: "anyone", target: null };
  const action = "requests not recorded one by one";
  return { ...none, action, outcome, status: 0, detail: `${count} ${outcome}, too many to record` };
}
