/** Every file of a tree on one line, so that two trees can be compared and the culprit named. */
import { createHash } from "node:crypto";
import { lstatSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
import { join } from "node:path";

/** path -> type, mode, owner, and size and SHA-256 or link target. Times are not compared. */
export function treeManifest(root: string): Map<string, string> {
  const lines = new Map<string, string>();
  const visit = (path: string) => {
    for (const name of readdirSync(join(root, path)).sort()) {
      const below = path === "" ? name : `${path}/${name}`;
      const full = join(root, below);
      const status = lstatSync(full);
      const facts = [(status.mode & 0o177777).toString(8), status.uid, status.gid];
      if (status.isSymbolicLink()) facts.push(readlinkSync(full));
      else if (status.isFile()) {
        facts.push(status.size, createHash("sha256").update(readFileSync(full)).digest("hex"));
      }
      lines.set(below, facts.join(" "));
      if (status.isDirectory()) visit(below);
    }
  };
  visit("");
  return lines;
}

export interface Difference {
  readonly path: string;
  /** Facts on each side; undefined: it isn't there. */
  readonly first: string | undefined;
  readonly second: string | undefined;
}

export function compareManifests(
  first: ReadonlyMap<string, string>,
  second: ReadonlyMap<string, string>,
): Difference[] {
  return [...new Set([...first.keys(), ...second.keys()])]
    .sort()
    .filter((path) => first.get(path) !== second.get(path))
    .map((path) => ({ path, first: first.get(path), second: second.get(path) }));
}
