/**
 * The partition table, as far as an upgrade changes it: label and UUID of one slot's partitions
 * (UEFI specification 2.10, section 5.3). Nothing moves.
 *
 *   LBA 1            header: CRC of itself (offset 16), place of the other header (32), LBA of the
 *                    entries (72), their number (80), size (84) and CRC (88)
 *   LBA 2..          entries, 128 bytes each: type (0), UUID (16), first and last LBA (32, 40),
 *                    attributes (48), name (56, UTF-16)
 *   last LBA - 32..  the same entries again, then a second header in the last LBA
 *
 * The second copy is written and synced first. A power cut while the first is written may leave it
 * with a wrong CRC: firmware, and Linux with `gpt` on its line, then take the second.
 */
import { crc32 } from "node:zlib";
import { KeelsonError } from "#lib/model/errors.ts";
import type { Files } from "./files.ts";

export interface GptEntry {
  /** From 0; the kernel counts partitions from 1. */
  readonly index: number;
  readonly type: string;
  readonly uuid: string;
  readonly label: string;
  readonly firstByte: number;
  readonly sizeBytes: number;
}

export interface EntryChange {
  readonly index: number;
  readonly uuid: string;
  readonly label: string;
}

interface Table {
  readonly sectorBytes: number;
  readonly header: Buffer;
  readonly headerByte: number;
  readonly entries: Buffer;
  readonly entriesByte: number;
}

export const gptTypes = {
  esp: "c12a7328-f81f-11d2-ba4b-00a0c93ec93b",
  root: "4f68bce3-e8cd-4db1-96e7-fbcaf984b709",
  biosBoot: "21686148-6449-6e6f-744e-656564454649",
  rootVerity: "2c7357ed-ebd2-46d9-aec1-23d437ec2bf5",
} as const;

const headerBytes = 92;
const labelCharacters = 36;

/** Every partition of the disk, by its first table, or by its second if the first is damaged. */
export function readGpt(files: Files, disk: string): GptEntry[] {
  const { entries, header, sectorBytes } = readTable(files, disk);
  const size = header.readUInt32LE(84);
  const found: GptEntry[] = [];
  for (let index = 0; index < header.readUInt32LE(80); index++) {
    const entry = entries.subarray(index * size, (index + 1) * size);
    if (entry.subarray(0, 16).every((byte) => byte === 0)) continue;
    const first = Number(entry.readBigUInt64LE(32));
    const last = Number(entry.readBigUInt64LE(40));
    found.push({
      index,
      type: guidText(entry.subarray(0, 16)),
      uuid: guidText(entry.subarray(16, 32)),
      label: entry.toString("utf16le", 56, 128).replace(/\0.*$/s, ""),
      firstByte: first * sectorBytes,
      sizeBytes: (last - first + 1) * sectorBytes,
    });
  }
  return found;
}

/** Writes labels and UUIDs, the second table first. Both are brought in line if one was damaged. */
export function changeGpt(files: Files, disk: string, changes: readonly EntryChange[]): void {
  const table = readTable(files, disk);
  const { sectorBytes } = table;
  const entries = Buffer.from(table.entries);
  const size = table.header.readUInt32LE(84);
  for (const { index, uuid, label } of changes) {
    if (label.length > labelCharacters) {
      throw new KeelsonError("INVALID_ARGUMENT", `The partition label ${label} is too long.`);
    }
    const entry = entries.subarray(index * size, (index + 1) * size);
    guidBytes(uuid).copy(entry, 16);
    entry.fill(0, 56, 128);
    entry.write(label, 56, "utf16le");
  }
  const here = table.headerByte;
  const there = Number(table.header.readBigUInt64LE(32)) * sectorBytes;
  const [primary, secondary] = here < there ? [here, there] : [there, here];
  // The entries end right before the second header, and begin right after the first one.
  const length = Math.ceil(entries.length / sectorBytes) * sectorBytes;
  const place = (at: number, other: number, entriesAt: number) => {
    const header = Buffer.from(table.header);
    header.writeBigUInt64LE(BigInt(at / sectorBytes), 24);
    header.writeBigUInt64LE(BigInt(other / sectorBytes), 32);
    header.writeBigUInt64LE(BigInt(entriesAt / sectorBytes), 72);
    header.writeUInt32LE(crc32(entries), 88);
    header.writeUInt32LE(0, 16);
    header.writeUInt32LE(crc32(header.subarray(0, headerBytes)), 16);
    return header;
  };
  const padded = Buffer.alloc(length);
  entries.copy(padded);
  const secondEntries = secondary - length;
  files.write(
    disk,
    secondEntries,
    Buffer.concat([padded, place(secondary, primary, secondEntries)]),
  );
  files.sync(disk);
  const firstEntries = primary + sectorBytes;
  files.write(disk, primary, Buffer.concat([place(primary, secondary, firstEntries), padded]));
  files.sync(disk);
}

function readTable(files: Files, disk: string): Table {
  const total = files.size(disk) ?? 0;
  for (const sectorBytes of [512, 4096]) {
    const first = readOne(files, disk, sectorBytes, sectorBytes);
    if (first !== undefined) return first;
    // A block device's size is not its inode's: its own end is asked for by reading.
    const last = total > 0 ? total - sectorBytes : undefined;
    const second = last === undefined ? undefined : readOne(files, disk, last, sectorBytes);
    if (second !== undefined) return second;
  }
  const damaged = readSecondByHint(files, disk);
  if (damaged !== undefined) return damaged;
  throw new KeelsonError("FORMAT_CORRUPT", `${disk} has no readable partition table.`, {
    operation: "read partition table",
    object: disk,
    remedy: "Install again; a store on the disk can be kept.",
  });
}

/** The damaged first header still names the second one's place in most cases. */
function readSecondByHint(files: Files, disk: string): Table | undefined {
  for (const sectorBytes of [512, 4096]) {
    const header = files.read(disk, sectorBytes, sectorBytes);
    if (header.length < sectorBytes || header.toString("latin1", 0, 8) !== "EFI PART") continue;
    const second = Number(header.readBigUInt64LE(32)) * sectorBytes;
    const table = readOne(files, disk, second, sectorBytes);
    if (table !== undefined) return table;
  }
  return undefined;
}

function readOne(
  files: Files,
  disk: string,
  headerByte: number,
  sectorBytes: number,
): Table | undefined {
  const header = files.read(disk, headerByte, sectorBytes);
  if (header.length < sectorBytes || header.toString("latin1", 0, 8) !== "EFI PART") {
    return undefined;
  }
  const bare = Buffer.from(header.subarray(0, headerBytes));
  bare.writeUInt32LE(0, 16);
  if (header.readUInt32LE(12) !== headerBytes || crc32(bare) !== header.readUInt32LE(16)) {
    return undefined;
  }
  const entriesByte = Number(header.readBigUInt64LE(72)) * sectorBytes;
  const length = header.readUInt32LE(80) * header.readUInt32LE(84);
  if (length > 1 << 20) return undefined;
  const entries = files.read(disk, entriesByte, length);
  if (entries.length !== length || crc32(entries) !== header.readUInt32LE(88)) return undefined;
  return { sectorBytes, header, headerByte, entries, entriesByte };
}

/** The first three fields of a GUID are little-endian. */
function guidText(bytes: Buffer): string {
  const hex = (from: number, to: number) => bytes.subarray(from, to).toString("hex");
  const swapped = (from: number, to: number) =>
    Buffer.from(bytes.subarray(from, to)).reverse().toString("hex");
  return `${swapped(0, 4)}-${swapped(4, 6)}-${swapped(6, 8)}-${hex(8, 10)}-${hex(10, 16)}`;
}

export function guidBytes(text: string): Buffer {
  const bytes = Buffer.from(text.replaceAll("-", ""), "hex");
  if (bytes.length !== 16) {
    throw new KeelsonError("INVALID_ARGUMENT", `${text} is not a UUID.`);
  }
  bytes.subarray(0, 4).reverse();
  bytes.subarray(4, 6).reverse();
  bytes.subarray(6, 8).reverse();
  return bytes;
}

/** A root hash's two halves as the UUIDs of root and verity (docs/formats/image.md). */
export function slotUuids(rootHash: string): { root: string; verity: string } {
  const uuid = (hex: string) =>
    hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5").toLowerCase();
  return { root: uuid(rootHash.slice(0, 32)), verity: uuid(rootHash.slice(32)) };
}
