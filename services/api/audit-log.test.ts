import {
  appendFileSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { open } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import {
  type AuditEntry,
  type AuditEvent,
  type AuditHead,
  ChainVerifier,
} from "#lib/audit/chain.ts";
import { AuditLog, type AuditLogOptions } from "./audit-log.ts";
import { systemClock } from "./clock.ts";

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "keelson-audit-"));
});
afterEach(() => rmSync(directory, { recursive: true }));

const event = (index: number): AuditEvent => ({
  ...{ user: "admin", via: "session", address: "192.0.2.7", action: "POST /volumes" },
  ...{ permission: "storage:write", target: `volume-${index}`, outcome: "done", status: 201 },
  detail: null,
});

const openLog = (options: Partial<AuditLogOptions> = {}) =>
  AuditLog.open({ directory, clock: systemClock, ...options });

async function verdictOf(log: AuditLog, heads: readonly AuditHead[] = []) {
  const verifier = new ChainVerifier(heads);
  for await (const line of log.lines()) verifier.add(line);
  return verifier.verdict();
}

async function all(log: AuditLog): Promise<AuditEntry[]> {
  const entries: AuditEntry[] = [];
  for await (const entry of log.backwards()) entries.push(entry);
  return entries.reverse();
}

async function write(count: number, options: Partial<AuditLogOptions> = {}): Promise<AuditHead> {
  const log = await openLog(options);
  for (let index = 0; index < count; index++) await log.append(event(index));
  await log.close();
  return log.head;
}

const newest = () =>
  join(
    directory,
    readdirSync(directory)
      .filter((name) => name.endsWith(".ndjson"))
      .sort()
      .at(-1)!,
  );

describe("append", () => {
  test("entries stand in the order they were appended, chained, over a restart", async () => {
    const head = await write(3);
    const log = await openLog();
    expect(log.head).toEqual(head);
    await Promise.all(Array.from({ length: 50 }, (_, index) => log.append(event(index))));
    expect(await verdictOf(log, [head])).toMatchObject({ ok: true, entries: 53 });
    expect((await all(log)).map(({ sequence }) => sequence)).toEqual(
      Array.from({ length: 53 }, (_, index) => index + 1),
    );
    await log.close();
    expect(statSync(newest()).mode & 0o777).toBe(0o600);
  });

  test("an answer comes after the entry is in the file", async () => {
    const log = await openLog();
    for (let index = 0; index < 5; index++) {
      const { hash } = await log.append(event(index));
      expect(readFileSync(newest(), "utf8")).toContain(hash);
    }
    // What is appended as an answer comes is written too, without a push from a later one.
    let last: Promise<unknown> = Promise.resolve();
    await log.append(event(5)).then(() => {
      last = log.append(event(6));
    });
    await last;
    expect(log.head.sequence).toBe(7);
    await log.close();
  });

  test("each head that is on the disk is told", async () => {
    const heads: AuditHead[] = [];
    const log = await openLog({ onHead: (head) => heads.push(head) });
    await log.append(event(0));
    await Promise.all([log.append(event(1)), log.append(event(2))]);
    expect(heads.map(({ sequence }) => sequence)).toEqual([1, 3]);
    expect(await verdictOf(log, heads)).toMatchObject({ ok: true });
    await log.close();
  });
});

describe("a power cut", () => {
  test("at every byte of the last entries: whole ones stay, the torn one goes, the chain goes on", async () => {
    await write(4);
    const path = newest();
    const whole = readFileSync(path);
    const ends = [...whole.entries()].filter(([, byte]) => byte === 10).map(([at]) => at);
    for (let length = ends[0]; length <= whole.length; length++) {
      for (const name of readdirSync(directory)) {
        if (name.startsWith("torn")) rmSync(join(directory, name));
      }
      writeFileSync(path, whole.subarray(0, length));
      // A line is whole with or without the newline that ends it.
      const complete = ends.filter((end) => end <= length).length;
      const torn = length > ends[complete - 1] + 1;
      const log = await openLog();
      const entries = await all(log);
      expect(entries.length, `${length}`).toBe(complete + (torn ? 1 : 0));
      if (torn) expect(entries.at(-1)!.detail).toMatch(/power cut tore off/);
      expect(log.damage).toBeNull();
      await log.append(event(9));
      expect(await verdictOf(log), `${length}`).toMatchObject({ ok: true });
      await log.close();
    }
  });

  test("blocks of zeroes where data was not written in order", async () => {
    const head = await write(3);
    const path = newest();
    const half = readFileSync(path).subarray(0, 200);
    appendFileSync(path, Buffer.concat([new Uint8Array(4096), half]));
    const log = await openLog();
    expect(log.damage).toBeNull();
    expect((await all(log)).length).toBe(4);
    expect(await verdictOf(log, [head])).toMatchObject({ ok: true });
    await log.close();
    expect(readdirSync(directory).some((name) => name.startsWith("torn-"))).toBe(true);
  });

  test("before anything was written to a new file", async () => {
    const head = await write(3);
    writeFileSync(join(directory, "000000000004.ndjson"), "");
    const log = await openLog();
    await log.append(event(0));
    expect(await verdictOf(log, [head])).toMatchObject({ ok: true, entries: 4 });
    await log.close();
  });
});

describe("tampering", () => {
  test("a changed last entry is not taken for a torn one: it stays, and is told", async () => {
    await write(3);
    const path = newest();
    const text = readFileSync(path, "utf8").replace('"volume-2"', '"volume-X"');
    writeFileSync(path, text);
    const log = await openLog();
    expect(log.damage).toContain("was changed after it was written");
    await log.append(event(4));
    expect(readFileSync(path, "utf8").startsWith(text)).toBe(true);
    expect(await verdictOf(log)).toMatchObject({ ok: false, line: 3 });
    // The log goes on; what was found stands in it.
    expect((await all(log)).at(-2)?.detail).toContain("was changed");
    await log.close();
  });

  test("a line that is no entry in the middle", async () => {
    await write(3);
    const path = newest();
    const lines = readFileSync(path, "utf8").split("\n");
    writeFileSync(path, [lines[0], "nonsense", lines[2], ""].join("\n"));
    const log = await openLog();
    expect(log.damage).not.toBeNull();
    expect(await verdictOf(log)).toMatchObject({ ok: false, line: 2 });
    await log.close();
  });

  test("the end cut off at a line is found by a head exported before", async () => {
    const head = await write(5);
    const path = newest();
    const lines = readFileSync(path, "utf8").split("\n");
    writeFileSync(path, `${lines.slice(0, 3).join("\n")}\n`);
    const log = await openLog();
    expect(await verdictOf(log, [head])).toMatchObject({ ok: false });
    // Also after it has grown again beyond the head.
    for (let index = 0; index < 5; index++) await log.append(event(index));
    expect(await verdictOf(log, [head])).toMatchObject({ ok: false, line: 5 });
    await log.close();
  });
});

describe("rotation", () => {
  const small = { maxFileBytes: 2000, keptFiles: 3 };

  test("the chain goes on over files; the oldest go, and the log says so", async () => {
    const log = await openLog(small);
    const heads: AuditHead[] = [];
    for (let index = 0; index < 60; index++) {
      await log.append(event(index));
      heads.push(log.head);
    }
    await log.close();
    const files = readdirSync(directory).filter((name) => name.endsWith(".ndjson"));
    expect(files).toHaveLength(3);
    const sizes = files.map((name) => statSync(join(directory, name)).size);
    expect(Math.max(...sizes)).toBeLessThan(2000 + 1000);
    const again = await openLog(small);
    const verdict = await verdictOf(again, heads);
    expect(verdict).toMatchObject({ ok: true, beginningExplained: true });
    expect(again.firstSequence).toBeGreaterThan(40);
    expect(again.fileHeads.at(-1)).toEqual(again.head);
    expect((verdict as { uncheckedHeads: number }).uncheckedHeads).toBeGreaterThan(30);
    // From any entry on, whichever file it is in.
    for (const from of [again.firstSequence, again.head.sequence - 7, again.head.sequence]) {
      const lines: string[] = [];
      for await (const line of again.lines(from)) lines.push(line);
      expect(lines).toHaveLength(again.head.sequence - from + 1);
    }
    await again.close();
  });

  test("the oldest file deleted by hand is not explained", async () => {
    await write(30, { ...small, keptFiles: 100 });
    const first = readdirSync(directory).sort()[0];
    rmSync(join(directory, first));
    const log = await openLog(small);
    expect(await verdictOf(log)).toMatchObject({ ok: true, beginningExplained: false });
    await log.close();
  });
});

/** Its class, which node:fs does not export: any handle leads to it. */
async function fileHandles(): Promise<{ write: unknown; writeFile: unknown }> {
  const handle = await open(import.meta.filename, "r");
  await handle.close();
  return Object.getPrototypeOf(handle);
}

describe("no space", () => {
  /** As the file system says it, for as long as it is full. */
  async function fill(): Promise<{ free(): void }> {
    const real = await fileHandles();
    const { write: realWrite, writeFile: realWriteFile } = real;
    const full = () => !existsSync(join(directory, "room"));
    const refuse = () => Promise.reject(Object.assign(new Error("full"), { code: "ENOSPC" }));
    const reserve = join(directory, "reserve");
    real.write = function (this: unknown, ...args: unknown[]) {
      return full() && existsSync(reserve) ? refuse() : (realWrite as Write).apply(this, args);
    };
    real.writeFile = function (this: unknown, ...args: unknown[]) {
      return full() ? refuse() : (realWriteFile as Write).apply(this, args);
    };
    restore = () => Object.assign(real, { write: realWrite, writeFile: realWriteFile });
    return { free: () => writeFileSync(join(directory, "room"), "") };
  }
  type Write = (...args: unknown[]) => Promise<unknown>;
  let restore = () => {};
  afterEach(() => restore());

  test("what was done is recorded in the reserve; then changes are refused until there is room", async () => {
    const log = await openLog();
    await log.append(event(0));
    const disk = await fill();
    await log.append(event(1));
    expect(log.head.sequence).toBe(2);
    expect(log.failure).toBe("/var is full.");
    await expect(log.requireWritable()).rejects.toMatchObject({
      code: "UNAVAILABLE",
      message: expect.stringContaining("/var is full"),
    });
    disk.free();
    await log.requireWritable();
    expect(log.failure).toBeNull();
    await log.append(event(2));
    expect(await verdictOf(log)).toMatchObject({ ok: true, entries: 3 });
    await log.close();
  });
});
