/**
 * A local APT repository that holds one set of packages and nothing else, so that whatever APT
 * resolves in it is exactly that set. Its files are hard links into the archive of .debs.
 */
import { createHash } from "node:crypto";
import {
  existsSync,
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { KeelsonError } from "#lib/model/errors.ts";
import type { Apt, Mirror } from "./apt.ts";
import { report, runCommand } from "./command.ts";
import { compareToLock, type Drift, type LockedPackage } from "./lock.ts";
import { architecture, suite } from "./packages.ts";

export function sha256File(path: string): string {
  return createHash("sha256").update(readFileSync(path)).digest("hex");
}

/** The archive: `.cache/debs/<sha256>.deb`, written by rename, so a name that is there is whole. */
export class DebArchive {
  readonly folder: string;

  constructor(folder: string) {
    this.folder = folder;
    mkdirSync(folder, { recursive: true });
  }

  path(item: LockedPackage): string {
    return join(this.folder, `${item.sha256}.deb`);
  }

  missing(packages: readonly LockedPackage[]): LockedPackage[] {
    return packages.filter((item) => !existsSync(this.path(item)));
  }

  /** Downloads what is missing; every file's hash is checked before it counts. */
  fetch(packages: readonly LockedPackage[], apt: Apt): void {
    const missing = this.missing(packages);
    if (missing.length === 0) return;
    report(`downloading ${missing.length} packages`);
    const work = join(this.folder, `.fetch-${process.pid}`);
    mkdirSync(work, { recursive: true });
    try {
      apt.download(missing, work);
      for (const name of readdirSync(work)) {
        const path = join(work, name);
        renameSync(path, join(this.folder, `${sha256File(path)}.deb`));
      }
    } finally {
      rmSync(work, { recursive: true, force: true });
    }
    const still = this.missing(missing);
    if (still.length > 0) {
      throw new KeelsonError(
        "FORMAT_CORRUPT",
        `Downloaded files don't have the hash they should: ${still.map(({ name }) => name).join(", ")}.`,
        { operation: "download packages" },
      );
    }
  }
}

export interface PackageSource {
  readonly apt: Apt;
  readonly archive: DebArchive;
  readonly mirror: () => Mirror;
}

export interface ChosenPackages {
  readonly packages: readonly LockedPackage[];
  readonly drift: readonly Drift[];
}

/**
 * The locked packages, downloaded. If one of them is neither in the archive nor on the mirror any
 * more, the whole set is resolved anew, since old and new versions depend on each other exactly.
 */
export function choosePackages(
  source: PackageSource,
  locked: readonly LockedPackage[],
  wanted: readonly string[],
): ChosenPackages {
  const missing = source.archive.missing(locked);
  if (missing.length > 0) {
    source.apt.update(source.mirror());
    const available = new Set(
      source.apt.versions(missing.map(({ name }) => name)).map(({ sha256 }) => sha256),
    );
    if (missing.some(({ sha256 }) => !available.has(sha256))) {
      const packages = source.apt.resolve(wanted);
      source.archive.fetch(packages, source.apt);
      return { packages, drift: compareToLock(locked, packages) };
    }
  }
  source.archive.fetch(locked, source.apt);
  return { packages: locked, drift: [] };
}

/** Names the set: the same packages, the same digest. 16 hexadecimal digits. */
export function digestPackages(packages: readonly LockedPackage[]): string {
  const rows = packages.map(({ name, sha256 }) => `${name} ${sha256}`).sort();
  return createHash("sha256").update(rows.join("\n")).digest("hex").slice(0, 16);
}

/** Makes the repository below `folder` and returns its line for sources.list. */
export function writeRepository(
  folder: string,
  packages: readonly LockedPackage[],
  archive: DebArchive,
): string {
  const line = `deb [trusted=yes] file://${folder} ${suite} main`;
  if (existsSync(join(folder, "dists", suite, "Release"))) return line;
  const index = join(folder, "dists", suite, "main", `binary-${architecture}`);
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(index, { recursive: true });
  mkdirSync(join(folder, "pool"));
  const stanzas = [...packages]
    .sort((a, b) => (a.name < b.name ? -1 : 1))
    .map((item) => {
      const file = `pool/${item.name}_${item.sha256.slice(0, 16)}.deb`;
      linkSync(archive.path(item), join(folder, file));
      const control = runCommand("dpkg-deb", ["--field", archive.path(item)]).trimEnd();
      const size = statSync(archive.path(item)).size;
      return `${control}\nFilename: ${file}\nSize: ${size}\nSHA256: ${item.sha256}\n`;
    });
  const text = stanzas.join("\n");
  writeFileSync(join(index, "Packages"), text);
  const sha256 = createHash("sha256").update(text).digest("hex");
  const path = `main/binary-${architecture}/Packages`;
  writeFileSync(
    join(folder, "dists", suite, "Release"),
    `Origin: Debian\nSuite: ${suite}\nCodename: ${suite}\nArchitectures: ${architecture}\nComponents: main\nSHA256:\n ${sha256} ${Buffer.byteLength(text)} ${path}\n`,
  );
  return line;
}
