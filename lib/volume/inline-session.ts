/** The store's end of an inline connection, sans-IO: bytes in, completions and payload out. */
import { KeelsonError } from "#lib/model/errors.ts";
import {
  closeOperation,
  decodeHello,
  encodeCompletion,
  encodeHello,
  helloBytes,
  judgeHello,
  Mode,
  openOperation,
  protocolVersion,
  Refusal,
  Request,
  requestBytes,
} from "#lib/wire/chunk/record.ts";
import { BlockOp, BlockStatus, maxRequestBytes } from "./block.ts";
import type { BlockExecutor } from "./executor.ts";
import { StoreSession } from "./store-session.ts";

export class InlineSession {
  private readonly session: StoreSession;
  private readonly send: (bytes: Uint8Array) => void;
  private readonly payload = new Uint8Array(maxRequestBytes);
  private readonly head = new Uint8Array(requestBytes);
  private readonly words = new Int32Array(this.head.buffer);
  private headUsed = 0;
  private payloadWanted = 0;
  private payloadUsed = 0;
  /** Length of the read being executed: its completion carries payload. */
  private readingBytes = 0;

  constructor(executor: BlockExecutor, send: (bytes: Uint8Array) => void) {
    this.send = send;
    this.session = new StoreSession(
      executor,
      this.payload,
      -1,
      (tag, status) => this.complete(tag, status),
      send,
    );
  }

  /** Takes what came in; PROTOCOL when it can't be understood: end the connection then. */
  received(chunk: Uint8Array): void {
    let at = 0;
    while (at < chunk.length) {
      const inHead = this.headUsed < requestBytes;
      const wanted = inHead ? requestBytes - this.headUsed : this.payloadWanted - this.payloadUsed;
      const take = Math.min(wanted, chunk.length - at);
      const part = chunk.subarray(at, at + take);
      at += take;
      if (inHead) {
        this.head.set(part, this.headUsed);
        this.headUsed += take;
        if (this.headUsed === requestBytes) this.beginRecord();
      } else {
        this.payload.set(part, this.payloadUsed);
        this.payloadUsed += take;
        if (this.payloadUsed === this.payloadWanted) this.request();
      }
    }
  }

  private beginRecord(): void {
    const operation = this.words[Request.operation];
    if (operation === openOperation || operation === closeOperation) {
      this.headUsed = 0;
      this.session.record(this.head);
      return;
    }
    const lengthBytes = this.words[Request.lengthBytes] >>> 0;
    this.payloadWanted = operation === BlockOp.write ? lengthBytes : 0;
    this.payloadUsed = 0;
    if (this.payloadWanted > maxRequestBytes) {
      throw new KeelsonError("PROTOCOL", `A gateway sent a write of ${lengthBytes} bytes.`);
    }
    if (this.payloadWanted === 0) this.request();
  }

  private request(): void {
    this.headUsed = 0;
    const { words } = this;
    // Tags below 0 are answers to opens.
    words[Request.tag] &= 0x7fffffff;
    words[Request.payloadOffset] = 0;
    const operation = words[Request.operation];
    const reads = operation === BlockOp.read || operation === BlockOp.history;
    this.readingBytes = reads ? words[Request.lengthBytes] >>> 0 : 0;
    this.session.take(words, 0);
    this.session.run();
    this.readingBytes = 0;
  }

  private complete(tag: number, status: BlockStatus): void {
    this.send(encodeCompletion(tag, status));
    if (this.readingBytes > 0 && status === BlockStatus.ok) {
      this.send(this.payload.slice(0, this.readingBytes));
    }
  }

  end(): void {
    this.session.end();
  }
}

/** From the first byte on: the hello, then the session. For stores that know no other mode. */
export class InlineConnection {
  private readonly executor: BlockExecutor;
  private readonly send: (bytes: Uint8Array) => void;
  private readonly refused: () => void;
  private hello: Uint8Array = new Uint8Array(0);
  private session: InlineSession | undefined;

  /** `refused`: the gateway has been told why; nothing more is said. */
  constructor(executor: BlockExecutor, send: (bytes: Uint8Array) => void, refused: () => void) {
    this.executor = executor;
    this.send = send;
    this.refused = refused;
  }

  /** PROTOCOL when it can't be understood: end the connection then. */
  received(chunk: Uint8Array): void {
    if (this.session !== undefined) {
      this.session.received(chunk);
      return;
    }
    this.hello = Buffer.concat([this.hello, chunk]);
    if (this.hello.length < helloBytes) return;
    const asked = decodeHello(this.hello);
    const refusal = judgeHello(asked, [Mode.inline]);
    this.send(
      encodeHello({
        version: protocolVersion,
        mode: Mode.inline,
        entries: asked?.entries ?? 0,
        payloadBytes: asked?.payloadBytes ?? 0,
        refusal,
      }),
    );
    if (refusal !== Refusal.none) {
      this.hello = new Uint8Array(0);
      this.refused();
      return;
    }
    this.session = new InlineSession(this.executor, this.send);
    const rest = this.hello.subarray(helloBytes);
    if (rest.length > 0) this.session.received(rest);
  }

  end(): void {
    this.session?.end();
  }
}
