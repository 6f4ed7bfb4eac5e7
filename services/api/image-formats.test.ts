/** Images of other hypervisors, made by qemu-img: recognised, read bit for bit; traps are refused. */
import { spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import {
  copyFileSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { open } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { isKeelsonError } from "#lib/model/errors.ts";
import { convertImage, inspectImage } from "./image-file.ts";
import { type ImageFormat, recogniseForeign } from "./image-formats.ts";

const folder = mkdtempSync(join(tmpdir(), "keelson-formats-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const at = (name: string) => join(folder, name);
const diskBytes = 12 << 20;
const disk = at("disk.raw");

function run(command: string, ...args: string[]): void {
  const { status, stderr } = spawnSync(command, args, { cwd: folder, encoding: "utf8" });
  expect(status, stderr).toBe(0);
}

function make(name: string, format: string, ...options: string[]): string {
  const more = options.flatMap((option) => ["-o", option]);
  run("qemu-img", "convert", "-f", "raw", "-O", format, ...more, disk, name);
  return at(name);
}

beforeAll(() => {
  writeFileSync(disk, "");
  truncateSync(disk, diskBytes);
  const file = openSync(disk, "r+");
  for (const position of [0, 4 << 20, diskBytes - 65_536]) {
    writeSync(file, randomBytes(65_536), 0, 65_536, position);
  }
  make("sparse.vmdk", "vmdk", "subformat=monolithicSparse");
  make("stream.vmdk", "vmdk", "subformat=streamOptimized");
  make("flat.vmdk", "vmdk", "subformat=monolithicFlat");
  make("split.vmdk", "vmdk", "subformat=twoGbMaxExtentSparse");
  make("fixed.vhd", "vpc", "subformat=fixed", "force_size=on");
  make("dynamic.vhd", "vpc", "subformat=dynamic", "force_size=on");
  make("disk.vhdx", "vhdx");
  make("disk.vdi", "vdi");
  writeFileSync(at("machine.ovf"), "<Envelope/>");
  run("tar", "--format=ustar", "-cf", "one.ova", "machine.ovf", "stream.vmdk");
  run("tar", "--format=ustar", "-cf", "two.ova", "machine.ovf", "stream.vmdk", "sparse.vmdk");
  run("tar", "--format=ustar", "-cf", "none.ova", "machine.ovf");
  run("tar", "--format=ustar", "-cf", "flat.ova", "machine.ovf", "flat.vmdk");
  run("gzip", "-k", "stream.vmdk");
  run("tar", "--format=ustar", "-cf", "packed.ova", "machine.ovf", "stream.vmdk.gz");
});

describe("is recognised, and its disk is the same", () => {
  test.each<[string, ImageFormat]>([
    ["sparse.vmdk", "vmdk"],
    ["stream.vmdk", "vmdk"],
    ["fixed.vhd", "vhd"],
    ["dynamic.vhd", "vhd"],
    ["disk.vhdx", "vhdx"],
    ["disk.vdi", "vdi"],
    ["one.ova", "ova"],
  ])("%s", async (name, format) => {
    const { signal } = new AbortController();
    const found = await inspectImage(at(name), "auto", signal);
    expect(found).toMatchObject({ format, sizeBytes: diskBytes });
    expect(await inspectImage(at(name), format, signal)).toEqual(found);
    const target = at(`${name}.out`);
    writeFileSync(target, "");
    truncateSync(target, diskBytes);
    await convertImage(found.source, target, signal, () => {});
    expect(readFileSync(target).equals(readFileSync(disk))).toBe(true);
  });

  test("a file called raw is raw, whatever it holds", async () => {
    const { format, sizeBytes } = await inspectImage(at("one.ova"), "raw");
    expect({ format, sizeBytes }).toEqual({
      format: "raw",
      sizeBytes: readFileSync(at("one.ova")).length,
    });
  });
});

/** A copy with other bytes in it. */
function changed(name: string, change: (bytes: Buffer) => Buffer | undefined): string {
  const bytes = readFileSync(at(name));
  const path = at(`changed-${name}`);
  writeFileSync(path, change(bytes) ?? bytes);
  return path;
}

/** Puts `to` where `from` stands, and keeps the length. */
function replaced(bytes: Buffer, from: string, to: string): undefined {
  const where = bytes.indexOf(from);
  expect(where).toBeGreaterThan(0);
  bytes.write(to.padEnd(from.length), where, "latin1");
}

describe("is refused, with what to do", () => {
  test.each<[string, () => string, string, RegExp]>([
    ["a VMDK's description alone", () => at("flat.vmdk"), "UNSUPPORTED", /only the description/],
    ["one part of several", () => at("split-s001.vmdk"), "UNSUPPORTED", /one part of a disk/],
    [
      "a VMDK that is a snapshot",
      () =>
        changed("sparse.vmdk", (bytes) =>
          replaced(bytes, "parentCID=ffffffff", "parentCID=12345678"),
        ),
      "UNSUPPORTED",
      /a snapshot that needs another file/,
    ],
    [
      "a VMDK with the name of a parent",
      () =>
        changed("sparse.vmdk", (bytes) =>
          replaced(bytes, "# The Disk Data Base", 'parentFileNameHint=""'),
        ),
      "UNSUPPORTED",
      /a snapshot that needs another file/,
    ],
    [
      "a VMDK whose extents are other files",
      () => changed("sparse.vmdk", (bytes) => replaced(bytes, "monolithicSparse", "custom")),
      "UNSUPPORTED",
      /of type custom/,
    ],
    [
      "a VMDK without capacity, which would open what its description names",
      () => changed("sparse.vmdk", (bytes) => void bytes.writeBigUInt64LE(0n, 12)),
      "UNSUPPORTED",
      /one part of a disk/,
    ],
    [
      "a VHD that is a difference",
      () =>
        changed("dynamic.vhd", (bytes) => {
          bytes.writeUInt32BE(4, 60);
          bytes.writeUInt32BE(4, bytes.length - 512 + 60);
        }),
      "UNSUPPORTED",
      /a differencing disk/,
    ],
    [
      "an OVA with two disks",
      () => at("two.ova"),
      "UNSUPPORTED",
      /holds 2 disks: stream.vmdk, sparse/,
    ],
    ["an OVA without a disk", () => at("none.ova"), "UNSUPPORTED", /no \.vmdk/],
    ["an OVA whose disk needs another file", () => at("flat.ova"), "UNSUPPORTED", /only the descr/],
    ["an OVA whose disk is compressed", () => at("packed.ova"), "UNSUPPORTED", /is compressed/],
    [
      "an OVA that is cut short",
      () => changed("one.ova", (bytes) => bytes.subarray(0, bytes.length / 2)),
      "FORMAT_CORRUPT",
      /cut short/,
    ],
    [
      "a VHDX that is cut short",
      () => changed("disk.vhdx", (bytes) => bytes.subarray(0, 100_000)),
      "FORMAT_CORRUPT",
      /can't be read/,
    ],
    ["a gzip file", () => at("stream.vmdk.gz"), "FORMAT_UNKNOWN", /gzip-compressed/],
  ])("%s", async (_, path, code, message) => {
    const error = await inspectImage(path(), "auto").catch((cause: unknown) => cause);
    expect(error).toMatchObject({ code, message: expect.stringMatching(message) });
  });

  test("a file that is not what it was said to be", async () => {
    for (const said of ["vmdk", "vhd", "vhdx", "vdi", "ova", "qcow2"] as const) {
      await expect(inspectImage(disk, said)).rejects.toMatchObject({
        code: "FORMAT_CORRUPT",
        message: `The file is not a ${said} image.`,
      });
    }
  });

  test("any bytes: refused in words or taken, never a crash, and nothing is read past the file", async () => {
    const path = at("any");
    const seeds = ["sparse.vmdk", "dynamic.vhd", "one.ova", "disk.vdi"].map((name) =>
      readFileSync(at(name)).subarray(0, 4096),
    );
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...seeds),
        fc.array(fc.tuple(fc.nat(4095), fc.nat(255)), { maxLength: 40 }),
        fc.nat(4096),
        async (seed, edits, length) => {
          const bytes = Buffer.from(seed);
          for (const [where, value] of edits) bytes[where] = value;
          writeFileSync(path, bytes.subarray(0, length));
          const file = await open(path, "r");
          try {
            await recogniseForeign(file, length);
          } catch (error) {
            expect(isKeelsonError(error), String(error)).toBe(true);
          } finally {
            await file.close();
          }
        },
      ),
      { numRuns: 300 },
    );
    copyFileSync(disk, path);
  });
});
