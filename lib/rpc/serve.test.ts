import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Hono } from "hono";
import { afterEach, beforeEach, expect, test } from "vitest";
import { unixFetch } from "./client.ts";
import { type Listener, serveUnix } from "./serve.ts";

let directory: string;
let listener: Listener;

beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), "keelson-rpc-"));
  const app = new Hono();
  app.post("/", async (context) => context.text(String((await context.req.text()).length)));
  listener = await serveUnix(app, join(directory, "api.sock"));
});

afterEach(async () => {
  await listener.close();
  rmSync(directory, { recursive: true, force: true });
});

test("a body may take as long as it takes", async () => {
  // Node would end it after five minutes, which no test waits for.
  expect(listener.server.requestTimeout).toBe(0);
  async function* slowly() {
    for (let part = 0; part < 5; part++) {
      await new Promise((resolve) => setTimeout(resolve, 20));
      yield new TextEncoder().encode("four");
    }
  }
  const answer = await unixFetch(join(directory, "api.sock"))("http://unix/", {
    method: "POST",
    body: slowly() as never,
    duplex: "half",
  } as RequestInit);
  expect(await answer.text()).toBe("20");
});

test("a second server on the same socket is refused while the first one answers", async () => {
  await expect(serveUnix(new Hono(), join(directory, "api.sock"))).rejects.toMatchObject({
    code: "PORT_IN_USE",
  });
  listener.server.close();
  await once(listener.server, "close");
});
