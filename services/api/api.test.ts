import { type ChildProcess, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { connect as connectHttp2 } from "node:http2";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect as connectTls } from "node:tls";
import { OpenAPIHono } from "@hono/zod-openapi";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { EmbeddedStore } from "#lib/cluster-store/embedded.ts";
import { KeelsonError } from "#lib/model/errors.ts";
import { hashPassword } from "#lib/password/password.ts";
import { type Api, startApi } from "./api.ts";
import { createRouter } from "./app.ts";
import type { BootAnswer } from "./boot-schema.ts";
import { Policy } from "./policy.ts";
import { isGuard, type RouteSources } from "./routes/route.ts";
import type { Client, Condition, Node, Session, Volume } from "./schema.ts";

/** The service in this process, on loopback, with SQLite and no other service running. */
const directory = mkdtempSync(join(tmpdir(), "keelson-api-"));
const ui = join(directory, "ui");
const password = "correct horse";
const quiet = { error: () => {}, warn: () => {}, info: () => {}, debug: () => {} };

let api: Api;
let base = "";
let secureUrl = "";

async function start(name: string): Promise<Api> {
  const state = join(directory, name);
  mkdirSync(state, { recursive: true });
  const adminHashFile = join(directory, "admin.hash");
  writeFileSync(adminHashFile, `${hashPassword(password)}\n`);
  return await startApi({
    state,
    run: join(state, "run"),
    http: { host: "127.0.0.1", port: 0 },
    https: { host: "127.0.0.1", port: 0 },
    peers: {
      store: join(state, "no-store"),
      iscsi: join(state, "no-target"),
      netboot: join(state, "no-netboot"),
      network: join(state, "no-network"),
      updater: join(state, "no-updater"),
    },
    clusterStore: `sqlite:${join(state, "cluster.sqlite")}`,
    ui,
    spool: join(state, "spool"),
    portalAddress: "auto",
    adminHashFile,
    log: quiet,
  });
}

beforeAll(async () => {
  mkdirSync(join(ui, "assets"), { recursive: true });
  writeFileSync(join(ui, "index.html"), "<!doctype html><title>console</title>");
  writeFileSync(join(ui, "assets", "app-ABCDEF12.js"), "export {};");
  writeFileSync(join(directory, "secret.txt"), "not for the web");
  api = await start("node");
  base = `${api.addresses.http}/api/v1`;
  secureUrl = api.addresses.https;
});
afterAll(async () => {
  await api?.close();
  rmSync(directory, { recursive: true });
});

const logIn = async (): Promise<{ token: string; cookie: string }> => {
  const answer = await fetch(`${base}/session`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ user: "admin", password }),
  });
  expect(answer.status).toBe(200);
  const { token } = (await answer.json()) as Session;
  return { token, cookie: answer.headers.get("set-cookie") ?? "" };
};

const call = async (token: string, method: string, path: string, body?: unknown) => {
  const answer = await fetch(`${base}${path}`, {
    method,
    headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  return { status: answer.status, body: answer.status === 204 ? null : await answer.json() };
};

describe("who may call", () => {
  const router = createRouter({
    sessions: { find: () => undefined },
    views: {},
    secure: true,
    unexpected: () => {},
    version: "test",
  } as unknown as RouteSources & { version: string });
  const routes = router.app.routes.filter(({ method }) => method !== "ALL");
  const guards = routes.filter(({ handler }) => isGuard(handler));

  test("every route says it", () => {
    const guarded = new Set(guards.map(({ method, path }) => `${method} ${path}`));
    const all = new Set(routes.map(({ method, path }) => `${method} ${path}`));
    expect(all.size).toBeGreaterThan(30);
    expect([...all].filter((route) => !guarded.has(route))).toEqual([]);
  });

  test("a route without a guard would be found", () => {
    const app = new OpenAPIHono().get("/open", (context) => context.text("oops"));
    expect(app.routes.some(({ handler }) => isGuard(handler))).toBe(false);
  });

  test("anyone may log in, ping, read the description and copy signed bundles, nothing else", () => {
    const open = guards.filter(({ handler }) => isGuard(handler) && handler.access === "anyone");
    expect(open.map(({ method, path }) => `${method} ${path}`).sort()).toEqual([
      "GET /login/methods",
      "GET /login/oidc/callback",
      "GET /login/oidc/start",
      "GET /openapi.json",
      "GET /ping",
      "GET /support-bundle/:token",
      "GET /upgrade/index.json",
      "GET /upgrade/shared/:id",
      "POST /login/security-key",
      "POST /login/security-key/options",
      "POST /session",
      "POST /session/second-factor",
    ]);
  });

  test("without a session every other route answers 401, whatever its body", async () => {
    const closed = guards.filter(({ handler }) => isGuard(handler) && handler.access !== "anyone");
    for (const { method, path } of closed) {
      const answer = await fetch(`${base}${path.replaceAll(/:\w+/g, "x")}`, {
        method,
        headers: { "content-type": "application/json" },
        ...(method === "GET" ? {} : { body: "{}" }),
      });
      expect(answer.status, `${method} ${path}`).toBe(401);
    }
  });
});

describe("sessions over HTTP", () => {
  test("a wrong password is 401, a wrong body 400, and both are problem documents", async () => {
    const wrong = (body: string) =>
      fetch(`${base}/session`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body,
      });
    const bad = await wrong('{"user":"admin","password":"guess"}');
    expect(bad.status).toBe(401);
    expect(bad.headers.get("content-type")).toContain("application/problem+json");
    expect(bad.headers.get("set-cookie")).toBeNull();
    for (const body of ["{", "[]", '{"user":1}', '{"user":"admin","password":"x","more":1}']) {
      const answer = await wrong(body);
      expect(answer.status, body).toBe(400);
      expect((await answer.json()).code).toBe("INVALID_ARGUMENT");
    }
  });

  test("a browser's change needs our own Origin; a bearer's doesn't", async () => {
    const { token, cookie } = await logIn();
    expect(cookie).toMatch(/HttpOnly/);
    expect(cookie).toMatch(/SameSite=Strict/);
    const create = (headers: Record<string, string>) =>
      fetch(`${base}/images`, {
        method: "POST",
        headers: { "content-type": "application/json", ...headers },
        body: JSON.stringify({ name: `image-${Math.random().toString(36).slice(2)}` }),
      }).then(({ status }) => status);
    const cookieHeader = { cookie: cookie.split(";")[0] };
    expect(await create(cookieHeader)).toBe(403);
    expect(await create({ ...cookieHeader, origin: "http://evil.example" })).toBe(403);
    expect(await create({ ...cookieHeader, origin: "null" })).toBe(403);
    expect(await create({ ...cookieHeader, origin: api.addresses.http })).toBe(201);
    expect(await create({ authorization: `Bearer ${token}` })).toBe(201);
    const read = await fetch(`${base}/session`, { headers: cookieHeader });
    expect(read.status).toBe(200);
  });

  test("log-out ends the session at once", async () => {
    const { token } = await logIn();
    expect((await call(token, "GET", "/session")).status).toBe(200);
    expect((await call(token, "DELETE", "/session")).status).toBe(204);
    expect((await call(token, "GET", "/session")).status).toBe(401);
  });
});

describe("bad input", () => {
  test.each([
    ["POST", "/volumes", { name: "a b", sizeBytes: 1 << 20 }, /letters, digits/],
    ["POST", "/volumes", { name: "a" }, /Give sizeBytes/],
    ["POST", "/volumes", { name: "a", sizeBytes: 4097 * 1024 + 1 }, /multiple of 4096/],
    ["POST", "/volumes", { name: "a", sizeBytes: -4096 }, /at least 1 MiB/],
    ["POST", "/boot-entries", { name: "a", imageId: "x", mac: "zz" }, /not a MAC address/],
    ["PUT", "/netboot", { interface: "../x", settings: { mode: "off" } }, /interface/],
  ])("%s %s %j", async (method, path, body, message) => {
    const { token } = await logIn();
    const answer = await call(token, method, path, body);
    expect(answer.status).toBe(400);
    expect(answer.body.title).toMatch(message);
  });

  test("what doesn't exist is 404 with its kind", async () => {
    const { token } = await logIn();
    for (const path of ["/volumes/x", "/images/x", "/boot-entries/x", "/exports/x", "/tasks/x"]) {
      const answer = await call(token, "GET", path);
      expect(answer.status, path).toBe(404);
      expect(answer.body.title).toMatch(/There is no/);
    }
    expect((await call(token, "GET", "/nonsense")).status).toBe(404);
  });

  test("a body past 1 MiB is refused", async () => {
    const { token } = await logIn();
    const answer = await call(token, "POST", "/images", { name: "x".repeat(2 << 20) });
    expect(answer.status).toBe(413);
    expect(answer.body.title).toMatch(/larger than 1 MiB/);
  });

  test("a name is taken once", async () => {
    const { token } = await logIn();
    expect((await call(token, "POST", "/images", { name: "Twice" })).status).toBe(201);
    expect((await call(token, "POST", "/images", { name: "twice" })).status).toBe(409);
  });
});

describe("no other service answers", () => {
  test("policy can be changed, and conditions say what is unreachable and what is unknown", async () => {
    const { token } = await logIn();
    const created = await call(token, "POST", "/volumes", { name: "later", sizeBytes: 1 << 20 });
    expect(created.status).toBe(201);
    expect((created.body as Volume).state).toBe("creating");
    const conditions = (await call(token, "GET", "/conditions")).body as Condition[];
    const status = (id: string) => conditions.find((each) => each.id === id)?.status;
    expect(status("SERVICE_UNREACHABLE:chunk-store")).toBe("true");
    expect(status("SERVICE_UNREACHABLE:cluster-store")).toBe("false");
    expect(status("STORE_FULL")).toBe("unknown");
    expect(status("DEVELOPMENT_BUILD")).toBe("true");
    const node = (await call(token, "GET", "/node")).body as Node;
    expect(node.services.find(({ name }) => name === "chunk-store")?.state).toBe("unreachable");
  });

  test("a known client is told why it can't boot; an unknown one what to do", async () => {
    const { token } = await logIn();
    const image = (await call(token, "POST", "/images", { name: "empty" })).body;
    await call(token, "POST", "/boot-entries", {
      name: "lab",
      imageId: image.id,
      mac: "52:54:00:00:00:01",
    });
    const { unixFetch } = await import("#lib/rpc/client.ts");
    const internal = unixFetch(join(directory, "node", "run", "internal.sock"));
    const boot = async (body: unknown) =>
      (await internal("http://unix/v1/boot", {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify(body),
      }).then((answer) => answer.json())) as BootAnswer;
    expect(await boot({ mac: "52-54-00-00-00-01", arch: 0 })).toEqual({
      action: "error",
      message: "lab: Its image empty is not ready (uploading).",
    });
    const unknown = await boot({ mac: "525400000002", ip: "10.0.0.9" });
    expect(unknown).toMatchObject({ action: "unknown" });
    const clients = (await call(token, "GET", "/clients")).body as Client[];
    expect(clients.find(({ mac }) => mac === "52:54:00:00:00:01")).toMatchObject({
      bootEntryName: "lab",
      stage: "script",
      failure: "Its image empty is not ready (uploading).",
    });
    expect(clients.find(({ mac }) => mac === "52:54:00:00:00:02")?.bootEntryId).toBeNull();
    expect(await boot({ mac: "nonsense" })).toMatchObject({ code: "INVALID_ARGUMENT" });
  });
});

describe("events", () => {
  const listen = async (token: string, lastId?: string) => {
    const ended = new AbortController();
    const answer = await fetch(`${base}/events`, {
      headers: {
        authorization: `Bearer ${token}`,
        ...(lastId === undefined ? {} : { "last-event-id": lastId }),
      },
      signal: ended.signal,
    });
    expect(answer.headers.get("content-type")).toContain("text/event-stream");
    const blocks: string[] = [];
    void (async () => {
      let text = "";
      const decoder = new TextDecoder();
      for await (const part of answer.body as unknown as AsyncIterable<Uint8Array>) {
        text += decoder.decode(part, { stream: true });
        const parts = text.split("\n\n");
        text = parts.pop() ?? "";
        blocks.push(...parts);
      }
    })().catch(() => {});
    const idOf = (block: string) => /^id: (.*)$/m.exec(block)?.[1];
    return { blocks, idOf, stop: () => ended.abort() };
  };
  const holding = (blocks: string[], name: string) =>
    blocks.filter((block) => block.includes(`"name":"${name}"`));

  test("a listener begins with a reset, hears changes, and resumes without a gap", async () => {
    const { token } = await logIn();
    const first = await listen(token);
    await expect.poll(() => first.blocks[0]).toMatch(/^event: reset/);
    await call(token, "POST", "/images", { name: "event-1" });
    await expect.poll(() => holding(first.blocks, "event-1").length).toBe(1);
    const last = first.idOf(holding(first.blocks, "event-1")[0])!;
    first.stop();
    await call(token, "POST", "/images", { name: "event-2" });
    const second = await listen(token, last);
    await expect.poll(() => holding(second.blocks, "event-2").length).toBe(1);
    expect(second.blocks.some((block) => block.startsWith("event: reset"))).toBe(false);
    expect(holding(second.blocks, "event-1")).toEqual([]);
    second.stop();
  });

  test("an id of another life begins with a reset", async () => {
    const { token } = await logIn();
    const listener = await listen(token, "deadbeef-7");
    await expect.poll(() => listener.blocks[0]).toMatch(/^event: reset/);
    listener.stop();
  });
});

describe("console files", () => {
  const get = (path: string) => fetch(`${api.addresses.http}${path}`);

  test("the page for the console's own paths, assets for ever, with a strict policy", async () => {
    const page = await get("/volumes/x");
    expect(await page.text()).toContain("<title>console</title>");
    expect(page.headers.get("cache-control")).toBe("no-cache");
    const policy = page.headers.get("content-security-policy") ?? "";
    expect(policy).toContain("default-src 'none'");
    expect(policy).not.toContain("unsafe");
    const asset = await get("/assets/app-ABCDEF12.js");
    expect(asset.headers.get("content-type")).toContain("text/javascript");
    expect(asset.headers.get("cache-control")).toContain("immutable");
    expect((await get("/assets/missing.js")).status).toBe(404);
  });

  test.each([
    "/..%2fsecret.txt",
    "/%2e%2e/secret.txt",
    "/assets/..%2f..%2fsecret.txt",
    "/%00",
    "/%ff",
    "/..%5csecret.txt",
  ])("nothing outside is served: %s", async (path) => {
    const answer = await get(path);
    expect(await answer.text()).not.toContain("not for the web");
  });
});

describe("TLS", () => {
  const chain = () =>
    new Promise<{ ca: string; names: string }>((resolve, reject) => {
      const { port } = new URL(secureUrl);
      const socket = connectTls(
        { host: "127.0.0.1", port: Number(port), rejectUnauthorized: false },
        () => {
          const leaf = socket.getPeerCertificate(true);
          const { raw } = leaf.issuerCertificate;
          socket.destroy();
          resolve({
            ca: `-----BEGIN CERTIFICATE-----\n${raw.toString("base64")}\n-----END CERTIFICATE-----`,
            names: leaf.subjectaltname ?? "",
          });
        },
      ).once("error", reject);
    });

  test("the certificate is signed by the CA that comes with it, for loopback, by name and address", async () => {
    const { ca, names } = await chain();
    expect(names).toContain("DNS:localhost");
    expect(names).toContain("IP Address:127.0.0.1");
    const session = connectHttp2(secureUrl, { ca });
    const status = await new Promise((resolve, reject) => {
      session.once("error", reject);
      const request = session.request({ ":path": "/api/v1/ping" });
      request.once("response", (headers) => resolve(headers[":status"]));
      request.end();
    });
    session.close();
    expect(status).toBe(200);
  });

  test("the CA survives a restart; a client that pinned it need not ask again", async () => {
    const first = await chain();
    await api.close();
    api = await start("node");
    base = `${api.addresses.http}/api/v1`;
    secureUrl = api.addresses.https;
    expect((await chain()).ca).toBe(first.ca);
  });

  test("events flow over HTTP/2, as browsers ask for them", async () => {
    const { token } = await logIn();
    const { ca } = await chain();
    const session = connectHttp2(secureUrl, { ca });
    const first = await new Promise<string>((resolve, reject) => {
      session.once("error", reject);
      const request = session.request({
        ":path": "/api/v1/events",
        authorization: `Bearer ${token}`,
      });
      request.once("error", reject);
      request.once("data", (chunk) => resolve(String(chunk)));
      request.once("end", () => reject(new Error("the stream ended without an event")));
      request.end();
    });
    session.destroy();
    expect(first).toMatch(/^event: reset/);
  });

  test("an upload over HTTP/2 may run a mebibyte ahead, over any distance", async () => {
    const { ca } = await chain();
    const session = connectHttp2(secureUrl, { ca });
    const ahead = await new Promise((resolve, reject) => {
      session.once("error", reject);
      session.once("remoteSettings", ({ initialWindowSize }) =>
        // Its answer comes after the update of the connection's window.
        session.ping(() => resolve([initialWindowSize, session.state.remoteWindowSize])),
      );
    });
    session.destroy();
    expect(ahead).toEqual([2 ** 20, 4 * 2 ** 20]);
  });

  test("the cookie is bound to TLS there", async () => {
    const { ca } = await chain();
    const session = connectHttp2(secureUrl, { ca });
    const cookie = await new Promise<string>((resolve, reject) => {
      session.once("error", reject);
      const request = session.request({
        ":path": "/api/v1/session",
        ":method": "POST",
        "content-type": "application/json",
        origin: secureUrl,
      });
      request.once("response", (headers) => resolve(String(headers["set-cookie"])));
      request.end(JSON.stringify({ user: "admin", password }));
    });
    session.close();
    expect(cookie).toMatch(/^__Host-keelson=/);
    expect(cookie).toMatch(/Secure/);
  });
});

describe("start", () => {
  test("a port in use is said by name", async () => {
    const { port } = new URL(api.addresses.http);
    const child = run(["--http", `127.0.0.1:${port}`, "--state", join(directory, "other")]);
    const { status, stderr } = await child;
    expect(status).toBe(1);
    expect(stderr).toContain(`Cannot listen on 127.0.0.1:${port}. Another process listens there.`);
  });

  test.each([
    [["--http", "nonsense"], /--http nonsense is not HOST:PORT/],
    [[], /Nowhere to listen/],
    [["--http", "127.0.0.1:0", "--cluster-store", "redis:x"], /names no cluster store/],
    [
      ["--http", "127.0.0.1:0", "--admin-password-hash-file", "/nonexistent"],
      /hash file \/nonexistent is missing/,
    ],
    [["--frobnicate"], /frobnicate/],
  ])("%j ends with one line", async (args, message) => {
    const { status, stderr } = await run(["--state", join(directory, "wrong"), ...args]);
    expect(status).toBe(78);
    expect(stderr).toMatch(message);
    expect(stderr).not.toMatch(/\n\s+at /);
  });

  function run(args: string[]): Promise<{ status: number | null; stderr: string }> {
    const main = join(import.meta.dirname, "main.ts");
    const child: ChildProcess = spawn(
      process.execPath,
      [main, "--run", join(directory, "wrong-run"), ...args],
      { env: { ...process.env, NODE_NO_WARNINGS: "1" }, stdio: ["ignore", "ignore", "pipe"] },
    );
    let stderr = "";
    child.stderr!.setEncoding("utf8").on("data", (text: string) => {
      stderr += text;
    });
    return new Promise((resolve) => child.once("close", (status) => resolve({ status, stderr })));
  }

  test("an import that a kill cut off is failed with the reason, its volume and spool go", async () => {
    const state = join(directory, "killed");
    mkdirSync(join(state, "spool"), { recursive: true });
    writeFileSync(join(state, "spool", "image"), "half of it");
    const store = new EmbeddedStore(join(state, "cluster.sqlite"));
    const policy = await Policy.open(store);
    const createdAt = new Date().toISOString();
    await policy.change((draft) => {
      draft.put("image", {
        ...{ id: "image", name: "cut", state: "importing", format: "raw", sizeBytes: 1 << 20 },
        ...{ volumeId: "volume", failure: null, createdAt },
      });
      draft.put("volume", {
        ...{ id: "volume", name: "cut", kind: "image", state: "ready", failure: null },
        ...{ sizeBytes: 1 << 20, parentVolumeId: null, sealed: false, createdAt },
      });
    });
    policy.close();
    await store.close();
    const again = await start("killed");
    try {
      const login = await fetch(`${again.addresses.http}/api/v1/session`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ user: "admin", password }),
      });
      const { token } = (await login.json()) as Session;
      const get = (path: string) =>
        fetch(`${again.addresses.http}/api/v1${path}`, {
          headers: { authorization: `Bearer ${token}` },
        }).then((answer) => answer.json());
      expect(await get("/images/image")).toMatchObject({
        state: "failed",
        failure: expect.stringContaining("restarted during the import"),
        volumeId: null,
      });
      expect((await get("/volumes/volume")).state).toBe("deleting");
      expect(readdirSync(join(state, "spool"))).toEqual([]);
      const conditions = (await get("/conditions")) as Condition[];
      expect(conditions.find(({ id }) => id === "IMAGE_IMPORT_FAILED:image")?.status).toBe("true");
    } finally {
      await again.close();
    }
  });

  test("a damaged CA is named, not replaced in silence", async () => {
    const state = join(directory, "damaged");
    mkdirSync(join(state, "tls"), { recursive: true });
    writeFileSync(join(state, "tls", "ca.crt"), "nonsense");
    await expect(start("damaged")).rejects.toBeInstanceOf(KeelsonError);
  });
});
