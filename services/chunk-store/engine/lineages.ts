/**
 * Volumes as the store sees them: a lineage is a volume's own line of blocks, over what its parent
 * had when it was cloned. Lineage numbers and epochs are never used twice.
 *
 *   lineage 1   ...write... snapshot @3 ...write... snapshot @7 ...write... live, epoch 8
 *                                 \-- lineage 4, fork epoch 3: a clone of snapshot @3
 *
 * Reading as of epoch e finds, of each chunk, the record with the greatest epoch up to e.
 */
import { nobody, noVersion, type Operation, type Version, type Writer } from "#lib/model/writer.ts";
import { alive, type Cell, type CellCounter, Cells } from "./cells.ts";

export interface Snapshot {
  readonly uuid: string;
  readonly lineage: Lineage;
  /** Everything written with this epoch or an earlier one is in it. */
  readonly epoch: number;
  readonly sizeBytes: number;
  readonly createdMs: number;
  /** Invisible; what only it keeps is freed once no clone sees it. */
  deleted: boolean;
  /** Clones of it that exist, deleted ones included. */
  children: number;
  /** Users now; not on disk. */
  openCount: number;
}

export interface Lineage {
  readonly number: number;
  readonly uuid: string;
  readonly parent: Lineage | null;
  /** The parent's epoch that a clone sees. 0 without a parent. */
  readonly forkEpoch: number;
  readonly firstEpoch: number;
  /** Of what is written now. */
  epoch: number;
  sizeBytes: number;
  sealed: boolean;
  /** Invisible; its blocks are freed once no clone sees them. */
  deleted: boolean;
  /** Deleted, and what only its newest state had is freed: its last snapshot is its newest state. */
  headless: boolean;
  ownedBlocks: number;
  /** Clones of its newest state, which is sealed; clones of a snapshot count there. */
  children: number;
  /** Users now; not on disk. */
  openCount: number;
  /** By epoch, also deleted ones that are still to be freed. */
  readonly snapshots: Snapshot[];
  readonly cells: Cells;
  /** Epoch of the newest snapshot that must stay as it is: a block born after it has no other user. */
  barrier: number;
  /** Deleted snapshots after the barrier. */
  dropping: number;
  /** Cell of what is born now and alive. */
  live: Cell;
  writer: Writer;
  /** Of the last operation of its group: every earlier one is done, too. */
  version: Version;
  /** Every member of the group has everything up to this durable. */
  flushed: Version;
  /** After `flushed`, oldest first: what another member may lack. */
  readonly operations: Operation[];
}

export type NewLineage = Omit<
  Lineage,
  | "children"
  | "openCount"
  | "snapshots"
  | "cells"
  | "barrier"
  | "dropping"
  | "live"
  | "writer"
  | "version"
  | "flushed"
  | "operations"
>;

export function createLineage(of: NewLineage, counter: CellCounter): Lineage {
  const cells = new Cells(counter);
  return {
    ...of,
    ...{ children: 0, openCount: 0, snapshots: [], cells, barrier: 0, dropping: 0 },
    ...{ writer: nobody, version: noVersion, flushed: noVersion, operations: [] },
    live: cells.at(of.epoch, alive),
  };
}

/** Still seen by somebody: a deleted one may have clones. */
export const isNeeded = (snapshot: Snapshot): boolean => !snapshot.deleted || snapshot.children > 0;

/** Number of the first snapshot at or after an epoch; the number of snapshots if there is none. */
export function firstSnapshotFrom({ snapshots }: Lineage, epoch: number): number {
  let low = 0;
  let high = snapshots.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (snapshots[middle].epoch < epoch) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** The interval that an epoch lies in today: intervals of snapshots that are gone became the next's. */
export function intervalOf(lineage: Lineage, epoch: number): number {
  return lineage.snapshots[firstSnapshotFrom(lineage, epoch)]?.epoch ?? lineage.epoch;
}

/** The interval after that of snapshot number `at`. */
export function intervalAfter(lineage: Lineage, at: number): number {
  return lineage.snapshots[at + 1]?.epoch ?? lineage.epoch;
}

/** To be called when snapshots of a lineage came, went, or have other users. */
export function findBarrier(lineage: Lineage): void {
  const { snapshots } = lineage;
  let last = snapshots.length - 1;
  while (last >= 0 && !isNeeded(snapshots[last])) last--;
  lineage.barrier = last < 0 ? 0 : snapshots[last].epoch;
  lineage.dropping = snapshots.length - 1 - last;
}

export class Lineages {
  readonly byNumber = new Map<number, Lineage>();
  /** Visible volumes. */
  readonly byUuid = new Map<string, Lineage>();
  /** Visible snapshots. */
  readonly snapshots = new Map<string, Snapshot>();
  /** May have something that nobody sees any more. */
  readonly reapable = new Set<Lineage>();
  snapshotCount = 0;
  readonly cells: CellCounter = { count: 0 };
  nextNumber = 1;
  nextEpoch = 1;

  add(lineage: Lineage): void {
    this.load(lineage);
    this.countChild(lineage, 1);
  }

  /** Without telling its parent: `countChildren` does, once all snapshots are loaded. */
  load(lineage: Lineage): void {
    this.byNumber.set(lineage.number, lineage);
    if (lineage.deleted) this.reapable.add(lineage);
    else this.byUuid.set(lineage.uuid, lineage);
    if (lineage.number >= this.nextNumber) this.nextNumber = lineage.number + 1;
    this.passEpoch(lineage.epoch);
  }

  countChildren(): void {
    for (const lineage of this.byNumber.values()) this.countChild(lineage, 1);
  }

  delete(lineage: Lineage): void {
    lineage.deleted = true;
    this.reapable.add(lineage);
    if (this.byUuid.get(lineage.uuid) === lineage) this.byUuid.delete(lineage.uuid);
  }

  forget(lineage: Lineage): void {
    this.byNumber.delete(lineage.number);
    this.reapable.delete(lineage);
    for (const cell of [...lineage.cells]) lineage.cells.delete(cell);
    for (const snapshot of lineage.snapshots) this.removeSnapshot(snapshot);
    this.countChild(lineage, -1);
  }

  /** In the order of their epochs. */
  addSnapshot(snapshot: Snapshot): void {
    const { lineage } = snapshot;
    lineage.snapshots.push(snapshot);
    this.snapshotCount++;
    if (snapshot.deleted) this.reapable.add(lineage);
    else this.snapshots.set(snapshot.uuid, snapshot);
    findBarrier(lineage);
    this.passEpoch(snapshot.epoch);
  }

  deleteSnapshot(snapshot: Snapshot): void {
    snapshot.deleted = true;
    this.snapshots.delete(snapshot.uuid);
    this.reapable.add(snapshot.lineage);
    findBarrier(snapshot.lineage);
  }

  /** Out of its lineage's list, of which the caller takes care. */
  removeSnapshot(snapshot: Snapshot): void {
    this.snapshotCount--;
    if (!snapshot.deleted) this.snapshots.delete(snapshot.uuid);
  }

  passEpoch(epoch: number): void {
    if (epoch >= this.nextEpoch) this.nextEpoch = epoch + 1;
  }

  usedBlocks(): number {
    let sum = 0;
    for (const lineage of this.byNumber.values()) sum += lineage.ownedBlocks;
    return sum;
  }

  private countChild({ parent, forkEpoch }: Lineage, by: number): void {
    if (parent === null) return;
    if (by < 0) this.reapable.add(parent);
    const snapshot = snapshotAt(parent, forkEpoch);
    if (snapshot === undefined) parent.children += by;
    else {
      snapshot.children += by;
      findBarrier(parent);
    }
  }
}

export function snapshotAt(lineage: Lineage, epoch: number): Snapshot | undefined {
  const snapshot = lineage.snapshots[firstSnapshotFrom(lineage, epoch)];
  return snapshot?.epoch === epoch ? snapshot : undefined;
}
