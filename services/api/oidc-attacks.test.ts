import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { FixtureBrowser, type Page } from "./browser.fixture.ts";
import { type FixtureNode, startFixtureNode } from "./identity-node.fixture.ts";
import { type Lies, type LyingProvider, startLyingProvider } from "./lying-provider.fixture.ts";
import { logInFailures } from "./oidc-failures.ts";

/** The service over TLS against a provider that lies: nobody gets in, and everybody is told why. */
const directory = mkdtempSync(join(tmpdir(), "keelson-oidc-attacks-"));
let node: FixtureNode;
let provider: LyingProvider;

const settings = () => ({
  ...{ name: "Office", issuer: provider.origin, clientId: provider.clientId },
  clientSecret: provider.clientSecret,
  groupRoles: [
    { group: "it", role: "admin" },
    { group: "desk", role: "read-only" },
  ],
  caCertificate: provider.caCertificate,
});

beforeAll(async () => {
  node = await startFixtureNode(join(directory, "node"));
  provider = await startLyingProvider();
});
beforeEach(async () => {
  provider.lies = {};
  provider.subject = { sub: "mallory", preferred_username: "mallory", groups: ["desk"] };
  // New settings: nothing that is cached of an earlier lie.
  await node.call("PUT", "/identity-provider", settings());
  node.log.length = 0;
});
afterAll(async () => {
  await node?.stop();
  await provider?.close();
  rmSync(directory, { recursive: true, force: true });
});

const startUrl = (returnTo = "/") =>
  `${node.url}/api/v1/login/oidc/start?returnTo=${encodeURIComponent(returnTo)}`;
const isCallback = (url: URL) => url.pathname === "/api/v1/login/oidc/callback";
const sessionOf = (browser: FixtureBrowser) => browser.cookie(node.url, "__Host-keelson");

async function attempt(lies: Lies = {}, browser = new FixtureBrowser()) {
  provider.lies = lies;
  const page = await browser.visit(startUrl());
  return { page, browser };
}

/** Nobody in, a known reason for the user, one line for the log, and no secret in either. */
async function expectRefused(page: Page, browser: FixtureBrowser, why: string): Promise<string> {
  expect(sessionOf(browser)).toBeUndefined();
  const query = new URLSearchParams(page.url.hash.split("?")[1]);
  expect(`${query.get("login")}`).toBe(why);
  expect(logInFailures).toHaveProperty(why);
  const reference = query.get("reference")!;
  expect(reference).toMatch(/^[a-z2-7]{8}$/);
  const lines = node.log.filter((line) => line.includes(reference));
  expect(lines).toHaveLength(1);
  expect(lines[0]).toContain("127.0.0.1");
  const everything = node.log.join("\n") + page.url.href;
  for (const secret of [provider.clientSecret, "access-token-that-is-secret", "eyJ"]) {
    expect(everything).not.toContain(secret);
  }
  return lines[0];
}

test("without a lie one gets in", async () => {
  const { page, browser } = await attempt();
  expect(page.url.href).toBe(`${node.url}/#/`);
  expect(await node.whoIs(sessionOf(browser))).toMatchObject({
    user: "mallory",
    roles: ["read-only"],
  });
});

describe("the ID token", () => {
  const hour = 3600;
  const now = () => Math.floor(Date.now() / 1000);
  const lies: [name: string, lies: Lies, why: string, logged: RegExp][] = [
    [
      "is another issuer's",
      { claims: (claims) => ({ ...claims, iss: "https://login.example.org" }) },
      "answer-untrusted",
      /iss/,
    ],
    [
      "is for another audience",
      { claims: (claims) => ({ ...claims, aud: "another-client" }) },
      "answer-untrusted",
      /aud/,
    ],
    [
      "is for us and somebody else",
      { claims: (claims) => ({ ...claims, aud: ["keelson", "x"], azp: "x" }) },
      "answer-untrusted",
      /azp|aud/,
    ],
    [
      "has another nonce",
      { claims: (claims) => ({ ...claims, nonce: "another" }) },
      "answer-untrusted",
      /nonce/,
    ],
    [
      "has no nonce",
      { claims: (claims) => ({ ...claims, nonce: undefined }) },
      "answer-untrusted",
      /nonce/,
    ],
    [
      "has expired",
      { claims: (claims) => ({ ...claims, iat: now() - hour, exp: now() - hour / 2 }) },
      "answer-expired",
      /exp/,
    ],
    [
      "never ends",
      { claims: (claims) => ({ ...claims, exp: undefined }) },
      "answer-untrusted",
      /exp/,
    ],
    [
      "comes from the future",
      { claims: (claims) => ({ ...claims, iat: now() + hour, exp: now() + 2 * hour }) },
      "answer-expired",
      /future/,
    ],
    [
      "is not good yet",
      { claims: (claims) => ({ ...claims, nbf: now() + hour }) },
      "answer-expired",
      /nbf/,
    ],
    [
      "has no subject",
      { claims: (claims) => ({ ...claims, sub: undefined }) },
      "answer-untrusted",
      /sub/,
    ],
    [
      "has an empty subject",
      { claims: (claims) => ({ ...claims, sub: "" }) },
      "answer-untrusted",
      /sub/,
    ],
    [
      "has a subject without end",
      { claims: (claims) => ({ ...claims, sub: "s".repeat(5000) }) },
      "answer-untrusted",
      /subject/,
    ],
    ["is signed by an unknown key", { signature: "unknown-key" }, "answer-untrusted", /signature/],
    ["was changed after it was signed", { signature: "broken" }, "answer-untrusted", /signature/],
    ["is signed by nobody (none)", { signature: "none" }, "answer-untrusted", /JWS|alg|key/],
    [
      "is signed with the client's secret",
      { signature: "client-secret" },
      "answer-untrusted",
      /JWS|alg/,
    ],
    [
      "is signed with the public key as secret",
      { signature: "public-key" },
      "answer-untrusted",
      /JWS|alg/,
    ],
    [
      "is missing",
      { tokenAnswer: (answer) => ({ ...answer, id_token: undefined }) },
      "answer-untrusted",
      /id_token/,
    ],
    [
      "is no token",
      { tokenAnswer: (answer) => ({ ...answer, id_token: "a.b" }) },
      "answer-untrusted",
      /JWT/,
    ],
    [
      "is a number",
      { tokenAnswer: (answer) => ({ ...answer, id_token: 7 }) },
      "answer-untrusted",
      /id_token/,
    ],
  ];
  test.each(lies)("%s", async (_, told, why, logged) => {
    const { page, browser } = await attempt(told);
    expect(await expectRefused(page, browser, why)).toMatch(logged);
  });
});

describe("what it says of people", () => {
  test.each([
    ["a number", 7],
    ["an object", { it: true }],
    ["a list of objects", [{ name: "it" }]],
    ["a list with a list", [["it"]]],
    ["far too many", Array.from({ length: 3000 }, (_, i) => `g${i}`)],
  ])("groups that are %s let nobody in", async (_, groups) => {
    provider.subject = { ...provider.subject, groups };
    const { page, browser } = await attempt();
    expect(await expectRefused(page, browser, "answer-untrusted")).toMatch(/groups/);
  });

  test.each([
    [{ preferred_username: 7 }, "answer-untrusted"],
    [{ preferred_username: "../admin" }, "answer-untrusted"],
    [{ preferred_username: "admin\u0000" }, "answer-untrusted"],
    [{ preferred_username: "" }, "answer-untrusted"],
    [{ preferred_username: "admin" }, "name-taken"],
    [{ preferred_username: " ADMIN " }, "name-taken"],
    [{ groups: [] }, "no-role"],
    [{ groups: "unknown" }, "no-role"],
    [{ groups: ["__proto__", "constructor"] }, "no-role"],
  ])("a new person with %j: %s", async (claims, why) => {
    provider.subject = { ...provider.subject, sub: `new-${why}`, ...claims };
    const { page, browser } = await attempt();
    await expectRefused(page, browser, why);
  });

  test("admin stays local even if a record says otherwise", async () => {
    await node.call("POST", "/users", { id: "eve", roles: ["read-only"], password: "a password" });
    provider.subject = { ...provider.subject, sub: "e", preferred_username: "eve" };
    const { page, browser } = await attempt();
    await expectRefused(page, browser, "name-taken");
  });

  test("userinfo about somebody else is not taken", async () => {
    provider.subject = { sub: "mallory", preferred_username: "mallory" };
    const { page, browser } = await attempt({ userinfo: { sub: "vera", groups: ["it"] } });
    expect(await expectRefused(page, browser, "answer-untrusted")).toMatch(/sub/);
  });

  test("userinfo can't overrule what was signed", async () => {
    provider.subject = { sub: "mallory", groups: ["desk"] };
    const { browser } = await attempt({
      userinfo: { sub: "mallory", preferred_username: "mallory", groups: ["it"] },
    });
    expect(await node.whoIs(sessionOf(browser))).toMatchObject({ roles: ["read-only"] });
  });
});

describe("the callback", () => {
  test.each<[string, (parameters: URLSearchParams) => void]>([
    ["has another state", (parameters) => parameters.set("state", "another")],
    ["has no state", (parameters) => parameters.delete("state")],
    ["has two states", (parameters) => parameters.append("state", "another")],
  ])("%s", async (_, callback) => {
    const { page, browser } = await attempt({ callback });
    const why = page.url.href.includes("answer-untrusted") ? "answer-untrusted" : "attempt-unknown";
    await expectRefused(page, browser, why);
  });

  test("names another issuer (RFC 9207)", async () => {
    const { page, browser } = await attempt({
      callback: (parameters) => parameters.set("iss", "https://login.example.org"),
    });
    await expectRefused(page, browser, "answer-untrusted");
  });

  test("lacks the issuer that the provider promised to name", async () => {
    const { page, browser } = await attempt({
      metadata: (metadata) => ({
        ...metadata,
        authorization_response_iss_parameter_supported: true,
      }),
    });
    await expectRefused(page, browser, "answer-untrusted");
  });

  test("is replayed: in the same browser, and in another one", async () => {
    const browser = new FixtureBrowser();
    const before = await browser.visit(startUrl(), isCallback);
    const callback = new URL(before.location!, before.url);
    const cookie = browser.cookie(node.url, "__Host-keelson-login")!;
    const thief = new FixtureBrowser();
    const stolen = await thief.visit(callback);
    await expectRefused(stolen, thief, "attempt-unknown");
    await browser.visit(callback);
    expect(await node.whoIs(sessionOf(browser))).toMatchObject({ user: "mallory" });
    for (const replayer of [new FixtureBrowser(), new FixtureBrowser()]) {
      replayer.setCookie(node.url, "__Host-keelson-login", cookie);
      await expectRefused(await replayer.visit(callback), replayer, "attempt-unknown");
    }
  });

  test("brings somebody else's code (log-in CSRF)", async () => {
    const mallory = new FixtureBrowser();
    const hers = await mallory.visit(startUrl(), isCallback);
    const victim = new FixtureBrowser();
    await victim.visit(startUrl(), isCallback);
    const page = await victim.visit(new URL(hers.location!, hers.url));
    await expectRefused(page, victim, "attempt-unknown");
  });

  test("belongs to the issuer that was set before", async () => {
    const browser = new FixtureBrowser();
    const before = await browser.visit(startUrl(), isCallback);
    await node.call("PUT", "/identity-provider", { ...settings(), name: "Another" });
    const page = await browser.visit(new URL(before.location!, before.url));
    await expectRefused(page, browser, "attempt-unknown");
  });

  test("says that the provider refused", async () => {
    const { page, browser } = await attempt({
      callback: (parameters) => {
        parameters.delete("code");
        parameters.set("error", "access_denied");
        parameters.set("error_description", "<script>alert(1)</script>\nlevel=info forged line");
      },
    });
    const line = await expectRefused(page, browser, "provider-refused");
    expect(line).toContain("access_denied");
    expect(line).not.toMatch(/script|forged/);
  });

  test.each([
    "https://evil.example",
    "//evil.example",
    "/\\evil.example",
    "javascript:alert(1)",
    "/volumes\r\nset-cookie: x=1",
    `/${"x".repeat(900)}`,
  ])("goes on to our own page, not to %j", async (returnTo) => {
    const browser = new FixtureBrowser();
    const page = await browser.visit(startUrl(returnTo));
    expect(page.url.href).toBe(`${node.url}/#/`);
    expect(sessionOf(browser)).toBeDefined();
  });
});

describe("the provider's answers", () => {
  const elsewhere = (metadata: Record<string, unknown>, changes: Record<string, unknown>) => ({
    ...metadata,
    ...changes,
  });
  test.each<[string, Lies, string, RegExp]>([
    [
      "metadata of another issuer",
      { metadata: (metadata) => elsewhere(metadata, { issuer: "https://login.example.org" }) },
      "provider-misconfigured|answer-untrusted",
      /issuer|calls itself/,
    ],
    [
      "a log-in page without TLS",
      { metadata: (m) => elsewhere(m, { authorization_endpoint: "http://login.example.org/" }) },
      "provider-misconfigured",
      /authorization_endpoint/,
    ],
    [
      "a log-in page that is a script",
      { metadata: (m) => elsewhere(m, { authorization_endpoint: "javascript:alert(1)" }) },
      "provider-misconfigured",
      /authorization_endpoint/,
    ],
    [
      "a token endpoint without TLS",
      { metadata: (m) => elsewhere(m, { token_endpoint: "http://localhost:1/" }) },
      "provider-misconfigured",
      /token_endpoint/,
    ],
    [
      "keys without TLS",
      { metadata: (m) => elsewhere(m, { jwks_uri: "file:///etc/passwd" }) },
      "provider-misconfigured",
      /jwks_uri/,
    ],
    [
      "only symmetric algorithms",
      { metadata: (m) => elsewhere(m, { id_token_signing_alg_values_supported: ["HS256"] }) },
      "provider-misconfigured",
      /algorithms/,
    ],
    ["endless metadata", { huge: "metadata" }, "provider-misconfigured", /1 MiB/],
    ["an endless token", { huge: "token" }, "provider-misconfigured", /1 MiB/],
    ["endless keys", { huge: "keys" }, "provider-misconfigured", /1 MiB/],
    [
      "an error page for metadata",
      { status: { place: "metadata", code: 500, text: "<h1>oops</h1>" } },
      "provider-misconfigured",
      /500/,
    ],
    [
      "an error page for the token",
      { status: { place: "token", code: 502, text: "<h1>oops</h1>" } },
      "provider-misconfigured",
      /502/,
    ],
    [
      "a redirect of the token request",
      { status: { place: "token", code: 302 } },
      "provider-misconfigured",
      /302/,
    ],
  ])("%s", async (_, lies, why, logged) => {
    const { page, browser } = await attempt(lies);
    const told = new URLSearchParams(page.url.hash.split("?")[1]).get("login")!;
    expect(why.split("|")).toContain(told);
    expect(await expectRefused(page, browser, told)).toMatch(logged);
  });

  test.each<[string, Lies]>([
    ["silence instead of metadata", { slow: { place: "metadata", how: "silent" } }],
    ["metadata byte by byte", { slow: { place: "metadata", how: "trickle" } }],
    ["a token byte by byte", { slow: { place: "token", how: "trickle" } }],
  ])(
    "%s ends in time, and local log-in never waits for it",
    async (_, lies) => {
      const startedMs = performance.now();
      const waiting = attempt(lies);
      await new Promise((go) => setTimeout(go, 300));
      const localMs = performance.now();
      await node.call("POST", "/session", { user: "admin", password: node.password });
      expect(performance.now() - localMs).toBeLessThan(2500);
      const { page, browser } = await waiting;
      expect(performance.now() - startedMs).toBeLessThan(12_000);
      expect(await expectRefused(page, browser, "provider-unreachable")).toMatch(/within/);
    },
    20_000,
  );
});

test("keys that were changed at the provider are fetched anew", async () => {
  await attempt();
  await provider.rotate();
  // The first one may still meet the kept keys; it says so, and the next one gets in.
  await attempt();
  const { browser } = await attempt();
  expect(await node.whoIs(sessionOf(browser))).toMatchObject({ user: "mallory" });
});

test("a flood of log-ins asks the provider for its metadata once", async () => {
  provider.asked.clear();
  const browsers = Array.from({ length: 40 }, () => new FixtureBrowser());
  const pages = await Promise.all(browsers.map((browser) => browser.open(startUrl())));
  const sent = pages.filter(({ location }) => location?.startsWith(provider.origin));
  const busy = pages.filter(({ location }) => location?.includes("login=busy"));
  expect(sent.length).toBeGreaterThanOrEqual(8);
  expect(sent.length + busy.length).toBe(40);
  expect(provider.asked.get("/.well-known/openid-configuration")).toBe(1);
});

describe("logging out", () => {
  const logOut = async (browser: FixtureBrowser) => {
    const begun = performance.now();
    const { url } = await node.call<{ url: string | null }>(
      "POST",
      "/session/log-out",
      undefined,
      sessionOf(browser),
    );
    expect(performance.now() - begun).toBeLessThan(4_000);
    expect(await node.whoIs(sessionOf(browser))).toBeUndefined();
    return url;
  };
  const withPage = (address: unknown): Lies => ({
    metadata: (metadata) => ({ ...metadata, end_session_endpoint: address }),
  });

  test("without a lie it leads to the provider's page, with its own parameters kept", async () => {
    const page = `${provider.origin}/end?realm=office`;
    const { browser } = await attempt(withPage(page));
    const url = new URL((await logOut(browser))!);
    expect(url.href.startsWith(page)).toBe(true);
    expect(url.searchParams.get("id_token_hint")).toMatch(/^eyJ/);
  });

  test.each([
    ["javascript:alert(1)"],
    ["http://login.example.org/end"],
    ["data:text/html,x"],
    ["/end"],
    ["https://"],
    [7],
    [null],
    [undefined],
  ])("a page %j is none", async (address) => {
    const { browser } = await attempt(withPage(address));
    expect(await logOut(browser)).toBeNull();
  });

  test("a provider that is silent by then is not waited for: the session ends here", async () => {
    const { browser } = await attempt(withPage(`${provider.origin}/end`));
    const kept = sessionOf(browser);
    // Metadata that is asked for anew.
    await node.call("POST", "/identity-provider/test").catch(() => {});
    provider.lies = { slow: { place: "metadata", how: "silent" } };
    expect(await logOut(browser)).toBeNull();
    expect(await node.whoIs(kept)).toBeUndefined();
  });
});
