/**
 * The store's end of one gateway connection, without its transport: the volumes it opened, the
 * check of everything it says, batches to the engine, flushes and FUA.
 *
 * Every number comes from another process that may have been taken over: a handle names only a
 * volume opened on this connection, and a run must lie inside of the payload and of the volume.
 */
import { parseVolumeId } from "#lib/model/ids.ts";
import { noVersion, type Writer } from "#lib/model/writer.ts";
import {
  closeOperation,
  doneBytes,
  encodeDone,
  encodeOpened,
  openClaim,
  openOperation,
  openVolumeId,
  Request,
  requestBytes,
  requestSector,
  requestSequence,
} from "#lib/wire/chunk/record.ts";
import { BlockFlag, BlockOp, BlockStatus, maxRequestBytes, sectorBytes } from "./block.ts";
import {
  type BlockBatch,
  type BlockExecutor,
  batchCapacity,
  createBatch,
  type OpenedVolume,
} from "./executor.ts";

/** Volumes one connection may have open. */
export const maxOpenVolumes = 4096;

interface SessionVolume {
  readonly volume: number;
  readonly sectors: number;
  readonly readOnly: boolean;
  /** Claimed on this connection; 0: nothing. */
  readonly generation: number;
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
  private readonly answer: (record: Uint8Array) => void;
  private readonly volumes: (SessionVolume | undefined)[] = [];
  /** Opens whose claim the engine has not granted yet. */
  private claiming = 0;
  private ended = false;

  /**
   * `complete` queues a completion for the gateway; the transport makes them visible. `answer` sends
   * a record on the socket, perhaps from within the engine.
   */
  constructor(
    executor: BlockExecutor,
    payload: Uint8Array,
    payloadSlot: number,
    complete: (tag: number, status: BlockStatus) => void,
    answer: (record: Uint8Array) => void,
  ) {
    this.executor = executor;
    this.payloadBytes = payload.length;
    this.batch.payload = payload;
    this.batch.payloadSlot = payloadSlot;
    this.complete = complete;
    this.answer = answer;
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
    const writer = words[at + Request.writer] >>> 0;
    const generation = words[at + Request.generation] >>> 0;
    const sequence = requestSequence(words, at);
    if (op === BlockOp.flush) {
      this.run();
      if (sequence !== 0 && writer !== 0 && writer === volume.generation) {
        this.executor.groupFlushed(volume.volume, writer, { generation, sequence });
      }
      this.flush(volume.volume, tag);
      return;
    }
    const own = writer === volume.generation;
    const status = own
      ? this.judge(volume, op, sector, lengthBytes, payloadOffset, flags)
      : BlockStatus.fenced;
    if (status !== BlockStatus.ok) {
      this.complete(tag, status);
      return;
    }
    if (op === BlockOp.history) {
      this.run();
      this.history(volume.volume, sector, payloadOffset, lengthBytes);
      this.complete(tag, BlockStatus.ok);
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
    batch.writer[row] = writer;
    batch.generation[row] = generation;
    batch.sequence[row] = sequence;
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
    const moves = op === BlockOp.read || op === BlockOp.write || op === BlockOp.history;
    if (!moves && op !== BlockOp.discard && op !== BlockOp.writeZeroes) return BlockStatus.invalid;
    if ((flags & ~BlockFlag.forceUnitAccess) !== 0) return BlockStatus.invalid;
    if (lengthBytes === 0 || lengthBytes % sectorBytes !== 0) return BlockStatus.invalid;
    const end = op === BlockOp.history ? 0 : sector + lengthBytes / sectorBytes;
    if (sector < 0 || end > volume.sectors) return BlockStatus.outOfRange;
    const reads = op === BlockOp.read || op === BlockOp.history;
    if (!reads && volume.readOnly) return BlockStatus.readOnly;
    if (!moves) return BlockStatus.ok;
    const inside =
      lengthBytes <= maxRequestBytes &&
      payloadOffset >= 0 &&
      payloadOffset + lengthBytes <= this.payloadBytes;
    return inside ? BlockStatus.ok : BlockStatus.invalid;
  }

  private history(volume: number, first: number, payloadOffset: number, lengthBytes: number): void {
    const { payload } = this.batch;
    const room = lengthBytes / doneBytes;
    const some = this.executor.history(volume).slice(first, first + room);
    for (const [i, done] of some.entries())
      encodeDone(payload, payloadOffset + i * doneBytes, done);
    payload.fill(0, payloadOffset + some.length * doneBytes, payloadOffset + lengthBytes);
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

  /** An open or close record from the socket. */
  record(bytes: Uint8Array): void {
    const view = new DataView(bytes.buffer, bytes.byteOffset, requestBytes);
    const operation = view.getInt32(0, true);
    if (operation === openOperation) this.open(bytes, view.getInt32(8, true) & 0x7fffffff);
    else if (operation === closeOperation) this.close(view.getInt32(4, true));
  }

  private open(bytes: Uint8Array, token: number): void {
    const volumeId = parseVolumeId(openVolumeId(bytes));
    const claim = openClaim(bytes);
    const open = this.volumes.filter((volume) => volume !== undefined).length;
    if (volumeId === undefined || open + this.claiming >= maxOpenVolumes) {
      this.refuse(token, BlockStatus.invalid);
      return;
    }
    const opened = this.executor.open(volumeId);
    if (typeof opened === "number") this.refuse(token, opened);
    else if (claim === undefined || opened.readOnly) this.opened(token, opened, 0);
    else this.claim(token, opened, claim);
  }

  private claim(token: number, opened: OpenedVolume, claim: Writer): void {
    this.claiming++;
    this.executor.claim(opened.volume, claim, (granted) => {
      this.claiming--;
      const good = typeof granted === "object";
      if (good && !this.ended) this.opened(token, opened, granted.generation);
      else {
        this.executor.close(opened.volume);
        if (!good && !this.ended) this.refuse(token, granted);
      }
    });
  }

  private opened(token: number, opened: OpenedVolume, generation: number): void {
    const { volume, sizeBytes, readOnly } = opened;
    let handle = this.volumes.indexOf(undefined);
    if (handle < 0) handle = this.volumes.length;
    this.volumes[handle] = { volume, sectors: sizeBytes / sectorBytes, readOnly, generation };
    const { writer, version, flushed } = this.executor.group(volume);
    this.answer(
      encodeOpened({
        ...{ token, status: BlockStatus.ok, handle, readOnly, sizeBytes, version, flushed },
        ...{ generation: writer.generation, groupEpoch: writer.groupEpoch },
        partly: this.executor.history(volume).at(-1)?.partly ?? false,
      }),
    );
  }

  private refuse(token: number, status: BlockStatus): void {
    this.answer(
      encodeOpened({
        ...{ token, status, handle: 0, readOnly: false, sizeBytes: 0 },
        ...{ generation: 0, groupEpoch: 0, version: noVersion, flushed: noVersion, partly: false },
      }),
    );
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
