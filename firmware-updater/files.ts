/**
 * The few operations that writing a slot is made of. They are blocking and small; nothing is on the
 * disk before `sync` (a file's bytes and size) and `syncFolder` (names) have returned.
 *
 * There is no rename: on FAT two names may stand for the same clusters after a power cut, and
 * taking one of them away would free the other's. `replace` is for names that can't be changed
 * otherwise, and its user never touches what such a cut leaves (decision 0157).
 */
import {
  closeSync,
  constants,
  existsSync,
  fstatSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  readSync,
  renameSync,
  unlinkSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { KeelsonError } from "#lib/model/errors.ts";

export interface Files {
  /** Undefined if there is no such file. */
  size(path: string): number | undefined;
  /** Names in a folder, sorted; empty if there is no such folder. */
  list(folder: string): string[];
  /** At most `lengthBytes` bytes; fewer at the end. */
  read(path: string, offsetBytes: number, lengthBytes: number): Buffer;
  /** As `read`, from the medium and not from memory. */
  readBack(path: string, offsetBytes: number, lengthBytes: number): Buffer;
  /** Overwrites, or extends at the end. */
  write(path: string, offsetBytes: number, bytes: Uint8Array): void;
  /** An empty file that was not there. */
  create(path: string): void;
  remove(path: string): void;
  makeFolder(path: string): void;
  /**
   * `path` stands for the file at `from`, in the same folder, whose name goes. Durable when it
   * returns; the file that `path` stood for is given up only then.
   */
  replace(from: string, path: string): void;
  sync(path: string): void;
  syncFolder(path: string): void;
}

/** Page-aligned, as O_DIRECT demands; Node's own buffers are not. */
function alignedBuffer(sizeBytes: number): Buffer {
  return Buffer.from(new WebAssembly.Memory({ initial: Math.ceil(sizeBytes / 65_536) }).buffer);
}

export const chunkBytes = 1 << 20;

export class RealFiles implements Files {
  readonly #aligned = alignedBuffer(chunkBytes);

  size(path: string): number | undefined {
    if (!existsSync(path)) return undefined;
    return this.#with(path, "r", (file) => fstatSync(file).size);
  }

  list(folder: string): string[] {
    return existsSync(folder) ? readdirSync(folder).sort() : [];
  }

  read(path: string, offsetBytes: number, lengthBytes: number): Buffer {
    return this.#with(path, "r", (file) => readAll(file, offsetBytes, lengthBytes));
  }

  readBack(path: string, offsetBytes: number, lengthBytes: number): Buffer {
    const direct = this.#openDirect(path);
    if (direct === undefined) return this.read(path, offsetBytes, lengthBytes);
    try {
      const parts: Buffer[] = [];
      // Whole pages around what is asked; the file may end within one.
      const first = offsetBytes - (offsetBytes % 4096);
      for (let at = first; at < offsetBytes + lengthBytes; ) {
        const count = readSync(direct, this.#aligned, 0, chunkBytes, at);
        if (count === 0) break;
        const from = Math.max(0, offsetBytes - at);
        const to = Math.min(count, offsetBytes + lengthBytes - at);
        parts.push(Buffer.from(this.#aligned.subarray(from, to)));
        at += count;
        if (count % 4096 !== 0) break;
      }
      return Buffer.concat(parts);
    } catch (cause) {
      throw mediaError("read", path, cause);
    } finally {
      closeSync(direct);
    }
  }

  write(path: string, offsetBytes: number, bytes: Uint8Array): void {
    this.#with(path, "r+", (file) => {
      for (let done = 0; done < bytes.length; ) {
        done += writeSync(file, bytes, done, bytes.length - done, offsetBytes + done);
      }
    });
  }

  create(path: string): void {
    this.#with(path, "wx", () => {});
  }

  remove(path: string): void {
    unlinkSync(path);
  }

  makeFolder(path: string): void {
    mkdirSync(path, { recursive: true });
  }

  replace(from: string, path: string): void {
    // While it is open its clusters are not free: the new entry is on the disk before they are.
    const held = existsSync(path) ? openSync(path, "r") : undefined;
    try {
      renameSync(from, path);
      this.sync(path);
      this.syncFolder(join(path, ".."));
    } catch (cause) {
      throw cause instanceof KeelsonError ? cause : mediaError("write", path, cause);
    } finally {
      if (held !== undefined) closeSync(held);
    }
  }

  sync(path: string): void {
    this.#with(path, "r+", (file) => fsyncSync(file));
  }

  syncFolder(path: string): void {
    this.#with(path, "r", (file) => fsyncSync(file));
  }

  /** Undefined where the file system can't (tmpfs before Linux 6.6). */
  #openDirect(path: string): number | undefined {
    try {
      return openSync(path, constants.O_RDONLY | constants.O_DIRECT);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "EINVAL") return undefined;
      throw mediaError("open", path, error);
    }
  }

  #with<Value>(path: string, flags: string, use: (file: number) => Value): Value {
    let file: number | undefined;
    try {
      file = openSync(path, flags);
      return use(file);
    } catch (cause) {
      throw mediaError(flags === "r" ? "read" : "write", path, cause);
    } finally {
      if (file !== undefined) closeSync(file);
    }
  }
}

function readAll(file: number, offsetBytes: number, lengthBytes: number): Buffer {
  const buffer = Buffer.alloc(lengthBytes);
  let done = 0;
  while (done < lengthBytes) {
    const count = readSync(file, buffer, done, lengthBytes - done, offsetBytes + done);
    if (count === 0) break;
    done += count;
  }
  return buffer.subarray(0, done);
}

function mediaError(verb: string, path: string, cause: unknown): KeelsonError {
  const { code, message } = cause as NodeJS.ErrnoException;
  if (code === "ENOSPC") {
    return new KeelsonError("NO_SPACE", `There is no room left to write ${path}.`, {
      operation: `${verb} file`,
      object: path,
      remedy: "The running version is untouched. Free space there and start again.",
      cause,
    });
  }
  return new KeelsonError("MEDIA_ERROR", `Cannot ${verb} ${path}: ${code ?? message}.`, {
    operation: `${verb} file`,
    object: path,
    remedy: "The running version is untouched. Check the boot disk.",
    cause,
  });
}
