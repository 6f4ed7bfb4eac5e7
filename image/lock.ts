/**
 * packages.lock: one package a line, `sets name version architecture sha256`. A build installs
 * exactly these; where neither the archive of .debs nor the mirror has one of them any more, the
 * build takes what the mirror has now and says so (drift).
 */
import { KeelsonError } from "#lib/model/errors.ts";

export type PackageSet = "root" | "tools";

export interface LockedPackage {
  readonly name: string;
  readonly version: string;
  readonly architecture: string;
  readonly sha256: string;
}

export type Lock = Readonly<Record<PackageSet, readonly LockedPackage[]>>;

const head = `# The Debian packages that an image is built from, and the tools that build it.
# Written by \`npm run image -- --update-lock\`.
# sets name version architecture sha256
`;

export function formatLock(lock: Lock): string {
  const rows = new Map<string, PackageSet[]>();
  for (const set of ["root", "tools"] as const) {
    for (const item of lock[set]) {
      const row = `${item.name} ${item.version} ${item.architecture} ${item.sha256}`;
      rows.set(row, [...(rows.get(row) ?? []), set]);
    }
  }
  return (
    head +
    [...rows]
      .sort(byRow)
      .map(([row, sets]) => `${sets.join(",")} ${row}\n`)
      .join("")
  );
}

function byRow(a: [string, unknown], b: [string, unknown]): number {
  return a[0] < b[0] ? -1 : 1;
}

/** FORMAT_CORRUPT with the line number for anything but a complete line. */
export function parseLock(text: string): Lock {
  const lock: Record<PackageSet, LockedPackage[]> = { root: [], tools: [] };
  for (const [index, line] of text.split("\n").entries()) {
    if (line === "" || line.startsWith("#")) continue;
    const fields = line.split(" ");
    const [sets, name, version, architecture, sha256] = fields;
    const known = sets.split(",").every((set) => set === "root" || set === "tools");
    if (fields.length !== 5 || !known || !/^[0-9a-f]{64}$/.test(sha256)) {
      throw new KeelsonError("FORMAT_CORRUPT", `packages.lock, line ${index + 1}: ${line}`, {
        operation: "read packages.lock",
        remedy: "Write it anew with --update-lock.",
      });
    }
    for (const set of sets.split(",") as PackageSet[]) {
      lock[set].push({ name, version, architecture, sha256 });
    }
  }
  return lock;
}

export interface Drift {
  readonly name: string;
  /** Undefined: the lock has no such package. */
  readonly locked: string | undefined;
  /** Undefined: it is no longer needed. */
  readonly used: string | undefined;
}

/** How the packages used differ from the locked ones, by name. */
export function compareToLock(
  locked: readonly LockedPackage[],
  used: readonly LockedPackage[],
): Drift[] {
  const lockedByName = new Map(locked.map((item) => [item.name, item]));
  const usedByName = new Map(used.map((item) => [item.name, item]));
  const names = [...new Set([...lockedByName.keys(), ...usedByName.keys()])].sort();
  return names
    .filter((name) => lockedByName.get(name)?.sha256 !== usedByName.get(name)?.sha256)
    .map((name) => ({
      name,
      locked: lockedByName.get(name)?.version,
      used: usedByName.get(name)?.version,
    }));
}
