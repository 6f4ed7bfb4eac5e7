/** Serves a store's executor on Node's own event loop, inline mode only: without the addon. */
import { chmodSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { KeelsonError } from "#lib/model/errors.ts";
import type { BlockExecutor } from "./executor.ts";
import { InlineConnection } from "./inline-session.ts";

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
    const connection = new InlineConnection(
      this.executor,
      (bytes) => socket.write(bytes),
      () => socket.end(),
    );
    socket.on("data", (chunk: Buffer) => {
      try {
        connection.received(chunk);
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
      connection.end();
    });
  }

  stop(): Promise<void> {
    this.stopped = true;
    clearTimeout(this.timer);
    for (const socket of this.sockets) socket.destroy();
    return new Promise((resolve) => this.server.close(() => resolve()));
  }
}
