/**
 * The first bytes of a bundle:
 *
 *    0  8  magic 4b 42 55 4e 0d 0a 1a 0a ("KBUN", then what a text transfer would change)
 *    8  4  format version, 1
 *   12  4  bytes of the manifest
 *   16  4  bytes of the signature block; 0: unsigned
 *   20 12  zero
 *   32     manifest, signature block, then the parts, each directly after the one before
 *
 * Integers are little-endian.
 */
import { BundleError } from "./errors.ts";
import { bundleFormatVersion } from "./manifest.ts";
import { signatureBlockLimit } from "./signature.ts";

export const headerBytes = 32;
export const manifestLimit = 256 * 1024;
const magic = Buffer.from("4b42554e0d0a1a0a", "hex");

export interface BundleHeader {
  readonly manifestBytes: number;
  readonly signatureBytes: number;
}

export function encodeHeader({ manifestBytes, signatureBytes }: BundleHeader): Buffer {
  const header = Buffer.alloc(headerBytes);
  magic.copy(header);
  header.writeUInt32LE(bundleFormatVersion, 8);
  header.writeUInt32LE(manifestBytes, 12);
  header.writeUInt32LE(signatureBytes, 16);
  return header;
}

/** BundleError `not-a-bundle`, `format-unknown`, `malformed`. `header` has 32 bytes. */
export function decodeHeader(header: Buffer): BundleHeader {
  if (!header.subarray(0, magic.length).equals(magic)) {
    throw new BundleError("not-a-bundle", "This is not a Keelson bundle.", {
      remedy: "A bundle's name is keelson-VERSION.kbundle; use it as it was downloaded.",
    });
  }
  const version = header.readUInt32LE(8);
  if (version !== bundleFormatVersion) {
    throw new BundleError(
      "format-unknown",
      `The bundle has format ${version}; this program reads format ${bundleFormatVersion}.`,
      { remedy: "Install a version between the two first, or use its own tools." },
    );
  }
  const manifestBytes = header.readUInt32LE(12);
  const signatureBytes = header.readUInt32LE(16);
  const zero = header.subarray(20).every((byte) => byte === 0);
  const sound =
    manifestBytes > 0 && manifestBytes <= manifestLimit && signatureBytes <= signatureBlockLimit;
  if (!zero || !sound) {
    throw new BundleError("malformed", "The bundle's header is damaged.", {
      remedy: "Get the file again.",
    });
  }
  return { manifestBytes, signatureBytes };
}
