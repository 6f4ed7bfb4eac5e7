/** Files that are made while they are sent: qemu-img finds them sound and the same as the disk. */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, describe, expect, test } from "vitest";
import { type DiskFileFormat, type DiskRange, diskFile } from "./disk-file.ts";

const folder = mkdtempSync(join(tmpdir(), "keelson-disk-file-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function qemuImg(...args: string[]): { status: number | null; text: string } {
  const { status, stdout, stderr } = spawnSync("qemu-img", args, { encoding: "utf8" });
  return { status, text: stdout + stderr };
}

/** The file from a byte on, of a disk whose byte at n is a hash of n. */
function made(format: DiskFileFormat, disk: Uint8Array, ranges: readonly DiskRange[], from = 0) {
  const file = diskFile(format, disk.length, ranges);
  const parts: Uint8Array[] = [];
  for (const piece of file.pieces(from)) {
    if (piece.kind === "bytes") parts.push(piece.bytes);
    else if (piece.kind === "zeroes") parts.push(new Uint8Array(piece.lengthBytes));
    else {
      expect(piece.offsetBytes + piece.lengthBytes).toBeLessThanOrEqual(disk.length);
      parts.push(disk.subarray(piece.offsetBytes, piece.offsetBytes + piece.lengthBytes));
    }
    expect(parts.at(-1)!.length).toBeLessThanOrEqual(2 ** 20);
    expect(parts.at(-1)!.length).toBeGreaterThan(0);
  }
  const bytes = Buffer.concat(parts);
  expect(bytes.length).toBe(file.sizeBytes - from);
  return bytes;
}

function diskOf(sizeBytes: number, ranges: readonly DiskRange[]): Uint8Array {
  const disk = new Uint8Array(sizeBytes);
  for (const { offsetBytes, lengthBytes } of ranges) {
    for (let i = offsetBytes; i < offsetBytes + lengthBytes; i++) disk[i] = (i * 31 + (i >> 9)) | 1;
  }
  return disk;
}

/** Sorted, apart, of whole blocks. */
const someRanges = (sizeBytes: number) =>
  fc
    .uniqueArray(fc.nat(sizeBytes / 4096 - 1), { maxLength: 12 })
    .map((edges) => edges.sort((a, b) => a - b))
    .map((edges) =>
      Array.from({ length: Math.floor(edges.length / 2) }, (_, i) => ({
        offsetBytes: edges[2 * i] * 4096,
        lengthBytes: (edges[2 * i + 1] - edges[2 * i]) * 4096,
      })),
    );

describe("any disk", () => {
  test.each(["raw", "qcow2"] as const)(
    "%s: sound, the same, and the same from any byte on",
    (format) => {
      fc.assert(
        fc.property(
          fc
            .integer({ min: 8, max: 1200 })
            .chain((blocks) => fc.tuple(fc.constant(blocks * 4096), someRanges(blocks * 4096))),
          fc.double({ min: 0, max: 1, noNaN: true }),
          ([sizeBytes, ranges], share) => {
            const disk = diskOf(sizeBytes, ranges);
            const whole = made(format, disk, ranges);
            const from = Math.floor(share * whole.length);
            expect(made(format, disk, ranges, from).equals(whole.subarray(from))).toBe(true);
            const [path, raw] = [join(folder, "disk.file"), join(folder, "disk.raw")];
            writeFileSync(path, whole);
            writeFileSync(raw, disk);
            const compared = qemuImg("compare", "-f", format, "-F", "raw", path, raw);
            expect(compared.status, compared.text).toBe(0);
            if (format === "raw") return;
            const checked = qemuImg("check", "-f", "qcow2", path);
            expect(checked.text).toContain("No errors were found");
          },
        ),
        { numRuns: 12 },
      );
    },
  );
});

test("a large disk with little in it is a small file, its tables right", () => {
  const sizeBytes = 5 * 2 ** 40 + 512;
  const ranges = [
    { offsetBytes: 0, lengthBytes: 4096 },
    { offsetBytes: 3 * 2 ** 40, lengthBytes: 2 ** 20 },
    { offsetBytes: sizeBytes - 512, lengthBytes: 512 },
  ];
  const file = diskFile("qcow2", sizeBytes, ranges);
  const parts = [...file.pieces(0)].map((piece) =>
    piece.kind === "bytes"
      ? piece.bytes
      : Buffer.alloc(piece.lengthBytes, piece.kind === "disk" ? 7 : 0),
  );
  const path = join(folder, "large.qcow2");
  writeFileSync(path, Buffer.concat(parts));
  expect(readFileSync(path).length).toBe(file.sizeBytes);
  expect(file.sizeBytes).toBeLessThan(4 * 2 ** 20);
  expect(qemuImg("check", path).text).toContain("No errors were found");
  const map = JSON.parse(qemuImg("map", "--output=json", path).text) as {
    start: number;
    length: number;
    data: boolean;
  }[];
  expect(map.filter(({ data }) => data).map(({ start, length }) => [start, length])).toEqual([
    [0, 65_536],
    [3 * 2 ** 40, 2 ** 20],
    [5 * 2 ** 40, 512],
  ]);
});

test("a disk with all of it written: the counts of clusters count themselves", () => {
  // Past one block of refcounts, which is 2 GiB of file.
  const sizeBytes = 3 * 2 ** 30;
  const file = diskFile("qcow2", sizeBytes, [{ offsetBytes: 0, lengthBytes: sizeBytes }]);
  const clusters = file.sizeBytes / 65_536;
  const data = sizeBytes / 65_536;
  // Header, refcount table, two blocks, L1 table, six L2 tables.
  expect(clusters).toBe(data + 1 + 1 + 2 + 1 + 6);
});
