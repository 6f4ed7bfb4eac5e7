/** tgt (Debian's `tgt`) over raw files: the peer to measure against. */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { closeSync, openSync } from "node:fs";
import { join } from "node:path";
import { KeelsonError } from "#lib/model/errors.ts";

/** Its own socket number, so that a tgtd of the system is left alone. */
const controlPort = 471;

export class Tgt {
  readonly portal: string;
  private readonly child: ChildProcess;
  private readonly environment: NodeJS.ProcessEnv;

  private constructor(portal: string, directory: string) {
    this.portal = portal;
    this.environment = { ...process.env, TGT_IPC_SOCKET: join(directory, "tgt.sock") };
    const log = openSync(join(directory, "tgt.log"), "w");
    this.child = spawn(
      "tgtd",
      ["-f", "-C", String(controlPort), "--nr_iothreads", "1", "--iscsi", `portal=${portal}`],
      { stdio: ["ignore", log, log], env: this.environment },
    );
    closeSync(log);
  }

  /** Serves each file as LUN 1 of a target of its own, with buffers as large as ours. */
  static async start(portal: string, directory: string, files: readonly string[]): Promise<Tgt> {
    const tgt = new Tgt(portal, directory);
    try {
      await tgt.answering();
      for (const [index, file] of files.entries()) tgt.addTarget(index, file);
      return tgt;
    } catch (error) {
      tgt.stop();
      throw error;
    }
  }

  get pids(): readonly number[] {
    return [this.child.pid!];
  }

  iqn(index: number): string {
    return `iqn.2026-11.org.keelson.qa:tgt${index}`;
  }

  private async answering(): Promise<void> {
    for (let attempt = 0; attempt < 100; attempt++) {
      await new Promise((resolve) => setTimeout(resolve, 50));
      if (this.child.exitCode !== null) break;
      if (this.admin(["--op", "show", "--mode", "system"]).status === 0) return;
    }
    throw new KeelsonError("UNAVAILABLE", "tgtd does not answer.", {
      remedy: "Is the Debian package tgt installed? Its log stands beside its socket.",
    });
  }

  private admin(args: readonly string[]) {
    return spawnSync("tgtadm", ["-C", String(controlPort), "--lld", "iscsi", ...args], {
      encoding: "utf8",
      env: this.environment,
    });
  }

  private must(args: readonly string[]): void {
    const result = this.admin(args);
    if (result.status !== 0) {
      throw new KeelsonError("UNAVAILABLE", `tgtadm ${args.join(" ")}: ${result.stderr.trim()}`);
    }
  }

  private addTarget(index: number, file: string): void {
    const target = ["--mode", "target", "--tid", String(index + 1)];
    this.must(["--op", "new", ...target, "-T", this.iqn(index)]);
    for (const [name, value] of [
      ["MaxRecvDataSegmentLength", 262_144],
      ["MaxXmitDataSegmentLength", 262_144],
      ["FirstBurstLength", 262_144],
      ["MaxBurstLength", 1_048_576],
    ] as const) {
      this.must(["--op", "update", ...target, "-n", name, "-v", String(value)]);
    }
    const unit = ["--mode", "logicalunit", "--tid", String(index + 1), "--lun", "1"];
    this.must(["--op", "new", ...unit, "-b", file]);
    this.must(["--op", "bind", ...target, "-I", "ALL"]);
  }

  /** SIGKILL: it ignores SIGTERM while it has targets. */
  stop(): void {
    this.child.kill("SIGKILL");
  }
}
