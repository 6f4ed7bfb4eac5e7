/** Accounts over the event stream and as lists: who hears of what, and pages, filters and sorts. */
import { setTimeout as delay } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { TestNode } from "./platform.fixture.ts";
import type { ApiEvent } from "./schema.ts";

const node = new TestNode();
const secret = "a password of somebody";
const stops: AbortController[] = [];
beforeAll(async () => {
  await node.start();
  for (const [id, roles] of [
    ["ann", ["users"]],
    ["ben", ["read-only"]],
  ] as const) {
    const user = { id, roles, password: secret, mustChangePassword: false };
    expect((await node.call("POST", "/users", user)).status).toBe(201);
  }
});
afterAll(async () => {
  for (const stop of stops) stop.abort();
  await node.remove();
});

/** What this token hears from now on. */
async function listen(token: string): Promise<ApiEvent[]> {
  const stop = new AbortController();
  stops.push(stop);
  const answer = await fetch(`${node.http}/api/v1/events`, {
    headers: { authorization: `Bearer ${token}` },
    signal: stop.signal,
  });
  const heard: ApiEvent[] = [];
  void (async () => {
    let text = "";
    for await (const part of answer.body!.pipeThrough(new TextDecoderStream())) {
      text += part;
      const blocks = text.split("\n\n");
      text = blocks.pop()!;
      for (const block of blocks) {
        const data = /^data: (.*)$/m.exec(block)?.[1];
        if (block.includes("event: change")) heard.push(JSON.parse(data!));
      }
    }
  })().catch(() => {});
  // The stream's own session is told of too.
  await delay(150);
  heard.length = 0;
  return heard;
}
const of = (events: ApiEvent[], resource: string) =>
  events.filter((event) => event.resource === resource);

describe("events", () => {
  test("users and roles: to whoever may read them, as their GET shows them", async () => {
    const admin = await listen(node.token);
    const ben = await listen(await node.logIn("ben", secret));
    await node.call("POST", "/roles", { id: "night", permissions: ["storage:read"] });
    await node.call("PATCH", "/users/ann", { roles: ["users", "night"] });
    const { body: ann } = await node.call("GET", "/users/ann");
    await expect
      .poll(() => of(admin, "users").at(-1))
      .toEqual({
        resource: "users",
        id: "ann",
        value: ann,
      });
    await expect
      .poll(() => of(admin, "roles").at(-1))
      .toMatchObject({ id: "night", value: { users: ["ann"] } });
    await node.call("PATCH", "/users/ann", { roles: ["users"] });
    await node.call("DELETE", "/roles/night");
    await expect.poll(() => of(admin, "roles").at(-1)).toMatchObject({ id: "night", value: null });
    expect([...of(ben, "users"), ...of(ben, "roles")]).toEqual([]);
  });

  test("sessions and tokens: to their owner alone, also when they end", async () => {
    const admin = await listen(node.token);
    const benToken = await node.logIn("ben", secret);
    const ben = await listen(benToken);
    const as = { authorization: `Bearer ${benToken}` };
    const expiresAt = new Date(Date.now() + 3_600_000).toISOString();
    const given = { name: "t", permissions: ["storage:read"], expiresAt };
    const { body: made } = await node.call("POST", "/tokens", given, as);
    await node.logIn("ben", secret);
    await expect.poll(() => of(ben, "tokens").length).toBe(1);
    await expect.poll(() => of(ben, "sessions").length).toBe(1);
    expect(of(ben, "tokens")[0].value).not.toHaveProperty("digest");
    expect(of(ben, "tokens")[0].value).not.toHaveProperty("token");
    const [session] = of(ben, "sessions");
    expect(session.value).toMatchObject({ user: "ben", current: false });
    const { body: sessions } = await node.call("GET", "/sessions", undefined, as);
    expect(sessions).toContainEqual(session.value);
    await node.call("DELETE", `/tokens/${made.id}`, undefined, as);
    await node.call("DELETE", `/sessions/${session.id}`, undefined, as);
    await expect
      .poll(() => ben.filter(({ value }) => value === null).map(({ id }) => id))
      .toEqual(expect.arrayContaining([made.id, session.id]));
    // Not even that there were any, although the administrator might ask.
    expect([...of(admin, "tokens"), ...of(admin, "sessions")]).toEqual([]);
    expect(of(admin, "users").some(({ id }) => id === "ben")).toBe(true);
  });

  test("one's own session is told as the current one", async () => {
    const token = await node.logIn("ann", secret);
    const heard = await listen(token);
    await node.call(
      "PUT",
      "/session/password",
      { current: secret, next: `${secret}!` },
      {
        authorization: `Bearer ${token}`,
      },
    );
    const { body } = await node.call("GET", "/sessions", undefined, {
      authorization: `Bearer ${token}`,
    });
    for (const { value } of of(heard, "sessions").filter((event) => event.value !== null)) {
      expect(body).toContainEqual(value);
    }
    expect(body.filter(({ current }: { current: boolean }) => current)).toHaveLength(1);
  });

  test("the identity provider, the console's address and the audit target", async () => {
    const admin = await listen(node.token);
    const ann = await listen(await node.logIn("ann", `${secret}!`));
    const provider = {
      ...{ name: "Office", issuer: "https://login.invalid", clientId: "k", clientSecret: "s3cret" },
    };
    await node.call("PUT", "/identity-provider", provider);
    await node.call("PUT", "/console-address", { url: "https://console.example.org" });
    await node.call("PUT", "/settings/audit-target", { url: "https://collector.invalid/heads" });
    for (const resource of ["identity-provider", "console-address", "settings/audit-target"]) {
      await expect.poll(() => of(admin, resource).length, { message: resource }).toBeGreaterThan(0);
    }
    const told = of(admin, "identity-provider").at(-1)!;
    expect(told.value).toEqual((await node.call("GET", "/identity-provider")).body);
    expect(JSON.stringify(admin)).not.toContain("s3cret");
    await node.call("DELETE", "/identity-provider");
    await node.call("DELETE", "/settings/audit-target");
    await expect.poll(() => of(admin, "identity-provider").at(-1)?.value).toBeNull();
    expect(ann.some(({ resource }) => /provider|address|target/.test(resource))).toBe(false);
  });
});

describe("lists", () => {
  const paths = [
    ...["/users", "/roles", "/sessions", "/tokens"],
    ...["/users/admin/sessions", "/users/admin/tokens", "/users/admin/security-keys"],
    ...["/users/admin/identities", "/session/identities", "/session/security-keys"],
  ];

  test.each(paths)(
    "%s takes limit, cursor, sort and search, and refuses what there isn't",
    async (path) => {
      const { body: whole } = await node.call("GET", path);
      expect((await node.call("GET", `${path}?limit=1000&sort=-id`)).body).toEqual(
        [...whole].sort((a, b) => (a.id.toLowerCase() < b.id.toLowerCase() ? 1 : -1)),
      );
      const first = await node.call("GET", `${path}?limit=1`);
      expect(first.status).toBe(200);
      expect(first.headers.get("x-total-count")).toBe(String(whole.length));
      expect(first.body).toHaveLength(Math.min(1, whole.length));
      expect(first.headers.has("link")).toBe(whole.length > 1);
      expect((await node.call("GET", `${path}?search=no-such-text`)).body).toEqual([]);
      expect((await node.call("GET", `${path}?colour=red`)).status).toBe(400);
      expect((await node.call("GET", `${path}?limit=0`)).status).toBe(400);
    },
  );

  test("pages of users come to the whole list; a filter names a field", async () => {
    const seen: string[] = [];
    let next: string | undefined = "/users?limit=1&sort=id";
    while (next !== undefined) {
      const { body, headers }: { body: { id: string }[]; headers: Headers } = await node.call(
        "GET",
        next,
      );
      seen.push(...body.map(({ id }) => id));
      next = /<\/api\/v1([^>]+)>/.exec(headers.get("link") ?? "")?.[1];
    }
    expect(seen).toEqual(["admin", "ann", "ben"]);
    const first = await node.call("GET", "/users?isFirst=true");
    expect(first.body.map(({ id }: { id: string }) => id)).toEqual(["admin"]);
    const own = await node.call("GET", "/roles?builtIn=false");
    expect(own.body).toEqual([]);
  });
});
