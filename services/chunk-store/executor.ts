/** The store as the ring's executor: open volumes by small numbers, batches, flushes, control. */
import type { VolumeId } from "#lib/model/ids.ts";
import type { Operation, Version, Writer } from "#lib/model/writer.ts";
import { BlockStatus } from "#lib/volume/block.ts";
import type { BlockBatch, BlockExecutor, GroupView, OpenedVolume } from "#lib/volume/executor.ts";
import { type ControlMessage, type ControlReply, handleControl } from "./control.ts";
import type { Lineage } from "./engine/lineages.ts";
import type { Store } from "./engine/store.ts";
import { Transfer, type View } from "./engine/transfer.ts";
import { claimVolume, noteGroupFlush } from "./engine/writers.ts";

/** What of a FileDisk concerns batches and their thread. */
export interface BatchDisk {
  readonly wakeFd: number;
  bind(payload: Uint8Array, payloadSlot: number): void;
  reap(): void;
}

export class StoreExecutor implements BlockExecutor {
  readonly store: Store;
  readonly wakeFd: number;
  onFinished?: () => void;
  private readonly disk: BatchDisk;
  private readonly transfer: Transfer;
  private readonly volumes: (View | undefined)[] = [];

  constructor(store: Store, disk: BatchDisk) {
    this.store = store;
    this.disk = disk;
    this.wakeFd = disk.wakeFd;
    this.transfer = new Transfer(store);
    store.onFinished = () => this.onFinished?.();
  }

  open(volumeId: VolumeId): OpenedVolume | BlockStatus {
    if (this.store.failure !== null) return BlockStatus.storeFailed;
    const { byUuid, snapshots } = this.store.lineages;
    const snapshot = snapshots.get(volumeId) ?? null;
    const lineage = snapshot?.lineage ?? byUuid.get(volumeId);
    if (lineage === undefined) return BlockStatus.badHandle;
    let volume = this.volumes.indexOf(undefined);
    if (volume < 0) volume = this.volumes.length;
    this.volumes[volume] = { lineage, snapshot };
    const { sizeBytes } = snapshot ?? lineage;
    (snapshot ?? lineage).openCount++;
    return { volume, sizeBytes, readOnly: snapshot !== null || lineage.sealed };
  }

  close(volume: number): void {
    const view = this.volumes[volume];
    if (view === undefined) return;
    (view.snapshot ?? view.lineage).openCount--;
    this.volumes[volume] = undefined;
  }

  group(volume: number): GroupView {
    return this.lineage(volume);
  }

  claim(volume: number, wanted: Writer, done: (granted: Writer | BlockStatus) => void): void {
    claimVolume(this.store, this.lineage(volume), wanted, done);
  }

  history(volume: number): readonly Operation[] {
    return this.lineage(volume).operations;
  }

  groupFlushed(volume: number, writer: number, version: Version): void {
    noteGroupFlush(this.store, this.lineage(volume), writer, version);
  }

  private lineage(volume: number): Lineage {
    return this.volumes[volume]!.lineage;
  }

  execute(batch: BlockBatch): void {
    this.disk.bind(batch.payload, batch.payloadSlot);
    try {
      this.transfer.execute(batch, this.volumes);
    } catch (error) {
      // A fault of ours, in the middle of a change: what is in memory can't be trusted any more.
      this.store.retire(`an internal error: ${error instanceof Error ? error.message : error}`);
      batch.status.fill(BlockStatus.storeFailed, 0, batch.count);
    }
  }

  flush(_volume: number, done: (status: BlockStatus) => void): void {
    this.store.flush((ok) => done(ok ? BlockStatus.ok : BlockStatus.storeFailed));
  }

  turn(): number {
    this.disk.reap();
    return this.store.turn();
  }

  control(message: unknown, answer: (reply: unknown) => void): void {
    handleControl(this.store, message as ControlMessage, (reply: ControlReply) => answer(reply));
  }

  shutdown(): void {
    this.store.shutdown();
  }
}
