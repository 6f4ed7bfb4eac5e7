/**
 * Disk image files of other hypervisors: told apart by their own bytes, and refused by our own
 * reading where they would make a reader open another file. qemu-img reads the rest.
 *
 * VMDK: Virtual Disk Format 5.0, 4.2 to 4.4. VHD: Virtual Hard Disk Image Format Specification 1.0.
 * OVA: DSP0243, 5.3: a tar archive (POSIX.1 ustar) with an OVF descriptor and the disks.
 */
import type { FileHandle } from "node:fs/promises";
import { KeelsonError } from "#lib/model/errors.ts";

/** As people call them. */
export const foreignFormats = ["vmdk", "vhd", "vhdx", "vdi", "ova"] as const;
export type ForeignFormat = (typeof foreignFormats)[number];
/** All that is imported. */
export const imageFormats = ["raw", "qcow2", ...foreignFormats] as const;
export type ImageFormat = (typeof imageFormats)[number];

export interface ForeignImage {
  readonly format: ForeignFormat;
  /** QEMU's name of the driver. */
  readonly driver: "vmdk" | "vpc" | "vhdx" | "vdi";
  /** Where in the file it lies. */
  readonly offsetBytes: number;
  readonly lengthBytes: number;
}

const sectorBytes = 512;
const mostDescriptorBytes = 64 * 1024;
const mostMembers = 4096;
/** Of a VMDK's extents: those that are one file each, with their descriptor inside. */
const oneFileTypes = ["monolithicSparse", "streamOptimized"];

/** Undefined: none of these formats. FORMAT_CORRUPT, UNSUPPORTED with what to do instead. */
export async function recogniseForeign(
  file: FileHandle,
  fileBytes: number,
): Promise<ForeignImage | undefined> {
  const head = await readAt(file, 0, sectorBytes);
  const whole = { offsetBytes: 0, lengthBytes: fileBytes };
  if (startsWith(head, "KDMV") || startsWith(head, "# Disk DescriptorFile")) {
    await checkVmdk(file, whole);
    return { format: "vmdk", driver: "vmdk", ...whole };
  }
  if (startsWith(head, "vhdxfile")) return { format: "vhdx", driver: "vhdx", ...whole };
  if (head.length >= 68 && head.readUInt32LE(64) === 0xbeda107f) {
    return { format: "vdi", driver: "vdi", ...whole };
  }
  // A fixed VHD begins with its disk: only its last sector tells.
  const footer = startsWith(head, "conectix")
    ? head
    : await readAt(file, Math.max(0, fileBytes - sectorBytes), sectorBytes);
  if (startsWith(footer, "conectix")) {
    checkVhd(footer);
    return { format: "vhd", driver: "vpc", ...whole };
  }
  if (isTar(head)) return await findDisk(file, fileBytes);
  return undefined;
}

async function checkVmdk(
  file: FileHandle,
  { offsetBytes, lengthBytes }: { offsetBytes: number; lengthBytes: number },
): Promise<void> {
  const head = await readAt(file, offsetBytes, Math.min(sectorBytes, lengthBytes));
  if (startsWith(head, "# Disk DescriptorFile")) {
    throw unsupported(
      "The VMDK is only the description of a disk whose data is in other files",
      "Export the machine as an OVA, or convert the disk with qemu-img convert -O qcow2.",
    );
  }
  if (head.length < sectorBytes || !startsWith(head, "KDMV")) throw corrupt("VMDK", "its header");
  const version = head.readUInt32LE(4);
  if (version < 1 || version > 3) throw corrupt("VMDK", `version ${version}`);
  const capacity = head.readBigUInt64LE(12);
  const descriptorAt = Number(head.readBigUInt64LE(28)) * sectorBytes;
  const descriptorBytes = Number(head.readBigUInt64LE(36)) * sectorBytes;
  if (capacity === 0n || descriptorAt === 0) throw onePart();
  if (descriptorBytes > mostDescriptorBytes || descriptorAt + descriptorBytes > lengthBytes) {
    throw corrupt("VMDK", "its description lies outside of it");
  }
  const text = (await readAt(file, offsetBytes + descriptorAt, descriptorBytes)).toString("latin1");
  const value = (key: string) =>
    new RegExp(`^\\s*${key}\\s*=\\s*"?([^"\\r\\n]*)`, "im").exec(text)?.[1];
  if (
    /parentFileNameHint/i.test(text) ||
    !/^f{8}$/i.test(value("parentCID")?.trim() ?? "ffffffff")
  ) {
    throw unsupported(
      "The VMDK is a snapshot that needs another file",
      "Export the machine as an OVA, or flatten the disk with qemu-img convert -O qcow2.",
    );
  }
  const type = value("createType");
  if (type === undefined) throw onePart();
  if (!oneFileTypes.some((known) => known.toLowerCase() === type.toLowerCase())) {
    throw unsupported(
      `The VMDK is of type ${type.slice(0, 40)}, not ${oneFileTypes.join(" or ")}`,
      "Convert the disk with qemu-img convert -O qcow2, then import that.",
    );
  }
}

const onePart = () =>
  unsupported(
    "The VMDK is one part of a disk in several files",
    "Export the machine as an OVA, or convert the disk with qemu-img convert -O qcow2.",
  );

function checkVhd(footer: Buffer): void {
  if (footer.length < 64) throw corrupt("VHD", "it is cut short");
  const type = footer.readUInt32BE(60);
  if (type === 2 || type === 3) return;
  if (type !== 4) throw corrupt("VHD", `disk type ${type}`);
  throw unsupported(
    "The VHD is a differencing disk that needs another file",
    "Merge it with its parent, then import that.",
  );
}

/** The one disk of an OVA. */
async function findDisk(file: FileHandle, fileBytes: number): Promise<ForeignImage> {
  const disks: { name: string; offsetBytes: number; lengthBytes: number }[] = [];
  let at = 0;
  for (let members = 0; ; members++) {
    if (members > mostMembers) throw corrupt("OVA", `more than ${mostMembers} files`);
    const head = await readAt(file, at, sectorBytes);
    if (head.length < sectorBytes || head.every((byte) => byte === 0)) break;
    if (!isTar(head)) throw corrupt("OVA", `no file begins at byte ${at}`);
    const sizeBytes = tarNumber(head.subarray(124, 136));
    const offsetBytes = at + sectorBytes;
    if (sizeBytes === undefined || offsetBytes + sizeBytes > fileBytes) {
      throw corrupt("OVA", "it is cut short");
    }
    const name = textOf(head.subarray(0, 100));
    const isFile = head[156] === 0 || head[156] === 0x30;
    if (isFile && /\.vmdk(\.\w+)?$/i.test(name)) {
      disks.push({ name, offsetBytes, lengthBytes: sizeBytes });
    }
    at = offsetBytes + Math.ceil(sizeBytes / sectorBytes) * sectorBytes;
  }
  const [disk, ...more] = disks;
  if (disk === undefined) {
    throw unsupported(
      "The archive holds no .vmdk",
      "Give an OVA, or unpack it and import its disk.",
    );
  }
  if (more.length > 0) {
    const names = disks.map(({ name }) => name).join(", ");
    throw unsupported(
      `The OVA holds ${disks.length} disks: ${names.slice(0, 300)}`,
      "Unpack it with tar -xf, then import each of them.",
    );
  }
  if (!/\.vmdk$/i.test(disk.name)) {
    throw unsupported(`The OVA's disk ${disk.name} is compressed`, "Unpack both, then import it.");
  }
  await checkVmdk(file, disk);
  const { offsetBytes, lengthBytes } = disk;
  return { format: "ova", driver: "vmdk", offsetBytes, lengthBytes };
}

/** `ustar`, and a header whose checksum is right. */
function isTar(head: Buffer): boolean {
  if (head.length < sectorBytes || head.toString("latin1", 257, 262) !== "ustar") return false;
  let sum = 0;
  for (let i = 0; i < sectorBytes; i++) sum += i >= 148 && i < 156 ? 0x20 : head[i];
  return tarNumber(head.subarray(148, 156)) === sum;
}

/** Octal digits, or base 256 where the first bit is set. */
function tarNumber(field: Buffer): number | undefined {
  if ((field[0] & 0x80) !== 0) {
    const value = field.subarray(1).reduce((sum, byte) => sum * 256 + byte, field[0] & 0x7f);
    return Number.isSafeInteger(value) ? value : undefined;
  }
  const digits = textOf(field).trim();
  return /^[0-7]{1,12}$/.test(digits) ? Number.parseInt(digits, 8) : undefined;
}

function textOf(field: Buffer): string {
  const end = field.indexOf(0);
  return field.toString("latin1", 0, end < 0 ? field.length : end);
}

function startsWith(head: Buffer, text: string): boolean {
  return head.toString("latin1", 0, text.length) === text;
}

/** Fewer bytes at the file's end. */
async function readAt(file: FileHandle, position: number, lengthBytes: number): Promise<Buffer> {
  const bytes = Buffer.alloc(lengthBytes);
  const { bytesRead } = await file.read(bytes, 0, lengthBytes, position);
  return bytes.subarray(0, bytesRead);
}

function corrupt(format: string, why: string): KeelsonError {
  return new KeelsonError("FORMAT_CORRUPT", `The ${format} is damaged: ${why}.`, {
    remedy: "Check the download, then import it again.",
  });
}

function unsupported(what: string, remedy: string): KeelsonError {
  return new KeelsonError("UNSUPPORTED", `${what}.`, { remedy });
}
