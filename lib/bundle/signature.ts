/**
 * The signature block of a bundle, and the three things that are ever signed. Each is signed with
 * a prefix of its own, so that a signature over one is never one over another:
 *
 *   root key ----- "keelson release key v1\0" + certificate ----> release key
 *   root key ----- "keelson revocation v1\0"  + revocation  ----> ids of release keys
 *   release key -- "keelson manifest v1\0"    + manifest    ----> bundle
 *
 * Ed25519 (RFC 8032): 32-byte keys, 64-byte signatures, the same signature for the same input.
 */
import { createHash, createPublicKey, type KeyObject, sign, verify } from "node:crypto";
import { z } from "zod";
import { canonicalJson } from "./canonical-json.ts";
import { BundleError } from "./errors.ts";
import { decodeCanonical } from "./manifest.ts";
import {
  base64Schema,
  epochSchema,
  keyIdSchema,
  publicKeySchema,
  type RootKey,
  type Trust,
  type TrustState,
} from "./trust.ts";

const prefixes = {
  certificate: "keelson release key v1\0",
  revocation: "keelson revocation v1\0",
  manifest: "keelson manifest v1\0",
} as const;
export type Signed = keyof typeof prefixes;

/** Most bytes of a signature block. */
export const signatureBlockLimit = 128 * 1024;

/** 64 bytes in base64. */
const signatureSchema = base64Schema(64, "is not a signature");

export const certificateBodySchema = z.strictObject({
  type: z.literal("release-key"),
  keyId: keyIdSchema,
  publicKey: publicKeySchema,
  name: z.string().min(1).max(100),
  /** Grows with each certificate that the root signs. */
  serial: z.number().int().min(1).max(1_000_000),
  /** Grows with each rotation: a node that has seen a newer epoch refuses this key. */
  epoch: epochSchema,
  rootKeyId: keyIdSchema,
});
export const certificateSchema = z.strictObject({
  body: certificateBodySchema,
  signature: signatureSchema,
});
export type Certificate = z.infer<typeof certificateSchema>;

export const revocationSchema = z.strictObject({
  body: z.strictObject({
    type: z.literal("revocation"),
    keyIds: z.array(keyIdSchema).min(1).max(100),
    rootKeyId: keyIdSchema,
  }),
  signature: signatureSchema,
});
export type Revocation = z.infer<typeof revocationSchema>;

export const signatureBlockSchema = z.strictObject({
  /** Of the key that signed the manifest. */
  certificate: certificateSchema,
  revocations: z.array(revocationSchema).max(16),
  manifestSignature: signatureSchema,
});
export type SignatureBlock = z.infer<typeof signatureBlockSchema>;

/** First 128 bits of the SHA-256 of the raw public key, as 32 hexadecimal digits. */
export function keyIdOf(publicKey: string): string {
  return createHash("sha256").update(Buffer.from(publicKey, "base64")).digest("hex").slice(0, 32);
}

/** Raw public key of an Ed25519 key pair, in base64. */
export function rawPublicKey(key: KeyObject): string {
  const jwk = createPublicKey(key).export({ format: "jwk" });
  return Buffer.from(jwk.x!, "base64url").toString("base64");
}

/** Base64 signature over the prefix of `kind` and `content`. */
export function signAs(kind: Signed, content: Buffer, privateKey: KeyObject): string {
  return sign(null, Buffer.concat([Buffer.from(prefixes[kind]), content]), privateKey).toString(
    "base64",
  );
}

function holds(kind: Signed, content: Buffer, publicKey: string, signature: string): boolean {
  const x = Buffer.from(publicKey, "base64").toString("base64url");
  const key = createPublicKey({ key: { kty: "OKP", crv: "Ed25519", x }, format: "jwk" });
  const message = Buffer.concat([Buffer.from(prefixes[kind]), content]);
  return verify(null, message, key, Buffer.from(signature, "base64"));
}

export function signCertificate(body: Certificate["body"], rootKey: KeyObject): Certificate {
  return { body, signature: signAs("certificate", Buffer.from(canonicalJson(body)), rootKey) };
}

export function signRevocation(body: Revocation["body"], rootKey: KeyObject): Revocation {
  return { body, signature: signAs("revocation", Buffer.from(canonicalJson(body)), rootKey) };
}

/** The block for `manifest` (bytes). The key must be the certificate's. */
export function signManifest(
  manifest: Buffer,
  certificate: Certificate,
  releaseKey: KeyObject,
  revocations: readonly Revocation[] = [],
): Buffer {
  const manifestSignature = signAs("manifest", manifest, releaseKey);
  const block: SignatureBlock = { certificate, revocations: [...revocations], manifestSignature };
  return Buffer.from(canonicalJson(signatureBlockSchema.parse(block)));
}

/** Who signed a bundle, after it was found right. */
export interface Signer {
  readonly keyId: string;
  readonly name: string;
  readonly epoch: number;
  readonly root: RootKey;
  /** What the node is to remember, merged with what it knew: written before anything is installed. */
  readonly trustState: TrustState;
}

/**
 * Checks certificate, revocations and signature over `manifest` (bytes not looked at otherwise).
 * Throws BundleError `unsigned`, `malformed`, `key-unknown`, `key-replaced`, `key-revoked`,
 * `signature-wrong`.
 */
export function verifySignature(manifest: Buffer, block: Buffer, trust: Trust): Signer {
  if (block.length === 0) {
    throw new BundleError("unsigned", "The bundle is not signed.", {
      remedy: "Use a bundle that the project released.",
    });
  }
  const { certificate, revocations, manifestSignature } = decodeCanonical(
    block,
    signatureBlockSchema,
    "signature block",
  );
  const { body } = certificate;
  const root = certifyingRoot(certificate, trust);
  const revoked = new Set(trust.revokedKeyIds);
  for (const keyId of heldRevocations(revocations, trust)) revoked.add(keyId);
  if (revoked.has(body.keyId)) {
    throw new BundleError("key-revoked", `Release key ${body.keyId} has been revoked.`, {
      remedy: "Don't install this bundle; get one that was signed since.",
      object: body.keyId,
    });
  }
  if (body.epoch < root.minimumEpoch) {
    throw new BundleError(
      "key-replaced",
      `The bundle is signed by release key ${body.keyId} of epoch ${body.epoch}; this node takes epoch ${root.minimumEpoch} or newer.`,
      { remedy: "Get a bundle that was signed with the present key.", object: body.keyId },
    );
  }
  if (!holds("manifest", manifest, body.publicKey, manifestSignature)) {
    throw new BundleError("signature-wrong", "The bundle's signature doesn't fit its manifest.", {
      remedy: "The file was changed after it was signed, or damaged: get it again.",
      object: body.keyId,
    });
  }
  const { keyId, name, epoch } = body;
  return {
    ...{ keyId, name, epoch, root },
    trustState: {
      highestEpochs: {
        ...Object.fromEntries(trust.roots.map((each) => [each.keyId, each.minimumEpoch])),
        [root.keyId]: epoch,
      },
      revokedKeyIds: [...revoked].sort(),
    },
  };
}

function certifyingRoot({ body, signature }: Certificate, trust: Trust): RootKey {
  const unknown = (why: string) =>
    new BundleError(
      "key-unknown",
      `The bundle is signed by a key that this node doesn't know: ${why}.`,
      {
        remedy: "It is not a release of this project, or was altered; don't install it.",
        object: body.keyId,
      },
    );
  const root = trust.roots.find(({ keyId }) => keyId === body.rootKeyId);
  if (root === undefined) throw unknown(`its root key is ${body.rootKeyId}`);
  if (!holds("certificate", Buffer.from(canonicalJson(body)), root.publicKey, signature)) {
    throw unknown(`root key ${root.keyId} did not certify ${body.keyId}`);
  }
  if (keyIdOf(body.publicKey) !== body.keyId) throw unknown(`${body.keyId} is not its id`);
  return root;
}

/** Ids that a known root has revoked. One that no known root signed means nothing here. */
function heldRevocations(revocations: readonly Revocation[], trust: Trust): string[] {
  return revocations.flatMap(({ body, signature }) => {
    const root = trust.roots.find(({ keyId }) => keyId === body.rootKeyId);
    const content = Buffer.from(canonicalJson(body));
    const held = root !== undefined && holds("revocation", content, root.publicKey, signature);
    return held ? body.keyIds : [];
  });
}
