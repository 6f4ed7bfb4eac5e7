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

/** What a write put there; its bytes are a part of a slab. */
interface Write {
  readonly order: number;
  readonly slab: Buffer;
  readonly at: number;
  readonly position: number;
  readonly lengthBytes: number;
}

const slabBytes = 1 << 20;

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
  /** In their order. */
  private unflushed: Write[] = [];
  /** Sectors that a failed flush lost: the image has them otherwise than what is durable. */
  private readonly lost = new Set<number>();
  private slab = Buffer.alloc(0);
  private slabUsed = 0;
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
    if (kind === "everything") for (const write of this.unflushed) this.harden(write);
    if (kind === "any") {
      for (const [sector, writes] of this.bySector(this.unflushed)) {
        const kept = this.random.below(writes.length + 1) - 1;
        if (kept >= 0) this.hardenSector(writes[kept], sector);
      }
    }
    for (const { position, lengthBytes } of this.unflushed) this.restore(position, lengthBytes);
    for (const sector of this.lost) this.restore(sector * sectorBytes, sectorBytes);
    this.unflushed = [];
    this.slabUsed = 0;
    this.lost.clear();
  }

  /** The image has again what is durable. */
  private restore(position: number, lengthBytes: number): void {
    this.durable.copy(this.image, position, position, position + lengthBytes);
  }

  private harden({ slab, at, position, lengthBytes }: Write): void {
    slab.copy(this.durable, position, at, at + lengthBytes);
  }

  private hardenSector({ slab, at, position }: Write, sector: number): void {
    const from = at + sector * sectorBytes - position;
    slab.copy(this.durable, sector * sectorBytes, from, from + sectorBytes);
  }

  /** The writes of each sector, in their order. */
  private bySector(writes: readonly Write[]): Map<number, Write[]> {
    const sectors = new Map<number, Write[]>();
    for (const write of writes) {
      const first = write.position / sectorBytes;
      const end = first + write.lengthBytes / sectorBytes;
      for (let sector = first; sector < end; sector++) {
        const before = sectors.get(sector);
        if (before === undefined) sectors.set(sector, [write]);
        else before.push(write);
      }
    }
    return sectors;
  }

  private put(from: Uint8Array, offset: number, lengthBytes: number, position: number): void {
    // One allocation for many writes: it would cost more than the rest.
    if (this.slabUsed + lengthBytes > this.slab.length) {
      this.slab = Buffer.allocUnsafeSlow(Math.max(slabBytes, lengthBytes));
      this.slabUsed = 0;
    }
    const bytes = from.subarray(offset, offset + lengthBytes);
    this.slab.set(bytes, this.slabUsed);
    this.image.set(bytes, position);
    const order = ++this.order;
    this.unflushed.push({ order, slab: this.slab, at: this.slabUsed, position, lengthBytes });
    this.slabUsed += lengthBytes;
  }

  private settle(order: number): boolean {
    this.flushes++;
    const fails = this.failNextFlush;
    this.failNextFlush = false;
    let count = 0;
    while (count < this.unflushed.length && this.unflushed[count].order <= order) count++;
    const covered = this.unflushed.slice(0, count);
    this.unflushed = this.unflushed.slice(count);
    if (fails) this.settleInPart(covered);
    else {
      for (const write of covered) this.harden(write);
      if (this.lost.size > 0)
        for (const sector of this.bySector(covered).keys()) this.lost.delete(sector);
    }
    if (this.unflushed.length === 0) this.slabUsed = 0;
    return !fails;
  }

  /** Pages of a failed flush are clean afterwards: reads still see them, the disk may not. */
  private settleInPart(covered: readonly Write[]): void {
    for (const [sector, writes] of this.bySector(covered)) {
      if (this.random.oneIn(2)) {
        this.hardenSector(writes.at(-1)!, sector);
        this.lost.delete(sector);
      } else this.lost.add(sector);
    }
  }
}
