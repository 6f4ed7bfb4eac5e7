/** The console in a real browser against a real node: what a person does in the first hour. */
import { randomBytes } from "node:crypto";
import { mkdirSync } from "node:fs";
import { join, resolve } from "node:path";
import type { Browser, BrowserContext, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { breakingProxy } from "#lib/rpc/breaking-proxy.fixture.ts";
import type { Condition, Image, Volume } from "#services/api/schema.ts";
import { launchBrowser, logIn, logInAndScreenshot, openWindow, type View } from "./browser.ts";
import { fetchBootScript, holdSession } from "./initiator.ts";
import { type DevNode, startDevNode } from "./node.ts";

const shots = resolve(import.meta.dirname, "../../build/screenshots");
const pages = {
  overview: "/",
  clients: "/clients",
  images: "/images",
  volumes: "/volumes",
  exports: "/exports",
  netboot: "/netboot",
  conditions: "/conditions",
  tasks: "/tasks",
};

let node: DevNode;
let browser: Browser;
let window: BrowserContext;
let page: Page;
/** What the browser complained of: script errors, breaches of the content security policy. */
let complaints: string[];
let outside: string[];
/** Where the page comes from, if not from the node itself. */
let proxied: string;

beforeAll(async () => {
  mkdirSync(shots, { recursive: true });
  node = await startDevNode();
  browser = await launchBrowser();
});

afterAll(async () => {
  await browser?.close();
  await node?.stop();
});

async function open(view: View = {}): Promise<void> {
  await window?.close();
  window = await openWindow(browser, view);
  page = await window.newPage();
  complaints = [];
  outside = [];
  proxied = node.url;
  page.on("pageerror", (error) => complaints.push(error.message));
  page.on("console", (message) => {
    if (/content security policy/i.test(message.text())) complaints.push(message.text());
  });
  page.on("request", (request) => {
    const own = [node.url, proxied].some((origin) => request.url().startsWith(origin));
    if (!own) outside.push(request.url());
  });
}

beforeEach(() => open());

afterEach(async () => {
  await window.close();
  expect(complaints).toEqual([]);
  expect(outside).toEqual([]);
});

async function enter(view?: View): Promise<void> {
  if (view !== undefined) await open(view);
  await logIn(page, node.url, { user: "admin", password: node.password });
  await page.getByText("· live").waitFor({ state: "attached" });
}

async function goTo(name: keyof typeof pages): Promise<void> {
  await page.evaluate((path) => {
    location.hash = path;
  }, pages[name]);
  await page.locator("h1").waitFor();
  await page.waitForTimeout(150);
}

function shoot(name: string): Promise<unknown> {
  return page.screenshot({ path: join(shots, `${name}.png`) });
}

function row(name: string) {
  return page.getByRole("row").filter({ hasText: name });
}

/** Presses Tab until what has the focus is called `name`. */
async function tabTo(name: string | RegExp): Promise<void> {
  for (let presses = 0; presses < 60; presses++) {
    await page.keyboard.press("Tab");
    const focused = await page.evaluate(() => {
      const element = document.activeElement as HTMLElement;
      const label = (element as HTMLInputElement).labels?.[0]?.textContent;
      return (element.getAttribute("aria-label") ?? label ?? element.textContent ?? "").trim();
    });
    if (typeof name === "string" ? focused === name : name.test(focused)) return;
  }
  throw new Error(`Tab never reached ${name}.`);
}

describe("log-in", () => {
  test("a wrong password is refused in words, and nothing of the node is shown", async () => {
    await page.goto(node.url);
    await page.getByLabel("User").fill("admin");
    await page.getByLabel("Password").fill("not the password");
    await page.getByRole("button", { name: "Log in" }).click();
    const alert = page.getByRole("alert");
    await alert.waitFor();
    expect(await alert.textContent()).toMatch(/wrong|password/i);
    expect(await page.getByRole("navigation").count()).toBe(0);
    await shoot("log-in-refused");
  });

  test("empty fields are asked for, without a request", async () => {
    await page.goto(node.url);
    await page.getByRole("button", { name: "Log in" }).click();
    await page.getByText("Give a user and a password.").waitFor();
  });

  test("the right password leads to the overview; a reload stays; logging out ends it", async () => {
    await enter();
    await page.getByRole("heading", { name: "Overview" }).waitFor();
    await page.reload();
    await page.getByRole("heading", { name: "Overview" }).waitFor();
    await page.getByRole("button", { name: "Log out" }).click();
    await page.getByRole("button", { name: "Log in" }).waitFor();
    await page.reload();
    await page.getByRole("button", { name: "Log in" }).waitFor();
    expect(await page.getByRole("navigation").count()).toBe(0);
  });

  test("the cookie is out of reach of scripts", async () => {
    await enter();
    expect(await page.evaluate(() => document.cookie)).toBe("");
    const cookies = await window.cookies();
    expect(cookies.length).toBeGreaterThan(0);
    for (const cookie of cookies) {
      expect(cookie).toMatchObject({ httpOnly: true, sameSite: "Strict" });
    }
  });
});

describe("a new node", () => {
  test("each empty page says what belongs there and how to begin", async () => {
    await enter();
    await page.getByRole("heading", { name: "Boot your first machine" }).waitFor();
    await page.getByText("Chunk store").first().waitFor();
    const begins = {
      clients: "Register client",
      images: "Upload image",
      volumes: "Create volume",
      exports: "Export a volume",
    } as const;
    for (const [name, button] of Object.entries(begins)) {
      await goTo(name as keyof typeof begins);
      await page.getByRole("button", { name: button }).nth(1).waitFor();
      await shoot(`empty-${name}`);
    }
  });

  test("the development build is named on every page", async () => {
    await enter();
    for (const name of Object.keys(pages) as (keyof typeof pages)[]) {
      await goTo(name);
      expect(await page.getByText(/Development build/).isVisible(), name).toBe(true);
    }
  });

  test("conditions are the node's own, with what to do", async () => {
    await enter();
    await goTo("conditions");
    await page.getByRole("radio", { name: "All checks" }).check();
    const known = await node.call<Condition[]>("GET", "/conditions");
    expect(known.length).toBeGreaterThan(0);
    for (const { reason } of known) await page.getByText(reason).first().waitFor();
    await shoot("conditions");
  });
});

describe("volumes", () => {
  test("by keyboard alone: log in, create, grow, delete", async () => {
    await page.goto(node.url);
    await page.getByLabel("User").waitFor();
    await page.keyboard.type("admin");
    await page.keyboard.press("Tab");
    await page.keyboard.type(node.password);
    await page.keyboard.press("Enter");
    await page.getByText("· live").waitFor();

    await tabTo("Volumes");
    await page.keyboard.press("Enter");
    await page.getByRole("heading", { name: "Volumes", exact: true }).waitFor();
    await tabTo("Create volume");
    await page.keyboard.press("Enter");
    await page.getByRole("dialog").waitFor();
    await page.keyboard.type("by-keyboard");
    await tabTo("Size");
    await page.keyboard.type("1");
    await shoot("volume-create");
    await page.keyboard.press("Enter");
    await page.getByRole("dialog").waitFor({ state: "detached" });
    await row("by-keyboard").getByText("1 GiB", { exact: true }).waitFor();

    await tabTo("Grow by-keyboard");
    await page.keyboard.press("Enter");
    await page.getByRole("dialog").waitFor();
    await page.keyboard.type("512M");
    await page.getByText(/a volume never shrinks/).waitFor();
    await page.keyboard.press("Escape");
    await page.getByRole("dialog").waitFor({ state: "detached" });
    expect(await page.evaluate(() => document.activeElement?.getAttribute("aria-label"))).toBe(
      "Grow by-keyboard",
    );
    await page.keyboard.press("Enter");
    await page.getByRole("dialog").waitFor();
    await page.keyboard.type("2G");
    await page.keyboard.press("Enter");
    await row("by-keyboard").getByText("2 GiB", { exact: true }).waitFor();

    await tabTo("Delete by-keyboard");
    await page.keyboard.press("Enter");
    await page.getByRole("dialog").waitFor();
    await page.getByText("nothing was ever written to it").waitFor();
    await tabTo("Delete volume");
    await page.keyboard.press("Enter");
    await row("by-keyboard").waitFor({ state: "detached" });
    expect(await node.call<Volume[]>("GET", "/volumes")).toEqual([]);
  });

  test("a name that is taken: api's words are shown and the dialog keeps what was typed", async () => {
    const { id } = await node.call<Volume>("POST", "/volumes", {
      name: "taken",
      sizeBytes: 2 ** 20,
    });
    await enter();
    await goTo("volumes");
    await page.getByRole("button", { name: "Create volume" }).click();
    await page.getByLabel("Name").fill("taken");
    await page.getByLabel("Size").fill("1G");
    await page.getByRole("button", { name: "Create", exact: true }).click();
    const alert = page.getByRole("dialog").getByRole("alert");
    await alert.waitFor();
    expect(await alert.textContent()).toMatch(/taken/);
    expect(await page.getByLabel("Name").inputValue()).toBe("taken");
    await shoot("volume-name-taken");
    await node.call("DELETE", `/volumes/${id}`);
  });

  test("what another client does appears without a reload", async () => {
    await enter();
    await goTo("volumes");
    const { id } = await node.call<Volume>("POST", "/volumes", {
      name: "made-elsewhere",
      sizeBytes: 2 ** 30,
    });
    await row("made-elsewhere").waitFor();
    await node.call("DELETE", `/volumes/${id}`);
    await row("made-elsewhere").waitFor({ state: "detached" });
  });
});

async function upload(name: string, content: Buffer): Promise<void> {
  await page
    .getByLabel("Image file")
    .setInputFiles({ name, mimeType: "application/octet-stream", buffer: content });
  await page.getByRole("dialog").waitFor();
  await page.getByRole("button", { name: "Upload", exact: true }).click();
  await page.getByRole("dialog").waitFor({ state: "detached" });
}

/** So many bytes a second leave the browser; 0: it is off the network. */
async function sendAt(bytesPerSecond: number): Promise<void> {
  const session = await window.newCDPSession(page);
  await session.send("Network.enable");
  await session.send("Network.emulateNetworkConditions", {
    offline: bytesPerSecond === 0,
    latency: 0,
    downloadThroughput: -1,
    uploadThroughput: bytesPerSecond,
  });
}

describe("images", () => {
  test("a small image is uploaded, imported, and its bytes are in the store", async () => {
    await enter();
    await goTo("images");
    await upload("small disk.raw", randomBytes(4 << 20));
    await row("small-disk").getByText("Ready").waitFor();
    const image = (await node.call<Image[]>("GET", "/images")).find(
      ({ name }) => name === "small-disk",
    );
    expect(image).toMatchObject({ state: "ready", sizeBytes: 4 << 20 });
    const volume = await node.call<Volume>("GET", `/volumes/${image!.volumeId}`);
    expect(volume.allocatedBytes).toBeGreaterThanOrEqual(4 << 20);
    await shoot("images");
  });

  test("a file dropped on the page is taken like a chosen one", async () => {
    await enter();
    await goTo("images");
    const transfer = await page.evaluateHandle(() => {
      const data = new DataTransfer();
      data.items.add(new File([new Uint8Array(1 << 20)], "dropped.raw"));
      return data;
    });
    await page.dispatchEvent("main", "dragover", { dataTransfer: transfer });
    await page.getByText("Drop the file to upload it").waitFor();
    await page.dispatchEvent("main", "drop", { dataTransfer: transfer });
    await page.getByRole("dialog").getByText("dropped.raw").waitFor();
    await page.getByRole("button", { name: "Cancel" }).click();
  });

  test("an upload can be cancelled while it runs, and leaves nothing behind", async () => {
    await enter();
    await goTo("images");
    await sendAt(100_000);
    await upload("slow.raw", randomBytes(4 << 20));
    const progress = page.getByRole("progressbar", { name: "Upload of slow" });
    await progress.waitFor();
    await shoot("upload-running");
    await page.getByRole("button", { name: "Cancel the upload of slow" }).click();
    await progress.waitFor({ state: "detached" });
    await expect
      .poll(async () => (await node.call<Image[]>("GET", "/images")).map(({ name }) => name))
      .not.toContain("slow");
  });

  const image = async (name: string) =>
    (await node.call<Image[]>("GET", "/images")).find((each) => each.name === name);
  const someReceived = (name: string) =>
    expect.poll(async () => (await image(name))?.receivedBytes).toBeGreaterThan(1 << 20);

  test("an upload goes on by itself where the connection broke", async () => {
    const proxy = await breakingProxy(Number(new URL(node.url).port), 7 << 20, "requests");
    try {
      proxied = `${new URL(node.url).protocol}//127.0.0.1:${proxy.port}`;
      await logIn(page, proxied, { user: "admin", password: node.password });
      await goTo("images");
      await upload("away.raw", randomBytes(12 << 20));
      await page.getByText("The node is away; this goes on when it is back").waitFor();
      await shoot("upload-waiting");
      await row("away").getByText("Ready").waitFor();
      expect(proxy.broken()).toBeGreaterThan(0);
      expect(await image("away")).toMatchObject({ state: "ready", sizeBytes: 12 << 20 });
      await page
        .getByRole("progressbar", { name: "Upload of away" })
        .waitFor({ state: "detached" });
    } finally {
      proxy.server.close();
    }
  });

  test("after the page was closed it goes on with the same file, not with another", async () => {
    await enter();
    await goTo("images");
    page.on("dialog", (dialog) => void dialog.accept());
    await sendAt(2_000_000);
    const content = randomBytes(12 << 20);
    await upload("closed.raw", content);
    await someReceived("closed");
    await page.reload();
    await row("closed").getByText("Broke off at").waitFor();
    await shoot("upload-broken");
    const goOnWith = async (buffer: Buffer) => {
      const choosing = page.waitForEvent("filechooser");
      await page.getByRole("button", { name: "Go on with the upload of closed" }).click();
      const chooser = await choosing;
      await chooser.setFiles({ name: "closed.raw", mimeType: "application/octet-stream", buffer });
    };
    await sendAt(-1);
    await goOnWith(randomBytes(11 << 20));
    await page.getByText("The upload began with a file of 12582912 bytes").waitFor();
    await page.getByRole("button", { name: "Close", exact: true }).click();
    await goOnWith(content);
    await row("closed").getByText("Ready").waitFor();
    expect(await image("closed")).toMatchObject({ state: "ready", sizeBytes: 12 << 20 });
  });

  test("a broken qcow2 is refused with its reason, on the page and as a condition", async () => {
    await enter();
    await goTo("images");
    const broken = Buffer.concat([Buffer.from("QFI\xfb", "latin1"), randomBytes(1 << 20)]);
    await upload("broken.qcow2", broken);
    await row("broken").getByText("Import failed").waitFor();
    const image = (await node.call<Image[]>("GET", "/images")).find(
      ({ name }) => name === "broken",
    );
    expect(image!.failure).toMatch(/\w/);
    await row("broken").getByText(image!.failure!.slice(0, 30)).waitFor();
    await shoot("image-broken");
    await page.getByRole("button", { name: "Delete image broken" }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Delete image" }).click();
    await row("broken").waitFor({ state: "detached" });
  });
});

describe("clients", () => {
  const mac = "52:54:00:c0:ff:ee";

  test("an unknown machine appears by itself and is registered from there", async () => {
    await enter();
    await goTo("clients");
    const script = await fetch(`${node.bootUrl}/boot.ipxe?mac=${mac}`);
    expect(await script.text()).toMatch(/^#!ipxe/);
    const unknown = page.getByRole("region", { name: "Unknown machines" });
    await unknown.getByText(mac).waitFor();
    await shoot("client-unknown");
    await unknown.getByRole("button", { name: "Register" }).click();
    await page.getByLabel("Name").fill("bench-1");
    await shoot("client-register");
    await page.getByRole("dialog").getByRole("button", { name: "Register" }).click();
    await row("bench-1").getByText("small-disk").waitFor();
    await unknown.waitFor({ state: "detached" });
  });

  test("its next boot is followed up to its running system, and its clone made", async () => {
    await enter();
    await goTo("clients");
    const stage = (label: string) =>
      row("bench-1")
        .getByRole("list", { name: `Boot stage: ${label}` })
        .waitFor();
    const script = await fetchBootScript(node.bootUrl, mac);
    await stage("It fetched its boot script");
    await row("bench-1").getByText("Has its own disk").waitFor();
    await holdSession(script, () => stage("Its loader logged in to its disk"));
    await shoot("client-booting");
    await holdSession(script, () => stage("Its operating system runs from its disk"));
    await shoot("clients");
  });

  test("resetting its disk names what is lost and wants the name typed", async () => {
    await enter();
    await goTo("clients");
    await page.getByRole("button", { name: "Reset the disk of bench-1" }).click();
    const dialog = page.getByRole("dialog");
    await dialog.getByText(/Everything that bench-1 wrote/).waitFor();
    const confirm = dialog.getByRole("button", { name: "Reset disk" });
    expect(await confirm.isDisabled()).toBe(true);
    await dialog.getByRole("textbox").fill("bench-1");
    await shoot("client-reset");
    await confirm.click();
    await row("bench-1").getByText("Its disk is made at first boot").waitFor();
  });

  test("a MAC address that isn't one is told while it is typed", async () => {
    await enter();
    await goTo("clients");
    await page.getByRole("button", { name: "Register client" }).first().click();
    await page.getByLabel("MAC address").fill("52:54:00");
    await page.getByText("Write it like 52:54:00:12:34:56.").waitFor();
    expect(
      await page.getByRole("dialog").getByRole("button", { name: "Register" }).isDisabled(),
    ).toBe(true);
  });
});

describe("a node that goes away", () => {
  test("what is shown turns stale with its age, and live again when the node is back", async () => {
    await enter();
    // The supervisor sleeps, so that nothing starts api again before the page has noticed.
    const { api } = await livePids();
    process.kill(node.supervisorPid, "SIGSTOP");
    try {
      process.kill(api, "SIGKILL");
      const banner = page.getByText(/Connection lost/);
      await banner.waitFor();
      expect(await banner.textContent()).toMatch(/as it was \d+ s ago/);
      expect(await page.locator("main").evaluate((main) => getComputedStyle(main).filter)).toMatch(
        /grayscale/,
      );
      await shoot("stale");
    } finally {
      process.kill(node.supervisorPid, "SIGCONT");
    }
    await page.getByText(/Connection lost/).waitFor({ state: "detached" });
    await page.getByText("· live").waitFor();
    await node.call("POST", "/volumes", { name: "after-return", sizeBytes: 2 ** 20 });
    await goTo("volumes");
    await row("after-return").waitFor();
  });

  test("a store that died is told by the overview, and by nothing else being lost", async () => {
    await enter();
    process.kill(node.supervisorPid, "SIGSTOP");
    try {
      process.kill((await livePids())["chunk-store"], "SIGKILL");
      await page.getByText("Does not answer").first().waitFor();
      await shoot("store-away");
    } finally {
      process.kill(node.supervisorPid, "SIGCONT");
    }
    await expect.poll(() => page.getByText("Does not answer").count(), { interval: 500 }).toBe(0);
  });
});

async function livePids(): Promise<Record<string, number>> {
  return node.pids;
}

describe("many rows", () => {
  const count = 1000;

  test(`${count} volumes: few are drawn, all are found`, async () => {
    const names = Array.from({ length: count }, (_, at) => `bulk-${String(at).padStart(4, "0")}`);
    for (let at = 0; at < count; at += 50) {
      await Promise.all(
        names
          .slice(at, at + 50)
          .map((name) => node.call("POST", "/volumes", { name, sizeBytes: 2 ** 20 })),
      );
    }
    await enter();
    await goTo("volumes");
    await page.getByText(/100[0-9] volumes/).waitFor();
    expect(await page.locator("tbody tr").count()).toBeLessThan(80);
    await page.evaluate(() => scrollTo(0, document.body.scrollHeight));
    await row("bulk-0999").waitFor();
    await page.keyboard.press("/");
    await page.keyboard.type("bulk-0042");
    await page.getByText(/1 of 100\d volumes/).waitFor();
    await row("bulk-0042").waitFor();
    await shoot("many-volumes");
  }, 300_000);
});

describe("looks", () => {
  const views: [string, View][] = [
    ["light", {}],
    ["dark", { dark: true }],
    ["phone", { widthPx: 390, heightPx: 844 }],
  ];

  test.for(views)("%s: every page fits, and is kept as a screenshot", async ([name, view]) => {
    await enter(view);
    for (const at of Object.keys(pages) as (keyof typeof pages)[]) {
      await goTo(at);
      const overflow = await page.evaluate(
        () => document.documentElement.scrollWidth - document.documentElement.clientWidth,
      );
      expect(overflow, `${at} is wider than its window`).toBeLessThanOrEqual(0);
      await shoot(`${at}-${name}`);
    }
  });

  test("the choice of colours outlives a reload and the log-in", async () => {
    await enter();
    const theme = () => page.evaluate(() => document.documentElement.dataset.theme);
    expect(await theme()).toBe("light");
    await page.getByRole("button", { name: "Dark colours" }).click();
    expect(await theme()).toBe("dark");
    await page.reload();
    await page.getByRole("heading", { name: "Overview" }).waitFor();
    expect(await theme()).toBe("dark");
  });

  test("each focus that Tab reaches can be seen", async () => {
    await enter();
    for (let presses = 0; presses < 20; presses++) {
      await page.keyboard.press("Tab");
      const outline = await page.evaluate(() => {
        const element = document.activeElement!;
        const { outlineStyle, outlineWidth } = getComputedStyle(
          element.closest("label") ?? element,
        );
        return {
          name: element.outerHTML.slice(0, 90),
          style: outlineStyle,
          width: Number.parseFloat(outlineWidth),
        };
      });
      // Past the last one the browser's own frame has the focus.
      if (outline.name.startsWith("<body")) continue;
      expect(outline.style, outline.name).not.toBe("none");
      expect(outline.width, outline.name).toBeGreaterThanOrEqual(2);
    }
  });
});

test("logInAndScreenshot writes the page it was asked for, and says why it could not", async () => {
  const out = join(shots, "by-function.png");
  const common = { url: node.url, user: "admin", out };
  await logInAndScreenshot({ ...common, password: node.password, page: "/clients" });
  await expect(
    logInAndScreenshot({ ...common, password: "not the password" }),
  ).rejects.toMatchObject({ code: "UNAUTHENTICATED" });
});
