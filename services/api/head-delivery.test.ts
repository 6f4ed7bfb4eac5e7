/** Heads leave the node: the real service, and real receivers over TCP, TLS and HTTPS. */
import type { RequestListener } from "node:http";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { ChainVerifier } from "#lib/audit/chain.ts";
import { readHeadLine } from "#lib/audit/heads.ts";
import type { AuditTarget, AuditTargetTest } from "./audit-target-schema.ts";
import { systemClock } from "./clock.ts";
import { overdueMs } from "./head-delivery.ts";
import { receiveSyslog, type SyslogReceiver } from "./head-receiver.fixture.ts";
import { type FixtureServer, serveTls } from "./oidc-provider.fixture.ts";
import { TestNode } from "./platform.fixture.ts";

let aheadMs = 0;
const clock = { now: systemClock.now, bootMs: () => systemClock.bootMs() + aheadMs };
const node = new TestNode(clock, { patienceMs: 1_500, gapMs: 20, retryMs: 50, mostRetryMs: 200 });
beforeAll(() => node.start());
afterAll(() => node.remove());

const opened: { close(): Promise<void> }[] = [];
async function receiver(options: Parameters<typeof receiveSyslog>[0]): Promise<SyslogReceiver> {
  const server = await receiveSyslog(options);
  opened.push(server);
  return server;
}
async function collector(listener: RequestListener, port = 0): Promise<FixtureServer> {
  const server = await serveTls(() => listener, port);
  opened.push(server);
  return server;
}
afterEach(async () => {
  await node.call("DELETE", "/settings/audit-target");
  await Promise.all(opened.splice(0).map((server) => server.close()));
});

const eager = { everyEntries: 1, everySeconds: 10 };
const set = (change: object) => node.call("PUT", "/settings/audit-target", { ...eager, ...change });
const view = async (): Promise<AuditTarget> =>
  (await node.call("GET", "/settings/audit-target")).body;
const tryIt = async (): Promise<AuditTargetTest> =>
  (await node.call("POST", "/settings/audit-target/test")).body;
const newest = async () => (await node.call("GET", "/audit/heads")).body.head;
/** One entry of the audit log. */
const act = async () => expect((await node.call("POST", "/roles", {})).status).toBe(400);

async function verifiedWith(lines: readonly string[], change = (log: string[]) => log) {
  const heads = lines.map((line) => readHeadLine(line)!);
  const answer = await fetch(`${node.http}/api/v1/audit/export`, {
    headers: { authorization: `Bearer ${node.token}` },
  });
  const log = (await answer.text()).split("\n").filter((line) => line !== "");
  const verifier = new ChainVerifier(heads);
  for (const line of change(log)) verifier.add(line);
  return verifier.verdict();
}

describe.each([
  ["syslog over TCP", false],
  ["syslog over TLS", true],
])("%s", (_, tls) => {
  const url = (port: number) =>
    tls ? `syslog+tls://localhost:${port}` : `syslog+tcp://127.0.0.1:${port}`;

  test("a head a message, in its frame, that finds edits and a cut-off end", async () => {
    const server = await receiver({ tls });
    await set({ url: url(server.port), caCertificate: tls ? server.caCertificate : null });
    await expect
      .poll(async () => (await view()).delivered?.sequence)
      .toBe((await newest()).sequence);
    for (let index = 0; index < 3; index++) await act();
    const head = await newest();
    await expect.poll(() => server.messages.some((each) => each.includes(head.hash))).toBe(true);
    expect(server.faults).toEqual([]);
    for (const message of server.messages) {
      expect(message).toMatch(/^<110>1 \S+Z \S+ keelson - audit-head - \{"hash":"[0-9a-f]{64}"/);
    }
    const { messages } = server;
    expect(await verifiedWith(messages)).toMatchObject({ ok: true });
    const edit = (log: string[]) =>
      log.with(head.sequence - 1, log[head.sequence - 1].replace("admin", "nobody"));
    expect(await verifiedWith(messages, edit)).toMatchObject({ ok: false, line: head.sequence });
    const cut = (log: string[]) => log.slice(0, head.sequence - 1);
    expect(await verifiedWith(messages, cut)).toMatchObject({
      ok: false,
      fault: expect.stringContaining("cut off"),
    });
  });

  test("a receiver that hangs or breaks off has nothing, and requests don't wait", async () => {
    for (const manner of ["hangs", "drops"] as const) {
      const server = await receiver({ tls, manner });
      await set({ url: url(server.port), caCertificate: tls ? server.caCertificate : null });
      const begun = performance.now();
      for (let index = 0; index < 5; index++) await act();
      expect(performance.now() - begun).toBeLessThan(600);
      await expect
        .poll(async () => (await view()).failure?.reason)
        .toMatch(
          manner === "hangs"
            ? /did not take the heads in time/
            : /broke the connection off|ended the connection|disconnected/,
        );
      expect(await view()).toMatchObject({ delivered: null });
      expect((await tryIt()).ok).toBe(false);
      await server.close();
    }
  });
});

describe("https", () => {
  test("a head a line, with the token; redirections and refusals are failures", async () => {
    const bodies: string[] = [];
    let status = 200;
    const seen: (string | undefined)[] = [];
    const server = await collector((request, response) => {
      let body = "";
      request.on("data", (part) => {
        body += part;
      });
      request.on("end", () => {
        seen.push(request.headers.authorization, request.headers["content-type"]);
        if (status === 200) bodies.push(body);
        response.writeHead(status, { location: "https://localhost/other" }).end("x".repeat(1000));
      });
    });
    const target = { url: `${server.origin}/heads`, caCertificate: server.caCertificate };
    await set({ ...target, token: "t0ken-of-the-collector" });
    await act();
    const head = await newest();
    await expect.poll(() => bodies.join("").includes(head.hash)).toBe(true);
    expect(new Set(seen)).toEqual(
      new Set(["Bearer t0ken-of-the-collector", "application/x-ndjson"]),
    );
    const lines = bodies.join("").split("\n").slice(0, -1);
    expect(await verifiedWith(lines)).toMatchObject({ ok: true });
    expect(await tryIt()).toEqual({
      ok: true,
      message: expect.stringMatching(/^localhost:\d+ took the head of entry \d+\.$/),
    });
    for (const [code, words] of [
      [301, "Redirections are not followed"],
      [401, "Check the token"],
      [500, "answers with status 500"],
    ] as const) {
      status = code;
      expect(await tryIt()).toEqual({ ok: false, message: expect.stringContaining(words) });
    }
    // Never shown, and sealed where it stands.
    expect(JSON.stringify(await view())).not.toContain("t0ken-of-the-collector");
    expect((await view()).settings?.tokenSet).toBe(true);
    expect(node.holding("t0ken-of-the-collector")).toEqual([]);
  });

  test("a certificate that nobody vouches for, or of another name, gets nothing", async () => {
    let asked = 0;
    const server = await collector((_, response) => {
      asked++;
      response.end();
    });
    await set({ url: `${server.origin}/heads` });
    expect(await tryIt()).toEqual({
      ok: false,
      message: expect.stringMatching(/certificate of localhost:\d+ is not trusted.*Give the cert/),
    });
    const other = server.origin.replace("localhost", "127.0.0.2");
    await set({ url: `${other}/heads`, caCertificate: server.caCertificate });
    expect((await tryIt()).ok).toBe(false);
    expect(asked).toBe(0);
  });
});

describe("a receiver that is away", () => {
  test("is tried again, gets a bounded number of heads when it is back; long is a condition", async () => {
    const first = await receiver({ tls: false });
    const { port } = first;
    await first.close();
    await set({ url: `syslog+tcp://127.0.0.1:${port}` });
    const condition = async () =>
      (await node.call("GET", "/conditions")).body.find(
        ({ id }: { id: string }) => id === "AUDIT_HEADS_NOT_DELIVERED",
      )?.status;
    await expect.poll(async () => (await view()).failure?.reason).toMatch(/refuses connections/);
    await expect.poll(condition).toBe("false");
    for (let round = 0; round < 4; round++) await Promise.all(Array.from({ length: 25 }, act));
    expect((await view()).waiting).toBeLessThanOrEqual(64);
    aheadMs = overdueMs;
    await expect.poll(condition).toBe("true");
    const head = await newest();
    const back = await receiver({ tls: false, port });
    await expect.poll(() => back.messages.some((each) => each.includes(head.hash))).toBe(true);
    expect(back.messages.length).toBeLessThanOrEqual(64);
    await expect.poll(async () => (await view()).failure).toBeNull();
    await expect.poll(condition).toBe("false");
  });

  test("over a restart of the node it gets the newest head again", async () => {
    const server = await receiver({ tls: false });
    await set({ url: `syslog+tcp://127.0.0.1:${server.port}` });
    await expect.poll(() => server.messages.length).toBeGreaterThan(0);
    await node.restart();
    const head = await newest();
    await expect.poll(() => server.messages.some((each) => each.includes(head.hash))).toBe(true);
  });
});

describe("when", () => {
  test("after so many entries, or after the time; nothing while there is nothing new", async () => {
    const server = await receiver({ tls: false });
    const url = `syslog+tcp://127.0.0.1:${server.port}`;
    await set({ url, everyEntries: 5, everySeconds: 10 });
    await expect.poll(() => server.messages.length).toBe(1);
    // With what set it, these are four.
    for (let index = 0; index < 3; index++) await act();
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect(server.messages.length).toBe(1);
    await act();
    await expect.poll(() => server.messages.length).toBe(2);
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect(server.messages.length).toBe(2);
    aheadMs += 10_000;
    await act();
    await expect.poll(() => server.messages.length).toBe(3);
  });
});

describe("what can be set", () => {
  test.each([
    [{ url: "logs.example.org" }, /is not a URL/],
    [{ url: "http://example.org/heads" }, /is none of syslog\+tls/],
    [{ url: "syslog+tcp://logs.example.org" }, /has no port of its own/],
    [{ url: "syslog+tls://logs.example.org/path" }, /Syslog has no path/],
    [{ url: "syslog+tls://user:word@logs.example.org" }, /no user, password/],
    [{ url: "syslog+tls://:6514" }, /not a URL|no host name/],
    [{ url: "syslog+tls://lo%20gs" }, /no host name|not a URL/],
    [{ url: "https://example.org", everySeconds: 1 }, /everySeconds/],
    [{ url: "https://example.org", everyEntries: 0 }, /everyEntries/],
    [{ url: "https://example.org", caCertificate: "x" }, /no certificate in PEM/],
    [{ url: "https://example.org", token: "two words" }, /A token is one word/],
    [{ url: "syslog+tls://logs.example.org", token: "x" }, /Syslog has no place for a token/],
    [{ url: "https://example.org", more: 1 }, /nrecognized/],
  ])("%j is refused", async (change, why) => {
    const { status, body } = await set(change);
    expect(status).toBe(400);
    expect(body.title).toMatch(why);
    expect((await view()).settings).toBeNull();
  });

  test("a token that is kept is told to nobody else", async () => {
    await set({ url: "https://a.invalid/heads", token: "kept" });
    expect((await set({ url: "https://a.invalid/other" })).body.settings.tokenSet).toBe(true);
    const { status, body } = await set({ url: "https://b.invalid/heads" });
    expect([status, body.title]).toEqual([400, "token: Another receiver has another token."]);
    expect((await set({ url: "syslog+tls://b.invalid" })).status).toBe(400);
    const none = await set({ url: "syslog+tls://b.invalid", token: null });
    expect(none.body.settings).toMatchObject({
      url: "syslog+tls://b.invalid:6514",
      tokenSet: false,
    });
  });

  test("none is set: nothing is there to be tried or removed", async () => {
    expect(await view()).toEqual({ settings: null, delivered: null, waiting: 0, failure: null });
    expect((await node.call("POST", "/settings/audit-target/test")).status).toBe(404);
    expect((await node.call("DELETE", "/settings/audit-target")).status).toBe(404);
  });
});
