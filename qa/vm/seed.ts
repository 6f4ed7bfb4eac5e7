/** Media for machines: of an unattended install, a small disk labelled KEELSON-SEED; a stick. */
import { spawnSync } from "node:child_process";
import { rmSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { basename } from "node:path";
import { answerFileName, seedLabel, shortSeedLabel } from "#lib/answer-file/answer-file.ts";
import { KeelsonError } from "#lib/model/errors.ts";

/** For its file system, which must be large enough for FAT32. */
const stickSpareBytes = 64 * 2 ** 20;

export type SeedFormat = "vfat" | "iso9660";

/** Writes a medium at `path` whose answer file holds `text`. */
export function writeSeedMedium(path: string, text: string, format: SeedFormat = "vfat"): void {
  const file = `${path}.json`;
  writeFileSync(file, text);
  try {
    if (format === "iso9660") {
      run("xorriso", [
        ...["-as", "mkisofs", "-quiet", "-V", seedLabel, "-J", "-r", "-o", path],
        ...["-graft-points", `${answerFileName}=${file}`],
      ]);
      return;
    }
    rmSync(path, { force: true });
    writeFileSync(path, "");
    truncateSync(path, 2 ** 21);
    run("mkfs.vfat", ["-n", shortSeedLabel, path]);
    run("mcopy", ["-i", path, file, `::${answerFileName}`]);
  } finally {
    rmSync(file, { force: true });
  }
}

/** Writes a stick at `path` with a copy of `file` under its own name. */
export function writeStick(path: string, file: string): void {
  rmSync(path, { force: true });
  writeFileSync(path, "");
  truncateSync(path, statSync(file).size + stickSpareBytes);
  run("mkfs.vfat", ["-F", "32", "-n", "RELEASES", path]);
  run("mcopy", ["-i", path, file, `::${basename(file)}`]);
}

function run(command: string, arguments_: string[]): void {
  const result = spawnSync(command, arguments_, {
    encoding: "utf8",
    env: { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` },
  });
  if (result.error !== undefined || result.status !== 0) {
    throw new KeelsonError(
      "UNAVAILABLE",
      `${command} failed: ${result.error?.message ?? result.stderr.trim()}.`,
    );
  }
}
