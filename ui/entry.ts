/** What people type or drop, read the way they meant it. */
import { parseSize } from "#lib/model/size.ts";

/** Bytes, rounded up to 4096 as api wants them; a bare number means GiB. Undefined if unreadable. */
export function readSize(text: string): number | undefined {
  const bare = /^\s*\d+(\.\d+)?\s*$/.test(text) ? `${text.trim()}G` : text;
  const sizeBytes = parseSize(bare);
  return sizeBytes === undefined || sizeBytes === 0
    ? undefined
    : Math.ceil(sizeBytes / 4096) * 4096;
}

/** `debian 13.qcow2` -> `debian-13`: what api takes as a name. */
export function nameFromFile(fileName: string): string {
  const bare = fileName.replace(/(\.(qcow2?|img|raw|bin|iso|gz|xz))+$/i, "");
  const name = bare
    .replaceAll(/[^A-Za-z0-9._-]+/g, "-")
    .slice(0, 63)
    .replaceAll(/^[^A-Za-z0-9]+|[^A-Za-z0-9]+$/g, "");
  return name === "" ? "image" : name;
}

/** `name`, or `name-2`, `name-3` where it is taken. */
export function freeName(name: string, taken: readonly string[]): string {
  if (!taken.includes(name)) return name;
  const stem = name.slice(0, 58);
  let number = 2;
  while (taken.includes(`${stem}-${number}`)) number++;
  return `${stem}-${number}`;
}
