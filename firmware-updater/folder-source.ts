/**
 * Bundles in a folder that somebody else fills: a stick, a directory on the node. The folder is not
 * to be trusted: a name may stand for a device, a pipe, a link to another user's file, or change
 * between two looks. Only a regular file of the folder itself is read, and only once.
 */
import { constants, existsSync, lstatSync, readdirSync } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { join } from "node:path";
import { KeelsonError } from "#lib/model/errors.ts";

const pieceBytes = 1 << 20;
/** More names are no stick for upgrades. */
const mostNames = 1000;

/** By name, of regular files. A folder that can't be read has none. */
export function bundlesIn(folder: string): { readonly path: string; readonly sizeBytes: number }[] {
  if (!existsSync(folder)) return [];
  return namesIn(folder).flatMap((name) => {
    const path = join(folder, name);
    try {
      const { size } = lstatSync(path);
      return [{ path, sizeBytes: size }];
    } catch {
      // Gone since, or unreadable.
      return [];
    }
  });
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder, { withFileTypes: true })
      .slice(0, mostNames)
      .filter((entry) => entry.isFile() && /^[^.].*\.kbundle$/i.test(entry.name))
      .map(({ name }) => name);
  } catch {
    return [];
  }
}

/** The file's bytes: MEDIA_ERROR where it can't be read to the end or has become another. */
export async function* copyOf(
  path: string,
  kind: "usb" | "directory",
  sizeBytes: number,
): AsyncGenerator<Uint8Array> {
  let file: FileHandle | undefined;
  try {
    // A link isn't followed, and a pipe that nobody writes to doesn't hold this up.
    file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    const found = await file.stat();
    if (!found.isFile()) throw new Error("it is not a file");
    let at = 0;
    while (at < sizeBytes) {
      const piece = Buffer.allocUnsafe(Math.min(pieceBytes, sizeBytes - at));
      const { bytesRead } = await file.read(piece, 0, piece.length, at);
      if (bytesRead === 0) throw new Error(`it ends after ${at} of ${sizeBytes} bytes`);
      at += bytesRead;
      yield piece.subarray(0, bytesRead);
    }
    if ((await file.stat()).size !== sizeBytes) throw new Error("it has grown meanwhile");
  } catch (cause) {
    if (cause instanceof KeelsonError) throw cause;
    throw unreadable(path, kind, cause as NodeJS.ErrnoException);
  } finally {
    await file?.close();
  }
}

function unreadable(path: string, kind: "usb" | "directory", cause: NodeJS.ErrnoException) {
  const why = cause.code === "ELOOP" ? "it is a link" : cause.message;
  return new KeelsonError(
    "MEDIA_ERROR",
    kind === "usb"
      ? `The stick was pulled, or can't be read, before the bundle was copied (${why}).`
      : `${path} can't be read: ${why}.`,
    {
      operation: "copy bundle",
      object: path,
      remedy: kind === "usb" ? "Plug it in again, and fetch the bundle again." : "Copy it again.",
      cause,
    },
  );
}
