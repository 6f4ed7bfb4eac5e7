/** When scrubs begin, how fast they go, what is kept over restarts. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { KeelsonError } from "#lib/model/errors.ts";
import type { ScrubStep } from "./engine/scrub.ts";
import { Scrubber } from "./scrubber.ts";

const dayMs = 86_400_000;
const startMs = Date.parse("2026-11-28T12:00:00Z");
const bad = { block: 7, volume: "v", offsetBytes: 4096, snapshot: null, why: "checksum" } as const;
const log = { error: vi.fn(), warn: vi.fn(), info: vi.fn(), debug: vi.fn() };

let folder: string;
let nowMs: number;
/** Steps asked for. */
let asked: number[];
let answer: (from: number) => ScrubStep | Promise<ScrubStep>;
let scrubber: Scrubber | undefined;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "keelson-scrub-"));
  nowMs = startMs;
  asked = [];
  answer = (from) => step(from);
  vi.clearAllMocks();
});
afterEach(async () => {
  await scrubber?.close();
  rmSync(folder, { recursive: true, force: true });
});

function step(from: number, change: Partial<ScrubStep> = {}): ScrubStep {
  const next = from < 4 ? from + 1 : null;
  return { next, done: from, of: 5, bytes: 1000, healed: 0, bad: [], ...change };
}

function open(): Scrubber {
  scrubber = new Scrubber({
    file: join(folder, "scrub.json"),
    step: async (from) => {
      asked.push(from);
      return await answer(from);
    },
    nowMs: () => nowMs,
    log,
  });
  return scrubber;
}

const ended = (of: Scrubber) => vi.waitFor(() => expect(of.info().run?.state).not.toBe("running"));

test("by default one is due a fortnight after the store was first served", async () => {
  expect(open().info()).toEqual({
    settings: { everyDays: 14, bytesPerSecond: 32 << 20 },
    nextAt: "2026-12-12T12:00:00.000Z",
    run: null,
  });
  await scrubber!.close();
  nowMs += 14 * dayMs;
  const later = open();
  expect(later.info().run?.state).toBe("running");
  await ended(later);
  expect(later.info()).toMatchObject({ nextAt: "2026-12-26T12:00:00.000Z" });
  expect(asked).toEqual([0, 1, 2, 3, 4]);
});

test("what it found is counted, kept and said", async () => {
  answer = (from) => step(from, from === 2 ? { bad: [bad, bad], healed: 1 } : {});
  const of = open();
  of.start();
  await ended(of);
  const run = {
    ...{ state: "finished", progressPercent: 100, readBytes: 5000, healed: 1, badCount: 2 },
    bad: [bad, bad],
  };
  expect(of.info().run).toMatchObject(run);
  expect(log.error).toHaveBeenCalledTimes(2);
  await of.close();
  expect(open().info().run).toMatchObject(run);
});

test("bad blocks stand until a scrub has ended that found none", async () => {
  const of = open();
  expect(of.badBlocks).toEqual({ count: 0, first: null });
  answer = (from) => step(from, from === 2 ? { bad: [bad, bad] } : {});
  of.start();
  await ended(of);
  expect(of.badBlocks).toEqual({ count: 2, first: bad });
  answer = (from) => step(from, { next: from + 1 });
  of.start();
  expect(of.badBlocks.count).toBe(2);
  await of.stop();
  expect(of.badBlocks.count).toBe(2);
  answer = (from) => step(from);
  of.start();
  await ended(of);
  expect(of.badBlocks).toEqual({ count: 0, first: null });
});

test("a restart goes on where it was", async () => {
  const { promise, resolve } = Promise.withResolvers<ScrubStep>();
  answer = (from) => (from === 3 ? promise : step(from));
  const of = open();
  of.start();
  await vi.waitFor(() => expect(asked).toContain(3));
  const closed = of.close();
  resolve(step(3));
  await closed;
  asked = [];
  answer = (from) => step(from);
  await ended(open());
  expect(asked).toEqual([4]);
});

test("told to stop it stops, and another one may begin; two at once can't be", async () => {
  answer = (from) => step(from, { next: from + 1 });
  const of = open();
  of.start();
  expect(() => of.start()).toThrow(/runs already/);
  expect((await of.stop()).run?.state).toBe("stopped");
  expect((await of.stop()).run?.state).toBe("stopped");
  of.start();
  await of.stop();
});

test("it reads no faster than it may", async () => {
  answer = (from) => step(from, { bytes: 1 << 20 });
  const of = open();
  of.set({ everyDays: 0, bytesPerSecond: 20 << 20 });
  expect(of.info().nextAt).toBeNull();
  const beganMs = performance.now();
  of.start();
  await ended(of);
  // Five steps, a pause after each but the last.
  expect(performance.now() - beganMs).toBeGreaterThan(190);
});

test("a store that fails ends it, with the reason", async () => {
  answer = () => {
    throw new KeelsonError("STORE_FAILED", "The store retired.");
  };
  const of = open();
  of.start();
  await ended(of);
  expect(of.info().run).toMatchObject({ state: "failed", reason: "The store retired." });
});

test.each(["", "{", '{"version":2}', '{"version":1,"settings":{}}'])(
  "a state file that reads %j is replaced, and that is said",
  (text) => {
    writeFileSync(join(folder, "scrub.json"), text);
    expect(open().info().run).toBeNull();
    expect(log.warn).toHaveBeenCalledOnce();
    expect(JSON.parse(readFileSync(join(folder, "scrub.json"), "utf8"))).toMatchObject({
      version: 1,
    });
  },
);
