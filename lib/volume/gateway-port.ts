/**
 * What both transports of a BlockPort share: the payload area, the outstanding requests, the
 * volumes, and what happens when the store goes away and comes back.
 *
 *   waiting --hello accepted--> opening --all volumes answered--> connected
 *      ^                                                            |
 *      +---------------------- connection lost ---------------------+
 *
 * A request submitted while not connected is kept and sent on connection; those that the lost
 * store had not completed are sent again, in the order of their submission.
 */
import { isKeelsonError, KeelsonError } from "#lib/model/errors.ts";
import type { VolumeId } from "#lib/model/ids.ts";
import { noVersion, type Version } from "#lib/model/writer.ts";
import {
  completionBytes,
  decodeOpened,
  encodeClose,
  encodeOpen,
  openedBytes,
} from "#lib/wire/chunk/record.ts";
import { type BlockOp, type BlockPort, BlockStatus, type Claim, type OpenVolume } from "./block.ts";
import { Outstanding, SentState } from "./outstanding.ts";
import { PayloadArea } from "./payload.ts";

export interface PortOptions {
  /** The store's ring socket. */
  readonly path: string;
  /** Requests that may be outstanding, a power of two; default 1024. */
  readonly entries?: number;
  /** Bytes of payload, whole MiB; default 32 MiB. */
  readonly payloadBytes?: number;
  /**
   * With the connection its volumes are closed, and what was outstanding ends as `lost`: for a
   * caller that has more to say to a store that comes back.
   */
  readonly failsWhenLost?: boolean;
  /** Told when the connection is made or lost, with why: for the log. */
  readonly onChange?: (connected: boolean, why: string) => void;
}

export const defaultEntries = 1024;
export const defaultPayloadBytes = 32 << 20;
export const reconnectMs = 20;

const noHandle = -1;

type OpenCallback = (result: OpenVolume | BlockStatus) => void;

interface PortVolume {
  readonly volumeId: VolumeId;
  /** The store's handle on this connection; -1 before it answered. */
  remote: number;
  /** Undefined once called. */
  done: OpenCallback | undefined;
  /** The store refused it when it was opened again. */
  refused: BlockStatus;
  open: boolean;
  /** Closed by a lost connection. */
  lost: boolean;
  /** To be written: with the generation that was granted, once one was. */
  claim: Claim | undefined;
}

export type PortState = "waiting" | "opening" | "connected" | "closed";

export abstract class GatewayPort implements BlockPort {
  readonly payload: Uint8Array;
  readonly path: string;
  protected readonly outstanding: Outstanding;
  protected readonly area: PayloadArea;
  protected state: PortState = "waiting";
  /** As a writer: a store tells by it who has a volume already. */
  private readonly id: readonly [number, number];
  private readonly onChange: (connected: boolean, why: string) => void;
  private readonly failsWhenLost: boolean;
  /** The caller's handles: index is the handle. */
  private readonly volumes: PortVolume[] = [];
  private opening = 0;
  /** Answers to opens that the next `poll` tells. */
  private readonly opened: {
    readonly volume: PortVolume;
    readonly done: OpenCallback;
    readonly result: OpenVolume | BlockStatus;
  }[] = [];
  /** Rows that the port itself completes: their volume is gone, or the connection. */
  private readonly refused: { readonly row: number; readonly status: BlockStatus }[] = [];
  private unsent = false;
  losses = 0;

  constructor(options: PortOptions, payload: Uint8Array) {
    this.path = options.path;
    this.payload = payload;
    this.outstanding = new Outstanding(options.entries ?? defaultEntries);
    this.area = new PayloadArea(payload.length);
    const id = crypto.getRandomValues(new Uint32Array(2));
    this.id = [id[0], id[1]];
    this.onChange = options.onChange ?? (() => {});
    this.failsWhenLost = options.failsWhenLost ?? false;
  }

  /** Sends a record on the connection's socket. */
  protected abstract sendRecord(record: Uint8Array): void;
  /** Hands row `row` over with the store's handle `remote`; false when there is no room now. */
  protected abstract transmit(row: number, remote: number, writer: number): boolean;
  abstract kick(): void;
  abstract poll(complete: (tag: number, status: BlockStatus) => void): number;

  get connected(): boolean {
    return this.state === "connected";
  }

  allocate(lengthBytes: number): number {
    return this.area.allocate(lengthBytes);
  }

  release(payloadOffset: number, lengthBytes: number): void {
    this.area.release(payloadOffset, lengthBytes);
  }

  submit(
    op: BlockOp,
    handle: number,
    sector: number,
    lengthBytes: number,
    payloadOffset: number,
    flags: number,
    tag: number,
    version: Version = noVersion,
  ): boolean {
    const { outstanding } = this;
    const row = outstanding.add();
    if (row < 0) return false;
    outstanding.operation[row] = op;
    outstanding.handle[row] = handle;
    outstanding.sector[row] = sector;
    outstanding.lengthBytes[row] = lengthBytes;
    outstanding.payloadOffset[row] = payloadOffset;
    outstanding.flags[row] = flags;
    outstanding.tag[row] = tag;
    outstanding.generation[row] = version.generation;
    outstanding.sequence[row] = version.sequence;
    const volume = this.volumes[handle];
    // Its number may be another volume's by the time there is a connection again.
    if (this.failsWhenLost && volume?.lost === true) this.refuse(row, BlockStatus.lost);
    else if (this.state === "connected") this.send(row);
    return true;
  }

  private send(row: number): void {
    const volume = this.volumes[this.outstanding.handle[row]];
    if (volume === undefined || !volume.open || volume.remote === noHandle) {
      this.refuse(row, refusalOf(volume));
    } else if (this.transmit(row, volume.remote, volume.claim?.generation ?? 0))
      this.outstanding.sent[row] = SentState.sent;
    else this.unsent = true;
  }

  private refuse(row: number, status: BlockStatus): void {
    this.refused.push({ row, status });
    this.outstanding.sent[row] = SentState.answered;
  }

  /** Sends what found no room, in order. */
  protected sendWaiting(): void {
    if (!this.unsent || this.state !== "connected") return;
    this.unsent = false;
    const { outstanding } = this;
    for (let row = outstanding.first; row >= 0; row = outstanding.next[row]) {
      if (outstanding.sent[row] !== SentState.waiting) continue;
      this.send(row);
      if (this.unsent) return;
    }
  }

  open(volumeId: VolumeId, done: OpenCallback, claim?: Claim): void {
    // A handle is used again only when no answer is due that might be meant for its former volume.
    let handle = this.opening > 0 ? -1 : this.volumes.findIndex((volume) => !volume.open);
    if (handle < 0) handle = this.volumes.length;
    this.volumes[handle] = {
      volumeId,
      remote: noHandle,
      done,
      refused: BlockStatus.ok,
      open: true,
      lost: false,
      claim,
    };
    if (this.state === "connected" || this.state === "opening") this.askOpen(handle);
  }

  close(handle: number): void {
    const volume = this.volumes[handle];
    if (volume === undefined || !volume.open) return;
    volume.open = false;
    volume.done = undefined;
    if (this.state === "connected" && volume.remote !== noHandle) {
      this.sendRecord(encodeClose(volume.remote));
    }
    volume.remote = noHandle;
  }

  private askOpen(handle: number): void {
    this.opening++;
    const { volumeId, claim } = this.volumes[handle];
    const writer = claim === undefined ? undefined : { ...claim, id: this.id };
    this.sendRecord(encodeOpen(volumeId, handle, writer));
  }

  /** The store accepted the hello. */
  protected accepted(): void {
    this.state = "opening";
    this.opening = 0;
    for (let handle = 0; handle < this.volumes.length; handle++) {
      if (this.volumes[handle].open) this.askOpen(handle);
    }
    if (this.opening === 0) this.ready();
  }

  /** An opened record of the store. PROTOCOL when it answers what nobody asked. */
  protected openAnswered(record: Uint8Array): void {
    const answer = decodeOpened(record);
    const volume = this.volumes[answer.token];
    if (volume === undefined || this.opening === 0) {
      throw new KeelsonError("PROTOCOL", `The store answered an open (${answer.token}) not asked.`);
    }
    this.opening--;
    if (!volume.open) {
      if (answer.status === BlockStatus.ok) this.sendRecord(encodeClose(answer.handle));
    } else {
      const good = answer.status === BlockStatus.ok;
      const status = answer.status as BlockStatus;
      volume.remote = good ? answer.handle : noHandle;
      volume.refused = status;
      if (good && volume.claim !== undefined) {
        volume.claim = { ...volume.claim, generation: answer.readOnly ? 0 : answer.generation };
      }
      const { done } = volume;
      volume.done = undefined;
      if (done !== undefined) {
        if (!good) volume.open = false;
        const { token: handle, readOnly, sizeBytes, generation, version, flushed, partly } = answer;
        const { volumeId } = volume;
        const known = { generation, version, flushed, partly };
        const result = { volumeId, handle, sizeBytes, readOnly, ...known };
        this.opened.push({ volume, done, result: good ? result : status });
      }
    }
    if (this.state === "opening" && this.opening === 0) this.ready();
  }

  private ready(): void {
    this.state = "connected";
    this.unsent = true;
    this.onChange(true, "connected");
    this.sendWaiting();
    this.kick();
  }

  /** The connection is gone: everything outstanding waits for the next. */
  protected lost(why: string): void {
    const was = this.state;
    if (was === "closed") return;
    this.losses++;
    this.state = "waiting";
    this.opening = 0;
    for (const volume of this.volumes) volume.remote = noHandle;
    const { outstanding } = this;
    for (let row = outstanding.first; row >= 0; row = outstanding.next[row]) {
      if (outstanding.sent[row] === SentState.sent) outstanding.sent[row] = SentState.waiting;
    }
    if (this.failsWhenLost) this.failAll();
    if (was === "connected") this.onChange(false, why);
  }

  private failAll(): void {
    const { outstanding } = this;
    // What its caller does not know of yet is asked for again.
    for (const { volume, done } of this.opened.splice(0)) {
      volume.open = true;
      volume.done = done;
    }
    for (const volume of this.volumes) {
      if (!volume.open || volume.done !== undefined) continue;
      volume.open = false;
      volume.lost = true;
    }
    for (let row = outstanding.first; row >= 0; row = outstanding.next[row]) {
      if (outstanding.sent[row] !== SentState.waiting) continue;
      this.refuse(row, BlockStatus.lost);
    }
  }

  /** Completes row `row`; false when the store names one that isn't outstanding. */
  protected completed(
    row: number,
    status: number,
    complete: (tag: number, status: BlockStatus) => void,
  ): boolean {
    const { outstanding } = this;
    if (!outstanding.has(row) || outstanding.sent[row] === SentState.waiting) {
      return false;
    }
    const tag = outstanding.tag[row];
    outstanding.remove(row);
    complete(tag, status as BlockStatus);
    return true;
  }

  /** Calls back opens and what the port refuses by itself. Returns completions made. */
  protected callBack(complete: (tag: number, status: BlockStatus) => void): number {
    for (let next = this.opened.shift(); next !== undefined; next = this.opened.shift()) {
      next.done(next.result);
    }
    let count = 0;
    while (this.refused.length > 0) {
      const { row, status } = this.refused.shift()!;
      this.completed(row, status, complete);
      count++;
    }
    return count;
  }

  /** True when `poll` has something to say that no descriptor tells of. */
  get pending(): boolean {
    return this.opened.length > 0 || this.refused.length > 0;
  }

  /** Ends the connection for good; outstanding requests are never completed. */
  abstract end(): void;
}

function refusalOf(volume: PortVolume | undefined): BlockStatus {
  if (volume?.lost === true) return BlockStatus.lost;
  if (volume?.open === true && volume.refused === BlockStatus.fenced) return BlockStatus.fenced;
  return BlockStatus.badHandle;
}

/** Records of a store's stream: gives each whole one, keeps the rest. */
export class RecordStream {
  private readonly buffer = new Uint8Array(1 << 16);
  private used = 0;

  /** Where to receive next. */
  get room(): Uint8Array {
    return this.buffer.subarray(this.used);
  }

  reset(): void {
    this.used = 0;
  }

  /** Opened records only (ring mode): anything else is a breach of the protocol. */
  received(bytes: number, opened: (record: Uint8Array) => void): void {
    this.used += bytes;
    let at = 0;
    const view = new DataView(this.buffer.buffer);
    while (this.used - at >= completionBytes) {
      if (view.getInt32(at, true) >= 0) {
        throw new KeelsonError("PROTOCOL", "The store sent a completion outside of the ring.");
      }
      if (this.used - at < openedBytes) break;
      opened(this.buffer.subarray(at, at + openedBytes));
      at += openedBytes;
    }
    this.buffer.copyWithin(0, at, this.used);
    this.used -= at;
  }
}

export function whyLost(error: unknown): string {
  if (isKeelsonError(error)) return error.message;
  return error instanceof Error ? error.message : String(error);
}
