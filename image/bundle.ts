/** `keelson-VERSION.kbundle`, from the same files as the medium. docs/formats/bundle.md. */
import { createHash } from "node:crypto";
import { closeSync, existsSync, openSync, readFileSync, readSync, statSync } from "node:fs";
import { join } from "node:path";
import { headerBytes } from "#lib/bundle/header.ts";
import {
  type BundleManifest,
  bundleFileName,
  bundleFormatVersion,
  encodeManifest,
  ukiFileName,
} from "#lib/bundle/manifest.ts";
import { buildIdOf, describeParts, type PartFiles, writeBundle } from "#lib/bundle/writer.ts";
import { KeelsonError } from "#lib/model/errors.ts";
import type { ImageDescription } from "./artefacts.ts";
import { architecture, dataFormats, hardware, upgradesFrom } from "./release-facts.ts";
import type { Signing } from "./signing.ts";

export interface BundleInputs {
  /** The medium's folder `keelson`: what the installer reads too. */
  readonly artefacts: string;
  readonly description: ImageDescription;
  readonly kernelLine: string;
  readonly sbom: string;
  readonly notes: string;
  readonly signing: Signing;
}

export interface BuiltBundle {
  readonly path: string;
  readonly sizeBytes: number;
  readonly manifest: BundleManifest;
}

/** Space beside the files that a slot's boot needs on the ESP: its slot.cfg, directories. */
const espReserveBytes = 1 << 20;

export function makeBundle(folder: string, inputs: BundleInputs): BuiltBundle {
  const { description, signing } = inputs;
  const files = partFiles(inputs);
  const parts = describeParts(files);
  const size = (name: string) => parts.find((part) => part.name === name)!.sizeBytes;
  const manifest: BundleManifest = {
    product: "keelson",
    formatVersion: bundleFormatVersion,
    version: description.version,
    buildId: buildIdOf(parts),
    development: signing.development,
    ...{ architecture, upgradesFrom },
    hardware: [hardware],
    rootHash: description.rootHash,
    kernelLine: inputs.kernelLine,
    dataFormats: { ...dataFormats },
    space: {
      rootBytes: size("root"),
      verityBytes: size("verity"),
      espBytes:
        size("uki") + size("vmlinuz") + size("microcode") + size("initrd") + espReserveBytes,
      varBytes: parts.reduce((sum, { sizeBytes }) => sum + sizeBytes, espReserveBytes),
    },
    notes: inputs.notes,
    parts,
  };
  const path = join(folder, bundleFileName(description.version));
  const sizeBytes = writeBundle(path, manifest, files, signing.key);
  return { path, sizeBytes, manifest };
}

function partFiles({ artefacts, description, sbom }: BundleInputs): PartFiles {
  const at = (path: string) => join(artefacts, path);
  return {
    root: at("root.img"),
    verity: at("root.verity"),
    uki: at(`esp/EFI/Linux/${ukiFileName(description.version)}`),
    vmlinuz: at("esp/keelson/a/vmlinuz"),
    microcode: at("esp/keelson/a/microcode"),
    initrd: at("esp/keelson/a/initrd"),
    "systemd-boot": at("esp/EFI/BOOT/BOOTX64.EFI"),
    "loader-config": at("esp/loader/loader.conf"),
    "grub-boot": at("grub/boot.img"),
    "grub-core": at("grub/core.img"),
    "grub-config": at("esp/keelson/grub.cfg"),
    sbom,
  };
}

/** What of a bundle must be the same in two builds: all but the signature block. */
export function unsignedContent({ path, sizeBytes, manifest }: BuiltBundle) {
  const text = encodeManifest(manifest);
  const partBytes = manifest.parts.reduce((sum, part) => sum + part.sizeBytes, 0);
  if (sizeBytes < headerBytes + text.length + partBytes || statSync(path).size !== sizeBytes) {
    throw new KeelsonError("INTERNAL", `${path} is shorter than its manifest.`);
  }
  const hash = createHash("sha256");
  const buffer = Buffer.allocUnsafe(1 << 20);
  const file = openSync(path, "r");
  try {
    for (let position = sizeBytes - partBytes; position < sizeBytes; ) {
      const count = readSync(file, buffer, 0, buffer.length, position);
      hash.update(buffer.subarray(0, count));
      position += count;
    }
  } finally {
    closeSync(file);
  }
  return { manifest: text, partsSha256: hash.digest("hex") };
}

/** `docs/releases/VERSION.md`. A release has notes; NOT_FOUND if it lacks them. */
export function releaseNotes(project: string, version: string, development: boolean): string {
  const bare = version.replace("+drift", "");
  const path = join(project, "docs/releases", `${bare}.md`);
  if (existsSync(path)) return readFileSync(path, "utf8");
  if (development) return `Development build of ${version}.\n`;
  throw new KeelsonError("NOT_FOUND", `There are no release notes for ${bare}.`, {
    operation: "build image",
    remedy: `Write docs/releases/${bare}.md.`,
  });
}
