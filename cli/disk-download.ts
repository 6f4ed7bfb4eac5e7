/**
 * A disk of the node into a file: what has come stands in `FILE.part`, so that a download which broke
 * goes on where it was, also by another command. Zeroes of a raw disk become holes.
 */
import {
  closeSync,
  existsSync,
  fsyncSync,
  ftruncateSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { explainError, isKeelsonError, KeelsonError } from "#lib/model/errors.ts";
import { formatSize } from "#lib/model/size.ts";
import type { Connection } from "./connection.ts";
import type { CommandContext } from "./context.ts";
import { ProgressLine } from "./terminal.ts";

const blockBytes = 4096;
const zeroes = Buffer.alloc(blockBytes);
const mostTries = 10;
const pauseMs = 2_000;

export interface DiskDownload {
  readonly path: string;
  readonly sizeBytes: number;
  /** Bytes that an earlier try had left. */
  readonly resumedAt: number;
}

/** CONFLICT if `file` is there. What breaks on the way is tried again before it is given up. */
export async function downloadDisk(
  api: Pick<Connection, "downloadFrom">,
  path: string,
  file: string,
  progress: (percent: number) => void,
): Promise<DiskDownload> {
  if (existsSync(file)) {
    throw new KeelsonError("CONFLICT", `${file} is there already.`, {
      object: file,
      remedy: "Give another name, or move it away.",
    });
  }
  const part = `${file}.part`;
  const note = `${file}.part.tag`;
  const resumedAt = existsSync(part) && existsSync(note) ? statSync(part).size : 0;
  const handle = openSync(part, resumedAt > 0 ? "r+" : "w", 0o600);
  let at = resumedAt;
  try {
    for (let tries = 0; ; tries++) {
      try {
        const { body, totalBytes, tag } = await api.downloadFrom(path, at);
        if (at > 0 && readFileSync(note, "utf8") !== tag) throw otherDisk(part, file);
        writeFileSync(note, tag);
        for await (const bytes of body as AsyncIterable<Buffer>) {
          writeSparsely(handle, bytes, at);
          at += bytes.length;
          tries = 0;
          progress((100 * at) / totalBytes);
        }
        if (at < totalBytes) throw new KeelsonError("UNAVAILABLE", "The connection ended.");
        ftruncateSync(handle, totalBytes);
        fsyncSync(handle);
        renameSync(part, file);
        rmSync(note, { force: true });
        return { path: file, sizeBytes: totalBytes, resumedAt };
      } catch (error) {
        if (!mayGoOn(error) || tries >= mostTries) throw explained(error, part, at);
        // So that a hole at the end counts as received.
        ftruncateSync(handle, at);
        await sleep(pauseMs);
      }
    }
  } finally {
    ftruncateSync(handle, at);
    closeSync(handle);
  }
}

/** For a command: `file` by default after `name`, with progress, and a sentence at the end. */
export async function exportDisk(
  context: CommandContext,
  path: string,
  name: string,
  file: string | undefined,
  { format }: { readonly format: string },
): Promise<void> {
  if (format !== "qcow2" && format !== "raw") {
    throw new KeelsonError("INVALID_ARGUMENT", `--format ${format} is not qcow2 or raw.`);
  }
  const target =
    file ?? `${name.replaceAll(/[^A-Za-z0-9._-]/g, "_")}.${format === "raw" ? "img" : "qcow2"}`;
  const line = new ProgressLine();
  try {
    const done = await downloadDisk(context.api, `${path}?format=${format}`, target, (percent) =>
      line.show("download", percent),
    );
    line.end();
    const resumed = done.resumedAt > 0 ? `, from ${formatSize(done.resumedAt)} on` : "";
    context.print(done, `${target}: ${formatSize(done.sizeBytes)}${resumed}.`);
  } finally {
    line.end();
  }
}

/** Blocks of zeroes are left out; what lies between them goes in one write. */
function writeSparsely(handle: number, bytes: Buffer, position: number): void {
  let pending = 0;
  const writeUpTo = (end: number) => {
    if (end > pending) writeSync(handle, bytes, pending, end - pending, position + pending);
  };
  for (let at = 0; at < bytes.length; ) {
    const length = Math.min(blockBytes - ((position + at) % blockBytes), bytes.length - at);
    const next = at + length;
    if (length === blockBytes && bytes.subarray(at, next).equals(zeroes)) {
      writeUpTo(at);
      pending = next;
    }
    at = next;
  }
  writeUpTo(bytes.length);
}

/** What the node said is final, and what this machine's disk said; a connection that broke is not. */
function mayGoOn(error: unknown): boolean {
  const { syscall } = error as NodeJS.ErrnoException;
  if (!isKeelsonError(error))
    return !["write", "ftruncate", "open", "rename"].includes(syscall ?? "");
  return error.code === "UNAVAILABLE" || error.code === "TIMEOUT";
}

function explained(error: unknown, part: string, at: number): KeelsonError {
  if (isKeelsonError(error) && error.code !== "UNAVAILABLE") return error;
  return new KeelsonError(
    "UNAVAILABLE",
    `The download broke after ${formatSize(at)}: ${explainError(error)}`,
    { object: part, remedy: "The same command again goes on from there.", cause: error },
  );
}

function otherDisk(part: string, file: string): KeelsonError {
  return new KeelsonError("CONFLICT", `${part} is of another disk or format.`, {
    object: part,
    remedy: `Delete it, or give another name than ${file}.`,
  });
}
