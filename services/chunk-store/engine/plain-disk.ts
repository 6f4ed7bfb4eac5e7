/** The batches of `Disk` as loops: for a disk that has nothing better, or not for this buffer. */
import { blockBytes } from "../limits.ts";
import type { Checksum, Disk } from "./disk.ts";

export abstract class PlainDisk implements Disk {
  abstract readonly sizeBytes: number;
  private readonly blockChecksum: Checksum;

  constructor(checksum: Checksum) {
    this.blockChecksum = checksum;
  }

  abstract read(into: Uint8Array, offset: number, lengthBytes: number, position: number): boolean;
  abstract write(from: Uint8Array, offset: number, lengthBytes: number, position: number): boolean;
  abstract flush(done: (ok: boolean) => void): void;
  abstract flushSync(): boolean;
  abstract close(): void;

  readRows(
    into: Uint8Array,
    offsets: Int32Array,
    lengths: Int32Array,
    positions: Float64Array,
    results: Uint8Array,
    count: number,
  ): void {
    for (let i = 0; i < count; i++) {
      results[i] = this.read(into, offsets[i], lengths[i], positions[i]) ? 1 : 0;
    }
  }

  writeRows(
    from: Uint8Array,
    offsets: Int32Array,
    lengths: Int32Array,
    positions: Float64Array,
    count: number,
  ): boolean {
    for (let i = 0; i < count; i++) {
      if (!this.write(from, offsets[i], lengths[i], positions[i])) return false;
    }
    return true;
  }

  checksumRows(from: Uint8Array, offsets: Int32Array, sums: Uint32Array, count: number): void {
    for (let i = 0; i < count; i++) sums[i] = this.blockChecksum(from, offsets[i], blockBytes);
  }
}
