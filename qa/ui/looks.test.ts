/**
 * Looks of every page with made-up documents (fixture.ts): WCAG by axe-core in both themes, width
 * down to 320 px, what first paint costs, screenshots. What the pages do is tested elsewhere.
 */
import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join, resolve } from "node:path";
import { gzipSync } from "node:zlib";
import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { launchBrowser, logIn, openWindow, type View } from "./browser.ts";
import { type Fixture, startFixture } from "./fixture.ts";

const shots = resolve(import.meta.dirname, "../../build/screenshots");
const axeSource = readFileSync(
  createRequire(import.meta.url).resolve("axe-core/axe.min.js"),
  "utf8",
);
const pages = {
  overview: "/",
  clients: "/clients",
  netboot: "/netboot",
  images: "/images",
  volumes: "/volumes",
  snapshots: "/snapshots",
  "snapshot-tree": "/snapshots?tree",
  schedules: "/snapshots?schedules",
  exports: "/exports",
  conditions: "/conditions",
  tasks: "/tasks",
  audit: "/audit",
  users: "/users",
  roles: "/users?roles",
  network: "/network",
  upgrade: "/upgrade",
  "sign-in": "/sign-in",
  settings: "/settings",
  account: "/account",
  missing: "/nowhere",
} as const;
const firstPaintLimit = 120_000;

/** With an upgrade and a change of networks under way. */
let busy: Fixture;
let calm: Fixture;
let browser: Browser;

beforeAll(async () => {
  mkdirSync(shots, { recursive: true });
  busy = await startFixture({ busy: true });
  calm = await startFixture();
  browser = await launchBrowser();
});

afterAll(async () => {
  await browser?.close();
  await busy?.stop();
  await calm?.stop();
});

async function enter(view: View, { url } = busy): Promise<Page> {
  const page = await (await openWindow(browser, view)).newPage();
  await logIn(page, url, { user: "admin", password: "right" });
  await page.getByText("· live").waitFor({ state: "attached" });
  return page;
}

async function goTo(page: Page, path: string): Promise<void> {
  await page.evaluate((to) => {
    location.hash = to;
  }, path);
  await page.locator("h1").waitFor();
  await expect.poll(() => page.locator(".loading").count()).toBe(0);
}

/** Rules of WCAG 2.0 to 2.2, A and AA, and axe's own good practice. */
async function violations(page: Page): Promise<string[]> {
  await page.evaluate(axeSource);
  return page.evaluate(async () => {
    const { axe } = globalThis as unknown as {
      axe: {
        run(
          context: Document,
          options: object,
        ): Promise<{
          violations: { id: string; nodes: { html: string; failureSummary: string }[] }[];
        }>;
      };
    };
    const found = await axe.run(document, {
      resultTypes: ["violations"],
      rules: { "target-size": { enabled: true } },
    });
    return found.violations.map(
      ({ id, nodes }) =>
        `${id}: ${nodes.map(({ html, failureSummary }) => `${html.slice(0, 160)} ${failureSummary}`).join(" | ")}`,
    );
  });
}

function overflowOf(page: Page): Promise<number> {
  return page.evaluate(
    () => document.documentElement.scrollWidth - document.documentElement.clientWidth,
  );
}

describe.each([
  ["light", {}],
  ["dark", { dark: true }],
] satisfies [string, View][])("%s", (theme, view) => {
  test("axe-core finds nothing wrong on any page", async () => {
    const page = await enter(view);
    const wrong: Record<string, string[]> = {};
    for (const [name, path] of Object.entries(pages)) {
      await goTo(page, path);
      const found = await violations(page);
      if (found.length > 0) wrong[name] = found;
      await page.screenshot({ path: join(shots, `page-${name}-${theme}.png`), fullPage: true });
    }
    expect(wrong).toEqual({});
    await page.context().close();
  });

  test("nor on what opens above them, and on the log-in", async () => {
    const page = await enter(view, calm);
    const wrong: Record<string, string[]> = {};
    const look = async (name: string) => {
      const found = await violations(page);
      if (found.length > 0) wrong[name] = found;
      await page.screenshot({ path: join(shots, `above-${name}-${theme}.png`) });
      await page.keyboard.press("Escape");
      await page.locator("dialog[open]").waitFor({ state: "detached" });
    };
    await page.keyboard.press("Control+k");
    await page.keyboard.type("o");
    await look("palette");
    await page.keyboard.press("?");
    await look("shortcuts");
    for (const [path, button] of [
      ["/users", "Create user"],
      ["/users", "How somebody gets in"],
      ["/users?roles", "Create role"],
      ["/account?token", ""],
      ["/upgrade", "Return to 2026.10.2"],
      ["/upgrade", "Upgrade to 2026.12.0"],
      ["/clients", "Register client"],
      ["/volumes", "Create volume"],
      ["/snapshots", "A row"],
      ["/snapshots", "What has changed since"],
      ["/snapshots", "Attach to a machine"],
      ["/settings", "Use another certificate"],
      ["/settings", "Change the target"],
      ["/audit", "Entry 40"],
    ] as const) {
      await goTo(page, path);
      if (path === "/snapshots") await page.getByText("before-change-0").click();
      if (button === "How somebody gets in") await page.getByRole("row").nth(1).click();
      else if (button === "A row") await page.getByRole("dialog").waitFor();
      else if (button !== "") await page.getByRole("button", { name: button }).first().click();
      await page.locator("dialog[open]").waitFor();
      await look(`${path.slice(1).replaceAll("?", "-")}-${button.replaceAll(/\W+/g, "-")}`);
    }
    await page.getByRole("button", { name: "Log out" }).click();
    await page.context().clearCookies();
    await page.reload();
    await page.getByRole("button", { name: "Log in" }).waitFor();
    // It comes a moment later and moves the rest.
    await page.getByRole("link", { name: "Log in with Office" }).waitFor();
    const logIn = await violations(page);
    if (logIn.length > 0) wrong["log-in"] = logIn;
    expect(wrong).toEqual({});
    await page.context().close();
  });
});

test("no page is wider than a phone of 320 px, and its menu has every page", async () => {
  const page = await enter({ widthPx: 320, heightPx: 640 });
  for (const [name, path] of Object.entries(pages)) {
    await goTo(page, path);
    expect(await overflowOf(page), name).toBeLessThanOrEqual(0);
    // Also where rows that aren't drawn have one that stands for them.
    const share = await page.evaluate(() => {
      const row = document.querySelector(".table-wrap tbody tr:not(.gap)");
      return row === null ? 1 : row.clientWidth / row.closest(".table-wrap")!.clientWidth;
    });
    expect(share, `${name}: a row is a card`).toBeGreaterThan(0.95);
    await page.screenshot({ path: join(shots, `page-${name}-phone.png`), fullPage: true });
  }
  await goTo(page, "/snapshots");
  // Far down in a list of cards, where it isn't drawn.
  await page.getByPlaceholder("Filter snapshots").fill("before-change-0");
  await page.getByText("before-change-0").click();
  await page.getByRole("button", { name: "What has changed since" }).click();
  await page.getByText("21.3 MiB have changed.").waitFor();
  await page.screenshot({ path: join(shots, "above-differences-phone.png") });
  await page.keyboard.press("Escape");
  await page.getByRole("button", { name: "Menu" }).click();
  await page.getByRole("link", { name: "Settings" }).click();
  await page.getByRole("heading", { name: "Settings" }).waitFor();
  await page.getByRole("button", { name: "Search" }).click();
  await page.getByRole("combobox").waitFor();
  expect(await overflowOf(page)).toBeLessThanOrEqual(0);
  await page.screenshot({ path: join(shots, "above-palette-phone.png") });
  await page.context().close();
});

test("a page whose part comes before its effects have run is shown", async () => {
  const context = await openWindow(browser);
  // Effects run long after their frame, as in a browser that has much else to do.
  await context.addInitScript(() => {
    const { setTimeout } = window;
    window.requestAnimationFrame = () => 0;
    window.setTimeout = ((run: () => void, ms = 0) =>
      setTimeout(run, ms > 0 && ms < 200 ? 1000 : ms)) as typeof setTimeout;
  });
  const page = await context.newPage();
  await logIn(page, calm.url, { user: "admin", password: "right" });
  // Parts are fetched ahead, and come when somebody is waiting for one already.
  let release = () => {};
  const held = new Promise<void>((resolve) => {
    release = resolve;
  });
  let asked = 0;
  await page.route("**/*.js", async (route) => {
    asked += 1;
    await held;
    await route.continue();
  });
  await expect.poll(() => asked).toBeGreaterThan(0);
  await page.evaluate(() => {
    location.hash = "/settings";
  });
  await page.locator(".loading").waitFor();
  release();
  await page.getByRole("heading", { name: "Settings" }).waitFor();
  await context.close();
});

test(`first paint takes less than ${firstPaintLimit / 1000} kB, fonts apart`, async () => {
  const page = await (await openWindow(browser)).newPage();
  const loaded = new Map<string, number>();
  page.on("response", async (response) => {
    const { pathname } = new URL(response.url());
    if (pathname.startsWith("/api/") || pathname.endsWith(".woff2")) return;
    loaded.set(pathname, gzipSync(await response.body(), { level: 6 }).length);
  });
  await page.goto(calm.url, { waitUntil: "load" });
  await page.getByRole("button", { name: "Log in" }).waitFor();
  await page.waitForTimeout(300);
  const total = [...loaded.values()].reduce((sum, length) => sum + length, 0);
  const list = [...loaded].map(([path, length]) => `${path} ${length}`).join("\n");
  expect(loaded.size, list).toBeGreaterThanOrEqual(3);
  expect(total, list).toBeGreaterThan(10_000);
  expect(total, list).toBeLessThan(firstPaintLimit);
  // What isn't needed for it is not fetched for it.
  expect(list).not.toMatch(/part-/);
  await page.context().close();
});
