/** Small bundles for tests, from fixed keys: the same bytes in every run. */
import { createHash, createPrivateKey, type KeyObject } from "node:crypto";
import { encodeHeader } from "./header.ts";
import { type BundleManifest, encodeManifest, type PartName, partNames } from "./manifest.ts";
import {
  type Certificate,
  keyIdOf,
  type Revocation,
  rawPublicKey,
  signCertificate,
  signManifest,
  signRevocation,
} from "./signature.ts";
import type { BundleTarget } from "./target.ts";
import type { RootKey, Trust } from "./trust.ts";
import { buildIdOf } from "./writer.ts";

/** An Ed25519 key from a seed of 32 equal bytes (PKCS#8 around the seed, RFC 8410). */
export function fixedKey(seed: number): KeyObject {
  const der = Buffer.concat([
    Buffer.from("302e020100300506032b657004220420", "hex"),
    Buffer.alloc(32, seed),
  ]);
  return createPrivateKey({ key: der, format: "der", type: "pkcs8" });
}

export interface FixtureRoot {
  readonly key: KeyObject;
  readonly root: RootKey;
}

export function fixtureRoot(seed: number, development = false): FixtureRoot {
  const key = fixedKey(seed);
  const publicKey = rawPublicKey(key);
  const name = `root ${seed}`;
  return {
    key,
    root: { keyId: keyIdOf(publicKey), publicKey, name, development, minimumEpoch: 1 },
  };
}

export interface FixtureReleaseKey {
  readonly key: KeyObject;
  readonly certificate: Certificate;
}

export function fixtureReleaseKey(
  { key: rootKey, root }: FixtureRoot,
  seed: number,
  epoch = 1,
): FixtureReleaseKey {
  const key = fixedKey(seed);
  const publicKey = rawPublicKey(key);
  const certificate = signCertificate(
    {
      type: "release-key",
      keyId: keyIdOf(publicKey),
      ...{ publicKey, name: `release ${seed}`, serial: seed, epoch },
      rootKeyId: root.keyId,
    },
    rootKey,
  );
  return { key, certificate };
}

export function fixtureRevocation({ key, root }: FixtureRoot, keyIds: string[]): Revocation {
  return signRevocation({ type: "revocation", keyIds, rootKeyId: root.keyId }, key);
}

export const releaseRoot = fixtureRoot(1);
export const developmentRoot = fixtureRoot(2, true);
export const strangeRoot = fixtureRoot(3);
export const firstKey = fixtureReleaseKey(releaseRoot, 11);
export const secondKey = fixtureReleaseKey(releaseRoot, 12, 2);
export const developmentKey = fixtureReleaseKey(developmentRoot, 21);
export const strangeKey = fixtureReleaseKey(strangeRoot, 31);

/** Of a production node. */
export const productionTrust: Trust = { roots: [releaseRoot.root], revokedKeyIds: [] };
/** Of a development node: it takes both. */
export const developmentTrust: Trust = {
  roots: [releaseRoot.root, developmentRoot.root],
  revokedKeyIds: [],
};

export const productionNode: BundleTarget = {
  developmentNode: false,
  architecture: "amd64",
  hardware: "pc",
  runningVersion: "2026.11.0",
  lastWorkedVersion: "2026.9.2",
  dataFormats: { "chunk-store": 0 },
};

export type Parts = Readonly<Record<PartName, Buffer>>;

/** 40 to 4000 bytes each, told by name. */
export function fixtureParts(): Record<PartName, Buffer> {
  const entries = partNames.map((name, index): [PartName, Buffer] => [
    name,
    Buffer.alloc(40 + index * 17, `${name}\n`),
  ]);
  return Object.fromEntries(entries) as Record<PartName, Buffer>;
}

export function fixtureManifest(
  parts: Parts = fixtureParts(),
  change: Partial<BundleManifest> = {},
): BundleManifest {
  const listed = partNames.map((name) => ({
    name,
    sizeBytes: parts[name].length,
    sha256: createHash("sha256").update(parts[name]).digest("hex"),
  }));
  const rootHash = "ab".repeat(32);
  return {
    product: "keelson",
    formatVersion: 1,
    version: "2026.12.0",
    buildId: buildIdOf(listed),
    development: false,
    architecture: "amd64",
    hardware: ["pc"],
    upgradesFrom: "2026.9.0",
    rootHash,
    kernelLine: `root=/dev/mapper/root ro roothash=${rootHash}`,
    dataFormats: { "chunk-store": { oldest: 0, newest: 1 } },
    space: { rootBytes: 40, verityBytes: 57, espBytes: 1000, varBytes: 9000 },
    notes: "What is new: nothing.\n",
    parts: listed,
    ...change,
  };
}

export interface FixtureBundle {
  readonly parts?: Parts;
  readonly manifest?: BundleManifest;
  /** Instead of the manifest's own encoding. */
  readonly manifestText?: Buffer;
  readonly signer?: FixtureReleaseKey;
  readonly revocations?: readonly Revocation[];
  /** Instead of the right signature block. */
  readonly block?: Buffer;
  readonly tail?: Buffer;
}

export function fixtureBundle(options: FixtureBundle = {}): Buffer {
  const parts = options.parts ?? fixtureParts();
  const text = options.manifestText ?? encodeManifest(options.manifest ?? fixtureManifest(parts));
  const { certificate, key } = options.signer ?? firstKey;
  const block = options.block ?? signManifest(text, certificate, key, options.revocations);
  return Buffer.concat([
    encodeHeader({ manifestBytes: text.length, signatureBytes: block.length }),
    ...[text, block],
    ...partNames.map((name) => parts[name]),
    options.tail ?? Buffer.alloc(0),
  ]);
}
