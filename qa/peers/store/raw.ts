/** Plain files, read and written without a store: the peer of most comparisons. */
import { spawnSync } from "node:child_process";
import { closeSync, fdatasyncSync, openSync, writeSync } from "node:fs";
import { KeelsonError } from "#lib/model/errors.ts";
import { type NativeMemory, Row } from "#native";
import { addon } from "./engine.ts";

const pieceBytes = 2 ** 20;

/** A file with every block written, so that nothing measured later waits for it to be allocated. */
export function writtenFile(path: string, sizeBytes: number): string {
  const fd = openSync(path, "wx", 0o600);
  const piece = new Uint8Array(pieceBytes);
  for (let at = 0; at < sizeBytes; at += pieceBytes) {
    writeSync(fd, piece, 0, Math.min(pieceBytes, sizeBytes - at), at);
  }
  fdatasyncSync(fd);
  closeSync(fd);
  return path;
}

/** Writes what is dirty of a file and takes it out of the page cache. */
export function forgetFile(path: string): void {
  const fd = openSync(path, "r+");
  fdatasyncSync(fd);
  closeSync(fd);
  // dd with no block to copy gives the kernel posix_fadvise(DONTNEED) for the whole file.
  const { status } = spawnSync("dd", [`if=${path}`, "iflag=nocache", "count=0", "status=none"]);
  if (status !== 0) throw new KeelsonError("UNAVAILABLE", "dd could not drop a page cache.");
}

/** Preads or pwrites of a batch, all in one call of the addon, as the store makes its own. */
export class RawRows {
  readonly payload: Uint8Array;
  private readonly fd: number;
  private readonly memory: NativeMemory;
  private readonly rows: Int32Array;
  private readonly depth: number;
  private readonly lengthBytes: number;

  constructor(path: string, operation: "read" | "write", lengthBytes: number, depth: number) {
    this.fd = openSync(path, "r+");
    this.depth = depth;
    this.lengthBytes = lengthBytes;
    this.memory = addon().memoryCreate(depth * lengthBytes, false);
    this.payload = new Uint8Array(this.memory.buffer);
    this.payload.fill(0xa5);
    this.rows = new Int32Array(depth * Row.words);
    for (let row = 0; row < depth; row++) {
      const words = [Row[operation], this.fd, this.memory.slot, row * lengthBytes, lengthBytes];
      this.rows.set(words, row * Row.words);
    }
  }

  aim(row: number, position: number): void {
    this.rows[row * Row.words + 5] = position % 2 ** 32;
    this.rows[row * Row.words + 6] = Math.floor(position / 2 ** 32);
  }

  execute(): void {
    addon().rowsRun(this.rows, this.depth);
    for (let row = 0; row < this.depth; row++) {
      const done = this.rows[row * Row.words + 7];
      if (done !== this.lengthBytes) {
        throw new KeelsonError("MEDIA_ERROR", `A plain file gave ${done} for a row.`);
      }
    }
  }

  flush(): void {
    fdatasyncSync(this.fd);
  }

  close(): void {
    closeSync(this.fd);
    addon().memoryRelease(this.memory.slot);
  }
}
