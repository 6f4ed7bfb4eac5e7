/** Writes packages.lock anew from what the mirror has now, and fills the archive of .debs. */
import { writeFileSync } from "node:fs";
import { packageSource } from "./chroot.ts";
import { report } from "./command.ts";
import { compareToLock, formatLock, type Lock, type LockedPackage } from "./lock.ts";
import { rootPackages, toolPackages } from "./packages.ts";

/** Returns the new lock; `previous` is only used to say what changed. */
export function updateLock(path: string, cache: string, previous: Lock | undefined): Lock {
  const source = packageSource(cache);
  source.apt.update(source.mirror());
  const resolve = (wanted: readonly string[]): LockedPackage[] => {
    const packages = source.apt.resolve(wanted);
    source.archive.fetch(packages, source.apt);
    return packages;
  };
  const lock: Lock = { root: resolve(rootPackages), tools: resolve(toolPackages) };
  writeFileSync(path, formatLock(lock));
  for (const set of ["root", "tools"] as const) {
    const changes = previous === undefined ? [] : compareToLock(previous[set], lock[set]);
    report(`${set}: ${lock[set].length} packages, ${changes.length} changed`);
    for (const { name, locked, used } of changes) {
      report(`  ${name}: ${locked ?? "(new)"} -> ${used ?? "(gone)"}`);
    }
  }
  return lock;
}
