/**
 * A store's device as a file descriptor: a regular file or a block device, locked so that no second
 * process mounts it. With the addon, the rows that name the bound payload go in one call a batch.
 */
import { spawnSync } from "node:child_process";
import {
  closeSync,
  constants,
  fdatasync,
  fdatasyncSync,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  openSync,
  readSync,
  renameSync,
  unlinkSync,
  writeSync,
} from "node:fs";
import { dirname } from "node:path";
import { isKeelsonError, KeelsonError } from "#lib/model/errors.ts";
import { crc32c as portableChecksum } from "#lib/wire/crc32c.ts";
import { Errno, type Native, native, Row } from "#native";
import type { Checksum } from "./engine/disk.ts";
import { PlainDisk } from "./engine/plain-disk.ts";

const rowCapacity = 1024;
/** Of one vectored call. */
const mostParts = 256;
/** Reads of so much wait for the device by themselves. */
const largeReadBytes = 256 * 1024;

/** With the addon 0.4 us a block, without 4. */
export const checksum: Checksum =
  native === undefined
    ? (bytes, offset, length) => portableChecksum(bytes.subarray(offset, offset + length))
    : (bytes, offset, length) => native!.crc32c(bytes.subarray(offset, offset + length), 0);

export class FileDisk extends PlainDisk {
  readonly path: string;
  readonly sizeBytes: number;
  readonly isBlockDevice: boolean;
  /** Readable when a flush has finished, -1 without the addon. */
  readonly wakeFd: number;
  private readonly fd: number;
  /** The same file past the page cache, or -1. */
  private readonly directFd: number;
  private readonly addon: Native | undefined;
  private readonly rows: Int32Array;
  private readonly reaped = new Int32Array(128);
  private readonly flushes = new Map<number, (ok: boolean) => void>();
  private nextFlush = 0;
  private payload: Uint8Array | undefined;
  private slot = -1;

  constructor(
    path: string,
    fd: number,
    sizeBytes: number,
    isBlockDevice: boolean,
    addon: Native | undefined,
    directFd = -1,
  ) {
    super(checksum);
    this.path = path;
    this.isBlockDevice = isBlockDevice;
    this.fd = fd;
    this.directFd = directFd;
    this.sizeBytes = sizeBytes;
    this.addon = addon;
    this.wakeFd = addon === undefined ? -1 : addon.flushStart();
    this.rows = new Int32Array(rowCapacity * Row.words);
  }

  /** Rows that read or write `payload` may name it by the addon's slot from now on. */
  bind(payload: Uint8Array, slot: number): void {
    this.payload = payload;
    this.slot = slot;
  }

  read(into: Uint8Array, offset: number, lengthBytes: number, position: number): boolean {
    try {
      for (let done = 0; done < lengthBytes; ) {
        const got = readSync(this.fd, into, offset + done, lengthBytes - done, position + done);
        if (got === 0) return false;
        done += got;
      }
      return true;
    } catch {
      return false;
    }
  }

  write(from: Uint8Array, offset: number, lengthBytes: number, position: number): boolean {
    try {
      for (let done = 0; done < lengthBytes; ) {
        done += writeSync(this.fd, from, offset + done, lengthBytes - done, position + done);
      }
      return true;
    } catch {
      return false;
    }
  }

  forget(position: number, lengthBytes: number): void {
    if (this.addon === undefined) return;
    this.setRow(0, Row.forget, 0, lengthBytes, position);
    this.addon.rowsRun(this.rows, 1);
  }

  readAhead(position: number, lengthBytes: number): void {
    this.addon?.readAhead(this.fd, position, lengthBytes);
  }

  override readRows(
    into: Uint8Array,
    offsets: Int32Array,
    lengths: Int32Array,
    positions: Float64Array,
    results: Uint8Array,
    count: number,
  ): void {
    if (!this.bound(into)) {
      super.readRows(into, offsets, lengths, positions, results, count);
      return;
    }
    const direct = this.directFd >= 0;
    const small = Row.read | Row.together | (direct ? 0 : Row.noWait);
    // In their order: several at once would confuse the kernel's readahead.
    const large = direct ? small : Row.read;
    const fd = direct ? this.directFd : this.fd;
    for (let first = 0; first < count; first += rowCapacity) {
      const some = Math.min(rowCapacity, count - first);
      for (let i = 0; i < some; i++) {
        const at = first + i;
        const operation = lengths[at] < largeReadBytes ? small : large;
        this.setRow(i, operation, offsets[at], lengths[at], positions[at], fd);
      }
      this.addon!.rowsRun(this.rows, some);
      for (let i = 0; i < some; i++) {
        const at = first + i;
        // A short read is rare (a signal, a device's end), and so is a payload that direct I/O can't
        // take: the plain loop settles it.
        results[at] =
          this.rows[i * Row.words + 7] === lengths[at] ||
          this.read(into, offsets[at], lengths[at], positions[at])
            ? 1
            : 0;
      }
    }
  }

  override writeRows(
    from: Uint8Array,
    offsets: Int32Array,
    lengths: Int32Array,
    positions: Float64Array,
    count: number,
  ): boolean {
    if (!this.bound(from)) return super.writeRows(from, offsets, lengths, positions, count);
    const fd = this.directFd >= 0 ? this.directFd : this.fd;
    for (let first = 0; first < count; first += rowCapacity) {
      const end = Math.min(first + rowCapacity, count);
      for (let at = first, parts = 1; at < end; at++, parts++) {
        // What lies in one piece goes in one call.
        const joins = positions[at] + lengths[at] === positions[at + 1];
        const more = joins && at + 1 < end && parts < mostParts;
        if (!more) parts = 0;
        const operation = more ? Row.write | Row.more : Row.write;
        this.setRow(at - first, operation, offsets[at], lengths[at], positions[at], fd);
      }
      this.addon!.rowsRun(this.rows, end - first);
      for (let at = first; at < end; ) {
        let last = at;
        let bytes = lengths[at];
        while ((this.rows[(last - first) * Row.words] & Row.more) !== 0) bytes += lengths[++last];
        const done = this.rows[(at - first) * Row.words + 7];
        // A short write is rare. A payload that is too loosely aligned for direct I/O: through the
        // page cache, then.
        const misaligned = fd === this.directFd && done === Errno.invalid;
        if (done < 0 && !misaligned) return false;
        if (done !== bytes) {
          const [rest, restLengths] = [offsets.subarray(at), lengths.subarray(at)];
          return super.writeRows(from, rest, restLengths, positions.subarray(at), count - at);
        }
        at = last + 1;
      }
    }
    return true;
  }

  override checksumRows(
    from: Uint8Array,
    offsets: Int32Array,
    sums: Uint32Array,
    count: number,
  ): void {
    if (this.addon === undefined) super.checksumRows(from, offsets, sums, count);
    else this.addon.crc32cBlocks(from, offsets, sums, count);
  }

  flush(done: (ok: boolean) => void): void {
    if (this.addon !== undefined) {
      const token = this.nextFlush;
      this.nextFlush = (this.nextFlush + 1) & 0x3fffffff;
      if (this.addon.flushSubmit(this.fd, token)) {
        this.flushes.set(token, done);
        return;
      }
    }
    fdatasync(this.fd, (error) => done(error === null));
  }

  beginFlush(): void {
    this.addon?.flushBegin(this.fd);
  }

  /** Calls back flushes that the addon's thread has finished. */
  reap(): void {
    if (this.addon === undefined || this.flushes.size === 0) return;
    const count = this.addon.flushReap(this.reaped);
    for (let i = 0; i < count; i++) {
      const token = this.reaped[2 * i];
      const done = this.flushes.get(token);
      this.flushes.delete(token);
      done?.(this.reaped[2 * i + 1] === 0);
    }
  }

  flushSync(): boolean {
    try {
      fdatasyncSync(this.fd);
      return true;
    } catch {
      return false;
    }
  }

  close(): void {
    if (this.directFd >= 0) closeSync(this.directFd);
    closeSync(this.fd);
  }

  private bound(buffer: Uint8Array): boolean {
    return this.slot >= 0 && buffer === this.payload;
  }

  private setRow(
    row: number,
    operation: number,
    offset: number,
    length: number,
    position: number,
    fd = this.fd,
  ): void {
    const at = row * Row.words;
    this.rows[at] = operation;
    this.rows[at + 1] = fd;
    this.rows[at + 2] = this.slot;
    this.rows[at + 3] = offset;
    this.rows[at + 4] = length;
    this.rows[at + 5] = position % 2 ** 32;
    this.rows[at + 6] = Math.floor(position / 2 ** 32);
  }
}

/**
 * Opens and locks a device. NOT_FOUND if there is none, IN_USE if another process has it mounted.
 * `addon` undefined uses node's own calls. `direct`: data of batches goes past the page cache (log
 * and map do not); UNSUPPORTED where the file system or the missing addon can't.
 */
export function openFileDisk(
  path: string,
  addon: Native | undefined = native,
  mode: "write" | "read" | "direct" = "write",
): FileDisk {
  let fd: number;
  try {
    fd = openSync(path, mode === "read" ? "r" : "r+");
  } catch (cause) {
    const remedy = "Give the path of a store's file or block device that you may read.";
    throw openError(path, cause as NodeJS.ErrnoException, mode === "read" ? remedy : undefined);
  }
  try {
    const stat = fstatSync(fd);
    if (!stat.isFile() && !stat.isBlockDevice()) {
      throw new KeelsonError("INVALID_ARGUMENT", `${path} is not a file or block device.`, {
        object: path,
      });
    }
    lock(path, fd);
    const sizeBytes = stat.isFile() ? stat.size : blockDeviceBytes(path, fd);
    const directFd = mode === "direct" ? openDirect(path, addon) : -1;
    return new FileDisk(path, fd, sizeBytes, stat.isBlockDevice(), addon, directFd);
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

function openDirect(path: string, addon: Native | undefined): number {
  let cause: unknown = "the native addon is not there";
  if (addon !== undefined) {
    try {
      return openSync(path, constants.O_RDWR | constants.O_DIRECT);
    } catch (error) {
      cause = error;
    }
  }
  const why = cause instanceof Error ? cause.message : cause;
  throw new KeelsonError("UNSUPPORTED", `${path} can't be used past the page cache: ${why}.`, {
    operation: "open device",
    object: path,
    remedy: "Start the store without --direct.",
    cause,
  });
}

/** Makes a sparse file of `sizeBytes` with whatever `format` writes; it appears whole or not at all. */
export function createFileDisk(
  path: string,
  sizeBytes: number,
  format: (disk: FileDisk) => void,
): void {
  const next = `${path}.new`;
  let fd: number;
  try {
    fd = openSync(next, "w+", 0o600);
  } catch (cause) {
    throw openError(path, cause as NodeJS.ErrnoException);
  }
  const disk = new FileDisk(next, fd, sizeBytes, false, undefined);
  try {
    ftruncateSync(fd, sizeBytes);
    format(disk);
    fsyncSync(fd);
    renameSync(next, path);
    const folder = openSync(dirname(path), "r");
    fsyncSync(folder);
    closeSync(folder);
  } catch (error) {
    unlinkQuietly(next);
    if (isKeelsonError(error)) throw error;
    throw openError(path, error as NodeJS.ErrnoException);
  } finally {
    disk.close();
  }
}

/** The lock belongs to the open file, which flock(1) inherits: it lasts until we close it. */
function lock(path: string, fd: number): void {
  const result = spawnSync("flock", ["--nonblock", "3"], {
    stdio: ["ignore", "ignore", "ignore", fd],
  });
  if (result.status === 0) return;
  if (result.status === 1) {
    throw new KeelsonError("IN_USE", `The store on ${path} is mounted by another process.`, {
      operation: "mount store",
      object: path,
      remedy: "Stop the other chunk-store first.",
    });
  }
  // Deno does not pass descriptors to a child. It is for development: one goes without the lock.
  if ("deno" in process.versions) return;
  throw new KeelsonError("UNSUPPORTED", `Cannot lock ${path}: flock (util-linux) did not run.`, {
    object: path,
    cause: result.error,
  });
}

/** Size of a block device, by reading at doubling, then halving offsets. */
function blockDeviceBytes(path: string, fd: number): number {
  const sector = new Uint8Array(512);
  const readable = (position: number) => {
    try {
      return readSync(fd, sector, 0, 512, position) === 512;
    } catch {
      return false;
    }
  };
  if (!readable(0)) {
    throw new KeelsonError("MEDIA_ERROR", `${path} cannot be read.`, { object: path });
  }
  let low = 0;
  let high = 1;
  while (readable(high * 512)) {
    low = high;
    high *= 2;
  }
  while (high - low > 1) {
    const middle = Math.floor((low + high) / 2);
    if (readable(middle * 512)) low = middle;
    else high = middle;
  }
  return high * 512;
}

function unlinkQuietly(path: string): void {
  try {
    unlinkSync(path);
  } catch {
    // It was never made, or renamed already.
  }
}

/** `remedy` undefined: what suits somebody who would make or mount a store there. */
function openError(path: string, cause: NodeJS.ErrnoException, remedy?: string): KeelsonError {
  const code =
    cause.code === "ENOENT"
      ? "NOT_FOUND"
      : cause.code === "EACCES"
        ? "PERMISSION_DENIED"
        : cause.code === "ENOSPC"
          ? "NO_SPACE"
          : "UNAVAILABLE";
  const remedies: Record<string, string> = {
    NOT_FOUND: "Give --create SIZE to make a store there, or the right --device.",
    PERMISSION_DENIED: "Run as a user that may write it.",
    NO_SPACE: "Give a smaller --create SIZE or free some space.",
    UNAVAILABLE: "Check the path.",
  };
  return new KeelsonError(code, `Cannot open ${path}: ${cause.code ?? cause.message}.`, {
    operation: "open device",
    object: path,
    remedy: remedy ?? remedies[code]!,
    cause,
  });
}
