/**
 * The store's end of one gateway connection, without its transport: the volumes it opened, the
 * check of everything it says, batches to the engine, flushes and FUA.
 *
 * Every number comes from another process that may have been taken over: a handle names only a
 * volume opened on this connection, and a run must lie inside of the payload and of the volume.
 */
import { parseVolumeId } from "#lib/model/ids.ts";
import {
  closeOperation,
  encodeOpened,
  openOperation,
  openVolumeId,
  Request,
  requestBytes,
  requestSector,
} from "#lib/wire/chunk/record.ts";
import { BlockFlag, BlockOp, BlockStatus, maxRequestBytes, sectorBytes } from "./block.ts";
import { type BlockBatch, type BlockExecutor, batchCapacity, createBatch } from "./executor.ts";

/** Volumes one connection may have open. */
export const maxOpenVolumes = 4096;

interface SessionVolume {
  readonly volume: number;
  readonly sectors: number;
  readonly readOnly: boolean;
}

export class StoreSession {
  readonly batch: BlockBatch = createBatch();
  /** Flushes the engine has not answered yet. */
  flushing = 0;
  private readonly tags = new Int32Array(batchCapacity);
  private readonly force = new Uint8Array(batchCapacity);
  private readonly executor: BlockExecutor;
  private readonly payloadBytes: number;
  private readonly complete: (tag: number, status: BlockStatus) => void;
  private readonly volumes: (SessionVolume | undefined)[] = [];
  private ended = false;

  /** `complete` queues a completion for the gateway; the transport makes them visible. */
  constructor(
    executor: BlockExecutor,
    payload: Uint8Array,
    payloadSlot: number,
    complete: (tag: number, status: BlockStatus) => void,
  ) {
    this.executor = executor;
    this.payloadBytes = payload.length;
    this.batch.payload = payload;
    this.batch.payloadSlot = payloadSlot;
    this.complete = complete;
  }

  /**
   * Takes the request at word `at`. Copies each field once before judging it: the gateway can
   * change shared memory in between.
   */
  take(words: Int32Array, at: number): void {
    const op = words[at + Request.operation];
    const handle = words[at + Request.handle];
    const tag = words[at + Request.tag];
    const lengthBytes = words[at + Request.lengthBytes] >>> 0;
    const sector = requestSector(words, at);
    const payloadOffset = words[at + Request.payloadOffset];
    const flags = words[at + Request.flags];
    const volume = this.volumes[handle];
    if (volume === undefined) {
      this.complete(tag, BlockStatus.badHandle);
      return;
    }
    if (op === BlockOp.flush) {
      this.run();
      this.flush(volume.volume, tag);
      return;
    }
    const status = this.judge(volume, op, sector, lengthBytes, payloadOffset, flags);
    if (status !== BlockStatus.ok) {
      this.complete(tag, status);
      return;
    }
    const { batch } = this;
    if (batch.count === batchCapacity) this.run();
    const row = batch.count++;
    batch.op[row] = op;
    batch.volume[row] = volume.volume;
    batch.sector[row] = sector;
    batch.lengthBytes[row] = lengthBytes;
    batch.payloadOffset[row] = payloadOffset;
    batch.status[row] = BlockStatus.invalid;
    this.tags[row] = tag;
    this.force[row] = op !== BlockOp.read ? flags & BlockFlag.forceUnitAccess : 0;
  }

  private judge(
    volume: SessionVolume,
    op: number,
    sector: number,
    lengthBytes: number,
    payloadOffset: number,
    flags: number,
  ): BlockStatus {
    const moves = op === BlockOp.read || op === BlockOp.write;
    if (!moves && op !== BlockOp.discard && op !== BlockOp.writeZeroes) return BlockStatus.invalid;
    if ((flags & ~BlockFlag.forceUnitAccess) !== 0) return BlockStatus.invalid;
    if (lengthBytes === 0 || lengthBytes % sectorBytes !== 0) return BlockStatus.invalid;
    if (sector < 0 || sector + lengthBytes / sectorBytes > volume.sectors) {
      return BlockStatus.outOfRange;
    }
    if (op !== BlockOp.read && volume.readOnly) return BlockStatus.readOnly;
    if (!moves) return BlockStatus.ok;
    const inside =
      lengthBytes <= maxRequestBytes &&
      payloadOffset >= 0 &&
      payloadOffset + lengthBytes <= this.payloadBytes;
    return inside ? BlockStatus.ok : BlockStatus.invalid;
  }

  /** Executes what was taken. */
  run(): void {
    const { batch, tags, force } = this;
    const { count } = batch;
    if (count === 0) return;
    this.executor.execute(batch);
    batch.count = 0;
    for (let row = 0; row < count; row++) {
      const status = batch.status[row] as BlockStatus;
      if (force[row] === 0 || status !== BlockStatus.ok) this.complete(tags[row], status);
      else this.flush(batch.volume[row], tags[row]);
    }
  }

  private flush(volume: number, tag: number): void {
    this.flushing++;
    this.executor.flush(volume, (status) => {
      this.flushing--;
      if (!this.ended) this.complete(tag, status);
    });
  }

  /** An open or close record from the socket; gives the answer to send, or undefined. */
  record(bytes: Uint8Array): Uint8Array | undefined {
    const view = new DataView(bytes.buffer, bytes.byteOffset, requestBytes);
    const operation = view.getInt32(0, true);
    if (operation === openOperation) return this.open(bytes, view.getInt32(8, true) & 0x7fffffff);
    if (operation === closeOperation) this.close(view.getInt32(4, true));
    return undefined;
  }

  private open(bytes: Uint8Array, token: number): Uint8Array {
    const refuse = (status: BlockStatus) =>
      encodeOpened({ token, status, handle: 0, readOnly: false, sizeBytes: 0 });
    const volumeId = parseVolumeId(openVolumeId(bytes));
    let handle = this.volumes.indexOf(undefined);
    if (handle < 0) handle = this.volumes.length;
    if (volumeId === undefined || handle >= maxOpenVolumes) return refuse(BlockStatus.invalid);
    const opened = this.executor.open(volumeId);
    if (typeof opened === "number") return refuse(opened);
    const { volume, sizeBytes, readOnly } = opened;
    this.volumes[handle] = { volume, sectors: sizeBytes / sectorBytes, readOnly };
    return encodeOpened({ token, status: BlockStatus.ok, handle, readOnly, sizeBytes });
  }

  private close(handle: number): void {
    const volume = this.volumes[handle];
    if (volume === undefined) return;
    this.volumes[handle] = undefined;
    this.executor.close(volume.volume);
  }

  /** The gateway is gone: closes its volumes; flushes under way are answered to nobody. */
  end(): void {
    if (this.ended) return;
    this.ended = true;
    this.batch.count = 0;
    for (let handle = 0; handle < this.volumes.length; handle++) this.close(handle);
  }
}
