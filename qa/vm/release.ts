/**
 * Releases for the scenarios: `ensureRelease({version, broken})` gives a bundle, made first if it
 * isn't there or is of other sources. As a program (it takes about half a minute and
 * holds its process) it makes one:
 *
 *   node qa/vm/release.ts --version 2026.12.0 [--broken KIND] --out DIR
 */
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, statSync } from "node:fs";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { build } from "#image/build.ts";
import { isOfSources } from "#image/sources.ts";
import { verifyBundle } from "#lib/bundle/file.ts";
import { bundleFileName } from "#lib/bundle/manifest.ts";
import { readTrust } from "#lib/bundle/trust.ts";
import { isVersion } from "#lib/bundle/version.ts";
import { explainError, KeelsonError } from "#lib/model/errors.ts";
import { type BrokenKind, brokenKinds, mutations } from "./broken-release.ts";
import { makeOnce, runBuilder } from "./builder.ts";
import { replaceLoaders } from "./other-loaders.ts";

const root = resolve(import.meta.dirname, "../..");

export interface ReleaseOptions {
  /** `2026.12.0`. */
  readonly version: string;
  readonly broken?: BrokenKind | undefined;
}

export interface Release {
  /** Of the bundle. */
  readonly path: string;
  /** As the node will say it: `+drift` if the mirror has moved on from the lock. */
  readonly version: string;
}

/** UNAVAILABLE with the builder's words if it can't be built. */
export function ensureRelease(
  options: ReleaseOptions,
  onLine: (line: string) => void = () => {},
): Promise<Release> {
  return makeOnce(`release ${options.version} ${options.broken}`, () =>
    makeRelease(options, onLine),
  );
}

async function makeRelease(
  options: ReleaseOptions,
  onLine: (line: string) => void,
): Promise<Release> {
  const out = join(root, "build/releases", folderOf(options.broken));
  const built = findRelease(out, options.version);
  if (built !== undefined) return built;
  onLine(`building ${options.version}${options.broken === undefined ? "" : `, ${options.broken}`}`);
  const broken = options.broken === undefined ? [] : ["--broken", options.broken];
  const arguments_ = ["--version", options.version, "--out", out, ...broken];
  const { code, tail } = await runBuilder(import.meta.filename, arguments_, onLine);
  const release = findRelease(out, options.version);
  if (code !== 0 || release === undefined) {
    throw new KeelsonError("UNAVAILABLE", `The bundle can't be built (exit ${code}):\n${tail}`);
  }
  return release;
}

/** The one that was built last, if it is of the present sources. */
function findRelease(folder: string, wanted: string): Release | undefined {
  const [newest] = [wanted, `${wanted}+drift`]
    .map((version) => ({ path: join(folder, bundleFileName(version)), version }))
    .filter(({ path }) => existsSync(path))
    .sort((one, other) => statSync(other.path).mtimeMs - statSync(one.path).mtimeMs);
  return newest !== undefined && isOfSources(root, newest.path) ? newest : undefined;
}

/** A release is also of the changes that these tests make to it. */
function folderOf(broken: BrokenKind | undefined): string {
  const changes = broken === undefined ? "other-loaders.ts" : "broken-release.ts";
  const digest = createHash("sha256").update(readFileSync(join(import.meta.dirname, changes)));
  return `${broken ?? "good"}-${digest.digest("hex").slice(0, 8)}`;
}

/** Blocks until the bundle is made. */
export function buildRelease(options: ReleaseOptions & { readonly out: string }) {
  mkdirSync(options.out, { recursive: true });
  return build({
    ...{ project: root, cache: join(root, ".cache"), out: options.out, version: options.version },
    ...{ release: false, fresh: false, env: {}, keepTrees: false, iso: false, bundle: true },
    mutation:
      options.broken === undefined
        ? { loaders: (folder) => replaceLoaders(folder, options.version) }
        : mutations[options.broken],
  });
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      version: { type: "string", default: "" },
      broken: { type: "string" },
      out: { type: "string", default: join(root, "build/releases") },
    },
  });
  const broken = brokenKinds.find((kind) => kind === values.broken);
  if (!isVersion(values.version) || (values.broken !== undefined && broken === undefined)) {
    throw new KeelsonError(
      "INVALID_ARGUMENT",
      `--version YYYY.M.PATCH is needed; --broken is one of ${brokenKinds.join(", ")}.`,
    );
  }
  const out = resolve(values.out);
  const { bundle, seconds } = buildRelease({ version: values.version, broken, out });
  await verifyBundle(bundle!.path, readTrust(join(out, "trust.json")));
  console.log(`${bundle!.path}, ${(bundle!.sizeBytes / 1e6).toFixed(1)} MB, ${seconds} s`);
}

if (import.meta.main) {
  main().catch((error: unknown) => {
    console.error(`release: ${explainError(error)}`);
    process.exit(1);
  });
}
