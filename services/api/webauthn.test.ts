import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import type { LogInChallenge, Session } from "./accounts-schema.ts";
import { FixtureBrowser } from "./browser.fixture.ts";
import { type FixtureNode, startFixtureNode } from "./identity-node.fixture.ts";
import type { ConsoleAddress, LogInMethods, SecurityKey } from "./identity-schema.ts";
import type { Condition } from "./schema.ts";
import { type Answering, FixtureSecurityKey } from "./security-key.fixture.ts";

/** The service over TLS, and keys in software that lie as they are told. */
const directory = mkdtempSync(join(tmpdir(), "keelson-webauthn-"));
const password = "a password of theirs";
let node: FixtureNode;
let count = 0;

interface Person {
  readonly user: string;
  readonly token: string;
  readonly key: FixtureSecurityKey;
  readonly registered: SecurityKey;
}

beforeAll(async () => {
  node = await startFixtureNode(join(directory, "node"));
});
beforeEach(() => {
  node.log.length = 0;
});
afterAll(async () => {
  await node?.stop();
  rmSync(directory, { recursive: true, force: true });
});

type Options = Record<string, unknown>;

async function newUser(): Promise<{ user: string; token: string }> {
  const user = `person-${++count}`;
  const roles = ["read-only"];
  await node.call("POST", "/users", { id: user, roles, password, mustChangePassword: false });
  const { token } = await node.call<Session>("POST", "/session", { user, password });
  return { user, token };
}

const ask = (token: string) =>
  node.call<Options>("POST", "/session/security-keys/options", { password }, token);
const register = (token: string, response: Options, name = "Key") =>
  node.call<SecurityKey>("POST", "/session/security-keys", { name, response }, token);

async function withKey(): Promise<Person> {
  const person = await newUser();
  const key = new FixtureSecurityKey();
  const registered = await register(person.token, key.register(await ask(person.token), node.url));
  return { ...person, key, registered };
}

/** As a browser does it: with cookies and Origin. */
async function post(browser: FixtureBrowser, path: string, body: unknown) {
  const page = await browser.open(`${node.url}/api/v1${path}`, {
    method: "POST",
    headers: { "content-type": "application/json", origin: node.url },
    body: JSON.stringify(body),
  });
  return { status: page.status, body: JSON.parse(page.text) as Options };
}

async function logIn(
  key: FixtureSecurityKey,
  lies: Partial<Answering> = {},
  browser = new FixtureBrowser(),
  challenge?: string,
) {
  const asked = await post(browser, "/login/security-key/options", { challenge });
  expect(asked.status).toBe(200);
  const response = key.answer(asked.body, node.url, lies);
  const answer = await post(browser, "/login/security-key", { challenge, response });
  return { ...answer, asked: asked.body, response, browser };
}

async function expectRefused(attempt: { status: number; body: Options }, why: RegExp) {
  expect(attempt.status).toBe(401);
  expect(attempt.body.title).toMatch(/security key/);
  expect(node.log.filter((line) => line.startsWith("log-in by security key refused"))).toEqual([
    expect.stringMatching(why),
  ]);
}

describe("registering", () => {
  test("a key stands in the account, with what matters of it and nothing else", async () => {
    const { token, key } = await withKey();
    const [listed] = await node.call<SecurityKey[]>(
      "GET",
      "/session/security-keys",
      undefined,
      token,
    );
    expect(listed).toMatchObject({
      ...{ id: key.id, name: "Key", rpId: "localhost", transports: ["usb"], usableHere: true },
      ...{ discoverable: true, backedUp: false, lastUsedAt: null, suspectedAt: null },
    });
    expect(listed).not.toHaveProperty("publicKey");
  });

  test("it asks for the password, which a session left open doesn't know", async () => {
    const { token } = await newUser();
    await expect(
      node.call("POST", "/session/security-keys/options", { password: "wrong" }, token),
    ).rejects.toThrow(/^401/);
  });

  test("an API token can't do it: the key would outlast its scope", async () => {
    const { token } = await newUser();
    const expiresAt = new Date(Date.now() + 3_600_000).toISOString();
    const permissions = ["node:read"];
    const body = { name: "t", permissions, expiresAt };
    const api = await node.call<{ token: string }>("POST", "/tokens", body, token);
    await expect(ask(api.token)).rejects.toThrow(/^403/);
  });

  test.each<[string, Partial<Answering>]>([
    ["another origin", { origin: "https://evil.example" }],
    ["another port", { origin: "https://localhost:1" }],
    ["no TLS", { origin: "http://localhost" }],
    ["another name", { rpId: "evil.example" }],
    ["a log-in's answer", { type: "webauthn.get" }],
    ["nobody there", { userPresent: false }],
    ["another challenge", { challenge: "c29tZXRoaW5nIGVsc2U" }],
  ])("refused: %s", async (_, lies) => {
    const { token } = await newUser();
    const key = new FixtureSecurityKey();
    const response = key.register(await ask(token), node.url, lies);
    await expect(register(token, response)).rejects.toThrow(/^400/);
    expect(await node.call("GET", "/session/security-keys", undefined, token)).toEqual([]);
  });

  test("a challenge is good once, and only in the session that asked", async () => {
    const [a, b] = [await newUser(), await newUser()];
    const key = new FixtureSecurityKey();
    const response = key.register(await ask(a.token), node.url);
    await expect(register(b.token, response)).rejects.toThrow(/^400/);
    await expect(register(a.token, response)).rejects.toThrow(/^400/);
    const again = key.register(await ask(a.token), node.url);
    await register(a.token, again);
    await expect(register(a.token, again)).rejects.toThrow(/^400/);
  });

  test("another session of the same user can't answer either", async () => {
    const { user, token } = await newUser();
    const other = await node.call<Session>("POST", "/session", { user, password });
    const response = new FixtureSecurityKey().register(await ask(token), node.url);
    await expect(register(other.token, response)).rejects.toThrow(/^400/);
  });

  test("a key that is somebody's can't become another's", async () => {
    const { key } = await withKey();
    const { token } = await newUser();
    await expect(register(token, key.register(await ask(token), node.url))).rejects.toThrow(/^409/);
  });

  test("nonsense is refused, not crashed upon", async () => {
    const { token } = await newUser();
    const good = new FixtureSecurityKey().register(await ask(token), node.url);
    const parts = good.response as Options;
    for (const change of [
      { attestationObject: "AAAA" },
      { attestationObject: "" },
      { clientDataJSON: "bm90IGpzb24" },
      { clientDataJSON: Buffer.from("null").toString("base64url") },
      { clientDataJSON: Buffer.from('{"challenge":{}}').toString("base64url") },
    ]) {
      const response = { ...good, response: { ...parts, ...change } };
      await expect(register(token, response)).rejects.toThrow(/^400/);
    }
    expect(node.log.filter((line) => line.startsWith("unexpected"))).toEqual([]);
  });
});

describe("log-in without a name", () => {
  test("the key says who it is", async () => {
    const { user, key } = await withKey();
    const { status, body, browser } = await logIn(key);
    expect(status).toBe(200);
    expect(body).toMatchObject({ user, roles: ["read-only"] });
    expect(await node.whoIs(browser.cookie(node.url, "__Host-keelson"))).toMatchObject({ user });
    expect(browser.cookie(node.url, "__Host-keelson-key")).toBeUndefined();
  });

  test.each<[string, Partial<Answering>, RegExp]>([
    ["another origin", { origin: "https://evil.example" }, /origin/],
    ["another port", { origin: "https://localhost:1" }, /origin/],
    ["another name", { rpId: "evil.example" }, /RP ID/],
    ["inside another site's frame", { crossOrigin: true }, /not asked/],
    ["its holder not verified", { userVerified: false }, /verif/],
    ["nobody there", { userPresent: false }, /present/],
    ["a registration's answer", { type: "webauthn.create" }, /type/],
    ["another user's name", { userHandle: "c29tZWJvZHkgZWxzZQ" }, /another user/],
    ["no user's name", { userHandle: undefined }, /another user/],
    ["a made-up challenge", { challenge: "bWFkZSB1cA" }, /not asked/],
  ])("refused: %s", async (_, lies, why) => {
    const { key } = await withKey();
    await expectRefused(await logIn(key, lies), why);
  });

  test("refused: a signature by another key under a registered id", async () => {
    const [mine, theirs] = [await withKey(), await withKey()];
    Object.assign(mine.key, { id: theirs.key.id });
    mine.key.userHandle = theirs.key.userHandle;
    await expectRefused(await logIn(mine.key), /signature/);
  });

  test("refused: a key that nobody registered, in the same words", async () => {
    const key = new FixtureSecurityKey();
    key.userHandle = "AAAA";
    const unknown = await logIn(key);
    await expectRefused(unknown, /no such key/);
    const { key: known } = await withKey();
    node.log.length = 0;
    const wrong = await logIn(known, { userVerified: false });
    expect(wrong.body).toEqual(unknown.body);
  });

  test("a challenge is good once, and only in the browser that asked", async () => {
    const { key } = await withKey();
    const { response, browser } = await logIn(key);
    expect((await post(browser, "/login/security-key", { response })).status).toBe(401);
    const asking = new FixtureBrowser();
    const asked = await post(asking, "/login/security-key/options", {});
    const answer = key.answer(asked.body, node.url);
    const thief = new FixtureBrowser();
    expect((await post(thief, "/login/security-key", { response: answer })).status).toBe(401);
    // The theft has ended it for its owner too.
    expect((await post(asking, "/login/security-key", { response: answer })).status).toBe(401);
  });

  test("another site's page can't begin or end it", async () => {
    const page = await new FixtureBrowser().open(`${node.url}/api/v1/login/security-key/options`, {
      method: "POST",
      headers: { "content-type": "application/json", origin: "https://evil.example" },
      body: "{}",
    });
    expect(page.status).toBe(403);
  });

  test("the Host header decides nothing", async () => {
    const page = await new FixtureBrowser().open(
      `${node.url.replace("localhost", "127.0.0.1")}/api/v1/login/security-key/options`,
      { method: "POST", headers: { "content-type": "application/json" }, body: "{}" },
    );
    expect(JSON.parse(page.text)).toMatchObject({ rpId: "localhost" });
  });

  test("a disabled user stays out", async () => {
    const { user, key } = await withKey();
    await node.call("PATCH", `/users/${user}`, { disabled: true });
    expect((await logIn(key)).status).toBe(401);
  });

  test("a deleted user's key is gone, also for the next one of that name", async () => {
    const { user, key } = await withKey();
    await node.call("DELETE", `/users/${user}`);
    await node.call("POST", "/users", { id: user, roles: ["admin"], password });
    expect((await logIn(key)).status).toBe(401);
  });
});

describe("a counter that goes back", () => {
  test.each([
    ["the same again", 5],
    ["an older one", 2],
    ["none any more", 0],
  ])("%s: refused, written down, and refused from then on", async (_, counter) => {
    const { user, token, key } = await withKey();
    expect((await logIn(key, { counter: 5 })).status).toBe(200);
    const copied = await logIn(key, { counter });
    expect(copied.status).toBe(401);
    expect(copied.body.title).toMatch(/copied/);
    expect(node.log.some((line) => line.startsWith("security key may have been copied"))).toBe(
      true,
    );
    expect((await logIn(key, { counter: 99 })).status).toBe(401);
    const [listed] = await node.call<SecurityKey[]>(
      "GET",
      "/session/security-keys",
      undefined,
      token,
    );
    expect(listed).toMatchObject({ usableHere: false, suspectedAt: expect.any(String) });
    await vi.waitFor(
      async () => {
        const conditions = await node.call<Condition[]>("GET", "/conditions");
        const told = conditions.filter(({ code }) => code === "SECURITY_KEY_SUSPECTED");
        expect(told.map(({ subject }) => subject)).toContain(`${user}: Key`);
      },
      { interval: 500 },
    );
  });

  test("a key that always says zero has none", async () => {
    const { key } = await withKey();
    expect((await logIn(key, { counter: 0 })).status).toBe(200);
    expect((await logIn(key, { counter: 0 })).status).toBe(200);
  });
});

describe("as the second step", () => {
  const begin = (user: string) => node.call<LogInChallenge>("POST", "/session", { user, password });

  test("the password alone opens nothing any more; password and key do", async () => {
    const { user, key } = await withKey();
    const challenge = await begin(user);
    expect(challenge).toMatchObject({ methods: ["security-key"] });
    expect(challenge).not.toHaveProperty("token");
    const done = await logIn(
      key,
      { userVerified: false, userHandle: undefined },
      undefined,
      challenge.challenge,
    );
    expect(done.asked.allowCredentials).toMatchObject([{ id: key.id }]);
    expect(done.body).toMatchObject({ user });
    const browser = new FixtureBrowser();
    const again = await post(browser, "/login/security-key/options", {
      challenge: challenge.challenge,
    });
    expect(again.status).toBe(401);
  });

  test("another user's key is not taken", async () => {
    const [a, b] = [await withKey(), await withKey()];
    const { challenge } = await begin(a.user);
    await expectRefused(await logIn(b.key, {}, undefined, challenge), /another user/);
  });

  test("a challenge of the second step can't be used to log in without a name, or back", async () => {
    const { user, key } = await withKey();
    const { challenge } = await begin(user);
    const browser = new FixtureBrowser();
    const asked = await post(browser, "/login/security-key/options", { challenge });
    const unverified = key.answer(asked.body, node.url, { userVerified: false });
    const answer = await post(browser, "/login/security-key", { response: unverified });
    expect(answer.status).toBe(401);
  });

  test("without keys the password is enough again", async () => {
    const { user, token, key } = await withKey();
    const remove = `/session/security-keys/${key.id}/remove`;
    await expect(node.call("POST", remove, { password: "wrong" }, token)).rejects.toThrow(/^401/);
    await node.call("POST", remove, { password }, token);
    expect(await begin(user)).toHaveProperty("token");
  });
});

describe("keeping", () => {
  test("rename; another user's key can't be renamed or removed", async () => {
    const [a, b] = [await withKey(), await withKey()];
    const path = `/session/security-keys/${a.key.id}`;
    expect(await node.call("PATCH", path, { name: "Blue one" }, a.token)).toMatchObject({
      name: "Blue one",
    });
    await expect(node.call("PATCH", path, { name: "x" }, b.token)).rejects.toThrow(/^404/);
    const remove = `${path}/remove`;
    await expect(node.call("POST", remove, { password }, b.token)).rejects.toThrow(/^404/);
    await expect(node.call("PATCH", path, { name: "a\nb" }, a.token)).rejects.toThrow(/^400/);
  });
});

describe("lost", () => {
  test("an administrator removes them; somebody who may less doesn't", async () => {
    const [lost, other] = [await withKey(), await newUser()];
    const path = `/users/${lost.user}/security-keys`;
    expect(await node.call("GET", path)).toMatchObject([{ id: lost.key.id }]);
    await expect(node.call("GET", path, undefined, other.token)).rejects.toThrow(/^403/);
    await expect(node.call("DELETE", path, undefined, other.token)).rejects.toThrow(/^403/);
    await node.call("DELETE", path);
    const opened = await node.call<Session>("POST", "/session", { user: lost.user, password });
    expect(opened.token).toBeDefined();
  });

  test("an administrator removes one of several; not by another user's name", async () => {
    const [mine, other] = [await withKey(), await withKey()];
    const { id } = mine.key;
    const removeOf = (user: string) => node.call("DELETE", `/users/${user}/security-keys/${id}`);
    await expect(removeOf(other.user)).rejects.toThrow(/404/);
    expect((await logIn(mine.key)).status).toBe(200);
    await removeOf(mine.user);
    expect((await logIn(mine.key)).status).toBe(401);
    expect((await logIn(other.key)).status).toBe(200);
    await expect(removeOf(mine.user)).rejects.toThrow(/404/);
  });

  test("with users:write alone nobody takes an administrator's keys away", async () => {
    const { user, token } = await newUser();
    await node.call("PATCH", `/users/${user}`, { roles: ["users"] });
    await expect(
      node.call("DELETE", "/users/admin/security-keys", undefined, token),
    ).rejects.toThrow(/^403/);
  });
});

describe("under a bare address", () => {
  test("no key can be used, and it says so", async () => {
    const { token, key } = await withKey();
    const before = await node.call<ConsoleAddress>("GET", "/console-address");
    await node.call("PUT", "/console-address", { url: "https://192.0.2.7", removeKeys: true });
    try {
      const methods = await node.call<LogInMethods>("GET", "/login/methods");
      expect(methods.securityKeyUrl).toBeNull();
      expect(methods.securityKeyProblem).toMatch(/host name/);
      await expect(ask(token)).rejects.toThrow(/host name/);
      const asked = await post(new FixtureBrowser(), "/login/security-key/options", {});
      expect(asked.body.title).toMatch(/can't be used/);
      expect(key.id).not.toBe("");
    } finally {
      await node.call("PUT", "/console-address", { url: before.url });
    }
  });

  test.each(["http://keelson.example.org", "keelson", "https://a/b", "https://u@a", "ftp://a"])(
    "%s is no address of a console",
    async (url) => {
      await expect(node.call("PUT", "/console-address", { url })).rejects.toThrow(/^400/);
    },
  );

  test("a new name ends the keys of the old one, and only if that is said", async () => {
    const { user } = await withKey();
    const moved = { url: "https://keelson.example.org" };
    await expect(node.call("PUT", "/console-address", moved)).rejects.toThrow(user);
    await node.call("PUT", "/console-address", { ...moved, removeKeys: true });
    await node.call("PUT", "/console-address", { url: node.url });
    const opened = await node.call<Session>("POST", "/session", { user, password });
    expect(opened.token).toBeDefined();
  });
});
