/** What the running image says of itself for upgrades: /usr/lib/keelson/trust/release.json. */
import { readFileSync } from "node:fs";
import { z } from "zod";
import type { HeldFormats } from "#lib/data-format/formats.ts";
import { KeelsonError } from "#lib/model/errors.ts";
import type { BundleTarget } from "./target.ts";
import { isVersion } from "./version.ts";

export const releasePath = "/usr/lib/keelson/trust/release.json";

const count = z.number().int().nonnegative();
const releaseSchema = z.strictObject({
  version: z.string().refine(isVersion),
  development: z.boolean(),
  architecture: z.string(),
  hardware: z.string(),
  dataFormats: z.record(z.string(), z.strictObject({ oldest: count, newest: count })),
});
export type Release = z.infer<typeof releaseSchema>;

/** NOT_FOUND where there is none (a source tree), FORMAT_CORRUPT if it can't be used. */
export function readRelease(path = releasePath): Release {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (cause) {
    throw new KeelsonError("NOT_FOUND", `${path} can't be read: ${(cause as Error).message}.`, {
      remedy: "It is part of the image: only an appliance has it.",
      object: path,
      cause,
    });
  }
  try {
    return releaseSchema.parse(JSON.parse(text));
  } catch (cause) {
    throw new KeelsonError("FORMAT_CORRUPT", `${path} is not as expected.`, {
      object: path,
      cause,
    });
  }
}

/** This node, with `held` on its disks, as a bundle's target. */
export function targetOf(
  release: Release,
  held: HeldFormats,
  lastWorkedVersion?: string,
): BundleTarget {
  return {
    developmentNode: release.development,
    architecture: release.architecture,
    hardware: release.hardware,
    runningVersion: release.version,
    lastWorkedVersion,
    dataFormats: held,
  };
}
