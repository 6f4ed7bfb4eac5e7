/** Numbers of a system account, from /etc/passwd. */
import { readFileSync } from "node:fs";
import { KeelsonError } from "#lib/model/errors.ts";

export function accountIds(name: string, path = "/etc/passwd"): { uid: number; gid: number } {
  const line = readFileSync(path, "utf8")
    .split("\n")
    .find((each) => each.startsWith(`${name}:`));
  const fields = line?.split(":") ?? [];
  if (fields.length < 4) {
    throw new KeelsonError("NOT_FOUND", `There is no account ${name} on this system.`, {
      operation: "set up node",
      remedy: "The image is incomplete; install another version.",
    });
  }
  return { uid: Number(fields[2]), gid: Number(fields[3]) };
}
