/** `keelson scrub`: a running store reads itself, and what it finds is said, where people look. */
import type { ChildProcess } from "node:child_process";
import { closeSync, mkdirSync, openSync, writeSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { BlockOp, BlockStatus } from "#lib/volume/block.ts";
import { createBatch } from "#lib/volume/executor.ts";
import { TestNode } from "#services/api/platform.fixture.ts";
import type { Condition } from "#services/api/schema.ts";
import type { Scrub } from "#services/api/scrub-schema.ts";
import { startStore, stopStore } from "#services/api/store.fixture.ts";
import { formatStore, mountStore } from "#services/chunk-store/engine/mount.ts";
import { Transfer } from "#services/chunk-store/engine/transfer.ts";
import { checksum, createFileDisk, openFileDisk } from "#services/chunk-store/file-disk.ts";
import { describeMap } from "#services/chunk-store/offline.ts";
import { keelsonOf, runKeelson } from "./run.fixture.ts";

const node = new TestNode();
const volume = "00000000-0000-4000-8000-000000000001";
const device = join(node.state, "store", "store.img");
let store: ChildProcess;
/** Where its data lies. */
let block: number;

beforeAll(async () => {
  mkdirSync(join(node.state, "store"));
  createFileDisk(device, 32 << 20, (disk) => {
    const pool = crypto.randomUUID();
    formatStore(disk, { device, pool, store: crypto.randomUUID(), nowMs: 0, checksum });
  });
  const made = mountStore(openFileDisk(device), { device, checksum, memoryBytes: 0 });
  const lineage = made.createVolume(volume, 4 << 20, null);
  const batch = createBatch();
  batch.count = 1;
  batch.op[0] = BlockOp.write;
  batch.lengthBytes[0] = 65_536;
  batch.payload = new Uint8Array(65_536).fill(7);
  new Transfer(made).execute(batch, [{ lineage, snapshot: null }]);
  expect(batch.status[0]).toBe(BlockStatus.ok);
  made.shutdown();
  block = describeMap(device, volume)[0].extents[0][0];
  store = await startStore(node);
  await node.start();
});
afterAll(async () => {
  await node.stop();
  await stopStore(store);
  await node.remove();
});

const keelson = (...args: string[]) => keelsonOf(node, "scrub", ...args);

async function scrub(): Promise<Scrub> {
  await keelson("start");
  let seen: Scrub;
  do seen = JSON.parse(await keelson("status", "--json"));
  while (seen.run?.state === "running");
  return seen;
}

test("before the first one: when it comes, and how to set that", async () => {
  expect(await keelson("status")).toMatch(/every 14 days, at most 32 MiB a second[\s\S]*none yet/);
  const changed = await keelson("set", "--every", "0", "--rate", "200M");
  expect(changed).toMatch(/only when told, at most 200 MiB a second\nnext +-/);
  for (const [args, message] of [
    [[], "Nothing to set was given"],
    [["--every", "often"], "is not a number of days"],
    [["--every", "400"], "everyDays"],
    [["--rate", "1k"], "bytesPerSecond"],
  ] as const) {
    const { status, stderr } = await runKeelson(node, ["scrub", "set", ...args]);
    expect(status).not.toBe(0);
    expect(stderr).toContain(message);
  }
});

test("a sound store: all of it is read, and nothing found", async () => {
  const { run } = await scrub();
  expect(run).toMatchObject({ state: "finished", badCount: 0, healed: 0, progressPercent: 100 });
  expect(run!.readBytes).toBeGreaterThan(65_536);
});

test("a bad block is found, listed, and a condition", async () => {
  const file = openSync(device, "r+");
  writeSync(file, new Uint8Array([1, 2, 3]), 0, 3, (block + 3) * 4096);
  closeSync(file);
  const { run } = await scrub();
  const where = { volumeId: volume, offsetBytes: 3 * 4096, block: block + 3, why: "checksum" };
  expect(run).toMatchObject({ badCount: 1, bad: [where] });
  expect(await keelson()).toMatch(new RegExp(`${block + 3} +${volume} +${3 * 4096} +- +checksum`));
  const conditions = async () => (await node.call("GET", "/conditions")).body as Condition[];
  await expect
    .poll(async () => (await conditions()).find(({ code }) => code === "STORE_BAD_BLOCKS"))
    .toMatchObject({
      status: "true",
      severity: "critical",
      reason: expect.stringMatching(new RegExp(`the first is block ${block + 3}, of volume`)),
    });
});

test("stopping where none runs is no fault", async () => {
  expect(await keelson("stop")).toMatch(/bad blocks +1/);
});
