/** Where a file lies in an ISO 9660 image (ECMA-119), Rock Ridge names left aside. */
import { closeSync, openSync, readSync } from "node:fs";
import { KeelsonError } from "#lib/model/errors.ts";

const sectorBytes = 2048;

/** First byte and size of `path`, found by its ISO names without regard to case or version. */
export function isoFileOffset(
  iso: string,
  path: string,
): { readonly firstByte: number; readonly sizeBytes: number } {
  const file = openSync(iso, "r");
  try {
    const read = (at: number, length: number) => {
      const bytes = Buffer.alloc(length);
      readSync(file, bytes, 0, length, at);
      return bytes;
    };
    const descriptor = read(16 * sectorBytes, sectorBytes);
    if (descriptor.toString("latin1", 1, 6) !== "CD001") {
      throw new KeelsonError("FORMAT_UNKNOWN", `${iso} is not an ISO 9660 image.`);
    }
    let extent = { sector: descriptor.readUInt32LE(158), sizeBytes: descriptor.readUInt32LE(166) };
    for (const part of path.split("/").filter(Boolean)) {
      const folder = read(extent.sector * sectorBytes, extent.sizeBytes);
      const found = records(folder).find(({ name }) => name.toLowerCase() === part.toLowerCase());
      if (found === undefined) throw new KeelsonError("NOT_FOUND", `${iso} has no ${path}.`);
      extent = found;
    }
    return { firstByte: extent.sector * sectorBytes, sizeBytes: extent.sizeBytes };
  } finally {
    closeSync(file);
  }
}

/** Directory records (ECMA-119, 9.1); a record never crosses a sector. */
function records(folder: Buffer): { name: string; sector: number; sizeBytes: number }[] {
  const found: { name: string; sector: number; sizeBytes: number }[] = [];
  for (let at = 0; at < folder.length; ) {
    const length = folder[at];
    if (length === 0) {
      at = (Math.floor(at / sectorBytes) + 1) * sectorBytes;
      continue;
    }
    found.push({
      name: folder.toString("latin1", at + 33, at + 33 + folder[at + 32]).replace(/\.?;\d+$/, ""),
      sector: folder.readUInt32LE(at + 2),
      sizeBytes: folder.readUInt32LE(at + 10),
    });
    at += length;
  }
  return found;
}
