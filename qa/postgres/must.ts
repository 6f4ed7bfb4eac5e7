import { spawn } from "node:child_process";
import { KeelsonError } from "#lib/model/errors.ts";

export interface Identity {
  readonly uid: number;
  readonly gid: number;
}

/** What a command prints; throws with what it said if it fails. */
export function must(
  command: string,
  args: readonly string[],
  as?: Identity,
  environment: NodeJS.ProcessEnv = {},
): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, {
      stdio: ["ignore", "pipe", "pipe"],
      cwd: "/",
      env: { ...process.env, LC_ALL: "C", ...environment },
      ...as,
    });
    let [printed, said] = ["", ""];
    child.stdout.on("data", (text) => {
      printed += text;
    });
    child.stderr.on("data", (text) => {
      said += text;
    });
    child.once("error", reject);
    child.once("close", (code, signal) => {
      if (code === 0) return resolve(printed);
      const text = `${said}\n${printed}`.trim().slice(-1500);
      reject(
        new KeelsonError("INTERNAL", `${command} ended with ${signal ?? code}: ${text}`, {
          operation: [command, ...args].join(" ").slice(0, 300),
        }),
      );
    });
  });
}
