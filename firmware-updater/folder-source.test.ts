/** A stick, or a folder, that is not what it seems, or goes away while it is read. */
import { execFileSync } from "node:child_process";
import {
  appendFileSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import {
  fixtureBundle,
  fixtureManifest,
  fixtureParts,
  productionNode,
  productionTrust,
} from "#lib/bundle/bundle.fixture.ts";
import type { Log } from "#lib/service/log.ts";
import { bundlesIn, copyOf } from "./folder-source.ts";
import { Offers } from "./offers.ts";
import { Spool } from "./spool.ts";

const name = "keelson-2026.12.0.kbundle";
const parts = { ...fixtureParts(), root: Buffer.alloc(3 << 20, "root ") };
const good = fixtureBundle({ parts, manifest: fixtureManifest(parts) });

let folder: string;
let stick: string;
let path: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "keelson-stick-"));
  stick = join(folder, "sticks/sdb1");
  path = join(stick, name);
  mkdirSync(stick, { recursive: true });
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

async function copy(afterFirst: () => void = () => {}): Promise<Buffer> {
  const pieces: Uint8Array[] = [];
  for await (const piece of copyOf(path, "usb", good.length)) {
    if (pieces.length === 0) afterFirst();
    pieces.push(piece);
  }
  return Buffer.concat(pieces);
}

test("a good file is copied as it is", async () => {
  writeFileSync(path, good);
  expect(bundlesIn(stick)).toEqual([{ path, sizeBytes: good.length }]);
  expect((await copy()).equals(good)).toBe(true);
});

test.each<[string, () => void]>([
  ["a link to a file elsewhere", () => symlinkSync("/etc/passwd", path)],
  [
    "a link to a bundle",
    () => {
      writeFileSync(join(folder, "real"), good);
      symlinkSync(join(folder, "real"), path);
    },
  ],
  ["a link to itself", () => symlinkSync(path, path)],
  ["a link to nothing", () => symlinkSync(join(folder, "nothing"), path)],
  ["a pipe", () => void execFileSync("mkfifo", [path])],
  ["a folder", () => mkdirSync(path)],
  [
    "a folder with a bundle's name and a bundle in it",
    () => {
      mkdirSync(path);
      writeFileSync(join(path, name), good);
    },
  ],
])(
  "%s under a bundle's name is not listed, and not read if it took the name later",
  async (_what, make) => {
    make();
    expect(bundlesIn(stick)).toEqual([]);
    await expect(copy()).rejects.toMatchObject({ code: "MEDIA_ERROR" });
  },
  5_000,
);

test("a link says that it is one", async () => {
  symlinkSync("/etc/passwd", path);
  await expect(copy()).rejects.toThrow(
    /can't be read, before the bundle was copied \(it is a link\)/,
  );
});

test.each<[string, () => void, RegExp]>([
  ["is cut off", () => truncateSync(path, 1 << 20), /it ends after 1048576 of \d+ bytes/],
  ["is emptied", () => truncateSync(path, 0), /it ends after 1048576/],
  ["grows", () => appendFileSync(path, "more"), /it has grown/],
])("a file that %s while it is read is refused", async (_what, change, message) => {
  writeFileSync(path, good);
  await expect(copy(change)).rejects.toThrow(message);
});

test("one that is replaced or deleted meanwhile is read as it was", async () => {
  writeFileSync(path, good);
  writeFileSync(join(stick, "other"), "something else");
  expect((await copy(() => renameSync(join(stick, "other"), path))).equals(good)).toBe(true);
  writeFileSync(path, good);
  expect((await copy(() => unlinkSync(path))).equals(good)).toBe(true);
});

test("what the kernel can't read (EIO) is said as the stick's fault", async () => {
  // Address 0 of a process is a place of a regular file that gives EIO.
  const read = async () => {
    for await (const _ of copyOf("/proc/self/mem", "usb", 4096));
  };
  await expect(read()).rejects.toThrow(/^The stick was pulled, or can't be read.*EIO/);
  await expect(read()).rejects.toMatchObject({
    ...{ code: "MEDIA_ERROR", remedy: "Plug it in again, and fetch the bundle again." },
  });
});

test("a folder that is a file, is missing, or is full of names does no harm", () => {
  writeFileSync(join(stick, "file"), "");
  expect(bundlesIn(join(stick, "file"))).toEqual([]);
  expect(bundlesIn(join(stick, "none"))).toEqual([]);
  writeFileSync(path, "x");
  for (let at = 0; at < 1500; at++) linkSync(path, join(stick, `keelson-${at}.kbundle`));
  expect(bundlesIn(stick).length).toBeLessThanOrEqual(1000);
});

test("a stick that is pulled while its bundle is copied leaves nothing, and works when it is back", async () => {
  const quiet: Log = { error() {}, warn() {}, info() {}, debug() {} };
  const spool = new Spool({
    ...{
      folder: join(folder, "spool"),
      trust: () => productionTrust,
      target: () => productionNode,
    },
    ...{ signed: () => {}, now: () => "2026-11-21T00:00:00.000Z" },
  });
  let pull: () => void = () => {};
  const offers = new Offers({
    ...{ spool, folders: [{ kind: "usb", folder: join(folder, "sticks") }], log: quiet },
    sources: () => ({ channel: null, neighbour: null, neighbourFingerprint: null }),
    wanted: () => true,
    changed: () => pull(),
  });
  try {
    writeFileSync(path, good);
    await offers.check();
    const [{ id }] = offers.remote();
    pull = () => {
      if ((offers.remote()[0]?.receivedBytes ?? 0) > 0) truncateSync(path, 1 << 20);
    };
    offers.fetch(id);
    await vi.waitFor(() => expect(offers.remote()[0].state).toBe("refused"));
    pull = () => {};
    expect(offers.remote()[0].message).toMatch(/The stick was pulled.*Plug it in again/);
    expect(readdirSync(join(folder, "spool"))).toEqual([]);

    rmSync(stick, { recursive: true });
    await offers.check();
    expect(offers.remote(), "gone with the stick").toEqual([]);
    mkdirSync(stick);
    writeFileSync(path, good);
    await offers.check();
    offers.fetch(offers.remote()[0].id);
    await vi.waitFor(() => expect(offers.remote()).toEqual([]));
    expect(spool.list().map(({ manifest }) => manifest.version)).toEqual(["2026.12.0"]);
  } finally {
    offers.stop();
  }
});
