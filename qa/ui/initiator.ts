/** A diskless machine as the console sees it: asks for its script, then logs in to its disk. */
import { spawn } from "node:child_process";
import { once } from "node:events";

interface BootScript {
  readonly initiator: string;
  /** As libiscsi writes it: `iscsi://user%secret@portal/target/lun`. */
  readonly url: string;
}

/** What a machine with this MAC is told to boot, read from the iPXE script that netboot serves. */
export async function fetchBootScript(bootUrl: string, mac: string): Promise<BootScript> {
  const response = await fetch(`${bootUrl}/boot.ipxe?mac=${mac}&arch=pcbios`);
  const text = await response.text();
  const value = (pattern: RegExp): string => {
    const match = pattern.exec(text);
    if (match === null) throw new Error(`The script of ${mac} has no ${pattern}:\n${text}`);
    return match[1];
  };
  const secret = (name: string) =>
    Buffer.from(value(new RegExp(`^set ${name}:hex (\\S+)`, "m")).replaceAll(":", ""), "hex");
  const [, address, port, lun, target] =
    /sanboot iscsi:([^:]+)::(\d+):([0-9a-f]+):(\S+)/.exec(text) ?? [];
  if (target === undefined) throw new Error(`The script of ${mac} boots no disk:\n${text}`);
  const login = `${secret("username")}%${secret("password")}`;
  return {
    initiator: value(/^set initiator-iqn (\S+)/m),
    url: `iscsi://${login}@${address}:${port}/${target}/${Number.parseInt(lun, 16)}`,
  };
}

/** Keeps a session open, reading, until `seen` resolves; throws with its output if it ends before. */
export async function holdSession(script: BootScript, seen: () => Promise<unknown>): Promise<void> {
  const child = spawn("iscsi-perf", ["-i", script.initiator, "-m", "1", script.url]);
  let output = "";
  child.stdout.on("data", (text) => {
    output += text;
  });
  child.stderr.on("data", (text) => {
    output += text;
  });
  const ended = once(child, "exit");
  try {
    await Promise.race([
      seen(),
      ended.then(() => {
        throw new Error(`iscsi-perf ended:\n${output}`);
      }),
    ]);
  } finally {
    child.kill("SIGKILL");
    if (child.exitCode === null && child.signalCode === null) await ended;
  }
}
