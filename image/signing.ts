/**
 * Whose key signs a build, and whom its image trusts. Without a release key it is a throw-away one
 * in the build cache, made when it is first needed and never committed: such an image says
 * "development build" everywhere, and a production node refuses its bundles.
 */
import { mkdirSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { keyIdSchema, rootKeySchema, type Trust } from "#lib/bundle/trust.ts";
import type { SigningKey } from "#lib/bundle/writer.ts";
import { KeelsonError } from "#lib/model/errors.ts";
import {
  hasRoot,
  makeReleaseKey,
  makeRoot,
  readJson,
  readRootFolder,
  readSigningKey,
} from "./key-folder.ts";

export interface Signing {
  readonly key: SigningKey;
  readonly trust: Trust;
  readonly development: boolean;
}

/** `image/trust/roots.json`: the project's own. */
const projectTrustSchema = z.strictObject({
  roots: z.array(rootKeySchema),
  revokedKeyIds: z.array(keyIdSchema),
});

/** `keyFolder`: a release key's folder; none: the development key of `cache`. */
export function signingOf(
  project: string,
  cache: string,
  keyFolder?: string,
  passphrase?: string,
): Signing {
  const released = readJson(join(project, "image/trust/roots.json"), projectTrustSchema);
  if (keyFolder === undefined) {
    const folder = developmentKeys(cache);
    const { root } = readRootFolder(join(folder, "root"));
    return {
      key: readSigningKey(join(folder, "release")),
      trust: { roots: [...released.roots, root], revokedKeyIds: released.revokedKeyIds },
      development: true,
    };
  }
  const key = readSigningKey(keyFolder, passphrase);
  const { rootKeyId, keyId, epoch } = key.certificate.body;
  const root = released.roots.find((each) => each.keyId === rootKeyId);
  if (root === undefined || root.development) {
    throw new KeelsonError(
      "PERMISSION_DENIED",
      `Release key ${keyId} is certified by root ${rootKeyId}, which image/trust/roots.json doesn't name.`,
      { remedy: "Add that root's root.json to it (docs/guide/releases.md).", object: keyFolder },
    );
  }
  // The image itself takes no older key than the one that signs it.
  const roots = released.roots.map((each) =>
    each === root ? { ...each, minimumEpoch: Math.max(each.minimumEpoch, epoch) } : each,
  );
  return { key, trust: { roots, revokedKeyIds: released.revokedKeyIds }, development: false };
}

/** Folder with `root/` and `release/` of the throw-away keys; two builds at once make one. */
export function developmentKeys(cache: string): string {
  const folder = join(cache, "keys");
  if (hasRoot(join(folder, "root"))) return folder;
  const work = `${folder}.${process.pid}`;
  rmSync(work, { recursive: true, force: true });
  mkdirSync(work, { recursive: true, mode: 0o700 });
  try {
    makeRoot(join(work, "root"), { name: "development root", development: true });
    makeReleaseKey(join(work, "root"), join(work, "release"), { name: "development" });
    try {
      renameSync(work, folder);
    } catch (error) {
      // Another build was quicker: its keys are as good.
      if (!hasRoot(join(folder, "root"))) throw error;
    }
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
  return folder;
}
