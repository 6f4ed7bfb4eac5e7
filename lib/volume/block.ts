/**
 * Block requests between a gateway (iscsi-target) and a store (chunk-store).
 *
 *   gateway                                   store
 *   submit(read, handle, sector, ...)  ---->  executes into the shared payload area
 *   poll(complete)                     <----  completion(tag, status)
 *
 * Two transports implement this: a shared-memory ring with eventfds (addon), and a unix socket
 * with the payload inline (no addon). Both carry the same 64-byte request and 16-byte completion,
 * laid out in `lib/wire/chunk`.
 */
import type { VolumeId } from "#lib/model/ids.ts";
import type { Version, Writer } from "#lib/model/writer.ts";

export const BlockOp = {
  read: 1,
  write: 2,
  flush: 3,
  discard: 4,
  writeZeroes: 5,
  /** Reads what the volume's group did last, as `done` records; `sector` is the first one's number. */
  history: 6,
} as const;
export type BlockOp = (typeof BlockOp)[keyof typeof BlockOp];

/** Bits of a request's flags word. */
export const BlockFlag = { forceUnitAccess: 1 } as const;

export const BlockStatus = {
  ok: 0,
  /** No free block: the write was not done, what stood before still reads. */
  noSpace: 1,
  /** A checksum did not match, or the device gave an error. */
  mediaError: 2,
  outOfRange: 3,
  /** An older writer generation or group epoch. */
  fenced: 4,
  /** The store saw a failed flush and retired itself. */
  storeFailed: 5,
  badHandle: 6,
  readOnly: 7,
  invalid: 8,
  /** Not of a store: the connection was lost before it answered. */
  lost: 9,
} as const;
export type BlockStatus = (typeof BlockStatus)[keyof typeof BlockStatus];

export const sectorBytes = 512;
export const blockBytes = 4096;
export const chunkBytes = 1 << 20;

/** Largest payload of one request. */
export const maxRequestBytes = 1 << 20;

export interface OpenVolume {
  readonly volumeId: VolumeId;
  /** Names the volume in requests of this connection. */
  readonly handle: number;
  readonly sizeBytes: number;
  readonly readOnly: boolean;
  /** Of its writer: what was claimed, or who has it. */
  readonly generation: number;
  /** The last operation of its group that this store did, and up to which all members flushed. */
  readonly version: Version;
  readonly flushed: Version;
  /** It has a part of the operation after that version. */
  readonly partly: boolean;
}

/** The port's own id is the writer's. */
export type Claim = Omit<Writer, "id">;

/** The next generation, of a volume on one store. */
export const nextWriter: Claim = { generation: 0, groupEpoch: 0 };

/**
 * The gateway's end. Synchronous and single-threaded; never allocates per request.
 * When the store restarts, the port reconnects, opens its volumes again and submits again what was
 * outstanding (repeating a write is harmless: none was acknowledged): callers only see a delay.
 */
export interface BlockPort {
  /** Payload of reads and writes; shared with the store under the ring transport. */
  readonly payload: Uint8Array;
  /** Offset of a free run in `payload`, or -1 when there is none now. */
  allocate(lengthBytes: number): number;
  release(payloadOffset: number, lengthBytes: number): void;
  /**
   * Queues a request. `sector` counts 512-byte sectors, `lengthBytes` is a multiple of 512, `tag`
   * is the caller's (0 .. 2^31-1). `version` numbers a change of a group's volume; with a flush, up
   * to it every member is durable. False when the ring is full: try again after `poll`.
   */
  submit(
    op: BlockOp,
    handle: number,
    sector: number,
    lengthBytes: number,
    payloadOffset: number,
    flags: number,
    tag: number,
    version?: Version,
  ): boolean;
  /** Makes queued requests visible and wakes the store if it sleeps; once a batch. */
  kick(): void;
  /** Reaps completions; returns how many. */
  poll(complete: (tag: number, status: BlockStatus) => void): number;
  /**
   * Opens a volume; the callback comes from within a later `poll`. With a claim it is to be written:
   * who claimed it before is `fenced` from then on.
   */
  open(volumeId: VolumeId, done: (result: OpenVolume | BlockStatus) => void, claim?: Claim): void;
  close(handle: number): void;
  readonly connected: boolean;
  /** How often the connection was lost. */
  readonly losses: number;
}
