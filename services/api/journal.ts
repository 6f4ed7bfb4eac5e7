/**
 * What must outlast a restart of api but is no policy: tasks, and the answers that were given under
 * an idempotency key. One SQLite file in the state directory; losing it loses no data of a user,
 * so that one of a later version is set aside rather than keeping api from starting.
 *
 *   answer   account, key -> fingerprint of the request, and its sealed answer (null: not there yet)
 *   task     id -> the task's document as it was last told
 */
import { existsSync, mkdirSync, renameSync } from "node:fs";
import { dirname } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { KeelsonError } from "#lib/model/errors.ts";

/** PRAGMA user_version; 0: from before it had a number, and the same. */
const journalFormat = 1;

const schema = `
CREATE TABLE IF NOT EXISTS answer (
  account TEXT NOT NULL, key TEXT NOT NULL, fingerprint TEXT NOT NULL, value TEXT,
  at_ms INTEGER NOT NULL, PRIMARY KEY (account, key)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS answer_at ON answer (at_ms);
CREATE TABLE IF NOT EXISTS task (id TEXT PRIMARY KEY, started_at TEXT NOT NULL, value TEXT NOT NULL);
`;

export interface KeptAnswer {
  readonly fingerprint: string;
  /** Null: its request had begun, and api ended before it was answered. */
  readonly value: string | null;
}

export class Journal {
  readonly #database: DatabaseSync;

  /** `path` is created if missing, mode 0600; `:memory:` for tests. */
  constructor(path: string) {
    if (path !== ":memory:") mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
    const mask = process.umask(0o077);
    try {
      setNewerAside(path);
      this.#database = new DatabaseSync(path);
      // secure_delete: an answer's time ends in the file too.
      this.#database.exec(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA secure_delete = ON; PRAGMA cache_size = -256;",
      );
      this.#database.exec(`${schema} PRAGMA user_version = ${journalFormat};`);
    } catch (cause) {
      throw new KeelsonError("FORMAT_CORRUPT", `The journal ${path} can't be opened.`, {
        operation: "open journal",
        object: path,
        remedy: "Move it away: only the list of tasks and remembered answers go with it.",
        cause,
      });
    } finally {
      process.umask(mask);
    }
  }

  findAnswer(account: string, key: string): KeptAnswer | undefined {
    return this.#database
      .prepare("SELECT fingerprint, value FROM answer WHERE account = ? AND key = ?")
      .get(account, key) as KeptAnswer | undefined;
  }

  /** Before the request is carried out: after a crash it is known that it had begun. */
  beginAnswer(account: string, key: string, fingerprint: string, atMs: number): void {
    this.#database
      .prepare("INSERT OR REPLACE INTO answer VALUES (?, ?, ?, NULL, ?)")
      .run(account, key, fingerprint, atMs);
  }

  keepAnswer(account: string, key: string, value: string): void {
    this.#database
      .prepare("UPDATE answer SET value = ? WHERE account = ? AND key = ?")
      .run(value, account, key);
  }

  dropAnswer(account: string, key: string): void {
    this.#database.prepare("DELETE FROM answer WHERE account = ? AND key = ?").run(account, key);
  }

  /** Those from before `beforeMs`, and of each account all but its newest `most`. */
  pruneAnswers(beforeMs: number, account: string, most: number): void {
    this.#database.prepare("DELETE FROM answer WHERE at_ms < ?").run(beforeMs);
    this.#database
      .prepare(
        `DELETE FROM answer WHERE account = ? AND key IN (
           SELECT key FROM answer WHERE account = ? ORDER BY at_ms DESC LIMIT -1 OFFSET ?)`,
      )
      .run(account, account, most);
  }

  /** Oldest first. */
  tasks(): unknown[] {
    const rows = this.#database.prepare("SELECT value FROM task ORDER BY started_at, rowid").all();
    return rows.map((row) => JSON.parse(String(row.value)));
  }

  keepTask(id: string, startedAt: string, value: unknown): void {
    this.#database
      .prepare(
        "INSERT INTO task VALUES (?, ?, ?) ON CONFLICT (id) DO UPDATE SET value = excluded.value",
      )
      .run(id, startedAt, JSON.stringify(value));
  }

  dropTask(id: string): void {
    this.#database.prepare("DELETE FROM task WHERE id = ?").run(id);
  }

  close(): void {
    this.#database.close();
  }
}

function setNewerAside(path: string): void {
  if (path === ":memory:" || !existsSync(path)) return;
  const found = new DatabaseSync(path);
  const { user_version: format } = found.prepare("PRAGMA user_version").get() as {
    user_version: number;
  };
  // The last connection to close takes what is in the write-ahead log into the file.
  found.close();
  if (format > journalFormat) renameSync(path, `${path}.unknown`);
}
