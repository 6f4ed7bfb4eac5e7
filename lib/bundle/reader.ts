/**
 * Reads a bundle from any stream, in one pass and in bounded memory: at most the header, manifest
 * and signature block (under 400 KiB) and one piece of the source are held.
 *
 *   header -> lengths bounded -> signature over the manifest -> manifest -> this node -> parts
 *
 * Nothing of a part is looked at before the manifest was found signed. A part's bytes flow to the
 * caller while they are hashed: its iteration ends in peace only if the hash held, so what was
 * made of the bytes counts for nothing until then.
 */
import { createHash } from "node:crypto";
import { BundleError } from "./errors.ts";
import { decodeHeader, headerBytes } from "./header.ts";
import { type BundleManifest, type BundlePart, decodeManifest } from "./manifest.ts";
import { type Signer, verifySignature } from "./signature.ts";
import { type BundleTarget, judgeTarget } from "./target.ts";
import type { Trust } from "./trust.ts";

/** Largest piece of a part that a caller gets. */
export const pieceBytes = 1 << 20;

export interface PartReader extends BundlePart {
  /**
   * The content in pieces of at most 1 MiB, each valid until the next is asked for. Throws
   * BundleError `truncated` or `part-wrong` instead of ending.
   */
  readonly pieces: AsyncIterable<Buffer>;
}

export interface BundleReader {
  readonly manifest: BundleManifest;
  readonly signer: Signer;
  /** Bytes of the whole file, by its signed manifest. */
  readonly totalBytes: number;
  /**
   * The parts in the manifest's order, once. What a caller doesn't read of a part is read and
   * checked for it. After the last one, BundleError `trailing-bytes` if the source goes on.
   */
  parts(): AsyncGenerator<PartReader>;
}

/**
 * Reads and checks all that comes before the parts. Without `target` the bundle is judged for no
 * node (`keelson bundle show`). Throws BundleError; what the source throws is passed on.
 */
export async function readBundle(
  source: AsyncIterable<Uint8Array>,
  trust: Trust,
  target?: BundleTarget,
): Promise<BundleReader> {
  const bytes = new ByteStream(source);
  const { manifestBytes, signatureBytes } = decodeHeader(await bytes.exactly(headerBytes, true));
  const text = await bytes.exactly(manifestBytes);
  const block = await bytes.exactly(signatureBytes);
  const signer = verifySignature(text, block, trust);
  const manifest = decodeManifest(text);
  if (manifest.development !== signer.root.development) {
    throw new BundleError(
      "key-unknown",
      manifest.development
        ? "The bundle calls itself a development bundle, but a release key signed it."
        : "The bundle calls itself a release, but a development key signed it.",
      { remedy: "Don't install it.", object: signer.keyId },
    );
  }
  if (target !== undefined) judgeTarget(manifest, target);
  const partBytes = manifest.parts.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  return {
    ...{ manifest, signer },
    totalBytes: headerBytes + manifestBytes + signatureBytes + partBytes,
    parts: () => readParts(bytes, manifest),
  };
}

async function* readParts(bytes: ByteStream, manifest: BundleManifest): AsyncGenerator<PartReader> {
  for (const part of manifest.parts) {
    const pieces = readPart(bytes, part);
    yield { ...part, pieces: { [Symbol.asyncIterator]: () => pieces } };
    for await (const _ of pieces);
  }
  if (await bytes.hasMore()) {
    throw new BundleError("trailing-bytes", "The bundle goes on after its last part.", {
      remedy: "The file is damaged: get it again.",
    });
  }
}

/** A plain iterator: leaving a loop early doesn't end it, so the rest can still be checked. */
function readPart(bytes: ByteStream, part: BundlePart): AsyncIterableIterator<Buffer> {
  const hash = createHash("sha256");
  let left = part.sizeBytes;
  let digest: string | undefined;
  return {
    [Symbol.asyncIterator]() {
      return this;
    },
    async next() {
      if (left > 0) {
        const piece = await bytes.atMost(Math.min(left, pieceBytes), part.name);
        hash.update(piece);
        left -= piece.length;
        return { done: false, value: piece };
      }
      digest ??= hash.digest("hex");
      if (digest !== part.sha256) {
        throw new BundleError(
          "part-wrong",
          `The bundle's part ${part.name} is not what its manifest says.`,
          { remedy: "The file is damaged: get it again.", object: part.name },
        );
      }
      return { done: true, value: undefined };
    },
  };
}

/** Pulls pieces from a source and hands out exact lengths; never asks for more than it needs. */
class ByteStream {
  readonly #source: AsyncIterator<Uint8Array>;
  #held: Buffer = Buffer.alloc(0);

  constructor(source: AsyncIterable<Uint8Array>) {
    this.#source = source[Symbol.asyncIterator]();
  }

  async #fill(): Promise<boolean> {
    while (this.#held.length === 0) {
      const { done, value } = await this.#source.next();
      if (done) return false;
      this.#held = Buffer.from(value.buffer, value.byteOffset, value.byteLength);
    }
    return true;
  }

  hasMore(): Promise<boolean> {
    return this.#fill();
  }

  /** 1 to `most` bytes. */
  async atMost(most: number, what: string): Promise<Buffer> {
    if (!(await this.#fill())) throw truncated(`in its part ${what}`);
    const piece = this.#held.subarray(0, most);
    this.#held = this.#held.subarray(piece.length);
    return piece;
  }

  /** `count` bytes, a copy. Memory is taken as bytes come, not as a length promises. */
  async exactly(count: number, first = false): Promise<Buffer> {
    const pieces: Buffer[] = [];
    let left = count;
    while (left > 0) {
      if (!(await this.#fill())) {
        if (first && left === count) {
          throw new BundleError("not-a-bundle", "The file is empty.", {
            remedy: "Get it again.",
          });
        }
        throw truncated("before its first part");
      }
      const piece = this.#held.subarray(0, left);
      this.#held = this.#held.subarray(piece.length);
      pieces.push(Buffer.from(piece));
      left -= piece.length;
    }
    return Buffer.concat(pieces);
  }
}

function truncated(where: string): BundleError {
  return new BundleError("truncated", `The bundle ends ${where}: it is not complete.`, {
    remedy: "The download or the copy was cut off: get it again.",
  });
}
