/**
 * The boot loaders themselves, of both firmwares. Touched only once a version is kept: a trial must
 * come back by the loader that started it. Each change is one sector, so that a power cut leaves the
 * old loader or the new one:
 *
 *   UEFI   EFI/BOOT/BOOTX64.EFI    the one path that every firmware knows. The new file is written
 *                                  beside it and read back; then the name's directory entry is made
 *                                  to stand for it (decision 0157)
 *   BIOS   partition keelson-bios  two halves, a GRUB in each. The new one goes where the first
 *                                  sector of the disk doesn't point; then that sector is written,
 *                                  which has the boot code and the place of its GRUB
 *
 * What is the same already is not written. Loaders don't go back with a slot: each works with the
 * slots and settings of the releases before and after it.
 */
import { basename, join } from "node:path";
import { KeelsonError } from "#lib/model/errors.ts";
import { writeWhole } from "./boot-entries.ts";
import { chunkBytes, type Files } from "./files.ts";
import { gptTypes, readGpt } from "./gpt.ts";
import type { BootDisk } from "./slots.ts";

/** Parts of a bundle that are no slot's. */
export const loaderPartNames = [
  "systemd-boot",
  "loader-config",
  "grub-boot",
  "grub-core",
  "grub-config",
] as const;
export type LoaderPartName = (typeof loaderPartNames)[number];
export type LoaderParts = Readonly<Record<LoaderPartName, Buffer>>;

const sectorBytes = 512;
const bootCodeBytes = 440;
/** Where boot.img has the LBA of its GRUB (image/grub.ts). */
const coreLbaOffset = 0x5c;
/** The one entry of diskboot.img's list, at the end of GRUB's first sector: LBA (8), sectors (2). */
const listOffset = sectorBytes - 12;

export class BootLoaders {
  readonly #files: Files;
  readonly #at: BootDisk;

  constructor(files: Files, at: BootDisk) {
    this.#files = files;
    this.#at = at;
  }

  /** Names of what was replaced. Repeatable. MEDIA_ERROR, NO_SPACE: what was there before boots. */
  async upgrade(parts: LoaderParts): Promise<string[]> {
    checkLoader(parts["systemd-boot"]);
    const { esp } = this.#at;
    const file = async (path: string, name: LoaderPartName) =>
      (await replaceFile(this.#files, join(esp, path), parts[name])) ? [basename(path)] : [];
    return [
      ...(await file("EFI/BOOT/BOOTX64.EFI", "systemd-boot")),
      ...(await file("loader/loader.conf", "loader-config")),
      ...(await file("keelson/grub.cfg", "grub-config")),
      ...(this.#replaceGrub(parts["grub-boot"], parts["grub-core"]) ? ["GRUB"] : []),
    ];
  }

  #replaceGrub(bootCode: Buffer, paddedCore: Buffer): boolean {
    const { disk } = this.#at;
    const files = this.#files;
    const place = this.#grubPlace();
    const core = wholeCore(paddedCore);
    const sector = files.read(disk, 0, sectorBytes);
    const now = Number(sector.readBigUInt64LE(coreLbaOffset));
    const [first, second] = place.halves;
    if (now !== first && now !== second) {
      throw grubFault(disk, `the first sector starts something at ${now}, not in keelson-bios`);
    }
    if (core.length > place.halfBytes || bootCode.length > bootCodeBytes) {
      throw grubFault(disk, "the new one does not fit beside the old one");
    }
    const current = files.read(disk, now * sectorBytes, core.length);
    const same =
      current.equals(placedCore(core, now)) &&
      sector.subarray(0, bootCode.length).equals(placedBootCode(bootCode, now));
    if (same) return false;
    if (
      now === first &&
      coreBytes(files.read(disk, now * sectorBytes, sectorBytes)) > place.halfBytes
    ) {
      throw grubFault(disk, "the one in use takes more than its half");
    }
    const next = now === first ? second : first;
    const placed = placedCore(core, next);
    for (let at = 0; at < placed.length; at += chunkBytes) {
      files.write(disk, next * sectorBytes + at, placed.subarray(at, at + chunkBytes));
    }
    files.sync(disk);
    for (let at = 0; at < placed.length; at += chunkBytes) {
      const wanted = placed.subarray(at, at + chunkBytes);
      if (files.readBack(disk, next * sectorBytes + at, wanted.length).equals(wanted)) continue;
      throw mediaFault(disk);
    }
    // Disk signature and protective partition table stay as they are.
    placedBootCode(bootCode, next).copy(sector);
    files.write(disk, 0, sector);
    files.sync(disk);
    return true;
  }

  #grubPlace(): { halves: readonly [number, number]; halfBytes: number } {
    const { disk } = this.#at;
    const bios = readGpt(this.#files, disk).find(({ type }) => type === gptTypes.biosBoot);
    if (bios === undefined) throw grubFault(disk, "there is no partition keelson-bios");
    const halfSectors = Math.floor(bios.sizeBytes / 2 / sectorBytes);
    const first = bios.firstByte / sectorBytes;
    return { halves: [first, first + halfSectors], halfBytes: halfSectors * sectorBytes };
  }
}

/**
 * Makes `path` have these bytes; false: it has them already. At any moment the name stands for the
 * old bytes or for the new ones.
 */
export async function replaceFile(files: Files, path: string, bytes: Buffer): Promise<boolean> {
  const now = contentOf(files, path);
  if (now?.equals(bytes)) return false;
  const beside = freeName(files, path);
  await writeWhole(files, beside, piecesOf(bytes));
  files.replace(beside, path);
  const found = files.readBack(path, 0, bytes.length);
  if (!found.equals(bytes)) throw mediaFault(path);
  return true;
}

/**
 * A name beside `path` that nothing has. What a power cut left there is not looked at: it may stand
 * for clusters that `path` has too, or had, and to read, write or delete it could damage both. It
 * costs its size on the ESP, once for each cut.
 */
function freeName(files: Files, path: string): string {
  const names = new Set(files.list(join(path, "..")).map((name) => name.toLowerCase()));
  for (let count = 0; count < 100; count++) {
    const name = `${path}.${count}`;
    if (!names.has(basename(name).toLowerCase())) return name;
  }
  throw new KeelsonError("NO_SPACE", `There are too many names beside ${path}.`, {
    operation: "upgrade boot loader",
    object: path,
    remedy: "The boot loader stays as it was. Check the boot disk.",
  });
}

function contentOf(files: Files, path: string): Buffer | undefined {
  const size = files.size(path);
  return size === undefined ? undefined : files.read(path, 0, size);
}

async function* piecesOf(bytes: Buffer): AsyncGenerator<Buffer> {
  for (let at = 0; at < bytes.length; at += chunkBytes) yield bytes.subarray(at, at + chunkBytes);
}

/** A file that no firmware would start is not put where firmware looks. */
function checkLoader(bytes: Buffer): void {
  const pe = bytes.length >= 64 ? bytes.readUInt32LE(60) : 0;
  const isPe =
    bytes.toString("latin1", 0, 2) === "MZ" && bytes.toString("latin1", pe, pe + 4) === "PE\0\0";
  if (isPe) return;
  throw new KeelsonError("FORMAT_CORRUPT", "The bundle's systemd-boot is no UEFI program.", {
    operation: "upgrade boot loader",
    remedy: "The boot loader stays as it was. Tell who made the bundle.",
  });
}

/** Bytes of the GRUB that begins with this sector, by its list. */
function coreBytes(sector: Buffer): number {
  return (sector.readUInt16LE(listOffset + 8) + 1) * sectorBytes;
}

/** Without the padding to its partition. */
function wholeCore(padded: Buffer): Buffer {
  const one = padded.length >= sectorBytes && padded.readUInt16LE(listOffset - 12 + 8) === 0;
  if (!one || coreBytes(padded) > padded.length || coreBytes(padded) === sectorBytes) {
    throw new KeelsonError("FORMAT_CORRUPT", "The bundle's GRUB is not in one piece.", {
      operation: "upgrade boot loader",
      remedy: "The boot loader stays as it was. Tell who made the bundle.",
    });
  }
  return padded.subarray(0, coreBytes(padded));
}

function placedCore(core: Buffer, lba: number): Buffer {
  const placed = Buffer.from(core);
  placed.writeBigUInt64LE(BigInt(lba + 1), listOffset);
  return placed;
}

function placedBootCode(code: Buffer, lba: number): Buffer {
  const placed = Buffer.from(code);
  placed.writeBigUInt64LE(BigInt(lba), coreLbaOffset);
  return placed;
}

function grubFault(disk: string, why: string): KeelsonError {
  return new KeelsonError("CONFLICT", `GRUB stays as it was: ${why}.`, {
    operation: "upgrade boot loader",
    object: disk,
    remedy: "The node starts as before.",
  });
}

function mediaFault(path: string): KeelsonError {
  return new KeelsonError("MEDIA_ERROR", `${path} does not read back as it was written.`, {
    operation: "upgrade boot loader",
    object: path,
    remedy: "Check the boot disk, its cable and the memory.",
  });
}
