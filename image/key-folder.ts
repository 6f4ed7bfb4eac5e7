/**
 * Key folders.
 *
 *   the root's, offline                 a release key's, where bundles are made
 *     root.key          private           release.key    private
 *     root.json         public            signing.json   certificate, revocations
 *     certificates.json all it signed
 *     revocations.json
 *
 * Files are replaced as a whole; private keys never.
 */
import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import {
  type Certificate,
  certificateSchema,
  keyIdOf,
  type Revocation,
  rawPublicKey,
  revocationSchema,
  signCertificate,
  signRevocation,
} from "#lib/bundle/signature.ts";
import { type RootKey, rootKeySchema } from "#lib/bundle/trust.ts";
import type { SigningKey } from "#lib/bundle/writer.ts";
import { KeelsonError } from "#lib/model/errors.ts";
import { writeStateFile } from "#lib/service/state-file.ts";
import { newKey, readPrivateKey, writePrivateKey } from "./private-key.ts";

const signingSchema = z.strictObject({
  certificate: certificateSchema,
  revocations: z.array(revocationSchema),
});

/** A new root. ALREADY_EXISTS if the folder has one. */
export function makeRoot(
  folder: string,
  options: { readonly name: string; readonly development?: boolean; readonly passphrase?: string },
): RootKey {
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const key = newKey();
  const publicKey = rawPublicKey(key);
  const root: RootKey = {
    keyId: keyIdOf(publicKey),
    publicKey,
    name: options.name,
    development: options.development ?? false,
    minimumEpoch: 1,
  };
  writePrivateKey(join(folder, "root.key"), key, options.passphrase);
  writeJson(join(folder, "root.json"), root);
  writeJson(join(folder, "certificates.json"), []);
  writeJson(join(folder, "revocations.json"), []);
  return root;
}

export interface RootFolder {
  readonly root: RootKey;
  readonly certificates: readonly Certificate[];
  readonly revocations: readonly Revocation[];
}

export function readRootFolder(folder: string): RootFolder {
  return {
    root: readJson(join(folder, "root.json"), rootKeySchema),
    certificates: readJson(join(folder, "certificates.json"), z.array(certificateSchema)),
    revocations: readJson(join(folder, "revocations.json"), z.array(revocationSchema)),
  };
}

/**
 * A new release key in `out`, certified by the root in `rootFolder`: of the present epoch, or of
 * the next one if it replaces the others (`rotate`).
 */
export function makeReleaseKey(
  rootFolder: string,
  out: string,
  options: {
    readonly name: string;
    readonly rotate?: boolean;
    readonly rootPassphrase?: string;
    readonly passphrase?: string;
  },
): Certificate {
  const { root, certificates, revocations } = readRootFolder(rootFolder);
  const rootKey = readPrivateKey(join(rootFolder, "root.key"), options.rootPassphrase);
  const epochs = certificates.map(({ body }) => body.epoch);
  const present = Math.max(root.minimumEpoch, ...epochs);
  mkdirSync(out, { recursive: true, mode: 0o700 });
  const key = newKey();
  const publicKey = rawPublicKey(key);
  const certificate = signCertificate(
    {
      type: "release-key",
      keyId: keyIdOf(publicKey),
      publicKey,
      name: options.name,
      serial: Math.max(0, ...certificates.map(({ body }) => body.serial)) + 1,
      epoch: options.rotate ? present + 1 : present,
      rootKeyId: root.keyId,
    },
    rootKey,
  );
  writePrivateKey(join(out, "release.key"), key, options.passphrase);
  // The root remembers first: a serial that was given away is never given again.
  writeJson(join(rootFolder, "certificates.json"), [...certificates, certificate]);
  writeJson(join(out, "signing.json"), { certificate, revocations });
  return certificate;
}

/** Signs that these keys are no longer to be taken; `refresh` are release folders to tell. */
export function revokeKeys(
  rootFolder: string,
  keyIds: readonly string[],
  options: { readonly refresh?: readonly string[]; readonly rootPassphrase?: string } = {},
): Revocation {
  const { root, certificates, revocations } = readRootFolder(rootFolder);
  const unknown = keyIds.find((id) => !certificates.some(({ body }) => body.keyId === id));
  if (unknown !== undefined) {
    throw new KeelsonError("NOT_FOUND", `This root has certified no key ${unknown}.`, {
      remedy: "`show` lists the keys that it has certified.",
    });
  }
  const rootKey = readPrivateKey(join(rootFolder, "root.key"), options.rootPassphrase);
  const revocation = signRevocation(
    { type: "revocation", keyIds: [...keyIds], rootKeyId: root.keyId },
    rootKey,
  );
  const all = [...revocations, revocation];
  writeJson(join(rootFolder, "revocations.json"), all);
  for (const folder of options.refresh ?? []) {
    const { certificate } = readSigning(folder);
    writeJson(join(folder, "signing.json"), { certificate, revocations: all });
  }
  return revocation;
}

/** The public part of a release key's folder. */
export function readSigning(folder: string): z.infer<typeof signingSchema> {
  return readJson(join(folder, "signing.json"), signingSchema);
}

/** The key that signs bundles. CONFLICT if the certificate is another key's. */
export function readSigningKey(folder: string, passphrase?: string): SigningKey {
  const { certificate, revocations } = readSigning(folder);
  const privateKey = readPrivateKey(join(folder, "release.key"), passphrase);
  if (rawPublicKey(privateKey) !== certificate.body.publicKey) {
    throw new KeelsonError("CONFLICT", `${folder}: the certificate is not of release.key.`);
  }
  return { certificate, privateKey, revocations };
}

export function hasRoot(folder: string): boolean {
  return existsSync(join(folder, "root.json"));
}

function writeJson(path: string, value: unknown): void {
  writeStateFile(path, `${JSON.stringify(value, null, 2)}\n`);
}

export function readJson<T>(path: string, schema: z.ZodType<T>): T {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (cause) {
    throw new KeelsonError("NOT_FOUND", `${path} can't be read: ${(cause as Error).message}.`, {
      remedy: "See `node image/keys.ts --help`: is this the folder of such a key?",
      object: path,
      cause,
    });
  }
  try {
    return schema.parse(JSON.parse(text));
  } catch (cause) {
    throw new KeelsonError("FORMAT_CORRUPT", `${path} is not as the key tool writes it.`, {
      object: path,
      cause,
    });
  }
}
