/**
 * What frames cost while lists of 10,000 rows are scrolled, in Chromium with software drawing.
 *
 *   node qa/ui/scroll.ts [--rows N] [--seconds S]
 *
 * Scrolls by wheel steps, and by jumps over thousands of rows. Two figures: how far apart frames
 * were, which a busy machine makes worse; and how much processor time the page's main thread took
 * for its longest task (script, style, layout and paint of a frame are one), which it doesn't.
 * Ends with 1 when that was more than 50 ms.
 */
import { parseArgs } from "node:util";
import type { Browser, Page } from "playwright-core";
import { launchBrowser, logIn, openWindow } from "./browser.ts";
import { startFixture } from "./fixture.ts";

const limitMs = 50;

export interface ScrollFigures {
  readonly frames: number;
  readonly medianMs: number;
  readonly p99Ms: number;
  readonly longestMs: number;
  /** Frames that the browser itself reports as longer than 50 ms, whatever the cause. */
  readonly longFrames: number;
  /** Processor time of the longest task of the page's main thread, in milliseconds. */
  readonly longestTaskMs: number;
  readonly rowsDrawn: number;
}

interface TraceEvent {
  readonly name: string;
  readonly pid: number;
  readonly tid: number;
  /** Processor time in microseconds. */
  readonly tdur?: number;
  readonly args?: { readonly name?: string };
}

/** Of all renderers: there is one page. */
function longestTaskMs(trace: Buffer): number {
  const { traceEvents } = JSON.parse(trace.toString()) as { traceEvents: TraceEvent[] };
  const mainThreads = new Set(
    traceEvents
      .filter(({ name, args }) => name === "thread_name" && args?.name === "CrRendererMain")
      .map(({ pid, tid }) => `${pid} ${tid}`),
  );
  const tasks = traceEvents.filter(
    ({ name, pid, tid, tdur }) =>
      /RunTask$/.test(name) && tdur !== undefined && mainThreads.has(`${pid} ${tid}`),
  );
  if (tasks.length === 0) throw new Error("The trace holds no task of the page's main thread.");
  return tasks.reduce((longest, { tdur }) => Math.max(longest, tdur!), 0) / 1000;
}

/** Scrolls for `seconds`, with the list in view and the mouse above it. */
export async function measureScroll(
  browser: Browser,
  page: Page,
  seconds: number,
): Promise<ScrollFigures> {
  await page.evaluate(() => {
    const seen = { gaps: [] as number[], long: 0, last: 0, stop: false };
    Object.assign(globalThis, { seen });
    new PerformanceObserver((list) => {
      seen.long += list.getEntries().length;
    }).observe({ type: "long-animation-frame", buffered: false });
    const tick = (atMs: number) => {
      if (seen.last !== 0) seen.gaps.push(atMs - seen.last);
      seen.last = atMs;
      if (!seen.stop) requestAnimationFrame(tick);
    };
    requestAnimationFrame(tick);
  });
  await browser.startTracing(page, { categories: ["toplevel"] });
  const endMs = Date.now() + seconds * 1000;
  for (let step = 1; Date.now() < endMs; step++) {
    if (step % 40 === 0) {
      const share = ((step / 40) * 0.37) % 1;
      await page.evaluate((to) => scrollTo(0, document.body.scrollHeight * to), share);
    } else await page.mouse.wheel(0, step % 80 < 40 ? 400 : -400);
    await page.waitForTimeout(16);
  }
  const trace = await browser.stopTracing();
  const rowsDrawn = await page.locator("tbody tr").count();
  const { gaps, long } = await page.evaluate(() => {
    const { seen } = globalThis as unknown as {
      seen: { gaps: number[]; long: number; stop: boolean };
    };
    seen.stop = true;
    return seen;
  });
  const sorted = gaps.sort((a, b) => a - b);
  const at = (share: number) => sorted[Math.floor((sorted.length - 1) * share)] ?? 0;
  return {
    frames: gaps.length,
    medianMs: at(0.5),
    p99Ms: at(0.99),
    longestMs: at(1),
    longFrames: long,
    longestTaskMs: longestTaskMs(trace),
    rowsDrawn,
  };
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      rows: { type: "string", default: "10000" },
      seconds: { type: "string", default: "10" },
    },
  });
  const fixture = await startFixture({ rows: Number(values.rows) });
  const browser = await launchBrowser();
  let slow = false;
  try {
    const page = await (await openWindow(browser)).newPage();
    await logIn(page, fixture.url, { user: "admin", password: "right" });
    for (const path of ["/volumes", "/audit"]) {
      await page.evaluate((to) => {
        location.hash = to;
      }, path);
      await page.locator("tbody tr").nth(10).waitFor();
      await page.waitForTimeout(1500);
      await page.mouse.move(700, 500);
      const figures = await measureScroll(browser, page, Number(values.seconds));
      slow ||= figures.longestTaskMs > limitMs;
      const rounded = Object.entries(figures).map(([name, value]) => [
        name,
        Math.round((value as number) * 10) / 10,
      ]);
      console.log(path, JSON.stringify(Object.fromEntries(rounded)));
    }
  } finally {
    await browser.close();
    await fixture.stop();
  }
  console.log(
    slow
      ? `A task took more than ${limitMs} ms of processor time.`
      : `No task took more than ${limitMs} ms of processor time.`,
  );
  process.exitCode = slow ? 1 : 0;
}

if (import.meta.main) await main();
