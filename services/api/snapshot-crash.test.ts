/**
 * api ends at every point of making, deleting and going back to snapshots; then it starts again.
 * The store and the cluster store outlive it, as their processes do.
 */
import { expect, test } from "vitest";
import { EmbeddedStore } from "#lib/cluster-store/embedded.ts";
import type { ClusterStore } from "#lib/cluster-store/store.ts";
import type { ServedStoreInfo, SnapshotInfo, VolumeInfo } from "#services/chunk-store/schema.ts";
import { Changes } from "./changes.ts";
import { systemClock as clock } from "./clock.ts";
import type { Peers } from "./peers.ts";
import { Policy } from "./policy.ts";
import { Reconciler } from "./reconciler.ts";
import { SnapshotCalls, Snapshots } from "./snapshots.ts";

const log = { error: () => {}, warn: () => {}, info: () => {}, debug: () => {} };
const volumes = ["6f1f9a3e-7c0b-4c59-9d53-0d7c2f3f8a11", "6f1f9a3e-7c0b-4c59-9d53-0d7c2f3f8a12"];

/** What outlives api. */
class World {
  readonly cluster = new EmbeddedStore(":memory:");
  readonly snapshots = new Map<string, SnapshotInfo>();
  /** What each volume went back to. */
  readonly reverted = new Map<string, string>();
  readonly volumes = new Map<string, VolumeInfo>();

  /** Steps until api ends: it gets no answer any more, and does nothing any more. */
  start(stepsLeft: number): { peers: Peers; cluster: ClusterStore; ended: Promise<void> } {
    let left = stepsLeft;
    const { promise: ended, resolve: end } = Promise.withResolvers<void>();
    const never = new Promise<never>(() => {});
    /** Each change is two points: it may not have happened, or happened without an answer. */
    const step = async <Result>(change: () => Result | Promise<Result>): Promise<Result> => {
      if (left-- <= 0) {
        end();
        return await never;
      }
      const result = await change();
      if (left-- <= 0) {
        end();
        return await never;
      }
      return result;
    };
    const { cluster } = this;
    const away = () => Promise.reject(new Error("away"));
    const store: Peers["store"] = {
      info: async () => ({}) as ServedStoreInfo,
      volumes: async () => [...this.volumes.values()],
      snapshots: async () => [...this.snapshots.values()],
      put: async (id, body) =>
        await step(() => {
          const volume = { id, ...body } as unknown as VolumeInfo;
          this.volumes.set(id, volume);
          return volume;
        }),
      createSnapshots: async ({ snapshots }) =>
        await step(() =>
          snapshots.map(({ id, volume }) => {
            const made = { id, volume, sizeBytes: 1 << 20, createdAt: clock.now() };
            this.snapshots.set(id, made as SnapshotInfo);
            return made as SnapshotInfo;
          }),
        ),
      deleteSnapshot: async (id) => await step(() => void this.snapshots.delete(id)),
      delete: async (id) => await step(() => void this.volumes.delete(id)),
      revert: async (id, snapshot) =>
        await step(() => {
          this.reverted.set(id, snapshot);
          return this.volumes.get(id)!;
        }),
      resize: away,
      seal: away,
      grant: away,
      differences: away,
      grantReader: away,
      ...{ scrub: away, startScrub: away, stopScrub: away, setScrub: away },
    };
    return {
      ended,
      peers: {
        store,
        target: { status: away, exports: away, put: away, sessions: away } as never,
        netboot: { status: away, put: away },
      },
      cluster: {
        engine: "embedded",
        get: (key) => cluster.get(key),
        list: (prefix) => cluster.list(prefix),
        transact: (compares, writes) => step(() => cluster.transact(compares, writes)),
        grantLease: (ttlMs) => cluster.grantLease(ttlMs),
        watch: (prefix, from, signal) => cluster.watch(prefix, from, signal),
        close: async () => {},
      },
    };
  }
}

async function api(world: World, stepsLeft = Number.POSITIVE_INFINITY) {
  const { peers, cluster, ended } = world.start(stepsLeft);
  const policy = await Policy.open(cluster);
  const calls = new SnapshotCalls();
  const netbootInterfaces = () => [];
  const reconciler = new Reconciler({
    ...{ policy, peers, clock, log, snapshotCalls: calls, netbootInterfaces, intervalMs: 1e6 },
  });
  const snapshots = new Snapshots({ policy, reconciler, store: peers.store, calls, clock });
  const changes = new Changes({ policy, reconciler, clock, netbootInterfaces });
  return { policy, reconciler, snapshots, changes, ended };
}

/** Two volumes; `there` snapshots of the first. */
async function prepared(there: number) {
  const world = new World();
  const { policy, reconciler, snapshots } = await api(world);
  await policy.change((draft) => {
    for (const id of volumes) {
      draft.put("volume", {
        ...{ id, name: `v-${id.slice(-2)}`, kind: "plain", state: "creating", failure: null },
        ...{ sizeBytes: 1 << 20, parentVolumeId: null, sealed: false, createdAt: "" },
      });
    }
  });
  await reconciler.settle();
  for (let n = 0; n < there; n++) {
    await snapshots.create({ volumes: [volumes[0]], name: `there-${n}`, description: "" });
  }
  policy.close();
  return world;
}

/** After a start: what the store has and what is shown are the same, and nothing is under way. */
async function settled(world: World) {
  const { policy, reconciler } = await api(world);
  await reconciler.settle();
  const records = policy.list("snapshot");
  const after = { records, volumes: policy.list("volume") };
  policy.close();
  expect(records.map(({ state }) => state).filter((state) => state !== "ready")).toEqual([]);
  expect(records.map(({ id }) => id).sort()).toEqual([...world.snapshots.keys()].sort());
  return after;
}

const tooMany = 60;

test("making a group: all of it or none of it, and all of it once it was acknowledged", async () => {
  const outcomes = new Set<string>();
  for (let steps = 0; ; steps++) {
    expect(steps).toBeLessThan(tooMany);
    const world = await prepared(1);
    const { snapshots, policy, ended } = await api(world, steps);
    const making = snapshots.create({ volumes, name: "group", description: "" });
    const acknowledged = await Promise.race([making.then(() => true), ended.then(() => false)]);
    policy.close();
    const { records } = await settled(world);
    const made = records.filter(({ name }) => name === "group");
    expect([0, 2]).toContain(made.length);
    expect(new Set(made.map(({ groupId }) => groupId)).size).toBeLessThanOrEqual(1);
    expect(records.some(({ name }) => name === "there-0")).toBe(true);
    if (acknowledged) expect(made).toHaveLength(2);
    outcomes.add(`${acknowledged} ${made.length}`);
    if (acknowledged) break;
  }
  expect([...outcomes]).toEqual(["false 0", "false 2", "true 2"]);
});

test("deleting: it is gone from both once it was acknowledged", async () => {
  for (let steps = 0; ; steps++) {
    expect(steps).toBeLessThan(tooMany);
    const world = await prepared(2);
    const { snapshots, policy, ended } = await api(world, steps);
    const { id } = policy.list("snapshot").find(({ name }) => name === "there-0")!;
    const deleting = snapshots.delete(id).then(() => true);
    const acknowledged = await Promise.race([deleting, ended.then(() => false)]);
    policy.close();
    const { records } = await settled(world);
    expect(records.some(({ name }) => name === "there-1")).toBe(true);
    if (!acknowledged) continue;
    expect(records).toHaveLength(1);
    break;
  }
});

test("a volume with its snapshots: no snapshot outlives it unseen", async () => {
  for (let steps = 0; ; steps++) {
    expect(steps).toBeLessThan(tooMany);
    const world = await prepared(3);
    const { changes, policy, ended } = await api(world, steps);
    const deleting = changes.deleteVolume(volumes[0], true).then(() => true);
    const acknowledged = await Promise.race([deleting, ended.then(() => false)]);
    policy.close();
    const after = await settled(world);
    expect(after.records.length).toBe(after.volumes.length === 2 ? 3 : 0);
    if (!acknowledged) continue;
    expect([...world.volumes.keys()]).toEqual([volumes[1]]);
    break;
  }
});

test("going back: never without the snapshot of what was there", async () => {
  for (let steps = 0; ; steps++) {
    expect(steps).toBeLessThan(tooMany);
    const world = await prepared(1);
    const { snapshots, policy, ended } = await api(world, steps);
    const [{ id: snapshotId }] = policy.list("snapshot");
    const reverting = snapshots.revert(volumes[0], { snapshotId, keepPresent: true });
    const acknowledged = await Promise.race([reverting.then(() => true), ended.then(() => false)]);
    policy.close();
    const after = await settled(world);
    expect(after.volumes.every(({ revertTo }) => revertTo === undefined)).toBe(true);
    if (world.reverted.size > 0) {
      expect(after.records.some(({ name }) => name.startsWith("before-revert"))).toBe(true);
    }
    if (!acknowledged) continue;
    expect(world.reverted.get(volumes[0])).toBe(snapshotId);
    break;
  }
});

test("policy of yesterday: what it doesn't know is adopted under a name of its own", async () => {
  const world = await prepared(0);
  const id = "00000000-0000-4000-8000-000000000001";
  world.snapshots.set(id, {
    ...({ id, volume: volumes[1], sizeBytes: 1 << 20 } as SnapshotInfo),
    createdAt: "2026-11-27T02:00:00.000Z",
  });
  const { records } = await settled(world);
  expect(records).toMatchObject([
    { id, name: `found-${id}`, volumeId: volumes[1], createdAt: "2026-11-27T02:00:00.000Z" },
  ]);
});

test("one that is being made while the reconciler looks isn't taken for lost or for a stranger", async () => {
  const world = await prepared(0);
  const { policy, reconciler, snapshots } = await api(world);
  const making = Array.from({ length: 10 }, (_, n) =>
    snapshots.create({ volumes: [volumes[n % 2]], name: `n-${n}`, description: "" }),
  );
  const looking = Array.from({ length: 20 }, () => reconciler.settle());
  await Promise.all([...making, ...looking]);
  await reconciler.settle();
  expect(
    policy
      .list("snapshot")
      .map(({ name, state }) => `${name} ${state}`)
      .sort(),
  ).toEqual(Array.from({ length: 10 }, (_, n) => `n-${n} ready`));
  policy.close();
});
