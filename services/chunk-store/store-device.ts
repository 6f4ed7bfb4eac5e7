/** From a path to a mounted store: creates, formats what is blank, opens, locks, mounts. */
import { randomUUID } from "node:crypto";
import { existsSync } from "node:fs";
import { KeelsonError } from "#lib/model/errors.ts";
import { native } from "#native";
import { formatStore, mountStore } from "./engine/mount.ts";
import type { Store } from "./engine/store.ts";
import { checksum, createFileDisk, type FileDisk, openFileDisk } from "./file-disk.ts";

export interface StoreDeviceOptions {
  readonly path: string;
  /** Size of the file to make where there is none; undefined: there must be one. */
  readonly createBytes: number | undefined;
  /** Pool of a new store, and the only one to accept. */
  readonly pool: string | undefined;
  readonly memoryBytes: number;
  /** To write: see MountOptions. */
  readonly format: number;
  /** Data past the page cache. */
  readonly direct?: boolean;
}

export interface OpenStore {
  readonly store: Store;
  readonly disk: FileDisk;
  /** True if it was made just now. */
  readonly created: boolean;
}

/** What must be zero for a block device to count as blank: its first MiB. */
const blankBytes = 1 << 20;

export function openStore(options: StoreDeviceOptions): OpenStore {
  const { path, createBytes } = options;
  const formatDisk = (disk: FileDisk) =>
    formatStore(disk, {
      device: path,
      pool: options.pool ?? randomUUID(),
      store: randomUUID(),
      nowMs: Date.now(),
      checksum,
      format: options.format,
    });
  let created = false;
  if (createBytes !== undefined && !existsSync(path)) {
    createFileDisk(path, createBytes, formatDisk);
    created = true;
  }
  const disk = openFileDisk(path, native, options.direct === true ? "direct" : "write");
  try {
    // A new partition is formatted at the first start; a file never: it appears whole or not at all.
    if (disk.isBlockDevice && isBlank(disk)) {
      formatDisk(disk);
      created = true;
    }
    const { memoryBytes, pool, format } = options;
    const store = mountStore(disk, { device: path, checksum, memoryBytes, pool, format });
    return { store, disk, created };
  } catch (error) {
    disk.close();
    throw error;
  }
}

function isBlank(disk: FileDisk): boolean {
  const bytes = new Uint8Array(Math.min(blankBytes, disk.sizeBytes));
  if (!disk.read(bytes, 0, bytes.length, 0)) {
    throw new KeelsonError("MEDIA_ERROR", `${disk.path} cannot be read.`, { object: disk.path });
  }
  return bytes.every((byte) => byte === 0);
}
