/** What a release says of itself beside its version. */

/** Oldest version that may be upgraded to this one in one step. */
export const upgradesFrom = "2026.11.0";

/** Debian's name. */
export const architecture = "amd64";
/** Machines with BIOS or UEFI. */
export const hardware = "pc";

/** Formats on a node's disks that this version reads. */
export { dataFormats } from "#lib/data-format/formats.ts";
