/**
 * The store's engine as its thread drives it: batches through the executor, a turn after each. The
 * only file here that knows how a store is formatted and mounted.
 */
import { randomUUID } from "node:crypto";
import { closeSync, ftruncateSync, openSync } from "node:fs";
import { KeelsonError } from "#lib/model/errors.ts";
import type { VolumeId } from "#lib/model/ids.ts";
import { BlockOp, BlockStatus, sectorBytes } from "#lib/volume/block.ts";
import { type BlockBatch, createBatch } from "#lib/volume/executor.ts";
import { type Native, type NativeMemory, native, Poll } from "#native";
import type { Disk } from "#services/chunk-store/engine/disk.ts";
import { formatStore, mountStore } from "#services/chunk-store/engine/mount.ts";
import type { Store } from "#services/chunk-store/engine/store.ts";
import { StoreExecutor } from "#services/chunk-store/executor.ts";
import { checksum, type FileDisk } from "#services/chunk-store/file-disk.ts";
import { CountingDisk } from "./disks.ts";

/** chunk-store's own default for `--memory`. */
export const defaultMemoryBytes = 64 * 2 ** 20;
const mebibyte = 2 ** 20;
/** Requests of 1 MiB in one batch. */
const largeDepth = 4;
const longestFlushMs = 60_000;

/** The addon. Without it nothing here would measure what runs on an appliance. */
export function addon(): Native {
  if (native !== undefined) return native;
  throw new KeelsonError("UNSUPPORTED", "The native addon is not there.", {
    remedy: "Run this by `npm run peers`, which compiles it; gcc and libc6-dev are needed.",
  });
}

export function sparseFile(path: string, sizeBytes: number): string {
  const fd = openSync(path, "wx", 0o600);
  ftruncateSync(fd, sizeBytes);
  closeSync(fd);
  return path;
}

export interface EngineOptions {
  readonly file: FileDisk;
  /** What the store sees; the file itself where there is none. */
  readonly disk?: Disk;
  readonly memoryBytes?: number;
}

/** Makes a store of the file: whatever it held is lost. */
export function format({ file, disk = file }: EngineOptions): void {
  formatStore(disk, {
    device: file.path,
    pool: randomUUID(),
    store: randomUUID(),
    nowMs: Date.now(),
    checksum,
  });
}

export class Engine {
  readonly store: Store;
  readonly payload: Uint8Array;
  private readonly volumeBytes: number;
  private readonly batch: BlockBatch = createBatch();
  private readonly memory: NativeMemory;
  private readonly disk: Disk;
  /** `disk`, where it is one that can tell of flushes or leave them out. */
  private readonly counted: CountingDisk | undefined;
  private readonly executor: StoreExecutor;
  private readonly volume: number;
  private readonly loop: number;
  private readonly events = new Int32Array(4);

  private constructor(options: EngineOptions, store: Store, volumeId: string) {
    const { file, disk = file } = options;
    this.disk = disk;
    this.counted = disk instanceof CountingDisk ? disk : undefined;
    this.store = store;
    this.executor = new StoreExecutor(store, file);
    const opened = this.executor.open(volumeId as VolumeId);
    if (typeof opened !== "object") throw failed("open a volume", opened);
    this.volume = opened.volume;
    this.volumeBytes = opened.sizeBytes;
    this.memory = addon().memoryCreate(largeDepth * mebibyte, false);
    this.payload = new Uint8Array(this.memory.buffer);
    this.payload.fill(0xa5);
    this.batch.payload = this.payload;
    this.batch.payloadSlot = this.memory.slot;
    this.loop = addon().loopCreate();
    addon().loopSet(this.loop, this.executor.wakeFd, 0, Poll.in);
  }

  /** A fresh store with one volume. */
  static create(options: EngineOptions, volumeBytes: number): Engine {
    format(options);
    const store = Engine.mountOnly(options);
    const { uuid } = store.createVolume(randomUUID(), volumeBytes, null);
    return new Engine(options, store, uuid);
  }

  /** A store that `create` made, whatever became of it since. */
  static mount(options: EngineOptions): Engine {
    const store = Engine.mountOnly(options);
    const [uuid] = store.lineages.byUuid.keys();
    return new Engine(options, store, uuid);
  }

  private static mountOnly({ file, disk = file, memoryBytes }: EngineOptions): Store {
    return mountStore(disk, {
      device: file.path,
      checksum,
      memoryBytes: memoryBytes ?? defaultMemoryBytes,
    });
  }

  /** The next batches have `depth` requests of `lengthBytes`, side by side in the payload. */
  shape(op: "read" | "write", lengthBytes: number, depth: number): void {
    const { batch } = this;
    batch.count = depth;
    for (let row = 0; row < depth; row++) {
      batch.op[row] = BlockOp[op];
      batch.volume[row] = this.volume;
      batch.lengthBytes[row] = lengthBytes;
      batch.payloadOffset[row] = row * lengthBytes;
    }
  }

  /** Where request `row` of the next batch goes, in bytes. */
  aim(row: number, position: number): void {
    this.batch.sector[row] = position / sectorBytes;
  }

  /** Does the batch, then gives the store its turn. UNAVAILABLE if a request failed. */
  execute(): void {
    const { batch } = this;
    this.executor.execute(batch);
    for (let row = 0; row < batch.count; row++) {
      if (batch.status[row] !== BlockStatus.ok) throw failed("execute a batch", batch.status[row]);
    }
    this.turn();
  }

  /** SYNCHRONIZE CACHE: waits as the store's thread does, for the addon's flush thread. */
  flush(): void {
    let result: BlockStatus | undefined;
    this.executor.flush(this.volume, (status) => {
      result = status;
    });
    const end = performance.now() + longestFlushMs;
    while (result === undefined && performance.now() < end) this.wait();
    if (result !== BlockStatus.ok) throw failed("flush", result);
  }

  /**
   * Until no flush of the store's own (of a checkpoint) is under way: the addon has one thread and
   * one eventfd for them, so that two stores of one process must not flush at the same time.
   */
  settle(): void {
    while ((this.counted?.underWay ?? 0) > 0) this.wait();
  }

  /** Until the background has freed all that deleted snapshots and volumes kept. */
  freeDeleted(): void {
    const { lineages } = this.store;
    while (lineages.reapable.size > 0 && this.store.failure === null) this.turn();
  }

  private wait(): void {
    const skipped = this.counted?.skipFlushes === true;
    if (!skipped) addon().loopWait(this.loop, this.events, 1000, 0);
    this.turn();
  }

  private turn(): void {
    this.counted?.finishFlushes();
    this.executor.turn();
  }

  /** Finished since the mount. */
  get checkpoints(): number {
    return this.store.checkpoints;
  }

  /** Writes the whole volume once, in order. */
  fill(): void {
    this.shape("write", mebibyte, largeDepth);
    for (let position = 0; position < this.volumeBytes; position += largeDepth * mebibyte) {
      for (let row = 0; row < largeDepth; row++) this.aim(row, position + row * mebibyte);
      this.execute();
    }
    this.flush();
  }

  /** Ends the store cleanly. A `CountingDisk` stays open. */
  stop(): void {
    this.executor.shutdown();
    this.release();
  }

  /** As after kill -9: what the kernel was given stays, nothing else is said to the device. */
  drop(): void {
    this.release();
    this.disk.close();
  }

  private release(): void {
    addon().close(this.loop);
    addon().memoryRelease(this.memory.slot);
  }
}

function failed(operation: string, status: number | undefined): KeelsonError {
  return new KeelsonError("UNAVAILABLE", `The store did not ${operation}: status ${status}.`, {
    operation,
  });
}
