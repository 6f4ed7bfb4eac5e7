/**
 * The fall-back driver: node:net on the thread's own event loop, for where the addon is missing. It
 * copies what it sends, so that memory is free at once; slower, the same protocol.
 */
import { createServer, type Server, type Socket } from "node:net";
import { explainError, KeelsonError } from "#lib/model/errors.ts";
import {
  type CreateDriver,
  type DrivenCore,
  type Driver,
  type DriverHost,
  type PortalAddress,
  SendArea,
  sendRowIndex,
  tickIntervalMs,
} from "./driver.ts";

/** A socket that holds so much unsent is left alone until it has drained. */
const maxUnsentBytes = 1 << 20;
/** A connection that should send its last rows and close is cut after this long. */
const drainLimitMs = 5000;

interface NetConnection {
  readonly id: number;
  readonly socket: Socket;
  left: Uint8Array;
  ending: boolean;
}

const nothing = new Uint8Array(0);

class NetDriver implements Driver, DriverHost {
  readonly kind = "net";
  private readonly core: DrivenCore;
  private readonly payload: Uint8Array;
  private readonly servers: Server[] = [];
  private readonly connections = new Map<number, NetConnection>();
  private readonly ready = new Set<number>();
  private readonly resumes = new Set<number>();
  private readonly closes: { id: number; drain: boolean }[] = [];
  private scheduled = false;
  private ticking: NodeJS.Timeout | undefined;

  constructor(createCore: (host: DriverHost) => DrivenCore, payload: Uint8Array) {
    this.payload = payload;
    this.core = createCore(this);
  }

  // ---- host ----

  sendReady(id: number): void {
    this.ready.add(id);
    this.schedule();
  }

  resume(id: number): void {
    this.resumes.add(id);
    this.schedule();
  }

  close(id: number, drain: boolean): void {
    this.closes.push({ id, drain });
    this.schedule();
  }

  // ---- driver ----

  async listen(portals: readonly PortalAddress[]): Promise<readonly PortalAddress[]> {
    const bound: PortalAddress[] = [];
    for (const portal of portals) bound.push(await this.bind(portal));
    this.ticking ??= setInterval(() => {
      this.core.tick(performance.now());
      this.schedule();
    }, tickIntervalMs);
    return bound;
  }

  private bind({ host, port }: PortalAddress): Promise<PortalAddress> {
    const server = createServer({ noDelay: true }, (socket) => this.accept(socket));
    return new Promise((resolve, reject) => {
      server.once("error", (cause) => {
        const text = `${host}:${port}`;
        const message = `Cannot listen on ${text}: ${explainError(cause)}.`;
        const remedy = "End what uses it, or give another --portal.";
        reject(
          new KeelsonError("PORT_IN_USE", message, {
            operation: "listen",
            object: text,
            remedy,
            cause,
          }),
        );
      });
      server.listen({ host, port }, () => {
        this.servers.push(server);
        const address = server.address();
        const real = typeof address === "object" && address !== null ? address.port : port;
        resolve({ host, port: real });
      });
    });
  }

  storeReady(): void {
    this.schedule();
  }

  async stop(): Promise<void> {
    clearInterval(this.ticking);
    for (const { socket } of this.connections.values()) socket.destroy();
    await Promise.all(
      this.servers.map((server) => new Promise((resolve) => server.close(() => resolve(null)))),
    );
  }

  // ---- batches ----

  private accept(socket: Socket): void {
    const remote = addressText(socket.remoteAddress, socket.remotePort);
    const local = addressText(socket.localAddress, socket.localPort);
    const id = remote === undefined || local === undefined ? -1 : this.core.accepted(remote, local);
    if (id < 0) {
      socket.destroy();
      return;
    }
    const connection: NetConnection = { id, socket, left: nothing, ending: false };
    this.connections.set(id, connection);
    socket.on("data", (bytes: Uint8Array) => this.deliver(connection, bytes));
    socket.on("drain", () => this.sendReady(id));
    socket.on("error", () => {});
    socket.on("close", () => {
      this.connections.delete(id);
      this.ready.delete(id);
      this.resumes.delete(id);
      this.core.closed(id);
      this.schedule();
    });
  }

  private deliver(connection: NetConnection, bytes: Uint8Array): void {
    const { id, socket } = connection;
    const buffer = connection.left.length === 0 ? bytes : Buffer.concat([connection.left, bytes]);
    const taken = buffer.length > 0 ? this.core.received(id, buffer, 0, buffer.length) : 0;
    connection.left = taken === buffer.length ? nothing : buffer.subarray(taken);
    if (this.core.stalled(id)) socket.pause();
    else if (socket.isPaused()) socket.resume();
    this.schedule();
  }

  private schedule(): void {
    if (this.scheduled) return;
    this.scheduled = true;
    setImmediate(() => {
      this.scheduled = false;
      this.batch();
    });
  }

  private batch(): void {
    this.core.pollStore();
    const resumes = [...this.resumes];
    this.resumes.clear();
    for (const id of resumes) {
      const connection = this.connections.get(id);
      if (connection !== undefined) this.deliver(connection, nothing);
    }
    this.core.endBatch();
    const ready = [...this.ready];
    this.ready.clear();
    for (const id of ready) this.send(id);
    for (const { id, drain } of this.closes.splice(0)) this.end(id, drain);
    this.core.endBatch();
  }

  private send(id: number): void {
    const connection = this.connections.get(id);
    if (connection === undefined) return;
    const { rows, heads, tails } = this.core.queues;
    while (heads[id] !== tails[id] && connection.socket.writableLength < maxUnsentBytes) {
      const count = ((tails[id] - heads[id]) | 0) as number;
      const parts: Uint8Array[] = [];
      let bytes = 0;
      for (let row = 0; row < count && bytes < maxUnsentBytes; row++) {
        const at = sendRowIndex(id, heads[id] + row);
        const memory = rows[at] === SendArea.payload ? this.payload : this.core.headers;
        parts.push(memory.subarray(rows[at + 1], rows[at + 1] + rows[at + 2]));
        bytes += rows[at + 2];
      }
      connection.socket.write(Buffer.concat(parts, bytes));
      this.core.sent(id, bytes);
    }
    // What is left goes out on "drain".
    if (connection.ending && heads[id] === tails[id]) connection.socket.end();
  }

  private end(id: number, drain: boolean): void {
    const connection = this.connections.get(id);
    if (connection === undefined) return;
    const { socket } = connection;
    if (!drain) {
      socket.destroy();
      return;
    }
    connection.ending = true;
    this.send(id);
    socket.once("finish", () => socket.destroySoon());
    setTimeout(() => socket.destroy(), drainLimitMs).unref();
  }
}

function addressText(host: string | undefined, port: number | undefined): string | undefined {
  if (host === undefined || port === undefined) return undefined;
  const plain = host.replace(/^::ffff:/, "");
  return plain.includes(":") ? `[${plain}]:${port}` : `${plain}:${port}`;
}

export const createNetDriver: CreateDriver = ({ createCore, payload }) =>
  new NetDriver(createCore, payload);
