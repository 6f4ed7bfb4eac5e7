/**
 * A target's disk as a mounted ext4: QEMU's iSCSI initiator, its FUSE export of the disk, and a loop
 * device on that. A flush of the file system goes all the way: loop, FUSE, SYNCHRONIZE CACHE.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdirSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { KeelsonError } from "#lib/model/errors.ts";
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
      ...{ driver: "iscsi", "node-name": "disk", transport: "tcp", portal, target, lun: 0 },
      "initiator-name": initiator,
    };
    const exported = ["type=fuse", "id=export", "node-name=disk", "writable=on"];
    const daemon = spawn(
      "qemu-storage-daemon",
      [
        ...["--blockdev", JSON.stringify(node)],
        ...["--export", [...exported, `mountpoint=${join(folder, "disk")}`].join(",")],
      ],
      { stdio: ["ignore", "ignore", "pipe"] },
    );
    let errors = "";
    daemon.stderr!.on("data", (text) => {
      errors += text;
    });
    const attached = new AttachedDisk(folder, daemon);
    try {
      for (let waitedMs = 0; statSync(attached.file).size === 0; waitedMs += 50) {
        if (daemon.exitCode !== null || waitedMs > 30_000) {
          throw new KeelsonError("UNAVAILABLE", `${target} is not attached: ${errors.trim()}`);
        }
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
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
    await this.endDaemon("SIGTERM");
  }

  /** What is left when the node is gone, or this process is about to be. */
  async abandon(): Promise<void> {
    await this.endDaemon("SIGKILL");
    await must("umount", ["--lazy", this.mountPoint]).catch(() => {});
    await must("umount", ["--lazy", this.file]).catch(() => {});
  }

  private async endDaemon(signal: NodeJS.Signals): Promise<void> {
    if (this.daemon.exitCode !== null || this.daemon.signalCode !== null) return;
    const ended = new Promise((resolve) => this.daemon.once("exit", resolve));
    this.daemon.kill(signal);
    await ended;
  }
}
