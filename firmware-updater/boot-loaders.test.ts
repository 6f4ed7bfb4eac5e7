/** Boot loaders on real files; power cuts are in executor.test.ts. */
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { BootLoaders, replaceFile } from "./boot-loaders.ts";
import { RealFiles } from "./files.ts";
import { simDiskPath, simEsp, simInstalled, simLoader, simRelease } from "./sim-disk.ts";
import { findBootDisk } from "./slots.ts";

const v1 = simRelease("2026.11.0");
const v2 = simRelease("2026.12.0");
const files = new RealFiles();

let folder: string;
let disk: string;
let esp: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "keelson-loaders-"));
  disk = join(folder, "disk");
  esp = join(folder, simEsp);
  for (const [path, bytes] of simInstalled(v1).contents()) {
    if (path !== simDiskPath && !path.startsWith(simEsp)) continue;
    const place = path === simDiskPath ? disk : join(folder, path);
    mkdirSync(dirname(place), { recursive: true });
    writeFileSync(place, bytes);
  }
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

test("all are put in place, nothing else on the disk changes, and nothing is left beside", async () => {
  const before = readFileSync(disk);
  const loaders = new BootLoaders(files, findBootDisk(files, disk, esp));
  expect(await loaders.upgrade(v2.loaders)).toEqual([
    ...["BOOTX64.EFI", "loader.conf", "grub.cfg", "GRUB"],
  ]);
  for (const firmware of ["uefi", "bios"] as const) {
    expect(simLoader(files, firmware, [v1, v2], { disk, esp })).toBe(v2.version);
  }
  expect(await loaders.upgrade(v2.loaders)).toEqual([]);
  expect(readdirSync(join(esp, "EFI/BOOT"))).toEqual(["BOOTX64.EFI"]);
  const after = readFileSync(disk);
  const [first, half] = [64 * 512, 32 * 512];
  expect(after.subarray(440, first + half).equals(before.subarray(440, first + half))).toBe(true);
  expect(after.subarray(first + 2 * half).equals(before.subarray(first + 2 * half))).toBe(true);
});

test("what a cut left beside is not touched, whatever it holds", async () => {
  const path = join(esp, "EFI/BOOT/BOOTX64.EFI");
  writeFileSync(`${path}.0`, readFileSync(path));
  writeFileSync(join(esp, "EFI/BOOT/bootx64.efi.1"), "half");
  expect(await replaceFile(files, path, v2.loaders["systemd-boot"])).toBe(true);
  expect(readFileSync(path).equals(v2.loaders["systemd-boot"])).toBe(true);
  expect(readFileSync(`${path}.0`).equals(v1.loaders["systemd-boot"])).toBe(true);
  expect(readFileSync(join(esp, "EFI/BOOT/bootx64.efi.1"), "utf8")).toBe("half");
});

test("a replacement that fails leaves what was there, and says what to do", () => {
  const path = join(esp, "keelson/grub.cfg");
  expect(() => files.replace(join(esp, "keelson/none"), path)).toThrow(/Cannot write .*grub\.cfg/);
  expect(readFileSync(path).equals(v1.loaders["grub-config"])).toBe(true);
});

test("a file that was not there is made", async () => {
  const path = join(esp, "loader/loader.conf");
  rmSync(path);
  expect(await replaceFile(files, path, v2.loaders["loader-config"])).toBe(true);
  expect(readFileSync(path).equals(v2.loaders["loader-config"])).toBe(true);
});
