/** Users, roles, sessions, API tokens and the second factor, over HTTP against the real service. */
import { Secret, TOTP } from "otpauth";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Clock } from "./clock.ts";
import { password, TestNode } from "./platform.fixture.ts";
import { isTokenShaped } from "./tokens.ts";

/** The wall clock can be moved on; waits are counted by the other one, which can be too. */
let aheadMs = 0;
const clock: Clock = {
  bootMs: () => performance.now() + aheadMs,
  now: () => new Date(Date.now() + aheadMs).toISOString(),
};
const node = new TestNode(clock);
const secret = "a long enough password";

beforeAll(() => node.start());
afterAll(() => node.remove());

const as = (token: string) => ({ authorization: `Bearer ${token}` });
const call = (method: string, path: string, body?: unknown, token = node.token) =>
  node.call(method, path, body, as(token));

async function person(id: string, roles: string[]): Promise<string> {
  const user = { id, roles, password: secret, mustChangePassword: false };
  expect((await call("POST", "/users", user)).status).toBe(201);
  return await node.logIn(id, secret);
}
const inMs = (ms: number) => new Date(Date.parse(clock.now()) + ms).toISOString();

describe("users", () => {
  test("a new user must change the password first, and can do nothing else until then", async () => {
    const user = { id: "Anna", displayName: "Anna B.", roles: ["operator"], password: secret };
    const created = await call("POST", "/users", user);
    expect(created.body).toMatchObject({ id: "anna", mustChangePassword: true, isFirst: false });
    const token = await node.logIn("ANNA", secret);
    expect((await call("GET", "/session", undefined, token)).body).toMatchObject({
      ...{ user: "anna", displayName: "Anna B.", roles: ["operator"], mustChangePassword: true },
    });
    const refused = await call("GET", "/volumes", undefined, token);
    expect(refused).toMatchObject({
      status: 403,
      body: { title: expect.stringMatching(/must be changed first/) },
    });
    const change = (current: string, next: string) =>
      call("PUT", "/session/password", { current, next }, token);
    expect((await change(secret, secret)).status).toBe(400);
    expect((await change(secret, "short")).status).toBe(400);
    expect((await change(secret, "another password")).status).toBe(204);
    expect((await call("GET", "/volumes", undefined, token)).status).toBe(200);
    expect(node.holding("another password")).toEqual([]);
  });

  test("a change of roles counts with the next request of a running session", async () => {
    const token = await person("bert", ["read-only"]);
    const create = (name: string) =>
      call("POST", "/volumes", { name, sizeBytes: 1 << 20 }, token).then(({ status }) => status);
    expect(await create("bert-1")).toBe(403);
    await call("PATCH", "/users/bert", { roles: ["storage"] });
    expect(await create("bert-2")).toBe(201);
    await call("PATCH", "/users/bert", { roles: [] });
    expect(await create("bert-3")).toBe(403);
  });

  test("who is disabled is out at once, with sessions, tokens, streams and password", async () => {
    const token = await person("carl", ["storage"]);
    const scope = { name: "t", permissions: ["storage:read"], expiresAt: inMs(3_600_000) };
    const api = (await call("POST", "/tokens", scope, token)).body.token;
    const stream = await fetch(`${node.http}/api/v1/events`, { headers: as(token) });
    const ended = stream.text();
    await call("PATCH", "/users/carl", { disabled: true });
    await ended;
    expect((await call("GET", "/session", undefined, token)).status).toBe(401);
    expect((await call("GET", "/volumes", undefined, api)).status).toBe(401);
    const logIn = await node.call("POST", "/session", { user: "carl", password: secret });
    expect(logIn).toMatchObject({ status: 401, body: { title: "Wrong user name or password." } });
    await call("PATCH", "/users/carl", { disabled: false });
    // The token is the user's again, a session that was ended isn't.
    expect((await call("GET", "/volumes", undefined, api)).status).toBe(200);
    expect((await call("GET", "/session", undefined, token)).status).toBe(401);
  });

  test("a password set by an administrator ends sessions and must be changed", async () => {
    const token = await person("dora", ["storage"]);
    expect((await call("PUT", "/users/dora/password", { password: "set by admin" })).status).toBe(
      204,
    );
    expect((await call("GET", "/session", undefined, token)).status).toBe(401);
    const next = await node.logIn("dora", "set by admin");
    expect((await call("GET", "/volumes", undefined, next)).status).toBe(403);
    expect((await call("PUT", "/users/admin/password", { password: secret })).status).toBe(400);
  });

  test("who is deleted leaves nothing, and the name starts from nothing", async () => {
    const token = await person("emil", ["storage"]);
    const scope = { name: "t", permissions: ["storage:read"], expiresAt: inMs(3_600_000) };
    const api = (await call("POST", "/tokens", scope, token)).body.token;
    expect((await call("DELETE", "/users/emil")).status).toBe(204);
    for (const each of [token, api]) {
      expect((await call("GET", "/volumes", undefined, each)).status).toBe(401);
    }
    await person("emil", []);
    expect((await call("GET", "/users/emil/tokens")).body).toEqual([]);
    expect((await call("GET", "/volumes", undefined, api)).status).toBe(401);
  });

  test("the first user stays: not deleted, not disabled, not without its role", async () => {
    const admin = await person("second-admin", ["admin"]);
    for (const [method, path, body] of [
      ["DELETE", "/users/admin", undefined],
      ["PATCH", "/users/admin", { disabled: true }],
      ["PATCH", "/users/admin", { roles: ["operator"] }],
    ] as const) {
      const answer = await call(method, path, body, admin);
      expect(answer).toMatchObject({
        status: 400,
        body: { title: expect.stringMatching(/The first user, admin/) },
      });
    }
    for (const [method, body] of [["DELETE"], ["PATCH", { disabled: true }]] as const) {
      const answer = await call(method, "/users/second-admin", body, admin);
      expect(answer).toMatchObject({
        status: 400,
        body: { title: expect.stringMatching(/yourself/) },
      });
    }
  });

  test.each([
    [{ id: "a b" }, /user name is/],
    [{ id: "../x" }, /user name is/],
    [{ id: "" }, /user name is/],
    [{ password: "short" }, /at least 8/],
    [{ roles: ["emperor"] }, /no role emperor/],
    [{ displayName: "a\u0007b" }, /control characters/],
    [{ isAdmin: true }, /Unrecognized key/],
  ])("a user like %j is refused with why", async (change, message) => {
    const user = { id: "zoe", roles: [], password: secret, ...change };
    const answer = await call("POST", "/users", user);
    expect(answer.status).toBe(400);
    expect(answer.body.title).toMatch(message);
  });
});

describe("nobody can give, or take over, more than they have", () => {
  test("with users:write alone nobody becomes an administrator", async () => {
    const keeper = await person("keeper", ["users"]);
    const tries: [string, string, unknown][] = [
      ["POST", "/users", { id: "evil", roles: ["admin"], password: secret }],
      ["PATCH", "/users/keeper", { roles: ["users", "storage"] }],
      ["POST", "/roles", { id: "mighty", permissions: ["storage:write"] }],
      ["PUT", "/users/admin/password", { password: "taken over now" }],
      ["DELETE", "/users/admin/totp", undefined],
      ["DELETE", "/users/admin/sessions", undefined],
      ["DELETE", "/users/admin/tokens/x", undefined],
      ["DELETE", "/users/anna", undefined],
      ["POST", "/tokens", { name: "t", permissions: ["audit:read"], expiresAt: inMs(60_000) }],
    ];
    for (const [method, path, body] of tries) {
      const answer = await call(method, path, body, keeper);
      expect(answer, `${method} ${path}`).toMatchObject({
        status: 403,
        body: { code: "PERMISSION_DENIED" },
      });
    }
    const equal = { id: "keeper-2", roles: ["users"], password: secret };
    expect((await call("POST", "/users", equal, keeper)).status).toBe(201);
    expect((await call("DELETE", "/users/keeper-2", undefined, keeper)).status).toBe(204);
  });

  test("nor by an API token of theirs with less scope", async () => {
    const scope = { name: "u", permissions: ["users:write"], expiresAt: inMs(3_600_000) };
    const { token } = (await call("POST", "/tokens", scope)).body;
    const user = { id: "by-token", roles: ["storage"], password: secret };
    expect((await call("POST", "/users", user, token)).status).toBe(403);
  });
});

describe("roles", () => {
  test("one's own are made, changed while in use, and deleted when nobody has them", async () => {
    const role = { id: "viewer", description: "Looks.", permissions: ["storage:write"] };
    expect((await call("POST", "/roles", role)).body).toMatchObject({
      ...{ builtIn: false, users: [], permissions: ["storage:read", "storage:write"] },
    });
    expect((await call("POST", "/roles", role)).status).toBe(409);
    const token = await person("fred", ["viewer"]);
    expect((await call("GET", "/clients", undefined, token)).status).toBe(403);
    await call("PATCH", "/roles/viewer", { permissions: ["netboot:read"] });
    expect((await call("GET", "/clients", undefined, token)).status).toBe(200);
    expect((await call("GET", "/volumes", undefined, token)).status).toBe(403);
    const refused = await call("DELETE", "/roles/viewer");
    expect(refused).toMatchObject({
      status: 409,
      body: { code: "IN_USE", title: expect.stringMatching(/fred/) },
    });
    await call("PATCH", "/users/fred", { roles: [] });
    expect((await call("DELETE", "/roles/viewer")).status).toBe(204);
  });

  test("those built in stay as they are", async () => {
    expect((await call("DELETE", "/roles/operator")).status).toBe(400);
    expect((await call("PATCH", "/roles/operator", { permissions: [] })).status).toBe(400);
    expect((await call("POST", "/roles", { id: "admin", permissions: [] })).status).toBe(409);
    expect((await call("POST", "/roles", { id: "x", permissions: ["all"] })).status).toBe(400);
  });
});

describe("sessions", () => {
  test("one's own are listed and ended, others' only with users:write", async () => {
    const first = await person("gina", []);
    const second = await node.logIn("gina", secret);
    const list = (await call("GET", "/sessions", undefined, second)).body;
    expect(list).toHaveLength(2);
    expect(list[0]).toMatchObject({ user: "gina", how: "password", address: "127.0.0.1" });
    const other = list.find((session: { current: boolean }) => !session.current);
    expect((await call("DELETE", `/sessions/${other.id}`, undefined, second)).status).toBe(204);
    expect((await call("GET", "/session", undefined, first)).status).toBe(401);
    const [admins] = (await call("GET", "/users/admin/sessions")).body;
    expect((await call("DELETE", `/sessions/${admins.id}`, undefined, second)).status).toBe(404);
    const third = await node.logIn("gina", secret);
    expect((await call("DELETE", "/sessions", undefined, third)).status).toBe(204);
    expect((await call("GET", "/session", undefined, second)).status).toBe(401);
    expect((await call("DELETE", "/users/gina/sessions")).status).toBe(204);
    expect((await call("GET", "/session", undefined, third)).status).toBe(401);
  });
});

describe("API tokens", () => {
  const make = (permissions: string[], expiresAt = inMs(3_600_000), token = node.token) =>
    call("POST", "/tokens", { name: "ci", permissions, expiresAt }, token);

  test("shown once, stored as a digest, listed with its last use, revoked at once", async () => {
    const { body: created } = await make(["storage:read"]);
    expect(created.token).toMatch(/^keelson_[0-9A-Za-z]{48}$/);
    expect(isTokenShaped(created.token)).toBe(true);
    expect((await call("GET", "/volumes", undefined, created.token)).status).toBe(200);
    const listed = (await call("GET", "/tokens")).body.find(
      ({ id }: { id: string }) => id === created.id,
    );
    expect(listed.token).toBeUndefined();
    expect(listed.lastUsedFrom).toBe("127.0.0.1");
    expect(node.holding(created.token)).toEqual([]);
    expect((await call("DELETE", `/tokens/${created.id}`)).status).toBe(204);
    expect((await call("GET", "/volumes", undefined, created.token)).status).toBe(401);
  });

  test("it may no more than its user may now", async () => {
    const user = await person("hugo", ["storage"]);
    const { token } = (await make(["storage:write"], inMs(60_000), user)).body;
    const volume = (name: string) =>
      call("POST", "/volumes", { name, sizeBytes: 1 << 20 }, token).then(({ status }) => status);
    expect(await volume("hugo-1")).toBe(201);
    await call("PATCH", "/users/hugo", { roles: ["read-only"] });
    expect(await volume("hugo-2")).toBe(403);
    expect((await call("GET", "/volumes", undefined, token)).status).toBe(200);
    // And no more than its scope, whatever its user may.
    await call("PATCH", "/users/hugo", { roles: ["admin"] });
    expect((await call("GET", "/clients", undefined, token)).status).toBe(403);
  });

  test("it can't log out people, make tokens, change passwords or second factors", async () => {
    const { token } = (await make(["users:write"])).body;
    const tries: [string, string, unknown][] = [
      ["POST", "/tokens", { name: "x", permissions: ["users:read"], expiresAt: inMs(60_000) }],
      ["PUT", "/session/password", { current: password, next: "another one" }],
      ["POST", "/session/totp", { password }],
      ["DELETE", "/sessions", undefined],
    ];
    for (const [method, path, body] of tries) {
      expect((await call(method, path, body, token)).status, path).toBe(403);
    }
  });

  test("it expires; never, yesterday and in two years are refused", async () => {
    const { token } = (await make(["node:read"], inMs(60_000))).body;
    expect((await call("GET", "/conditions", undefined, token)).status).toBe(200);
    aheadMs += 61_000;
    expect((await call("GET", "/conditions", undefined, token)).status).toBe(401);
    for (const expiresAt of [inMs(-1000), inMs(2 * 365 * 86_400_000), "never", ""]) {
      expect((await make(["node:read"], expiresAt)).status, expiresAt).toBe(400);
    }
    const without = await call("POST", "/tokens", { name: "x", permissions: ["node:read"] });
    expect(without.status).toBe(400);
  });

  test("malformed ones are refused: cut, longer, another checksum, another's id", async () => {
    const { token } = (await make(["node:read"])).body as { token: string };
    const swap = (text: string, at: number) =>
      text.slice(0, at) + (text[at] === "a" ? "b" : "a") + text.slice(at + 1);
    const bad = [
      token.slice(0, -1),
      `${token}a`,
      ...Array.from({ length: 48 }, (_, index) => swap(token, 8 + index)),
      token.replace("keelson_", "keelson-"),
      `keelson_${"0".repeat(48)}`,
    ];
    for (const each of bad) {
      expect(isTokenShaped(each), each).toBe(false);
      expect((await call("GET", "/conditions", undefined, each)).status, each).toBe(401);
    }
    expect((await call("GET", "/conditions", undefined, token)).status).toBe(200);
  });
});

describe("TOTP", () => {
  const wrongCode = (right: string) => String((Number(right) + 1) % 1_000_000).padStart(6, "0");
  const begin = (user: string) => node.call("POST", "/session", { user, password: secret });
  const finish = (challenge: string, code: string) =>
    node.call("POST", "/session/second-factor", { challenge, code });

  async function enrolled(id: string) {
    const token = await person(id, ["storage"]);
    const wrong = await call("POST", "/session/totp", { password: "not it" }, token);
    expect(wrong.status).toBe(401);
    const { url, secret: base32 } = (
      await call("POST", "/session/totp", { password: secret }, token)
    ).body;
    expect(url).toMatch(new RegExp(`^otpauth://totp/Keelson.*${id}\\?.*secret=${base32}`));
    const totp = new TOTP({ secret: Secret.fromBase32(base32) });
    const code = () => totp.generate({ timestamp: Date.parse(clock.now()) });
    return { token, code, base32 };
  }

  test("enrolment asks for nothing until a code confirms it; then log-in has two steps", async () => {
    const { token, code, base32 } = await enrolled("ida");
    expect((await begin("ida")).status).toBe(200);
    expect((await call("GET", "/session/totp", undefined, token)).body.state).toBe("pending");
    const confirm = (given: string) =>
      call("POST", "/session/totp/confirm", { code: given }, token);
    expect((await confirm(wrongCode(code()))).status).toBe(400);
    const used = code();
    const { codes } = (await confirm(used)).body;
    expect(new Set(codes).size).toBe(10);
    expect((await call("POST", "/session/totp", { password: secret }, token)).status).toBe(409);
    const first = await begin("ida");
    expect(first.status).toBe(202);
    expect(first.body).toMatchObject({ methods: ["totp", "recovery-code"] });
    expect(first.body.token).toBeUndefined();
    expect(first.headers.get("set-cookie")).toBeNull();
    // The code that confirmed is used up; so is any that has logged in.
    expect((await finish(first.body.challenge, used)).status).toBe(401);
    aheadMs += 30_000;
    const session = await finish(first.body.challenge, code());
    expect(session.body).toMatchObject({ user: "ida", token: expect.any(String) });
    const again = await begin("ida");
    expect((await finish(again.body.challenge, code())).status).toBe(401);
    expect((await finish(first.body.challenge, code())).status).toBe(401);
    // A recovery code is good once, however it is typed.
    const typed = codes[3].toUpperCase().replaceAll("-", " ");
    expect((await finish(again.body.challenge, typed)).status).toBe(200);
    const third = await begin("ida");
    expect((await finish(third.body.challenge, codes[3])).status).toBe(401);
    expect((await call("GET", "/session/totp", undefined, token)).body).toEqual({
      ...{ state: "on", recoveryCodesLeft: 9 },
    });
    expect(node.holding(base32)).toEqual([]);
    for (const each of codes) expect(node.holding(each)).toEqual([]);
  });

  test("the same code twice at once logs in once", async () => {
    const { token, code } = await enrolled("jan");
    await call("POST", "/session/totp/confirm", { code: code() }, token);
    aheadMs += 30_000;
    const [a, b] = await Promise.all([begin("jan"), begin("jan")]);
    const given = code();
    const answers = await Promise.all(
      [a, b].map(({ body }) => finish(body.challenge, given).then(({ status }) => status)),
    );
    expect(answers.sort()).toEqual([200, 401]);
  });

  test("it is turned off by its user's password, or by users:write; then nothing is asked", async () => {
    const { token, code } = await enrolled("kai");
    await call("POST", "/session/totp/confirm", { code: code() }, token);
    const off = (given: string) =>
      call("POST", "/session/totp/disable", { password: given }, token);
    expect((await off("not it")).status).toBe(401);
    expect((await off(secret)).status).toBe(204);
    expect((await begin("kai")).status).toBe(200);
    const { url } = (await call("POST", "/session/totp", { password: secret }, token)).body;
    expect(url).toContain("otpauth://");
    expect((await call("DELETE", "/users/kai/totp")).status).toBe(204);
    expect((await call("GET", "/session/totp", undefined, token)).body.state).toBe("off");
  });

  test("codes are guessed a few times only; a recovery code still gets in", async () => {
    const { token, code } = await enrolled("lea");
    const { codes } = (await call("POST", "/session/totp/confirm", { code: code() }, token)).body;
    const statuses: number[] = [];
    for (let round = 0; round < 4; round++) {
      const { challenge } = (await begin("lea")).body;
      for (let guess = 0; guess < 6; guess++) {
        statuses.push((await finish(challenge, wrongCode(code()))).status);
      }
    }
    expect(statuses.filter((status) => status === 429).length).toBeGreaterThan(0);
    const { challenge } = (await begin("lea")).body;
    aheadMs += 1000;
    expect((await finish(challenge, code())).status).toBe(429);
    expect((await finish(challenge, codes[0])).status).toBe(200);
  });

  test("a challenge ends with its time, and with the password it followed", async () => {
    const { token, code } = await enrolled("max");
    await call("POST", "/session/totp/confirm", { code: code() }, token);
    const late = (await begin("max")).body.challenge;
    aheadMs += 5 * 60_000 + 1000;
    expect((await finish(late, code())).status).toBe(401);
    const { challenge } = (await begin("max")).body;
    await call("PUT", "/users/max/password", { password: "set by admin" });
    expect((await finish(challenge, code())).status).toBe(401);
  });
});
