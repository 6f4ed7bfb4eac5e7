/**
 * Carries out an installation plan. The order is what keeps a power cut harmless: first what makes
 * the old contents bootable goes, then partitions and root are written and verified, and only at
 * the end, boot loader and boot code. Until then no firmware takes the disk for installed.
 */
import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { type NodeConfig, nodeConfigOf } from "#lib/answer-file/node-config.ts";
import type { Answers } from "#lib/answer-file/schema.ts";
import { KeelsonError } from "#lib/model/errors.ts";
import { writeStateFile } from "#lib/service/state-file.ts";
import { copyToDevice, readDevice, writeDevice, zeroDevice } from "./block-device.ts";
import type { Command } from "./command.ts";
import { type Definition, installDefinitions, readRepartOutput } from "./definitions.ts";
import { type ImageFacts, verifyRoot } from "./medium.ts";
import type { InstallPlan } from "./plan.ts";
import type { Progress } from "./progress.ts";

export interface Installation {
  readonly plan: InstallPlan;
  readonly answers: Answers;
  readonly answersDigest: string;
  /** Of the user admin: the answers', or of the password that was made up. */
  readonly adminHash: string;
  readonly image: ImageFacts;
  /** The medium's `keelson` folder. */
  readonly medium: string;
  /** A directory of the installer's own, in memory. */
  readonly scratch: string;
  readonly nodeId: string;
  readonly run: Command;
  readonly progress: Progress;
}

/** What tells an installed disk's origin, beside node.json in /var: `lib/keelson/installed.json`. */
export interface InstalledMark {
  readonly version: string;
  readonly answersDigest: string;
}

export const installedMarkPath = "lib/keelson/installed.json";
const bootCodeBytes = 440;
const edgeBytes = 1 << 20;
const efiLoader = "EFI/BOOT/BOOTX64.EFI";

/** Bytes reported to progress: the root read from the medium, written, read back; the tree written. */
export function installBytes(image: ImageFacts): number {
  return image.rootSizeBytes * 3 + image.veritySizeBytes;
}

export async function install(installation: Installation): Promise<NodeConfig> {
  const { plan, image, medium, progress, run } = installation;
  const disk = plan.disk.path;
  progress.step(`clearing ${disk}`);
  await clearDisk(plan, run);
  progress.step("making partitions");
  const partitions = await makePartitions(installation);
  const partition = (label: string, index = 0): { device: string; uuid: string } => {
    const found = partitions.filter((each) => each.label === label)[index];
    if (found === undefined) {
      throw new KeelsonError("INTERNAL", `systemd-repart made no partition ${label} on ${disk}.`);
    }
    return { device: `/dev/disk/by-partuuid/${found.uuid}`, uuid: found.uuid };
  };
  const slot = (uuid: string) => {
    const found = partitions.find((each) => each.uuid.toLowerCase() === uuid.toLowerCase());
    if (found === undefined) {
      throw new KeelsonError("INTERNAL", `No partition of ${disk} has the root's UUID ${uuid}.`);
    }
    return `/dev/disk/by-partuuid/${found.uuid}`;
  };
  const root = slot(image.rootPartitionUuid);
  const verity = slot(image.verityPartitionUuid);
  progress.step("writing the root file system");
  const advance = (bytes: number) => progress.advance(bytes);
  await copyToDevice(join(medium, "root.img"), root, advance);
  await copyToDevice(join(medium, "root.verity"), verity, advance);
  await copyToDevice(join(medium, "grub/core.img"), partition("keelson-bios").device, () => {});
  // Otherwise the next read would come from memory instead of from the disk.
  await run("blockdev", ["--flushbufs", disk]);
  progress.step("verifying what was written");
  await verifyWritten(root, verity, image, advance);

  const storeDevice =
    plan.store.kind === "kept"
      ? plan.store.device
      : `/dev/disk/by-partuuid/${partition("keelson-store").uuid}`;
  if (plan.store.kind === "new") await zeroDevice(storeDevice, 0, edgeBytes);
  const config = nodeConfigOf(installation.answers, {
    id: installation.nodeId,
    adminHash: installation.adminHash,
    storeDevice,
    imageVersion: image.version,
  });
  progress.step("writing the node's configuration");
  await withMount(installation, partition("keelson-var").device, "ext4", async (folder) => {
    mkdirSync(join(folder, "lib/keelson"), { recursive: true, mode: 0o755 });
    writeStateFile(join(folder, "lib/keelson/node.json"), `${JSON.stringify(config, null, 2)}\n`);
    const mark: InstalledMark = {
      version: image.version,
      answersDigest: installation.answersDigest,
    };
    writeStateFile(join(folder, installedMarkPath), `${JSON.stringify(mark)}\n`);
  });
  progress.step("writing the boot loaders");
  await writeBootLoaders(installation, partition("keelson-esp").device);
  return config;
}

/**
 * Takes away what firmware or a person would take for an operating system: boot code and partition
 * table, at both ends of the disk. A kept store's table stays, with that partition alone in it.
 */
async function clearDisk(plan: InstallPlan, run: Command): Promise<void> {
  const { path, sizeBytes } = plan.disk;
  if (plan.keepsPartition === undefined) {
    await zeroDevice(path, 0, edgeBytes);
    await zeroDevice(path, sizeBytes - edgeBytes, edgeBytes);
  } else {
    await zeroDevice(path, 0, bootCodeBytes);
    const kept = plan.keepsPartition.path;
    const numbers = plan.disk.content
      .filter((content) => content.path !== kept && content.path !== path)
      .map((content) => /(\d+)$/.exec(content.path)![1]);
    if (numbers.length > 0) await run("sfdisk", ["--quiet", "--delete", path, ...numbers]);
  }
  await run("udevadm", ["settle", "--timeout=60"]);
}

async function makePartitions(installation: Installation) {
  const { plan, medium, scratch, run } = installation;
  const definitions = installDefinitions(readDefinitions(join(medium, "repart.d")), {
    storeBytes: plan.store.kind === "new" ? plan.store.sizeBytes : undefined,
    withoutStore: plan.store.kind === "kept" && plan.keepsPartition === undefined,
  });
  const folder = join(scratch, "repart.d");
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  for (const { name, text } of definitions) writeFileSync(join(folder, name), text);
  const output = await run("systemd-repart", [
    `--definitions=${folder}`,
    `--empty=${plan.keepsPartition === undefined ? "force" : "allow"}`,
    ...["--dry-run=no", "--json=short", "--no-pager", plan.disk.path],
  ]);
  await run("udevadm", ["settle", "--timeout=60"]);
  return readRepartOutput(output);
}

export function readDefinitions(folder: string): Definition[] {
  return readdirSync(folder)
    .filter((name) => name.endsWith(".conf"))
    .sort()
    .map((name) => ({ name, text: readFileSync(join(folder, name), "utf8") }));
}

async function verifyWritten(
  root: string,
  verity: string,
  image: ImageFacts,
  advance: (bytes: number) => void,
): Promise<void> {
  try {
    await verifyRoot(root, verity, image.rootHash, advance, image.veritySizeBytes);
  } catch (cause) {
    throw new KeelsonError(
      "MEDIA_ERROR",
      `What was written does not read back the same: ${(cause as Error).message}`,
      {
        operation: "verify disk",
        remedy: "The disk is not installed. Check it, its cable and the memory.",
        cause,
      },
    );
  }
}

/** The loader's own file last, then the boot code of the first sector. */
async function writeBootLoaders(installation: Installation, device: string): Promise<void> {
  const { medium, plan } = installation;
  const source = join(medium, "esp");
  await withMount(installation, device, "vfat", async (folder) => {
    cpSync(source, folder, {
      recursive: true,
      filter: (path) => relative(source, path) !== efiLoader,
    });
    await installation.run("sync", ["--file-system", folder]);
    mkdirSync(dirname(join(folder, efiLoader)), { recursive: true });
    cpSync(join(source, efiLoader), join(folder, efiLoader));
  });
  // Mounted again, so that the comparison reads the disk.
  await withMount(installation, device, "vfat", async (folder) => compareFolders(source, folder));
  const bootCode = readFileSync(join(medium, "grub/boot.img")).subarray(0, bootCodeBytes);
  writeDevice(plan.disk.path, 0, bootCode);
  if (!readDevice(plan.disk.path, 0, bootCode.length).equals(bootCode)) {
    throw new KeelsonError("MEDIA_ERROR", `${plan.disk.path} did not keep its boot code.`, {
      remedy: "The disk is not installed. Check it.",
    });
  }
}

function compareFolders(source: string, copy: string): void {
  for (const entry of readdirSync(source, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const path = join(entry.parentPath, entry.name);
    const name = relative(source, path);
    if (!readFileSync(path).equals(readFileSync(join(copy, name)))) {
      throw new KeelsonError("MEDIA_ERROR", `${name} does not read back as it was written.`, {
        operation: "verify disk",
        remedy: "The disk is not installed. Check it, its cable and the memory.",
      });
    }
  }
}

async function withMount(
  { scratch, run }: Pick<Installation, "scratch" | "run">,
  device: string,
  type: string,
  use: (folder: string) => Promise<void>,
): Promise<void> {
  const folder = join(scratch, "mnt");
  mkdirSync(folder, { recursive: true });
  await run("mount", ["-t", type, "-o", "nodev,nosuid,noexec", device, folder]);
  try {
    await use(folder);
    await run("sync", ["--file-system", folder]);
  } finally {
    await run("umount", [folder]);
  }
}

/** The mark of an earlier installation on a disk, read without changing it. */
export async function readInstalledMark(
  varDevice: string,
  scratch: string,
  run: Command,
): Promise<InstalledMark | undefined> {
  const folder = join(scratch, "old");
  mkdirSync(folder, { recursive: true });
  try {
    await run("mount", ["-t", "ext4", "-o", "ro,noload,nodev,nosuid,noexec", varDevice, folder]);
  } catch {
    return undefined;
  }
  try {
    return JSON.parse(readFileSync(join(folder, installedMarkPath), "utf8")) as InstalledMark;
  } catch {
    return undefined;
  } finally {
    await run("umount", [folder]);
  }
}
