/** File systems that the answers can be saved on. */
import { mkdirSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { answerFileName, seedLabel, shortSeedLabel } from "#lib/answer-file/answer-file.ts";
import { KeelsonError } from "#lib/model/errors.ts";
import type { Command } from "./command.ts";
import { mediumLabel } from "./disks.ts";
import type { MediumView } from "./schema.ts";

type Device = z.output<typeof device>;
const text = z.string().nullable().optional();
const device = z.object({
  path: z.string(),
  size: z.coerce.number(),
  ro: z.union([z.boolean(), z.coerce.number()]),
  rm: z.union([z.boolean(), z.coerce.number()]),
  hotplug: z.union([z.boolean(), z.coerce.number()]),
  /** Of the whole disk only. */
  tran: text,
  fstype: text,
  label: text,
  partlabel: text,
  get children() {
    return z.array(device).optional();
  },
});
const listing = z.object({ blockdevices: z.array(device) });

const fileSystems = ["vfat", "ext4", "exfat"];

/** Sticks and cards, and whatever has the label of an answer medium; never the disk of a node. */
export async function listMedia(run: Command): Promise<MediumView[]> {
  const columns = "PATH,SIZE,RO,RM,HOTPLUG,TRAN,FSTYPE,LABEL,PARTLABEL";
  return readMedia(await run("lsblk", ["--json", "--bytes", "--output", columns]));
}

export function readMedia(output: string): MediumView[] {
  const parsed = listing.safeParse(JSON.parse(output));
  if (!parsed.success) {
    throw new KeelsonError("INTERNAL", `lsblk said something unexpected: ${parsed.error.message}`);
  }
  // A disk in a USB case is neither removable nor, to lsblk, hotplug.
  const visit = (each: Device, above = ""): Device[] => {
    const tran = each.tran ?? above;
    return [{ ...each, tran }, ...(each.children ?? []).flatMap((child) => visit(child, tran))];
  };
  return parsed.data.blockdevices
    .flatMap((disk) => visit(disk))
    .filter(({ ro, rm, hotplug, tran, fstype, label, partlabel }) => {
      const seed = label === seedLabel || label === shortSeedLabel;
      const wanted = Boolean(rm) || Boolean(hotplug) || tran === "usb" || seed;
      // A node's own disk may be one too.
      if (partlabel?.startsWith("keelson-")) return false;
      return wanted && !ro && fileSystems.includes(fstype ?? "") && label !== mediumLabel;
    })
    .map(({ path, size, label }) => ({ device: path, label: label ?? "", sizeBytes: size }));
}

/** Writes the answer file on a medium; where it lies, for a person. */
export async function saveAnswers(
  { device: path, text: content }: { readonly device: string; readonly text: string },
  scratch: string,
  run: Command,
): Promise<string> {
  const medium = (await listMedia(run)).find((each) => each.device === path);
  if (medium === undefined) {
    throw new KeelsonError("NOT_FOUND", `${path} is gone or can't be written.`, {
      remedy: "Plug the medium in again.",
    });
  }
  const folder = join(scratch, "save");
  mkdirSync(folder, { recursive: true });
  try {
    await run("mount", ["-o", "rw,nodev,nosuid,noexec", path, folder]);
  } catch (cause) {
    throw new KeelsonError("MEDIA_ERROR", `${path} can't be mounted.`, {
      remedy: "Use a stick with vfat or ext4.",
      cause,
    });
  }
  try {
    // Modes can't be set on vfat: the file is not given one after it is made.
    const next = join(folder, `${answerFileName}.new`);
    writeFileSync(next, content, { mode: 0o600, flush: true });
    renameSync(next, join(folder, answerFileName));
    await run("sync", ["--file-system", folder]);
  } catch (cause) {
    throw new KeelsonError("MEDIA_ERROR", `${path} did not take the file.`, {
      remedy: "Is it full or write-protected?",
      cause,
    });
  } finally {
    await run("umount", [folder]);
  }
  return `${answerFileName} on ${path}${medium.label === "" ? "" : ` (${medium.label})`}`;
}
