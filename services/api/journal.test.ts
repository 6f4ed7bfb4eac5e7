import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { afterEach, beforeEach, expect, test } from "vitest";
import { Journal } from "./journal.ts";

let folder: string;
let path: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "keelson-journal-"));
  path = join(folder, "journal.sqlite");
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const change = (sql: string) => {
  const database = new DatabaseSync(path);
  database.exec(sql);
  database.close();
};
const kept = () => {
  const journal = new Journal(path);
  const answer = journal.findAnswer("admin", "key")?.fingerprint;
  journal.close();
  return answer;
};
const keep = () => {
  const journal = new Journal(path);
  journal.beginAnswer("admin", "key", "fingerprint", 1);
  journal.close();
};

test("one from before it had a number is gone on with", () => {
  keep();
  change("PRAGMA user_version = 0");
  expect(kept()).toBe("fingerprint");
});

test("one of a later version is set aside as a whole, and a new one begun", () => {
  keep();
  change("ALTER TABLE answer RENAME COLUMN fingerprint TO digest; PRAGMA user_version = 2");
  expect(kept()).toBeUndefined();
  expect(existsSync(`${path}.unknown`)).toBe(true);
  keep();
  expect(kept()).toBe("fingerprint");
});

test("one that is no database is said, with what to do", () => {
  writeFileSync(path, "something else entirely, long enough to be looked at as a header of pages");
  expect(() => new Journal(path)).toThrow(/journal\.sqlite can't be opened/);
});
