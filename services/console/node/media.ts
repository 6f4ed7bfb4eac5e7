/** USB sticks and the like, mounted by systemd: this service itself may mount nothing. */
import { execFile } from "node:child_process";
import { createReadStream, createWriteStream } from "node:fs";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import { promisify } from "node:util";
import { z } from "zod";
import { KeelsonError } from "#lib/model/errors.ts";
import type { MediumView } from "#services/installer/schema.ts";

const run = promisify(execFile);
const text = z.string().nullable().optional();
const flag = z.union([z.boolean(), z.coerce.number()]);
const device = z.object({
  path: z.string(),
  size: z.coerce.number(),
  ro: flag,
  rm: flag,
  hotplug: flag,
  /** Of the whole disk only. */
  tran: text,
  fstype: text,
  label: text,
  partlabel: text,
  get children() {
    return z.array(device).optional();
  },
});
type Device = z.output<typeof device>;
const listing = z.object({ blockdevices: z.array(device) });

/** Where keelson-stick-write@.service has a stick for as long as a file is written on it. */
const mountPoint = "/run/keelson-stick";

export async function listSticks(): Promise<MediumView[]> {
  const columns = "PATH,SIZE,RO,RM,HOTPLUG,TRAN,FSTYPE,LABEL,PARTLABEL";
  const { stdout } = await run("lsblk", ["--json", "--bytes", "--output", columns]);
  // A disk in a USB case is neither removable nor, to lsblk, hotplug.
  const visit = (each: Device, above = ""): Device[] => {
    const tran = each.tran ?? above;
    return [{ ...each, tran }, ...(each.children ?? []).flatMap((child) => visit(child, tran))];
  };
  return listing
    .parse(JSON.parse(stdout))
    .blockdevices.flatMap((disk) => visit(disk))
    .filter(
      ({ ro, rm, hotplug, tran, fstype, partlabel }) =>
        (Boolean(rm) || Boolean(hotplug) || tran === "usb") &&
        // A node's own disk may be one too.
        !partlabel?.startsWith("keelson-") &&
        !ro &&
        ["vfat", "ext4", "exfat"].includes(fstype ?? ""),
    )
    .map(({ path, size, label }) => ({ device: path, label: label ?? "", sizeBytes: size }));
}

/** Copies a file on a stick; where it lies, for a person. */
export async function writeOnStick(stick: string, path: string, name: string): Promise<string> {
  const device = /^\/dev\/(\w+)$/.exec(stick)?.[1];
  if (device === undefined || !(await listSticks()).some((each) => each.device === stick)) {
    throw new KeelsonError("NOT_FOUND", `${stick} is gone or can't be written.`, {
      remedy: "Plug it in again.",
    });
  }
  const writing = `keelson-stick-write@${device}.service`;
  const reading = `keelson-stick@${device}.service`;
  const wasRead = await run("systemctl", ["is-active", reading]).then(
    () => true,
    () => false,
  );
  try {
    await run("systemctl", ["start", writing]);
    try {
      // Not copyFile: that sets the mode, which vfat refuses.
      const target = createWriteStream(join(mountPoint, name), { flush: true });
      await pipeline(createReadStream(path), target);
    } finally {
      await run("systemctl", ["stop", writing]);
      // Bundles on it are offered again.
      if (wasRead) await run("systemctl", ["start", "--no-block", reading]);
    }
  } catch (cause) {
    throw new KeelsonError("MEDIA_ERROR", `${stick} did not take the file.`, {
      remedy: "Is it full or write-protected? Use vfat or ext4.",
      cause,
    });
  }
  return `${name} on ${stick}`;
}
