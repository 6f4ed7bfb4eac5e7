import { expect, test } from "vitest";
import { snapshotTree } from "./snapshot-tree.ts";

const volume = (
  id: string,
  parentVolumeId: string | null = null,
  parentSnapshotId: string | null = null,
) => ({ id, name: id, parentVolumeId, parentSnapshotId });
const snapshot = (id: string, volumeId: string, hour: number) => ({
  ...{ id, volumeId },
  createdAt: `2026-11-29T0${hour}:00:00Z`,
});
type Volume = ReturnType<typeof volume>;
type Snapshot = ReturnType<typeof snapshot>;
const draw = (volumes: Volume[], snapshots: Snapshot[]) =>
  snapshotTree(volumes, snapshots).map(({ depth, record }) => `${"  ".repeat(depth)}${record.id}`);

test("snapshots by age below their volume, clones below theirs, clones of clones below these", () => {
  const volumes = [
    volume("log"),
    volume("db-copy", "db", "monday"),
    volume("db"),
    volume("copy-of-copy", "db-copy", "noon"),
    volume("debian"),
    volume("client-2", "debian"),
    volume("client-10", "debian"),
  ];
  const snapshots = [
    snapshot("tuesday", "db", 2),
    snapshot("monday", "db", 1),
    snapshot("noon", "db-copy", 3),
  ];
  expect(draw(volumes, snapshots)).toEqual([
    "db",
    "  monday",
    "    db-copy",
    "      noon",
    "        copy-of-copy",
    "  tuesday",
    "debian",
    "  client-2",
    "  client-10",
    "log",
  ]);
});

test("of a volume that is gone the snapshots stay, and what was cloned from a gone one stands alone", () => {
  const rows = draw(
    [volume("copy", "gone", "kept"), volume("other", "gone", "lost")],
    [snapshot("kept", "gone", 1)],
  );
  expect(rows).toEqual(["other", "gone", "  kept", "    copy"]);
});

test("origins that lead in a circle lose nobody and end", () => {
  expect(draw([volume("a", "b"), volume("b", "a")], [])).toEqual(["a", "  b"]);
});
