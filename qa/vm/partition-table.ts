/** Reads the GPT of a disk image (UEFI specification 2.10, section 5.3), to break it on purpose. */
import { closeSync, openSync, readSync, writeSync } from "node:fs";
import { KeelsonError } from "#lib/model/errors.ts";

export interface Partition {
  readonly label: string;
  readonly uuid: string;
  readonly firstByte: number;
  readonly sizeBytes: number;
}

const sectorBytes = 512;

export function readPartitions(path: string): Partition[] {
  const file = openSync(path, "r");
  try {
    const header = Buffer.alloc(sectorBytes);
    readSync(file, header, 0, sectorBytes, sectorBytes);
    if (header.toString("latin1", 0, 8) !== "EFI PART") {
      throw new KeelsonError("FORMAT_UNKNOWN", `${path} has no GPT.`);
    }
    const start = Number(header.readBigUInt64LE(72)) * sectorBytes;
    const count = header.readUInt32LE(80);
    const size = header.readUInt32LE(84);
    const entries = Buffer.alloc(count * size);
    readSync(file, entries, 0, entries.length, start);
    return Array.from({ length: count }, (_, index) =>
      entries.subarray(index * size, (index + 1) * size),
    )
      .filter((entry) => entry.subarray(0, 16).some((byte) => byte !== 0))
      .map((entry) => {
        const first = Number(entry.readBigUInt64LE(32));
        const last = Number(entry.readBigUInt64LE(40));
        return {
          label: entry.toString("utf16le", 56, 128).replace(/\0.*$/s, ""),
          uuid: guidText(entry.subarray(16, 32)),
          firstByte: first * sectorBytes,
          sizeBytes: (last - first + 1) * sectorBytes,
        };
      });
  } finally {
    closeSync(file);
  }
}

/** The first three fields of a GUID are little-endian. */
function guidText(bytes: Buffer): string {
  const hex = (from: number, to: number) => bytes.subarray(from, to).toString("hex");
  const swapped = (from: number, to: number) =>
    Buffer.from(bytes.subarray(from, to)).reverse().toString("hex");
  return `${swapped(0, 4)}-${swapped(4, 6)}-${swapped(6, 8)}-${hex(8, 10)}-${hex(10, 16)}`;
}

/** Inverts one byte of a file. */
export function flipByte(path: string, offsetBytes: number): void {
  const file = openSync(path, "r+");
  try {
    const byte = Buffer.alloc(1);
    if (readSync(file, byte, 0, 1, offsetBytes) !== 1) {
      throw new KeelsonError("INVALID_ARGUMENT", `${path} has no byte ${offsetBytes}.`);
    }
    byte[0] ^= 0xff;
    writeSync(file, byte, 0, 1, offsetBytes);
  } finally {
    closeSync(file);
  }
}
