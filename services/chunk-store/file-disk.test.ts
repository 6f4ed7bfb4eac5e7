import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeEach, describe, expect, test } from "vitest";
import { Random } from "#lib/sim/random.ts";
import { BlockOp, BlockStatus } from "#lib/volume/block.ts";
import { createBatch } from "#lib/volume/executor.ts";
import { native } from "#native";
import { formatStore, mountStore } from "./engine/mount.ts";
import { StoreExecutor } from "./executor.ts";
import { checksum, openFileDisk } from "./file-disk.ts";

const folder = mkdtempSync(join(tmpdir(), "keelson-file-disk-"));
const path = join(folder, "store");
const volume = "00000000-0000-4000-8000-000000000001";
const mebibyte = 2 ** 20;

afterAll(() => rmSync(folder, { recursive: true, force: true }));
beforeEach(() => {
  writeFileSync(path, "");
  truncateSync(path, 64 * mebibyte);
});

test("without the addon nothing goes past the page cache, and that is said", () => {
  const program = join(import.meta.dirname, "file-disk.ts");
  const code = `import { openFileDisk } from ${JSON.stringify(program)};
    try { openFileDisk(${JSON.stringify(path)}, undefined, "direct"); }
    catch (error) { console.log(error.code, error.message); }`;
  const { stdout } = spawnSync(process.execPath, ["--input-type=module", "-e", code], {
    encoding: "utf8",
    env: { ...process.env, KEELSON_NO_NATIVE: "1" },
  });
  expect(stdout).toMatch(/^UNSUPPORTED .*past the page cache: the native addon is not there/);
});

describe.skipIf(native === undefined)("rows of writes", () => {
  test.each([
    ["through the page cache", "write", 512, 0],
    ["past it", "direct", 512, 0],
    ["too loosely aligned to go past it", "direct", 512, 8],
  ] as const)(
    "%s: each at its place, in one piece or not, later over earlier",
    (_, mode, unit, shift) => {
      const disk = openFileDisk(path, native, mode);
      const memory = native!.memoryCreate(8 * mebibyte, false);
      const payload = new Uint8Array(memory.buffer);
      disk.bind(payload, memory.slot);
      const random = new Random(11);
      for (let at = 0; at < payload.length; at += 4) payload[at] = random.below(256);
      const space = 4 * mebibyte;
      const expected = new Uint8Array(space);
      const most = 3000;
      const offsets = new Int32Array(most);
      const lengths = new Int32Array(most);
      const positions = new Float64Array(most);
      for (const count of [1, 2, 300, 1024, 1025, most]) {
        let next = 0;
        for (let i = 0; i < count; i++) {
          lengths[i] = unit * (1 + random.below(8));
          offsets[i] = shift + unit * random.below((payload.length - shift) / unit - 8);
          const apart = random.oneIn(400) || next + lengths[i] > space;
          positions[i] = apart ? unit * random.below(space / unit - 8) : next;
          next = positions[i] + lengths[i];
          expected.set(payload.subarray(offsets[i], offsets[i] + lengths[i]), positions[i]);
        }
        expect(disk.writeRows(payload, offsets, lengths, positions, count)).toBe(true);
        const found = new Uint8Array(space);
        expect(disk.read(found, 0, space, 0)).toBe(true);
        expect(Buffer.compare(found, expected)).toBe(0);
      }
      disk.close();
      native!.memoryRelease(memory.slot);
    },
  );

  test("an error is told", () => {
    const disk = openFileDisk(path, native, "read");
    const memory = native!.memoryCreate(mebibyte, false);
    const payload = new Uint8Array(memory.buffer);
    disk.bind(payload, memory.slot);
    const rows = [Int32Array.of(0, 4096), Int32Array.of(4096, 4096)] as const;
    expect(disk.writeRows(payload, ...rows, Float64Array.of(0, 8192), 2)).toBe(false);
    disk.close();
    native!.memoryRelease(memory.slot);
  });
});

describe.skipIf(native === undefined)("past the page cache", () => {
  test.each([
    ["aligned", 0],
    ["too loosely aligned for it", 8],
  ])("what was written is read, sector by sector; the payload is %s", (_, shift) => {
    const disk = openFileDisk(path, native, "direct");
    const pool = "11111111-2222-3333-4444-555555555555";
    const id = "66666666-7777-8888-9999-aaaaaaaaaaaa";
    formatStore(disk, { device: path, pool, store: id, nowMs: 0, checksum });
    const store = mountStore(disk, { device: path, checksum, memoryBytes: 0 });
    store.createVolume(volume, 8 * mebibyte, null);
    const executor = new StoreExecutor(store, disk);
    const opened = executor.open(volume as never);
    const memory = native!.memoryCreate(4 * mebibyte, false);
    const batch = createBatch();
    batch.payload = new Uint8Array(memory.buffer);
    batch.payloadSlot = memory.slot;
    const sectors = new Uint8Array(16384);
    const random = new Random(3);
    const run = (op: BlockOp, sector: number, count: number, at: number) => {
      batch.op[0] = op;
      batch.volume[0] = (opened as { volume: number }).volume;
      batch.sector[0] = sector;
      batch.lengthBytes[0] = count * 512;
      batch.payloadOffset[0] = at + shift;
      batch.count = 1;
      executor.execute(batch);
      expect(batch.status[0]).toBe(BlockStatus.ok);
    };
    for (let i = 1; i < 250; i++) {
      const sector = random.below(16384 - 600);
      const count = 1 + random.below(random.oneIn(4) ? 600 : 20);
      batch.payload.fill(i, shift, shift + count * 512);
      run(BlockOp.write, sector, count, 0);
      sectors.fill(i, sector, sector + count);
    }
    for (let sector = 0; sector < 16384; sector += 1024) {
      run(BlockOp.read, sector, 1024, 0);
      const found = Array.from({ length: 1024 }, (_, i) => batch.payload[shift + i * 512 + 511]);
      expect(found).toEqual([...sectors.subarray(sector, sector + 1024)]);
    }
    executor.shutdown();
    native!.memoryRelease(memory.slot);
  });
});
