/**
 * GRUB for BIOS and for the medium. An installed disk's boot code is made here, at build time,
 * without `grub-install`: the BIOS boot partition always lies at LBA 2048, so the two places that
 * hold a disk address can be filled in beforehand.
 *
 *   LBA 0      boot.img, 440 bytes: loads one sector from the address at offset 0x5c
 *   LBA 2048   core.img: its first sector (diskboot.img) loads the rest by the list at its end,
 *              12 bytes an entry: LBA (8), sectors (2), segment (2)
 */
import { mkdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { KeelsonError } from "#lib/model/errors.ts";
import type { Tools } from "./chroot.ts";

const sectorBytes = 512;
const coreLba = 2048;
const corePartitionBytes = 1 << 20;
const bootCodeBytes = 440;
/** GRUB_BOOT_MACHINE_KERNEL_SECTOR: where boot.img keeps the address of core.img. */
const kernelSectorOffset = 0x5c;
/** GRUB_BOOT_MACHINE_DRIVE_CHECK: a jump that old BIOSes need skipped; two NOPs do. */
const driveCheckOffset = 0x66;
/** The first entry of diskboot.img's list; GRUB_BOOT_MACHINE_LIST_SIZE is 12. */
const firstEntryOffset = sectorBytes - 12;

const diskModules =
  "biosdisk part_gpt part_msdos fat search search_label normal linux configfile echo test eval loadenv serial terminal all_video minicmd reboot halt".split(
    " ",
  );
const mediumModules =
  "iso9660 part_gpt part_msdos fat search search_label search_fs_file normal linux configfile echo test serial terminal all_video ls minicmd reboot halt".split(
    " ",
  );

/** The 440 bytes of boot code for the first sector of an installed disk. */
export function bootSector(tools: Tools): Buffer {
  const code = readFileSync(join(tools.tree, "usr/lib/grub/i386-pc/boot.img"));
  if (code.length !== sectorBytes) {
    throw new KeelsonError("FORMAT_UNKNOWN", `GRUB's boot.img has ${code.length} bytes, not 512.`);
  }
  code.writeBigUInt64LE(BigInt(coreLba), kernelSectorOffset);
  code.writeUInt16LE(0x9090, driveCheckOffset);
  return code.subarray(0, bootCodeBytes);
}

/** core.img for LBA 2048, padded to its partition. Its files are in /keelson of partition 2. */
export function coreImage(tools: Tools, scratch: string): Buffer {
  const path = join(scratch, ".core.img");
  tools.run(
    ["grub-mkimage", "-O", "i386-pc", "-p", "(,gpt2)/keelson", "-o", path, ...diskModules],
    { binds: [scratch] },
  );
  const core = readFileSync(path);
  rmSync(path);
  return placeCore(core);
}

/** Fills in the list of core.img's first sector and pads to the partition's size. */
export function placeCore(core: Buffer): Buffer {
  const sectors = Math.ceil(core.length / sectorBytes);
  // An upgrade puts the next one beside it (firmware-updater/boot-loaders.ts).
  if (sectors * sectorBytes > corePartitionBytes / 2) {
    throw new KeelsonError("NO_SPACE", "GRUB's core image doesn't fit into half of 1 MiB.");
  }
  const placed = Buffer.alloc(corePartitionBytes);
  core.copy(placed);
  placed.writeBigUInt64LE(BigInt(coreLba + 1), firstEntryOffset);
  placed.writeUInt16LE(sectors - 1, firstEntryOffset + 8);
  return placed;
}

/** grubenv(1024 bytes): a header, `name=value` lines, `#` to the end. */
export function grubEnvironment(values: Readonly<Record<string, string>>): string {
  const lines = Object.entries(values).map(([name, value]) => `${name}=${value}\n`);
  return `# GRUB Environment Block\n${lines.join("")}`.padEnd(1024, "#");
}

/** Loaders of the medium below `medium`/boot/grub: El Torito for BIOS, a FAT image for UEFI. */
export function mediumLoaders(
  tools: Tools,
  medium: string,
  earlyConfig: string,
  env: Readonly<Record<string, string>>,
): { bios: string; efi: string } {
  const folder = join(medium, "boot/grub");
  mkdirSync(folder, { recursive: true });
  const bios = join(folder, "eltorito.img");
  const efi = join(folder, "efi.img");
  const loader = join(folder, "BOOTX64.EFI");
  const run = (command: readonly string[]) => tools.run(command, { env, binds: [medium] });
  const image = (format: string, output: string, modules: readonly string[]) =>
    run([
      "grub-mkimage",
      "-O",
      format,
      "-p",
      "/boot/grub",
      "-c",
      earlyConfig,
      "-o",
      output,
      ...modules,
    ]);
  image("i386-pc-eltorito", bios, ["biosdisk", ...mediumModules]);
  image("x86_64-efi", loader, ["efi_gop", "efi_uga", ...mediumModules]);
  run([
    "sh",
    "-ec",
    `touch -d "@$SOURCE_DATE_EPOCH" "$2"
truncate -s 4M "$1"
mkfs.vfat --invariant -i 4b45454c -n KEELSON-EFI "$1" >/dev/null
mmd -i "$1" ::/EFI ::/EFI/BOOT
mcopy -m -i "$1" "$2" ::/EFI/BOOT/BOOTX64.EFI`,
    "sh",
    efi,
    loader,
  ]);
  rmSync(loader);
  return { bios, efi };
}
