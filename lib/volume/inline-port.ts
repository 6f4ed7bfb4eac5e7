/**
 * A BlockPort over a unix socket on Node's own event loop, payload inline: for where the addon is
 * missing. Slower, same promises.
 */
import { connect } from "node:net";
import { KeelsonError } from "#lib/model/errors.ts";
import {
  completionBytes,
  decodeHello,
  encodeHello,
  encodeRequest,
  helloBytes,
  Mode,
  openedBytes,
  protocolVersion,
  Refusal,
  refusalText,
  requestBytes,
} from "#lib/wire/chunk/record.ts";
import { BlockOp, BlockStatus } from "./block.ts";
import {
  defaultEntries,
  defaultPayloadBytes,
  GatewayPort,
  type PortOptions,
  reconnectMs,
  whyLost,
} from "./gateway-port.ts";
import { SentState } from "./outstanding.ts";

/** What of a socket the port needs. */
export interface InlineSocket {
  write(bytes: Uint8Array): unknown;
  destroy(): unknown;
  on(event: "connect" | "close", listener: () => void): unknown;
  on(event: "data", listener: (chunk: Uint8Array) => void): unknown;
  on(event: "error", listener: (error: Error) => void): unknown;
}

/** Where connections and time come from. */
export interface Surroundings {
  connect(path: string): InlineSocket;
  /** Runs it later, unless what it gives is called before. */
  later(run: () => void, milliseconds: number): () => void;
}

const nodeSurroundings: Surroundings = {
  connect,
  later(run, milliseconds) {
    const timer = setTimeout(run, milliseconds);
    return () => clearTimeout(timer);
  },
};

export interface InlinePortOptions extends PortOptions {
  /** Default: Node's sockets and timers. */
  readonly surroundings?: Surroundings;
  /** Called when `poll` has something to reap. */
  readonly onReady: () => void;
}

export class InlinePort extends GatewayPort {
  private readonly onReady: () => void;
  private readonly entries: number;
  private socket: InlineSocket | undefined;
  private cancelRetry: () => void = () => {};
  private readonly surroundings: Surroundings;
  private greeted = false;
  /** An incomplete record. */
  private readonly head = new Uint8Array(helloBytes);
  private headUsed = 0;
  /** The read whose payload comes in, and how much of it has. */
  private filling = -1;
  private filled = 0;
  private readonly answers: number[] = [];

  constructor(options: InlinePortOptions) {
    super(options, new Uint8Array(options.payloadBytes ?? defaultPayloadBytes));
    this.entries = options.entries ?? defaultEntries;
    this.onReady = options.onReady;
    this.surroundings = options.surroundings ?? nodeSurroundings;
    this.connect();
  }

  private connect(): void {
    const socket = this.surroundings.connect(this.path);
    this.socket = socket;
    this.greeted = false;
    this.headUsed = 0;
    this.filling = -1;
    let why = "the store closed the connection";
    socket.on("connect", () =>
      socket.write(
        encodeHello({
          version: protocolVersion,
          mode: Mode.inline,
          entries: this.entries,
          payloadBytes: this.payload.length,
          refusal: Refusal.none,
        }),
      ),
    );
    socket.on("data", (chunk) => {
      try {
        this.received(chunk);
      } catch (error) {
        why = whyLost(error);
        socket.destroy();
      }
    });
    socket.on("error", (error) => {
      why = error.message;
    });
    socket.on("close", () => {
      if (this.socket !== socket) return;
      this.socket = undefined;
      this.lost(why);
      if (this.state === "closed") return;
      this.cancelRetry = this.surroundings.later(() => this.connect(), reconnectMs);
    });
  }

  private received(chunk: Uint8Array): void {
    let at = 0;
    while (at < chunk.length) {
      if (this.filling >= 0) {
        at = this.fill(chunk, at);
        continue;
      }
      const wanted = this.recordBytes();
      const take = Math.min(wanted - this.headUsed, chunk.length - at);
      this.head.set(chunk.subarray(at, at + take), this.headUsed);
      this.headUsed += take;
      at += take;
      // A completion's first word says whether it is longer: ask again once it is there.
      if (this.headUsed === wanted && this.recordBytes() === wanted) this.record();
    }
    if (this.answers.length > 0 || this.pending) this.onReady();
  }

  private recordBytes(): number {
    if (!this.greeted) return helloBytes;
    const opened = this.headUsed >= completionBytes && this.head[3] >= 0x80;
    return opened ? openedBytes : completionBytes;
  }

  private record(): void {
    this.headUsed = 0;
    if (!this.greeted) {
      const hello = decodeHello(this.head);
      if (hello === undefined || hello.refusal !== Refusal.none) {
        const reason = hello === undefined ? Refusal.magic : (hello.refusal as Refusal);
        throw new KeelsonError(
          "PROTOCOL",
          `The store refused: ${refusalText[reason] ?? `reason ${reason}`}.`,
        );
      }
      this.greeted = true;
      this.accepted();
      return;
    }
    const view = new DataView(this.head.buffer);
    const row = view.getInt32(0, true);
    if (row < 0) {
      this.openAnswered(this.head);
      return;
    }
    const status = view.getUint32(4, true);
    const { outstanding } = this;
    if (!outstanding.has(row) || outstanding.sent[row] !== SentState.sent) {
      throw new KeelsonError("PROTOCOL", "The store completed a request that was not outstanding.");
    }
    const operation = outstanding.operation[row];
    const reads = operation === BlockOp.read || operation === BlockOp.history;
    if (reads && status === BlockStatus.ok) {
      this.filling = row;
      this.filled = 0;
    } else this.answer(row, status);
  }

  private fill(chunk: Uint8Array, at: number): number {
    const row = this.filling;
    const { lengthBytes, payloadOffset } = this.outstanding;
    const take = Math.min(lengthBytes[row] - this.filled, chunk.length - at);
    this.payload.set(chunk.subarray(at, at + take), payloadOffset[row] + this.filled);
    this.filled += take;
    if (this.filled === lengthBytes[row]) {
      this.filling = -1;
      this.answer(row, BlockStatus.ok);
    }
    return at + take;
  }

  private answer(row: number, status: number): void {
    this.outstanding.sent[row] = SentState.answered;
    this.answers.push(row, status);
  }

  poll(complete: (tag: number, status: BlockStatus) => void): number {
    let count = this.pending ? this.callBack(complete) : 0;
    // `complete` may submit, which may not answer at once: the list only shrinks here.
    const answers = this.answers.splice(0);
    for (let index = 0; index < answers.length; index += 2) {
      if (this.completed(answers[index], answers[index + 1], complete)) count++;
    }
    return count;
  }

  protected transmit(row: number, remote: number, writer: number): boolean {
    const { outstanding } = this;
    const header = new Int32Array(requestBytes / 4);
    encodeRequest(
      header,
      0,
      outstanding.operation[row],
      remote,
      outstanding.sector[row],
      outstanding.lengthBytes[row],
      0,
      outstanding.flags[row],
      row,
      writer,
      outstanding.generation[row],
      outstanding.sequence[row],
    );
    this.socket?.write(new Uint8Array(header.buffer));
    if (outstanding.operation[row] === BlockOp.write) {
      const offset = outstanding.payloadOffset[row];
      this.socket?.write(this.payload.subarray(offset, offset + outstanding.lengthBytes[row]));
    }
    return true;
  }

  kick(): void {
    // What the port completes by itself has no event of its own.
    if (this.pending) this.surroundings.later(this.onReady, 0);
  }

  protected sendRecord(record: Uint8Array): void {
    this.socket?.write(record);
  }

  end(): void {
    this.cancelRetry();
    const { socket } = this;
    this.socket = undefined;
    this.lost("closed");
    this.state = "closed";
    socket?.destroy();
  }
}
