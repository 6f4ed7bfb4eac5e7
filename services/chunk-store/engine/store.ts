/**
 * One mounted store: the log, the map and the space of one device.
 *
 *   stage entries -> write data to fresh blocks -> append the log record -> apply to the map
 *
 * Everything here is synchronous but `flush`; nothing throws for I/O faults: a store whose flush or
 * log write failed is retired, its state is unknown from then on.
 */
import { KeelsonError } from "#lib/model/errors.ts";
import { blockBytes } from "../limits.ts";
import type { Allocator } from "./allocator.ts";
import { applyEntries } from "./apply.ts";
import {
  advanceCheckpoint,
  beginCheckpoint,
  type Checkpoint,
  checkpointNow,
  writeDue,
} from "./checkpoint.ts";
import type { ChunkIndex } from "./chunk-index.ts";
import type { Checksum, Disk } from "./disk.ts";
import { EntryType, recordSectors, type Superblock, snapshotFormat, uuidBytes } from "./layout.ts";
import type { Lineage, Lineages, Snapshot } from "./lineages.ts";
import type { Log } from "./log.ts";
import type { PageCache } from "./page-cache.ts";
import { reap } from "./reaper.ts";
import { tablePages } from "./tables.ts";
import { inheritClaim } from "./writers.ts";

/** Un-flushed data beyond this is flushed in the background: bounds the stall of a late sync. */
const backgroundFlushBytes = 64 * 2 ** 20;
/** The device begins with so much, so that a flush finds it busy and not idle until then. */
const beginFlushBytes = 8 * 2 ** 20;

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

/** What a clone is made of: a snapshot, or a sealed volume with its epoch. */
export interface Origin {
  readonly lineage: Lineage;
  readonly epoch: number;
}

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
  flushesRequested = 0;
  flushesDone = 0;
  checkpoints = 0;
  checksumErrors = 0;
  private bytesSinceFlush = 0;
  private begunBytes = 0;
  /** Map page slots that the last checkpoint on disk still leads to, but the next one will not. */
  retiredSlots: number[] = [];
  /** Slots of the pages of index, bitmap and tables, and of the directory that lists them. */
  hidden = {
    index: [] as number[],
    bitmap: [] as number[],
    volumes: [] as number[],
    snapshots: [] as number[],
    cells: [] as number[],
    operations: [] as number[],
    directory: [] as number[],
  };
  checkpoint: Checkpoint | null = null;
  /** That a checkpoint writes in a turn in which nobody wanted anything: a third of a ms. */
  idlePages = 32;
  /** Allocated for data that is not in the log yet: a checkpoint must not call them used. */
  readonly stagedPointers: Uint32Array;
  stagedCount = 0;
  /** Called when a flush has finished: `turn` then has callbacks to make. */
  onFinished: (() => void) | undefined;
  /** Told of each block whose checksum did not match. */
  onMediaError: ((volume: string, offsetBytes: number, block: number) => void) | undefined;
  onRetired: ((reason: string) => void) | undefined;
  private flushing = false;
  /** Something was prepared since the last turn. */
  private busy = false;
  private waiting: ((ok: boolean) => void)[] = [];
  private finished: { done: (ok: boolean) => void; ok: boolean }[] = [];

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
    this.cache.onDue = (record, frame) => writeDue(this, record, frame);
  }

  // ---- space -------------------------------------------------------------------------------

  /**
   * Blocks kept back from data: two checkpoints' worth, one that may be under way and one that a
   * full store needs to record discards and deletions.
   */
  get reserveBlocks(): number {
    return (
      2 * this.superblock.checkpointPages +
      2 * (this.index.pages + this.allocator.pages + tablePages(this.lineages)) +
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
   * Before a record of `entries` that dirties at most `chunks` map pages: begins a checkpoint in
   * time, keeps the one under way in step with what it must be done before, and waits for it only
   * if it must. False when the store is retired.
   */
  prepare(entries: number, chunks: number): boolean {
    const { cache, log, superblock } = this;
    const pressed = () =>
      cache.dirtyCount + chunks > superblock.checkpointPages ||
      cache.deltas.count > cache.mostDeltas ||
      !log.fits(entries);
    if (this.checkpoint === null) {
      if (this.checkpointIsDue || pressed()) beginCheckpoint(this);
    } else if (this.checkpoint.stage === "pages") {
      advanceCheckpoint(this, this.pagesInStep(this.checkpoint, entries + log.count, chunks));
    }
    this.busy = true;
    while (pressed() && this.failure === null) {
      if (this.checkpoint === null) beginCheckpoint(this);
      else checkpointNow(this);
    }
    return this.failure === null;
  }

  /** Half of what there is between two checkpoints is used. */
  private get checkpointIsDue(): boolean {
    const { cache, log, superblock } = this;
    return (
      log.usedSectors * 2 > log.sectors ||
      cache.dirtyCount * 2 > superblock.checkpointPages ||
      cache.deltas.count * 2 > cache.mostDeltas
    );
  }

  /** So many that the checkpoint ends when half of what was left at its begin is used. */
  private pagesInStep({ pagesLeft }: Checkpoint, entries: number, chunks: number): number {
    const { cache, log, superblock } = this;
    const share = (part: number, used: number, all: number) =>
      Math.min(1, part / Math.max(1, all * 0.75 - used));
    return Math.ceil(
      pagesLeft *
        Math.max(
          share(recordSectors(entries), log.usedSectors, log.sectors),
          share(chunks, cache.dirtyCount, superblock.checkpointPages),
          share(entries, cache.deltas.count, cache.mostDeltas),
        ),
    );
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
    const { words, sequence } = this.log;
    const good = applyEntries(this, words, this.log.entryWord(0), count, sequence, false);
    this.log.count = 0;
    if (!good) this.retire("a map page could not be read back");
    return good;
  }

  /** The next checkpoint no longer leads to this slot; it is free once that one is durable. */
  retireSlot(slot: number): void {
    this.retiredSlots.push(slot);
    this.allocator.touch(slot);
  }

  /**
   * Writes this format from now on. The superblock that says so leads to pages that have all of it:
   * one under way was begun without, and is finished as what it is.
   */
  raiseFormat(format: number): void {
    if (this.failure !== null || format <= this.superblock.format) return;
    if (this.checkpoint !== null) checkpointNow(this);
    this.superblock.format = format;
    checkpointNow(this);
    // In both superblocks: whoever does not know this format must not get by with the older one.
    checkpointNow(this);
  }

  // ---- volumes -----------------------------------------------------------------------------

  /** A clone of what `origin` is as of its epoch, or an empty volume. */
  createVolume(uuid: string, sizeBytes: number, origin: Origin | null): Lineage {
    this.requireMounted();
    this.requireSpace("create volume", uuid);
    this.requireRoomInLog(2);
    const number = this.addCreation(uuid, sizeBytes, origin);
    this.commitControl();
    return this.lineages.byNumber.get(number)!;
  }

  /** One instant for all of them: one log record. Each volume at most once. */
  createSnapshots(
    wanted: readonly { readonly lineage: Lineage; readonly uuid: string }[],
    nowMs: number,
  ): Snapshot[] {
    this.requireSnapshots("create snapshot", wanted[0].uuid);
    this.requireSpace("create snapshot", wanted[0].uuid);
    this.requireRoomInLog(2 * wanted.length);
    for (const { lineage, uuid } of wanted) {
      this.log.add(
        EntryType.snapshotCreate,
        0,
        0,
        lineage.number,
        0,
        this.lineages.nextEpoch++,
        0,
        lineage.epoch,
        nowMs % 2 ** 32,
        Math.floor(nowMs / 2 ** 32),
      );
      this.addIdentity(lineage.number, uuid);
    }
    this.commitControl();
    return wanted.map(({ uuid }) => this.lineages.snapshots.get(uuid)!);
  }

  /** Gone for its users at once; what only it kept is freed by later turns. */
  deleteSnapshot(snapshot: Snapshot): void {
    this.changeVolume(EntryType.snapshotDelete, snapshot.lineage, 0, snapshot.epoch);
  }

  /** The volume is as it was then; its snapshots stay. Its users must have closed it. */
  revertVolume(lineage: Lineage, to: Snapshot): Lineage {
    this.requireMounted();
    this.requireRoomInLog(4);
    this.log.add(EntryType.volumeDelete, 0, 0, lineage.number, 0, 0, 0, 0, 0, 0);
    const number = this.addCreation(lineage.uuid, to.sizeBytes, to);
    inheritClaim(this, lineage, number);
    this.commitControl();
    return this.lineages.byNumber.get(number)!;
  }

  sealVolume(lineage: Lineage): void {
    this.changeVolume(EntryType.volumeSeal, lineage, 0);
  }

  growVolume(lineage: Lineage, sizeBytes: number): void {
    this.changeVolume(EntryType.volumeResize, lineage, sizeBytes);
  }

  /** Gone for its users at once; its blocks are freed by later turns. Its snapshots stay. */
  deleteVolume(lineage: Lineage): void {
    this.changeVolume(EntryType.volumeDelete, lineage, 0);
  }

  /** Entries that make a lineage; its number. */
  private addCreation(uuid: string, sizeBytes: number, origin: Origin | null): number {
    const number = this.lineages.nextNumber++;
    this.log.add(
      EntryType.volumeCreate,
      0,
      0,
      number,
      origin?.lineage.number ?? 0,
      origin?.epoch ?? 0,
      0,
      this.lineages.nextEpoch++,
      sizeBytes % 2 ** 32,
      Math.floor(sizeBytes / 2 ** 32),
    );
    this.addIdentity(number, uuid);
    return number;
  }

  private addIdentity(lineage: number, uuid: string): void {
    const id = new DataView(uuidBytes(uuid).buffer);
    this.log.add(
      EntryType.volumeIdentity,
      0,
      0,
      lineage,
      id.getUint32(0, true),
      id.getUint32(4, true),
      id.getUint32(8, true),
      id.getUint32(12, true),
      0,
      0,
    );
  }

  private changeVolume(type: number, lineage: Lineage, sizeBytes: number, epoch = 0): void {
    this.requireMounted();
    this.requireRoomInLog(1);
    const low = sizeBytes % 2 ** 32;
    this.log.add(type, 0, 0, lineage.number, 0, 0, 0, epoch, low, Math.floor(sizeBytes / 2 ** 32));
    this.commitControl();
  }

  private requireSnapshots(operation: string, object: string): void {
    this.requireMounted();
    if (this.superblock.format >= snapshotFormat) return;
    throw new KeelsonError("UNSUPPORTED", `The store on ${this.device} has no snapshots yet.`, {
      operation,
      object,
      remedy: "Wait until the new version is kept: the old one could not read them.",
    });
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

  private requireSpace(operation: string, object: string): void {
    if (this.makeRoom(1)) return;
    this.requireMounted();
    throw new KeelsonError("NO_SPACE", `The store on ${this.device} is full.`, {
      operation,
      object,
      remedy: "Delete volumes, images or snapshots that are not needed.",
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
    this.begunBytes = 0;
    this.disk.flush((ok) => {
      this.flushing = false;
      if (ok) this.flushFinished(sequence, stated);
      else this.retire("the device failed a flush");
      for (const done of served) this.finished.push({ done, ok: ok && this.failure === null });
      if (this.waiting.length > 0) this.startFlush();
      this.onFinished?.();
    });
  }

  /** Of data and pages, just now. */
  noteWritten(bytes: number): void {
    this.bytesSinceFlush += bytes;
    if (this.bytesSinceFlush - this.begunBytes < beginFlushBytes || this.flushing) return;
    this.begunBytes = this.bytesSinceFlush;
    this.disk.beginFlush?.();
  }

  flushSync(): boolean {
    if (this.failure !== null) return false;
    const { sequence, stated } = this.log;
    this.bytesSinceFlush = 0;
    this.begunBytes = 0;
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
    this.allocator.releasePending(this.log.statedDurable);
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
    if (this.checkpoint === null && this.checkpointIsDue) beginCheckpoint(this);
    // An older program would not know the entries that free a volume's blocks.
    const more = this.superblock.format >= snapshotFormat && reap(this);
    const { busy } = this;
    this.busy = false;
    if (this.checkpoint?.stage !== "pages") return more ? 0 : -1;
    if (!busy) advanceCheckpoint(this, this.idlePages);
    return 0;
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

  /** Writes a checkpoint and marks the store clean. */
  shutdown(): void {
    if (this.failure === null) checkpointNow(this);
    if (this.failure === null) checkpointNow(this, true);
    this.disk.close();
  }

  /** In blocks; the parts add up to `device`. */
  space() {
    const { allocator } = this;
    const hidden = Object.values(this.hidden).reduce((sum, slots) => sum + slots.length, 0);
    const used = this.lineages.usedBlocks();
    const retired = this.retiredSlots.length + (this.checkpoint?.freed.length ?? 0);
    const reclaiming = allocator.pendingCount + retired;
    const fixed = 2 + this.superblock.logBlocks;
    const reserved = Math.min(allocator.freeBlocks, this.reserveBlocks);
    return {
      device: allocator.blocks,
      used,
      metadata: fixed + hidden + this.index.slots,
      reclaiming,
      reserved,
      free: allocator.freeBlocks - reserved,
      bytes: (blocks: number) => blocks * blockBytes,
    };
  }
}
