/**
 * How long frames take while lists of 10,000 rows are scrolled, in Chromium with software drawing.
 *
 *   node qa/ui/scroll.ts [--rows N] [--seconds S]
 *
 * Frames are what the browser reports as long (Long Animation Frames, from 50 ms on) with the time
 * its scripts took, and the distances between animation frames. Ends with 1 when a frame took
 * longer than 50 ms of the console's own work. A busy machine makes frames late: run it alone.
 */
import { parseArgs } from "node:util";
import type { Page } from "playwright-core";
import { launchBrowser, logIn, openWindow } from "./browser.ts";
import { startFixture } from "./fixture.ts";

const limitMs = 50;

export interface ScrollFigures {
  readonly frames: number;
  readonly medianMs: number;
  readonly p99Ms: number;
  readonly longestMs: number;
  /** Longest that script, style and layout took within one frame. */
  readonly longestWorkMs: number;
  readonly longFrames: number;
  readonly rowsDrawn: number;
}

/** Scrolls the page up and down by wheel steps, then by jumps over thousands of rows. */
export async function measureScroll(page: Page, seconds: number): Promise<ScrollFigures> {
  await page.evaluate(() => {
    const seen = { gaps: [] as number[], work: [] as number[], long: 0, last: 0, stop: false };
    Object.assign(globalThis, { seen });
    new PerformanceObserver((list) => {
      for (const entry of list.getEntries()) {
        const frame = entry as PerformanceEntry & { renderStart: number; blockingDuration: number };
        seen.long++;
        // Since its first script: what came before is waiting for a turn on the processor.
        const scripts = (entry as unknown as { scripts: { duration: number }[] }).scripts;
        const script = scripts.reduce((sum, { duration }) => sum + duration, 0);
        const rendering =
          frame.renderStart === 0 ? 0 : entry.startTime + entry.duration - frame.renderStart;
        seen.work.push(Math.max(script, rendering));
      }
    }).observe({ type: "long-animation-frame", buffered: false });
    const tick = (atMs: number) => {
      if (seen.last !== 0) seen.gaps.push(atMs - seen.last);
      seen.last = atMs;
      if (!seen.stop) requestAnimationFrame(tick);
    };
    requestAnimationFrame(tick);
  });
  const endMs = Date.now() + seconds * 1000;
  let step = 0;
  while (Date.now() < endMs) {
    step++;
    if (step % 40 === 0) {
      const share = ((step / 40) * 0.37) % 1;
      await page.evaluate((to) => scrollTo(0, document.body.scrollHeight * to), share);
    } else await page.mouse.wheel(0, step % 80 < 40 ? 400 : -400);
    await page.waitForTimeout(16);
  }
  const rowsDrawn = await page.locator("tbody tr").count();
  const { gaps, work, long } = await page.evaluate(() => {
    const { seen } = globalThis as unknown as {
      seen: { gaps: number[]; work: number[]; long: number; stop: boolean };
    };
    seen.stop = true;
    return seen;
  });
  const sorted = gaps.sort((a, b) => a - b);
  const at = (share: number) =>
    sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))];
  return {
    frames: gaps.length,
    medianMs: at(0.5),
    p99Ms: at(0.99),
    longestMs: sorted.at(-1) ?? 0,
    longestWorkMs: Math.max(0, ...work),
    longFrames: long,
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
      await page.locator("tbody tr").nth(20).waitFor();
      await page.waitForTimeout(1500);
      await page.mouse.move(700, 500);
      const figures = await measureScroll(page, Number(values.seconds));
      slow ||= figures.longestWorkMs > limitMs;
      console.log(
        path,
        JSON.stringify(figures, (_, value) =>
          typeof value === "number" ? Math.round(value * 10) / 10 : value,
        ),
      );
    }
  } finally {
    await browser.close();
    await fixture.stop();
  }
  console.log(
    slow
      ? `A frame took more than ${limitMs} ms of work.`
      : `No frame took more than ${limitMs} ms of work.`,
  );
  process.exit(slow ? 1 : 0);
}

if (import.meta.main) await main();
