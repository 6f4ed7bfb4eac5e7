/** An installed boot disk in memory, and boot loaders that go by what it holds, for tests. */
import { createHash } from "node:crypto";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { readGrubenv, readUkiEntries, ukiPath, writeGrubenv } from "./boot-entries.ts";
import type { LoaderPartName, LoaderParts } from "./boot-loaders.ts";
import type { Files } from "./files.ts";
import { gptTypes, guidBytes, readGpt, slotUuids } from "./gpt.ts";
import type { SlotName } from "./schema.ts";
import { SimFiles } from "./sim-files.ts";
import type { Release, SlotPartName } from "./slot-writer.ts";
import { type BootDisk, findBootDisk } from "./slots.ts";

export const simDiskPath = "/dev/sim";
export const simEsp = "/esp";
const diskSectors = 4096;

/** Contents of a version: deterministic, and a few sectors long each. */
export interface SimRelease extends Release {
  readonly parts: Readonly<Record<SlotPartName, Buffer>>;
  readonly loaders: LoaderParts;
}

/** In the sim's keelson-bios, whose halves have 32 sectors. */
const simCoreSectors = 9;
const simBiosLba = 64;

/** Boot loaders as a bundle has them: GRUB placed at the partition's begin, padded to its size. */
export function simLoaders(version: string): LoaderParts {
  const core = Buffer.alloc(64 * 512);
  filler(`core ${version}`, simCoreSectors * 512).copy(core);
  core.fill(0, 400, 512);
  core.writeBigUInt64LE(BigInt(simBiosLba + 1), 500);
  core.writeUInt16LE(simCoreSectors - 1, 508);
  const boot = filler(`boot ${version}`, 440);
  boot.writeBigUInt64LE(BigInt(simBiosLba), 0x5c);
  return {
    "systemd-boot": simUki("", filler(`systemd-boot ${version}`, 3000)),
    "loader-config": Buffer.from(`timeout 3\n# ${version}\n`),
    "grub-boot": boot,
    "grub-core": core,
    "grub-config": filler(`grub.cfg ${version}`, 1300),
  };
}

function filler(text: string, sizeBytes: number): Buffer {
  const seed = createHash("sha256").update(text).digest();
  return Buffer.alloc(sizeBytes, seed);
}

export function simRelease(version: string): SimRelease {
  const root = filler(`root ${version}`, 6000);
  const rootHash = createHash("sha256").update(root).digest("hex");
  return {
    version,
    rootHash,
    loaders: simLoaders(version),
    parts: {
      root,
      verity: filler(`verity ${version}`, 1500),
      uki: simUki(`root=/dev/mapper/root ro roothash=${rootHash}`, filler(version, 2200)),
      vmlinuz: filler(`vmlinuz ${version}`, 1800),
      microcode: filler(`microcode ${version}`, 700),
      initrd: filler(`initrd ${version}`, 1700),
    },
  };
}

/** A PE file with the two sections that are looked at. */
export function simUki(line: string, kernel: Buffer): Buffer {
  const sections: [name: string, bytes: Buffer][] = [
    [".cmdline", Buffer.from(line)],
    [".linux", kernel],
  ];
  const head = Buffer.alloc(1024);
  head.write("MZ", 0, "latin1");
  head.writeUInt32LE(64, 60);
  head.write("PE\0\0", 64, "latin1");
  head.writeUInt16LE(sections.length, 70);
  let at = head.length;
  for (const [index, [name, bytes]] of sections.entries()) {
    const place = 64 + 24 + index * 40;
    head.write(name, place, "latin1");
    head.writeUInt32LE(bytes.length, place + 8);
    head.writeUInt32LE(bytes.length, place + 16);
    head.writeUInt32LE(at, place + 20);
    at += bytes.length;
  }
  return Buffer.concat([head, ...sections.map(([, bytes]) => bytes)]);
}

export function slotConfigOf(slot: SlotName, { rootHash }: Release): string {
  const folder = `/keelson/${slot}`;
  return `linux ${folder}/vmlinuz roothash=${rootHash}\ninitrd ${folder}/microcode ${folder}/initrd\n`;
}

/** A GPT with the seven partitions of an installed disk; the store is left out. */
function simTable(uuids: { root: string; verity: string }, version: string): Buffer {
  const disk = Buffer.alloc(diskSectors * 512);
  const empty = "11111111-2222-3333-4444-555555555555";
  const partitions: [type: string, uuid: string, label: string][] = [
    [gptTypes.biosBoot, empty, "keelson-bios"],
    [gptTypes.esp, empty, "keelson-esp"],
    [gptTypes.root, uuids.root, `keelson_${version}`],
    [gptTypes.rootVerity, uuids.verity, `keelson_${version}`],
    [gptTypes.root, empty, "_empty"],
    [gptTypes.rootVerity, empty, "_empty"],
    ["0fc63daf-8483-4772-8e79-3d69d8477de4", empty, "keelson-var"],
  ];
  const entries = Buffer.alloc(128 * 128);
  for (const [index, [type, uuid, label]] of partitions.entries()) {
    const entry = entries.subarray(index * 128, (index + 1) * 128);
    guidBytes(type).copy(entry, 0);
    guidBytes(uuid).copy(entry, 16);
    entry.writeBigUInt64LE(BigInt(64 + index * 64), 32);
    entry.writeBigUInt64LE(BigInt(64 + index * 64 + 63), 40);
    entry.write(label, 56, "utf16le");
  }
  const header = (at: number, other: number, entriesAt: number) => {
    const bytes = Buffer.alloc(512);
    bytes.write("EFI PART", 0, "latin1");
    bytes.writeUInt32LE(0x10000, 8);
    bytes.writeUInt32LE(92, 12);
    bytes.writeBigUInt64LE(BigInt(at), 24);
    bytes.writeBigUInt64LE(BigInt(other), 32);
    bytes.writeBigUInt64LE(BigInt(entriesAt), 72);
    bytes.writeUInt32LE(128, 80);
    bytes.writeUInt32LE(128, 84);
    bytes.writeUInt32LE(crc32(entries), 88);
    bytes.writeUInt32LE(crc32(bytes.subarray(0, 92)), 16);
    return bytes;
  };
  const last = diskSectors - 1;
  header(1, last, 2).copy(disk, 512);
  entries.copy(disk, 1024);
  entries.copy(disk, (last - 32) * 512);
  header(last, 1, last - 32).copy(disk, last * 512);
  return disk;
}

function simPartition(disk: string, index: number): string {
  return `${disk}#${index}`;
}

export function simBootDisk(files: SimFiles): BootDisk {
  return findBootDisk(files, simDiskPath, simEsp, simPartition);
}

/** `release` in slot A, kept; slot B empty. */
export function simInstalled(release: SimRelease): SimFiles {
  const files = new SimFiles();
  const disk = simTable(slotUuids(release.rootHash), release.version);
  release.loaders["grub-boot"].copy(disk);
  release.loaders["grub-core"].copy(disk, simBiosLba * 512);
  files.put(simDiskPath, disk);
  files.put(simPartition(simDiskPath, 2), padded(release.parts.root));
  files.put(simPartition(simDiskPath, 3), padded(release.parts.verity));
  files.put(simPartition(simDiskPath, 4), Buffer.alloc(32 * 1024));
  files.put(simPartition(simDiskPath, 5), Buffer.alloc(32 * 1024));
  files.put(ukiPath(simEsp, release.version, null), release.parts.uki);
  files.put(join(simEsp, "keelson/grubenv"), Buffer.alloc(1024, "#"));
  writeGrubenv(files, simEsp, {
    first: "a",
    ok: { a: true, b: false },
    tries: { a: 3, b: 0 },
  });
  for (const name of ["vmlinuz", "microcode", "initrd"] as const) {
    files.put(join(simEsp, "keelson/a", name), release.parts[name]);
  }
  files.put(join(simEsp, "keelson/a/slot.cfg"), Buffer.from(slotConfigOf("a", release)));
  const { loaders } = release;
  files.put(join(simEsp, "EFI/BOOT/BOOTX64.EFI"), loaders["systemd-boot"]);
  files.put(join(simEsp, "loader/loader.conf"), loaders["loader-config"]);
  files.put(join(simEsp, "keelson/grub.cfg"), loaders["grub-config"]);
  files.operations = 0;
  return files;
}

function padded(bytes: Buffer): Buffer {
  return Buffer.concat([bytes, Buffer.alloc(32 * 1024 - bytes.length)]);
}

/** What the firmware's loader starts, after it has counted; throws if that is not whole. */
export function bootSim(
  files: SimFiles,
  firmware: "uefi" | "bios",
  releases: readonly SimRelease[],
): SimRelease {
  simLoader(files, firmware, releases);
  return firmware === "uefi" ? bootUefi(files, releases) : bootBios(files, releases);
}

/** The version that the loader in use is of; throws where firmware would find none, or half of one. */
export function simLoader(
  files: Files,
  firmware: "uefi" | "bios",
  releases: readonly SimRelease[],
  at = { disk: simDiskPath, esp: simEsp },
): string {
  const whole = (place: string, name: LoaderPartName) => {
    const path = join(at.esp, place);
    const content = files.size(path) === undefined ? undefined : files.read(path, 0, 1 << 20);
    const found = releases.find(({ loaders }) => content?.equals(loaders[name]));
    if (found === undefined) throw new Error(`${path} is not whole`);
    return found.version;
  };
  if (firmware === "uefi") {
    whole("loader/loader.conf", "loader-config");
    return whole("EFI/BOOT/BOOTX64.EFI", "systemd-boot");
  }
  whole("keelson/grub.cfg", "grub-config");
  // As boot.img and diskboot.img do: a sector by its address, the rest by the list at its end.
  const boot = files.read(at.disk, 0, 440);
  const lba = Number(boot.readBigUInt64LE(0x5c));
  const first = files.read(at.disk, lba * 512, 512);
  const restLba = Number(first.readBigUInt64LE(500));
  const rest = files.read(at.disk, restLba * 512, first.readUInt16LE(508) * 512);
  const found = releases.find(({ loaders }) => {
    const { "grub-boot": code, "grub-core": core } = loaders;
    return (
      boot.subarray(0, 0x5c).equals(code.subarray(0, 0x5c)) &&
      boot.subarray(0x64).equals(code.subarray(0x64)) &&
      first.subarray(0, 500).equals(core.subarray(0, 500)) &&
      rest.equals(core.subarray(512, simCoreSectors * 512))
    );
  });
  if (found === undefined || restLba !== lba + 1) throw new Error(`GRUB at ${lba} is not whole`);
  return found.version;
}

function bootUefi(files: SimFiles, releases: readonly SimRelease[]): SimRelease {
  const key = (version: string) =>
    version
      .split(".")
      .map((part) => part.padStart(5, "0"))
      .join();
  const [entry] = readUkiEntries(files, simEsp)
    .filter(({ rootHash }) => rootHash !== undefined)
    .sort(
      (one, two) =>
        Number(one.triesLeft === 0) - Number(two.triesLeft === 0) ||
        (key(one.version) < key(two.version) ? 1 : -1),
    );
  if (entry === undefined) throw new Error("systemd-boot finds no entry");
  const release = releases.find(({ version }) => version === entry.version);
  const content = files.read(entry.path, 0, 1 << 20);
  if (release === undefined || !content.equals(release.parts.uki)) {
    throw new Error(`${entry.path} is not whole`);
  }
  if (entry.triesLeft !== null && entry.triesLeft > 0) {
    files.put(ukiPath(simEsp, entry.version, entry.triesLeft - 1), content);
    files.remove(entry.path);
    files.syncFolder(join(entry.path, ".."));
  }
  return checkRoot(files, release);
}

function bootBios(files: SimFiles, releases: readonly SimRelease[]): SimRelease {
  const environment = readGrubenv(files, simEsp);
  const second: SlotName = environment.first === "a" ? "b" : "a";
  const may = (slot: SlotName) => environment.ok[slot] || environment.tries[slot] > 0;
  const slot = [environment.first, second].find(may) ?? environment.first;
  if (!environment.ok[slot] && environment.tries[slot] > 0) {
    writeGrubenv(files, simEsp, {
      ...environment,
      tries: { ...environment.tries, [slot]: environment.tries[slot] - 1 },
    });
  }
  const folder = join(simEsp, "keelson", slot);
  const configuration = files.read(join(folder, "slot.cfg"), 0, 4096).toString();
  const release = releases.find((each) => slotConfigOf(slot, each) === configuration);
  if (release === undefined) throw new Error(`slot.cfg of ${slot} is not whole`);
  for (const name of ["vmlinuz", "microcode", "initrd"] as const) {
    if (!files.read(join(folder, name), 0, 1 << 20).equals(release.parts[name])) {
      throw new Error(`${name} of slot ${slot} is not whole`);
    }
  }
  return checkRoot(files, release);
}

/** As systemd-veritysetup finds it: by the partitions that the root hash names. */
function checkRoot(files: SimFiles, release: SimRelease): SimRelease {
  const uuids = slotUuids(release.rootHash);
  const entries = readGpt(files, simDiskPath);
  for (const name of ["root", "verity"] as const) {
    const entry = entries.find(({ uuid }) => uuid === uuids[name]);
    if (entry === undefined) throw new Error(`${release.version} has no partition for its ${name}`);
    const content = files.read(simPartition(simDiskPath, entry.index), 0, 1 << 20);
    if (!content.subarray(0, release.parts[name].length).equals(release.parts[name])) {
      throw new Error(`the ${name} of ${release.version} is not whole`);
    }
  }
  return release;
}
