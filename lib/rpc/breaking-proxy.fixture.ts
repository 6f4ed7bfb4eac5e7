/** A network that breaks: passes TCP on to a port, and breaks each connection after so many bytes. */
import { connect, createServer, type Server, type Socket } from "node:net";

export interface BreakingProxy {
  readonly server: Server;
  readonly port: number;
  /** How often it has. */
  broken(): number;
}

/** Counts the bytes of `what`, of each connection. */
export async function breakingProxy(
  port: number,
  afterBytes: number,
  what: "answers" | "requests",
): Promise<BreakingProxy> {
  let broken = 0;
  const server = createServer((client: Socket) => {
    const upstream = connect(port, "127.0.0.1");
    let passed = 0;
    client.on("error", () => upstream.destroy());
    upstream.on("error", () => client.destroy());
    client.on("close", () => upstream.destroy());
    upstream.on("end", () => client.end());
    const [counted, other] = what === "answers" ? [upstream, client] : [client, upstream];
    other.pipe(counted);
    counted.on("data", (bytes: Buffer) => {
      if (broken > mostBreaks) return void other.write(bytes);
      passed += bytes.length;
      // What was counted arrives; then it is over.
      other.write(bytes, () => {
        if (passed < afterBytes || client.destroyed) return;
        broken++;
        client.destroy();
        upstream.destroy();
      });
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { server, port: (server.address() as { port: number }).port, broken: () => broken };
}

/** So that a fault of who uses it ends in a failed test, not in one that never ends. */
const mostBreaks = 200;
