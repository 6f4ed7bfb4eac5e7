/**
 * `--check-reproducible`: two builds from nothing but the locked .debs, as two machines would do
 * them, compared byte for byte.
 *
 *              first                second
 *   checkout   this one             a copy in another directory
 *   umask      022                  077 (also when the copy is made)
 *   host name  this machine's       reproducible-b
 *   time zone  UTC                  Pacific/Kiritimati
 *   clock      now                  a year and a day later (libfaketime, in every program)
 *   locale     C.UTF-8              tr_TR.UTF-8
 *   CPUs       all                  one
 *
 * What each build saw is asked from inside its root tree, so that a check which varied nothing
 * fails instead of passing.
 */
import { spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, rmSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { KeelsonError } from "#lib/model/errors.ts";
import type { Surroundings } from "./build.ts";
import { report } from "./command.ts";
import { compareManifests, type Difference, treeManifest } from "./manifest.ts";

export interface CheckOptions {
  readonly project: string;
  readonly cache: string;
  readonly out: string;
  readonly release: boolean;
}

export interface CheckResult {
  readonly identical: boolean;
  readonly artefacts: number;
  readonly first: Surroundings;
  readonly second: Surroundings;
  readonly differences: readonly Difference[];
}

const clockOffsetDays = 366;

/** The second build's scene: own mounts and host name, a copy of the checkout, then the command. */
const secondScene = `set -eu
project=$1 checkout=$2 cache=$3 cpu=$4; shift 4
hostname reproducible-b
umask 077
rm -rf "$checkout"
mkdir -p "$checkout"
cd "$project"
for name in * .[a-z]*; do
  case $name in node_modules|build|.cache|.git|.dev|.npmrc) ;; *) cp -R --no-preserve=all "$name" "$checkout/" ;; esac
done
mkdir -p "$checkout/node_modules" "$checkout/.cache"
mount --bind "$project/node_modules" "$checkout/node_modules"
mount --bind "$cache" "$checkout/.cache"
cd "$checkout"
exec taskset -c "$cpu" "$@"`;

export function checkReproducible(options: CheckOptions): CheckResult {
  const { project, cache } = options;
  const folder = join(options.out, "reproducible");
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  const first = join(folder, "a");
  const second = join(folder, "second-with-a-longer-name");
  const checkout = join(folder, "checkout/elsewhere/keelson");
  const flags = [...(options.release ? ["--release"] : [])];
  const command = (root: string, out: string, more: string[]) => [
    process.execPath,
    join(root, "image/main.ts"),
    ...["--fresh", "--keep-trees", "--bundle", "--out", out],
    ...flags,
    ...more,
  ];
  const path = { PATH: process.env.PATH ?? "", HOME: process.env.HOME ?? "/root" };
  const mirror = Object.fromEntries(
    ["KEELSON_MIRROR", "KEELSON_MIRROR_SECURITY"]
      .filter((name) => process.env[name] !== undefined)
      .map((name) => [name, process.env[name] ?? ""]),
  );

  report("first build");
  runBuild("sh", ["-c", 'umask 022; exec "$@"', "sh", ...command(project, first, [])], {
    ...{ ...path, ...mirror },
    ...{ TZ: "UTC", LC_ALL: "C.UTF-8", LANG: "C.UTF-8" },
  });
  report("second build, in other surroundings");
  runBuild(
    "unshare",
    [
      ...["--mount", "--uts", "--propagation", "private", "--", "sh", "-c", secondScene, "sh"],
      ...[project, checkout, cache, "0"],
      ...command(checkout, second, ["--clock-offset-days", String(clockOffsetDays)]),
    ],
    {
      ...{ ...path, ...mirror },
      ...{ TZ: "Pacific/Kiritimati", LC_ALL: "tr_TR.UTF-8", LANG: "tr_TR.UTF-8" },
    },
  );

  const seen = (out: string) =>
    JSON.parse(readFileSync(join(out, "surroundings.json"), "utf8")) as Surroundings;
  const [a, b] = [seen(first), seen(second)];
  requireVaried(a, b);
  const artefacts = (out: string) => {
    const manifest = treeManifest(join(out, "image"));
    for (const [path, facts] of treeManifest(join(out, "result"))) manifest.set(path, facts);
    return manifest;
  };
  const [artefactsA, artefactsB] = [artefacts(first), artefacts(second)];
  const differing = compareManifests(artefactsA, artefactsB);
  const differences = differing.length === 0 ? [] : [...differing, ...insideTrees(first, second)];
  describe(artefactsA.size, differences);
  rmSync(join(folder, "checkout"), { recursive: true, force: true });
  if (differences.length === 0) rmSync(folder, { recursive: true, force: true });
  return {
    identical: differences.length === 0,
    artefacts: artefactsA.size,
    first: a,
    second: b,
    differences,
  };
}

function runBuild(command: string, args: string[], env: Record<string, string>): void {
  const result = spawnSync(command, args, { env, stdio: ["ignore", 2, 2] });
  if (result.status === 0) return;
  throw new KeelsonError("INTERNAL", `A build of the check failed (exit ${result.status}).`);
}

/** A check that varied nothing must not pass. */
function requireVaried(a: Surroundings, b: Surroundings): void {
  const days = (b.clockSeconds - a.clockSeconds) / 86_400;
  const same = [
    days < clockOffsetDays - 1 ? `clock (${days.toFixed(1)} days apart)` : undefined,
    a.hostName === b.hostName ? "host name" : undefined,
    a.umask === b.umask ? "umask" : undefined,
    a.timeZone === b.timeZone ? "time zone" : undefined,
    a.locale === b.locale ? "locale" : undefined,
    a.directory === b.directory ? "directory" : undefined,
    a.cpus === b.cpus && availableParallelism() > 1 ? "CPU count" : undefined,
  ].filter((name) => name !== undefined);
  if (same.length === 0) return;
  throw new KeelsonError("INTERNAL", `The two builds had the same ${same.join(", ")}.`, {
    operation: "check reproducibility",
  });
}

/** Which files of the root tree and of the initrd differ, when an artefact that holds them does. */
function insideTrees(first: string, second: string): Difference[] {
  return ["root", "initrd"].flatMap((tree) =>
    compareManifests(
      treeManifest(join(first, "trees", tree)),
      treeManifest(join(second, "trees", tree)),
    ).map((difference) => ({ ...difference, path: `${tree}: /${difference.path}` })),
  );
}

function describe(count: number, differences: readonly Difference[]): void {
  if (differences.length === 0) {
    report(`reproducible: ${count} artefacts, identical in both builds`);
    return;
  }
  report(`NOT REPRODUCIBLE: ${differences.length} differences`);
  for (const { path, first, second } of differences.slice(0, 100)) {
    report(`  ${path}\n    first   ${first ?? "not there"}\n    second  ${second ?? "not there"}`);
  }
  report("both builds are kept in build/reproducible");
}
