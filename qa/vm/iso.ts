/** The ISO under test: the one in build/, built first if it isn't there or is of other sources. */
import { existsSync } from "node:fs";
import { join, resolve } from "node:path";
import { isOfSources } from "#image/sources.ts";
import { KeelsonError } from "#lib/model/errors.ts";
import { runBuilder } from "./builder.ts";

const root = resolve(import.meta.dirname, "../..");
export const isoPath = join(root, "build/keelson.iso");

/** Path of the ISO; UNAVAILABLE with the builder's words if it can't be built. */
export async function ensureIso(onLine: (line: string) => void = () => {}): Promise<string> {
  if (isOfSources(root, isoPath)) return isoPath;
  onLine("building the ISO");
  const { code, tail } = await runBuilder(join(root, "image/main.ts"), [], onLine);
  if (code !== 0 || !existsSync(isoPath)) {
    throw new KeelsonError("UNAVAILABLE", `The image build failed (exit ${code}):\n${tail}`);
  }
  return isoPath;
}
