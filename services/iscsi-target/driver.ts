/**
 * The seam between the protocol (`TargetCore`, sans-IO) and what moves bytes (a driver).
 *
 *   worker thread
 *   +----------------------------------------------------------------------------------+
 *   | driver: wait -> accept / receive -> [core] -> kick ring -> send -> wait ...      |
 *   |            received(id, buffer, start, end)   sent(id, bytes)   pollStore()      |
 *   | core:   PDUs in place -> BlockPort.submit ... completions -> rows in send queues |
 *   +----------------------------------------------------------------------------------+
 *
 * One batch of a driver:
 *
 *   1. wait for sockets, the store's ring and the wake handle, at most until the next tick;
 *   2. new connections: `core.accepted`; -1 means close it at once;
 *   3. each readable connection: receive after what is left over, `core.received`, keep the tail;
 *   4. `core.pollStore()` (it reaps completions and submits what waited for room);
 *   5. `core.endBatch()` (kicks the ring once);
 *   6. each connection the core named through `DriverHost.sendReady`: one sendmsg of its rows,
 *      then `core.sent(id, bytes)`;
 *   7. every `tickIntervalMs`: `core.tick(nowMs)`.
 *
 * Nothing here allocates per request: rows are int32s in memory both sides hold.
 */
import type { BlockPort } from "#lib/volume/block.ts";
import type { ApplyResult, ExportsPut, ExportsView, SessionsView, TargetStatus } from "./schema.ts";

/** Connections of one thread; ids are 0 .. maxConnections-1 and are used again after `closed`. */
export const maxConnections = 512;

/**
 * A connection's receive buffer must hold at least this much: the core consumes commands and any
 * part of their data at once, and leaves over at most one incomplete header, text or log-in PDU.
 */
export const receiveBufferMinBytes = 32 * 1024;

/** `core.tick` at least this often. */
export const tickIntervalMs = 250;

/** Memory that a row's offset counts in. */
export const SendArea = {
  /** `core.headers` */
  headers: 0,
  /** `port.payload` */
  payload: 1,
} as const;

/** Rows of one connection's send queue; a power of two. */
export const sendRows = 1024;
/** Int32s a row: area, offset, length. */
export const sendRowInts = 3;

/**
 * What a connection has to send, in order. Row i stands at
 * `rows[base + (i % sendRows) * sendRowInts]`; rows `head .. tail-1` are pending. The core moves
 * `tail` when it queues and, in `sent`, `head`; it also shortens a row of which a part was sent. A
 * driver only reads, so that there is one account of what may be used again.
 */
export interface SendQueues {
  readonly rows: Int32Array;
  /** Per connection id: index of the first pending row (wraps at 2^31: use `& 0x7fffffff`). */
  readonly heads: Int32Array;
  readonly tails: Int32Array;
}

/** Int32 index of the first int of row `row` of connection `id` in `SendQueues.rows`. */
export function sendRowIndex(id: number, row: number): number {
  return (id * sendRows + (row & (sendRows - 1))) * sendRowInts;
}

/** What the core asks of its driver. Called from within the core's methods; must not call back. */
export interface DriverHost {
  /** Connection `id` has rows to send; named once until its queue was empty. Send at batch end. */
  sendReady(id: number): void;
  /**
   * The core refused to consume more of `id` for want of room (`stalled`) and now has room: call
   * `received` again with what is left over, then go on receiving.
   */
  resume(id: number): void;
  /** Close `id`: after its pending rows have been sent if `drain`, else at once. Then `closed`. */
  close(id: number, drain: boolean): void;
}

/** The protocol, as a driver sees it. Implemented by `TargetCore` in target-core.ts. */
export interface DrivenCore {
  /** Headers and small answers of all connections: what rows of `SendArea.headers` point into. */
  readonly headers: Uint8Array;
  readonly queues: SendQueues;
  /** Registers a connection; addresses as `HOST:PORT`. -1: too many; close it. */
  accepted(remoteAddress: string, portal: string): number;
  /**
   * Bytes `start .. end-1` of `buffer` came in on `id`. Returns the index of the first byte not
   * consumed: keep `that .. end-1` and give it again, before what follows it. Never throws: bad
   * input ends in `DriverHost.close`. The core keeps no reference to `buffer`.
   */
  received(id: number, buffer: Uint8Array, start: number, end: number): number;
  /** True while `id` must not be read from (until `DriverHost.resume`). */
  stalled(id: number): boolean;
  /**
   * A driver may spare the copy of a write's data: while `directBytes(id)` > 0 and nothing is left
   * over, the next that many bytes of the stream belong at `directOffset(id)` of `port.payload`.
   * If it received some there, it says so with `receivedDirect` instead of `received`.
   */
  directBytes(id: number): number;
  directOffset(id: number): number;
  receivedDirect(id: number, bytes: number): void;
  /** The first `bytes` pending bytes of `id`'s queue have left; their memory is used again. */
  sent(id: number, bytes: number): void;
  /** The peer closed, the socket failed, or a close asked by the core is done. */
  closed(id: number): void;
  /** Reaps the store's completions; call it each batch. Returns how many there were. */
  pollStore(): number;
  /** Makes the batch's requests visible to the store. */
  endBatch(): void;
  /** Keep-alives, time-outs, reconnection. Monotonic milliseconds. */
  tick(nowMs: number): void;
}

export interface PortalAddress {
  readonly host: string;
  readonly port: number;
}

export interface Driver {
  readonly kind: "native" | "net";
  /**
   * Binds and starts serving; resolves with the real ports. PORT_IN_USE names the portal. The
   * promise settles before the first batch. Serving goes on until `stop`.
   */
  listen(portals: readonly PortalAddress[]): Promise<readonly PortalAddress[]>;
  /** The port has completions to reap, or reconnected: run a batch soon. Cheap to call often. */
  storeReady(): void;
  /** Stops accepting, closes every connection and resolves when the loop has ended. */
  stop(): Promise<void>;
}

/**
 * How a driver is made, from within the worker. The core needs its host at birth and the driver its
 * core, so the driver takes a function. `wakeHandle` is what `Wake.handle` was on the main thread:
 * when it fires, the driver returns to the thread's own event loop once (`setImmediate`), so that
 * messages of the control port are handled between two batches. A blocking driver does the same at
 * least each `tickIntervalMs`.
 *
 * net-driver.ts exports `createNetDriver: CreateDriver`, native-driver.ts `createNativeDriver`.
 */
export type CreateDriver = (options: {
  createCore(host: DriverHost): DrivenCore;
  payload: Uint8Array;
  /** What the core submits to; a native driver watches a `RingPort`'s own descriptors itself. */
  port: BlockPort;
  /**
   * Descriptor that is readable when the store has completions. Undefined when the port runs on
   * node's event loop (its fall-back over a socket): then `storeReady` is called instead.
   */
  storeHandle: number | undefined;
  wakeHandle: number | undefined;
}) => Driver;

/**
 * Main thread's end of the wake. The native one (`createNativeWake(): Wake | undefined` in
 * native-driver.ts) is an eventfd; without the addon there is none to make and node's own loop
 * needs none.
 */
export interface Wake {
  readonly handle: number;
  wake(): void;
  close(): void;
}

/** Main thread -> worker. */
export type ControlRequest =
  | { readonly type: "listen"; readonly portals: readonly PortalAddress[] }
  | { readonly type: "apply"; readonly put: ExportsPut }
  | { readonly type: "exports" }
  | { readonly type: "sessions" }
  | { readonly type: "status" }
  | { readonly type: "stop" };

/** What each request is answered with. */
export interface ControlAnswers {
  readonly listen: readonly string[];
  readonly apply: ApplyResult;
  readonly exports: ExportsView;
  readonly sessions: SessionsView;
  readonly status: Pick<TargetStatus, "driver" | "store" | "sessionCount" | "loginFailures">;
  readonly stop: null;
}
