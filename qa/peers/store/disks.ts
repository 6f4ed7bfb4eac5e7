/**
 * Devices below the store that do more than a file does.
 *
 *   CountingDisk   counts bytes written and flushes; flushes can be left out
 *   ScaledDisk     and keeps a block of one pattern as one bit: any size on a small disk
 */
import { statfsSync, unlinkSync } from "node:fs";
import { dirname } from "node:path";
import type { Disk } from "#services/chunk-store/engine/disk.ts";
import type { FileDisk } from "#services/chunk-store/file-disk.ts";
import { blockBytes } from "#services/chunk-store/limits.ts";

export class CountingDisk implements Disk {
  readonly sizeBytes: number;
  writtenBytes = 0;
  flushes = 0;
  /** Flushes begun and not yet called back. */
  underWay = 0;
  /** A flush then does nothing: for filling and ageing, where nothing is timed. */
  skipFlushes = false;
  readonly file: FileDisk;
  private finished: ((ok: boolean) => void)[] = [];

  constructor(file: FileDisk) {
    this.file = file;
    this.sizeBytes = file.sizeBytes;
  }

  read(into: Uint8Array, offset: number, lengthBytes: number, position: number): boolean {
    return this.file.read(into, offset, lengthBytes, position);
  }

  readAhead(position: number, lengthBytes: number): void {
    this.file.readAhead(position, lengthBytes);
  }

  write(from: Uint8Array, offset: number, lengthBytes: number, position: number): boolean {
    this.writtenBytes += lengthBytes;
    return this.file.write(from, offset, lengthBytes, position);
  }

  readRows(
    into: Uint8Array,
    offsets: Int32Array,
    lengths: Int32Array,
    positions: Float64Array,
    results: Uint8Array,
    count: number,
  ): void {
    this.file.readRows(into, offsets, lengths, positions, results, count);
  }

  writeRows(
    from: Uint8Array,
    offsets: Int32Array,
    lengths: Int32Array,
    positions: Float64Array,
    count: number,
  ): boolean {
    for (let i = 0; i < count; i++) this.writtenBytes += lengths[i];
    return this.file.writeRows(from, offsets, lengths, positions, count);
  }

  checksumRows(from: Uint8Array, offsets: Int32Array, sums: Uint32Array, count: number): void {
    this.file.checksumRows(from, offsets, sums, count);
  }

  flush(done: (ok: boolean) => void): void {
    this.flushes++;
    this.underWay++;
    const ended = (ok: boolean) => {
      this.underWay--;
      done(ok);
    };
    if (this.skipFlushes) this.finished.push(ended);
    else this.file.flush(ended);
  }

  beginFlush(): void {
    if (!this.skipFlushes) this.file.beginFlush();
  }

  /** Calls back flushes that were skipped. The store's contract: never from within `flush`. */
  finishFlushes(): void {
    for (const done of this.finished.splice(0)) done(true);
  }

  flushSync(): boolean {
    this.flushes++;
    return this.skipFlushes || this.file.flushSync();
  }

  /**
   * Not the file: the comparison mounts it again. A store that was dropped hears nothing more, or
   * it would go on with its checkpoint beside the next one's.
   */
  close(): void {
    this.finished = [];
    this.underWay = 0;
  }

  end(): void {
    this.file.close();
  }
}

/** What must stay free on the disk that the files stand on. */
export const keepFreeBytes = 10 * 2 ** 30;
const lookEveryBytes = 128 * 2 ** 20;
/** So many random bytes: nothing else that a store writes begins a block with them. */
const markBytes = 16;

/**
 * A device whose blocks of one pattern, which the load writes and nobody else, are a bit in memory.
 * All else, the store's log and map, is in the sparse file. What is read is what was written.
 */
export class ScaledDisk extends CountingDisk {
  /** The block that takes no space. */
  readonly pattern: Uint8Array;
  /** All goes to the file, the pattern too: for what is timed, once a layout is there. */
  keepAll = false;
  private readonly holds: Uint32Array;
  private keptBytes = 0;
  private lookedBytes = 0;

  constructor(file: FileDisk) {
    super(file);
    this.skipFlushes = true;
    this.pattern = crypto.getRandomValues(new Uint8Array(blockBytes));
    this.holds = new Uint32Array(Math.ceil(this.sizeBytes / blockBytes / 32));
  }

  /** Resident memory of the bits, whole pages: what a measurement of the store must take off. */
  get bitsBytes(): number {
    const pageWords = 1024;
    let pages = 0;
    for (let at = 0; at < this.holds.length; at += pageWords) {
      if (this.holds.subarray(at, at + pageWords).some((word) => word !== 0)) pages++;
    }
    return pages * pageWords * 4;
  }

  override read(into: Uint8Array, offset: number, lengthBytes: number, position: number): boolean {
    for (let done = 0; done < lengthBytes; ) {
      const at = position + done;
      const held = this.isHeld(at);
      const within = at % blockBytes;
      let some = Math.min(blockBytes - within, lengthBytes - done);
      if (held) into.set(this.pattern.subarray(within, within + some), offset + done);
      else {
        while (done + some < lengthBytes && !this.isHeld(at + some)) {
          some = Math.min(some + blockBytes, lengthBytes - done);
        }
        if (!this.file.read(into, offset + done, some, at)) return false;
      }
      done += some;
    }
    return true;
  }

  override readRows(
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

  override write(from: Uint8Array, offset: number, lengthBytes: number, position: number): boolean {
    this.writtenBytes += lengthBytes;
    // One look at the first block decides for most writes: the load's are all pattern, others none.
    const asBits = position % blockBytes === 0 && this.isPattern(from, offset, lengthBytes);
    if (this.keepAll || !asBits) {
      return this.keep(from, offset, lengthBytes, position);
    }
    let done = 0;
    for (; this.isPattern(from, offset + done, lengthBytes - done); done += blockBytes) {
      const block = (position + done) / blockBytes;
      this.holds[block >>> 5] |= 1 << (block & 31);
    }
    return (
      done === lengthBytes || this.keep(from, offset + done, lengthBytes - done, position + done)
    );
  }

  override writeRows(
    from: Uint8Array,
    offsets: Int32Array,
    lengths: Int32Array,
    positions: Float64Array,
    count: number,
  ): boolean {
    if (this.keepAll) {
      for (let i = 0; i < count; i++) {
        if (!this.release(positions[i], lengths[i])) return false;
      }
      return super.writeRows(from, offsets, lengths, positions, count);
    }
    for (let i = 0; i < count; i++) {
      if (!this.write(from, offsets[i], lengths[i], positions[i])) return false;
    }
    return true;
  }

  /** The file means nothing without the bits. */
  override end(): void {
    super.end();
    unlinkSync(this.file.path);
  }

  private isHeld(position: number): boolean {
    const block = Math.floor(position / blockBytes);
    return (this.holds[block >>> 5] & (1 << (block & 31))) !== 0;
  }

  private isPattern(from: Uint8Array, offset: number, lengthBytes: number): boolean {
    if (lengthBytes < blockBytes) return false;
    for (let i = 0; i < markBytes; i++) {
      if (from[offset + i] !== this.pattern[i]) return false;
    }
    return true;
  }

  private keep(from: Uint8Array, offset: number, lengthBytes: number, position: number): boolean {
    return (
      this.release(position, lengthBytes) && this.file.write(from, offset, lengthBytes, position)
    );
  }

  /** The file is about to hold this run. False when it may not grow any more. */
  private release(position: number, lengthBytes: number): boolean {
    const end = position + lengthBytes;
    for (let block = Math.floor(position / blockBytes); block * blockBytes < end; block++) {
      const start = block * blockBytes;
      if (!this.isHeld(start)) continue;
      this.holds[block >>> 5] &= ~(1 << (block & 31));
      // What the run does not cover of it must be there too.
      const covered = start >= position && start + blockBytes <= end;
      if (!covered && !this.file.write(this.pattern, 0, blockBytes, start)) return false;
    }
    this.keptBytes += lengthBytes;
    if (this.keptBytes - this.lookedBytes < lookEveryBytes) return true;
    this.lookedBytes = this.keptBytes;
    return freeBytes(dirname(this.file.path)) > keepFreeBytes;
  }
}

/** What an unprivileged user may still write there. */
export function freeBytes(directory: string): number {
  const { bavail, bsize } = statfsSync(directory);
  return bavail * bsize;
}
