/** What came from what: volumes, their snapshots, the clones of these, and so on. */

interface Volume {
  readonly id: string;
  readonly name: string;
  readonly parentVolumeId: string | null;
  readonly parentSnapshotId: string | null;
}

interface Snapshot {
  readonly id: string;
  readonly volumeId: string;
  /** ISO 8601, UTC. */
  readonly createdAt: string;
}

/** `depth` from 0. `gone`: a volume that was deleted; its snapshots stay. */
export type TreeRow<V extends Volume, S extends Snapshot> = { readonly depth: number } & (
  | { readonly kind: "volume"; readonly record: V }
  | { readonly kind: "snapshot"; readonly record: S }
  | { readonly kind: "gone"; readonly record: { readonly id: string } }
);

/**
 * In the order they are drawn: a volume, its snapshots by age with the clones of
 * each, then what was cloned from the volume itself, as from images. Each volume and snapshot once,
 * whatever it names as its origin.
 */
export function snapshotTree<V extends Volume, S extends Snapshot>(
  volumes: readonly V[],
  snapshots: readonly S[],
): readonly TreeRow<V, S>[] {
  const known = new Set(volumes.map(({ id }) => id));
  const snapshotIds = new Set(snapshots.map(({ id }) => id));
  const byAge = snapshots.toSorted((a, b) => (a.createdAt < b.createdAt ? -1 : 1));
  const snapshotsOf = Map.groupBy(byAge, ({ volumeId }) => volumeId);
  const byName = volumes.toSorted((a, b) => collator.compare(a.name, b.name));
  const clonesOf = Map.groupBy(byName, ({ parentSnapshotId, parentVolumeId }) => {
    if (parentSnapshotId !== null && snapshotIds.has(parentSnapshotId)) return parentSnapshotId;
    return parentVolumeId !== null && known.has(parentVolumeId) ? parentVolumeId : null;
  });
  const rows: TreeRow<V, S>[] = [];
  const drawn = new Set<string>();
  const addSnapshots = (volumeId: string, depth: number) => {
    for (const snapshot of snapshotsOf.get(volumeId) ?? []) {
      rows.push({ kind: "snapshot", depth, record: snapshot });
      for (const clone of clonesOf.get(snapshot.id) ?? []) addVolume(clone, depth + 1);
    }
  };
  const addVolume = (volume: V, depth: number) => {
    if (drawn.has(volume.id)) return;
    drawn.add(volume.id);
    rows.push({ kind: "volume", depth, record: volume });
    addSnapshots(volume.id, depth + 1);
    for (const clone of clonesOf.get(volume.id) ?? []) addVolume(clone, depth + 1);
  };
  for (const volume of clonesOf.get(null) ?? []) addVolume(volume, 0);
  for (const volumeId of snapshotsOf.keys()) {
    if (known.has(volumeId)) continue;
    rows.push({ kind: "gone", depth: 0, record: { id: volumeId } });
    addSnapshots(volumeId, 1);
  }
  // Origins that lead in a circle can't be; what names such stands by itself all the same.
  for (const volume of byName) addVolume(volume, 0);
  return rows;
}

const collator = new Intl.Collator(undefined, { numeric: true });
