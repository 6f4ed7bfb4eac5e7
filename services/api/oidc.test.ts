import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { FixtureBrowser } from "./browser.fixture.ts";
import { type FixtureNode, startFixtureNode } from "./identity-node.fixture.ts";
import type {
  Identity,
  IdentityProvider,
  IdentityProviderTest,
  LogInMethods,
} from "./identity-schema.ts";
import {
  type CertifiedProvider,
  logInThere,
  logOutThere,
  startCertifiedProvider,
} from "./oidc-provider.fixture.ts";
import type { Session } from "./schema.ts";

/** The service over TLS, against a certified provider over TLS, by real redirects. */
const directory = mkdtempSync(join(tmpdir(), "keelson-oidc-"));
let node: FixtureNode;
let provider: CertifiedProvider;

const settings = () => ({
  name: "Office",
  issuer: provider.origin,
  clientId: provider.clientId,
  clientSecret: provider.clientSecret,
  groupRoles: [
    { group: "it", role: "admin" },
    { group: "desk", role: "read-only" },
  ],
  caCertificate: provider.caCertificate,
});

beforeAll(async () => {
  node = await startFixtureNode(join(directory, "node"));
  provider = await startCertifiedProvider(`${node.url}/api/v1/login/oidc/callback`);
  await node.call("PUT", "/identity-provider", settings());
});
afterAll(async () => {
  await node?.stop();
  await provider?.close();
  rmSync(directory, { recursive: true, force: true });
});

const start = () => `${node.url}/api/v1/login/oidc/start?returnTo=/volumes`;

async function logIn(subject: string, browser = new FixtureBrowser()) {
  const page = await logInThere(browser, start(), subject);
  return { page, browser, session: browser.cookie(node.url, "__Host-keelson") };
}

describe("by a certified provider", () => {
  test("a first log-in makes the user with the roles of its groups", async () => {
    provider.accounts.set("s-1", {
      preferred_username: "Vera",
      name: "Vera Voss",
      groups: ["it", "x"],
    });
    const { page, session } = await logIn("s-1");
    expect(page.url.href).toBe(`${node.url}/#/volumes`);
    expect(await node.whoIs(session)).toMatchObject({
      user: "vera",
      displayName: "Vera Voss",
      roles: ["admin"],
    });
  });

  test("roles are those of the groups, anew at each log-in", async () => {
    provider.accounts.set("s-2", { preferred_username: "rolf", groups: "it" });
    expect(await node.whoIs((await logIn("s-2")).session)).toMatchObject({ roles: ["admin"] });
    // By another name there, and in another group: the same user here, who may less now.
    provider.accounts.set("s-2", { preferred_username: "rudolf", groups: ["desk"] });
    expect(await node.whoIs((await logIn("s-2")).session)).toMatchObject({
      ...{ user: "rolf", roles: ["read-only"] },
    });
    provider.accounts.set("s-2", { preferred_username: "rolf", groups: [] });
    expect((await logIn("s-2")).page.url.hash).toMatch(/login=no-role/);
  });

  test("two accounts there are never one user here", async () => {
    provider.accounts.set("s-3", { preferred_username: "sara", groups: ["desk"] });
    provider.accounts.set("s-4", { preferred_username: "SARA", groups: ["it"] });
    expect((await logIn("s-3")).session).toBeDefined();
    const second = await logIn("s-4");
    expect(second.session).toBeUndefined();
    expect(second.page.url.hash).toMatch(/login=name-taken/);
  });

  test("a user who is disabled here stays out; a deleted one's identity goes too", async () => {
    provider.accounts.set("s-5", { preferred_username: "tom", groups: ["desk"] });
    await logIn("s-5");
    await node.call("PATCH", "/users/tom", { disabled: true });
    expect((await logIn("s-5")).page.url.hash).toMatch(/login=user-disabled/);
    await node.call("DELETE", "/users/tom");
    await node.call("POST", "/users", { id: "tom", roles: ["admin"], password: "another tom" });
    expect((await logIn("s-5")).page.url.hash).toMatch(/login=name-taken/);
  });

  test("a local user links the two in a session here, and unlinks", async () => {
    const password = "a password of theirs";
    const user = { id: "uwe", roles: ["operator"], password, mustChangePassword: false };
    await node.call("POST", "/users", user);
    provider.accounts.set("s-6", { preferred_username: "uwe", groups: ["desk"] });
    expect((await logIn("s-6")).page.url.hash).toMatch(/login=name-taken/);
    const { token } = await node.call<Session>("POST", "/session", { user: "uwe", password });
    const browser = new FixtureBrowser();
    const asked = await browser.open(`${node.url}/api/v1/session/identities`, {
      method: "POST",
      headers: { authorization: `Bearer ${token}` },
    });
    const { url } = JSON.parse(asked.text) as { url: string };
    const back = await logInThere(browser, url, "s-6");
    expect(back.url.hash).toBe("#/account");
    expect(await node.whoIs((await logIn("s-6")).session)).toMatchObject({
      ...{ user: "uwe", roles: ["read-only"] },
    });
    const list = await node.call<Identity[]>("GET", "/session/identities", undefined, token);
    expect(list).toMatchObject([{ subject: "s-6", created: false }]);
    await node.call("DELETE", `/session/identities/${list[0].id}`, undefined, token);
    expect((await logIn("s-6")).page.url.hash).toMatch(/login=name-taken/);
  });

  test("admin can't be linked", async () => {
    await expect(node.call("POST", "/session/identities")).rejects.toThrow(/^403.*always local/);
  });

  test("without making users only who is linked gets in", async () => {
    await node.call("PUT", "/identity-provider", { ...settings(), createUsers: false });
    provider.accounts.set("s-7", { preferred_username: "new", groups: ["desk"] });
    expect((await logIn("s-7")).page.url.hash).toMatch(/login=user-unknown/);
    expect((await logIn("s-1")).session).toBeDefined();
    await node.call("PUT", "/identity-provider", settings());
  });

  test("only some groups and verified mail domains, if that is set", async () => {
    const limits = { allowedGroups: ["staff"], allowedDomains: ["example.org"] };
    await node.call("PUT", "/identity-provider", { ...settings(), ...limits });
    const base = { preferred_username: "willi", groups: ["desk", "staff"] };
    const attempts: [object, RegExp][] = [
      [{ ...base, groups: ["desk"], email: "w@example.org", email_verified: true }, /not-allowed/],
      [{ ...base, email: "w@example.org", email_verified: false }, /not-allowed/],
      [{ ...base, email: "w@example.org.evil.example", email_verified: true }, /not-allowed/],
      [{ ...base, email: "w@evil.example@example.org", email_verified: "true" }, /not-allowed/],
      [{ ...base, email: "w@EXAMPLE.org", email_verified: true }, /^#\/volumes$/],
    ];
    for (const [account, outcome] of attempts) {
      provider.accounts.set("s-8", account);
      expect((await logIn("s-8")).page.url.hash).toMatch(outcome);
    }
    await node.call("PUT", "/identity-provider", settings());
  });

  test("a browser at another address is sent to the console's own first", async () => {
    const browser = new FixtureBrowser();
    const bare = node.url.replace("localhost", "127.0.0.1");
    const page = await browser.open(`${bare}/api/v1/login/oidc/start?returnTo=/tasks`);
    expect(page.location).toBe(`${node.url}/api/v1/login/oidc/start?returnTo=%2Ftasks&hop=1`);
  });
});

describe("logging out (RP-Initiated Logout 1.0)", () => {
  const logOut = (token: string) =>
    node.call<{ url: string | null }>("POST", "/session/log-out", undefined, token);
  const arrive = async (subject: string) => {
    provider.accounts.set(subject, { preferred_username: subject, groups: ["desk"] });
    const { browser, session } = await logIn(subject);
    return { browser, token: session! };
  };

  test("leads to the provider, which ends its own session, and back to the log-in page", async () => {
    const { browser, token } = await arrive("lo-1");
    // Still known there: no form is shown.
    const again = await browser.visit(start());
    expect(again.url.href).toBe(`${node.url}/#/volumes`);
    const { url } = await logOut(browser.cookie(node.url, "__Host-keelson")!);
    const asked = new URL(url!);
    expect(asked.origin).toBe(provider.origin);
    expect(asked.searchParams.get("client_id")).toBe(provider.clientId);
    expect(asked.searchParams.get("post_logout_redirect_uri")).toBe(`${node.url}/`);
    expect(asked.searchParams.get("id_token_hint")).toMatch(/^eyJ[\w-]+\.[\w-]+\.[\w-]+$/);
    const back = await logOutThere(browser, url!);
    expect(back.url.href).toBe(`${node.url}/`);
    const after = await browser.visit(start());
    expect(after.url.origin, "the provider asks who it is").toBe(provider.origin);
    expect(await node.whoIs(token)).toMatchObject({ user: "lo-1" });
  });

  test("the session here has ended, whatever the browser does then", async () => {
    const { token } = await arrive("lo-2");
    expect((await logOut(token)).url).not.toBeNull();
    expect(await node.whoIs(token)).toBeUndefined();
    await expect(logOut(token)).rejects.toThrow(/^401/);
  });

  test("nothing of the token is in the log, in a file, or in a list of sessions", async () => {
    const { token } = await arrive("lo-3");
    const sessions = await node.call<object[]>("GET", "/sessions", undefined, token);
    expect(JSON.stringify(sessions)).not.toContain("eyJ");
    const { url } = await logOut(token);
    const hint = new URL(url!).searchParams.get("id_token_hint")!;
    expect(node.log.join("\n")).not.toContain(hint);
    const files = readdirSync(join(directory, "node"), { recursive: true, withFileTypes: true });
    for (const file of files.filter((each) => each.isFile())) {
      const content = readFileSync(join(file.parentPath, file.name));
      expect(content.includes(hint), file.name).toBe(false);
    }
  });

  test("is here alone: with a password, without the setting, after another provider was set", async () => {
    const password = "a password of theirs";
    const user = { id: "local", roles: ["read-only"], password, mustChangePassword: false };
    await node.call("POST", "/users", user);
    const local = await node.call<Session>("POST", "/session", { user: "local", password });
    expect(await logOut(local.token)).toEqual({ url: null });
    expect(await node.whoIs(local.token)).toBeUndefined();
    const [off, moved] = [await arrive("lo-4"), await arrive("lo-5")];
    await node.call("PUT", "/identity-provider", { ...settings(), logOutThere: false });
    expect(await logOut(off.token)).toEqual({ url: null });
    await node.call("PUT", "/identity-provider", { ...settings(), issuer: "https://b.invalid" });
    expect(await logOut(moved.token)).toEqual({ url: null });
    expect(await node.whoIs(moved.token)).toBeUndefined();
    await node.call("PUT", "/identity-provider", settings());
  });

  test("settings name what is to be registered, and the test says whether it is offered", async () => {
    const read = await node.call<IdentityProvider>("GET", "/identity-provider");
    expect(read.logOutRedirectUri).toBe(`${node.url}/`);
    const { ok, steps } = await node.call<IdentityProviderTest>("POST", "/identity-provider/test");
    expect(ok).toBe(true);
    expect(steps.at(-1)).toEqual({
      name: "Log-out",
      ok: true,
      message: `It has a page for it. Have ${node.url}/ registered there as where to come back to.`,
    });
  });
});

describe("settings", () => {
  test("the secret is written and never read, and stands nowhere in plain text", async () => {
    const read = await node.call<IdentityProvider>("GET", "/identity-provider");
    expect(read).toMatchObject({ clientSecretSet: true, issuer: provider.origin });
    expect(JSON.stringify(read)).not.toContain(provider.clientSecret);
    expect(node.log.join("\n")).not.toContain(provider.clientSecret);
    const files = readdirSync(join(directory, "node"), { recursive: true, withFileTypes: true });
    for (const file of files.filter((each) => each.isFile())) {
      const content = readFileSync(join(file.parentPath, file.name));
      expect(content.includes(provider.clientSecret), file.name).toBe(false);
    }
  });

  test("without a secret the old one stays, but not for another issuer", async () => {
    const { clientSecret: _, ...without } = settings();
    await node.call("PUT", "/identity-provider", without);
    expect((await logIn("s-1")).session).toBeDefined();
    const elsewhere = { ...without, issuer: "https://login.example.org" };
    await expect(node.call("PUT", "/identity-provider", elsewhere)).rejects.toThrow(/^400/);
  });

  test("settings:write is no way to become an administrator", async () => {
    const password = "a password of theirs";
    const user = { id: "setter", roles: ["settings"], password, mustChangePassword: false };
    await node.call("POST", "/users", user);
    const { token } = await node.call<Session>("POST", "/session", { user: "setter", password });
    const put = (change: object) => node.call("PUT", "/identity-provider", change, token);
    await expect(put(settings())).rejects.toThrow(/^403.*role admin/);
    const own = { ...settings(), groupRoles: [{ group: "it", role: "settings" }] };
    await put(own);
    await node.call("PUT", "/identity-provider", settings());
  });

  test.each<[string, object]>([
    ["issuer", { issuer: "http://login.example.org" }],
    ["issuer", { issuer: "https://login.example.org/.well-known/openid-configuration" }],
    ["issuer", { issuer: "https://login.example.org/?a=b" }],
    ["issuer", { issuer: "file:///etc/passwd" }],
    ["scopes", { scopes: ["profile"] }],
    ["caCertificate", { caCertificate: "no certificate" }],
    ["groupRoles", { groupRoles: [{ group: "it", role: "no-such-role" }] }],
    ["allowedDomains", { allowedDomains: ["not a domain"] }],
    ["name", { name: "a\nb" }],
    ["clientSecret", { clientSecret: "" }],
  ])("refused, naming %s: %j", async (field, change) => {
    const put = node.call("PUT", "/identity-provider", { ...settings(), ...change });
    await expect(put).rejects.toThrow(new RegExp(`^400.*${field}`));
  });

  test("removed: the log-in page offers it no more, and who comes anyhow is told", async () => {
    await node.call("DELETE", "/identity-provider");
    const methods = await node.call<LogInMethods>("GET", "/login/methods");
    expect(methods.identityProvider).toBeNull();
    const page = await new FixtureBrowser().visit(start());
    expect(page.url.hash).toMatch(/login=provider-off/);
    await expect(node.call("DELETE", "/identity-provider")).rejects.toThrow(/^404/);
  });
});
