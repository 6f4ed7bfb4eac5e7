/** What an administrator sets in the console, and that the services then do it. */
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { AuditHeads } from "#services/api/audit-schema.ts";
import { receiveSyslog } from "#services/api/head-receiver.fixture.ts";
import type { Condition, Netboot, Volume } from "#services/api/schema.ts";
import { launchBrowser, logIn, openWindow } from "./browser.ts";
import { type DevNode, startDevNode } from "./node.ts";

const run = promisify(execFile);
const initiator = "iqn.2026-11.org.example:host-1";

let node: DevNode;
let browser: Browser;
let page: Page;

beforeAll(async () => {
  node = await startDevNode();
  browser = await launchBrowser();
  page = await (await openWindow(browser)).newPage();
  await logIn(page, node.url, { user: "admin", password: node.password });
});

afterAll(async () => {
  await browser?.close();
  await node?.stop();
});

async function goTo(path: string): Promise<void> {
  await page.evaluate((to) => {
    location.hash = to;
  }, path);
  await page.locator("h1").waitFor();
}

test("an export's secret is shown once, and opens the volume to that initiator alone", async () => {
  await goTo("/exports");
  await page.getByRole("button", { name: "Export a volume" }).first().click();
  const dialog = page.getByRole("dialog");
  await dialog.getByText("There is no volume to export").waitFor();
  // What comes while the dialog is open can be chosen, and is, as the first one.
  await node.call<Volume>("POST", "/volumes", { name: "shared", sizeBytes: 8 * 2 ** 20 });
  await dialog.getByLabel("Name").fill("shared");
  await dialog.getByLabel("Initiators that may log in").fill("host-1");
  await dialog.getByText("is not an iSCSI name").waitFor();
  await dialog.getByLabel("Initiators that may log in").fill(initiator);
  await dialog.getByRole("button", { name: "Export", exact: true }).click();
  await dialog.getByText("The secret is shown this once").waitFor();
  const shown = async (name: string) =>
    (await dialog.locator(`dt:has-text("${name}") + dd`).textContent())!.trim();
  const [portal, target] = [await shown("Portal"), await shown("Target")];
  const [user, secret] = [await shown("CHAP user"), await shown("CHAP secret")];
  expect(secret.length).toBeGreaterThanOrEqual(12);
  await dialog.getByRole("button", { name: "Done" }).click();
  await dialog.waitFor({ state: "detached" });
  expect(await page.content()).not.toContain(secret);
  await page.getByRole("row").filter({ hasText: target }).getByText("Ready").waitFor();

  const inquire = (name: string, password: string) =>
    run("iscsi-inq", ["-i", name, `iscsi://${user}%${password}@${portal}/${target}/0`]);
  expect((await inquire(initiator, secret)).stdout).toMatch(/Keelson/i);
  await expect(inquire(initiator, `${secret}x`)).rejects.toThrow();
  await expect(inquire("iqn.2026-11.org.example:other", secret)).rejects.toThrow();
});

test("a volume that is exported can't be deleted, and says what uses it", async () => {
  await goTo("/volumes");
  await page.getByRole("button", { name: "Delete shared" }).click();
  const dialog = page.getByRole("dialog");
  await dialog.getByText("shared is in use").waitFor();
  await dialog.getByRole("link", { name: "export shared" }).click();
  await page.getByRole("heading", { name: "iSCSI exports" }).waitFor();
});

test("network boot: wrong addresses are told, the saved settings reach netboot", async () => {
  const before = await node.call<Netboot>("GET", "/netboot");
  const { name, address } = before.interfaces.find((item) => item.address !== null)!;
  const network = address!.replace(/\d+$/, "");
  await goTo("/netboot");
  const form = page.getByRole("form", { name: `Interface ${name}` });
  await form.getByRole("radio", { name: "DHCP server", exact: true }).check();
  await form.getByLabel("First address").fill("10.0.0");
  await form.getByText("“10.0.0” is not an IPv4 address.").waitFor();
  const save = form.getByRole("button", { name: `Save ${name}` });
  expect(await save.isDisabled()).toBe(true);
  await form.getByLabel("First address").fill(`${network}100`);
  await form.getByLabel("Last address").fill(`${network}120`);
  await save.click();
  await save.waitFor({ state: "detached" });
  const item = (await node.call<Netboot>("GET", "/netboot")).interfaces.find(
    (entry) => entry.name === name,
  );
  expect(item!.settings).toMatchObject({
    mode: "server",
    pool: { first: `${network}100`, last: `${network}120` },
  });

  // A pool that api finds wrong: its words stand in the form, what was typed stays.
  await form.getByLabel("First address").fill("203.0.113.9");
  await form.getByLabel("Last address").fill("203.0.113.1");
  await save.click();
  await form.getByRole("alert").waitFor();
  expect(await form.getByLabel("First address").inputValue()).toBe("203.0.113.9");
  await form.getByRole("button", { name: "Undo" }).click();
  expect(await form.getByLabel("First address").inputValue()).toBe(`${network}100`);
});

test("a muted condition no longer calls for attention, and can be heard again", async () => {
  await goTo("/conditions");
  const title = "This is a development build";
  await page.getByLabel(`Mute ${title}`).selectOption("3600");
  await page.getByText("Muted", { exact: true }).waitFor();
  const condition = (await node.call<Condition[]>("GET", "/conditions")).find(
    (entry) => entry.title === title,
  );
  const leftMs = Date.parse(condition!.mutedUntil!) - Date.now();
  expect(leftMs).toBeGreaterThan(3_500_000);
  expect(leftMs).toBeLessThanOrEqual(3_600_000);
  await page.getByRole("button", { name: "Unmute" }).click();
  await page.getByLabel(`Mute ${title}`).waitFor();
});

test("audit heads: a receiver is set, told what is wrong with it, and gets them", async () => {
  const receiver = await receiveSyslog({ tls: true });
  try {
    await goTo("/settings");
    await page.getByText("Heads stay on this node").waitFor();
    await page.getByRole("button", { name: "Send heads somewhere" }).click();
    const dialog = page.getByRole("dialog");
    const save = dialog.getByRole("button", { name: "Save" });
    await dialog.getByLabel("Sent to").fill("logs.example.org");
    await save.click();
    await dialog.getByRole("alert").getByText("is not a URL").waitFor();
    await dialog.getByLabel("Sent to").fill(`syslog+tls://localhost:${receiver.port}`);
    await dialog.getByLabel("Or after so many entries").fill("many");
    await dialog.getByText("Give a whole number.").waitFor();
    await dialog.getByLabel("Or after so many entries").fill("1");
    await save.click();
    await dialog.waitFor({ state: "detached" });
    // Nobody that the node knows has signed its certificate.
    await page.getByText("Not taken", { exact: true }).waitFor();
    await page.getByRole("button", { name: "Send now" }).click();
    await page.getByRole("status").getByText("is not trusted").waitFor();
    expect(receiver.messages).toEqual([]);
    await page.getByRole("button", { name: "Change the target" }).click();
    await dialog
      .getByRole("textbox", { name: "CA of its certificate" })
      .fill(receiver.caCertificate);
    await save.click();
    await dialog.waitFor({ state: "detached" });
    await page.getByRole("button", { name: "Send now" }).click();
    await page.getByText(/took the head of entry \d+/).waitFor();
    await page.getByText("Taken", { exact: true }).first().waitFor();
    const { head } = await node.call<AuditHeads>("GET", "/audit/heads");
    await expect.poll(() => receiver.messages.join("\n")).toContain(head.hash);
    await page.getByRole("button", { name: "Stop sending" }).click();
    await dialog.getByRole("button", { name: "Stop sending" }).click();
    await page.getByText("Heads stay on this node: a log").waitFor();
  } finally {
    await receiver.close();
  }
});

test("a changed password is the one that counts, and ends other sessions", async () => {
  const other = await (await openWindow(browser)).newPage();
  await logIn(other, node.url, { user: "admin", password: node.password });
  await goTo("/account");
  await page.getByRole("button", { name: "Change password" }).click();
  const dialog = page.getByRole("dialog");
  await dialog.getByLabel("Current password").fill("not it");
  await dialog.getByLabel("New password", { exact: true }).fill("a new password");
  await dialog.getByLabel("New password again").fill("a new passwort");
  await dialog.getByText("The two differ.").waitFor();
  await dialog.getByLabel("New password again").fill("a new password");
  const change = dialog.getByRole("button", { name: "Change password" });
  await change.click();
  await dialog.getByRole("alert").waitFor();
  await dialog.getByLabel("Current password").fill(node.password);
  await change.click();
  await dialog.waitFor({ state: "detached" });
  await other.getByRole("button", { name: "Log in" }).waitFor();
  await logIn(other, node.url, { user: "admin", password: "a new password" });
  await other.context().close();
});
