/** A disk that is only read: what is written to it stays in memory, and is seen by later reads. */
import { blockBytes } from "../limits.ts";
import type { Checksum, Disk } from "./disk.ts";
import { PlainDisk } from "./plain-disk.ts";

export type DiskToRead = Pick<Disk, "read" | "forget" | "readAhead" | "sizeBytes">;

export class OverlayDisk extends PlainDisk {
  readonly sizeBytes: number;
  private readonly base: DiskToRead;
  private readonly written = new Map<number, Uint8Array>();

  constructor(base: DiskToRead, checksum: Checksum) {
    super(checksum);
    this.base = base;
    this.sizeBytes = base.sizeBytes;
  }

  read(into: Uint8Array, offset: number, lengthBytes: number, position: number): boolean {
    if (!this.base.read(into, offset, lengthBytes, position)) return false;
    if (this.written.size === 0) return true;
    this.eachBlock(lengthBytes, position, (number, within, done, length) => {
      const bytes = this.written.get(number)?.subarray(within, within + length);
      if (bytes !== undefined) into.set(bytes, offset + done);
    });
    return true;
  }

  forget(position: number, lengthBytes: number): void {
    this.base.forget?.(position, lengthBytes);
  }

  readAhead(position: number, lengthBytes: number): void {
    this.base.readAhead?.(position, lengthBytes);
  }

  write(from: Uint8Array, offset: number, lengthBytes: number, position: number): boolean {
    let good = position + lengthBytes <= this.sizeBytes;
    this.eachBlock(lengthBytes, position, (number, within, done, length) => {
      let block = this.written.get(number);
      if (block === undefined) {
        block = new Uint8Array(blockBytes);
        if (length < blockBytes) {
          good = this.base.read(block, 0, blockBytes, number * blockBytes) && good;
        }
        this.written.set(number, block);
      }
      block.set(from.subarray(offset + done, offset + done + length), within);
    });
    return good;
  }

  flush(done: (ok: boolean) => void): void {
    setImmediate(() => done(true));
  }

  flushSync(): boolean {
    return true;
  }

  close(): void {
    this.written.clear();
  }

  private eachBlock(
    lengthBytes: number,
    position: number,
    use: (number: number, within: number, done: number, length: number) => void,
  ): void {
    for (let done = 0; done < lengthBytes; ) {
      const within = (position + done) % blockBytes;
      const length = Math.min(blockBytes - within, lengthBytes - done);
      use((position + done - within) / blockBytes, within, done, length);
      done += length;
    }
  }
}
