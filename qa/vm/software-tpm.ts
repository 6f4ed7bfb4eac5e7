/** A TPM 2.0 for a machine: swtpm as a child process, with the state of one chip in a folder. */
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { KeelsonError } from "#lib/model/errors.ts";

const startMs = 20_000;

export class SoftwareTpm {
  readonly #process: ChildProcess;
  readonly #sockets: string;

  private constructor(child: ChildProcess, sockets: string) {
    this.#process = child;
    this.#sockets = sockets;
  }

  /** `state` is the chip: a new folder is a new one. UNAVAILABLE if swtpm is missing or ends. */
  static async start(state: string): Promise<SoftwareTpm> {
    mkdirSync(state, { recursive: true });
    const sockets = mkdtempSync(join(tmpdir(), "keelson-tpm-"));
    const control = join(sockets, "control");
    const child = spawn(
      "setpriv",
      [
        ...["--pdeathsig", "KILL", "swtpm", "socket", "--tpm2"],
        ...["--tpmstate", `dir=${state}`, "--ctrl", `type=unixio,path=${control}`],
      ],
      { stdio: ["ignore", "ignore", "pipe"] },
    );
    let complaints = "";
    child.stderr.on("data", (bytes: Buffer) => {
      complaints += bytes.toString();
    });
    const spawned = new Promise<void>((resolve, reject) => {
      child.once("spawn", resolve);
      child.once("error", reject);
    });
    const tpm = new SoftwareTpm(child, sockets);
    try {
      await spawned;
      const until = Date.now() + startMs;
      while (!existsSync(control)) {
        if (child.exitCode !== null || Date.now() > until) throw new Error(complaints.trim());
        await sleep(50);
      }
      return tpm;
    } catch (cause) {
      await tpm.close();
      throw new KeelsonError("UNAVAILABLE", `Can't start swtpm: ${(cause as Error).message}.`, {
        remedy: "Install Debian's package swtpm.",
        cause,
      });
    }
  }

  /** QEMU's arguments. */
  get arguments(): string[] {
    return [
      ...["-chardev", `socket,id=tpm,path=${join(this.#sockets, "control")}`],
      ...["-tpmdev", "emulator,id=tpm0,chardev=tpm", "-device", "tpm-crb,tpmdev=tpm0"],
    ];
  }

  async close(): Promise<void> {
    const { exitCode, signalCode, pid } = this.#process;
    if (pid !== undefined && exitCode === null && signalCode === null) {
      const gone = new Promise((resolve) => this.#process.once("close", resolve));
      this.#process.kill();
      await gone;
    }
    rmSync(this.#sockets, { recursive: true, force: true });
  }
}
