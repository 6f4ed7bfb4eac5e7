/**
 * A target's disk as a mounted ext4: QEMU's iSCSI initiator, its FUSE export of the disk, and a loop
 * device on that. A flush of the file system goes all the way: loop, FUSE, SYNCHRONIZE CACHE.
 */
import type { ChildProcess } from "node:child_process";
import { mkdirSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { endProcess } from "#qa/processes.ts";
import { startStorageDaemon } from "#qa/storage-daemon.ts";
import { must } from "./must.ts";

export interface Disk {
  /** ADDRESS:PORT */
  readonly portal: string;
  /** Of its LUN 0. */
  readonly target: string;
  readonly initiator: string;
}

export class AttachedDisk {
  readonly mountPoint: string;
  private readonly file: string;
  private readonly daemon: ChildProcess;

  private constructor(folder: string, daemon: ChildProcess) {
    this.file = join(folder, "disk");
    this.mountPoint = join(folder, "mnt");
    this.daemon = daemon;
  }

  /** Mounts it in `folder`, which it makes; `format` makes the file system first. */
  static async attach(disk: Disk, folder: string, format = false): Promise<AttachedDisk> {
    mkdirSync(join(folder, "mnt"), { recursive: true });
    writeFileSync(join(folder, "disk"), "");
    const { portal, target, initiator } = disk;
    const node = {
      ...{ driver: "iscsi", transport: "tcp", portal, target, lun: 0 },
      "initiator-name": initiator,
    };
    const file = join(folder, "disk");
    const exported = `type=fuse,id=export,node-name=disk,writable=on,mountpoint=${file}`;
    const daemon = await startStorageDaemon(
      node,
      ["--export", exported],
      () => statSync(file).size > 0,
    );
    const attached = new AttachedDisk(folder, daemon);
    try {
      if (format) await must("mkfs.ext4", ["-q", "-F", attached.file]);
      await must("mount", ["-o", "loop,discard", attached.file, attached.mountPoint]);
    } catch (error) {
      await attached.abandon();
      throw error;
    }
    return attached;
  }

  /** Unmounts, and has e2fsck read all of it: it must be clean. */
  async detach(): Promise<void> {
    await must("umount", [this.mountPoint]);
    await must("e2fsck", ["-f", "-n", this.file]);
    await endProcess(this.daemon);
  }

  /** What is left when the node is gone, or this process is about to be. */
  async abandon(): Promise<void> {
    await endProcess(this.daemon, "SIGKILL");
    await must("umount", ["--lazy", this.mountPoint]).catch(() => {});
    await must("umount", ["--lazy", this.file]).catch(() => {});
  }
}
