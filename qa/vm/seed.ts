/** The second medium of an unattended install: a small disk labelled KEELSON-SEED. */
import { spawnSync } from "node:child_process";
import { rmSync, truncateSync, writeFileSync } from "node:fs";
import { answerFileName, seedLabel, shortSeedLabel } from "#lib/answer-file/answer-file.ts";
import { KeelsonError } from "#lib/model/errors.ts";

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
