import { crc32c as crc32cPlain } from "#lib/wire/crc32c.ts";
import { native } from "#native";

/** CRC-32C of `bytes`, continued from `initial` (0 to begin): the addon's, or the plain one. */
export const crc32c: (bytes: Uint8Array, initial?: number) => number =
  native === undefined ? crc32cPlain : (bytes, initial = 0) => native!.crc32c(bytes, initial);
