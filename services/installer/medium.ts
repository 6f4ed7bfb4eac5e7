/**
 * The installation medium: what image it carries and whether it is intact. The root image's hash
 * tree is walked against the root hash that this system was booted with (dm-verity's on-disk
 * format, version 1: Documentation/admin-guide/device-mapper/verity.rst), so a flipped bit is found
 * before anything is written.
 */
import { createHash } from "node:crypto";
import { closeSync, fstatSync, openSync, readFileSync, readSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { KeelsonError } from "#lib/model/errors.ts";
import { readDevice } from "./block-device.ts";

const imageFacts = z.object({
  product: z.literal("keelson"),
  version: z.string(),
  rootHash: z.string().regex(/^[0-9a-f]{64}$/),
  rootSizeBytes: z.number(),
  veritySizeBytes: z.number(),
  rootPartitionUuid: z.string(),
  verityPartitionUuid: z.string(),
  minimumDiskBytes: z.number(),
  /** No release key signed it. */
  developmentKey: z.boolean().optional(),
  /** sha256 by path below the medium's folder, of what verity doesn't cover. */
  files: z.record(z.string(), z.string()).optional(),
});
export type ImageFacts = z.output<typeof imageFacts>;

const readBytes = 1 << 20;

function corrupt(what: string, cause?: unknown): KeelsonError {
  return new KeelsonError("FORMAT_CORRUPT", `The installation medium is damaged: ${what}.`, {
    operation: "verify medium",
    remedy: "Nothing was written to any disk. Make the medium again from a fresh download.",
    cause,
  });
}

export function readImageFacts(folder: string): ImageFacts {
  const path = join(folder, "image.json");
  let value: unknown;
  try {
    value = JSON.parse(readFileSync(path, "utf8"));
  } catch (cause) {
    throw corrupt(`${path} can't be read (${(cause as Error).message})`, cause);
  }
  const parsed = imageFacts.safeParse(value);
  if (parsed.success) return parsed.data;
  throw corrupt(`${path}: ${parsed.error.issues[0].path.join(".")} is not as expected`);
}

/**
 * Reads the whole root image and its hash tree and compares them with `rootHash`. Calls `advance`
 * with bytes as they are read. `verityBytes` is the tree's length where it is read from a device. FORMAT_CORRUPT names the first bad block.
 */
export async function verifyRoot(
  rootPath: string,
  verityPath: string,
  rootHash: string,
  advance: (bytes: number) => void,
  verityBytes?: number,
): Promise<void> {
  const tree = readVerityTree(verityPath, rootHash, verityBytes);
  const file = openSync(rootPath, "r");
  const buffer = Buffer.alloc(readBytes);
  try {
    if (fstatSync(file).size < tree.dataBlocks * tree.blockBytes && fstatSync(file).isFile()) {
      throw corrupt(`${rootPath} is shorter than its hash tree says`);
    }
    for (let block = 0; block < tree.dataBlocks; ) {
      const count = Math.min(readBytes / tree.blockBytes, tree.dataBlocks - block);
      readExactly(file, buffer, count * tree.blockBytes, block * tree.blockBytes, rootPath);
      for (let index = 0; index < count; index++) {
        const data = buffer.subarray(index * tree.blockBytes, (index + 1) * tree.blockBytes);
        if (!tree.matches(block + index, data)) {
          throw corrupt(`block ${block + index} of ${rootPath} does not match its hash`);
        }
      }
      block += count;
      advance(count * tree.blockBytes);
      // Lets the console and the watchdog have their turn.
      await new Promise((resolve) => setImmediate(resolve));
    }
  } finally {
    closeSync(file);
  }
}

export interface VerityTree {
  readonly blockBytes: number;
  readonly dataBlocks: number;
  matches(block: number, data: Uint8Array): boolean;
}

/**
 * The hash tree of a `veritysetup format` file with superblock, its upper levels checked against
 * `rootHash`. The leaf level comes last in the file; each level is whole blocks.
 */
export function readVerityTree(path: string, rootHash: string, verityBytes?: number): VerityTree {
  let tree: Buffer;
  try {
    tree = verityBytes === undefined ? readFileSync(path) : readDevice(path, 0, verityBytes);
  } catch (cause) {
    throw corrupt(`${path} can't be read (${(cause as Error).message})`, cause);
  }
  if (tree.length < 512 || tree.toString("latin1", 0, 6) !== "verity") {
    throw corrupt(`${path} is not a hash tree`);
  }
  const algorithm = tree.toString("latin1", 32, 64).replace(/\0.*$/s, "");
  const dataBlockBytes = tree.readUInt32LE(64);
  const blockBytes = tree.readUInt32LE(68);
  const dataBlocks = Number(tree.readBigUInt64LE(72));
  const salt = tree.subarray(88, 88 + tree.readUInt16LE(80));
  if (algorithm !== "sha256" || dataBlockBytes !== blockBytes || blockBytes !== 4096) {
    throw corrupt(`${path} has an unknown form (${algorithm}, ${blockBytes} bytes)`);
  }
  const digest = (data: Uint8Array) => createHash("sha256").update(salt).update(data).digest();
  const perBlock = blockBytes / 32;
  const levels: number[] = [];
  for (let count = dataBlocks; ; ) {
    count = Math.ceil(count / perBlock);
    levels.push(count);
    if (count === 1) break;
  }
  // Top level first, after the superblock's block.
  const offsets: number[] = [];
  let offset = blockBytes;
  for (let level = levels.length - 1; level >= 0; level--) {
    offsets[level] = offset;
    offset += levels[level] * blockBytes;
  }
  if (tree.length < offset) throw corrupt(`${path} is too short`);
  const block = (level: number, index: number) =>
    tree.subarray(offsets[level] + index * blockBytes, offsets[level] + (index + 1) * blockBytes);
  const entry = (level: number, index: number) => {
    const start = offsets[level] + index * 32;
    return tree.subarray(start, start + 32);
  };
  const top = levels.length - 1;
  if (digest(block(top, 0)).toString("hex") !== rootHash) {
    throw corrupt(`${path} does not match the root hash ${rootHash.slice(0, 16)}…`);
  }
  for (let level = top - 1; level >= 0; level--) {
    for (let index = 0; index < levels[level]; index++) {
      if (!digest(block(level, index)).equals(entry(level + 1, index))) {
        throw corrupt(`block ${index} of level ${level} of ${path} does not match its hash`);
      }
    }
  }
  return {
    blockBytes,
    dataBlocks,
    matches: (index, data) => digest(data).equals(entry(0, index)),
  };
}

/** Compares what verity doesn't cover with the hashes in image.json. */
export function verifyFiles(folder: string, files: Readonly<Record<string, string>>): void {
  for (const [path, expected] of Object.entries(files)) {
    let actual: string;
    try {
      actual = createHash("sha256")
        .update(readFileSync(join(folder, path)))
        .digest("hex");
    } catch (cause) {
      throw corrupt(`${path} can't be read (${(cause as Error).message})`, cause);
    }
    if (actual !== expected) throw corrupt(`${path} does not match its hash`);
  }
}

function readExactly(file: number, buffer: Buffer, length: number, at: number, path: string): void {
  let done = 0;
  while (done < length) {
    let count: number;
    try {
      count = readSync(file, buffer, done, length - done, at + done);
    } catch (cause) {
      throw corrupt(
        `${path} can't be read at byte ${at + done} (${(cause as Error).message})`,
        cause,
      );
    }
    if (count === 0) throw corrupt(`${path} ends at byte ${at + done}`);
    done += count;
  }
}
