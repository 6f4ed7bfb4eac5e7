/**
 * One mounted store: the log, the map and the space of one device.
 *
 *   stage entries -> write data to fresh blocks -> append the log record -> apply to the map
 *
 * `apply` is also what replay runs, so that a mount after a crash ends where the running store was.
 * Everything here is synchronous but `flush`; nothing throws for I/O faults: a store whose flush or
 * log write failed is retired, its state is unknown from then on.
 */
import { KeelsonError } from "#lib/model/errors.ts";
import { blockBytes, chunkBlocks } from "../limits.ts";
import type { Allocator } from "./allocator.ts";
import { beginCheckpoint, type Checkpoint, checkpointNow } from "./checkpoint.ts";
import type { ChunkIndex } from "./chunk-index.ts";
import type { Checksum, Disk } from "./disk.ts";
import {
  EntryFlag,
  EntryType,
  holePointer,
  mapWords,
  type Superblock,
  uuidBytes,
} from "./layout.ts";
import type { Lineage, Lineages } from "./lineages.ts";
import { entryWords, type Log } from "./log.ts";
import type { PageCache } from "./page-cache.ts";

/** Un-flushed data beyond this is flushed in the background: bounds the stall of a late sync. */
const backgroundFlushBytes = 64 * 2 ** 20;
const reapChunksPerSlice = 16;
const reapRecordsPerSlice = 20_000;

export interface StoreParts {
  readonly device: string;
  readonly disk: Disk;
  readonly checksum: Checksum;
  readonly superblock: Superblock;
  readonly allocator: Allocator;
  readonly index: ChunkIndex;
  readonly cache: PageCache;
  readonly log: Log;
  readonly lineages: Lineages;
}

/** Planted bugs for the simulator, which must find each: never set elsewhere. */
export type Mutant = "reuse-at-once" | "reuse-when-durable" | "ack-before-log" | "skip-verify" | "";

export class Store {
  readonly device: string;
  readonly disk: Disk;
  readonly checksum: Checksum;
  readonly superblock: Superblock;
  readonly allocator: Allocator;
  readonly index: ChunkIndex;
  readonly cache: PageCache;
  readonly log: Log;
  readonly lineages: Lineages;
  /** Why the store is retired, or null. */
  failure: string | null = null;
  mutant: Mutant = "";
  flushesRequested = 0;
  flushesDone = 0;
  checkpoints = 0;
  checksumErrors = 0;
  bytesSinceFlush = 0;
  /** Map page slots that the last checkpoint on disk still leads to, but the next one will not. */
  retiredSlots: number[] = [];
  /** Slots of index, bitmap and volume pages, and of the directory that lists them. */
  hidden = {
    index: [] as number[],
    bitmap: [] as number[],
    volumes: [] as number[],
    directory: [] as number[],
  };
  checkpoint: Checkpoint | null = null;
  /** Allocated for data that is not in the log yet: a checkpoint must not call them used. */
  readonly stagedPointers: Uint32Array;
  stagedCount = 0;
  /** Called when a flush has finished: `turn` then has callbacks to make. */
  onFinished: (() => void) | undefined;
  /** Told of each block whose checksum did not match. */
  onMediaError: ((volume: string, offsetBytes: number, block: number) => void) | undefined;
  onRetired: ((reason: string) => void) | undefined;
  private flushing = false;
  private waiting: ((ok: boolean) => void)[] = [];
  private finished: { done: (ok: boolean) => void; ok: boolean }[] = [];
  private reaping: { lineage: Lineage; record: number } | null = null;

  constructor(parts: StoreParts) {
    this.device = parts.device;
    this.disk = parts.disk;
    this.checksum = parts.checksum;
    this.superblock = parts.superblock;
    this.allocator = parts.allocator;
    this.index = parts.index;
    this.cache = parts.cache;
    this.log = parts.log;
    this.lineages = parts.lineages;
    this.stagedPointers = new Uint32Array(this.log.recordEntries);
  }

  // ---- space -------------------------------------------------------------------------------

  /**
   * Blocks kept back from data: two checkpoints' worth, one that may be under way and one that a
   * full store needs to record discards and deletions.
   */
  get reserveBlocks(): number {
    return (
      2 * this.superblock.checkpointPages +
      2 * (this.index.pages + this.allocator.pages + this.lineages.pages) +
      this.hidden.directory.length +
      32
    );
  }

  /** Blocks that data may still take now. */
  get availableBlocks(): number {
    return Math.max(0, this.allocator.freeBlocks - this.reserveBlocks);
  }

  /** True if `blocks` may be taken; when short, first makes freed blocks reusable, which blocks. */
  makeRoom(blocks: number): boolean {
    if (this.availableBlocks >= blocks) return true;
    if (this.allocator.pendingCount > 0) this.settle();
    if (
      this.availableBlocks < blocks &&
      (this.retiredSlots.length > 0 || this.checkpoint !== null)
    ) {
      checkpointNow(this);
    }
    return this.failure === null && this.availableBlocks >= blocks;
  }

  /** Makes everything durable and states it durably: all that was freed can be used again. */
  private settle(): void {
    if (!this.flushSync()) return;
    if (!this.log.fits(0)) checkpointNow(this);
    if (this.failure === null && this.appendRecord()) this.flushSync();
  }

  // ---- log and map -------------------------------------------------------------------------

  /**
   * Before a record of `entries` that dirties at most `chunks` map pages: starts a checkpoint in
   * time, and waits for one only if it must. False when the store is retired.
   */
  prepare(entries: number, chunks: number): boolean {
    const limit = this.superblock.checkpointPages;
    const pressed = () => this.cache.dirtyCount + chunks > limit || !this.log.fits(entries);
    if (this.checkpoint === null) {
      if (pressed() || this.log.usedSectors * 2 > this.log.sectors) beginCheckpoint(this);
    }
    while (pressed() && this.failure === null) {
      if (this.checkpoint === null) beginCheckpoint(this);
      else checkpointNow(this);
    }
    return this.failure === null;
  }

  /** Appends the record being built. Retires the store on an error. */
  appendRecord(): boolean {
    if (this.failure !== null) return false;
    if (this.log.append()) return true;
    this.retire("a write to its log failed");
    return false;
  }

  /** Appends the record being built and applies it. False when the store is retired. */
  commit(): boolean {
    const count = this.log.count;
    if (!this.appendRecord()) {
      this.log.count = 0;
      return false;
    }
    const good = this.apply(this.log.words, this.log.entryWord(0), count, this.log.sequence, false);
    this.log.count = 0;
    if (!good) this.retire("a map page could not be read back");
    return good;
  }

  /** Does to the map what the entries at word `at` say. False if a map page is unreadable. */
  apply(
    words: Uint32Array,
    at: number,
    count: number,
    sequence: number,
    replaying: boolean,
  ): boolean {
    const pages = this.cache.words;
    let lineage: Lineage | undefined;
    for (let i = 0; i < count; i++, at += entryWords) {
      const head = words[at];
      const type = head & 0xff;
      const number = words[at + 1];
      if (lineage === undefined || lineage.number !== number) {
        lineage = this.lineages.byNumber.get(number);
      }
      if (type === EntryType.write) {
        // A lineage that was forgotten while its last writes were on their way.
        if (lineage === undefined) continue;
        const chunk = words[at + 2];
        let record = this.index.find(number, chunk);
        if (record < 0) record = this.index.add(number, chunk, words[at + 5]);
        const frame = this.cache.load(record);
        if (frame < 0) return false;
        const cell = frame * mapWords + (head >>> 16);
        this.replace(lineage, pages[cell], sequence, replaying);
        const pointer = words[at + 3];
        pages[cell] = pointer;
        pages[cell + chunkBlocks] = words[at + 4];
        pages[cell + 2 * chunkBlocks] = words[at + 5];
        this.cache.markDirty(frame);
        lineage.ownedBlocks++;
        if (replaying) this.allocator.take(pointer);
        this.allocator.touch(pointer);
      } else if (type === EntryType.discard) {
        if (lineage === undefined) continue;
        if (!this.applyDiscard(lineage, words, at, sequence, replaying)) return false;
      } else this.applyVolume(type, lineage, words, at, i + 1 < count);
    }
    return true;
  }

  private applyDiscard(
    lineage: Lineage,
    words: Uint32Array,
    at: number,
    sequence: number,
    replaying: boolean,
  ): boolean {
    const flags = (words[at] >>> 8) & 0xff;
    const first = words[at] >>> 16;
    const chunk = words[at + 2];
    let record = this.index.find(lineage.number, chunk);
    if (record < 0) {
      if ((flags & EntryFlag.hole) === 0) return true;
      record = this.index.add(lineage.number, chunk, words[at + 5]);
    }
    const frame = this.cache.load(record);
    if (frame < 0) return false;
    const base = frame * mapWords;
    const filler = (flags & EntryFlag.hole) === 0 ? 0 : holePointer;
    for (let cell = base + first; cell < base + first + words[at + 3]; cell++) {
      this.replace(lineage, this.cache.words[cell], sequence, replaying);
      this.cache.words[cell] = filler;
      this.cache.words[cell + chunkBlocks] = 0;
      this.cache.words[cell + 2 * chunkBlocks] = words[at + 5];
    }
    if ((flags & EntryFlag.drop) === 0) this.cache.markDirty(frame);
    else {
      this.cache.forget(record);
      if (this.index.slot[record] !== 0) this.retireSlot(this.index.slot[record]);
      this.index.remove(record);
    }
    return true;
  }

  private applyVolume(
    type: number,
    lineage: Lineage | undefined,
    words: Uint32Array,
    at: number,
    identified: boolean,
  ): void {
    const sizeBytes = words[at + 6] + words[at + 7] * 2 ** 32;
    if (type === EntryType.volumeCreate && identified) {
      const identity = at + entryWords;
      const parent = this.lineages.byNumber.get(words[at + 2]) ?? null;
      this.lineages.add({
        number: words[at + 1],
        uuid: uuidOfWords(words.subarray(identity + 2, identity + 6)),
        parent,
        forkEpoch: words[at + 3],
        firstEpoch: words[at + 5],
        epoch: words[at + 5],
        sizeBytes,
        sealed: false,
        deleted: false,
        ownedBlocks: 0,
        children: 0,
        openCount: 0,
      });
    }
    if (lineage === undefined) return;
    if (type === EntryType.volumeSeal) lineage.sealed = true;
    else if (type === EntryType.volumeResize) lineage.sizeBytes = sizeBytes;
    else if (type === EntryType.volumeDelete) this.lineages.delete(lineage);
    else if (type === EntryType.volumeForget) this.lineages.forget(lineage);
  }

  private replace(lineage: Lineage, pointer: number, sequence: number, replaying: boolean): void {
    if (pointer === 0 || pointer === holePointer) return;
    lineage.ownedBlocks--;
    this.allocator.touch(pointer);
    if (replaying || this.mutant === "reuse-at-once") this.allocator.release(pointer);
    else this.allocator.free(pointer, sequence);
  }

  /** The next checkpoint no longer leads to this slot; it is free once that one is durable. */
  retireSlot(slot: number): void {
    this.retiredSlots.push(slot);
    this.allocator.touch(slot);
  }

  // ---- volumes -----------------------------------------------------------------------------

  createVolume(uuid: string, sizeBytes: number, parent: Lineage | null): Lineage {
    this.requireMounted();
    if (this.availableBlocks === 0 && !this.makeRoom(1)) throw this.noSpace("create volume", uuid);
    const number = this.lineages.nextNumber++;
    const forkEpoch = parent?.epoch ?? 0;
    this.requireRoomInLog(2);
    this.log.add(
      EntryType.volumeCreate,
      0,
      0,
      number,
      parent?.number ?? 0,
      forkEpoch,
      0,
      forkEpoch + 1,
      sizeBytes % 2 ** 32,
      Math.floor(sizeBytes / 2 ** 32),
    );
    const id = new DataView(uuidBytes(uuid).buffer);
    this.log.add(
      EntryType.volumeIdentity,
      0,
      0,
      number,
      id.getUint32(0, true),
      id.getUint32(4, true),
      id.getUint32(8, true),
      id.getUint32(12, true),
      0,
      0,
    );
    this.commitControl();
    return this.lineages.byNumber.get(number)!;
  }

  sealVolume(lineage: Lineage): void {
    this.changeVolume(EntryType.volumeSeal, lineage, 0);
  }

  growVolume(lineage: Lineage, sizeBytes: number): void {
    this.changeVolume(EntryType.volumeResize, lineage, sizeBytes);
  }

  /** Gone for its users at once; its blocks are freed by later turns. */
  deleteVolume(lineage: Lineage): void {
    this.changeVolume(EntryType.volumeDelete, lineage, 0);
  }

  private changeVolume(type: number, lineage: Lineage, sizeBytes: number): void {
    this.requireMounted();
    this.requireRoomInLog(1);
    const low = sizeBytes % 2 ** 32;
    this.log.add(type, 0, 0, lineage.number, 0, 0, 0, 0, low, Math.floor(sizeBytes / 2 ** 32));
    this.commitControl();
  }

  private requireRoomInLog(entries: number): void {
    if (!this.prepare(entries, 0)) this.requireMounted();
  }

  private commitControl(): void {
    if (!this.commit()) this.requireMounted();
  }

  requireMounted(): void {
    if (this.failure === null) return;
    throw new KeelsonError(
      "STORE_FAILED",
      `The store on ${this.device} retired: ${this.failure}.`,
      {
        object: this.device,
        remedy: "Check the device, then restart the service to mount it again.",
      },
    );
  }

  noSpace(operation: string, object: string): KeelsonError {
    return new KeelsonError("NO_SPACE", `The store on ${this.device} is full.`, {
      operation,
      object,
      remedy: "Delete volumes or images that are not needed.",
    });
  }

  // ---- flush -------------------------------------------------------------------------------

  /** Everything handed to the kernel so far becomes durable. `done` comes from a later `turn`. */
  flush(done: (ok: boolean) => void): void {
    this.flushesRequested++;
    this.afterFlush(done);
  }

  /** `flush` for the store's own needs. */
  afterFlush(done: (ok: boolean) => void): void {
    if (this.failure !== null) {
      this.finished.push({ done, ok: false });
      this.onFinished?.();
      return;
    }
    this.waiting.push(done);
    this.startFlush();
  }

  /** One device flush for all who wait; who comes while it runs waits for the next. */
  startFlush(): void {
    if (this.flushing || this.failure !== null) return;
    const served = this.waiting;
    this.waiting = [];
    const { sequence, stated } = this.log;
    this.flushing = true;
    this.bytesSinceFlush = 0;
    this.disk.flush((ok) => {
      this.flushing = false;
      if (ok) this.flushFinished(sequence, stated);
      else this.retire("the device failed a flush");
      for (const done of served) this.finished.push({ done, ok: ok && this.failure === null });
      if (this.waiting.length > 0) this.startFlush();
      this.onFinished?.();
    });
  }

  flushSync(): boolean {
    if (this.failure !== null) return false;
    const { sequence, stated } = this.log;
    this.bytesSinceFlush = 0;
    if (!this.disk.flushSync()) {
      this.retire("the device failed a flush");
      return false;
    }
    this.flushFinished(sequence, stated);
    return true;
  }

  private flushFinished(sequence: number, stated: number): void {
    this.flushesDone++;
    this.log.durable = Math.max(this.log.durable, sequence);
    this.log.statedDurable = Math.max(this.log.statedDurable, stated);
    this.allocator.releasePending(
      this.mutant === "reuse-when-durable" ? this.log.durable : this.log.statedDurable,
    );
  }

  /** Nothing is known of the device from here on: every request fails, nothing more is written. */
  retire(reason: string): void {
    if (this.failure !== null) return;
    this.failure = reason;
    this.onRetired?.(reason);
    for (const done of this.waiting) this.finished.push({ done, ok: false });
    this.waiting = [];
    this.onFinished?.();
  }

  // ---- upkeep ------------------------------------------------------------------------------

  /** Makes due callbacks and does a slice of upkeep. Gives what `BlockExecutor.turn` gives. */
  turn(): number {
    while (this.finished.length > 0) {
      const ready = this.finished;
      this.finished = [];
      for (const { done, ok } of ready) done(ok);
    }
    if (this.failure !== null) return -1;
    this.stateDurability();
    if (this.bytesSinceFlush > backgroundFlushBytes) this.startFlush();
    if (this.checkpoint === null && this.log.usedSectors * 2 > this.log.sectors) {
      beginCheckpoint(this);
    }
    return this.reap() ? 0 : -1;
  }

  /** When much waits to be reusable and nobody flushes: flush, say so in the log, flush. */
  private stateDurability(): void {
    const { allocator, log } = this;
    if (allocator.pendingCount * 4 <= this.availableBlocks || allocator.pendingCount === 0) return;
    if (log.durable < log.sequence) this.startFlush();
    else if (log.stated < log.durable && log.fits(0)) {
      if (this.appendRecord()) this.startFlush();
    }
  }

  /** Frees some chunks of a deleted lineage. False when there is nothing to free. */
  private reap(): boolean {
    if (this.reaping === null) {
      const lineage = this.lineages.nextToReap();
      if (lineage === undefined) return false;
      this.reaping = { lineage, record: 0 };
    }
    const { lineage } = this.reaping;
    if (!this.prepare(reapChunksPerSlice, 0)) return false;
    let { record } = this.reaping;
    const end = Math.min(this.index.count, record + reapRecordsPerSlice);
    for (; record < end && this.log.count < reapChunksPerSlice; record++) {
      if (this.index.lineage[record] !== lineage.number) continue;
      if (this.cache.load(record) < 0) {
        this.retire(`the map page in block ${this.index.slot[record]} is unreadable`);
        this.log.count = 0;
        return false;
      }
      const chunk = this.index.chunk[record];
      this.log.add(
        EntryType.discard,
        EntryFlag.drop,
        0,
        lineage.number,
        chunk,
        chunkBlocks,
        0,
        lineage.epoch,
        0,
        0,
      );
    }
    if (record < this.index.count) this.reaping.record = record;
    else {
      this.log.add(EntryType.volumeForget, 0, 0, lineage.number, 0, 0, 0, 0, 0, 0);
      this.reaping = null;
    }
    return this.log.count === 0 || this.commit();
  }

  /** Writes a checkpoint and marks the store clean. */
  shutdown(): void {
    if (this.failure === null) checkpointNow(this);
    if (this.failure === null) checkpointNow(this, true);
    this.disk.close();
  }

  /** In blocks; the parts add up to `device`. */
  space() {
    const { allocator } = this;
    const hidden =
      this.hidden.index.length +
      this.hidden.bitmap.length +
      this.hidden.volumes.length +
      this.hidden.directory.length;
    const used = this.lineages.usedBlocks();
    const retired = this.retiredSlots.length + (this.checkpoint?.freed.length ?? 0);
    const reclaiming = allocator.pendingCount + retired;
    let slots = 0;
    for (let record = 0; record < this.index.count; record++) {
      if (this.index.lineage[record] !== 0 && this.index.slot[record] !== 0) slots++;
    }
    const fixed = 2 + this.superblock.logBlocks;
    const reserved = Math.min(allocator.freeBlocks, this.reserveBlocks);
    return {
      device: allocator.blocks,
      used,
      metadata: fixed + hidden + slots,
      reclaiming,
      reserved,
      free: allocator.freeBlocks - reserved,
      bytes: (blocks: number) => blocks * blockBytes,
    };
  }
}

function uuidOfWords(words: Uint32Array): string {
  const hex = Array.from(words, (word) => {
    const bytes = [word & 0xff, (word >>> 8) & 0xff, (word >>> 16) & 0xff, word >>> 24];
    return bytes.map((byte) => byte.toString(16).padStart(2, "0")).join("");
  }).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}
