/**
 * A BlockPort over shared memory: requests and completions in a ring, payload beside it, eventfds
 * to wake a side that sleeps. Needs the addon.
 *
 * The gateway makes the memory, so that payload and outstanding writes survive the store; the store
 * makes the eventfds. `attach` lets a native loop watch the port; without one, `poll` looks by itself.
 */
import { KeelsonError } from "#lib/model/errors.ts";
import {
  completionWords,
  decodeHello,
  encodeHello,
  encodeRequest,
  helloBytes,
  Mode,
  protocolVersion,
  Refusal,
  refusalText,
  requestWords,
} from "#lib/wire/chunk/record.ts";
import { type RingLayout, RingWord, ringLayout } from "#lib/wire/chunk/ring.ts";
import { Errno, type Native, type NativeMemory, Poll } from "#native";
import type { BlockStatus } from "./block.ts";
import {
  defaultEntries,
  defaultPayloadBytes,
  GatewayPort,
  type PortOptions,
  RecordStream,
  reconnectMs,
  whyLost,
} from "./gateway-port.ts";

const edge = 1 << 31;
/** epoll's EPOLLET: a signal wakes once and need not be read. */
const doorbellEvents = (Poll.in | edge) >>> 0;
const noFds = new Int32Array(0);

export class RingPort extends GatewayPort {
  /** The addon's slot of the memory, which begins with `payload`. */
  readonly slot: number;
  private readonly native: Native;
  private readonly layout: RingLayout;
  private readonly memory: NativeMemory;
  private readonly words: Int32Array;
  private readonly stream = new RecordStream();
  private readonly passed = new Int32Array(2);
  private socket = -1;
  private storeDoorbell = -1;
  private ownDoorbell = -1;
  private greeted = false;
  private loop = -1;
  private token = 0;
  private retryAtMs = 0;
  private requestPosition = 0;
  private completionPosition = 0;
  private unpublished = false;
  private readonly onOpened = (record: Uint8Array) => this.openAnswered(record);

  constructor(native: Native, options: PortOptions) {
    const layout = ringLayout(
      options.entries ?? defaultEntries,
      options.payloadBytes ?? defaultPayloadBytes,
    );
    const memory = native.memoryCreate(layout.totalBytes, true);
    super(options, new Uint8Array(memory.buffer, 0, layout.payloadBytes));
    this.native = native;
    this.layout = layout;
    this.memory = memory;
    this.slot = memory.slot;
    this.words = new Int32Array(memory.buffer, layout.controlOffset, layout.controlBytes / 4);
    native.ringWatch(
      memory.slot,
      layout.controlOffset + RingWord.completionProducer,
      layout.controlOffset + RingWord.completionConsumer,
      layout.controlOffset + RingWord.gatewaySleeping,
    );
  }

  /** Has `loop` report under `token` when `poll` should be called. */
  attach(loop: number, token: number): void {
    this.loop = loop;
    this.token = token;
    this.watch(this.socket, Poll.in);
    this.watch(this.ownDoorbell, doorbellEvents);
  }

  private watch(fd: number, events: number): void {
    if (this.loop >= 0 && fd >= 0) this.native.loopSet(this.loop, fd, this.token, events);
  }

  /** Requests outstanding: a loop spins for the answer only while there are few. */
  get depth(): number {
    return this.outstanding.count;
  }

  /** Milliseconds until `poll` must be called though nothing was reported; -1 for never. */
  dueMs(): number {
    if (this.pending) return 0;
    return this.state === "waiting" && !this.greeted ? reconnectMs : -1;
  }

  protected transmit(row: number, remote: number, writer: number): boolean {
    const { outstanding, layout } = this;
    const at =
      layout.requestsOffset / 4 + (this.requestPosition & (layout.entries - 1)) * requestWords;
    encodeRequest(
      this.words,
      at,
      outstanding.operation[row],
      remote,
      outstanding.sector[row],
      outstanding.lengthBytes[row],
      outstanding.payloadOffset[row],
      outstanding.flags[row],
      row,
      writer,
      outstanding.generation[row],
      outstanding.sequence[row],
    );
    this.requestPosition = (this.requestPosition + 1) | 0;
    this.unpublished = true;
    return true;
  }

  kick(): void {
    if (!this.unpublished || this.storeDoorbell < 0) return;
    this.unpublished = false;
    Atomics.store(this.words, RingWord.requestProducer / 4, this.requestPosition);
    if (Atomics.exchange(this.words, RingWord.storeSleeping / 4, 0) === 1) {
      this.native.eventSignal(this.storeDoorbell);
    }
  }

  poll(complete: (tag: number, status: BlockStatus) => void): number {
    if (this.state === "connected") {
      const count = this.reap(complete);
      if (count > 0) return count + (this.pending ? this.callBack(complete) : 0);
    }
    this.listen(complete);
    return this.pending ? this.callBack(complete) : 0;
  }

  private reap(complete: (tag: number, status: BlockStatus) => void): number {
    const { words, layout } = this;
    const producer = Atomics.load(words, RingWord.completionProducer / 4);
    const available = (producer - this.completionPosition) >>> 0;
    if (available === 0) return 0;
    if (available > layout.entries) {
      this.disconnect("the store broke the ring's protocol");
      return 0;
    }
    const base = layout.completionsOffset / 4;
    for (let index = 0; index < available; index++) {
      const at = base + (this.completionPosition & (layout.entries - 1)) * completionWords;
      this.completionPosition = (this.completionPosition + 1) | 0;
      if (!this.completed(words[at], words[at + 1], complete)) {
        this.disconnect("the store completed a request that was not outstanding");
        return index;
      }
    }
    Atomics.store(words, RingWord.completionConsumer / 4, this.completionPosition);
    return available;
  }

  /** The socket's side: connecting, hello, opened volumes, the store's end. */
  private listen(complete: (tag: number, status: BlockStatus) => void): void {
    if (this.state === "closed") return;
    if (this.socket < 0) {
      const nowMs = performance.now();
      if (nowMs < this.retryAtMs) return;
      this.retryAtMs = nowMs + reconnectMs;
      this.connect();
      if (this.socket < 0) return;
    }
    try {
      for (;;) {
        const received = this.native.receiveMessage(this.socket, this.stream.room, this.passed);
        if (received === Errno.again) return;
        if (received <= 0) {
          // What the store completed before it died stands: it had done it.
          if (this.state === "connected") this.reap(complete);
          this.disconnect("the store closed the connection");
          return;
        }
        if (!this.greeted) this.greet(received);
        else this.stream.received(received, this.onOpened);
      }
    } catch (error) {
      this.disconnect(whyLost(error));
    }
  }

  private connect(): void {
    try {
      this.socket = this.native.unixConnect(this.path);
    } catch {
      return; // Not there yet: tried again.
    }
    this.greeted = false;
    this.stream.reset();
    this.words.fill(0);
    this.requestPosition = 0;
    this.completionPosition = 0;
    this.unpublished = false;
    const hello = encodeHello({
      version: protocolVersion,
      mode: Mode.ring,
      entries: this.layout.entries,
      payloadBytes: this.layout.payloadBytes,
      refusal: Refusal.none,
    });
    const sent = this.native.sendMessage(this.socket, hello, Int32Array.of(this.memory.fd));
    if (sent !== hello.length) this.disconnect("the hello could not be sent");
    else this.watch(this.socket, Poll.in);
  }

  private greet(received: number): void {
    const [first, second] = this.passed;
    const hello = received === helloBytes ? decodeHello(this.stream.room) : undefined;
    if (first < 0 || second < 0 || hello === undefined || hello.refusal !== Refusal.none) {
      for (const fd of this.passed) if (fd >= 0) this.native.close(fd);
      const reason = hello === undefined ? Refusal.magic : (hello.refusal as Refusal);
      throw new KeelsonError(
        "PROTOCOL",
        `The store refused: ${refusalText[reason] ?? `reason ${reason}`}.`,
        { object: this.path },
      );
    }
    this.greeted = true;
    this.storeDoorbell = first;
    this.ownDoorbell = second;
    this.watch(second, doorbellEvents);
    this.accepted();
  }

  protected sendRecord(record: Uint8Array): void {
    if (this.native.sendMessage(this.socket, record, noFds) !== record.length) {
      this.disconnect("the store does not take our records");
    }
  }

  private disconnect(why: string): void {
    for (const fd of [this.socket, this.storeDoorbell, this.ownDoorbell]) {
      if (fd >= 0) this.native.close(fd); // Closing also takes it out of the loop.
    }
    this.socket = -1;
    this.storeDoorbell = -1;
    this.ownDoorbell = -1;
    this.greeted = false;
    // Nothing can be in the ring now: the loop must not take the old positions for work.
    this.words.fill(0, 0, this.layout.requestsOffset / 4);
    this.requestPosition = 0;
    this.completionPosition = 0;
    this.lost(why);
  }

  end(): void {
    this.disconnect("closed");
    this.state = "closed";
    this.native.close(this.memory.fd);
    this.native.memoryRelease(this.slot);
  }
}
