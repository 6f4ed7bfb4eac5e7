/** Diskless QEMU guests on a lab segment, by emulation: firmware's view of netboot. */
import { copyFileSync, existsSync } from "node:fs";
import { join } from "node:path";
import type { Lab, Segment } from "./lab.ts";
import type { Program } from "./program.ts";

export type Firmware =
  /** SeaBIOS with QEMU's iPXE ROM: iPXE from the first packet. */
  | "ipxe-rom"
  /** SeaBIOS starting a given iPXE image with a script, to be a BIOS PXE client of our loader. */
  | { readonly lkrn: string; readonly script: string }
  /** OVMF's own PXE stack. */
  | "uefi-pxe"
  /** OVMF's own HTTP boot. */
  | "uefi-http";

export interface Guest {
  /** Its serial console is the program's output. */
  readonly program: Program;
  readonly mac: string;
  readonly uuid: string;
}

function firstOf(paths: readonly string[]): string {
  const found = paths.find((path) => existsSync(path));
  if (found === undefined) throw new Error(`none of ${paths.join(", ")} is installed`);
  return found;
}

function uefiFlash(lab: Lab): string[] {
  const code = firstOf(["/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_CODE.fd"]);
  const variables = join(lab.directory("ovmf"), "vars.fd");
  copyFileSync(code.replace("CODE", "VARS"), variables);
  return [
    ...["-drive", `if=pflash,format=raw,readonly=on,file=${code}`],
    ...["-drive", `if=pflash,format=raw,file=${variables}`],
  ];
}

/** Without these OVMF tries PXE first, for minutes. */
const httpOnly = ["IPv4PXESupport", "IPv6PXESupport"].flatMap((name) => [
  "-fw_cfg",
  `name=opt/org.tianocore/${name},string=no`,
]);

/**
 * The text a console shows once terminal control sequences are gone: OVMF positions each line, so
 * a pattern must not count on line ends.
 */
export function plainText(console: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control sequences are what goes.
  return console.replaceAll(/\x1b\[[0-9;?]*[A-Za-z]/g, "").replaceAll("\r", "");
}

export async function startGuest(
  lab: Lab,
  segment: Segment,
  options: { readonly firmware: Firmware; readonly mac: string; readonly uuid: string },
): Promise<Guest> {
  const { firmware, mac, uuid } = options;
  const tap = await segment.tap();
  const uefi = firmware === "uefi-pxe" || firmware === "uefi-http";
  const rom = uefi || typeof firmware === "object" ? ",romfile=" : "";
  const memory = uefi ? 384 : 128;
  const program = segment.space.spawn("nice", [
    "qemu-system-x86_64",
    ...["-M", "q35,graphics=off", "-accel", "tcg,tb-size=128", "-smp", "1", "-m", String(memory)],
    ...["-nographic", "-vga", "none", "-nodefaults", "-no-user-config", "-serial", "stdio"],
    ...["-uuid", uuid, "-no-reboot"],
    ...["-netdev", `tap,id=n0,ifname=${tap},script=no,downscript=no`],
    "-device",
    `virtio-net-pci,netdev=n0,mac=${mac}${typeof firmware === "object" ? "" : ",bootindex=1"}${rom}`,
    ...(uefi ? [...uefiFlash(lab), "-device", "virtio-rng-pci"] : []),
    ...(firmware === "uefi-http" ? httpOnly : []),
    ...(typeof firmware === "object" ? ["-kernel", firmware.lkrn, "-initrd", firmware.script] : []),
  ]);
  return { program, mac, uuid };
}
