/** Headless Chromium against the console. */
import { existsSync, mkdirSync } from "node:fs";
import { dirname } from "node:path";
import { type Browser, type BrowserContext, chromium, type Page } from "playwright-core";
import { KeelsonError } from "#lib/model/errors.ts";

/** Chromium without its windows: a page in it costs a third of the processor time. */
const executable = "/usr/bin/chromium-headless-shell";

export async function launchBrowser(): Promise<Browser> {
  if (!existsSync(executable)) {
    throw new KeelsonError("NOT_FOUND", `There is no ${executable}.`, {
      operation: "start a browser",
      remedy: "apt-get install chromium-headless-shell",
    });
  }
  return chromium.launch({
    executablePath: executable,
    args: ["--no-sandbox", "--disable-gpu"],
  });
}

export interface View {
  readonly widthPx?: number;
  readonly heightPx?: number;
  readonly dark?: boolean;
}

/** A new private window that takes self-signed certificates. */
export async function openWindow(browser: Browser, view: View = {}): Promise<BrowserContext> {
  const context = await browser.newContext({
    ignoreHTTPSErrors: true,
    viewport: { width: view.widthPx ?? 1440, height: view.heightPx ?? 900 },
    colorScheme: view.dark ? "dark" : "light",
    reducedMotion: "reduce",
  });
  // Only what never comes is to end a test: beside emulated machines a click takes seconds.
  context.setDefaultTimeout(60_000);
  return context;
}

export interface Credentials {
  readonly user: string;
  readonly password: string;
}

/** Fills in the log-in form and waits for the console; fails with what the form says. */
export async function logIn(page: Page, url: string, credentials: Credentials): Promise<void> {
  await page.goto(url, { waitUntil: "load" });
  await page.getByLabel("User", { exact: true }).fill(credentials.user);
  await page.getByLabel("Password", { exact: true }).fill(credentials.password);
  await page.getByRole("button", { name: "Log in" }).click();
  const arrived = page.locator("#main");
  const refused = page.getByRole("alert");
  await arrived.or(refused).first().waitFor({ timeout: 60_000 });
  if (await refused.isVisible()) {
    throw new KeelsonError("UNAUTHENTICATED", `The console says: ${await refused.textContent()}`, {
      operation: "log in",
      object: url,
    });
  }
}

export interface Screenshot extends Credentials, View {
  /** Such as `https://127.0.0.1:8443/`. */
  readonly url: string;
  /** A page of the console, such as `/clients`; default its overview. */
  readonly page?: string;
  /** The PNG to write. */
  readonly out: string;
}

/**
 * Logs in to a running console, waits until it is live, and writes a screenshot. Throws when the
 * log-in is refused or the page doesn't come up in a minute.
 */
export async function logInAndScreenshot(options: Screenshot): Promise<void> {
  const browser = await launchBrowser();
  try {
    const page = await (await openWindow(browser, options)).newPage();
    await logIn(page, options.url, options);
    if (options.page !== undefined) {
      await page.evaluate((path) => {
        location.hash = path;
      }, options.page);
    }
    await page.getByText("· live").waitFor({ state: "attached", timeout: 60_000 });
    await page.waitForTimeout(300);
    mkdirSync(dirname(options.out), { recursive: true });
    await page.screenshot({ path: options.out });
  } finally {
    await browser.close();
  }
}
