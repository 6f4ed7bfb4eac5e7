/** What a release says of itself beside its version. */
import { nodeConfigVersion } from "#lib/answer-file/node-config.ts";
import type { DataFormat } from "#lib/bundle/release.ts";
import { formatVersion as storeFormat } from "#services/chunk-store/engine/layout.ts";

/** Oldest version that may be upgraded to this one in one step. */
export const upgradesFrom = "2026.11.0";

/** Debian's name. */
export const architecture = "amd64";
/** Machines with BIOS or UEFI. */
export const hardware = "pc";

/** Formats on a node's disks that this version reads; it writes the newest. */
export const dataFormats: Readonly<Record<string, DataFormat>> = {
  "chunk-store": { oldest: storeFormat, newest: storeFormat },
  node: { oldest: nodeConfigVersion, newest: nodeConfigVersion },
};
