/** What is recorded, over HTTP against the real service. */
import { appendFileSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type AuditEntry, ChainVerifier } from "#lib/audit/chain.ts";
import { unixFetch } from "#lib/rpc/client.ts";
import type { AuditHeads, AuditPage } from "./audit-schema.ts";
import { password, TestNode } from "./platform.fixture.ts";

const node = new TestNode();
beforeAll(() => node.start());
afterAll(() => node.remove());

const secret = "s3cret-of-a-user";
const newest = async (query = ""): Promise<AuditEntry[]> =>
  ((await node.call("GET", `/audit?${query}`)).body as AuditPage).entries;

/** Refusals and failures are written soon, not before the answer. */
const last = async () => (await newest())[0];

async function exported(from = 1): Promise<string[]> {
  const answer = await fetch(`${node.http}/api/v1/audit/export?from=${from}`, {
    headers: { authorization: `Bearer ${node.token}` },
  });
  expect(answer.headers.get("content-type")).toBe("application/x-ndjson");
  return (await answer.text()).split("\n").filter((line) => line !== "");
}

const logFile = () => {
  const folder = join(node.state, "api", "audit");
  const files = readdirSync(folder).filter((name) => name.endsWith(".ndjson"));
  return join(folder, files.sort().at(-1)!);
};

describe("what is recorded", () => {
  test("a change: who, from where, by what permission, to what, and how it ended", async () => {
    const { body } = await node.call("POST", "/volumes", { name: "audited", sizeBytes: 1 << 20 });
    // It is on the disk when the answer comes.
    expect(readFileSync(logFile(), "utf8")).toContain(body.id);
    const [entry] = await newest();
    expect(entry).toMatchObject({
      ...{ user: "admin", via: "session", address: "127.0.0.1", action: "POST /volumes" },
      ...{ permission: "storage:write", target: body.id, outcome: "done", status: 201 },
    });
    await node.call("PATCH", "/volumes/nonsense", { sizeBytes: 2 << 20 });
    await expect.poll(last).toMatchObject({
      ...{ action: "PATCH /volumes/{id}", target: "nonsense", outcome: "failed", status: 404 },
      detail: "NOT_FOUND",
    });
  });

  test("log-ins, good and bad, never with what was typed", async () => {
    await node.call("POST", "/session", { user: "admin", password: "typed-wrong-1" });
    await node.call("POST", "/session", { user: "typed-in-the-name", password: "typed-wrong-2" });
    await node.logIn();
    const [good, unknown, wrong] = await newest("action=POST /session");
    expect(good).toMatchObject({ user: "admin", outcome: "done", status: 200, via: "none" });
    expect(unknown).toMatchObject({
      user: null,
      outcome: "refused",
      detail: expect.stringMatching(/no such user/),
    });
    expect(wrong).toMatchObject({ user: "admin", outcome: "refused", status: 401 });
    for (const text of ["typed-wrong", "typed-in-the-name", password]) {
      expect(readFileSync(logFile(), "utf8")).not.toContain(text);
    }
  });

  test("accounts: roles given, by token, and no password", async () => {
    const user = { id: "ada", roles: ["storage"], password: secret, mustChangePassword: false };
    await node.call("POST", "/users", user);
    await expect.poll(last).toMatchObject({ target: "ada", detail: "roles storage" });
    const token = await node.logIn("ada", secret);
    await node.call("DELETE", "/users/admin", undefined, { authorization: `Bearer ${token}` });
    await expect.poll(last).toMatchObject({
      ...{ user: "ada", outcome: "refused", status: 403, permission: "users:write" },
      target: "admin",
    });
    // A refusal to show something is recorded as well.
    await node.call("GET", "/users", undefined, { authorization: `Bearer ${token}` });
    await expect.poll(last).toMatchObject({ action: "GET /users", outcome: "refused" });
    const expiresAt = new Date(Date.now() + 60_000).toISOString();
    const given = { name: "t", permissions: ["storage:write"], expiresAt };
    const api = (await node.call("POST", "/tokens", given)).body;
    await node.call("DELETE", "/volumes/x", undefined, { authorization: `Bearer ${api.token}` });
    await expect.poll(last).toMatchObject({ user: "admin", via: `token:${api.id}` });
    for (const text of [secret, token, api.token]) {
      expect(readFileSync(logFile(), "utf8")).not.toContain(text);
    }
  });

  test("what is read is not; nor the first step of a log-in, which anybody can take", async () => {
    const before = (await newest())[0].sequence;
    await node.call("GET", "/volumes");
    await node.call("GET", "/audit/heads");
    await fetch(`${node.http}/api/v1/session`);
    expect((await newest())[0].sequence).toBe(before);
  });

  test("what was done at the console, by the console's socket", async () => {
    const door = unixFetch(join(node.state, "run", "console.sock"));
    const told = (body: unknown) =>
      door("http://unix/v1/audit", {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify(body),
      }).then(({ status }) => status);
    const action = "reset the password of admin";
    expect(await told({ via: "console", action, outcome: "done" })).toBe(204);
    await expect.poll(last).toMatchObject({ via: "console", action, address: "local" });
    expect(await told({ via: "session", action, outcome: "done" })).toBe(400);
  });
});

describe("reading it", () => {
  test("pages, filters, export and heads tell one story", async () => {
    const { head, firstSequence } = (await node.call("GET", "/audit/heads")).body as AuditHeads;
    expect(firstSequence).toBe(1);
    const seen: number[] = [];
    let before: number | null = head.sequence + 1;
    while (before !== null) {
      const page: AuditPage = (await node.call("GET", `/audit?limit=3&before=${before}`)).body;
      seen.push(...page.entries.map(({ sequence }) => sequence));
      before = page.next;
    }
    expect(seen).toEqual(Array.from({ length: head.sequence }, (_, i) => head.sequence - i));
    const refused = await newest("outcome=refused&user=ada");
    expect(refused.length).toBe(2);
    expect(await newest("until=2020-01-01T00:00:00Z")).toEqual([]);
    expect((await newest("target=ada"))[0].target).toBe("ada");
    const lines = await exported();
    const verifier = new ChainVerifier([head]);
    for (const line of lines) verifier.add(line);
    expect(verifier.verdict()).toMatchObject({ ok: true, entries: head.sequence, head });
    expect(await exported(head.sequence - 1)).toEqual(lines.slice(-2));
    for (const query of ["limit=0", "limit=9999", "before=x", "outcome=maybe", "since=today"]) {
      expect((await node.call("GET", `/audit?${query}`)).status, query).toBe(400);
    }
  });

  test("each head goes to the journal", async () => {
    const { head } = (await node.call("GET", "/audit/heads")).body as AuditHeads;
    expect(node.lines.some((line) => line.includes(head.hash))).toBe(true);
  });
});

describe("bounds", () => {
  test("a thousand refused requests are a hundred entries and their number", async () => {
    const before = (await newest())[0].sequence;
    const refuse = () =>
      node.call("DELETE", "/volumes/x", undefined, { authorization: `Bearer ${"x".repeat(43)}` });
    for (let round = 0; round < 20; round++) {
      await Promise.all(Array.from({ length: 50 }, refuse));
    }
    const after = (await newest())[0].sequence;
    expect(after - before).toBeGreaterThan(50);
    expect(after - before).toBeLessThan(110);
    // A change is recorded all the same.
    const { body } = await node.call("POST", "/volumes", { name: "later", sizeBytes: 1 << 20 });
    expect((await newest("outcome=done"))[0].target).toBe(body.id);
  });
});

describe("over a restart", () => {
  test("the chain goes on; a torn end is cut, an edit is a condition", async () => {
    const heads = (await node.call("GET", "/audit/heads")).body as AuditHeads;
    await node.stop();
    appendFileSync(logFile(), '{"action":"half an en');
    await node.start();
    const verifier = new ChainVerifier([heads.head]);
    for (const line of await exported()) verifier.add(line);
    expect(verifier.verdict()).toMatchObject({ ok: true });
    const condition = async () =>
      ((await node.call("GET", "/conditions")).body as { id: string; status: string }[]).find(
        ({ id }) => id === "AUDIT_LOG_DAMAGED",
      )?.status;
    expect(await condition()).toBe("false");
    await node.stop();
    const text = readFileSync(logFile(), "utf8");
    writeFileSync(logFile(), text.replace('"user":"ada"', '"user":"eve"'));
    await node.start();
    expect(await condition()).toBe("true");
  });
});
