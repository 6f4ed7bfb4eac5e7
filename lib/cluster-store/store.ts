/**
 * Where policy stands: a small ordered map of text with revisions, the subset of etcd's model that
 * both engines keep exactly. Every change has one revision; it only grows.
 *
 *   list("volume/")  -> entries, and the revision they are of
 *   transact(...)    -> all compares hold: all writes happen, in one revision; else none does
 *   watch("volume/", revision + 1)  -> each later revision once, in order, whole
 *
 * Two engines: embedded (SQLite, one process) and etcd. `contract.test.ts` runs against both.
 */
import { KeelsonError } from "#lib/model/errors.ts";

export interface Entry {
  readonly key: string;
  readonly value: string;
  /** Revision of its last change. */
  readonly modRevision: number;
}

export interface Listing {
  /** The store's revision that the entries are of; watch from this + 1 to miss nothing. */
  readonly revision: number;
  /** In order of key, by bytes. */
  readonly entries: readonly Entry[];
}

/** Holds if the key's last change is `modRevision`; 0: the key is absent. */
export interface Compare {
  readonly key: string;
  readonly modRevision: number;
}

export type Write =
  | { readonly put: string; readonly value: string; readonly lease?: LeaseId }
  | { readonly delete: string };

export type LeaseId = string;

export interface Lease {
  readonly id: LeaseId;
  /**
   * Settles when the lease has ended other than by `revoke`, or could not be renewed in its time:
   * its keys are gone, or go soon. etcd takes 1 to 3 s to elect a leader: a lease that is to outlive
   * that is longer.
   */
  readonly lost: Promise<void>;
  /** Ends it; its keys are deleted in one revision. */
  revoke(): Promise<void>;
}

export type Transaction =
  | { readonly done: true; readonly revision: number }
  /** A compare failed; nothing was written. */
  | { readonly done: false; readonly revision: number };

export type Change =
  | { readonly kind: "put"; readonly key: string; readonly value: string }
  | { readonly kind: "delete"; readonly key: string };

export type WatchStep =
  /** One revision's changes under the prefix. */
  | {
      readonly kind: "changes";
      readonly revision: number;
      readonly changes: readonly Change[];
    }
  /**
   * The wanted revision is no longer kept: list again, then go on from the listing's revision + 1
   * with a new watch. The watch ends after this.
   */
  | { readonly kind: "compacted" };

export interface ClusterStore {
  readonly engine: "embedded" | "etcd";
  get(key: string): Promise<Entry | undefined>;
  list(prefix: string): Promise<Listing>;
  /**
   * At most `maxOperations` compares and as many writes; no key twice among the writes
   * (INVALID_ARGUMENT). UNAVAILABLE: whether it happened is unknown, read again. It happens once
   * or not at all, also if a member of etcd dies.
   */
  transact(compares: readonly Compare[], writes: readonly Write[]): Promise<Transaction>;
  /** Kept alive by this process until revoked or closed. `ttlMs` >= 1000, whole seconds. */
  grantLease(ttlMs: number): Promise<Lease>;
  /**
   * Changes under `prefix` from `fromRevision` on, over lost connections; ends when `signal`
   * aborts or the store closes.
   */
  watch(prefix: string, fromRevision: number, signal: AbortSignal): AsyncIterable<WatchStep>;
  /** Ends watches and gives up leases' keep-alive (the keys go when their time is over). */
  close(): Promise<void>;
}

/** etcd's default `--max-txn-ops`. */
export const maxOperations = 128;
/** etcd's default `--max-request-bytes` is 1.5 MiB for a whole transaction. */
export const maxValueBytes = 512 * 1024;

/** Refuses what one of the engines couldn't do, so that both refuse it alike. */
export function checkTransaction(compares: readonly Compare[], writes: readonly Write[]): void {
  if (compares.length > maxOperations || writes.length > maxOperations) {
    throw new KeelsonError(
      "INVALID_ARGUMENT",
      `A transaction takes at most ${maxOperations} compares and as many writes.`,
    );
  }
  const keys = new Set<string>();
  for (const write of writes) {
    const key = "put" in write ? write.put : write.delete;
    checkKey(key);
    if (keys.has(key)) {
      throw new KeelsonError("INVALID_ARGUMENT", `A transaction writes the key ${key} twice.`);
    }
    keys.add(key);
    if ("put" in write && Buffer.byteLength(write.value) > maxValueBytes) {
      throw new KeelsonError(
        "INVALID_ARGUMENT",
        `The value of ${key} is larger than ${maxValueBytes} bytes.`,
      );
    }
  }
  for (const { key } of compares) checkKey(key);
}

/** Keys are printable ASCII without spaces: their order by bytes and by text is the same. */
export function checkKey(key: string): void {
  if (!/^[\x21-\x7e]{1,512}$/.test(key)) {
    throw new KeelsonError("INVALID_ARGUMENT", `"${key}" is not a key: 1 to 512 printable ASCII.`);
  }
}

/** The smallest key past every key that starts with `prefix`; for a range query. */
export function prefixEnd(prefix: string): string {
  checkKey(prefix);
  return prefix.slice(0, -1) + String.fromCharCode(prefix.charCodeAt(prefix.length - 1) + 1);
}
