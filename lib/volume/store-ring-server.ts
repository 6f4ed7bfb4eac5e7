/**
 * Serves a store's executor in a loop of its own over the addon: rings first, inline connections
 * too. `turn` is one round: wait, sockets, rings, engine. The caller calls it until it has enough,
 * so that the thread's own messages can be handled between rounds.
 */
import {
  decodeHello,
  encodeHello,
  type Hello,
  helloBytes,
  judgeHello,
  Mode,
  protocolVersion,
  Refusal,
  requestBytes,
} from "#lib/wire/chunk/record.ts";
import { ringLayout } from "#lib/wire/chunk/ring.ts";
import { Errno, type Native, Poll } from "#native";
import type { BlockExecutor } from "./executor.ts";
import { InlineSession } from "./inline-session.ts";
import { RingSession } from "./ring-session.ts";
import { SpinPolicy } from "./spin.ts";

/** Gateways of one store. */
const maxConnections = 64;
/** A peer that lets this many bytes of answers pile up does not read: it is cut off. */
const maxPilingBytes = 64 << 20;
const edge = 1 << 31;
const listenToken = 0;
const wakeToken = 1;
/** The engine's eventfd and the rings' doorbells only end the wait: each round looks at them all. */
const silentToken = 2;
const firstConnectionToken = 16;
const noFds = new Int32Array(0);

interface Connection {
  readonly socket: number;
  readonly token: number;
  hello: Uint8Array;
  ring: RingSession | undefined;
  inline: InlineSession | undefined;
  /** Records of a ring connection's socket that came in part. */
  rest: Uint8Array;
  readonly output: Uint8Array[];
  outputBytes: number;
  storeDoorbell: number;
  gatewayDoorbell: number;
}

export class StoreRingServer {
  private readonly native: Native;
  private readonly executor: BlockExecutor;
  private readonly loop: number;
  private readonly events = new Int32Array(2 * 64);
  private readonly listener: number;
  private readonly connections = new Map<number, Connection>();
  private readonly rings: Connection[] = [];
  private readonly doomed: Connection[] = [];
  private readonly input = new Uint8Array(1 << 18);
  private readonly passed = new Int32Array(2);
  private nextToken = firstConnectionToken;
  private readonly spin = new SpinPolicy();
  private idleSinceMs = 0;
  private engineWaitMs = 0;

  /**
   * `path` must not exist. `wakeFd` (-1: none) is an eventfd by which another thread ends a wait.
   * Throws what the addon throws: EADDRINUSE, EACCES ...
   */
  constructor(native: Native, executor: BlockExecutor, path: string, wakeFd = -1) {
    this.native = native;
    this.executor = executor;
    this.loop = native.loopCreate();
    this.listener = native.unixListen(path, 0o660);
    native.loopSet(this.loop, this.listener, listenToken, Poll.in);
    if (wakeFd >= 0) native.loopSet(this.loop, wakeFd, wakeToken, (Poll.in | edge) >>> 0);
    if (executor.wakeFd >= 0) {
      native.loopSet(this.loop, executor.wakeFd, silentToken, Poll.in);
    }
  }

  /** One round; waits at most `timeoutMs` (up to a second). True if the wake-up was signalled. */
  turn(timeoutMs: number): boolean {
    const { events } = this;
    const waitMs = this.engineWaitMs < 0 ? timeoutMs : Math.min(timeoutMs, this.engineWaitMs);
    const count = this.native.loopWait(this.loop, events, waitMs, this.spin.budgetUs);
    const waitedUs = (performance.now() - this.idleSinceMs) * 1000;
    let woken = false;
    for (let index = 0; index < count; index++) {
      const token = events[2 * index];
      if (token === wakeToken) woken = true;
      else if (token === listenToken) this.accept();
      else {
        const connection = this.connections.get(token);
        if (connection !== undefined) this.ready(connection, events[2 * index + 1]);
      }
    }
    const done = this.serveRings();
    this.turnEngine();
    if (done > 0) {
      this.spin.observe(done, waitedUs);
      this.idleSinceMs = performance.now();
    }
    while (this.doomed.length > 0) this.drop(this.doomed.pop()!);
    return woken;
  }

  private serveRings(): number {
    let done = 0;
    for (let index = this.rings.length - 1; index >= 0; index--) {
      const connection = this.rings[index];
      const served = connection.ring!.serve();
      if (served < 0) this.drop(connection);
      else done += served;
    }
    return done;
  }

  private turnEngine(): void {
    this.engineWaitMs = this.executor.turn();
    for (const { ring } of this.rings) ring!.publish();
  }

  private accept(): void {
    for (;;) {
      const socket = this.native.accept(this.listener);
      if (socket < 0) return;
      const token = this.nextToken++;
      const connection: Connection = {
        socket,
        token,
        hello: new Uint8Array(0),
        ring: undefined,
        inline: undefined,
        rest: new Uint8Array(0),
        output: [],
        outputBytes: 0,
        storeDoorbell: -1,
        gatewayDoorbell: -1,
      };
      this.connections.set(token, connection);
      this.native.loopSet(this.loop, socket, token, Poll.in);
    }
  }

  private ready(connection: Connection, bits: number): void {
    try {
      if ((bits & Poll.out) !== 0) this.flushOutput(connection);
      if ((bits & ~Poll.out) === 0) return;
      const received = this.native.receiveMessage(connection.socket, this.input, this.passed);
      if (received === Errno.again) return;
      if (received <= 0) {
        this.drop(connection);
        return;
      }
      const bytes = this.input.subarray(0, received);
      if (connection.inline !== undefined) connection.inline.received(bytes);
      else if (connection.ring !== undefined) this.records(connection, bytes);
      else this.greet(connection, bytes);
    } catch {
      this.drop(connection);
    }
  }

  /** Opens and closes of a ring connection. Other records don't belong on its socket. */
  private records(connection: Connection, bytes: Uint8Array): void {
    // What stands in the ring was put before this record: a close must not overtake it.
    if (connection.ring!.serve() < 0) throw new RangeError("ring");
    const all = Buffer.concat([connection.rest, bytes]);
    let at = 0;
    for (; all.length - at >= requestBytes; at += requestBytes) {
      connection.ring!.session.record(all.subarray(at, at + requestBytes));
    }
    connection.rest = all.subarray(at);
  }

  private greet(connection: Connection, bytes: Uint8Array): void {
    const [memory] = this.passed;
    const close = () => {
      for (const fd of this.passed) if (fd >= 0) this.native.close(fd);
      this.passed.fill(-1);
    };
    // The hello is one message; whoever splits it, or sends more before the answer, is no gateway.
    const asked = bytes.length === helloBytes ? decodeHello(bytes) : undefined;
    let refusal = judgeHello(asked, [Mode.ring, Mode.inline]);
    if (refusal === Refusal.none && this.connections.size > maxConnections) refusal = Refusal.busy;
    if (refusal === Refusal.none && asked!.mode === Mode.ring && memory < 0) {
      refusal = Refusal.mode;
    }
    const answer = encodeHello({
      version: protocolVersion,
      mode: asked?.mode ?? 0,
      entries: asked?.entries ?? 0,
      payloadBytes: asked?.payloadBytes ?? 0,
      refusal,
    });
    if (refusal !== Refusal.none) {
      close();
      this.native.sendMessage(connection.socket, answer, noFds);
      this.drop(connection);
    } else if (asked!.mode === Mode.inline) {
      close();
      connection.inline = new InlineSession(this.executor, (part) => this.send(connection, part));
      this.send(connection, answer);
    } else {
      try {
        this.openRing(connection, asked!, memory, answer);
      } finally {
        close();
      }
    }
  }

  private openRing(connection: Connection, asked: Hello, fd: number, answer: Uint8Array): void {
    const { native } = this;
    const layout = ringLayout(asked.entries, asked.payloadBytes);
    const memory = native.memoryMap(fd, layout.totalBytes);
    connection.storeDoorbell = native.eventCreate();
    connection.gatewayDoorbell = native.eventCreate();
    connection.ring = new RingSession(
      native,
      this.executor,
      memory,
      layout,
      connection.gatewayDoorbell,
      (record) => this.send(connection, record),
    );
    this.rings.push(connection);
    native.loopSet(this.loop, connection.storeDoorbell, silentToken, (Poll.in | edge) >>> 0);
    const fds = Int32Array.of(connection.storeDoorbell, connection.gatewayDoorbell);
    if (native.sendMessage(connection.socket, answer, fds) !== answer.length) {
      throw new RangeError("hello");
    }
  }

  private send(connection: Connection, bytes: Uint8Array): void {
    connection.output.push(bytes);
    connection.outputBytes += bytes.length;
    // This may run within the engine: the connection is dropped only once that has returned.
    try {
      if (connection.output.length === 1) this.flushOutput(connection);
      if (connection.outputBytes > maxPilingBytes) this.doomed.push(connection);
    } catch {
      this.doomed.push(connection);
    }
  }

  private flushOutput(connection: Connection): void {
    const { output } = connection;
    while (output.length > 0) {
      const sent = this.native.sendMessage(connection.socket, output[0], noFds);
      if (sent === Errno.again) break;
      if (sent < 0) throw new RangeError("socket");
      connection.outputBytes -= sent;
      if (sent === output[0].length) output.shift();
      else output[0] = output[0].subarray(sent);
    }
    const events = output.length > 0 ? Poll.in | Poll.out : Poll.in;
    this.native.loopSet(this.loop, connection.socket, connection.token, events);
  }

  private drop(connection: Connection): void {
    if (!this.connections.delete(connection.token)) return;
    const index = this.rings.indexOf(connection);
    if (index >= 0) this.rings.splice(index, 1);
    connection.ring?.end();
    connection.inline?.end();
    for (const fd of [connection.socket, connection.storeDoorbell, connection.gatewayDoorbell]) {
      if (fd >= 0) this.native.close(fd);
    }
  }

  /** Gateways connected now. */
  get connectionCount(): number {
    return this.connections.size;
  }

  stop(): void {
    for (const connection of [...this.connections.values()]) this.drop(connection);
    this.native.close(this.listener);
    this.native.close(this.loop);
  }
}
