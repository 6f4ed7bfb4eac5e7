import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { z } from "zod";
import { dataFormats, firstFormats, formatToWrite, raised, unreadable } from "./formats.ts";
import { type Codec, FormattedFile } from "./formatted-file.ts";
import { HeldFormatsFile } from "./held.ts";

let folder: string;
let held: HeldFormatsFile;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "keelson-formats-"));
  held = new HeldFormatsFile(join(folder, "formats.json"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

/** A setting as version 1 kept it, and as a later version would: in seconds, with a unit in its name. */
interface Setting {
  readonly name: string;
  readonly seconds: number;
}
const first: Codec<Setting> = {
  format: 1,
  decode: (document) => {
    const { name, minutes } = z.object({ name: z.string(), minutes: z.number() }).parse(document);
    return { name, seconds: minutes * 60 };
  },
  encode: ({ name, seconds }) => ({ name, minutes: seconds / 60 }),
};
const second: Codec<Setting> = {
  format: 2,
  decode: (document) => z.object({ name: z.string(), seconds: z.number() }).parse(document),
  encode: ({ name, seconds }) => ({ name, seconds }),
};
const next = { network: { oldest: 1, newest: 2 } };

const path = () => join(folder, "setting.json");
const common = () => ({
  ...({ path: path(), held, name: "network", member: "version" } as const),
  remedy: "Move it away.",
});
const oldVersion = () => new FormattedFile({ ...common(), codecs: [first] });
const newVersion = () =>
  new FormattedFile({ ...common(), codecs: [first, second], range: next.network });
const onDisk = () => JSON.parse(readFileSync(path(), "utf8"));

test("on trial the new version writes what the old slot reads; kept, it brings the file forward", () => {
  oldVersion().write({ name: "lan", seconds: 60 });

  // The trial: it reads, changes, and migrates nothing.
  expect(newVersion().migrate()).toBe(false);
  newVersion().write({ ...newVersion().read()!, seconds: 120 });
  expect(onDisk()).toEqual({ version: 1, name: "lan", minutes: 2 });
  expect(oldVersion().read()).toEqual({ name: "lan", seconds: 120 });

  // Commit.
  held.write(raised(held.read(), next));
  expect(newVersion().migrate()).toBe(true);
  expect(onDisk()).toEqual({ version: 2, name: "lan", seconds: 120 });
  expect(newVersion().migrate(), "once").toBe(false);
  newVersion().write({ name: "lan", seconds: 90 });
  expect(onDisk()).toEqual({ version: 2, name: "lan", seconds: 90 });

  // Whoever starts the old slot now is told, and what stands there stays.
  expect(() => oldVersion().read()).toThrow(/setting\.json has format 2; this version reads 1\./);
  expect(oldVersion().migrate()).toBe(false);
  expect(onDisk().version).toBe(2);
});

test("a power cut between the commit and the migration is made up for at the next start", () => {
  oldVersion().write({ name: "lan", seconds: 60 });
  held.write(raised(held.read(), next));
  expect(newVersion().read()).toEqual({ name: "lan", seconds: 60 });
  expect(newVersion().migrate()).toBe(true);
  expect(newVersion().read()).toEqual({ name: "lan", seconds: 60 });
});

test("a file that a trial makes anew is of the old format too", () => {
  newVersion().write({ name: "lan", seconds: 60 });
  expect(onDisk().version).toBe(1);
});

test("a service is told when a version is kept, within the time it looks", async () => {
  oldVersion().write({ name: "lan", seconds: 60 });
  const file = newVersion();
  const end = held.onChange(() => file.migrate(), 20);
  try {
    await new Promise((resolve) => setTimeout(resolve, 60));
    expect(onDisk().version).toBe(1);
    held.write(raised(held.read(), next));
    await vi.waitFor(() => expect(onDisk().version).toBe(2));
  } finally {
    end();
  }
});

test.each([
  ["damaged", "{", /not valid JSON/],
  ["of another form", '{"format":1,"formats":{"network":"2"}}', /can't be read/],
  ["of a newer format", '{"format":2}', /can't be read/],
])("formats.json that is %s lets nothing be written", (_what, text, message) => {
  writeFileSync(held.path, text);
  expect(() => newVersion().write({ name: "lan", seconds: 60 })).toThrow(message);
});

test("formats.json that can't be read at all lets nothing be written either", () => {
  mkdirSync(held.path);
  expect(() => newVersion().write({ name: "lan", seconds: 60 })).toThrow(/can't be read: EISDIR/);
});

test("every service may read formats.json, also where a cut left a part of one", () => {
  writeFileSync(`${held.path}.new`, "{", { mode: 0o600 });
  held.write({ network: 1 });
  expect(statSync(held.path).mode & 0o777).toBe(0o644);
});

test("a damaged file is said by name, with what to do", () => {
  writeFileSync(path(), '{"version":1,"name":"lan"}');
  expect(() => oldVersion().read()).toThrow(/setting\.json is not as expected/);
  writeFileSync(path(), '{"name":"lan","minutes":1}');
  expect(() => oldVersion().read()).toThrow(/setting\.json is not as expected/);
  writeFileSync(path(), "null");
  expect(() => oldVersion().read()).toThrow(/setting\.json is not as expected/);
});

test("which format is written: what the node holds, within what the version knows", () => {
  const table = [
    [1, 1],
    [2, 2],
    [3, 3],
    [9, 3],
    [0, 1],
  ];
  for (const [now, written] of table) {
    expect(formatToWrite({ oldest: 1, newest: 3 }, now), String(now)).toBe(written);
  }
});

test("what a version can't read is named; what a node holds only grows", () => {
  const reads = { a: { oldest: 1, newest: 2 }, b: { oldest: 3, newest: 3 } };
  expect(unreadable(reads, { a: 1, b: 3 })).toBeUndefined();
  expect(unreadable(reads, { a: 3 })).toBe("a: format 3; it reads 1 to 2");
  expect(unreadable(reads, { a: 0 })).toBe("a: format 0; it reads 1 to 2");
  expect(unreadable(reads, { b: 2 })).toBe("b: format 2; it reads 3");
  expect(unreadable(reads, { c: 1 })).toBe("c: format 1; it reads none");
  expect(raised({ a: 5, c: 1 }, reads)).toEqual({ a: 5, b: 3, c: 1 });
});

test("this version reads what the first release wrote", () => {
  expect(unreadable(dataFormats, firstFormats)).toBeUndefined();
});
