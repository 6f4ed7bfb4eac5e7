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
  app.get("/long", () => new Response(Buffer.alloc(3 << 20, 7)));
  app.delete("/", async (context) => context.text(await context.req.text()));
  app.get("/never", () => new Promise<Response>(() => {}));
  app.get("/breaks", () => {
    let parts = 0;
    const pull = (controller: ReadableStreamDefaultController) => {
      if (parts++ < 3) controller.enqueue(Buffer.alloc(1000));
      else controller.error(new Error("the disk is gone"));
    };
    return new Response(new ReadableStream({ pull }));
  });
  app.get("/nothing", (context) => context.body(null, 204));
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

describe("unixFetch", () => {
  const get = (path: string, init?: RequestInit, timeoutMs?: number, name = "api.sock") =>
    unixFetch(join(directory, name), timeoutMs)(`http://unix${path}`, init);

  test("gives status, headers and body, of any length", async () => {
    const long = await get("/long");
    expect(Buffer.from(await long.arrayBuffer()).equals(Buffer.alloc(3 << 20, 7))).toBe(true);
    const refused = await get("/refuse", { method: "POST", body: "{}" });
    expect([refused.ok, refused.status]).toEqual([false, 507]);
    expect(refused.headers.get("content-type")).toMatch("application/json");
    expect(await refused.json()).toEqual({ code: "NO_SPACE" });
    expect((await get("/nothing")).status).toBe(204);
    expect((await get("/nowhere")).status).toBe(404);
  });

  test("a DELETE has a body, too", async () => {
    expect(await (await get("/", { method: "DELETE", body: "why" })).text()).toBe("why");
  });

  test("UNAVAILABLE when nobody is there, or nobody answers", async () => {
    await expect(get("/", {}, 1000, "nobody.sock")).rejects.toMatchObject({ code: "UNAVAILABLE" });
    await expect(get("/never", {}, 50)).rejects.toMatchObject({ code: "UNAVAILABLE" });
  });

  test("an answer that breaks off is an error for who reads it, and nobody else", async () => {
    const answer = await get("/breaks");
    await expect(answer.arrayBuffer()).rejects.toThrow();
  });

  test("an abort ends the call, and an answer that is being read", async () => {
    const early = new AbortController();
    const call = get("/never", { signal: early.signal });
    early.abort();
    await expect(call).rejects.toMatchObject({ code: "UNAVAILABLE" });
    const late = new AbortController();
    const answer = await get("/long", { signal: late.signal });
    late.abort();
    await expect(
      answer.arrayBuffer().then(() => get("/never", { signal: late.signal })),
    ).rejects.toThrow();
  });
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
