/**
 * What the store's engine implements for the ring and for its fall-back.
 *
 *   ring worker                                engine
 *   open(volumeId)                       --->  volume index, size
 *   execute(batch)                       --->  reads and writes done when it returns
 *   flush(volume, done)                  --->  done(status) from a later `turn`
 *   turn()                               --->  calls what is finished, does a slice of upkeep
 *
 * All of it runs on one thread. The worker has already checked what came from the gateway: the
 * volume is open on that connection, the run lies inside the volume and inside the payload, writes
 * go to writable volumes only. The payload is shared with the gateway, which may change it at any
 * time: copy it, or checksum what was really written, where that matters.
 */
import type { VolumeId } from "#lib/model/ids.ts";
import type { Operation, Version, Writer } from "#lib/model/writer.ts";
import type { BlockOp, BlockStatus } from "./block.ts";

/** Requests of one batch, a column each; at most `batchCapacity`. Reused: keep no reference. */
export interface BlockBatch {
  count: number;
  /** `read`, `write`, `discard` or `writeZeroes`; flushes and FUA are the worker's to arrange. */
  readonly op: Uint8Array;
  /** The engine's volume index, from `open`. */
  readonly volume: Int32Array;
  /** First 512-byte sector. */
  readonly sector: Float64Array;
  /** Multiple of 512, above 0; at most `maxRequestBytes` for reads and writes. */
  readonly lengthBytes: Float64Array;
  /** Where the data lies in `payload`: reads and writes only. */
  readonly payloadOffset: Int32Array;
  /** Generation of the writer that asks, 0 if it claimed nothing: an older one is fenced. */
  readonly writer: Uint32Array;
  /** Version of a change; a sequence of 0: it has none. One that was done already is not done again. */
  readonly generation: Uint32Array;
  readonly sequence: Float64Array;
  /** Out: a `BlockStatus`, set for every request before `execute` returns. */
  readonly status: Int32Array;
  payload: Uint8Array;
  /**
   * The addon's slot of `payload` (for its row operations; offsets are the same), or -1: the
   * payload is then no memory of the addon's, and rows may name it as their `extra`.
   */
  payloadSlot: number;
}

export const batchCapacity = 256;

export function createBatch(): BlockBatch {
  return {
    count: 0,
    op: new Uint8Array(batchCapacity),
    volume: new Int32Array(batchCapacity),
    sector: new Float64Array(batchCapacity),
    lengthBytes: new Float64Array(batchCapacity),
    payloadOffset: new Int32Array(batchCapacity),
    writer: new Uint32Array(batchCapacity),
    generation: new Uint32Array(batchCapacity),
    sequence: new Float64Array(batchCapacity),
    status: new Int32Array(batchCapacity),
    payload: new Uint8Array(0),
    payloadSlot: -1,
  };
}

/** The op column's type, for a switch. */
export type BatchOp = Exclude<BlockOp, typeof BlockOp.flush | typeof BlockOp.history>;

export interface OpenedVolume {
  /** Small non-negative number that names the volume in batches, until `close`. */
  readonly volume: number;
  /** Multiple of 512. */
  readonly sizeBytes: number;
  readonly readOnly: boolean;
}

/** What a store knows of a volume's group. */
export interface GroupView {
  readonly writer: Writer;
  readonly version: Version;
  readonly flushed: Version;
}

export interface BlockExecutor {
  /** Opens a volume; several opens of one volume are allowed and counted. */
  open(volumeId: VolumeId): OpenedVolume | BlockStatus;
  close(volume: number): void;
  group(volume: number): GroupView;
  /**
   * Makes `wanted` the volume's writer, durably: generation 0 is the next one. `done` comes from a
   * later `turn`: what is granted, or `fenced` for one that is older than the one there is.
   */
  claim(volume: number, wanted: Writer, done: (granted: Writer | BlockStatus) => void): void;
  /** Operations of its group after the last flush of all members, oldest first. */
  history(volume: number): readonly Operation[];
  /** Every member of its group has everything up to `version` durable, as its `writer` says. */
  groupFlushed(volume: number, writer: number, version: Version): void;
  /**
   * Does the batch in order and sets each status; a later request of a batch sees the earlier
   * ones. Writes must have been handed to the kernel, data and log entry both, before it returns:
   * kill -9 right after may lose nothing of them. Never throws: a fault is a status.
   */
  execute(batch: BlockBatch): void;
  /**
   * Makes every write executed before this call durable, without blocking. `done` is called once,
   * from a later `turn`, never from within this call.
   */
  flush(volume: number, done: (status: BlockStatus) => void): void;
  /**
   * Readable when something finished outside the thread (a flush): the worker's loop watches it
   * and calls `turn`. -1 when there is none (no addon): `onFinished` is called instead.
   */
  readonly wakeFd: number;
  /** Without a `wakeFd`: the worker sets this; the engine calls it when `turn` has work. */
  onFinished?: () => void;
  /**
   * Calls back finished flushes, then does at most about a millisecond of upkeep (write-back of
   * dirty map pages, moving the tail, freeing). Gives the milliseconds until it wants to be called
   * again, 0 for "as soon as there is no request", -1 for "not before something happens".
   */
  turn(): number;
  /**
   * A message from the service's main thread: create, clone, delete, import, statistics. `answer`
   * is called once, now or from a later `turn`. `message` and `answer` must be structured-cloneable.
   */
  control(message: unknown, answer: (reply: unknown) => void): void;
  /** Syncs and closes the device; no call follows. */
  shutdown(): void;
}
