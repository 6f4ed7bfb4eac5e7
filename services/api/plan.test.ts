import { describe, expect, test } from "vitest";
import type { VolumeInfo } from "#services/chunk-store/schema.ts";
import { exportEntries, type Observed, plan, type Wanted } from "./plan.ts";
import type { BootRecord, VolumeRecord } from "./policy.ts";

const size = 1 << 30;

const volume = (change: Partial<VolumeRecord>): VolumeRecord => ({
  id: "v",
  name: "v",
  kind: "plain",
  state: "ready",
  failure: null,
  sizeBytes: size,
  parentVolumeId: null,
  sealed: false,
  createdAt: "",
  ...change,
});

const found = (change: Partial<VolumeInfo> = {}): VolumeInfo => ({
  id: "v",
  sizeBytes: size,
  usedBytes: 0,
  snapshotBytes: 0,
  parent: null,
  snapshot: null,
  snapshots: 0,
  sealed: false,
  readOnly: false,
  clones: 0,
  openCount: 0,
  ...change,
});

const boot: BootRecord = {
  id: "b",
  name: "lab",
  mac: "52:54:00:00:00:01",
  uuid: null,
  imageId: "i",
  cloneVolumeId: "v",
  targetIqn: "iqn.2026-11.org.keelson:t",
  initiatorIqn: "iqn.2026-11.org.keelson:i",
  chapUser: "u",
  chapSecret: "123456789012",
  createdAt: "",
};

const wanted = (change: Partial<Wanted>): Wanted => ({
  generation: 7,
  volumes: [],
  snapshots: [],
  images: [],
  boots: [],
  exports: [],
  netboot: [],
  ...change,
});

const away: Observed = {
  volumes: null,
  snapshots: null,
  exports: null,
  netboot: null,
  putDigest: { exports: null, netboot: null },
};

const kinds = (w: Partial<Wanted>, o: Partial<Observed>) =>
  plan(wanted(w), { ...away, ...o }).map(({ kind }) => kind);

describe("volumes: every state, there or not", () => {
  const table: [VolumeRecord["state"], string | null, boolean, string[]][] = [
    ["creating", null, false, ["createVolume", "readyVolume"]],
    ["creating", null, true, ["readyVolume"]],
    ["ready", null, false, ["loseVolume"]],
    ["ready", null, true, []],
    ["deleting", null, true, ["deleteVolume", "forgetVolume"]],
    ["deleting", null, false, ["forgetVolume"]],
    ["failed", "The store is full.", false, []],
    ["failed", "The store is full.", true, []],
    ["failed", "The store no longer has this volume.", true, ["readyVolume"]],
    ["failed", "The store no longer has this volume.", false, []],
  ];
  test.each(table)("%s (%s), there: %s", (state, failure, there, expected) => {
    const volumes = [volume({ state, failure })];
    expect(kinds({ volumes }, { volumes: there ? [found()] : [] })).toEqual(expected);
    // A store that doesn't answer is not an empty store.
    expect(kinds({ volumes }, { volumes: null })).toEqual([]);
  });

  test("a clone is created from its parent", () => {
    const volumes = [volume({ state: "creating", parentVolumeId: "p" })];
    expect(plan(wanted({ volumes }), { ...away, volumes: [] })[0]).toEqual({
      kind: "createVolume",
      id: "v",
      body: { parent: "p", sizeBytes: size },
    });
  });

  test("a clone of a snapshot is created from that", () => {
    const clone = { state: "creating", parentVolumeId: "p", parentSnapshotId: "s" } as const;
    expect(plan(wanted({ volumes: [volume(clone)] }), { ...away, volumes: [] })[0]).toEqual({
      kind: "createVolume",
      id: "v",
      body: { snapshot: "s", sizeBytes: size },
    });
  });

  test("a volume goes back to a snapshot once its export is away, and is exported again", () => {
    const volumes = [volume({ revertTo: "s" })];
    const boots = [boot];
    const observed = { volumes: [found()], exports: { generation: 3 } };
    const steps = plan(wanted({ volumes, boots }), { ...away, ...observed });
    expect(steps).toMatchObject([
      { kind: "putExports", body: { exports: [] } },
      { kind: "revertVolume", id: "v", snapshotId: "s" },
    ]);
    expect(kinds({ volumes: [volume({})], boots }, observed)).toEqual(["putExports"]);
  });

  test("it grows, never shrinks; a sealed one is sealed", () => {
    const grown = [volume({ sizeBytes: 2 * size })];
    expect(kinds({ volumes: grown }, { volumes: [found()] })).toEqual(["resizeVolume"]);
    const smaller = [volume({ sizeBytes: size / 2 })];
    expect(kinds({ volumes: smaller }, { volumes: [found()] })).toEqual([]);
    const sealed = [volume({ sealed: true })];
    expect(kinds({ volumes: sealed }, { volumes: [found()] })).toEqual(["sealVolume"]);
    expect(kinds({ volumes: sealed }, { volumes: [found({ sealed: true })] })).toEqual([]);
  });

  test("a volume of the store that policy doesn't know is left alone", () => {
    expect(kinds({}, { volumes: [found({ id: "stranger" })] })).toEqual([]);
  });
});

describe("exports", () => {
  const ready = { volumes: [volume({})], boots: [boot] };

  test.each(["creating", "deleting", "failed"] as const)(
    "a volume that is %s is not exported",
    (state) => {
      expect(exportEntries(wanted({ volumes: [volume({ state })], boots: [boot] }))).toEqual([]);
    },
  );

  test("a boot entry's clone goes to its own initiator only, with CHAP", () => {
    expect(exportEntries(wanted(ready))).toEqual([
      {
        id: "boot.b",
        iqn: boot.targetIqn,
        volumeId: "v",
        initiators: [boot.initiatorIqn],
        openToLoopback: false,
        readOnly: false,
        chap: { user: "u", secret: "123456789012" },
      },
    ]);
  });

  test("put once; again after a change, after api's start, and when the target lost its state", () => {
    const first = plan(wanted(ready), { ...away, exports: { generation: 0 } });
    expect(first).toMatchObject([{ kind: "putExports", body: { generation: 7 } }]);
    const digest = first[0].kind === "putExports" ? first[0].digest : "";
    const putDigest = { exports: digest, netboot: null };
    expect(kinds(ready, { exports: { generation: 7 }, putDigest })).toEqual([]);
    expect(kinds({ ...ready, generation: 9 }, { exports: { generation: 7 }, putDigest })).toEqual(
      [],
    );
    expect(kinds({ ...ready, boots: [] }, { exports: { generation: 7 }, putDigest })).toEqual([
      "putExports",
    ]);
    expect(kinds(ready, { exports: { generation: 0 }, putDigest })).toEqual(["putExports"]);
    expect(kinds(ready, { exports: { generation: 7 } })).toEqual(["putExports"]);
  });

  test("a target that has a newer generation is left alone", () => {
    expect(kinds(ready, { exports: { generation: 8 } })).toEqual([]);
  });

  test("an export is gone before its volume is deleted, a volume there before its export", () => {
    const both = kinds(
      { volumes: [volume({ id: "new", state: "creating" }), volume({ state: "deleting" })] },
      { volumes: [found()], exports: { generation: 3 }, netboot: { generation: 3 } },
    );
    expect(both).toEqual([
      "createVolume",
      "readyVolume",
      "putExports",
      "putNetboot",
      "deleteVolume",
      "forgetVolume",
    ]);
  });
});
