/**
 * The driver over the addon: one thread that blocks in epoll and on the store's ring, and moves the
 * bytes of all ready connections in one call a batch each way.
 *
 *   wait -> accept -> receive rows -> core -> ring -> send rows -> (every 250 ms: event loop)
 *
 * A connection has one receive buffer in the addon's memory; what the core leaves over is moved to
 * its front. Large writes are received straight into the payload that the store reads from.
 */
import { explainError, KeelsonError } from "#lib/model/errors.ts";
import { RingPort } from "#lib/volume/ring-port.ts";
import { SpinPolicy } from "#lib/volume/spin.ts";
import { Errno, native as loadedNative, type Native, Poll, Row } from "#native";
import {
  type CreateDriver,
  type DrivenCore,
  type Driver,
  type DriverHost,
  maxConnections,
  type PortalAddress,
  receiveBufferMinBytes,
  SendArea,
  sendRowIndex,
  tickIntervalMs,
  type Wake,
} from "./driver.ts";

const bufferBytes = 4 * receiveBufferMinBytes;
/** From this much on a write's data is received in place; below, the copy is cheaper. */
const directMinBytes = 16 * 1024;
const partsPerSend = 128;
/** A connection that should send its last rows and close is cut after this long. */
const drainLimitMs = 5000;
/**
 * While the store has this many requests to work on, the driver waits for its answers alone, so
 * that initiators' commands pile up and are received in one go: they come one at a time, and a
 * wake-up for each would cost more than the request.
 */
const enoughDepth = 4;
/** But for no longer than this. */
const deferMs = 1;
const edge = 1 << 31;

const wakeToken = 0;
const storeToken = 1;
const firstListenerToken = 2;
const firstConnectionToken = 256;

/** A batch of rows to run; grown once, then kept. */
class RowList {
  words = new Int32Array(1024 * Row.words);
  count = 0;

  add(operation: number, fd: number, slot: number, offset: number, length: number): number {
    const at = this.count * Row.words;
    if (at === this.words.length) {
      const grown = new Int32Array(2 * this.words.length);
      grown.set(this.words);
      this.words = grown;
    }
    const { words } = this;
    words[at] = operation;
    words[at + 1] = fd;
    words[at + 2] = slot;
    words[at + 3] = offset;
    words[at + 4] = length;
    this.count++;
    return at;
  }
}

/** Slot of rows that mean `core.headers`: the extra memory of `rowsRun`. */
const headersSlot = -1;

class NativeDriver implements Driver, DriverHost {
  readonly kind = "native";
  private readonly native: Native;
  private readonly core: DrivenCore;
  private readonly port: RingPort;
  private readonly loop: number;
  /** The store and the wake: a loop of its own within `loop`, to be waited for alone. */
  private readonly storeLoop: number;
  private readonly events = new Int32Array(2 * 128);
  private readonly rows = new RowList();
  private readonly receiveSlot: number;
  private readonly receiveBuffer: Uint8Array;
  private readonly buffers: Uint8Array[] = [];
  /** Per connection: descriptor (-1: none), bytes left over, epoll bits, direct bytes of the row. */
  private readonly fds = new Int32Array(maxConnections).fill(-1);
  private readonly left = new Int32Array(maxConnections);
  private readonly watched = new Int32Array(maxConnections);
  private readonly direct = new Int32Array(maxConnections);
  private readonly rowOf = new Int32Array(maxConnections);
  /** 1 while the socket's buffer is full. */
  private readonly blocked = new Uint8Array(maxConnections);
  /** 1 while in `ready`. */
  private readonly queued = new Uint8Array(maxConnections);
  /** When a draining connection is cut; 0: not draining. */
  private readonly drainUntilMs = new Float64Array(maxConnections);
  private readonly readable: number[] = [];
  private readonly ready: number[] = [];
  private readonly sending: number[] = [];
  private readonly resumes: number[] = [];
  private readonly closes: number[] = [];
  private draining = 0;
  private readonly listeners: { fd: number; portal: string }[] = [];
  private woken = false;
  private started = false;
  private stopping: (() => void) | undefined;
  private nextTickMs = 0;
  private readonly spin = new SpinPolicy();

  constructor(
    native: Native,
    port: RingPort,
    createCore: (host: DriverHost) => DrivenCore,
    wakeHandle: number | undefined,
  ) {
    this.native = native;
    this.port = port;
    const memory = native.memoryCreate(maxConnections * bufferBytes, false);
    this.receiveSlot = memory.slot;
    this.receiveBuffer = new Uint8Array(memory.buffer);
    for (let id = 0; id < maxConnections; id++) {
      this.buffers.push(this.receiveBuffer.subarray(id * bufferBytes, (id + 1) * bufferBytes));
    }
    this.loop = native.loopCreate();
    this.storeLoop = native.loopCreate();
    native.loopSet(this.loop, this.storeLoop, storeToken, Poll.in);
    port.attach(this.storeLoop, storeToken);
    if (wakeHandle !== undefined) {
      native.loopSet(this.storeLoop, wakeHandle, wakeToken, (Poll.in | edge) >>> 0);
    }
    this.core = createCore(this);
  }

  // ---- host --------------------------------------------------------------------------------

  sendReady(id: number): void {
    if (this.blocked[id] === 0) this.sendSoon(id);
  }

  /** Queues `id` for the next send, once: twice in one batch would send the same bytes twice. */
  private sendSoon(id: number): void {
    if (this.queued[id] === 1) return;
    this.queued[id] = 1;
    this.ready.push(id);
  }

  resume(id: number): void {
    this.resumes.push(id);
  }

  close(id: number, drain: boolean): void {
    if (drain && this.fds[id] >= 0 && this.hasRows(id)) {
      if (this.drainUntilMs[id] === 0) this.draining++;
      this.drainUntilMs[id] = performance.now() + drainLimitMs;
    } else this.closes.push(id);
  }

  // ---- driver ------------------------------------------------------------------------------

  async listen(portals: readonly PortalAddress[]): Promise<readonly PortalAddress[]> {
    const bound: PortalAddress[] = [];
    for (const { host, port } of portals) {
      let fd: number;
      try {
        fd = this.native.tcpListen(host, port, 512);
      } catch (cause) {
        const text = `${host}:${port}`;
        throw new KeelsonError("PORT_IN_USE", `Cannot listen on ${text}: ${explainError(cause)}.`, {
          operation: "listen",
          object: text,
          remedy: "End what uses it, or give another --portal.",
          cause,
        });
      }
      const portal = this.native.localAddress(fd);
      const token = firstListenerToken + this.listeners.length;
      this.listeners.push({ fd, portal });
      this.native.loopSet(this.loop, fd, token, Poll.in);
      bound.push({ host, port: Number(portal.slice(portal.lastIndexOf(":") + 1)) });
    }
    if (!this.started) {
      this.started = true;
      setImmediate(() => this.slice());
    }
    return bound;
  }

  storeReady(): void {}

  stop(): Promise<void> {
    return new Promise((resolve) => {
      this.stopping = resolve;
      if (!this.started) this.finish();
    });
  }

  private finish(): void {
    for (let id = 0; id < maxConnections; id++) if (this.fds[id] >= 0) this.closeNow(id);
    for (const { fd } of this.listeners) this.native.close(fd);
    this.native.close(this.loop);
    this.native.close(this.storeLoop);
    this.native.memoryRelease(this.receiveSlot);
    this.stopping?.();
  }

  /** Batches until it is time for the thread's own event loop. */
  private slice(): void {
    if (this.stopping !== undefined) {
      this.finish();
      return;
    }
    const endMs = performance.now() + tickIntervalMs;
    this.woken = false;
    for (let nowMs = 0; !this.woken && nowMs < endMs; ) {
      this.batch();
      nowMs = performance.now();
      if (nowMs >= this.nextTickMs) {
        this.nextTickMs = nowMs + tickIntervalMs;
        this.core.tick(nowMs);
        this.cutDrained(nowMs);
        this.endBatch();
      }
    }
    setImmediate(() => this.slice());
  }

  private batch(): void {
    const { port } = this;
    if (port.connected && port.depth >= enoughDepth) {
      this.takeStore(deferMs);
      this.take(this.native.loopWait(this.loop, this.events, 0, 0));
    } else this.waitForAll();
    if (this.readable.length > 0) this.receive();
    this.core.pollStore();
    this.endBatch();
  }

  private waitForAll(): void {
    const { port } = this;
    const dueMs = port.dueMs();
    const waitMs = dueMs >= 0 && dueMs < tickIntervalMs ? dueMs : tickIntervalMs;
    // Only the store's answer is worth a spin: what an initiator does next is not known to be soon.
    const waitsForStore = port.depth > 0 && port.connected;
    const startMs = waitsForStore ? performance.now() : 0;
    const spinUs = waitsForStore ? this.spin.budgetUs : 0;
    this.take(this.native.loopWait(this.loop, this.events, waitMs, spinUs));
    if (waitsForStore) this.spin.observe(port.depth, (performance.now() - startMs) * 1000);
  }

  /** Clears what the store's own loop has to report; the ring itself is looked at each batch. */
  private takeStore(waitMs: number): void {
    const count = this.native.loopWait(this.storeLoop, this.events, waitMs, 0);
    for (let index = 0; index < count; index++) {
      if (this.events[2 * index] === wakeToken) this.woken = true;
    }
  }

  private take(count: number): void {
    const { events } = this;
    let store = false;
    for (let index = 0; index < count; index++) {
      const token = events[2 * index];
      if (token >= firstConnectionToken) {
        this.connectionReady(token - firstConnectionToken, events[2 * index + 1]);
      } else if (token >= firstListenerToken)
        this.accept(this.listeners[token - firstListenerToken]);
      else store = true;
    }
    if (store) this.takeStore(0);
  }

  /** What the core asked for: room to go on, requests out, answers out, connections closed. */
  private endBatch(): void {
    while (this.resumes.length > 0) this.deliver(this.resumes.pop()!, 0);
    this.core.endBatch();
    while (this.ready.length > 0) this.sendAll();
    while (this.closes.length > 0) this.closeNow(this.closes.pop()!);
    if (this.resumes.length > 0) this.core.endBatch();
  }

  private accept(listener: { fd: number; portal: string }): void {
    for (;;) {
      const fd = this.native.accept(listener.fd);
      if (fd < 0) return;
      let id = -1;
      try {
        const portal = this.native.localAddress(fd);
        id = this.core.accepted(this.native.peerAddress(fd), portal);
      } catch {
        // It was gone before it was looked at.
      }
      if (id < 0) {
        this.native.close(fd);
        continue;
      }
      this.fds[id] = fd;
      this.left[id] = 0;
      this.watched[id] = 0;
      this.blocked[id] = 0;
      this.drainUntilMs[id] = 0;
      this.watch(id, Poll.in);
    }
  }

  private watch(id: number, events: number): void {
    if (this.watched[id] === events) return;
    this.watched[id] = events;
    // Without an event asked for, epoll still reports errors and hang-ups.
    const bits = events === 0 ? Poll.error : events;
    this.native.loopSet(this.loop, this.fds[id], firstConnectionToken + id, bits);
  }

  private connectionReady(id: number, bits: number): void {
    if (this.fds[id] < 0) return;
    if ((bits & Poll.out) !== 0 && this.blocked[id] === 1) {
      this.blocked[id] = 0;
      this.sendSoon(id);
    }
    if ((bits & (Poll.in | Poll.hangUp | Poll.error)) === 0) return;
    if ((this.watched[id] & Poll.in) !== 0) this.readable.push(id);
    else if ((bits & (Poll.hangUp | Poll.error)) !== 0) this.closes.push(id);
  }

  private receive(): void {
    const { rows, readable, core } = this;
    rows.count = 0;
    for (let index = 0; index < readable.length; index++) {
      const id = readable[index];
      const left = this.left[id];
      const directBytes = left === 0 ? core.directBytes(id) : 0;
      const fd = this.fds[id];
      if (directBytes >= directMinBytes) {
        this.direct[id] = directBytes;
        this.rowOf[id] = rows.add(
          Row.receive | Row.more,
          fd,
          this.port.slot,
          core.directOffset(id),
          directBytes,
        );
        rows.add(Row.receive, fd, this.receiveSlot, id * bufferBytes, bufferBytes);
      } else {
        this.direct[id] = 0;
        const offset = id * bufferBytes + left;
        this.rowOf[id] = rows.add(Row.receive, fd, this.receiveSlot, offset, bufferBytes - left);
      }
    }
    this.native.rowsRun(rows.words, rows.count);
    for (let index = 0; index < readable.length; index++) this.received(readable[index]);
    readable.length = 0;
  }

  private received(id: number): void {
    let result = this.rows.words[this.rowOf[id] + 7];
    if (result === Errno.again) return;
    if (result <= 0) {
      this.closes.push(id);
      return;
    }
    const direct = this.direct[id];
    if (direct > 0) {
      const placed = Math.min(direct, result);
      this.core.receivedDirect(id, placed);
      result -= placed;
      if (result === 0) return;
    }
    this.deliver(id, result);
  }

  /** Gives the core what is left over and `bytes` more; stops reading when it can take no more. */
  private deliver(id: number, bytes: number): void {
    if (this.fds[id] < 0) return;
    const end = this.left[id] + bytes;
    const buffer = this.buffers[id];
    const taken = end > 0 ? this.core.received(id, buffer, 0, end) : 0;
    if (taken > 0 && taken < end) buffer.copyWithin(0, taken, end);
    this.left[id] = end - taken;
    const full = this.left[id] === bufferBytes;
    const stalled = this.core.stalled(id);
    if (full && !stalled) this.closes.push(id); // Nothing in iSCSI is that long: not our protocol.
    this.watch(id, (stalled ? 0 : Poll.in) | (this.blocked[id] === 1 ? Poll.out : 0));
  }

  private hasRows(id: number): boolean {
    return this.core.queues.heads[id] !== this.core.queues.tails[id];
  }

  /** One vectored send for each connection that has rows. */
  private sendAll(): void {
    const { rows, ready, sending, core } = this;
    rows.count = 0;
    sending.length = 0;
    for (let index = 0; index < ready.length; index++) {
      const id = ready[index];
      this.queued[id] = 0;
      if (this.fds[id] >= 0 && this.hasRows(id)) {
        this.addSend(id);
        sending.push(id);
      }
    }
    ready.length = 0;
    if (sending.length === 0) return;
    this.native.rowsRun(rows.words, rows.count, core.headers);
    for (let index = 0; index < sending.length; index++) this.sent(sending[index]);
  }

  private addSend(id: number): void {
    const { rows, core } = this;
    const { heads, tails } = core.queues;
    const head = heads[id];
    const count = Math.min((tails[id] - head) & 0x7fffffff, partsPerSend);
    for (let part = 0; part < count; part++) {
      const from = sendRowIndex(id, head + part);
      const queue = core.queues.rows;
      const slot = queue[from] === SendArea.payload ? this.port.slot : headersSlot;
      const operation = part + 1 < count ? Row.send | Row.more : Row.send;
      const at = rows.add(operation, this.fds[id], slot, queue[from + 1], queue[from + 2]);
      if (part === 0) this.rowOf[id] = at;
    }
  }

  private sent(id: number): void {
    const result = this.rows.words[this.rowOf[id] + 7];
    if (result > 0) this.core.sent(id, result);
    else if (result !== Errno.again) {
      this.closes.push(id);
      return;
    }
    if (this.fds[id] < 0) return;
    if (!this.hasRows(id)) {
      if ((this.watched[id] & Poll.out) !== 0) this.watch(id, this.watched[id] & Poll.in);
      if (this.drainUntilMs[id] > 0) this.closes.push(id);
    } else if (result === Errno.again) {
      this.blocked[id] = 1;
      this.watch(id, this.watched[id] | Poll.out);
    } else this.sendSoon(id);
  }

  private cutDrained(nowMs: number): void {
    if (this.draining === 0) return;
    for (let id = 0; id < maxConnections; id++) {
      if (this.drainUntilMs[id] > 0 && nowMs > this.drainUntilMs[id]) this.closes.push(id);
    }
  }

  private closeNow(id: number): void {
    if (this.fds[id] < 0) return;
    this.native.close(this.fds[id]); // Also takes it out of the loop.
    this.fds[id] = -1;
    this.left[id] = 0;
    if (this.drainUntilMs[id] > 0) this.draining--;
    this.drainUntilMs[id] = 0;
    this.core.closed(id);
  }
}

/** Needs the addon and a `RingPort`; INTERNAL otherwise. */
export const createNativeDriver: CreateDriver = ({ createCore, port, wakeHandle }) => {
  if (loadedNative === undefined || !(port instanceof RingPort)) {
    throw new KeelsonError("INTERNAL", "The native driver needs the addon and a ring.");
  }
  return new NativeDriver(loadedNative, port, createCore, wakeHandle);
};

/** An eventfd that ends the driver's wait; undefined without the addon. */
export function createNativeWake(): Wake | undefined {
  if (loadedNative === undefined) return undefined;
  const native = loadedNative;
  const handle = native.eventCreate();
  return {
    handle,
    wake: () => {
      native.eventSignal(handle);
    },
    close: () => native.close(handle),
  };
}
