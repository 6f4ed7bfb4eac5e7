import { expect, test } from "vitest";
import type { SnapshotInfo, VolumeInfo } from "#services/chunk-store/schema.ts";
import type { VolumeRecord } from "./policy.ts";
import type { SnapshotRecord } from "./snapshot-records.ts";
import { snapshotDeletions, snapshotSteps } from "./snapshot-steps.ts";

const record = (state: SnapshotRecord["state"]) =>
  ({ id: "s", volumeId: "v", state }) as SnapshotRecord;
const info = { id: "s", volume: "v" } as SnapshotInfo;
const volume = { id: "v" };
const wanted = (state: SnapshotRecord["state"] | null, known = true) => ({
  snapshots: state === null ? [] : [record(state)],
  volumes: known ? [volume as VolumeRecord] : [],
});
const observed = (there: boolean | null, volumeThere: boolean | null = true) => ({
  snapshots: there === null ? null : there ? [info] : [],
  volumes: volumeThere === null ? null : volumeThere ? [volume as VolumeInfo] : [],
});

test.each<[SnapshotRecord["state"] | null, boolean | null, string[], string[]]>([
  ["creating", true, ["readySnapshot"], []],
  ["creating", false, ["dropSnapshot"], []],
  ["creating", null, [], []],
  ["ready", true, [], []],
  ["ready", false, ["loseSnapshot"], []],
  ["ready", null, [], []],
  ["missing", true, ["readySnapshot"], []],
  ["missing", false, [], []],
  ["missing", null, [], []],
  ["deleting", true, [], ["deleteSnapshot", "forgetSnapshot"]],
  ["deleting", false, [], ["forgetSnapshot"]],
  ["deleting", null, [], []],
  [null, true, ["adoptSnapshot"], []],
  [null, false, [], []],
  [null, null, [], []],
])("%s, in the store: %s", (state, there, steps, deletions) => {
  const kinds = (of: readonly { kind: string }[]) => of.map(({ kind }) => kind);
  expect(kinds(snapshotSteps(wanted(state), observed(there)))).toEqual(steps);
  expect(kinds(snapshotDeletions(wanted(state), observed(there)))).toEqual(deletions);
});

test.each<[string, boolean, boolean | null, number]>([
  ["its volume is ours", true, true, 1],
  ["its volume is ours and gone from the store", true, false, 1],
  ["its volume was deleted everywhere", false, false, 1],
  ["its volume is a stranger: both are left alone", false, true, 0],
  ["it isn't known whether its volume is there", false, null, 0],
])("one that policy doesn't know: %s", (_name, known, volumeThere, adopted) => {
  expect(snapshotSteps(wanted(null, known), observed(true, volumeThere))).toHaveLength(adopted);
});
