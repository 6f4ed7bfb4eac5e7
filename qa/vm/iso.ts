/** The ISO under test: the one in build/, built first if it isn't there or is of other sources. */
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { join, resolve } from "node:path";
import { isOfSources } from "#image/sources.ts";
import { KeelsonError } from "#lib/model/errors.ts";

const root = resolve(import.meta.dirname, "../..");
export const isoPath = join(root, "build/keelson.iso");

/** Path of the ISO; UNAVAILABLE with the builder's words if it can't be built. */
export async function ensureIso(onLine: (line: string) => void = () => {}): Promise<string> {
  if (isOfSources(root, isoPath)) return isoPath;
  onLine("building the ISO");
  const builder = spawn(
    process.execPath,
    ["--disable-warning=ExperimentalWarning", join(root, "image/main.ts")],
    { cwd: root, stdio: ["ignore", "pipe", "pipe"] },
  );
  let tail = "";
  for (const stream of [builder.stdout, builder.stderr]) {
    stream.setEncoding("utf8");
    stream.on("data", (text: string) => {
      tail = (tail + text).slice(-3000);
      for (const line of text.split("\n")) if (line.trim() !== "") onLine(line);
    });
  }
  const code = await new Promise((done) => builder.once("close", done));
  if (code !== 0 || !existsSync(isoPath)) {
    throw new KeelsonError("UNAVAILABLE", `The image build failed (exit ${code}):\n${tail}`);
  }
  return isoPath;
}
