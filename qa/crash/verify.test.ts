/** The verified load itself: it must find each fault that a store can have, and none in a good one. */
import { type ChildProcess, fork, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { unixFetch } from "#lib/rpc/client.ts";
import { native } from "#native";
import { Supervisor } from "#tools/supervisor.ts";
import { freePort } from "./block-node.ts";
import { type CrashCounts, VerifiedLoad } from "./crash.ts";

const volumeId = "11111111-2222-3333-4444-555555555555";
const iqn = "iqn.2026-11.org.keelson.qa:faulty";
const blocks = 256;
const canCompile =
  spawnSync("gcc", ["-E", "-include", "iscsi/iscsi.h", "-"], { input: "" }).status === 0;

async function runAgainst(fault: string): Promise<CrashCounts> {
  const directory = mkdtempSync(join(tmpdir(), "keelson-faulty-"));
  const supervisor = new Supervisor({ logDirectory: join(directory, "log") });
  let store: ChildProcess | undefined;
  let load: VerifiedLoad | undefined;
  try {
    const storeRun = join(directory, "store");
    mkdirSync(storeRun);
    const fixture = join(import.meta.dirname, "faulty-store.fixture.ts");
    store = fork(fixture, [storeRun, volumeId, String(blocks * 4096), fault], { stdio: "inherit" });
    await new Promise((resolve) => store!.once("message", resolve));
    const portal = `127.0.0.1:${await freePort(21_400)}`;
    const run = join(directory, "run");
    await supervisor.start({
      name: "iscsi-target",
      args: [
        "--state",
        join(directory, "state"),
        "--run",
        run,
        "--store-run",
        storeRun,
        "--portal",
        portal,
      ],
    });
    const answer = await unixFetch(join(run, "api.sock"))("http://unix/v1/exports", {
      method: "PUT",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({
        generation: 1,
        exports: [{ id: "disk", iqn, volumeId, openToLoopback: true }],
      }),
    });
    expect(answer.ok).toBe(true);
    load = new VerifiedLoad({ portal, iqn }, blocks, 8, 7);
    await load.furtherWrites(2000, 30_000);
    return await load.finish();
  } finally {
    load?.kill();
    await supervisor.stop();
    store?.kill("SIGKILL");
    rmSync(directory, { recursive: true, force: true });
  }
}

describe.skipIf(native === undefined || !canCompile)(
  "the verified load",
  { timeout: 120_000 },
  () => {
    test("finds nothing wrong with a good store", async () => {
      const counts = await runAgainst("none");
      expect(counts).toMatchObject({
        lost: 0,
        torn: 0,
        foreign: 0,
        invented: 0,
        errors: 0,
        logins: 1,
      });
      expect(counts.writes).toBeGreaterThan(2000);
      expect(counts.reads).toBeGreaterThan(blocks);
    });
    test.each([
      ["lose", "lost"],
      ["tear", "torn"],
      ["misplace", "foreign"],
    ] as const)("a store that does %s writes: counted as %s", async (fault, count) => {
      expect((await runAgainst(fault))[count]).toBeGreaterThan(0);
    });
  },
);
