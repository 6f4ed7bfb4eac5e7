/**
 * The disk of a client: an ordinary Debian 13 with its own kernel, initramfs and systemd, nothing of
 * ours inside. It boots by BIOS and by UEFI, diskless finds / through the iBFT (open-iscsi's
 * `iscsi_auto`), and gives a login on the serial line.
 *
 *   LBA 2048  1 MiB    BIOS boot: GRUB core
 *             64 MiB   ESP: Debian's own grubx64.efi
 *             rest     ext4, /
 */
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  closeSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { machineMirror } from "#image/apt.ts";
import { placeCore } from "#image/grub.ts";
import { KeelsonError } from "#lib/model/errors.ts";
import { makeOnce, runBuilder } from "./builder.ts";

const root = join(import.meta.dirname, "..", "..");
const cache = join(root, ".cache", "client");

const sectorBytes = 512;
const coreStart = 2048;
const espStart = 4096;
const espSectors = 131_072;
const rootStart = espStart + espSectors;
const rootMiB = 1536;
const rootSectors = rootMiB * 2048;
/** The backup GPT takes the last 33 sectors. */
const diskSectors = rootStart + rootSectors + 2048;
const rootUuid = "6b65656c-736f-4e63-8c69-656e74726f6f";

/** root's password on the client's serial console. */
export const clientPassword = "client";

const packages = [
  "linux-image-amd64",
  "initramfs-tools",
  "busybox",
  "systemd-sysv",
  "udev",
  "dbus",
  "open-iscsi",
  "iproute2",
  "zstd",
  "login",
  "passwd",
  "kmod",
  "e2fsprogs",
  "grub-pc-bin",
  "grub-efi-amd64-bin",
];

/**
 * `diskless` has its root on a LUN that the iBFT names; `database` is on a disk of its own, has
 * PostgreSQL, and attaches LUNs later.
 */
export type ClientKind = "diskless" | "database";

/** What open-iscsi calls itself on a client that is told no name by an iBFT. */
export const clientInitiator = "iqn.2026-11.org.keelson.qa:client";

/**
 * In its initramfs, beside what open-iscsi's hook adds: what these machines have, not what any might.
 * GRUB reads it through the firmware, emulated: a minute for Debian's whole choice of drivers.
 */
const initramfsModules = ["virtio_pci", "virtio_net", "virtio_blk", "sd_mod", "ext4"];

/** What the kernel still finds after the login prompt would stand in the midst of it: loglevel=3. */
const kernelArguments = `root=UUID=${rootUuid} ro loglevel=3 console=tty0 console=ttyS0,115200`;

/**
 * Path of the qcow2, built when this file has changed or none is there, in one to two minutes.
 * UNAVAILABLE with the builder's words if it can't be built.
 */
export function clientImage(kind: ClientKind = "diskless"): Promise<string> {
  return makeOnce(`the ${kind} client's disk`, () => makeImage(kind));
}

async function makeImage(kind: ClientKind): Promise<string> {
  const path = pathOfImage(kind);
  if (existsSync(path)) return path;
  const { code, tail } = await runBuilder(import.meta.filename, [kind]);
  if (code === 0 && existsSync(path)) return path;
  throw new KeelsonError(
    "UNAVAILABLE",
    `The client's disk can't be built (exit ${code}):\n${tail}`,
  );
}

function pathOfImage(kind: ClientKind): string {
  const key = createHash("sha256")
    .update(readFileSync(import.meta.filename))
    .digest("hex");
  return join(cache, `debian-13-${kind}-${key.slice(0, 12)}.qcow2`);
}

function build(kind: ClientKind): void {
  mkdirSync(cache, { recursive: true });
  const work = mkdtempSync(join(cache, "work-"));
  try {
    const tree = join(work, "tree");
    makeTree(tree, kind);
    const disk = join(work, "disk.raw");
    writeFileSync(disk, "");
    truncateSync(disk, diskSectors * sectorBytes);
    partition(disk);
    writeBiosLoader(tree, kind, disk);
    writeEsp(tree, work, disk);
    writeRoot(tree, disk);
    const packed = join(work, "disk.qcow2");
    run("qemu-img", ["convert", "-f", "raw", "-O", "qcow2", disk, packed]);
    renameSync(packed, pathOfImage(kind));
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

function run(command: string, args: readonly string[], input?: string): string {
  const result = spawnSync(command, args, {
    encoding: "utf8",
    maxBuffer: 1 << 26,
    ...(input === undefined ? {} : { input }),
  });
  if (result.status !== 0) {
    const said = `${result.stdout ?? ""}${result.stderr ?? ""}`
      .trim()
      .split("\n")
      .slice(-12)
      .join("\n");
    throw new Error(`${command} failed (${result.status ?? result.error?.message}):\n${said}`);
  }
  return result.stdout;
}

function makeTree(tree: string, kind: ClientKind): void {
  const keep = ["man", "locale", "doc"].map(
    (name) => `--dpkgopt=path-exclude=/usr/share/${name}/*`,
  );
  run("mmdebstrap", [
    "--mode=root",
    "--variant=minbase",
    "--format=directory",
    "--skip=download/empty,output/dev",
    '--aptopt=APT::Install-Recommends "false"',
    ...keep,
    `--include=${[...packages, ...(kind === "database" ? ["postgresql"] : [])].join(",")}`,
    ...(kind === "database" ? databaseHooks : disklessHooks),
    '--essential-hook=mkdir -p "$1/etc/initramfs-tools/conf.d" "$1/usr/share/initramfs-tools/modules.d"',
    '--essential-hook=echo MODULES=list >"$1/etc/initramfs-tools/conf.d/modules"',
    `--essential-hook=printf "%s\\n" ${initramfsModules.join(" ")} >"$1/usr/share/initramfs-tools/modules.d/client"`,
    `--customize-hook=echo root:${clientPassword} | chroot "$1" chpasswd`,
    `--customize-hook=echo UUID=${rootUuid} / ext4 defaults,_netdev 0 1 >"$1/etc/fstab"`,
    '--customize-hook=echo client >"$1/etc/hostname"',
    '--customize-hook=chroot "$1" systemctl mask e2scrub_reap.service',
    "trixie",
    tree,
    machineMirror().archive,
  ]);
}

const disklessHooks = [
  // Before the kernel's initramfs is made, so that open-iscsi's hook finds it.
  '--essential-hook=mkdir -p "$1/etc/iscsi" && echo ISCSI_AUTO=true >"$1/etc/iscsi/iscsi.initramfs"',
];

const databaseHooks = [
  `--customize-hook=echo InitiatorName=${clientInitiator} >"$1/etc/iscsi/initiatorname.iscsi"`,
  // PostgreSQL's own cluster, which would start by itself.
  '--customize-hook=rm -rf "$1/etc/postgresql" "$1/var/lib/postgresql"',
];

function partition(disk: string): void {
  const table = [
    "label: gpt",
    `start=${coreStart}, size=${espStart - coreStart}, type=21686148-6449-6E6F-744E-656564454649`,
    `start=${espStart}, size=${espSectors}, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B`,
    `start=${rootStart}, size=${rootSectors}, type=4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709`,
  ];
  run("sfdisk", ["--quiet", disk], `${table.join("\n")}\n`);
}

function grubConfig(tree: string, kind: ClientKind): string {
  const release = run("ls", [join(tree, "lib/modules")]).trim();
  return [
    "serial --unit=0 --speed=115200",
    "terminal_input console serial",
    "terminal_output console serial",
    `linux /boot/vmlinuz-${release} ${kernelArguments}${kind === "diskless" ? " iscsi_auto" : ""}`,
    `initrd /boot/initrd.img-${release}`,
    "boot",
    "",
  ].join("\n");
}

const findRoot = `search --no-floppy --set=root --fs-uuid ${rootUuid}\n`;

/** What grub-bios-setup does: boot.img in the MBR points at core.img, whose first sector points at its rest. */
function writeBiosLoader(tree: string, kind: ClientKind, disk: string): void {
  const boot = join(tree, "boot/grub");
  mkdirSync(boot, { recursive: true });
  writeFileSync(join(boot, "grub.cfg"), grubConfig(tree, kind));
  writeFileSync(join(tree, "tmp/early.cfg"), `${findRoot}set prefix=($root)/boot/grub\n`);
  const modules =
    "biosdisk part_gpt ext2 search search_fs_uuid linux normal serial terminal echo".split(" ");
  run("chroot", [
    tree,
    "grub-mkimage",
    "--format=i386-pc",
    "--prefix=/boot/grub",
    "--config=/tmp/early.cfg",
    "--output=/tmp/core.img",
    ...modules,
  ]);
  const core = placeCore(readFileSync(join(tree, "tmp/core.img")));
  const bootSector = readFileSync(join(tree, "usr/lib/grub/i386-pc/boot.img"));
  bootSector.writeBigUInt64LE(BigInt(coreStart), 0x5c);
  const file = openSync(disk, "r+");
  writeSync(file, bootSector, 0, 440, 0);
  writeSync(file, core, 0, core.length, coreStart * sectorBytes);
  closeSync(file);
}

function writeEsp(tree: string, work: string, disk: string): void {
  const esp = join(work, "esp.img");
  writeFileSync(esp, "");
  truncateSync(esp, espSectors * sectorBytes);
  run("mkfs.vfat", ["-F", "32", "-n", "ESP", esp]);
  const config = join(work, "grub.cfg");
  writeFileSync(config, `${findRoot}configfile /boot/grub/grub.cfg\n`);
  const loader = join(work, "grubx64.efi");
  copyFileSync(join(tree, "usr/lib/grub/x86_64-efi/monolithic/grubx64.efi"), loader);
  for (const folder of ["EFI", "EFI/BOOT", "EFI/debian"]) run("mmd", ["-i", esp, `::/${folder}`]);
  run("mcopy", ["-i", esp, loader, "::/EFI/BOOT/BOOTX64.EFI"]);
  run("mcopy", ["-i", esp, config, "::/EFI/debian/grub.cfg"]);
  copyInto(esp, disk, espStart);
}

function writeRoot(tree: string, disk: string): void {
  rmSync(join(tree, "tmp/early.cfg"));
  rmSync(join(tree, "tmp/core.img"));
  run("mke2fs", [
    "-q",
    "-t",
    "ext4",
    "-U",
    rootUuid,
    "-d",
    tree,
    "-E",
    `offset=${rootStart * sectorBytes},nodiscard`,
    disk,
    `${rootMiB}m`,
  ]);
}

function copyInto(source: string, disk: string, startSector: number): void {
  run("dd", [
    `if=${source}`,
    `of=${disk}`,
    "bs=1M",
    `seek=${(startSector * sectorBytes) / 2 ** 20}`,
    "conv=notrunc,sparse",
    "status=none",
  ]);
}

if (import.meta.main) build(process.argv[2] as ClientKind);
