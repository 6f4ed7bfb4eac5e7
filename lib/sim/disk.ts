/**
 * A disk with a volatile write cache, in memory. Reads see every write at once. A power cut leaves
 * each 512-byte sector as it was at the last finished flush, or as any later write left it, each
 * sector by itself: writes are lost, reordered and torn. A flush takes effect when `finishFlush` is
 * called, so that a cut can come in between.
 *
 * `crashAfter` makes the n-th call from now throw PowerCut: a write is then done in part.
 */
import type { Random } from "./random.ts";

export const sectorBytes = 512;

/** Thrown out of a disk call: the machine is gone; nothing that runs after it counts. */
export class PowerCut extends Error {
  override readonly name = "PowerCut";
}

/** A sector as a write left it: a part of what was written. */
interface Version {
  readonly order: number;
  readonly bytes: Buffer;
  readonly at: number;
}

export type CutKind = "nothing" | "everything" | "any";

export class SimDisk {
  readonly sizeBytes: number;
  /** What reads see. */
  readonly image: Uint8Array;
  /** Calls made so far: the clock of crash points. */
  calls = 0;
  crashAt = Number.POSITIVE_INFINITY;
  /** The next flush fails, and loses some of what it should have made durable. */
  failNextFlush = false;
  flushes = 0;
  private readonly random: Random;
  private readonly checksum: (bytes: Uint8Array) => number;
  private readonly imageBuffer: Buffer;
  private readonly durable: Buffer;
  private readonly unflushed = new Map<number, Version[]>();
  /** Sectors that the image may have otherwise than what is durable. */
  private readonly unlike = new Set<number>();
  private order = 0;
  private waiting: { readonly order: number; readonly done: (ok: boolean) => void }[] = [];

  constructor(sizeBytes: number, random: Random, checksum: (bytes: Uint8Array) => number) {
    this.sizeBytes = sizeBytes;
    this.random = random;
    this.checksum = checksum;
    this.image = new Uint8Array(sizeBytes);
    // The same bytes: Buffer.copy takes a sector without a view of it.
    this.imageBuffer = Buffer.from(this.image.buffer);
    this.durable = Buffer.alloc(sizeBytes);
  }

  read(into: Uint8Array, offset: number, lengthBytes: number, position: number): boolean {
    if (position + lengthBytes > this.sizeBytes) return false;
    this.imageBuffer.copy(into, offset, position, position + lengthBytes);
    return true;
  }

  write(from: Uint8Array, offset: number, lengthBytes: number, position: number): boolean {
    if (position % sectorBytes !== 0 || lengthBytes % sectorBytes !== 0) {
      throw new Error(`write of ${lengthBytes} bytes at ${position} is not in whole sectors`);
    }
    if (position + lengthBytes > this.sizeBytes) return false;
    if (++this.calls >= this.crashAt) {
      const part = this.random.below(lengthBytes / sectorBytes + 1) * sectorBytes;
      this.put(from, offset, part, position);
      throw new PowerCut();
    }
    this.put(from, offset, lengthBytes, position);
    return true;
  }

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

  gather(
    from: Uint8Array,
    offsets: Int32Array,
    lengths: Int32Array,
    first: number,
    count: number,
    position: number,
  ): boolean {
    for (let i = first, at = position; i < first + count; i++) {
      if (!this.write(from, offsets[i], lengths[i], at)) return false;
      at += lengths[i];
    }
    return true;
  }

  checksumRows(from: Uint8Array, offsets: Int32Array, sums: Uint32Array, count: number): void {
    for (let i = 0; i < count; i++) {
      sums[i] = this.checksum(from.subarray(offsets[i], offsets[i] + 4096));
    }
  }

  flush(done: (ok: boolean) => void): void {
    if (++this.calls >= this.crashAt) throw new PowerCut();
    this.waiting.push({ order: this.order, done });
  }

  /** Finishes the oldest flush under way; false if there is none. */
  finishFlush(): boolean {
    const flush = this.waiting.shift();
    if (flush === undefined) return false;
    flush.done(this.settle(flush.order));
    return true;
  }

  flushSync(): boolean {
    if (++this.calls >= this.crashAt) throw new PowerCut();
    return this.settle(this.order);
  }

  close(): void {}

  /** The process died, the machine did not: all that was written stays, flushes are forgotten. */
  killProcess(): void {
    this.waiting = [];
    this.crashAt = Number.POSITIVE_INFINITY;
  }

  /** The power went: leaves what a disk may leave. */
  cutPower(kind: CutKind): void {
    this.killProcess();
    for (const [sector, versions] of this.unflushed) {
      let kept = versions.length - 1;
      if (kind === "nothing") kept = -1;
      else if (kind === "any") kept = this.random.below(versions.length + 1) - 1;
      if (kept >= 0) this.harden(sector, versions[kept]);
    }
    this.unflushed.clear();
    for (const sector of this.unlike) {
      const position = sector * sectorBytes;
      this.durable.copy(this.image, position, position, position + sectorBytes);
    }
    this.unlike.clear();
  }

  private harden(sector: number, { bytes, at }: Version): void {
    bytes.copy(this.durable, sector * sectorBytes, at, at + sectorBytes);
  }

  private put(from: Uint8Array, offset: number, lengthBytes: number, position: number): void {
    const order = ++this.order;
    const bytes = Buffer.allocUnsafeSlow(lengthBytes);
    bytes.set(from.subarray(offset, offset + lengthBytes));
    this.image.set(bytes, position);
    for (let at = 0; at < lengthBytes; at += sectorBytes) {
      const sector = (position + at) / sectorBytes;
      this.unlike.add(sector);
      const versions = this.unflushed.get(sector);
      if (versions === undefined) this.unflushed.set(sector, [{ order, bytes, at }]);
      else versions.push({ order, bytes, at });
    }
  }

  private settle(order: number): boolean {
    this.flushes++;
    const fails = this.failNextFlush;
    this.failNextFlush = false;
    for (const [sector, versions] of this.unflushed) {
      let covered = 0;
      while (covered < versions.length && versions[covered].order <= order) covered++;
      if (covered === 0) continue;
      // Pages of a failed flush are clean afterwards: reads still see them, the disk may not.
      const kept = !fails || this.random.oneIn(2);
      if (kept) this.harden(sector, versions[covered - 1]);
      if (covered < versions.length) versions.splice(0, covered);
      else {
        this.unflushed.delete(sector);
        if (kept) this.unlike.delete(sector);
      }
    }
    return !fails;
  }
}
