import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, renameSync, statSync } from "node:fs";
import { basename, join } from "node:path";
import { KeelsonError } from "#lib/model/errors.ts";

const folder = join(import.meta.dirname, "../../build/qa");

/** Path of the program compiled from one C source against libiscsi; compiles it when it is older. */
export function cProgram(source: string): string {
  const program = join(folder, basename(source, ".c"));
  if (existsSync(program) && statSync(program).mtimeMs > statSync(source).mtimeMs) return program;
  mkdirSync(folder, { recursive: true });
  const next = `${program}.${process.pid}`;
  const result = spawnSync("gcc", ["-O2", "-Wall", "-Wextra", "-o", next, source, "-liscsi"], {
    encoding: "utf8",
  });
  if (result.status !== 0) {
    throw new KeelsonError("UNAVAILABLE", `${source} did not compile: ${result.stderr ?? ""}`, {
      operation: "compile",
      object: source,
      remedy: "Install gcc and libiscsi-dev.",
      cause: result.error,
    });
  }
  renameSync(next, program);
  return program;
}
