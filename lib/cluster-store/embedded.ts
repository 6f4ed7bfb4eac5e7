/**
 * The embedded engine: SQLite in WAL mode, one process. For `npm run dev` and tests; on the
 * appliance etcd takes its place.
 */
import { mkdirSync } from "node:fs";
import { dirname } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { KeelsonError } from "#lib/model/errors.ts";
import {
  type Change,
  type ClusterStore,
  type Compare,
  checkKey,
  checkTransaction,
  type Entry,
  type Lease,
  type LeaseId,
  type Listing,
  prefixEnd,
  type Transaction,
  type WatchStep,
  type Write,
} from "./store.ts";

const schema = `
CREATE TABLE IF NOT EXISTS entry (
  key TEXT PRIMARY KEY, value TEXT NOT NULL, mod_revision INTEGER NOT NULL, lease INTEGER
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS entry_lease ON entry (lease) WHERE lease IS NOT NULL;
-- What watches resume from; value NULL: deleted.
CREATE TABLE IF NOT EXISTS history (
  revision INTEGER NOT NULL, key TEXT NOT NULL, value TEXT, PRIMARY KEY (revision, key)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS lease (id INTEGER PRIMARY KEY, ttl_ms INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT OR IGNORE INTO counter VALUES ('revision', 1), ('compacted', 0), ('format', 1);
`;

export interface EmbeddedOptions {
  /** Revisions kept for watches to resume from. */
  readonly keptRevisions?: number;
}

interface EntryRow {
  key: string;
  value: string;
  mod_revision: number;
}

export class EmbeddedStore implements ClusterStore {
  readonly engine = "embedded";
  readonly #database: DatabaseSync;
  readonly #keptRevisions: number;
  readonly #wakeWatches = new Set<() => void>();
  readonly #expiry = new Map<LeaseId, NodeJS.Timeout>();
  #closed = false;

  /** `path` is created if missing, mode 0600 (CHAP secrets are in it); `:memory:` for tests. */
  constructor(path: string, options: EmbeddedOptions = {}) {
    this.#keptRevisions = options.keptRevisions ?? 10_000;
    if (path !== ":memory:") mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
    const mask = process.umask(0o077);
    try {
      this.#database = new DatabaseSync(path);
      // FULL: a transaction that was acknowledged survives power loss, as etcd's does.
      this.#database.exec(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA busy_timeout = 2000;",
      );
      this.#database.exec(schema);
    } catch (cause) {
      throw new KeelsonError("UNAVAILABLE", `Cannot open the cluster store ${path}.`, {
        operation: "open cluster store",
        object: path,
        remedy: "Is it a SQLite file that this user may write, and no other process holds it?",
        cause,
      });
    } finally {
      process.umask(mask);
    }
    // The process that kept these alive is gone: they run out from now unless deleted before.
    for (const row of this.#database.prepare("SELECT id, ttl_ms FROM lease").all()) {
      this.#expireLater(String(row.id), Number(row.ttl_ms), () => {});
    }
  }

  async get(key: string): Promise<Entry | undefined> {
    checkKey(key);
    this.#checkOpen();
    const row = this.#database
      .prepare("SELECT key, value, mod_revision FROM entry WHERE key = ?")
      .get(key) as EntryRow | undefined;
    return row === undefined ? undefined : entryOf(row);
  }

  async list(prefix: string): Promise<Listing> {
    this.#checkOpen();
    const rows = this.#database
      .prepare("SELECT key, value, mod_revision FROM entry WHERE key >= ? AND key < ? ORDER BY key")
      .all(prefix, prefixEnd(prefix)) as unknown as EntryRow[];
    return { revision: this.#counter("revision"), entries: rows.map(entryOf) };
  }

  async transact(compares: readonly Compare[], writes: readonly Write[]): Promise<Transaction> {
    checkTransaction(compares, writes);
    this.#checkOpen();
    this.#database.exec("BEGIN IMMEDIATE");
    try {
      const holds = compares.every(({ key, modRevision }) => {
        const row = this.#database.prepare("SELECT mod_revision FROM entry WHERE key = ?").get(key);
        return (row === undefined ? 0 : Number(row.mod_revision)) === modRevision;
      });
      if (!holds) {
        this.#database.exec("ROLLBACK");
        return { done: false, revision: this.#counter("revision") };
      }
      const revision = this.#apply(writes);
      this.#database.exec("COMMIT");
      for (const wake of this.#wakeWatches) wake();
      return { done: true, revision };
    } catch (error) {
      if (this.#database.isTransaction) this.#database.exec("ROLLBACK");
      throw error;
    }
  }

  /** Writes in a new revision, inside the caller's transaction; the old one if nothing changes. */
  #apply(writes: readonly Write[]): number {
    const revision = this.#counter("revision") + 1;
    let changed = false;
    for (const write of writes) {
      if ("put" in write) {
        const lease = write.lease === undefined ? null : Number(write.lease);
        if (lease !== null) this.#checkLease(lease);
        this.#database
          .prepare("INSERT OR REPLACE INTO entry VALUES (?, ?, ?, ?)")
          .run(write.put, write.value, revision, lease);
        this.#database
          .prepare("INSERT INTO history VALUES (?, ?, ?)")
          .run(revision, write.put, write.value);
        changed = true;
      } else {
        const { changes } = this.#database
          .prepare("DELETE FROM entry WHERE key = ?")
          .run(write.delete);
        if (Number(changes) === 0) continue;
        this.#database
          .prepare("INSERT INTO history VALUES (?, ?, NULL)")
          .run(revision, write.delete);
        changed = true;
      }
    }
    if (!changed) return revision - 1;
    this.#setCounter("revision", revision);
    const compacted = revision - this.#keptRevisions;
    if (compacted > 0) {
      this.#database.prepare("DELETE FROM history WHERE revision <= ?").run(compacted);
      this.#setCounter("compacted", compacted);
    }
    return revision;
  }

  async grantLease(ttlMs: number): Promise<Lease> {
    this.#checkOpen();
    checkTtl(ttlMs);
    const { lastInsertRowid } = this.#database
      .prepare("INSERT INTO lease (ttl_ms) VALUES (?)")
      .run(ttlMs);
    const id = String(lastInsertRowid);
    const { promise: lost } = Promise.withResolvers<void>();
    // Alive as long as this process is: no timer, since nothing but its end can lose the lease.
    return { id, lost, revoke: async () => this.#endLease(id) };
  }

  #expireLater(id: LeaseId, ttlMs: number, lost: () => void): void {
    const timer = setTimeout(() => {
      this.#endLease(id);
      lost();
    }, ttlMs);
    this.#expiry.set(id, timer.unref());
  }

  #endLease(id: LeaseId): void {
    clearTimeout(this.#expiry.get(id));
    this.#expiry.delete(id);
    if (this.#closed) return;
    this.#database.exec("BEGIN IMMEDIATE");
    const keys = this.#database
      .prepare("SELECT key FROM entry WHERE lease = ?")
      .all(Number(id)) as unknown as { key: string }[];
    this.#apply(keys.map(({ key }) => ({ delete: key })));
    this.#database.prepare("DELETE FROM lease WHERE id = ?").run(Number(id));
    this.#database.exec("COMMIT");
    for (const wake of this.#wakeWatches) wake();
  }

  #checkLease(id: number): void {
    if (this.#database.prepare("SELECT 1 FROM lease WHERE id = ?").get(id) !== undefined) return;
    throw new KeelsonError("NOT_FOUND", `The lease ${id} has ended.`, {
      remedy: "Grant a new one.",
    });
  }

  async *watch(
    prefix: string,
    fromRevision: number,
    signal: AbortSignal,
  ): AsyncGenerator<WatchStep> {
    let next = fromRevision;
    let wake = () => {};
    let woken = false;
    const onChange = () => {
      woken = true;
      wake();
    };
    this.#wakeWatches.add(onChange);
    signal.addEventListener("abort", onChange);
    try {
      while (!signal.aborted && !this.#closed) {
        woken = false;
        if (next <= this.#counter("compacted")) {
          yield { kind: "compacted" };
          return;
        }
        for (const step of this.#changesFrom(prefix, next)) {
          if (signal.aborted) return;
          yield step;
          next = step.revision + 1;
        }
        if (woken || signal.aborted || this.#closed) continue;
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
    } finally {
      this.#wakeWatches.delete(onChange);
      signal.removeEventListener("abort", onChange);
    }
  }

  #changesFrom(prefix: string, from: number) {
    const rows = this.#database
      .prepare(
        "SELECT revision, key, value FROM history WHERE revision >= ? AND key >= ? AND key < ? ORDER BY revision, key",
      )
      .all(from, prefix, prefixEnd(prefix)) as unknown as {
      revision: number;
      key: string;
      value: string | null;
    }[];
    const steps: { kind: "changes"; revision: number; changes: Change[] }[] = [];
    for (const { revision, key, value } of rows) {
      const change: Change = value === null ? { kind: "delete", key } : { kind: "put", key, value };
      const last = steps.at(-1);
      if (last?.revision === revision) last.changes.push(change);
      else steps.push({ kind: "changes", revision, changes: [change] });
    }
    return steps;
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    for (const timer of this.#expiry.values()) clearTimeout(timer);
    for (const wake of this.#wakeWatches) wake();
    this.#database.close();
  }

  #checkOpen(): void {
    if (this.#closed) throw new KeelsonError("UNAVAILABLE", "The cluster store is closed.");
  }

  #counter(name: "revision" | "compacted"): number {
    const row = this.#database.prepare("SELECT value FROM counter WHERE name = ?").get(name);
    return Number(row?.value);
  }

  #setCounter(name: "revision" | "compacted", value: number): void {
    this.#database.prepare("UPDATE counter SET value = ? WHERE name = ?").run(value, name);
  }
}

function entryOf(row: EntryRow): Entry {
  return { key: row.key, value: row.value, modRevision: row.mod_revision };
}

/** Both engines count in whole seconds, since etcd does. */
export function checkTtl(ttlMs: number): void {
  if (Number.isInteger(ttlMs / 1000) && ttlMs >= 1000 && ttlMs <= 86_400_000) return;
  throw new KeelsonError(
    "INVALID_ARGUMENT",
    `A lease lasts 1 s to 1 day in whole seconds, not ${ttlMs} ms.`,
  );
}
