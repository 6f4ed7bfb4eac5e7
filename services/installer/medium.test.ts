import { createHash } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { isKeelsonError } from "#lib/model/errors.ts";
import { readImageFacts, verifyFiles, verifyRoot } from "./medium.ts";

const block = 4096;
const salt = Buffer.alloc(32, 7);
const digest = (data: Uint8Array) => createHash("sha256").update(salt).update(data).digest();

/** As `veritysetup format` writes it: superblock, then levels from the top. */
function hashTree(data: Buffer): { tree: Buffer; rootHash: string } {
  const superblock = Buffer.alloc(block);
  superblock.write("verity\0\0", 0, "latin1");
  superblock.writeUInt32LE(1, 8);
  superblock.writeUInt32LE(1, 12);
  superblock.write("sha256", 32, "latin1");
  superblock.writeUInt32LE(block, 64);
  superblock.writeUInt32LE(block, 68);
  superblock.writeBigUInt64LE(BigInt(data.length / block), 72);
  superblock.writeUInt16LE(salt.length, 80);
  salt.copy(superblock, 88);
  const levels: Buffer[] = [];
  for (let below = data; ; ) {
    const hashes = Buffer.concat(
      Array.from({ length: below.length / block }, (_, index) =>
        digest(below.subarray(index * block, (index + 1) * block)),
      ),
    );
    const level = Buffer.alloc(Math.ceil(hashes.length / block) * block);
    hashes.copy(level);
    levels.unshift(level);
    if (level.length === block) {
      return {
        tree: Buffer.concat([superblock, ...levels]),
        rootHash: digest(level).toString("hex"),
      };
    }
    below = level;
  }
}

describe("a medium is verified before anything is written", () => {
  // 300 blocks: a leaf level of three blocks and one above it.
  const data = Buffer.from(
    Array.from({ length: 300 * block }, (_, i) => (i * 31 + (i >> 12)) & 255),
  );
  const { tree, rootHash } = hashTree(data);
  let folder: string;
  let root: string;
  let verity: string;
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), "keelson-medium-"));
    root = join(folder, "root.img");
    verity = join(folder, "root.verity");
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  async function verify(image: Buffer, hashes: Buffer, expected = rootHash): Promise<number> {
    writeFileSync(root, image);
    writeFileSync(verity, hashes);
    let read = 0;
    await verifyRoot(root, verity, expected, (bytes) => {
      read += bytes;
    });
    return read;
  }

  test("an intact one passes, read to its last byte", async () => {
    expect(await verify(data, tree)).toBe(data.length);
  });

  test("a hash tree on a larger device is read to its own length", async () => {
    writeFileSync(root, Buffer.concat([data, Buffer.alloc(block)]));
    writeFileSync(verity, Buffer.concat([tree, Buffer.alloc(block, 9)]));
    await verifyRoot(root, verity, rootHash, () => {}, tree.length);
  });

  test.each([0, 4095, 4096, 150 * block + 17, 300 * block - 1])(
    "one flipped bit at byte %i of the root is found and its block named",
    async (at) => {
      const bad = Buffer.from(data);
      bad[at] ^= 1;
      const wanted = new RegExp(`damaged: block ${Math.floor(at / block)} of .*root.img`);
      await expect(verify(bad, tree)).rejects.toThrow(wanted);
    },
  );

  test.each([
    ["top level", block + 5],
    ["leaf level", 2 * block + 5],
    ["last leaf", 4 * block + 5],
    ["salt", 90],
  ])("one flipped bit in the hash tree's %s is found", async (_, at) => {
    const bad = Buffer.from(tree);
    bad[at] ^= 1;
    const error = await verify(data, bad).catch((caught) => caught);
    expect(isKeelsonError(error, "FORMAT_CORRUPT")).toBe(true);
  });

  test.each([
    ["a shorter root", data.subarray(0, 200 * block), tree, /shorter than its hash tree says/],
    ["a cut tree", data, tree.subarray(0, 3 * block), /too short/],
    ["no tree at all", data, Buffer.alloc(8192), /is not a hash tree/],
  ])("%s is refused", async (_, image, hashes, message) => {
    await expect(verify(image, hashes)).rejects.toThrow(message);
  });

  test("another root hash than the booted one is refused", async () => {
    await expect(verify(data, tree, "00".repeat(32))).rejects.toThrow(
      /does not match the root hash/,
    );
  });

  test("a file beside the root is compared with image.json", () => {
    writeFileSync(join(folder, "vmlinuz"), "kernel");
    const good = createHash("sha256").update("kernel").digest("hex");
    verifyFiles(folder, { vmlinuz: good });
    expect(() => verifyFiles(folder, { vmlinuz: "00".repeat(32) })).toThrow(
      /vmlinuz does not match/,
    );
    expect(() => verifyFiles(folder, { gone: good })).toThrow(/gone can't be read/);
  });

  test.each([
    ["not there", undefined, /can't be read/],
    ["not JSON", "{", /can't be read/],
    ["another product", '{"product":"x"}', /product is not as expected/],
  ])("image.json %s is refused", (_, text, message) => {
    rmSync(join(folder, "image.json"), { force: true });
    if (text !== undefined) writeFileSync(join(folder, "image.json"), text);
    expect(() => readImageFacts(folder)).toThrow(message);
  });
});
