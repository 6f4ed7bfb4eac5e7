/** The hybrid ISO: CD and USB stick, BIOS and UEFI, from one tree. */
import { rmSync, statSync } from "node:fs";
import { join, relative } from "node:path";
import { KeelsonError } from "#lib/model/errors.ts";
import { fixedUuid } from "./artefacts.ts";
import type { Tools } from "./chroot.ts";
import { mediumLoaders } from "./grub.ts";

/** ISO label; the boot loader and the live system find the medium by it. */
export const mediumLabel = "KEELSON";
export const maxIsoBytes = 350_000_000;
const espType = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B";

/** Makes `iso` from the folder `medium`; every date in it is `epoch` (seconds). */
export function makeIso(
  iso: string,
  medium: string,
  inputs: {
    readonly project: string;
    readonly tools: Tools;
    readonly version: string;
    readonly epoch: number;
    readonly env: Readonly<Record<string, string>>;
    readonly binds: readonly string[];
  },
): number {
  const { tools, env, epoch } = inputs;
  const early = join(inputs.project, "image/boot/iso-early.cfg");
  const { bios, efi } = mediumLoaders(tools, medium, early, env);
  // The appended partition is the only copy that anybody reads.
  const date = `${new Date(epoch * 1000).toISOString().replaceAll(/[-:T]|\..*/g, "")}00`;
  rmSync(iso, { force: true });
  tools.run(
    [
      "sh",
      "-ec",
      'find "$0" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +; find "$0" -type d -exec chmod 755 {} +; find "$0" -type f -exec chmod 644 {} +; exec "$@"',
      medium,
      ...["xorriso", "-as", "mkisofs", "-quiet", "-r", "-J", "-V", mediumLabel],
      `--modification-date=${date}`,
      ...["--set_all_file_dates", date, "-sysid", "", "-volset", "keelson"],
      ...["-publisher", "Keelson", "-preparer", inputs.version, "-appid", "keelson"],
      ...["-b", relative(medium, bios), "-no-emul-boot", "-boot-load-size", "4"],
      ...["-boot-info-table", "--grub2-boot-info"],
      ...["--grub2-mbr", "/usr/lib/grub/i386-pc/boot_hybrid.img"],
      ...["--gpt_disk_guid", fixedUuid("iso", inputs.version), "-partition_offset", "16"],
      ...["-append_partition", "2", espType, efi, "-appended_part_as_gpt"],
      ...["-iso_mbr_part_type", "0x00"],
      ...["-eltorito-alt-boot", "-e", "--interval:appended_partition_2:all::", "-no-emul-boot"],
      ...["-m", efi, "-o", iso, medium],
    ],
    { env, binds: inputs.binds },
  );
  const { size } = statSync(iso);
  if (size > maxIsoBytes) {
    throw new KeelsonError(
      "NO_SPACE",
      `The ISO has ${(size / 1e6).toFixed(0)} MB; ${maxIsoBytes / 1e6} MB is the most it may have.`,
      { operation: "build image", remedy: "See docs/guide/building.md, 'What is in it'." },
    );
  }
  return size;
}
