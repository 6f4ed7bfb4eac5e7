/**
 * The device below a store. Implemented by a file or block device (`file-disk.ts`) and by the
 * simulator (`lib/sim`). Positions and lengths are bytes. Reads see earlier writes at once; writes
 * are durable, in any order and in pieces of 512 bytes, only once a later flush has succeeded.
 */
export interface Disk {
  readonly sizeBytes: number;
  /** Fills `into[offset, offset + lengthBytes)`; false on an I/O error or a short read. */
  read(into: Uint8Array, offset: number, lengthBytes: number, position: number): boolean;
  /** False on an I/O error; then any part may have been written. */
  write(from: Uint8Array, offset: number, lengthBytes: number, position: number): boolean;
  /** Where it can: the next read of this range comes from the device, not from memory. */
  forget?(position: number, lengthBytes: number): void;
  /** Where it can: begins to read this range (128 KiB at most), without waiting. Promises nothing. */
  readAhead?(position: number, lengthBytes: number): void;
  /**
   * `count` reads into one buffer: row i fills `lengths[i]` bytes at `offsets[i]` from
   * `positions[i]`, and sets `results[i]` to 1, or to 0 on an error.
   */
  readRows(
    into: Uint8Array,
    offsets: Int32Array,
    lengths: Int32Array,
    positions: Float64Array,
    results: Uint8Array,
    count: number,
  ): void;
  /**
   * `count` writes from one buffer, one after the other: row i writes `lengths[i]` bytes at
   * `offsets[i]` to `positions[i]`. False on an I/O error; then any part may have been written.
   */
  writeRows(
    from: Uint8Array,
    offsets: Int32Array,
    lengths: Int32Array,
    positions: Float64Array,
    count: number,
  ): boolean;
  /** crc32c of `count` blocks of 4 KiB at `offsets` of one buffer, into `sums`. */
  checksumRows(from: Uint8Array, offsets: Int32Array, sums: Uint32Array, count: number): void;
  /** Makes all earlier writes durable; `done` comes later, never from within the call. */
  flush(done: (ok: boolean) => void): void;
  /** Where it can: begins what a flush would wait for, without waiting. Promises nothing. */
  beginFlush?(): void;
  /** The same, blocking: for mounting, and when the log or the store is full. */
  flushSync(): boolean;
  close(): void;
}

/** crc32c (Castagnoli) of `bytes[offset, offset + lengthBytes)`, 0 .. 2^32-1. */
export type Checksum = (bytes: Uint8Array, offset: number, lengthBytes: number) => number;
