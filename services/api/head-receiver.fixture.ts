/** A syslog receiver on loopback, over TCP or TLS, that takes frames strictly as RFC 5425 has them. */
import { createServer, type Server, type Socket } from "node:net";
import { createServer as createTlsServer } from "node:tls";
import { passingCertificate } from "./certificate.ts";
import { pemCertificates } from "./identity-schema.ts";

export interface SyslogReceiver {
  readonly port: number;
  /** PEM; empty for plain TCP. */
  readonly caCertificate: string;
  /** Whole messages, each as it came in its frame. */
  readonly messages: string[];
  /** What was no frame. */
  readonly faults: string[];
  /** How many connections there were. */
  readonly connections: () => number;
  close(): Promise<void>;
}

export interface ReceiverOptions {
  readonly tls: boolean;
  /** 0: a free one. */
  readonly port?: number;
  /** `ends`: as receivers do; `hangs`: never ends; `drops`: ends at once, having read nothing. */
  readonly manner?: "ends" | "hangs" | "drops";
}

export async function receiveSyslog(options: ReceiverOptions): Promise<SyslogReceiver> {
  const { tls, port = 0, manner = "ends" } = options;
  const messages: string[] = [];
  const faults: string[] = [];
  const open = new Set<Socket>();
  let connections = 0;
  const take = (socket: Socket) => {
    connections++;
    socket.on("error", () => {});
    if (manner === "drops") {
      socket.destroy();
      return;
    }
    let rest = Buffer.alloc(0);
    socket.on("data", (part: Buffer) => {
      rest = Buffer.concat([rest, part]);
      for (let next = readFrame(rest); next !== undefined; next = readFrame(rest)) {
        messages.push(next.message);
        rest = rest.subarray(next.bytes);
      }
    });
    socket.once("end", () => {
      if (rest.length > 0) faults.push(rest.toString());
      if (manner === "ends") socket.end();
    });
  };
  const certificate = tls ? await passingCertificate("receiver", ["localhost"]) : undefined;
  const server: Server =
    certificate === undefined
      ? createServer({ allowHalfOpen: true }, take)
      : createTlsServer(
          { key: certificate.key, cert: certificate.chain, allowHalfOpen: true },
          take,
        );
  // Also those whose TLS never came to be.
  server.on("connection", (socket: Socket) => {
    open.add(socket);
    socket.once("close", () => open.delete(socket));
  });
  server.on("tlsClientError", (error: Error) => faults.push(error.message));
  await new Promise<void>((done) => server.listen(port, "127.0.0.1", done));
  const bound = server.address();
  return {
    port: typeof bound === "object" && bound !== null ? bound.port : 0,
    caCertificate: certificate === undefined ? "" : pemCertificates(certificate.chain).at(-1)!,
    ...{ messages, faults },
    connections: () => connections,
    close: () =>
      new Promise((done) => {
        server.close(() => done());
        for (const socket of open) socket.destroy();
      }),
  };
}

/** MSG-LEN SP SYSLOG-MSG, RFC 5425 section 4.3: no leading zero. */
function readFrame(bytes: Buffer): { message: string; bytes: number } | undefined {
  const length = /^([1-9]\d{0,6}) /.exec(bytes.toString("latin1", 0, 9));
  if (length === null) return undefined;
  const end = length[0].length + Number(length[1]);
  if (bytes.length < end) return undefined;
  return { message: bytes.toString("utf8", length[0].length, end), bytes: end };
}
