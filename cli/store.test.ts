/** `keelson store`: a store of a chunk-store that was stopped, inspected, damaged, checked, repaired. */
import {
  closeSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { BlockOp, BlockStatus } from "#lib/volume/block.ts";
import { createBatch } from "#lib/volume/executor.ts";
import { formatStore, mountStore } from "#services/chunk-store/engine/mount.ts";
import { Transfer } from "#services/chunk-store/engine/transfer.ts";
import { checksum, createFileDisk, openFileDisk } from "#services/chunk-store/file-disk.ts";
import { spawnKeelson } from "./run.fixture.ts";

const folder = mkdtempSync(join(tmpdir(), "keelson-store-"));
const device = join(folder, "store.img");
const volume = "00000000-0000-4000-8000-000000000001";
const snapshot = "00000000-0000-4000-8000-000000000002";
const pool = "11111111-2222-3333-4444-555555555555";
let sound: Buffer;

const keelson = (...args: string[]) => spawnKeelson(["store", ...args], "", {});

beforeAll(() => {
  createFileDisk(device, 16 << 20, (disk) => {
    formatStore(disk, { device, pool, store: crypto.randomUUID(), nowMs: 0, checksum });
  });
  const store = mountStore(openFileDisk(device), { device, checksum, memoryBytes: 0 });
  const lineage = store.createVolume(volume, 4 << 20, null);
  const transfer = new Transfer(store);
  const batch = createBatch();
  batch.count = 1;
  batch.op[0] = BlockOp.write;
  batch.lengthBytes[0] = 65_536;
  batch.sector[0] = 4096;
  batch.payload = new Uint8Array(65_536).fill(7);
  transfer.execute(batch, [{ lineage, snapshot: null }]);
  expect(batch.status[0]).toBe(BlockStatus.ok);
  store.createSnapshots([{ lineage, uuid: snapshot }], 1_800_000_000_000);
  store.shutdown();
  sound = readFileSync(device);
});

afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** One byte of the device is another one. */
function damage(position: number): void {
  const file = openSync(device, "r+");
  const byte = new Uint8Array(1);
  readSync(file, byte, 0, 1, position);
  byte[0] ^= 0xff;
  writeSync(file, byte, 0, 1, position);
  closeSync(file);
}

test("inspect explains what it is and holds, for people and for programs", async () => {
  const { stdout, status } = await keelson("inspect", device);
  expect(status).toBe(0);
  expect(stdout).toContain(pool);
  expect(stdout).toMatch(/State +shut down/);
  expect(stdout).toMatch(new RegExp(`${volume} +live +4 MiB +64 KiB +1 +-`));
  const { volumes, space, superblocks } = JSON.parse(
    (await keelson("inspect", device, "--json")).stdout,
  );
  expect(volumes).toMatchObject([
    {
      id: volume,
      ownBytes: 65_536,
      snapshots: [{ id: snapshot, createdAt: "2027-01-15T08:00:00.000Z" }],
    },
  ]);
  const { device: all, ...parts } = space;
  expect(Object.values<number>(parts).reduce((sum, part) => sum + part, 0)).toBe(all);
  expect(superblocks.map(({ state }: { state: string }) => state)).toEqual(["good", "good"]);
});

test("--map shows where a volume's chunks lie", async () => {
  const { stdout } = await keelson("inspect", device, "--map", volume, "--json");
  expect(JSON.parse(stdout)).toMatchObject([{ offsetBytes: 2 << 20, blocks: 16 }]);
  const none = await keelson("inspect", device, "--map", snapshot);
  expect(none).toMatchObject({ status: 1, stdout: "" });
  expect(none.stderr).toContain(`has no volume ${snapshot}`);
});

test("check reads all of it, and writes nothing", async () => {
  expect(await keelson("check", device)).toMatchObject({
    status: 0,
    stdout: `${device} is sound; 64 KiB of data read.\n`,
  });
  expect(readFileSync(device).equals(sound)).toBe(true);
});

test("a bad block: exit 1, with device, block, volume and offset; --repair leaves it alone", async () => {
  const [{ extents }] = JSON.parse(
    (await keelson("inspect", device, "--map", volume, "--json")).stdout,
  );
  damage(extents[0][0] * 4096 + 5);
  const before = readFileSync(device);
  const found = await keelson("check", device);
  expect(found.status).toBe(1);
  expect(found.stdout).toContain(
    `Block ${extents[0][0]} of ${device} is not what was written: volume ${volume}, offset ${2 << 20}, since snapshot ${snapshot}.`,
  );
  expect((await keelson("check", device, "--quick")).status).toBe(0);
  const refused = await keelson("check", device, "--repair");
  expect(refused.status).toBe(1);
  expect(refused.stderr).toContain("was not changed");
  expect(readFileSync(device).equals(before)).toBe(true);
  writeFileSync(device, sound);
});

test("a damaged superblock is found, and made anew when that is asked for", async () => {
  damage(4096 + 200);
  const found = await keelson("check", device, "--json");
  expect(found.status).toBe(1);
  expect(JSON.parse(found.stdout)).toMatchObject({ sound: false, repaired: false });
  expect((await keelson("inspect", device)).stdout).toMatch(/Superblocks +good \(\d+\), damaged/);
  expect(await keelson("check", device, "--repair")).toMatchObject({ status: 0 });
  expect(await keelson("check", device)).toMatchObject({ status: 0 });
  writeFileSync(device, sound);
});

test.each([
  ["/etc/passwd", 1, "does not hold a Keelson store"],
  ["/nowhere.img", 1, "Give the path of a store's file or block device"],
  ["/", 2, "is not a file or block device"],
])("%s is refused in words", async (path, code, message) => {
  const { status, stderr, stdout } = await keelson("check", path);
  expect({ status, stdout }).toEqual({ status: code, stdout: "" });
  expect(stderr).toContain(message);
  expect(stderr).not.toMatch(/\n\s+at /);
});

test("a store that a service has mounted is left to it", async () => {
  const disk = openFileDisk(device);
  try {
    const { status, stderr } = await keelson("inspect", device);
    expect(status).toBe(1);
    expect(stderr).toContain("is mounted by another process");
  } finally {
    disk.close();
  }
});
