/** QEMU's storage daemon, which attaches a disk by one protocol and exports it by another. */
import { type ChildProcess, spawn } from "node:child_process";
import { KeelsonError } from "#lib/model/errors.ts";
import { hasEnded } from "./processes.ts";

const startMs = 30_000;

/**
 * Attaches `disk`, a `--blockdev` whose node has the name `disk`, and resolves once `ready`.
 * UNAVAILABLE with what it said if it ends before, or isn't in half a minute.
 */
export async function startStorageDaemon(
  disk: object,
  exported: readonly string[],
  ready: () => boolean,
): Promise<ChildProcess> {
  const blockdev = JSON.stringify({ "node-name": "disk", ...disk });
  const daemon = spawn("qemu-storage-daemon", ["--blockdev", blockdev, ...exported], {
    stdio: ["ignore", "ignore", "pipe"],
  });
  let errors = "";
  daemon.stderr!.on("data", (text) => {
    errors += text;
  });
  daemon.once("error", ({ message }) => {
    errors += message;
  });
  for (let waitedMs = 0; !ready(); waitedMs += 50) {
    if (daemon.pid === undefined || hasEnded(daemon) || waitedMs > startMs) {
      daemon.kill("SIGKILL");
      throw new KeelsonError("UNAVAILABLE", `The disk is not attached: ${errors.trim()}`, {
        operation: "qemu-storage-daemon",
        object: blockdev,
      });
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return daemon;
}
