/**
 * Sends heads of the audit log to the target that is set. Nobody waits for it:
 *
 *   entry on the disk -> newest head -> after N entries or a time -> queue -> one delivery at once
 *                                                                      |          |
 *                                          bounded; the oldest go <----+    fails: again, later and
 *                                          (each head proves those before it)       later
 *
 * Nothing of it is kept over a restart: api begins with the newest head, which proves all others.
 */
import type { AuditHead } from "#lib/audit/chain.ts";
import { explainError, KeelsonError } from "#lib/model/errors.ts";
import type { Log } from "#lib/service/log.ts";
import type {
  AuditTarget,
  AuditTargetChange,
  AuditTargetRecord,
  AuditTargetTest,
} from "./audit-target-schema.ts";
import type { Clock } from "./clock.ts";
import { deliver } from "./head-receivers.ts";
import type { Policy } from "./policy.ts";

/** How long what takes; all in milliseconds. */
export interface DeliveryPace {
  /** Of one try. */
  readonly patienceMs: number;
  /** Between two deliveries, however many entries there are. */
  readonly gapMs: number;
  /** After a failure, then doubled up to the most. */
  readonly retryMs: number;
  readonly mostRetryMs: number;
}

export interface HeadDeliveryOptions {
  readonly policy: Policy;
  readonly clock: Clock;
  readonly log: Log;
  readonly nodeName: string;
  /** Newest on the disk, before the first that `add` is told of. */
  readonly head: AuditHead;
  readonly pace?: DeliveryPace;
}

const defaultPace: DeliveryPace = {
  patienceMs: 15_000,
  gapMs: 1_000,
  retryMs: 5_000,
  mostRetryMs: 600_000,
};
const mostQueued = 64;
/** Undelivered for so long is a condition. */
export const overdueMs = 900_000;
const recordId = "target";

interface Failure {
  readonly reason: string;
  readonly since: string;
  readonly sinceMs: number;
}

/** For the conditions: null where no target is set. */
export interface DeliveryState {
  readonly host: string;
  readonly failure: {
    readonly reason: string;
    readonly since: string;
    readonly forMs: number;
  } | null;
}

export class HeadDelivery {
  readonly #options: HeadDeliveryOptions;
  readonly #pace: DeliveryPace;
  readonly #stopWatching: () => void;
  #target: AuditTargetRecord | undefined;
  #newest: AuditHead;
  #queue: AuditHead[] = [];
  /** Of the newest that was queued for this target. */
  #queued = { sequence: 0, atMs: 0 };
  #delivered: { readonly sequence: number; readonly at: string } | null = null;
  #failure: Failure | null = null;
  #failures = 0;
  /** Aborted when the target changes or api ends. */
  #run = new AbortController();
  #sending = false;
  #due: NodeJS.Timeout | undefined;
  #next: NodeJS.Timeout | undefined;

  constructor(options: HeadDeliveryOptions) {
    this.#options = options;
    this.#pace = options.pace ?? defaultPace;
    this.#newest = options.head;
    this.#stopWatching = options.policy.onChange(() => this.#retarget());
    this.#retarget();
  }

  /** Of the entry that is on the disk now. Returns at once. */
  add(head: AuditHead): void {
    this.#newest = head;
    if (this.#target !== undefined) this.#schedule(this.#target);
  }

  view(): AuditTarget {
    const target = this.#target;
    if (target === undefined) {
      return { settings: null, delivered: null, waiting: 0, failure: null };
    }
    const { id: _, token, ...rest } = target;
    return {
      settings: { ...rest, tokenSet: token !== null },
      delivered: this.#delivered,
      waiting: this.#queue.length,
      failure:
        this.#failure === null
          ? null
          : { reason: this.#failure.reason, since: this.#failure.since },
    };
  }

  state(): DeliveryState | null {
    if (this.#target === undefined) return null;
    const failure = this.#failure;
    const nowMs = this.#options.clock.bootMs();
    return {
      host: new URL(this.#target.url).host,
      failure: failure && {
        ...{ reason: failure.reason, since: failure.since },
        forMs: nowMs - failure.sinceMs,
      },
    };
  }

  /** INVALID_ARGUMENT where a token that is kept would be told to somebody else, or in clear. */
  async set(change: AuditTargetChange): Promise<AuditTarget> {
    const { policy, clock } = this.#options;
    await policy.change((draft) => {
      const before = draft.get("audit-target", recordId);
      const { token = before?.token ?? null, ...settings } = change as AuditTargetRecord;
      const { protocol, origin } = new URL(settings.url);
      if (protocol !== "https:" && token !== null) {
        throw new KeelsonError("INVALID_ARGUMENT", "token: Syslog has no place for a token.", {
          remedy: "Leave it out; to take the present one away, give null.",
        });
      }
      const moved = before !== undefined && new URL(before.url).origin !== origin;
      if (moved && token !== null && change.token === undefined) {
        throw new KeelsonError("INVALID_ARGUMENT", "token: Another receiver has another token.", {
          remedy: "Give the token together with the new address, or null for none.",
        });
      }
      const record = { ...settings, id: recordId, token, changedAt: clock.now() } as const;
      draft.put("audit-target", record);
    });
    this.#retarget();
    return this.view();
  }

  async remove(): Promise<void> {
    await this.#options.policy.change((draft) => {
      if (draft.get("audit-target", recordId) === undefined) throw noTarget();
      draft.delete("audit-target", recordId);
    });
    this.#retarget();
  }

  /** Sends the newest head now, whatever waits, and says how that went. */
  async test(): Promise<AuditTargetTest> {
    const target = this.#target;
    if (target === undefined) throw noTarget();
    const head = this.#newest;
    const { host } = new URL(target.url);
    try {
      await this.#deliver(target, [head], AbortSignal.timeout(this.#pace.patienceMs));
      return { ok: true, message: `${host} took the head of entry ${head.sequence}.` };
    } catch (error) {
      return { ok: false, message: explainError(error) };
    }
  }

  close(): void {
    this.#stopWatching();
    this.#stop();
  }

  #stop(): void {
    this.#run.abort();
    clearTimeout(this.#due);
    clearTimeout(this.#next);
    this.#due = undefined;
    this.#next = undefined;
  }

  /** Begins anew where the target is another one: it gets the newest head at once. */
  #retarget(): void {
    const target = this.#options.policy.find("audit-target", recordId);
    if (JSON.stringify(target) === JSON.stringify(this.#target)) return;
    this.#stop();
    this.#run = new AbortController();
    this.#target = target;
    this.#queue = [];
    this.#queued = { sequence: 0, atMs: 0 };
    this.#delivered = null;
    this.#failure = null;
    this.#failures = 0;
    this.#sending = false;
    if (target !== undefined) this.#enqueue(target);
  }

  /** Queues the newest head if it is time, or sees to it that it will be. */
  #schedule(target: AuditTargetRecord): void {
    const entries = this.#newest.sequence - this.#queued.sequence;
    if (entries <= 0) return;
    if (entries >= target.everyEntries) {
      this.#enqueue(target);
      return;
    }
    const ageMs = this.#options.clock.bootMs() - this.#queued.atMs;
    const leftMs = Math.max(0, target.everySeconds * 1000 - ageMs);
    this.#due ??= setTimeout(() => this.#enqueue(target), leftMs).unref();
  }

  #enqueue(target: AuditTargetRecord): void {
    clearTimeout(this.#due);
    this.#due = undefined;
    const head = this.#newest;
    if (head.sequence <= this.#queued.sequence) return;
    this.#queued = { sequence: head.sequence, atMs: this.#options.clock.bootMs() };
    this.#queue.push(head);
    if (this.#queue.length > mostQueued) this.#queue.shift();
    if (!this.#sending && this.#next === undefined) void this.#send(target);
  }

  async #send(target: AuditTargetRecord): Promise<void> {
    const run = this.#run;
    const heads = [...this.#queue];
    if (heads.length === 0) return;
    this.#sending = true;
    const { clock, log } = this.#options;
    let waitMs = this.#pace.gapMs;
    try {
      const patience = AbortSignal.timeout(this.#pace.patienceMs);
      await this.#deliver(target, heads, AbortSignal.any([run.signal, patience]));
      if (run.signal.aborted) return;
      const last = heads.at(-1)!.sequence;
      this.#queue = this.#queue.filter(({ sequence }) => sequence > last);
      this.#delivered = { sequence: last, at: clock.now() };
      if (this.#failure !== null) log.info("audit heads are taken again", { sequence: last });
      this.#failure = null;
      this.#failures = 0;
    } catch (error) {
      if (run.signal.aborted) return;
      const reason = explainError(error);
      if (this.#failure?.reason !== reason) log.warn("audit heads not delivered", { why: reason });
      const since = this.#failure ?? { since: clock.now(), sinceMs: clock.bootMs() };
      this.#failure = { reason, since: since.since, sinceMs: since.sinceMs };
      waitMs = Math.min(this.#pace.retryMs * 2 ** this.#failures, this.#pace.mostRetryMs);
      this.#failures = Math.min(this.#failures + 1, 30);
    }
    this.#sending = false;
    this.#next = setTimeout(() => {
      this.#next = undefined;
      void this.#send(target);
    }, waitMs).unref();
  }

  #deliver(
    target: AuditTargetRecord,
    heads: readonly AuditHead[],
    signal: AbortSignal,
  ): Promise<void> {
    const { nodeName, clock } = this.#options;
    return deliver({ target, heads, nodeName, now: clock.now(), signal });
  }
}

function noTarget(): KeelsonError {
  return new KeelsonError("NOT_FOUND", "No target for the audit log's heads is set.", {
    remedy: "PUT /settings/audit-target, or `keelson audit target set`.",
  });
}
