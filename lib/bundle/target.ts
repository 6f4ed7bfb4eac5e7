/** Whether a bundle may be installed on this node now: pure, from facts that the caller gives. */
import { type HeldFormats, unreadable } from "#lib/data-format/formats.ts";
import { BundleError } from "./errors.ts";
import type { BundleManifest } from "./manifest.ts";
import { compareVersions } from "./version.ts";

export interface BundleTarget {
  /** False on a node whose image a release key signed: it refuses development bundles. */
  readonly developmentNode: boolean;
  /** `amd64`. */
  readonly architecture: string;
  /** `pc`. */
  readonly hardware: string;
  readonly runningVersion: string;
  /** Version of the slot that last worked: the only older one that may come back. */
  readonly lastWorkedVersion?: string | undefined;
  /** Versions of the formats on this node's disks, by name; those unnamed are not judged. */
  readonly dataFormats?: HeldFormats | undefined;
}

/** Throws BundleError `development`, `hardware`, `older`, `already-running`, ... */
export function judgeTarget(manifest: BundleManifest, target: BundleTarget): void {
  const { version, hardware, architecture } = manifest;
  const running = target.runningVersion;
  if (manifest.development && !target.developmentNode) {
    throw new BundleError(
      "development",
      "This is a development bundle; this node runs a release.",
      {
        remedy: "Use a bundle that the project released.",
      },
    );
  }
  if (architecture !== target.architecture || !hardware.includes(target.hardware)) {
    throw new BundleError(
      "hardware",
      `The bundle is for ${architecture} (${hardware.join(", ")}); this node is ${target.architecture} (${target.hardware}).`,
      { remedy: "Use the bundle for this kind of machine." },
    );
  }
  const order = compareVersions(version, running);
  if (order === 0) {
    throw new BundleError("already-running", `This node runs ${running} already.`, {
      remedy: "There is nothing to do.",
    });
  }
  if (order < 0 && version !== target.lastWorkedVersion) {
    const back =
      target.lastWorkedVersion === undefined
        ? "No other version has worked on this node."
        : `Only ${target.lastWorkedVersion}, which last worked here, may come back.`;
    throw new BundleError(
      "older",
      `The bundle's ${version} is older than ${running}, which runs.`,
      {
        remedy: back,
      },
    );
  }
  if (order > 0 && compareVersions(running, manifest.upgradesFrom) < 0) {
    throw new BundleError(
      "needs-newer-first",
      `${version} upgrades from ${manifest.upgradesFrom} or newer; this node runs ${running}.`,
      { remedy: `Install ${manifest.upgradesFrom}, or a version between the two, first.` },
    );
  }
  const data = unreadable(manifest.dataFormats, target.dataFormats ?? {});
  if (data !== undefined) {
    throw new BundleError("data-format", `${version} can't read this node's ${data}.`, {
      remedy: "Install a version that reads it first; its release notes say which.",
    });
  }
}
