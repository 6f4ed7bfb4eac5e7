/** The disks of this machine and what is on them, as `lsblk --json` and their first blocks say. */
import { closeSync, existsSync, openSync, readdirSync, readlinkSync, readSync } from "node:fs";
import { join, resolve } from "node:path";
import { z } from "zod";
import { seedLabel, shortSeedLabel } from "#lib/answer-file/answer-file.ts";
import { KeelsonError } from "#lib/model/errors.ts";
import { probeBytes, probeStore } from "#lib/store-probe/probe.ts";
import type { Command } from "./command.ts";
import type { ContentFacts, DiskFacts, PoolFacts } from "./plan.ts";

/** Label of the installation medium's file system. */
export const mediumLabel = "KEELSON";

const text = z.string().nullable().optional();
type Device = z.output<typeof device>;
const device = z.object({
  path: z.string(),
  type: z.string(),
  size: z.coerce.number(),
  ro: z.union([z.boolean(), z.coerce.number()]),
  model: text,
  serial: text,
  fstype: text,
  label: text,
  partlabel: text,
  partuuid: text,
  pttype: text,
  get children() {
    return z.array(device).optional();
  },
});
const listing = z.object({ blockdevices: z.array(device) });

export const lsblkArguments = [
  ...["--json", "--bytes", "--output"],
  "PATH,TYPE,SIZE,RO,MODEL,SERIAL,FSTYPE,LABEL,PARTLABEL,PARTUUID,PTTYPE",
];

/** Disks by path; optical drives, loops and mapped devices are left out. */
export async function listDisks(run: Command): Promise<DiskFacts[]> {
  const output = await run("lsblk", lsblkArguments);
  return readListing(output, { probe: probeDevice, links: deviceLinks() });
}

export interface Probes {
  probe(path: string): PoolFacts | undefined;
  /** Other names by device path. */
  readonly links: ReadonlyMap<string, readonly string[]>;
}

/** `lsblk`'s JSON to facts; INTERNAL if it isn't what this program expects. */
export function readListing(output: string, { probe, links }: Probes): DiskFacts[] {
  const parsed = listing.safeParse(JSON.parse(output));
  if (!parsed.success) {
    throw new KeelsonError("INTERNAL", `lsblk said something unexpected: ${parsed.error.message}`);
  }
  return parsed.data.blockdevices
    .filter(({ type, path }) => type === "disk" && !/^\/dev\/(?:zram|ram|nbd|fd)\d/.test(path))
    .map((disk) => {
      const children = disk.children ?? [];
      const all = [disk, ...children];
      const own = contentOf(disk, probe);
      const whole = own.fileSystem !== undefined || own.pool !== undefined;
      const isMedium = all.some(({ label, fstype }) =>
        label === mediumLabel
          ? fstype === "iso9660"
          : label === seedLabel || label === shortSeedLabel,
      );
      return {
        path: disk.path,
        links: links.get(disk.path) ?? [],
        sizeBytes: disk.size,
        model: (disk.model ?? "").trim(),
        serial: (disk.serial ?? "").trim(),
        readOnly: Boolean(disk.ro),
        medium: isMedium,
        partitionTable: disk.pttype ?? undefined,
        content: [
          ...(whole ? [own] : []),
          ...children
            .filter(({ type }) => type === "part")
            .map((partition) => contentOf(partition, isMedium ? () => undefined : probe)),
        ],
      };
    })
    .sort((a, b) => (a.path < b.path ? -1 : 1));
}

function contentOf(part: Device, probe: (path: string) => PoolFacts | undefined): ContentFacts {
  return {
    path: part.path,
    sizeBytes: part.size,
    label: part.partlabel ?? part.label ?? undefined,
    fileSystem: part.fstype ?? undefined,
    partitionUuid: part.partuuid ?? undefined,
    pool: probe(part.path),
  };
}

/** The pool on a device; a device that can't be read holds none that we could erase by mistake. */
function probeDevice(path: string): PoolFacts | undefined {
  const head = Buffer.alloc(probeBytes);
  let file: number;
  try {
    file = openSync(path, "r");
  } catch {
    return undefined;
  }
  try {
    readSync(file, head, 0, probeBytes, 0);
  } catch {
    return undefined;
  } finally {
    closeSync(file);
  }
  const traces = probeStore(head);
  return traces === undefined ? undefined : { id: traces.poolId, name: "" };
}

function deviceLinks(): Map<string, string[]> {
  const links = new Map<string, string[]>();
  for (const folder of ["/dev/disk/by-id", "/dev/disk/by-path"]) {
    if (!existsSync(folder)) continue;
    for (const entry of readdirSync(folder, { withFileTypes: true })) {
      // udev keeps folders among them, named like a link with "-part".
      if (!entry.isSymbolicLink()) continue;
      const link = join(folder, entry.name);
      const target = resolve(folder, readlinkSync(link));
      links.set(target, [...(links.get(target) ?? []), link]);
    }
  }
  return links;
}
