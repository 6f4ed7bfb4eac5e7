/** Uploads that nobody goes on with. What becomes of the others: platform.test.ts, cli/disk-upload.test.ts. */
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { EmbeddedStore } from "#lib/cluster-store/embedded.ts";
import { createLog } from "#lib/service/log.ts";
import type { Clock } from "./clock.ts";
import { ImageImports } from "./image-import.ts";
import { Policy } from "./policy.ts";
import type { Reconciler } from "./reconciler.ts";
import { TaskList } from "./tasks.ts";

const dayMs = 86_400_000;
let folder: string;
let spool: string;
let nowMs = 0;
let store: EmbeddedStore;
let policy: Policy;
let imports: ImageImports;

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), "keelson-imports-"));
  spool = join(folder, "spool");
  store = new EmbeddedStore(join(folder, "cluster.sqlite"));
  policy = await Policy.open(store);
  const clock = { bootMs: () => nowMs, now: () => new Date(0).toISOString() } as Clock;
  imports = new ImageImports({
    ...{ policy, clock, spool, tasks: new TaskList(clock), log: createLog("api", {}) },
    // No upload here is ever whole: nothing is asked of a store.
    reconciler: { settle: async () => {} } as unknown as Reconciler,
    store: {} as never,
  });
});
afterEach(async () => {
  await imports.stop();
  policy.close();
  await store.close();
  rmSync(folder, { recursive: true, force: true });
});

async function sendSome(name: string, fromByte: number): Promise<string> {
  const id = policy.list("image").find((each) => each.name === name)?.id;
  const image = id === undefined ? await imports.create(name, "raw") : policy.get("image", id);
  async function* some() {
    yield Buffer.alloc(10);
    throw new Error("read ECONNRESET");
  }
  await expect(imports.receive(image.id, some(), { fromByte, totalBytes: 100 })).rejects.toThrow(
    `broke off after ${fromByte + 10} of 100 bytes`,
  );
  return image.id;
}

test("after a day they have failed, with the reason, and their room is free again", async () => {
  const given = await sendSome("given-up", 0);
  const gone = await sendSome("gone-on", 0);
  const waiting = (await imports.create("waiting", "raw")).id;
  nowMs += dayMs - 1;
  await imports.sweep();
  expect(policy.get("image", given).state).toBe("uploading");
  await sendSome("gone-on", 10);
  nowMs += 1;
  await imports.sweep();
  expect(policy.get("image", given)).toMatchObject({
    state: "failed",
    failure: "The upload broke off, and nobody went on with it for a day.",
  });
  for (const id of [gone, waiting]) expect(policy.get("image", id).state).toBe("uploading");
  expect(imports.receivedBytes(gone)).toBe(20);
  expect(readdirSync(spool)).toEqual([expect.stringContaining(gone)]);
});
