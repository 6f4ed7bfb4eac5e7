/** `keelson snapshot`, `keelson schedule` and what volumes do with snapshots. */
import type { ChildProcess } from "node:child_process";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { TestNode } from "#services/api/platform.fixture.ts";
import type { ExportCreated } from "#services/api/schema.ts";
import type { Differences, Snapshot, SnapshotSchedule } from "#services/api/snapshot-schema.ts";
import { startStore, stopStore } from "#services/api/store.fixture.ts";
import { keelsonOf, runKeelson } from "./run.fixture.ts";

vi.setConfig({ testTimeout: 600_000, hookTimeout: 120_000 });

const node = new TestNode();
let store: ChildProcess;
beforeAll(async () => {
  store = await startStore(node, "--create", "64M");
  await node.start();
  for (const name of ["db", "log"]) {
    await node.call("POST", "/volumes", { name, sizeBytes: 16 << 20 });
  }
});
afterAll(async () => {
  await node.stop();
  await stopStore(store);
  await node.remove();
});

const keelson = (...args: string[]) => keelsonOf(node, ...args);
const document = async <Value>(...args: string[]) =>
  JSON.parse(await keelson(...args, "--json")) as Value;

async function refused(message: RegExp, ...args: string[]): Promise<void> {
  const { status, stderr } = await runKeelson(node, args);
  expect(stderr).toMatch(message);
  expect(status).not.toBe(0);
}

test("taken together, listed, shown, named by volume", async () => {
  expect(await keelson("snapshot", "list")).toBe("No snapshots.\n");
  const made = await document<Snapshot[]>("snapshot", "create", "monday", "db", "log");
  expect(made.map(({ volumeName }) => volumeName)).toEqual(["db", "log"]);
  expect(await keelson("snapshot", "list", "db")).toMatch(/^VOLUME +NAME[^\n]+\ndb +monday/);
  expect(await keelson("snapshot", "show", "log@monday")).toMatch(/frees when deleted +0 B/);
  await refused(/monday could be several snapshots/, "snapshot", "show", "monday");
  await refused(/db has no snapshot tuesday/, "snapshot", "show", "db@tuesday");
  const completed = await keelson("__complete", "--", "snapshot", "show", "db@");
  expect(completed).toBe("db@monday\n");
});

test("held, released, deleted", async () => {
  expect(await keelson("snapshot", "hold", "log@monday")).toBe("Snapshot monday is held.\n");
  await refused(
    /The snapshot monday is held\. Release it first/,
    "snapshot",
    "delete",
    "log@monday",
  );
  await refused(/The volume log has a snapshot/, "volumes", "delete", "log");
  await keelson("snapshot", "release", "log@monday");
  expect(await keelson("volumes", "delete", "log", "--with-snapshots")).toBe(
    "Volume log is deleted.\n",
  );
});

test("compared, cloned, gone back to, attached", async () => {
  expect(await document<Differences>("snapshot", "diff", "db@monday")).toEqual({
    ranges: [],
    changedBytes: 0,
  });
  expect(await keelson("volumes", "clone", "db-copy", "db@monday")).toMatch(
    /^Volume db-copy: 16 MiB/,
  );
  expect(await keelson("volumes", "revert", "db", "monday")).toMatch(
    /^Volume db went back\. What was there is db@before-revert-\d+T\d+Z\.\n$/,
  );
  expect(await keelson("volumes", "revert", "db", "monday", "--no-keep")).toMatch(/is gone/);
  const initiator = ["--initiator", "iqn.1993-08.org.debian:01:rescue"];
  const made = await document<ExportCreated>("snapshot", "attach", "db@monday", ...initiator);
  expect(made).toMatchObject({ name: "db-monday", chapSecret: expect.any(String) });
});

test("schedules", async () => {
  const created = await document<SnapshotSchedule>(
    ...["schedule", "create", "nightly", "db", "--at", "02:30"],
    ...["--keep-days", "7", "--keep-months", "6"],
  );
  expect(created).toMatchObject({
    when: { kind: "daily", at: "02:30" },
    keep: { days: 7, months: 6 },
  });
  expect(await keelson("schedule", "list")).toMatch(
    /nightly +daily at 02:30 +7 days, 6 months +db/,
  );
  const changed = await document<SnapshotSchedule>(
    ...["schedule", "change", "nightly", "--days", "sat,sun", "--at", "23:00"],
  );
  expect(changed.when).toEqual({ kind: "weekly", days: ["saturday", "sunday"], at: "23:00" });
  expect(await keelson("schedule", "disable", "nightly")).toMatch(/It is off\.\n$/);
  await refused(/no day of the week/, "schedule", "change", "nightly", "--days", "x");
  await refused(/When\?/, "schedule", "create", "never", "db");
  await keelson("schedule", "delete", "nightly");
  expect(await keelson("schedule", "list")).toBe("No schedules.\n");
});
