/** How what the tests started ends. */
import type { ChildProcess } from "node:child_process";
import { readFileSync } from "node:fs";

/** Resolves when it is gone; at once if it is already. */
export async function endProcess(
  child: ChildProcess,
  signal: NodeJS.Signals = "SIGTERM",
): Promise<void> {
  if (child.pid === undefined || hasEnded(child)) return;
  const ended = new Promise((resolve) => child.once("exit", resolve));
  child.kill(signal);
  await ended;
}

/** It and its own children with SIGKILL, as when the power goes: none is told, none started again. */
export async function killWithChildren(child: ChildProcess): Promise<void> {
  if (child.pid === undefined || hasEnded(child)) return;
  // Stopped, it starts no more of them.
  child.kill("SIGSTOP");
  const children = readFileSync(`/proc/${child.pid}/task/${child.pid}/children`, "utf8");
  for (const pid of children.split(" ").filter(Boolean)) {
    try {
      process.kill(Number(pid), "SIGKILL");
    } catch {
      // It ended by itself meanwhile.
    }
  }
  await endProcess(child, "SIGKILL");
}

export function hasEnded(child: ChildProcess): boolean {
  return child.exitCode !== null || child.signalCode !== null;
}
