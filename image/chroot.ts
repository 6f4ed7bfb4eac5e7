/**
 * Runs programs inside a Debian tree (a chroot in a mount namespace of its own), and keeps the
 * tools tree: every program that makes an artefact comes from a locked Debian 13, so that neither
 * the release nor the installed packages of the machine that builds have a say in the result.
 */
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { KeelsonError } from "#lib/model/errors.ts";
import { Apt, type Mirror, machineMirror, sourcesList } from "./apt.ts";
import { type CommandOptions, report, runCommand } from "./command.ts";
import { parseLock } from "./lock.ts";
import { toolPackages } from "./packages.ts";
import {
  type ChosenPackages,
  choosePackages,
  DebArchive,
  digestPackages,
  type PackageSource,
  writeRepository,
} from "./repository.ts";

export const projectRoot = resolve(import.meta.dirname, "..");

export interface ChrootOptions extends Pick<CommandOptions, "input" | "verbose"> {
  /** Working directory; `/` if not given. */
  readonly cwd?: string;
  readonly env?: Readonly<Record<string, string>>;
  /** More directories of the machine to see inside, at the same path. */
  readonly binds?: readonly string[];
}

/** Shell that sets the scene. `$1` tree, `$2` working directory, `$3` number of binds. */
const scene = `set -eu
umask 022
tree=$1 cwd=$2 count=$3; shift 3
mount --bind "$tree" "$tree"
mount --rbind /dev "$tree/dev"
mount -t proc proc "$tree/proc"
mount --rbind /sys "$tree/sys"
mount -t tmpfs tmpfs "$tree/run"
mount -t tmpfs tmpfs "$tree/tmp"
while [ "$count" -gt 0 ]; do
  mkdir -p "$tree$1"; mount --rbind "$1" "$tree$1"; shift; count=$((count - 1))
done
exec chroot "$tree" sh -c 'cd "$0" && exec "$@"' "$cwd" "$@"`;

const fixedEnvironment = {
  PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
  HOME: "/root",
  LC_ALL: "C.UTF-8",
  TZ: "UTC",
  DEBIAN_FRONTEND: "noninteractive",
};

/**
 * stdout of a program run in `tree` as root, with /dev, /proc, /sys, fresh /run and /tmp, and the
 * directories in `binds`. Umask, locale and time zone are fixed; the network is the machine's.
 * Mounts end with the program. Throws INTERNAL with its last words if it fails.
 */
export function runInTree(
  tree: string,
  command: readonly string[],
  options: ChrootOptions = {},
): string {
  if (process.getuid?.() !== 0) {
    throw new KeelsonError("PERMISSION_DENIED", "Building an image needs root (chroot, mounts).", {
      remedy: "Run it as root or with sudo.",
    });
  }
  const binds = options.binds ?? [];
  // Only the program inside may load it: out here the library is another release's, or missing.
  const { LD_PRELOAD: preload, ...env } = { LD_PRELOAD: "", ...options.env };
  const inside = preload === "" ? command : ["env", `LD_PRELOAD=${preload}`, ...command];
  return runCommand(
    "unshare",
    [
      ...["--mount", "--propagation", "private", "--", "sh", "-c", scene, "sh"],
      ...[tree, options.cwd ?? "/", String(binds.length)],
      ...binds,
      ...inside,
    ],
    {
      env: { ...fixedEnvironment, ...env },
      ...(options.input === undefined ? {} : { input: options.input }),
      ...(options.verbose === undefined ? {} : { verbose: options.verbose }),
    },
  );
}

export interface Tools {
  /** The tools' root directory: /usr/lib/grub, /usr/share/OVMF, /usr/lib/ipxe are below it. */
  readonly tree: string;
  /** The digest of the packages it was made from. */
  readonly digest: string;
  readonly chosen: ChosenPackages;
  /**
   * Runs a program of the tools. The project's directory is visible inside at its own path, so
   * paths below it mean the same on both sides; others are named in `binds`.
   */
  run(command: readonly string[], options?: ChrootOptions): string;
  /** sources.list lines of the machine's mirror for Debian 13, for `mmdebstrap` in the tools. */
  sources(): string[];
}

export interface ToolsOptions {
  /** Default: `.cache` of the project. */
  readonly cache?: string;
  /** Default: `image/packages.lock`. */
  readonly lock?: string;
}

export function packageSource(cache: string): PackageSource {
  let mirror: Mirror | undefined;
  return {
    apt: new Apt(join(cache, "apt")),
    archive: new DebArchive(join(cache, "debs")),
    mirror: () => {
      mirror ??= machineMirror();
      return mirror;
    },
  };
}

/** The tools tree, from the cache or built in about two minutes. Safe to call from two processes. */
export function openTools(options: ToolsOptions = {}): Tools {
  const cache = options.cache ?? join(projectRoot, ".cache");
  const lock = parseLock(
    readFileSync(options.lock ?? join(projectRoot, "image/packages.lock"), "utf8"),
  );
  const source = packageSource(cache);
  const folder = join(cache, "tools");
  mkdirSync(folder, { recursive: true });
  // A tree that stands needs no archive of .debs and no mirror.
  const ready = join(folder, digestPackages(lock.tools));
  const chosen = existsSync(ready)
    ? { packages: lock.tools, drift: [] }
    : choosePackages(source, lock.tools, toolPackages);
  const digest = digestPackages(chosen.packages);
  const tree = join(folder, digest);
  if (!existsSync(tree)) {
    report(`making the tools tree (${chosen.packages.length} packages)`);
    const work = `${tree}.${process.pid}`;
    try {
      bootstrap(work, chosen, source, cache);
      // Another process may have been quicker: its tree is as good.
      if (!existsSync(tree)) renameSync(work, tree);
    } finally {
      rmSync(work, { recursive: true, force: true });
    }
  }
  return {
    tree,
    digest,
    chosen,
    run: (command, runOptions = {}) =>
      runInTree(tree, command, {
        ...runOptions,
        binds: [projectRoot, ...(runOptions.binds ?? [])],
      }),
    sources: () => sourcesList(source.mirror()),
  };
}

/** The one use of the machine's own mmdebstrap. */
function bootstrap(
  work: string,
  chosen: ChosenPackages,
  source: PackageSource,
  cache: string,
): void {
  const repository = join(cache, "repositories", digestPackages(chosen.packages));
  const line = writeRepository(repository, chosen.packages, source.archive);
  const log = `${work}.log`;
  writeFileSync(
    log,
    runCommand(
      "mmdebstrap",
      [
        ...["--mode=root", "--variant=essential", "--format=directory"],
        "--skip=cleanup/apt",
        '--aptopt=APT::Install-Recommends "false"',
        "--dpkgopt=path-exclude=/usr/share/man/*",
        "--dpkgopt=path-exclude=/usr/share/locale/*",
        "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--hook-dir=/usr/share/mmdebstrap/hooks/file-mirror-automount",
        `--include=${chosen.packages.map(({ name }) => name).join(",")}`,
        ...["trixie", work, line],
      ],
      { env: fixedEnvironment },
    ),
  );
  rmSync(log, { force: true });
}
