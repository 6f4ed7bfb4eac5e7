import { execFile } from "node:child_process";
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
  const env = { ...process.env, LC_ALL: "C", ...environment };
  return new Promise((resolve, reject) => {
    execFile(command, args, { cwd: "/", env, ...as }, (error, printed, said) => {
      if (error === null) return resolve(printed);
      const text = `${said}\n${printed}`.trim().slice(-1500) || error.message;
      reject(
        new KeelsonError(
          "INTERNAL",
          `${command} ended with ${error.signal ?? error.code}: ${text}`,
          {
            operation: [command, ...args].join(" ").slice(0, 300),
          },
        ),
      );
    });
  });
}
