/** Accounts in the console against the real api, by keyboard alone where a person could. */
import { TOTP } from "otpauth";
import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Volume } from "#services/api/schema.ts";
import { launchBrowser, logIn, openWindow } from "./browser.ts";
import { type DevNode, startDevNode } from "./node.ts";

const reader = { user: "ann", password: "given by the admin" };
const ownPassword = "known to ann alone";

let node: DevNode;
let browser: Browser;

beforeAll(async () => {
  node = await startDevNode();
  browser = await launchBrowser();
});

afterAll(async () => {
  await browser?.close();
  await node?.stop();
});

async function enter(): Promise<Page> {
  const page = await (await openWindow(browser)).newPage();
  await logIn(page, node.url, { user: "admin", password: node.password });
  await page.getByText("· live").waitFor({ state: "attached" });
  return page;
}

/** Opens the palette, types, and takes the first that is found. */
async function command(page: Page, words: string): Promise<void> {
  await page.keyboard.press("Control+k");
  await page.getByRole("combobox").waitFor();
  await page.keyboard.type(words);
  await page.keyboard.press("Enter");
}

function focusedName(page: Page): Promise<string> {
  return page.evaluate(() => {
    const element = document.activeElement as HTMLElement;
    const label = (element as HTMLInputElement).labels?.[0]?.textContent;
    return (element.getAttribute("aria-label") ?? label ?? element.textContent ?? "").trim();
  });
}

async function tabTo(page: Page, name: string): Promise<void> {
  for (let presses = 0; presses < 60; presses++) {
    if ((await focusedName(page)).startsWith(name)) return;
    await page.keyboard.press("Tab");
  }
  throw new Error(`Tab never reached ${name}.`);
}

test("by keyboard alone: a user is created from the palette, with one role", async () => {
  const page = await enter();
  await command(page, "create user");
  await page.getByRole("dialog", { name: "Create user" }).waitFor();
  await page.keyboard.type(reader.user);
  await tabTo(page, "First password");
  await page.keyboard.type(reader.password);
  await tabTo(page, "read-only");
  await page.keyboard.press("Space");
  await tabTo(page, "Create user");
  await page.keyboard.press("Enter");
  const row = page.getByRole("row").filter({ hasText: reader.user });
  await row.getByText("read-only").waitFor();
  await row.getByText("Must set a password").waitFor();
  await page.context().close();
});

test("whoever was given a password sets an own one first, then sees only what the role allows", async () => {
  const page = await (await openWindow(browser)).newPage();
  await page.goto(node.url);
  await page.getByLabel("User", { exact: true }).waitFor();
  await page.keyboard.type(reader.user);
  await page.keyboard.press("Tab");
  await page.keyboard.type(reader.password);
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: "Set a password of your own" }).waitFor();
  expect(await page.getByRole("navigation").count()).toBe(0);
  await page.keyboard.type(reader.password);
  await page.keyboard.press("Tab");
  await page.keyboard.type(ownPassword);
  await page.keyboard.press("Tab");
  await page.keyboard.type(ownPassword);
  await page.keyboard.press("Enter");
  await page.getByText("· live").waitFor({ state: "attached" });

  const links = await page.getByRole("navigation").getByRole("link").allTextContents();
  expect(links).toContain("Volumes");
  expect(links).not.toContain("Users and roles");
  expect(links).not.toContain("Audit");

  await page.goto(`${node.url}/#/users`);
  await page.getByRole("heading", { name: "Your account may not see this page" }).waitFor();
  await page.getByText("users:read").waitFor();

  await page.goto(`${node.url}/#/volumes`);
  await page.getByRole("heading", { name: "Volumes", exact: true }).waitFor();
  await page.getByRole("heading", { name: "No volumes yet" }).waitFor();
  expect(await page.getByRole("button", { name: "Create volume" }).count()).toBe(0);
  await page.keyboard.press("Control+k");
  await page.getByRole("combobox").fill("create");
  expect(await page.getByRole("option").filter({ hasText: "Create volume" }).count()).toBe(0);
  await page.context().close();
});

test("two-step log-in: the QR code's secret is good, and a recovery code gets in once", async () => {
  const page = await enter();
  await command(page, "two-step");
  await page.getByRole("dialog", { name: "Set up two-step log-in" }).waitFor();
  await page.keyboard.type(node.password);
  await page.keyboard.press("Enter");
  await page.getByRole("img", { name: /QR code/ }).waitFor();
  const secret = (await page.getByRole("status", { name: "Secret" }).textContent())!.trim();
  const code = new TOTP({ secret }).generate();
  await page.getByLabel("Code that the app shows").fill(code);
  await page.keyboard.press("Enter");
  const codes = (await page.getByRole("status", { name: "Recovery codes" }).textContent())!
    .trim()
    .split("\n");
  expect(codes.length).toBeGreaterThanOrEqual(8);
  const done = page.getByRole("button", { name: "Done" });
  expect(await done.isDisabled()).toBe(true);
  await page.getByLabel("I have kept them").check();
  await done.click();
  await page.getByText(/recovery codes left/).waitFor();
  await page.getByRole("button", { name: "Log out" }).click();

  const again = async (answer: string) => {
    await page.getByLabel("User", { exact: true }).waitFor();
    await page.keyboard.type("admin");
    await page.keyboard.press("Tab");
    await page.keyboard.type(node.password);
    await page.keyboard.press("Enter");
    await page.getByLabel("Code of your authenticator app").waitFor();
    await page.keyboard.type(answer);
    await page.keyboard.press("Enter");
  };
  await again(codes[0]);
  await page.getByText("· live").waitFor({ state: "attached" });
  await page.getByRole("button", { name: "Log out" }).click();
  await again(codes[0]);
  await page.getByRole("alert").waitFor();
  expect(await page.getByRole("navigation").count()).toBe(0);
  await page.getByLabel("Code of your authenticator app").fill(codes[1]);
  await page.keyboard.press("Enter");
  await page.getByText("· live").waitFor({ state: "attached" });

  await page.goto(`${node.url}/#/account`);
  await page.getByRole("button", { name: "Turn off" }).click();
  await page.getByRole("dialog").getByLabel("Your password").fill(node.password);
  await page.getByRole("dialog").getByRole("button", { name: "Turn off" }).click();
  await page.getByRole("button", { name: "Set up" }).waitFor();
  await page.context().close();
});

test("an API token can do what it was given, nothing else, and nothing after it is deleted", async () => {
  const page = await enter();
  await command(page, "api token");
  const dialog = page.getByRole("dialog");
  await dialog.getByLabel("Name").fill("reader");
  await dialog.getByLabel("See: Storage").check();
  await dialog.getByRole("button", { name: "Create token" }).click();
  const token = (await page.getByLabel("API token", { exact: true }).textContent())!.trim();
  const ask = (method: string) =>
    fetch(`${node.url}/api/v1/volumes`, {
      method,
      headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
      ...(method === "POST" ? { body: JSON.stringify({ name: "x", sizeBytes: 1 << 20 }) } : {}),
    });
  expect((await ask("GET")).status).toBe(200);
  expect((await ask("POST")).status).toBe(403);
  await page.getByRole("button", { name: "Done" }).click();
  await page.getByRole("button", { name: "Delete token reader" }).click();
  await dialog.getByRole("button", { name: "Delete token" }).click();
  await page.getByText("No tokens.").waitFor();
  expect(await page.content()).not.toContain(token);
  expect((await ask("GET")).status).toBe(401);
  await page.context().close();
});

test("what somebody else changes is seen at once: users, roles, one's own tokens", async () => {
  const page = await enter();
  // Long before the next look that a page takes by itself.
  page.setDefaultTimeout(10_000);
  await page.goto(`${node.url}/#/users`);
  await page.getByRole("row").filter({ hasText: "admin" }).first().waitFor();
  const given = { password: "a password of theirs", mustChangePassword: false };
  await node.call("POST", "/users", { id: "live-one", roles: ["backup"], ...given });
  const row = page.getByRole("row").filter({ hasText: "live-one" });
  await row.getByText("backup").waitFor();
  await node.call("PATCH", "/users/live-one", { disabled: true });
  await row.getByText("Disabled").waitFor();
  await node.call("DELETE", "/users/live-one");
  await row.waitFor({ state: "detached" });
  await page.goto(`${node.url}/#/account`);
  await page.getByRole("heading", { name: "API tokens" }).waitFor();
  const expiresAt = new Date(Date.now() + 3_600_000).toISOString();
  const token = { name: "made-elsewhere", permissions: ["node:read"], expiresAt };
  await node.call("POST", "/tokens", token);
  await page.getByText("made-elsewhere").waitFor();
  await page.context().close();
});

test("what was done stands in the audit log, and can be filtered", async () => {
  const page = await enter();
  await page.goto(`${node.url}/#/audit`);
  const rows = page.getByRole("row");
  await rows.filter({ hasText: "POST /users" }).first().waitFor();
  await page.getByLabel("Outcome").selectOption("refused");
  await expect.poll(() => rows.filter({ hasText: "Done" }).count()).toBe(0);
  await page.getByLabel("User", { exact: true }).fill("nobody-of-that-name");
  await page.getByRole("heading", { name: "Nothing matches the filters" }).waitFor();
  await page.getByRole("button", { name: "Clear the filters" }).click();
  await rows.filter({ hasText: "POST /users" }).first().click();
  const entry = page.getByRole("dialog");
  await entry.getByText("users:write").waitFor();
  await page.keyboard.press("Escape");
  await entry.waitFor({ state: "detached" });
  await page.context().close();
});

describe("keys", () => {
  test("arrows go from row to row, Tab leaves the list, and the focus survives scrolling", async () => {
    const names = Array.from({ length: 120 }, (_, at) => `row-${String(at).padStart(3, "0")}`);
    for (let at = 0; at < names.length; at += 20) {
      await Promise.all(
        names
          .slice(at, at + 20)
          .map((name) => node.call<Volume>("POST", "/volumes", { name, sizeBytes: 2 ** 20 })),
      );
    }
    const page = await enter();
    await page.goto(`${node.url}/#/volumes`);
    await page.getByRole("row").filter({ hasText: "row-000" }).waitFor();
    await tabTo(page, "Grow row-000");
    await page.keyboard.press("ArrowDown");
    await expect.poll(() => focusedName(page)).toBe("Grow row-001");
    await page.keyboard.press("PageDown");
    await expect.poll(() => focusedName(page)).toBe("Grow row-011");
    await page.keyboard.press("End");
    await expect.poll(() => focusedName(page)).toBe("Grow row-119");
    const rowCount = await page.getByRole("table").getAttribute("aria-rowcount");
    expect(rowCount).toBe("121");
    const index = await page.evaluate(() =>
      document.activeElement?.closest("tr")?.getAttribute("aria-rowindex"),
    );
    expect(index).toBe("121");
    await page.evaluate(() => scrollTo(0, 0));
    await page.getByRole("row").filter({ hasText: "row-000" }).waitFor();
    expect(await focusedName(page)).toBe("Grow row-119");
    await page.keyboard.press("Tab");
    await expect.poll(() => focusedName(page)).toBe("Delete row-119");
    // One row takes part in the order of Tab: the next stop is past the list.
    await page.keyboard.press("Tab");
    expect(await page.evaluate(() => document.activeElement?.closest("tbody") ?? null)).toBeNull();
    await page.context().close();
  });

  test("g and a letter go to a page, ? lists the keys, and all of that can be turned off", async () => {
    const page = await enter();
    await page.keyboard.press("g");
    await page.keyboard.press("v");
    await page.getByRole("heading", { name: "Volumes", exact: true }).waitFor();
    await page.keyboard.press("?");
    const sheet = page.getByRole("dialog", { name: "Keyboard shortcuts" });
    await sheet.waitFor();
    await tabTo(page, "Shortcuts of a single key");
    await page.keyboard.press("Space");
    await page.keyboard.press("Escape");
    await sheet.waitFor({ state: "detached" });
    await page.keyboard.press("g");
    await page.keyboard.press("o");
    await page.keyboard.press("?");
    await page.keyboard.press("Control+k");
    await page.getByRole("combobox").waitFor();
    expect(await sheet.count()).toBe(0);
    await page
      .getByRole("heading", { name: "Volumes", exact: true, includeHidden: true })
      .waitFor();
    await page.context().close();
  });

  test("the palette finds an object by its name and shows it", async () => {
    const page = await enter();
    await command(page, "row-042");
    await page.getByRole("heading", { name: "Volumes", exact: true }).waitFor();
    await page.getByText("1 of 120 volumes").waitFor();
    await page.context().close();
  });
});
