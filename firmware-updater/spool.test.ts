import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import {
  fixtureBundle,
  fixtureManifest,
  fixtureParts,
  productionNode,
  productionTrust,
  strangeKey,
} from "#lib/bundle/bundle.fixture.ts";
import { KeelsonError } from "#lib/model/errors.ts";
import { loaderPartNames } from "./boot-loaders.ts";
import { bundlesIn } from "./folder-source.ts";
import { Spool } from "./spool.ts";

let folder: string;
let spool: Spool;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "keelson-spool-"));
  spool = openSpool();
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

function openSpool(): Spool {
  return new Spool({
    folder: join(folder, "spool"),
    trust: () => productionTrust,
    target: () => productionNode,
    signed: () => {},
    now: () => "2026-11-21T00:00:00.000Z",
  });
}

async function* inPieces(bytes: Buffer, sizeBytes = 300): AsyncGenerator<Buffer> {
  for (let at = 0; at < bytes.length; at += sizeBytes) yield bytes.subarray(at, at + sizeBytes);
}

const upload = { kind: "upload", where: "" } as const;
const receive = (bytes: Buffer, lengthBytes: number | null = bytes.length) =>
  spool.receive({ source: inPieces(bytes), from: upload, lengthBytes });

test("a good bundle is there, over a restart too", async () => {
  const bundle = await receive(fixtureBundle());
  expect(bundle.id).toBe(fixtureManifest().buildId);
  const later = openSpool();
  await later.open(() => expect.unreachable());
  expect(later.list().map(({ id, source, offeredAt }) => ({ id, source, offeredAt }))).toEqual([
    { id: bundle.id, source: upload, offeredAt: "2026-11-21T00:00:00.000Z" },
  ]);
  later.remove(bundle.id);
  expect(readdirSync(join(folder, "spool"))).toEqual([]);
});

const good = fixtureBundle();
const flipped = Buffer.from(good);
flipped[good.length - 5] ^= 1;
test.each<[string, Buffer, RegExp]>([
  ["cut off", good.subarray(0, -10), /ends|not complete/],
  ["changed in its last part", flipped, /not what its manifest says/],
  ["signed by a stranger", fixtureBundle({ signer: strangeKey }), /doesn't know/],
  ["not a bundle", Buffer.from("PK\u0003\u0004 something else".repeat(40)), /not a Keelson bundle/],
  ["followed by more", Buffer.concat([good, Buffer.from("x")]), /goes on after its last part/],
  [
    "older than what runs",
    fixtureBundle({ manifest: fixtureManifest(undefined, { version: "2026.10.0" }) }),
    /older than/,
  ],
  ["empty", Buffer.alloc(0), /empty/],
])("a bundle that is %s leaves nothing behind", async (_what, bytes, message) => {
  await expect(receive(bytes)).rejects.toThrow(message);
  expect(readdirSync(join(folder, "spool"))).toEqual([]);
  expect(spool.list()).toEqual([]);
});

test("a transfer that breaks off says so, and one that can't fit isn't begun", async () => {
  const source = async function* () {
    yield good.subarray(0, 500);
    throw new KeelsonError("MEDIA_ERROR", "The stick was pulled.");
  };
  await expect(
    spool.receive({ source: source(), from: upload, lengthBytes: good.length }),
  ).rejects.toThrow("The stick was pulled.");
  await expect(receive(good, 2 ** 40)).rejects.toThrow(/larger than any bundle/);
  expect(readdirSync(join(folder, "spool"))).toEqual([]);
});

test("what a power cut left half-received goes; what was damaged since is not offered", async () => {
  const { path } = await receive(good);
  writeFileSync(path, good.subarray(0, 700));
  writeFileSync(join(folder, "spool", "x.part"), "half");
  const later = openSpool();
  const warned: string[] = [];
  await later.open((name) => warned.push(name));
  expect(later.list()).toEqual([]);
  expect(warned).toHaveLength(1);
  expect(readdirSync(join(folder, "spool")).filter((name) => !name.endsWith(".json"))).toEqual([]);
});

test("a folder's bundles are found by their names", () => {
  writeFileSync(join(folder, "keelson-2026.12.0.kbundle"), "12345");
  writeFileSync(join(folder, "._keelson-2026.12.0.kbundle"), "a Macintosh was here");
  writeFileSync(join(folder, "notes.txt"), "");
  expect(bundlesIn(folder)).toEqual([
    { path: join(folder, "keelson-2026.12.0.kbundle"), sizeBytes: 5 },
  ]);
  expect(bundlesIn(join(folder, "none"))).toEqual([]);
});

test("each slot part reaches its user, checked, and GRUB's lines name the slot", async () => {
  const { id } = await receive(good);
  spool.toSlot = "a";
  const seen: [string, number][] = [];
  const { slotConfig } = await spool.unpack(
    id,
    async (name, sizeBytes, pieces) => {
      let total = 0;
      for await (const piece of pieces) total += piece.length;
      expect(total).toBe(sizeBytes);
      seen.push([name, total]);
    },
    new AbortController().signal,
  );
  expect(seen.map(([name]) => name)).toEqual([
    ...["root", "verity", "uki", "vmlinuz", "microcode", "initrd"],
  ]);
  expect(slotConfig).toMatch(/^linux \/keelson\/a\/vmlinuz .*\ninitrd \/keelson\/a\/microcode/);
});

test("the boot loaders come out of a bundle as they were put in, and not of a damaged one", async () => {
  const { id, path } = await receive(good);
  const loaders = await spool.loaders(id);
  for (const name of loaderPartNames) expect(loaders[name]).toEqual(fixtureParts()[name]);
  writeFileSync(path, flipped);
  await expect(spool.loaders(id)).rejects.toThrow(/not what its manifest says/);
});
