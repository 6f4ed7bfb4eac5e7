/** Writes bundles; what reads them back must find them right. */
import { createHash, type KeyObject } from "node:crypto";
import {
  closeSync,
  fsyncSync,
  openSync,
  readSync,
  renameSync,
  rmSync,
  statSync,
  writeSync,
} from "node:fs";
import { KeelsonError } from "#lib/model/errors.ts";
import { encodeHeader } from "./header.ts";
import {
  type BundleManifest,
  type BundlePart,
  encodeManifest,
  type PartName,
  partNames,
} from "./manifest.ts";
import { pieceBytes } from "./reader.ts";
import { type Certificate, type Revocation, signManifest } from "./signature.ts";

/** The file of each part. */
export type PartFiles = Readonly<Record<PartName, string>>;

export interface SigningKey {
  readonly certificate: Certificate;
  readonly privateKey: KeyObject;
  readonly revocations: readonly Revocation[];
}

/** Size and hash of each part's file, in the manifest's order. */
export function describeParts(files: PartFiles): BundlePart[] {
  return partNames.map((name) => {
    const hash = createHash("sha256");
    const sizeBytes = eachPiece(files[name], (piece) => hash.update(piece));
    return { name, sizeBytes, sha256: hash.digest("hex") };
  });
}

/** A build's id: of its parts, whoever signs them. */
export function buildIdOf(parts: readonly BundlePart[]): string {
  const lines = parts.map(({ name, sha256 }) => `${name} ${sha256}\n`).join("");
  return createHash("sha256").update(lines).digest("hex").slice(0, 32);
}

/** Replaces `path` as a whole; gives its size in bytes. CONFLICT if a part's file has changed. */
export function writeBundle(
  path: string,
  manifest: BundleManifest,
  files: PartFiles,
  key: SigningKey,
): number {
  const text = encodeManifest(manifest);
  const block = signManifest(text, key.certificate, key.privateKey, key.revocations);
  const next = `${path}.new`;
  const file = openSync(next, "w", 0o644);
  try {
    let total = 0;
    const write = (piece: Uint8Array) => {
      for (let done = 0; done < piece.length; ) done += writeSync(file, piece, done);
      total += piece.length;
    };
    write(encodeHeader({ manifestBytes: text.length, signatureBytes: block.length }));
    write(text);
    write(block);
    for (const { name, sizeBytes } of manifest.parts) {
      if (eachPiece(files[name], write) !== sizeBytes) {
        throw new KeelsonError("CONFLICT", `${files[name]} changed while the bundle was made.`);
      }
    }
    fsyncSync(file);
    renameSync(next, path);
    return total;
  } finally {
    closeSync(file);
    rmSync(next, { force: true });
  }
}

function eachPiece(path: string, use: (piece: Buffer) => void): number {
  const buffer = Buffer.allocUnsafe(pieceBytes);
  const file = openSync(path, "r");
  try {
    let total = 0;
    for (let count = readSync(file, buffer); count > 0; count = readSync(file, buffer)) {
      use(buffer.subarray(0, count));
      total += count;
    }
    if (total !== statSync(path).size) {
      throw new KeelsonError("CONFLICT", `${path} changed while it was read.`);
    }
    return total;
  } finally {
    closeSync(file);
  }
}
