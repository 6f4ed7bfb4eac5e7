/**
 * A logical unit: one volume behind one export. Knows whether requests may go to the store now, and
 * holds them back while they may not.
 */
import type { Iqn, VolumeId } from "#lib/model/ids.ts";
import { BlockStatus, sectorBytes } from "#lib/volume/block.ts";
import type { BlockLimits, UnitIdentity } from "#lib/wire/scsi/inquiry.ts";
import type { ModeState } from "#lib/wire/scsi/mode.ts";
import { Reservations } from "./reservation.ts";
import type { Export, VolumeState } from "./schema.ts";
import { TaskQueue, type TaskTable } from "./task-table.ts";

/** 1 MiB, the largest request of the ring. */
export const maxTransferBlocks = 2048;

export const blockLimits: BlockLimits = {
  maxTransferBlocks,
  optimalTransferBlocks: 512,
  maxCompareAndWriteBlocks: 255,
  /** 512 MiB. */
  maxUnmapBlocks: 0x100000,
  maxUnmapDescriptors: 256,
  /** 31 MiB: whole chunks, and within the 65535 blocks that initiators of WRITE SAME(10) can say. */
  maxWriteSameBlocks: 31 * 2048,
  granularityBlocks: 8,
};

export class LogicalUnit {
  entry: Export;
  readonly volumeId: VolumeId;
  identity: UnitIdentity;
  state: VolumeState = "opening";
  /** -1: not open. */
  handle = -1;
  blocks = 0;
  volumeReadOnly = false;
  /** True while requests must wait: not open, store away, or one command needs the unit alone. */
  hold = true;
  /** True while an open is under way. */
  opening = false;
  nextOpenMs = 0;
  /** Another size was seen; taken on once nothing is in flight. */
  resizing = false;
  /** Monotonic time since when it can't serve; -1 while it can. */
  awaySinceMs = -1;
  writesInFlight = 0;
  /** Anything submitted under `handle`: a replaced handle is closed once this is 0. */
  requestsInFlight = 0;
  mode: ModeState = { softwareWriteProtect: false, descriptorSense: false };
  readonly reservations = new Reservations();
  readonly held: TaskQueue;
  private exclusive = false;
  private readonly exclusiveWaiting: (() => void)[] = [];

  constructor(entry: Export, table: TaskTable) {
    this.entry = entry;
    this.volumeId = entry.volumeId;
    this.identity = identityOf(entry);
    this.held = new TaskQueue(table);
  }

  get writeProtected(): boolean {
    return this.entry.readOnly || this.volumeReadOnly || this.mode.softwareWriteProtect;
  }

  get sizeBytes(): number | null {
    return this.handle < 0 ? null : this.blocks * sectorBytes;
  }

  get lastLba(): number {
    return this.blocks - 1;
  }

  /** Recomputes `hold`; true if requests may go now. */
  settle(connected: boolean): boolean {
    this.hold =
      this.exclusive ||
      !connected ||
      this.handle < 0 ||
      this.resizing ||
      this.state === "storeFailed";
    return !this.hold;
  }

  /**
   * Runs `step` when no write is in flight and none can start until `release`: how COMPARE AND WRITE
   * and ORWRITE are atomic against other writes.
   */
  acquire(step: () => void): void {
    this.exclusiveWaiting.push(step);
    this.hold = true;
    this.advanceExclusive();
  }

  release(connected: boolean): boolean {
    this.exclusive = false;
    this.advanceExclusive();
    return this.settle(connected);
  }

  /** Called when writesInFlight fell. */
  advanceExclusive(): void {
    if (this.exclusive || this.writesInFlight > 0) return;
    const step = this.exclusiveWaiting.shift();
    if (step === undefined) return;
    this.exclusive = true;
    this.hold = true;
    step();
  }

  get wantsExclusive(): boolean {
    return this.exclusive || this.exclusiveWaiting.length > 0;
  }

  /** The store refused the handle, or itself: hold until it is opened again. */
  lose(status: BlockStatus): void {
    if (status === BlockStatus.badHandle) this.handle = -1;
    this.state = status === BlockStatus.badHandle ? "opening" : "storeFailed";
    this.hold = true;
    this.nextOpenMs = 0;
  }

  mayUse(initiator: Iqn, fromLoopback: boolean): boolean {
    return mayUse(this.entry, initiator, fromLoopback);
  }
}

/** The access list: an initiator reaches a LUN only by an entry that names it. */
export function mayUse(entry: Export, initiator: Iqn, fromLoopback: boolean): boolean {
  return entry.initiators.includes(initiator) || (entry.openToLoopback && fromLoopback);
}

function identityOf(entry: Export): UnitIdentity {
  return {
    vendor: "KEELSON ",
    product: "VOLUME",
    revision: "1",
    serial: entry.volumeId.replaceAll("-", ""),
    uuid: Buffer.from(entry.volumeId.replaceAll("-", ""), "hex"),
    targetName: entry.iqn,
  };
}

/** What the answer to a failed `open` says of the volume. */
export function stateOfOpenFailure(status: BlockStatus): VolumeState {
  switch (status) {
    case BlockStatus.storeFailed:
    case BlockStatus.fenced:
    case BlockStatus.mediaError:
      return "storeFailed";
    case BlockStatus.badHandle:
    case BlockStatus.invalid:
      return "notFound";
    default:
      return "opening";
  }
}
