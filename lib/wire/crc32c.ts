/**
 * CRC-32C (Castagnoli; RFC 7143 section 13.1, RFC 3385) in plain TypeScript, eight bytes a step.
 * About 3 us for 4096 bytes; the addon's takes 0.2: where it may be loaded, use
 * `#lib/volume/checksum.ts`, which picks.
 */
const polynomial = 0x82f63b78;
const tables = makeTables();

function makeTables(): Uint32Array {
  const all = new Uint32Array(8 * 256);
  for (let byte = 0; byte < 256; byte++) {
    let crc = byte;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ polynomial : crc >>> 1;
    all[byte] = crc;
  }
  for (let index = 256; index < all.length; index++) {
    const crc = all[index - 256];
    all[index] = (crc >>> 8) ^ all[crc & 255];
  }
  return all;
}

/** CRC of `bytes`, continued from `initial` (0 to begin); 0 .. 2^32-1. */
export function crc32c(bytes: Uint8Array, initial = 0): number {
  let crc = ~initial;
  let at = 0;
  const end = bytes.length;
  for (; at + 8 <= end; at += 8) {
    crc ^= bytes[at] | (bytes[at + 1] << 8) | (bytes[at + 2] << 16) | (bytes[at + 3] << 24);
    crc =
      tables[1792 + (crc & 255)] ^
      tables[1536 + ((crc >>> 8) & 255)] ^
      tables[1280 + ((crc >>> 16) & 255)] ^
      tables[1024 + (crc >>> 24)] ^
      tables[768 + bytes[at + 4]] ^
      tables[512 + bytes[at + 5]] ^
      tables[256 + bytes[at + 6]] ^
      tables[bytes[at + 7]];
  }
  for (; at < end; at++) crc = (crc >>> 8) ^ tables[(crc ^ bytes[at]) & 255];
  return ~crc >>> 0;
}
