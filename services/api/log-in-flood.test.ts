/** A thousand log-ins a second, over real HTTP, from a process of its own. */
import { spawn } from "node:child_process";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { password, TestNode } from "./platform.fixture.ts";

/** Stands still where waits must not end by themselves, however slow the machine is. */
let stoppedMs: number | undefined;
const node = new TestNode({
  bootMs: () => stoppedMs ?? performance.now(),
  now: () => new Date().toISOString(),
});
beforeAll(() => node.start());
afterAll(() => node.remove());

interface Flood {
  readonly sent: number;
  readonly counts: Record<string, number>;
}

function flood(perSecond: number, seconds: number): Promise<Flood> {
  const script = join(import.meta.dirname, "log-in-flood.fixture.ts");
  const child = spawn(process.execPath, [script, node.http, String(perSecond), String(seconds)], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  let text = "";
  child.stdout.setEncoding("utf8").on("data", (part: string) => {
    text += part;
  });
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("close", () => resolve(JSON.parse(text) as Flood));
  });
}

async function logIn(cookie?: string) {
  const startedMs = performance.now();
  const answer = await fetch(`${node.http}/api/v1/session`, {
    method: "POST",
    headers: {
      "content-type": "application/json",
      ...(cookie === undefined ? {} : { cookie, origin: node.http }),
    },
    body: JSON.stringify({ user: "admin", password }),
  });
  await answer.arrayBuffer();
  const device = answer.headers.getSetCookie().find((each) => each.includes("-device="));
  return {
    status: answer.status,
    ms: performance.now() - startedMs,
    cookie: device?.split(";")[0],
  };
}

describe("under a flood of guesses from thousands of addresses", () => {
  test("the API answers, memory is bounded, and whoever has been there before gets in", async () => {
    const known = await logIn();
    expect(known.status).toBe(200);
    const before = process.memoryUsage().rss;
    const ended = flood(1000, 2);
    const waits: number[] = [];
    const logIns: { status: number; ms: number }[] = [];
    let over = false;
    void ended.finally(() => {
      over = true;
    });
    let peak = before;
    await new Promise((resolve) => setTimeout(resolve, 500));
    while (!over) {
      const startedMs = performance.now();
      expect((await node.call("GET", "/volumes")).status).toBe(200);
      waits.push(performance.now() - startedMs);
      if (waits.length % 10 === 0) logIns.push(await logIn(known.cookie));
      peak = Math.max(peak, process.memoryUsage().rss);
    }
    const { sent, counts } = await ended;
    const sorted = waits.toSorted((a, b) => a - b);
    const p95 = sorted[Math.floor(sorted.length * 0.95)];
    const slowest = Math.max(...logIns.map(({ ms }) => ms));
    const growth = (peak - before) / 2 ** 20;
    console.log(
      `${sent} sent, ${JSON.stringify(counts)}; GET p50 ${sorted[sorted.length >> 1].toFixed(0)} ms, ` +
        `p95 ${p95.toFixed(0)} ms; ${logIns.length} log-ins of the owner, slowest ${slowest.toFixed(0)} ms; ` +
        `memory +${growth.toFixed(0)} MiB`,
    );
    expect(sent).toBe(2000);
    // Nobody in; nearly all refused without a hash. What the kernel's queue can't take is reset.
    const statuses = Object.keys(counts).filter((result) => /^\d/.test(result));
    expect(statuses.sort()).toEqual(["401", "429"]);
    expect(counts["429"]).toBeGreaterThan(sent / 2);
    expect(counts["401"]).toBeLessThan(sent / 5);
    expect(p95).toBeLessThan(1000);
    expect(logIns.length).toBeGreaterThan(0);
    for (const each of logIns) expect(each.status).toBe(200);
    expect(growth).toBeLessThan(300);
  });

  test("right after it a stranger with the right password waits seconds, not for ever", async () => {
    // The session that the test began with makes this address known: forget it.
    await node.call("DELETE", "/sessions");
    await node.call("DELETE", "/session");
    const startedMs = performance.now();
    let status = 0;
    while (status !== 200 && performance.now() - startedMs < 15_000) {
      ({ status } = await logIn());
      if (status !== 200) await new Promise((resolve) => setTimeout(resolve, 500));
    }
    expect(status).toBe(200);
  });

  test("one address that guesses is slowed down; its own browser, known before, is not", async () => {
    const { cookie } = await logIn();
    stoppedMs = performance.now();
    const guess = (sent?: string) =>
      fetch(`${node.http}/api/v1/session`, {
        method: "POST",
        headers: {
          "content-type": "application/json",
          ...(sent === undefined ? {} : { cookie: sent, origin: node.http }),
        },
        body: JSON.stringify({ user: "admin", password: "wrong" }),
      }).then(({ status }) => status);
    const statuses: number[] = [];
    for (let index = 0; index < 8; index++) statuses.push(await guess());
    expect(statuses.at(-1)).toBe(429);
    expect((await logIn()).status).toBe(429);
    expect((await logIn(cookie)).status).toBe(200);
    // A device cookie is no licence to guess, one that was made up is none at all.
    const byDevice: number[] = [];
    for (let index = 0; index < 7; index++) byDevice.push(await guess(cookie));
    expect(byDevice.at(-1)).toBe(429);
    expect((await logIn(`${cookie?.slice(0, -2)}xx`)).status).toBe(429);
  });
});
