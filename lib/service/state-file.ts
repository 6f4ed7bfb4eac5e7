import {
  closeSync,
  fchmodSync,
  fsyncSync,
  openSync,
  readFileSync,
  renameSync,
  writeSync,
} from "node:fs";
import { dirname } from "node:path";
import { KeelsonError } from "#lib/model/errors.ts";

/**
 * Replaces `path` as a whole, mode 0600 unless told: a reader, or a boot after power loss, sees the old or the
 * new content. The file is synced before the rename, the directory after it.
 */
export function writeStateFile(path: string, content: string, mode = 0o600): void {
  const next = `${path}.new`;
  const file = openSync(next, "w", mode);
  try {
    // Whatever the process's mask is, and whoever left a `.new` behind.
    fchmodSync(file, mode);
    writeSync(file, content);
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
  renameSync(next, path);
  const folder = openSync(dirname(path), "r");
  try {
    fsyncSync(folder);
  } finally {
    closeSync(folder);
  }
}

/** Content of a JSON state file, or undefined if there is none; FORMAT_CORRUPT if it isn't JSON. */
export function readStateFile(path: string): unknown {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new KeelsonError("FORMAT_CORRUPT", `State file ${path} is not valid JSON.`, {
      operation: "read state",
      object: path,
      remedy: "Move it away to start from nothing; api puts the policy again.",
      cause,
    });
  }
}
