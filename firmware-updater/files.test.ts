import { mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { isKeelsonError } from "#lib/model/errors.ts";
import { RealFiles } from "./files.ts";
import { changeGpt, readGpt, slotUuids } from "./gpt.ts";
import { simInstalled, simRelease } from "./sim-disk.ts";

const files = new RealFiles();
let folder: string;
beforeEach(() => {
  // Not in memory: O_DIRECT is what is tried here.
  folder = mkdtempSync(join(process.env.KEELSON_TEST_DIR ?? tmpdir(), "keelson-files-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

test.each([0, 1, 511, 4095, 4096, 4097, 1 << 20, (1 << 20) + 5000])(
  "what is read back from byte %i on is what was written",
  (offset) => {
    const path = join(folder, "file");
    const content = Buffer.from(Array.from({ length: 2_100_000 }, (_, index) => (index * 7) % 251));
    files.create(path);
    files.write(path, 0, content);
    files.sync(path);
    files.syncFolder(folder);
    expect(files.readBack(path, offset, 70_000)).toEqual(content.subarray(offset, offset + 70_000));
    expect(files.readBack(path, content.length - 10, 70_000)).toEqual(content.subarray(-10));
    expect(files.size(path)).toBe(content.length);
  },
);

test("a file that is not there, and a name that is taken", () => {
  const path = join(folder, "file");
  expect(files.size(path)).toBeUndefined();
  expect(files.list(join(folder, "none"))).toEqual([]);
  expect(() => files.read(path, 0, 1)).toThrow(/Cannot read .*ENOENT/);
  files.create(path);
  expect(() => files.create(path)).toThrow(/Cannot write .*EEXIST/);
});

test("a full disk says so", () => {
  try {
    files.write("/dev/full", 0, Buffer.alloc(4096));
    expect.unreachable();
  } catch (error) {
    expect(isKeelsonError(error, "NO_SPACE")).toBe(true);
  }
});

test("the partition table of a disk file: names change, places don't; either copy is enough", () => {
  const [old, next] = [simRelease("2026.11.0"), simRelease("2026.12.0")];
  const disk = join(folder, "disk");
  const simulated = simInstalled(old);
  writeFileSync(disk, simulated.read("/dev/sim", 0, simulated.size("/dev/sim")!));
  const size = statSync(disk).size;
  const before = readGpt(files, disk);
  const uuids = slotUuids(next.rootHash);
  changeGpt(files, disk, [
    { index: 4, uuid: uuids.root, label: "keelson_2026.12.0" },
    { index: 5, uuid: uuids.verity, label: "keelson_2026.12.0" },
  ]);
  const after = readGpt(files, disk);
  expect(statSync(disk).size).toBe(size);
  expect(after[4]).toEqual({ ...before[4], uuid: uuids.root, label: "keelson_2026.12.0" });
  expect(after.filter(({ index }) => index !== 4 && index !== 5)).toEqual(
    before.filter(({ index }) => index !== 4 && index !== 5),
  );
  for (const damaged of [512 + 30, 1024 + 200]) {
    const byte = files.read(disk, damaged, 1);
    files.write(disk, damaged, Buffer.from([byte[0] ^ 0xff]));
    expect(readGpt(files, disk)).toEqual(after);
    files.write(disk, damaged, byte);
  }
  // The second copy alone is damaged: nobody minds.
  files.write(disk, size - 512 + 16, Buffer.alloc(4));
  expect(readGpt(files, disk)).toEqual(after);
});
