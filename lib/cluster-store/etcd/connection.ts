/**
 * The HTTP/2 connection to one member: opened by the first request, and anew by the first one after
 * it was lost; pinged while an answer is awaited.
 *
 * connect-node has a session manager for this, but its timer may ping a session that has ended,
 * which throws where nothing catches it and so ends the process (connect-es issue 1795). Idle
 * connections aren't pinged: etcd would end them for it, as "too_many_pings".
 */
import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  type ClientSessionRequestOptions,
  connect,
  type OutgoingHttpHeaders,
} from "node:http2";
import { connect as connectSocket } from "node:net";
import { Code, ConnectError } from "@connectrpc/connect";

export interface Pings {
  readonly intervalMs: number;
  /** For the answer to a ping, and for the connection to come about. */
  readonly timeoutMs: number;
}

/** The cause of an error where no request has left this process: nothing can have been done. */
export class NotConnected extends Error {}

export class Connection {
  readonly authority: string;
  readonly #unixPath: string | undefined;
  readonly #pings: Pings;
  #session: ClientHttp2Session | undefined;
  #connected: Promise<ClientHttp2Session> | undefined;
  /** Requests whose answer hasn't ended. */
  readonly #open = new Map<ClientHttp2Stream, ClientHttp2Session>();

  /** `endpoint`: `http://HOST:PORT` or `unix:/PATH`. */
  constructor(endpoint: string, pings: Pings) {
    this.#unixPath = endpoint.startsWith("unix:") ? endpoint.slice("unix:".length) : undefined;
    this.authority = this.#unixPath === undefined ? new URL(endpoint).origin : "http://localhost";
    this.#pings = pings;
  }

  async request(
    method: string,
    path: string,
    headers: OutgoingHttpHeaders,
    options: Omit<ClientSessionRequestOptions, "signal">,
  ): Promise<ClientHttp2Stream> {
    // Closed: etcd shuts down, and takes no new request on it while earlier ones end.
    if (this.#session?.closed || this.#session?.destroyed) this.#connected = undefined;
    this.#connected ??= this.#connect();
    const session = await this.#connected;
    const stream = session.request({ ...headers, ":method": method, ":path": path }, options);
    this.#open.set(stream, session);
    session.ref();
    stream.once("close", () => {
      this.#open.delete(stream);
      if (!this.#isAwaited(session)) session.unref();
    });
    return stream;
  }

  /** Part of connect-node's interface; what is read changes nothing here. */
  notifyResponseByteRead(): void {}

  close(): void {
    this.#session?.destroy();
  }

  #connect(): Promise<ClientHttp2Session> {
    const unixPath = this.#unixPath;
    const session = connect(
      this.authority,
      unixPath === undefined ? {} : { createConnection: () => connectSocket(unixPath) },
    );
    this.#session = session;
    return new Promise((resolve, reject) => {
      const overdue = this.#endLater(session, "no connection");
      // After "connect" an end rejects nothing: each open request reports it itself.
      const end = (cause?: Error) => {
        clearTimeout(overdue);
        if (this.#session === session) this.#connected = undefined;
        const message = cause?.message ?? "the connection was closed";
        reject(new ConnectError(message, Code.Unavailable, {}, [], new NotConnected(message)));
      };
      session.on("error", end);
      session.once("close", end);
      session.once("connect", () => {
        clearTimeout(overdue);
        this.#keepPinging(session);
        resolve(session);
      });
    });
  }

  #keepPinging(session: ClientHttp2Session): void {
    const timer = setInterval(() => {
      if (session.destroyed || !this.#isAwaited(session)) return;
      const overdue = this.#endLater(session, "no answer to a ping");
      session.ping(() => clearTimeout(overdue));
    }, this.#pings.intervalMs);
    timer.unref();
    session.once("close", () => clearInterval(timer));
  }

  #endLater(session: ClientHttp2Session, why: string): NodeJS.Timeout {
    const { timeoutMs } = this.#pings;
    return setTimeout(() => {
      session.destroy(new ConnectError(`${why} within ${timeoutMs} ms`, Code.Unavailable));
    }, timeoutMs).unref();
  }

  #isAwaited(session: ClientHttp2Session): boolean {
    return [...this.#open.values()].includes(session);
  }
}
