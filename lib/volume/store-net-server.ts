/** Serves a store's executor on Node's own event loop, inline mode only: without the addon. */
import { chmodSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { KeelsonError } from "#lib/model/errors.ts";
import {
  decodeHello,
  encodeHello,
  helloBytes,
  judgeHello,
  Mode,
  protocolVersion,
  Refusal,
} from "#lib/wire/chunk/record.ts";
import type { BlockExecutor } from "./executor.ts";
import { InlineSession } from "./inline-session.ts";

export class StoreNetServer {
  private readonly executor: BlockExecutor;
  private readonly server: Server;
  private readonly sockets = new Set<Socket>();
  private timer: NodeJS.Timeout | undefined;
  private turning = false;
  private stopped = false;

  constructor(executor: BlockExecutor) {
    this.executor = executor;
    this.server = createServer((socket) => this.serve(socket));
    executor.onFinished = () => this.turnSoon();
  }

  /** `path` must not exist. PORT_IN_USE when it can't be bound. */
  listen(path: string): Promise<void> {
    return new Promise((resolve, reject) => {
      this.server.once("error", (cause) =>
        reject(
          new KeelsonError("PORT_IN_USE", `Cannot listen on ${path}: ${cause.message}.`, {
            operation: "listen",
            object: path,
            cause,
          }),
        ),
      );
      this.server.listen(path, () => {
        chmodSync(path, 0o660);
        resolve();
      });
    });
  }

  /** Has the executor do what is due; call it after a control message too. */
  turnSoon(): void {
    if (this.turning || this.stopped) return;
    this.turning = true;
    setImmediate(() => {
      this.turning = false;
      if (this.stopped) return;
      clearTimeout(this.timer);
      const waitMs = this.executor.turn();
      if (waitMs === 0) this.turnSoon();
      else if (waitMs > 0) this.timer = setTimeout(() => this.turnSoon(), waitMs);
    });
  }

  private serve(socket: Socket): void {
    this.sockets.add(socket);
    let hello: Uint8Array = new Uint8Array(0);
    let session: InlineSession | undefined;
    const greet = (chunk: Uint8Array): Uint8Array => {
      hello = Buffer.concat([hello, chunk]);
      if (hello.length < helloBytes) return new Uint8Array(0);
      const asked = decodeHello(hello);
      const refusal = judgeHello(asked, [Mode.inline]);
      socket.write(
        encodeHello({
          version: protocolVersion,
          mode: Mode.inline,
          entries: asked?.entries ?? 0,
          payloadBytes: asked?.payloadBytes ?? 0,
          refusal,
        }),
      );
      if (refusal !== Refusal.none) {
        socket.end();
        return new Uint8Array(0);
      }
      session = new InlineSession(this.executor, (bytes) => socket.write(bytes));
      return hello.subarray(helloBytes);
    };
    socket.on("data", (chunk: Buffer) => {
      try {
        const rest = session === undefined ? greet(chunk) : chunk;
        if (rest.length > 0) session?.received(rest);
      } catch {
        socket.destroy();
      }
      // What it reads no faster than we answer, it can't ask for either.
      if (socket.writableNeedDrain) socket.pause();
      this.turnSoon();
    });
    socket.on("drain", () => socket.resume());
    socket.on("error", () => socket.destroy());
    socket.on("close", () => {
      this.sockets.delete(socket);
      session?.end();
    });
  }

  stop(): Promise<void> {
    this.stopped = true;
    clearTimeout(this.timer);
    for (const socket of this.sockets) socket.destroy();
    return new Promise((resolve) => this.server.close(() => resolve()));
  }
}
