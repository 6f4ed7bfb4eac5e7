/** Where the public application listens: TLS with HTTP/2, or plain HTTP for development. */
import { createServer } from "node:http";
import { createSecureServer, type ServerHttp2Session } from "node:http2";
import type { AddressInfo } from "node:net";
import { getRequestListener } from "@hono/node-server";
import { KeelsonError } from "#lib/model/errors.ts";
import type { ServerCertificate } from "./certificate.ts";

type FetchCallback = Parameters<typeof getRequestListener>[0];

export interface PublicListener {
  readonly url: string;
  /** New connections get this certificate. */
  serve(tls: ServerCertificate): void;
  close(): Promise<void>;
}

export interface Endpoint {
  readonly host: string;
  readonly port: number;
}

/** `127.0.0.1:8080`, `[::]:443`. INVALID_ARGUMENT otherwise. */
export function parseEndpoint(text: string, flag: string): Endpoint {
  const match = /^(?:\[([^\]]+)\]|([^:[\]]+)):(\d{1,5})$/.exec(text);
  const port = Number(match?.[3]);
  if (match !== null && port <= 65_535) return { host: match[1] ?? match[2], port };
  throw new KeelsonError("INVALID_ARGUMENT", `${flag} ${text} is not HOST:PORT.`, {
    remedy: "Give one like 127.0.0.1:8080 or [::]:443.",
  });
}

/** Headers of a slow or idle client don't hold a connection for long; uploads may take hours. */
const timeouts = { headersTimeout: 20_000, requestTimeout: 0, keepAliveTimeout: 30_000 };

/**
 * What an HTTP/2 client may send ahead, on a stream and on a connection. With the protocol's 64 KiB
 * (RFC 9113, section 6.9.2) an upload over a way of 50 ms is held to 1.3 MB/s.
 */
const windows = { streamBytes: 2 ** 20, connectionBytes: 4 * 2 ** 20 };

export async function listen(
  app: { readonly fetch: FetchCallback },
  endpoint: Endpoint,
  tls: ServerCertificate | null,
): Promise<PublicListener> {
  const handler = getRequestListener(app.fetch);
  const sessions = new Set<ServerHttp2Session>();
  const server =
    tls === null
      ? createServer(timeouts, handler)
      : createSecureServer(
          {
            key: tls.key,
            cert: tls.chain,
            minVersion: "TLSv1.2",
            allowHTTP1: true,
            maxSessionMemory: 64,
            settings: { maxConcurrentStreams: 100, initialWindowSize: windows.streamBytes },
          },
          handler,
        );
  if (tls !== null) {
    server.on("session", (session: ServerHttp2Session) => {
      sessions.add(session);
      session.setLocalWindowSize(windows.connectionBytes);
      session.once("close", () => sessions.delete(session));
    });
    // A client that breaks its connection, or speaks no TLS, is no fault of the service.
    server.on("sessionError", () => {});
  }
  const sockets = new Set<{ destroy(): void; once(event: "close", done: () => void): unknown }>();
  server.on("connection", (socket) => {
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", (cause: NodeJS.ErrnoException) => {
      const place = `${endpoint.host}:${endpoint.port}`;
      const why =
        cause.code === "EADDRINUSE" ? "Another process listens there." : `${cause.message}.`;
      reject(
        new KeelsonError("PORT_IN_USE", `Cannot listen on ${place}. ${why}`, {
          operation: "listen",
          object: place,
          remedy: "Stop it, or choose another port.",
          cause,
        }),
      );
    });
    server.listen(endpoint.port, endpoint.host, resolve);
  });
  const { port, family, address } = server.address() as AddressInfo;
  const host = family === "IPv6" ? `[${address}]` : address;
  return {
    serve: ({ key, chain }) => {
      if ("setSecureContext" in server) {
        server.setSecureContext({ key, cert: chain, minVersion: "TLSv1.2" });
      }
    },
    url: `${tls === null ? "http" : "https"}://${host}:${port}`,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        for (const session of sessions) session.destroy();
        for (const socket of sockets) socket.destroy();
      }),
  };
}
