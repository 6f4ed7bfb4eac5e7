/**
 * Recognises a Keelson store by its first two blocks, whatever its format version: the installer
 * must not take a disk for empty because it can't read what is on it. Layout: docs/formats/store.md
 * (magic in bytes 0-15, pool in 32-47, store in 48-63 of each superblock).
 */

/** Bytes to read from the start of a device. */
export const probeBytes = 8192;

const blockBytes = 4096;
const magic = new TextEncoder().encode("KEELSON-STORE-SB");

export interface StoreTraces {
  /** UUIDs as text; of a damaged superblock too. */
  readonly poolId: string;
  readonly storeId: string;
}

/** What `head`, the first bytes of a device, says; undefined if there is no store. */
export function probeStore(head: Uint8Array): StoreTraces | undefined {
  for (let offset = 0; offset + 64 <= head.length; offset += blockBytes) {
    if (!magic.every((byte, index) => head[offset + index] === byte)) continue;
    return {
      poolId: uuidText(head.subarray(offset + 32, offset + 48)),
      storeId: uuidText(head.subarray(offset + 48, offset + 64)),
    };
  }
  return undefined;
}

function uuidText(bytes: Uint8Array): string {
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}
