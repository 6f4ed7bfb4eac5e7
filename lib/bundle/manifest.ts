/** What a bundle says of itself, signed as a whole: docs/formats/bundle.md. */
import { z } from "zod";
import { canonicalJson } from "./canonical-json.ts";
import { BundleError } from "./errors.ts";
import { isVersion } from "./version.ts";

/** The format of header, manifest and signature block; a reader refuses every other one. */
export const bundleFormatVersion = 1;

/** Parts in the order in which they follow the manifest; every bundle has all of them. */
export const partNames = [
  /** Root file system, erofs: for the slot's root partition. */
  "root",
  /** Its dm-verity hash tree: for the slot's verity partition. */
  "verity",
  /** Unified kernel image: ESP, `EFI/Linux/keelson_VERSION+3.efi`. */
  "uki",
  /** BIOS: kernel, CPU microcode and initrd for GRUB; ESP, `keelson/<slot>/`. */
  "vmlinuz",
  "microcode",
  "initrd",
  /** systemd-boot: ESP, `EFI/BOOT/BOOTX64.EFI`. */
  "systemd-boot",
  /** ESP, `loader/loader.conf`. */
  "loader-config",
  /** 440 bytes of boot code for the disk's first sector. */
  "grub-boot",
  /** GRUB for the partition `keelson-bios`, padded to its size. */
  "grub-core",
  /** ESP, `keelson/grub.cfg`. */
  "grub-config",
  /** SPDX 2.3 bill of materials, JSON. */
  "sbom",
] as const;
export type PartName = (typeof partNames)[number];

const mebibyte = 1 << 20;
/** Most bytes that a part may have: its place on an installed disk. */
export const partLimits: Readonly<Record<PartName, number>> = {
  root: 1024 * mebibyte,
  verity: 32 * mebibyte,
  uki: 160 * mebibyte,
  vmlinuz: 32 * mebibyte,
  microcode: 48 * mebibyte,
  initrd: 96 * mebibyte,
  "systemd-boot": mebibyte,
  "loader-config": 4096,
  "grub-boot": 440,
  "grub-core": mebibyte,
  "grub-config": 65_536,
  sbom: 16 * mebibyte,
};

const sha256 = z.string().regex(/^[0-9a-f]{64}$/);
const version = z.string().refine(isVersion, { error: "is not YYYY.M.PATCH" });
const word = z.string().regex(/^[a-z0-9][a-z0-9_-]{0,31}$/);
const bytes = z.number().int().nonnegative();
const count = z.number().int().nonnegative().max(1_000_000);

const partSchema = z.strictObject({
  name: z.enum(partNames),
  sizeBytes: z.number().int().positive(),
  sha256,
});

export const manifestSchema = z
  .strictObject({
    product: z.literal("keelson"),
    formatVersion: z.literal(bundleFormatVersion),
    version,
    /** Of the content: the same bits have the same id. */
    buildId: z.string().regex(/^[0-9a-f]{32}$/),
    /** True: signed by a throw-away key; a production node refuses it. */
    development: z.boolean(),
    architecture: word,
    /** Kinds of machine that it is for. */
    hardware: z.array(word).min(1).max(16),
    /** Oldest version that may be running when this one is installed. */
    upgradesFrom: version,
    /** dm-verity root hash; the slot's partition UUIDs are its halves. */
    rootHash: sha256,
    /** Kernel line of the installed slot, for GRUB; the UKI carries the same. */
    kernelLine: z
      .string()
      .max(2000)
      .regex(/^[A-Za-z0-9 =/,._:+-]+$/),
    /** Formats on /var and on the stores that this version reads, by name. */
    dataFormats: z.record(word, z.strictObject({ oldest: count, newest: count })),
    /** Space that the installation needs. */
    space: z.strictObject({
      rootBytes: bytes,
      verityBytes: bytes,
      /** Free on the ESP. */
      espBytes: bytes,
      /** Free on /var, to hold the bundle. */
      varBytes: bytes,
    }),
    /** Release notes, plain text or Markdown. */
    notes: z.string().max(64_000),
    parts: z.array(partSchema).length(partNames.length),
  })
  .superRefine((manifest, context) => {
    const complain = (path: string, message: string) =>
      context.addIssue({ code: "custom", path: [path], message });
    for (const [index, part] of manifest.parts.entries()) {
      if (part.name !== partNames[index]) {
        complain("parts", `must be in the order ${partNames.join(", ")}`);
        return;
      }
      if (part.sizeBytes > partLimits[part.name]) {
        complain("parts", `${part.name} may have ${partLimits[part.name]} bytes`);
      }
    }
    if (!manifest.kernelLine.split(" ").includes(`roothash=${manifest.rootHash}`)) {
      complain("kernelLine", "must name the root hash");
    }
    for (const [name, { oldest, newest }] of Object.entries(manifest.dataFormats)) {
      if (oldest > newest) complain("dataFormats", `${name}: oldest is after newest`);
    }
  });

export type BundleManifest = z.infer<typeof manifestSchema>;
export type BundlePart = z.infer<typeof partSchema>;

/** The bytes that are signed. */
export function encodeManifest(manifest: BundleManifest): Buffer {
  return Buffer.from(canonicalJson(manifestSchema.parse(manifest)));
}

/** Refuses (BundleError `malformed`) any text but the one that encodeManifest gives. */
export function decodeManifest(text: Buffer): BundleManifest {
  return decodeCanonical(text, manifestSchema, "manifest");
}

/** A JSON value of `schema` in canonical form, else BundleError `malformed`. */
export function decodeCanonical<T>(text: Buffer, schema: z.ZodType<T>, what: string): T {
  const refuse = (why: string, cause?: unknown) =>
    new BundleError("malformed", `The bundle's ${what} ${why}.`, {
      remedy: "The file is damaged, or its maker is: get it again.",
      cause,
    });
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(text));
  } catch (cause) {
    throw refuse("is not JSON", cause);
  }
  const parsed = schema.safeParse(value);
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    throw refuse(`is not of its form: ${issue.path.join(".") || "it"}: ${issue.message}`);
  }
  // A second spelling of the same value could be read in another way by another reader.
  if (canonicalJson(parsed.data) !== text.toString()) throw refuse("is not in canonical form");
  return parsed.data;
}

/** `keelson-2026.12.0.kbundle`. */
export function bundleFileName(version: string): string {
  return `keelson-${version}.kbundle`;
}

/** The UKI's name on the ESP, with three tries left (systemd's Automatic Boot Assessment). */
export function ukiFileName(version: string): string {
  return `keelson_${version}+3.efi`;
}

/** `keelson/<slot>/slot.cfg` on the ESP: what GRUB starts. */
export function grubSlotConfig(slot: "a" | "b", kernelLine: string): string {
  const folder = `/keelson/${slot}`;
  return `linux ${folder}/vmlinuz ${kernelLine}\ninitrd ${folder}/microcode ${folder}/initrd\n`;
}

/** UUIDs of the slot's root and verity partition (discoverable partitions specification). */
export function slotPartitionUuids(rootHash: string): { root: string; verity: string } {
  const uuid = (hex: string) => hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
  return { root: uuid(rootHash.slice(0, 32)), verity: uuid(rootHash.slice(32)) };
}
