/** Whether an image is the one of these sources, without building it. */
import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

/** What goes into an image, or says how it is made. */
const folders = ["cli", "firmware-updater", "image", "lib", "native", "services", "ui", "units"];
const files = ["package.json", "package-lock.json", "tools/bundle.ts"];

const isTest = (path: string): boolean => /\.test\.tsx?$/.test(path);

/** SHA-256, in hex, over names and contents of all sources of `project`. Tests are no sources. */
export function sourcesDigest(project: string): string {
  const hash = createHash("sha256");
  const found = folders.flatMap((folder) =>
    readdirSync(join(project, folder), { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => join(entry.parentPath, entry.name).slice(project.length + 1)),
  );
  for (const path of [...files, ...found].filter((path) => !isTest(path)).sort()) {
    const bytes = readFileSync(join(project, path));
    hash.update(`${path}\0${bytes.length}\0`).update(bytes);
  }
  return hash.digest("hex");
}

/** Where an image's file at `path` keeps the digest of the sources it was built from. */
export const digestPath = (path: string): string => `${path}.sources`;

/** True if `path` is there and was built from the sources as they are now. */
export function isOfSources(project: string, path: string): boolean {
  return (
    existsSync(path) &&
    existsSync(digestPath(path)) &&
    readFileSync(digestPath(path), "utf8") === sourcesDigest(project)
  );
}
