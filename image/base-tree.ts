/** The Debian part of the root file system: exactly the locked packages, nothing of ours yet. */
import { createHash } from "node:crypto";
import {
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmdirSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { accountFiles, parseSysusers } from "./accounts.ts";
import { runInTree, type Tools } from "./chroot.ts";
import { report } from "./command.ts";
import { suite } from "./packages.ts";
import {
  type ChosenPackages,
  type DebArchive,
  digestPackages,
  writeRepository,
} from "./repository.ts";

/** libfaketime, at the same path in the tools and, while it is being built, in the root tree. */
export const clockLibrary = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";

export interface BaseTreeOptions {
  /** The project whose definitions are used. */
  readonly project: string;
  readonly cache: string;
  readonly tools: Tools;
  readonly packages: ChosenPackages;
  readonly archive: DebArchive;
  /** Build here and don't look for a cached tree. */
  readonly fresh?: string;
  /** More environment for every program: the reproducibility check's false clock. */
  readonly env?: Readonly<Record<string, string>>;
}

/** The tree's path. Callers copy it and never write into it. */
export function baseTree(options: BaseTreeOptions): string {
  const { cache, packages, tools } = options;
  const digest = createHash("sha256")
    .update(`${digestPackages(packages.packages)} ${tools.digest}`)
    .update(readFileSync(join(options.project, "image/base-tree.ts")))
    .update(readFileSync(join(options.project, "image/base-tree.sh")))
    .update(readFileSync(join(options.project, "units/sysusers.d/keelson.conf")))
    .digest("hex")
    .slice(0, 16);
  if (options.fresh !== undefined) {
    makeBaseTree(options.fresh, options);
    return options.fresh;
  }
  const tree = join(cache, "roots", digest);
  if (existsSync(tree)) return tree;
  const work = `${tree}.${process.pid}`;
  try {
    makeBaseTree(work, options);
    if (!existsSync(tree)) renameSync(work, tree);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
  return tree;
}

/** The false clock's library, before the first maintainer script runs. completeRootTree drops it. */
const clockHook = `--extract-hook=mkdir -p "$1${dirname(clockLibrary)}" && cp ${clockLibrary} "$1${clockLibrary}"`;

function makeBaseTree(work: string, options: BaseTreeOptions): void {
  const { project, cache, packages, tools } = options;
  report(`installing ${packages.packages.length} packages into the root tree`);
  const repository = join(cache, "repositories", digestPackages(packages.packages));
  const line = writeRepository(repository, packages.packages, options.archive);
  const hooks = `${work}.hooks`;
  mkdirSync(join(hooks, "etc"), { recursive: true });
  try {
    const accounts = parseSysusers(
      readFileSync(join(project, "units/sysusers.d/keelson.conf"), "utf8"),
    );
    const files = accountFiles(accounts);
    for (const [name, text] of Object.entries(files)) writeFileSync(join(hooks, name), text);
    writeFileSync(
      join(hooks, "essential.sh"),
      `set -eu
for name in ${Object.keys(files).join(" ")}; do cat ${hooks}/$name >>"$1/$name"; done
# The kernel's hooks would make an initrd and copy it about; the build makes it once, itself.
for name in dracut zz-systemd-boot; do
  chroot "$1" dpkg-divert --quiet --local --rename --divert /etc/kernel/$name.disabled --add /etc/kernel/postinst.d/$name
  mkdir -p "$1/etc/kernel/postinst.d"
  printf '#!/bin/sh\\nexit 0\\n' >"$1/etc/kernel/postinst.d/$name"
  chmod 755 "$1/etc/kernel/postinst.d/$name"
done
`,
    );
    tools.run(
      [
        "mmdebstrap",
        ...["--mode=root", "--variant=essential", "--format=directory"],
        '--aptopt=APT::Install-Recommends "false"',
        "--dpkgopt=path-exclude=/usr/share/man/*",
        "--dpkgopt=path-exclude=/usr/share/info/*",
        "--dpkgopt=path-exclude=/usr/share/locale/*",
        "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--dpkgopt=path-include=/usr/share/doc/*/copyright",
        "--hook-dir=/usr/share/mmdebstrap/hooks/file-mirror-automount",
        ...(options.env?.LD_PRELOAD === undefined ? [] : [clockHook]),
        `--essential-hook=sh ${join(hooks, "essential.sh")} "$1"`,
        `--include=${packages.packages.map(({ name }) => name).join(",")}`,
        ...[suite, work, line],
      ],
      { env: options.env ?? {}, binds: [dirname(work), repository] },
    );
    dropMountPoint(work, repository);
    runInTree(work, ["sh", "-c", readFileSync(join(project, "image/base-tree.sh"), "utf8")], {
      env: options.env ?? {},
    });
  } finally {
    rmSync(hooks, { recursive: true, force: true });
  }
}

const standardFolders = new Set(
  "bin boot dev etc home lib lib64 media mnt opt proc root run sbin srv sys tmp usr var".split(" "),
);

/** mmdebstrap leaves the path that the repository was mounted on: this machine's, not the image's. */
function dropMountPoint(tree: string, path: string): void {
  let folder = path;
  while (folder !== "/" && !standardFolders.has(folder.slice(1))) {
    try {
      rmdirSync(join(tree, folder));
    } catch {
      return;
    }
    folder = dirname(folder);
  }
}
