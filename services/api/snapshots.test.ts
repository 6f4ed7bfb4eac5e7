/** Snapshots through the API, with a chunk-store process of its own below. */
import { type ChildProcess, execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { unixFetch } from "#lib/rpc/client.ts";
import type { NbdGrant } from "#services/chunk-store/schema.ts";
import type { Clock } from "./clock.ts";
import { TestNode } from "./platform.fixture.ts";
import type { Condition, Store, Volume } from "./schema.ts";
import type { Differences, Snapshot, SnapshotSchedule } from "./snapshot-schema.ts";
import { startStore, stopStore } from "./store.fixture.ts";

const mib = 1 << 20;
/** May be set forward, so that schedules are due. */
let aheadMs = 0;
const clock: Clock = {
  bootMs: () => Math.round(performance.now()),
  now: () => new Date(Date.now() + aheadMs).toISOString(),
};
const node = new TestNode(clock);
let store: ChildProcess;

beforeAll(async () => {
  store = await startStore(node, "--create", "256M");
  await node.start();
});
afterAll(async () => {
  await node.stop();
  await stopStore(store);
  await node.remove();
});

async function grant(volumeId: string): Promise<NbdGrant> {
  const ask = unixFetch(join(node.storeRun, "api.sock"));
  const answer = await ask(`http://x/v1/volumes/${volumeId}/nbd-grants`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: "{}",
  });
  return (await answer.json()) as NbdGrant;
}

/** `commands` of qemu-io, such as `write -P 7 0 1M`. */
async function io(volumeId: string, ...commands: string[]): Promise<void> {
  const { uri } = await grant(volumeId);
  const given = [...commands, "flush"].flatMap((command) => ["-c", command]);
  const { stdout } = await promisify(execFile)("qemu-io", ["-f", "raw", ...given, uri]);
  expect(stdout).not.toMatch(/Pattern verification failed/);
}

async function volume(name: string): Promise<Volume> {
  const { status, body } = await node.call("POST", "/volumes", { name, sizeBytes: 64 * mib });
  expect(status).toBe(201);
  expect(body.state).toBe("ready");
  return body;
}

async function snapshot(name: string, ...volumes: string[]): Promise<Snapshot[]> {
  const { status, body } = await node.call("POST", "/snapshots", { volumes, name });
  expect(status, body?.title).toBe(201);
  return body;
}

const get = async <Value>(path: string): Promise<Value> => (await node.call("GET", path)).body;
const patch = (path: string, body: unknown) => node.call("PATCH", path, body);

async function until<Value>(look: () => Promise<Value>, holds: (value: Value) => boolean) {
  const deadline = performance.now() + 60_000;
  for (;;) {
    const value = await look();
    if (holds(value) || performance.now() > deadline) return value;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

describe("snapshots", () => {
  test("of two volumes at one instant share a group, and say what they hold", async () => {
    const [a, b] = [await volume("group-a"), await volume("group-b")];
    await io(a.id, "write -P 1 0 1M");
    const made = await snapshot("monday", a.id, b.id);
    expect(made).toMatchObject([
      { name: "monday", volumeId: a.id, volumeName: "group-a", state: "ready", hold: false },
      { volumeId: b.id, referencedBytes: 0, exclusiveBytes: 0, clones: [], scheduleId: null },
    ]);
    expect(made[0].groupId).toBe(made[1].groupId);
    expect(made[0].createdAt).toBe(made[1].createdAt);
    // What it sees it shares with the volume, until that is written over.
    expect(made[0]).toMatchObject({ referencedBytes: mib, exclusiveBytes: 0 });
    await io(a.id, "write -P 2 0 512k");
    const seen = await until(
      () => get<Snapshot>(`/snapshots/${made[0].id}`),
      ({ exclusiveBytes }) => exclusiveBytes === mib / 2,
    );
    expect(seen).toMatchObject({ referencedBytes: mib, exclusiveBytes: mib / 2 });
    expect(await get(`/volumes/${a.id}`)).toMatchObject({
      snapshotCount: 1,
      snapshotBytes: mib / 2,
    });
  });

  test("are listed with filters and pages as other lists are", async () => {
    const a = await volume("listed");
    const [one] = await snapshot("one", a.id);
    await snapshot("two", a.id);
    const names = async (query: string) =>
      (await get<Snapshot[]>(`/snapshots?${query}`)).map(({ name }) => name);
    expect(await names(`volumeId=${a.id}&sort=name`)).toEqual(["one", "two"]);
    expect(await names(`groupId=${one.groupId}`)).toEqual(["one"]);
    expect(await names(`volumeId=${a.id}&name=two`)).toEqual(["two"]);
    expect(await names(`volumeId=${a.id}&hold=true`)).toEqual([]);
    const page = await node.call("GET", `/snapshots?volumeId=${a.id}&limit=1&sort=name`);
    expect(page.headers.get("x-total-count")).toBe("2");
    expect(page.headers.get("link")).toContain('rel="next"');
  });

  test("a name is taken once for a volume; bad requests are named", async () => {
    const a = await volume("names");
    const b = await volume("names-too");
    await snapshot("daily", a.id);
    await snapshot("daily", b.id);
    const again = await node.call("POST", "/snapshots", { volumes: [a.id], name: "daily" });
    expect(again.status).toBe(409);
    expect(again.body.title).toMatch(/snapshot of this volume with the name daily exists/);
    for (const body of [
      { volumes: [], name: "x" },
      { volumes: [a.id, a.id], name: "x" },
      { volumes: [a.id], name: "a b" },
      { volumes: ["nonsense"], name: "x" },
    ]) {
      expect((await node.call("POST", "/snapshots", body)).status).toBe(400);
    }
    const missing = { volumes: ["00000000-0000-4000-8000-000000000000"], name: "x" };
    expect((await node.call("POST", "/snapshots", missing)).status).toBe(404);
    // One volume that can't be: none is made.
    const half = { volumes: [a.id, ...missing.volumes], name: "half" };
    expect((await node.call("POST", "/snapshots", half)).status).toBe(404);
    expect(await get(`/snapshots?name=half`)).toEqual([]);
  });

  test("a key sent again makes no second one", async () => {
    const a = await volume("once");
    const body = { volumes: [a.id], name: "once" };
    const headers = { "idempotency-key": "snapshot-once" };
    const first = await node.call("POST", "/snapshots", body, headers);
    const second = await node.call("POST", "/snapshots", body, headers);
    expect(second.body).toEqual(first.body);
    expect(second.headers.get("idempotent-replayed")).toBe("true");
  });

  test("renamed, described, held; a held one isn't deleted until it is released", async () => {
    const a = await volume("held");
    const [{ id }] = await snapshot("before", a.id);
    const change = { name: "after", description: "before the upgrade", hold: true };
    expect((await patch(`/snapshots/${id}`, change)).body).toMatchObject(change);
    const refused = await node.call("DELETE", `/snapshots/${id}`);
    expect(refused.status).toBe(409);
    expect(refused.body).toMatchObject({ code: "IN_USE", title: "The snapshot after is held." });
    expect((await node.call("DELETE", `/volumes/${a.id}?snapshots=delete`)).body.title).toMatch(
      /1 snapshots of held are held: after/,
    );
    await patch(`/snapshots/${id}`, { hold: false });
    expect((await node.call("DELETE", `/snapshots/${id}`)).status).toBe(204);
    expect((await node.call("GET", `/snapshots/${id}`)).status).toBe(404);
  });

  test("a volume with snapshots is deleted only with them", async () => {
    const a = await volume("leaving");
    await snapshot("one", a.id);
    await snapshot("two", a.id);
    const refused = await node.call("DELETE", `/volumes/${a.id}`);
    expect(refused.status).toBe(409);
    expect(refused.body).toMatchObject({
      title: "The volume leaving has 2 snapshots.",
      detail: expect.stringContaining("?snapshots=delete"),
    });
    expect((await node.call("DELETE", `/volumes/${a.id}?snapshots=delete`)).status).toBe(204);
    expect(await get(`/snapshots?volumeId=${a.id}`)).toEqual([]);
    expect((await node.call("GET", `/volumes/${a.id}`)).status).toBe(404);
  });
});

describe("what is done with one", () => {
  test("a clone has its data, and keeps it when the snapshot is deleted", async () => {
    const a = await volume("origin");
    await io(a.id, "write -P 7 0 1M");
    const [{ id }] = await snapshot("base", a.id);
    await io(a.id, "write -P 8 0 1M");
    const clone = await node.call("POST", "/volumes", {
      name: "clone",
      origin: { snapshotId: id },
    });
    expect(clone.status).toBe(201);
    const ready = await until(
      () => get<Volume>(`/volumes/${clone.body.id}`),
      ({ state }) => state === "ready",
    );
    expect(ready).toMatchObject({
      state: "ready",
      sizeBytes: 64 * mib,
      parentVolumeId: a.id,
      parentSnapshotId: id,
    });
    await io(clone.body.id, "read -P 7 0 1M");
    expect(await get(`/snapshots/${id}`)).toMatchObject({ clones: [{ name: "clone" }] });
    expect((await node.call("DELETE", `/snapshots/${id}`)).status).toBe(204);
    await io(clone.body.id, "read -P 7 0 1M");
    const small = { name: "small", origin: { snapshotId: id }, sizeBytes: mib };
    expect((await node.call("POST", "/volumes", small)).status).toBe(404);
  });

  test("a volume goes back, the way back is kept, and it keeps the size it grew to", async () => {
    const a = await volume("back");
    await io(a.id, "write -P 1 0 1M");
    const [{ id }] = await snapshot("good", a.id);
    await io(a.id, "write -P 2 0 1M");
    await patch(`/volumes/${a.id}`, { sizeBytes: 128 * mib });
    const reverted = await node.call("POST", `/volumes/${a.id}/revert`, { snapshotId: id });
    expect(reverted.status, reverted.body.title).toBe(200);
    expect(reverted.body.kept).toMatchObject({ state: "ready", volumeId: a.id });
    expect(reverted.body.kept.name).toMatch(/^before-revert-\d{8}T\d{6}Z$/);
    await io(a.id, "read -P 1 0 1M");
    const undo = { snapshotId: reverted.body.kept.id, keepPresent: false };
    const undone = await node.call("POST", `/volumes/${a.id}/revert`, undo);
    expect(undone.body).toMatchObject({ kept: null });
    await io(a.id, "read -P 2 0 1M");
    expect(await get(`/volumes/${a.id}`)).toMatchObject({ sizeBytes: 128 * mib, snapshotCount: 2 });
  });

  test("an exported or open volume doesn't go back, and it is said by what", async () => {
    const a = await volume("busy");
    const [{ id }] = await snapshot("good", a.id);
    const entry = { name: "busy-disk", volumeId: a.id, initiators: ["iqn.2026-11.org.example:h"] };
    const exported = await node.call("POST", "/exports", entry);
    const refused = await node.call("POST", `/volumes/${a.id}/revert`, { snapshotId: id });
    expect(refused.status).toBe(409);
    expect(refused.body).toMatchObject({ code: "IN_USE", title: "busy is exported as busy-disk." });
    await node.call("DELETE", `/exports/${exported.body.id}`);
    const other = await volume("other");
    const foreign = await node.call("POST", `/volumes/${other.id}/revert`, { snapshotId: id });
    expect(foreign.body.title).toBe("good is no snapshot of other.");
    // Refused before the present was kept.
    expect(await get<Snapshot[]>(`/snapshots?volumeId=${a.id}`)).toHaveLength(1);
  });

  test("differences since a snapshot, in pages, with the sum", async () => {
    const a = await volume("changed");
    await io(a.id, "write -P 1 0 8M");
    const [from] = await snapshot("from", a.id);
    await io(a.id, "write -P 2 1M 64k", "discard 4M 1M");
    const [to] = await snapshot("to", a.id);
    await io(a.id, "write -P 3 32M 4k");
    const path = `/volumes/${a.id}/differences?from=${from.id}`;
    const now = await get<Differences>(path);
    expect(now.next).toBeNull();
    expect(now.changedBytes).toBe((64 + 1024 + 4) * 1024);
    const between = await get<Differences>(`${path}&to=${to.id}`);
    expect(between.ranges).toEqual([
      { offsetBytes: mib, lengthBytes: 65536, zero: false },
      { offsetBytes: 4 * mib, lengthBytes: mib, zero: true },
    ]);
    const rest = await get<Differences>(`${path}&after=${16 * mib}`);
    expect(rest).toMatchObject({ ranges: [{ offsetBytes: 32 * mib }], changedBytes: null });
    const other = await volume("unchanged");
    expect(
      (await node.call("GET", `/volumes/${other.id}/differences?from=${from.id}`)).status,
    ).toBe(409);
  });

  test("attached: a clone under a name of its own, exported to one initiator", async () => {
    const a = await volume("files");
    const [{ id }] = await snapshot("monday", a.id);
    const initiator = "iqn.1993-08.org.debian:01:rescue";
    const first = await node.call("POST", `/snapshots/${id}/attach`, { initiator });
    expect(first.status).toBe(201);
    expect(first.body).toMatchObject({
      ...{ name: "files-monday", volumeName: "files-monday", initiators: [initiator] },
      chapSecret: expect.stringMatching(/^\w{24}$/),
    });
    const second = await node.call("POST", `/snapshots/${id}/attach`, { initiator, chap: "none" });
    expect(second.body).toMatchObject({ name: "files-monday-2", chapSecret: null });
    expect(await get(`/volumes/${first.body.volumeId}`)).toMatchObject({ parentSnapshotId: id });
    expect((await node.call("POST", `/snapshots/${id}/attach`, { initiator: "x" })).status).toBe(
      400,
    );
  });
});

test("the store's parts add up", async () => {
  const { space, sizeBytes } = await get<Store>("/store");
  const { volumesBytes, snapshotsBytes, hiddenBytes, metadataBytes, freeBytes } = space!;
  expect(volumesBytes + snapshotsBytes + hiddenBytes + metadataBytes + freeBytes).toBe(sizeBytes);
  for (const part of Object.values(space!)) expect(part).toBeGreaterThanOrEqual(0);
  expect(snapshotsBytes).toBeGreaterThan(0);
});

describe("schedules", () => {
  const conditions = () => get<Condition[]>("/conditions");

  test("take at their times, let go by their rules, and are in the audit log", async () => {
    const a = await volume("scheduled");
    const body = {
      ...{ name: "often", volumeIds: [a.id], when: { kind: "every", minutes: 60 } },
      keep: { last: 1 },
    };
    const created = await node.call("POST", "/snapshot-schedules", body);
    expect(created.status).toBe(201);
    const { id, nextRunAt } = created.body as SnapshotSchedule;
    expect(Date.parse(nextRunAt!) % 3_600_000).toBe(0);
    const taken = () => get<Snapshot[]>(`/snapshots?scheduleId=${id}&sort=createdAt`);
    const begunMs = Date.now();
    const run = (hours: number) => {
      aheadMs = hours * 3_600_000;
      return until(
        () => get<SnapshotSchedule>(`/snapshot-schedules/${id}`),
        ({ lastRun }) => lastRun !== null && Date.parse(lastRun.at) >= begunMs + aheadMs,
      );
    };
    await run(1);
    const [held] = await taken();
    expect(held.name).toMatch(/^often-\d{8}T\d{6}Z$/);
    expect(held.scheduleName).toBe("often");
    await patch(`/snapshots/${held.id}`, { hold: true });
    // When the store answers too late for one run, what is too old goes with the next.
    let hours = 2;
    let deleted = 0;
    for (; deleted === 0 && hours < 8; hours++) {
      const { lastRun } = await run(hours);
      expect(lastRun?.taken).toBe(1);
      deleted = lastRun!.deleted;
    }
    expect({ deleted, hours }).toEqual({ deleted: hours - 3, hours: expect.any(Number) });
    const left = await taken();
    expect(left).toHaveLength(2);
    expect(left[0]).toMatchObject({ id: held.id, hold: true });
    const audit = await get<{ entries: { outcome: string; detail: string; via: string }[] }>(
      `/audit?target=${id}&limit=100`,
    );
    expect(audit.entries.filter(({ via }) => via === "schedule")[0]).toMatchObject({
      outcome: "done",
      detail: expect.stringMatching(/^1 taken, \d deleted: often-/),
    });
    // Off: nothing is due, and it says so.
    const off = await patch(`/snapshot-schedules/${id}`, { enabled: false });
    expect(off.body).toMatchObject({ nextRunAt: null, enabled: false });
    expect((await node.call("DELETE", `/snapshot-schedules/${id}`)).status).toBe(204);
    expect(await taken()).toHaveLength(2);
    expect((await taken())[0].scheduleName).toBeNull();
  });

  test("a run missed while the node was off is made once at start; a wrong clock makes none", async () => {
    const a = await volume("missed");
    const body = { name: "nightly", volumeIds: [a.id], when: { kind: "daily", at: "02:30" } };
    const { id } = (await node.call("POST", "/snapshot-schedules", body)).body;
    const taken = () => get<Snapshot[]>(`/snapshots?scheduleId=${id}`);
    await node.stop();
    aheadMs += 20 * 86_400_000;
    await node.start();
    await until(taken, ({ length }) => length > 0);
    expect(await taken()).toHaveLength(1);
    await node.stop();
    aheadMs = -Date.now();
    await node.start();
    const failed = await until(conditions, (list) =>
      list.some((each) => each.id === "SNAPSHOT_SCHEDULE_FAILED:nightly"),
    );
    expect(failed.find((each) => each.id === "SNAPSHOT_SCHEDULE_FAILED:nightly")?.reason).toMatch(
      /clock says 1970/,
    );
    expect(await taken()).toHaveLength(1);
    await node.stop();
    aheadMs = 0;
    await node.start();
    await until(
      conditions,
      (list) => !list.some(({ code }) => code === "SNAPSHOT_SCHEDULE_FAILED"),
    );
    expect(await taken()).toHaveLength(1);
    expect((await node.call("DELETE", `/volumes/${a.id}?snapshots=delete`)).status).toBe(204);
    expect(await get(`/snapshot-schedules/${id}`)).toMatchObject({ volumeIds: [] });
    await node.call("DELETE", `/snapshot-schedules/${id}`);
  });

  test("bad ones are refused", async () => {
    const a = await volume("refused");
    const good = { name: "x", volumeIds: [a.id], when: { kind: "daily", at: "02:30" } };
    for (const change of [
      { when: { kind: "daily", at: "24:00" } },
      { when: { kind: "every", minutes: 1 } },
      { when: { kind: "weekly", days: [], at: "02:30" } },
      { keep: { days: 0 } },
      { volumeIds: [] },
      { name: "x".repeat(41) },
    ]) {
      const { status } = await node.call("POST", "/snapshot-schedules", { ...good, ...change });
      expect(status, JSON.stringify(change)).toBe(400);
    }
  });
});

test("a snapshot that the store lost is said to be missing, and is back with its disk", async () => {
  const a = await volume("lost");
  const [{ id }] = await snapshot("lost", a.id);
  await stopStore(store);
  const answer = await node.call("POST", "/snapshots", { volumes: [a.id], name: "away" });
  expect(answer.status).toBe(503);
  // It stays asked for until the store says that it isn't there.
  expect(await get(`/snapshots?name=away`)).toMatchObject([{ state: "creating" }]);
  const ask = () => get<Snapshot>(`/snapshots/${id}`);
  const other = join(node.state, "store-other");
  store = await startStore(node, "--state", other, "--create", "64M");
  expect(await until(ask, ({ state }) => state === "missing")).toMatchObject({ state: "missing" });
  expect(await get("/snapshots?name=away")).toEqual([]);
  const list = await until(
    () => get<Condition[]>("/conditions"),
    (all) => all.some((each) => each.id === `SNAPSHOT_MISSING:${id}`),
  );
  expect(list.find((each) => each.id === `SNAPSHOT_MISSING:${id}`)?.reason).toBe(
    "The store no longer has lost of lost.",
  );
  await stopStore(store);
  store = await startStore(node);
  expect(await until(ask, ({ state }) => state === "ready")).toMatchObject({ state: "ready" });
});
