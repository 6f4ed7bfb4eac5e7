import { once } from "node:events";
import {
  createServer,
  type Http2Server,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from "node:http2";
import type { AddressInfo } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { afterEach, beforeEach, expect, test } from "vitest";
import { Connection, NotConnected } from "./connection.ts";

let server: Http2Server;
let connection: Connection;
let sessions: ServerHttp2Session[];
let pings = 0;

/** Answers with headers at once, and never ends. */
beforeEach(async () => {
  sessions = [];
  pings = 0;
  server = createServer();
  server.on("session", (session) => {
    sessions.push(session.on("error", () => {}).on("ping", () => pings++));
  });
  server.on("stream", (stream: ServerHttp2Stream) => {
    stream.on("error", () => {});
    stream.respond();
  });
  await once(server.listen(0, "127.0.0.1"), "listening");
  const { port } = server.address() as AddressInfo;
  connection = new Connection(`http://127.0.0.1:${port}`, { intervalMs: 20, timeoutMs: 5000 });
});
afterEach(() => {
  connection.close();
  for (const session of sessions) session.destroy();
  server.close();
});

async function request() {
  const stream = await connection.request("POST", "/", {}, {});
  stream.on("error", () => {});
  await once(stream, "response");
  return stream;
}

test("a member shuts down while a request is open: the next goes by a new connection", async () => {
  const first = await request();
  sessions[0].goaway();
  await once(first.session ?? first, "goaway");
  await request();
  expect(sessions).toHaveLength(2);
  expect(first.closed).toBe(false);
});

test("a connection is lost with a request open: its pings end with it, and the next request connects", async () => {
  const stream = await request();
  await expect.poll(() => pings).toBeGreaterThan(0);
  const lost = once(stream, "close");
  sessions[0].destroy();
  await lost;
  const pingsThen = pings;
  // A ping of what is lost would throw in a timer, which vitest reports.
  await delay(200);
  expect(pings).toBe(pingsThen);
  await request();
  expect(sessions).toHaveLength(2);
});

test("nobody listens: the error tells that nothing was sent", async () => {
  const gone = once(server, "close");
  server.close();
  await gone;
  const error = await request().catch((reason: unknown) => reason);
  expect(error).toMatchObject({ cause: expect.any(NotConnected) });
});
