/**
 * Who may sign. An offline root key certifies release keys; a release key signs manifests. A
 * certificate ends not by the clock, which a node can't trust, but by its epoch: a node that has
 * seen a bundle of a newer epoch refuses the older keys for good.
 */
import { readFileSync } from "node:fs";
import { z } from "zod";
import { KeelsonError } from "#lib/model/errors.ts";

/** In the image; docs/formats/bundle.md. */
export const imageTrustPath = "/usr/lib/keelson/trust/trust.json";

/** `count` bytes in base64, in the one spelling that encoding them gives. */
export function base64Schema(count: number, error: string) {
  return z.string().refine(
    (text) => {
      const bytes = Buffer.from(text.slice(0, 4 * count), "base64");
      return bytes.length === count && bytes.toString("base64") === text;
    },
    { error },
  );
}

export const keyIdSchema = z.string().regex(/^[0-9a-f]{32}$/, { error: "is not a key id" });
/** An Ed25519 public key (RFC 8032), 32 bytes in base64. */
export const publicKeySchema = base64Schema(32, "is not an Ed25519 public key in base64");
export const epochSchema = z.number().int().min(1).max(1_000_000);

/** A root public key. */
export const rootKeySchema = z.strictObject({
  keyId: keyIdSchema,
  publicKey: publicKeySchema,
  name: z.string().min(1).max(100),
  /** True: a throw-away key of a development build. */
  development: z.boolean(),
  /** Release keys of this root and an older epoch are refused. */
  minimumEpoch: epochSchema,
});
export type RootKey = z.infer<typeof rootKeySchema>;

export const trustSchema = z.strictObject({
  roots: z.array(rootKeySchema).min(1).max(8),
  revokedKeyIds: z.array(keyIdSchema).max(10_000),
});
/** What a reader needs to judge a signature. */
export type Trust = z.infer<typeof trustSchema>;

/** What a node remembers of the bundles it has seen; only ever grows. */
export const trustStateSchema = z.strictObject({
  /** Root key id -> newest epoch of a release key that has signed a bundle seen here. */
  highestEpochs: z.record(keyIdSchema, epochSchema),
  revokedKeyIds: z.array(keyIdSchema).max(10_000),
});
export type TrustState = z.infer<typeof trustStateSchema>;

export const emptyTrustState: TrustState = { highestEpochs: {}, revokedKeyIds: [] };

/** The image's trust made stricter by what the node has seen. */
export function trustOf(image: Trust, state: TrustState): Trust {
  return {
    roots: image.roots.map((root) => ({
      ...root,
      minimumEpoch: Math.max(root.minimumEpoch, state.highestEpochs[root.keyId] ?? 1),
    })),
    revokedKeyIds: [...new Set([...image.revokedKeyIds, ...state.revokedKeyIds])].sort(),
  };
}

/** The image's trust file. NOT_FOUND, FORMAT_CORRUPT if it can't be used. */
export function readTrust(path = imageTrustPath): Trust {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (cause) {
    throw new KeelsonError("NOT_FOUND", `${path} can't be read: ${(cause as Error).message}.`, {
      remedy: "It says whose bundles this node takes; name another file or use an appliance.",
      object: path,
      cause,
    });
  }
  return parseTrust(text, path);
}

/** `name` is what messages call the text. */
export function parseTrust(text: string, name: string): Trust {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new KeelsonError("FORMAT_CORRUPT", `${name} is not JSON.`, { object: name, cause });
  }
  const parsed = trustSchema.safeParse(value);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  throw new KeelsonError(
    "FORMAT_CORRUPT",
    `${name} is no trust file: ${issue.path.join(".") || "it"}: ${issue.message}.`,
    { object: name },
  );
}
