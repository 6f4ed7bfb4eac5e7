/** Runs programs of the live system. */
import { spawn } from "node:child_process";
import { KeelsonError } from "#lib/model/errors.ts";

/** Runs a program and gives its stdout; INTERNAL with its last complaint if it fails. */
export type Command = (program: string, arguments_: readonly string[]) => Promise<string>;

export const runCommand: Command = (program, arguments_) =>
  new Promise((resolve, reject) => {
    const child = spawn(program, arguments_, {
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, LC_ALL: "C.UTF-8" },
    });
    let output = "";
    let complaints = "";
    child.stdout.on("data", (bytes) => {
      output += bytes;
    });
    child.stderr.on("data", (bytes) => {
      complaints = (complaints + bytes).slice(-4000);
    });
    child.once("error", (cause) =>
      reject(new KeelsonError("INTERNAL", `Can't run ${program}: ${cause.message}.`, { cause })),
    );
    child.once("close", (code, signal) => {
      if (code === 0) return resolve(output);
      const last = complaints.trim().split("\n").slice(-3).join(" | ");
      const how = signal === null ? `status ${code}` : `signal ${signal}`;
      reject(
        new KeelsonError(
          "INTERNAL",
          `${program} ${arguments_.join(" ")} ended with ${how}: ${last}`,
          { operation: program },
        ),
      );
    });
  });
