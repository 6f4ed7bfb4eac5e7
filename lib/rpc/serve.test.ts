import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PassThrough, Readable } from "node:stream";
import { Hono } from "hono";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { unixFetch, unixPost } from "./client.ts";
import { type Listener, serveUnix } from "./serve.ts";

let directory: string;
let listener: Listener;

beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), "keelson-rpc-"));
  const app = new Hono();
  app.post("/", async (context) => context.text(String((await context.req.text()).length)));
  app.post("/count", async (context) => context.json((await context.req.arrayBuffer()).byteLength));
  app.post("/refuse", (context) => context.json({ code: "NO_SPACE" }, 507));
  app.post("/words", (context) => context.text("not JSON"));
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

describe("unixPost", () => {
  const post = (path: string, source: Readable, name = "api.sock") =>
    unixPost(join(directory, name), path, source, { headers: {}, idleMs: 10_000 });

  test("passes all of it on, and gives status and document", async () => {
    const parts = Array.from({ length: 40 }, () => Buffer.alloc(50_000));
    const answer = await post("/count", Readable.from(parts));
    expect(answer).toEqual({ status: 200, document: 2_000_000 });
    const words = await post("/words", Readable.from([Buffer.alloc(9)]));
    expect(words).toEqual({ status: 200, document: null });
  });

  test("a refusal comes through while there is more to send, which is not lost", async () => {
    const source = new PassThrough();
    source.write("some");
    expect(await post("/refuse", source)).toEqual({ status: 507, document: { code: "NO_SPACE" } });
    expect(source.destroyed).toBe(false);
  });

  test("a sender that goes away ends it", async () => {
    const source = new PassThrough();
    source.write("some");
    const answer = post("/count", source);
    setTimeout(() => source.destroy(), 50);
    await expect(answer).rejects.toMatchObject({ code: "CANCELLED" });
  });

  test("a service that isn't there is named", async () => {
    await expect(post("/count", Readable.from(["x"]), "none.sock")).rejects.toMatchObject({
      code: "UNAVAILABLE",
      object: join(directory, "none.sock"),
    });
  });
});
