/** Log-in by others than a password, in Chromium: the real pages, api, provider; a virtual key. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import type { Browser, CDPSession, Page } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type FixtureNode, startFixtureNode } from "#services/api/identity-node.fixture.ts";
import {
  type CertifiedProvider,
  startCertifiedProvider,
} from "#services/api/oidc-provider.fixture.ts";
import { bundleConsole } from "#tools/bundle.ts";
import { launchBrowser, logIn, openWindow } from "./browser.ts";

const directory = mkdtempSync(join(tmpdir(), "keelson-sign-in-"));
const screenshots = process.env.KEELSON_SCREENSHOTS;
const password = "a password of theirs";
let node: FixtureNode;
let provider: CertifiedProvider;
let browser: Browser;

beforeAll(async () => {
  const ui = join(directory, "ui");
  await bundleConsole({ outDir: ui });
  node = await startFixtureNode(join(directory, "node"), { ui });
  provider = await startCertifiedProvider(`${node.url}/api/v1/login/oidc/callback`);
  provider.accounts.set("vera", { preferred_username: "vera", name: "Vera Voss", groups: ["it"] });
  browser = await launchBrowser();
});

afterAll(async () => {
  await browser?.close();
  await node?.stop();
  await provider?.close();
  rmSync(directory, { recursive: true, force: true });
});

async function openPage(): Promise<Page> {
  const page = await (await openWindow(browser)).newPage();
  return page;
}

async function keep(page: Page, name: string): Promise<void> {
  if (screenshots === undefined) return;
  await page.waitForTimeout(300);
  await page.screenshot({ path: join(resolve(screenshots), `${name}.png`), fullPage: true });
}

async function goTo(page: Page, path: string): Promise<void> {
  await page.evaluate((to) => {
    location.hash = to;
  }, path);
}

test("an administrator sets the provider up, and is told what is wrong until it works", async () => {
  const page = await openPage();
  await logIn(page, node.url, { user: "admin", password: node.password });
  await goTo(page, "/sign-in");
  const form = page.getByRole("form", { name: "Identity provider" });
  const fill = (label: string, text: string) => form.getByLabel(label, { exact: true }).fill(text);
  await fill("Name", "Office");
  await fill("Issuer", `${provider.origin}/.well-known/openid-configuration`);
  await fill("Client id", provider.clientId);
  await fill("Client secret", "not the secret");
  await fill("Groups and their roles", "it");
  await form.getByText("“it” is not like “group = role”.").waitFor();
  await fill("Groups and their roles", "it = admin\ndesk = read-only");
  await form.getByRole("button", { name: "Save" }).click();
  await form.getByText("the node adds that itself").waitFor();
  await fill("Issuer", provider.origin);
  await form.getByRole("button", { name: "Save" }).click();
  await form.getByRole("button", { name: "Test" }).click();
  await form.getByText("give the CA certificate").waitFor();
  await fill("CA certificate of the provider", provider.caCertificate);
  await form.getByRole("button", { name: "Save" }).click();
  await page.getByText("The identity provider is saved.").first().waitFor();
  await form.getByRole("button", { name: "Test" }).click();
  await form.getByText("invalid_client").waitFor();
  await keep(page, "provider-wrong-secret");
  await fill("Client secret", provider.clientSecret);
  await form.getByRole("button", { name: "Save" }).click();
  await form.getByRole("button", { name: "Test" }).click();
  await form.getByText("Everything works.").waitFor();
  expect(await form.getByLabel("Client secret").inputValue()).toBe("");
  expect(await page.content()).not.toContain(provider.clientSecret);
  await keep(page, "provider");
  await page.context().close();
});

test("somebody logs in there, and has the roles of their groups here", async () => {
  const page = await openPage();
  await page.goto(`${node.url}/#/account`);
  await page.getByRole("link", { name: "Log in with Office" }).waitFor();
  await keep(page, "log-in");
  await page.getByRole("link", { name: "Log in with Office" }).click();
  await page.locator("input[name=login]").fill("vera");
  await page.locator("input[name=password]").fill("any");
  await page.locator("button[type=submit]").click();
  await page.getByRole("button", { name: "Continue" }).click();
  await page.getByRole("heading", { name: "Your account" }).waitFor();
  await page.getByText("Vera Voss").first().waitFor();
  expect(page.url()).toBe(`${node.url}/#/account`);
  await keep(page, "account-of-provider");
  // Logging out leads there, and back.
  await page.getByRole("button", { name: "Log out" }).click();
  await page.getByRole("button", { name: "Yes, sign me out" }).click();
  await page.getByLabel("User", { exact: true }).waitFor();
  expect(new URL(page.url()).origin).toBe(node.url);
  await page.getByRole("link", { name: "Log in with Office" }).click();
  await page.locator("input[name=login]").waitFor();
  await page.context().close();
});

test("an administrator sees by whom the provider knows a user, and unlinks it", async () => {
  provider.accounts.set("s-ursel", { preferred_username: "ursel", groups: ["it"] });
  const theirs = await openPage();
  await theirs.goto(node.url);
  await theirs.getByRole("link", { name: "Log in with Office" }).click();
  await theirs.locator("input[name=login]").fill("s-ursel");
  await theirs.locator("input[name=password]").fill("any");
  await theirs.locator("button[type=submit]").click();
  await theirs.getByRole("button", { name: "Continue" }).click();
  await theirs.locator("#main").waitFor();
  const page = await openPage();
  await logIn(page, node.url, { user: "admin", password: node.password });
  await goTo(page, "/users");
  await page.getByRole("row").filter({ hasText: "ursel" }).click();
  const dialog = page.getByRole("dialog", { name: "How ursel gets in" });
  await dialog.getByText("ursel has no security key.").waitFor();
  await dialog.getByText("s-ursel").waitFor();
  await keep(page, "user-identities");
  await node.call("PUT", "/users/ursel/password", { password: "a password of ursel" });
  await dialog.getByRole("button", { name: "Unlink" }).click();
  const confirm = page.getByRole("dialog", { name: "Unlink this account?" });
  await confirm.getByRole("button", { name: "Unlink" }).click();
  await page.getByText("The account is unlinked.").waitFor();
  await dialog.getByText("s-ursel").waitFor({ state: "detached" });
  // Setting the password, and unlinking, have ended what was open.
  await theirs.getByLabel("User", { exact: true }).waitFor();
  await page.context().close();
  await theirs.context().close();
});

test("a refusal says why, with a reference that the log has; local log-in goes on", async () => {
  provider.accounts.set("nils", { preferred_username: "nils", groups: ["none of ours"] });
  const page = await openPage();
  await page.goto(node.url);
  await page.getByRole("link", { name: "Log in with Office" }).click();
  await page.locator("input[name=login]").fill("nils");
  await page.locator("input[name=password]").fill("any");
  await page.locator("button[type=submit]").click();
  await page.getByRole("button", { name: "Continue" }).click();
  const alert = page.getByRole("alert");
  await alert.getByText("None of your groups has a role on this node.").waitFor();
  const reference = /Reference: ([a-z2-7]{8})\./.exec((await alert.textContent()) ?? "")?.[1];
  expect(node.log.some((line) => line.includes(reference!))).toBe(true);
  await keep(page, "log-in-refused");
  // Whatever an address says, only our own words are shown.
  await page.goto(`${node.url}/#/?login=<b>call+us</b>&reference=0800-123456`);
  await page.reload();
  await page.getByRole("link", { name: "Log in with Office" }).waitFor();
  expect(await page.getByRole("alert").count()).toBe(0);
  await logIn(page, node.url, { user: "admin", password: node.password });
  await page.context().close();
});

async function plugIn(page: Page): Promise<CDPSession> {
  const devices = await page.context().newCDPSession(page);
  await devices.send("WebAuthn.enable");
  await devices.send("WebAuthn.addVirtualAuthenticator", {
    options: {
      protocol: "ctap2",
      transport: "usb",
      hasResidentKey: true,
      hasUserVerification: true,
      isUserVerified: true,
      automaticPresenceSimulation: true,
    },
  });
  return devices;
}

test("a security key: registered, second step, log-in without a name, removed", async () => {
  const roles = ["read-only"];
  const user = { id: "kim", roles, password, mustChangePassword: false };
  await node.call("POST", "/users", user);
  const page = await openPage();
  const devices = await plugIn(page);
  await logIn(page, node.url, { user: "kim", password });
  await goTo(page, "/account");
  await page.getByRole("button", { name: "Add a key" }).click();
  const dialog = page.getByRole("dialog");
  await dialog.getByLabel("Name", { exact: true }).fill("Blue one");
  await dialog.getByLabel("Your password").fill("not it");
  await dialog.getByRole("button", { name: "Go on with the key" }).click();
  await dialog.getByRole("alert").waitFor();
  await dialog.getByLabel("Your password").fill(password);
  await dialog.getByRole("button", { name: "Go on with the key" }).click();
  await page.getByText("Blue one is registered.").waitFor();
  await keep(page, "security-keys");

  const logOut = async () => {
    await page.evaluate(() => fetch("/api/v1/session", { method: "DELETE" }));
    await page.goto(`${node.url}/#/account`);
    await page.reload();
    await page.getByLabel("User", { exact: true }).waitFor();
  };
  await logOut();
  await page.getByLabel("User", { exact: true }).fill("kim");
  await page.getByLabel("Password", { exact: true }).fill(password);
  await page.getByRole("button", { name: "Log in", exact: true }).click();
  await page.getByText("asks for a security key after the password").waitFor();
  await keep(page, "second-step");
  await page.getByRole("button", { name: "Use a security key" }).click();
  await page.getByRole("heading", { name: "Your account" }).waitFor();

  await logOut();
  await page.getByRole("button", { name: "Use a security key" }).click();
  await page.getByRole("heading", { name: "Your account" }).waitFor();
  await page.getByText("last used").waitFor();

  await page.getByRole("button", { name: "Rename Blue one" }).click();
  await dialog.getByLabel("Name", { exact: true }).fill("Old blue one");
  await dialog.getByRole("button", { name: "Rename", exact: true }).click();
  await page.getByRole("button", { name: "Remove Old blue one" }).click();
  await dialog.getByLabel("Your password").fill(password);
  await dialog.getByRole("button", { name: "Remove", exact: true }).click();
  await page.getByText("You have no security key.").waitFor();

  // The key still has its half, which is worth nothing any more.
  await logOut();
  await page.getByRole("button", { name: "Use a security key" }).click();
  await page.getByText("The security key was not accepted.").waitFor();
  await devices.detach();
  await page.context().close();
}, 240_000);

test("with the provider down, log-in says so and local log-in works", async () => {
  await provider.close();
  const page = await openPage();
  await page.goto(node.url);
  // What the node knows of the provider is kept for an hour: a change of the settings drops it.
  const {
    clientSecretSet: _,
    logOutRedirectUri: _logOut,
    redirectUri: __,
    changedAt: ___,
    ...settings
  } = await node.call<Record<string, unknown>>("GET", "/identity-provider");
  await node.call("PUT", "/identity-provider", settings);
  await page.getByRole("link", { name: "Log in with Office" }).click();
  await page.getByRole("alert").getByText("The identity provider does not answer.").waitFor();
  await keep(page, "provider-down");
  await logIn(page, node.url, { user: "admin", password: node.password });
  await page.context().close();
});
