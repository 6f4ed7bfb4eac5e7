/** What the control API asks of the store's thread about snapshots; `control.ts` for the rest. */
import { KeelsonError } from "#lib/model/errors.ts";
import { type ControlReply, findVolume } from "./control.ts";
import { alive } from "./engine/cells.ts";
import { findDifferences, type State } from "./engine/differences.ts";
import { firstSnapshotFrom, type Lineage, type Snapshot } from "./engine/lineages.ts";
import type { Store } from "./engine/store.ts";
import { blockBytes, chunkBytes } from "./limits.ts";
import type { CreateSnapshots, DifferencesPage, DifferencesQuery, SnapshotInfo } from "./schema.ts";

export type SnapshotMessage =
  | { readonly kind: "snapshots" }
  | { readonly kind: "snapshot"; readonly id: string }
  | { readonly kind: "create-snapshots"; readonly body: CreateSnapshots; readonly nowMs: number }
  | { readonly kind: "delete-snapshot"; readonly id: string; readonly force: boolean }
  | { readonly kind: "revert"; readonly id: string; readonly snapshot: string }
  | { readonly kind: "differences"; readonly query: DifferencesQuery };

/** Changed chunks that one answer looks at: some milliseconds of the store's thread. */
const chunksPerPage = 256;

export function handleSnapshots(
  store: Store,
  message: SnapshotMessage,
  whenDurable: (value: () => unknown) => undefined,
): ControlReply | undefined {
  switch (message.kind) {
    case "snapshots":
      return { value: snapshotInfos(store.lineages.snapshots.values()) };
    case "snapshot":
      return { value: snapshotInfos([findSnapshot(store, message.id)])[0] };
    case "create-snapshots": {
      const made = createSnapshots(store, message.body, message.nowMs);
      return whenDurable(() => snapshotInfos(made));
    }
    case "delete-snapshot":
      deleteSnapshot(store, message.id, message.force);
      return whenDurable(() => null);
    case "revert": {
      revert(store, findVolume(store, message.id), findSnapshot(store, message.snapshot));
      return whenDurable(() => null);
    }
    case "differences":
      return { value: differences(store, message.query) };
  }
}

export function findSnapshot(store: Store, id: string): Snapshot {
  store.requireMounted();
  const snapshot = store.lineages.snapshots.get(id);
  if (snapshot !== undefined) return snapshot;
  throw new KeelsonError("NOT_FOUND", `There is no snapshot ${id} in this store.`, { object: id });
}

function createSnapshots(store: Store, { snapshots }: CreateSnapshots, nowMs: number): Snapshot[] {
  const { lineages } = store;
  const found = snapshots.map(({ id }) => lineages.snapshots.get(id));
  const same = found.every((each, i) => each?.lineage.uuid === snapshots[i].volume);
  if (same) return found as Snapshot[];
  const taken = snapshots.find(({ id }) => lineages.snapshots.has(id) || lineages.byUuid.has(id));
  if (taken !== undefined) {
    throw new KeelsonError("CONFLICT", `The id ${taken.id} is taken.`, {
      operation: "create snapshot",
      object: taken.id,
      remedy: "Take other ids: the snapshots of one instant are made together.",
    });
  }
  const wanted = snapshots.map(({ id, volume }) => {
    const lineage = findVolume(store, volume);
    if (!lineage.sealed) return { lineage, uuid: id };
    throw new KeelsonError("CONFLICT", `Volume ${volume} is sealed: it never changes.`, {
      operation: "create snapshot",
      object: volume,
      remedy: "Clone the volume itself.",
    });
  });
  return store.createSnapshots(wanted, nowMs);
}

function deleteSnapshot(store: Store, id: string, force: boolean): void {
  store.requireMounted();
  const snapshot = store.lineages.snapshots.get(id);
  if (snapshot === undefined) return;
  if (snapshot.openCount > 0 && !force) {
    throw new KeelsonError("IN_USE", `Snapshot ${id} is open.`, {
      operation: "delete snapshot",
      object: id,
      remedy: "Take its export away first, or force it: its users then get errors.",
    });
  }
  store.deleteSnapshot(snapshot);
}

function revert(store: Store, lineage: Lineage, to: Snapshot): void {
  if (to.lineage.uuid !== lineage.uuid) {
    throw new KeelsonError("CONFLICT", `Snapshot ${to.uuid} is none of volume ${lineage.uuid}.`, {
      operation: "revert volume",
      object: lineage.uuid,
      remedy: "Give one of its own snapshots, or clone this one.",
    });
  }
  if (lineage.openCount > 0) {
    throw new KeelsonError("IN_USE", `Volume ${lineage.uuid} is open.`, {
      operation: "revert volume",
      object: lineage.uuid,
      remedy: "Take its export away first: its users would not know that its blocks changed.",
    });
  }
  store.revertVolume(lineage, to);
}

function differences(store: Store, { from, to, after }: DifferencesQuery): DifferencesPage {
  const earlier = from === undefined ? null : findState(store, from);
  const first = Math.floor(after / chunkBytes);
  const found = findDifferences(store, earlier, findState(store, to), first, chunksPerPage);
  return {
    ranges: found.ranges.map(({ first: block, count, zero }) => ({
      offsetBytes: block * blockBytes,
      lengthBytes: count * blockBytes,
      zero,
    })),
    next: found.nextChunk === null ? null : found.nextChunk * chunkBytes,
  };
}

function findState(store: Store, id: string): State {
  const snapshot = store.lineages.snapshots.get(id);
  if (snapshot !== undefined) return snapshot;
  const lineage = findVolume(store, id);
  return { lineage, epoch: lineage.epoch };
}

/** Of many snapshots: each lineage's cells are added up once. */
function snapshotInfos(snapshots: Iterable<Snapshot>): SnapshotInfo[] {
  const sizes = new Map<Lineage, Sizes>();
  return Array.from(snapshots, (snapshot) => {
    const { lineage, epoch } = snapshot;
    let of = sizes.get(lineage);
    if (of === undefined) {
      of = sizesOf(lineage);
      sizes.set(lineage, of);
    }
    const at = firstSnapshotFrom(lineage, epoch);
    return {
      id: snapshot.uuid,
      volume: lineage.uuid,
      sizeBytes: snapshot.sizeBytes,
      createdAt: new Date(snapshot.createdMs).toISOString(),
      epoch,
      referencedBytes: of.referenced[at] * blockBytes,
      exclusiveBytes: of.exclusive[at] * blockBytes,
      clones: snapshot.children,
      openCount: snapshot.openCount,
    };
  });
}

/** In blocks, by number of the snapshot. */
interface Sizes {
  readonly referenced: Float64Array;
  readonly exclusive: Float64Array;
}

function sizesOf(lineage: Lineage): Sizes {
  const { snapshots, cells, headless } = lineage;
  const referenced = new Float64Array(snapshots.length + 1);
  const exclusive = new Float64Array(snapshots.length + 1);
  for (const { birth, death, blocks } of cells) {
    // The snapshots from `from` to before `to` see it.
    const from = firstSnapshotFrom(lineage, birth);
    const to = firstSnapshotFrom(lineage, death);
    referenced[from] += blocks;
    referenced[to] -= blocks;
    // The newest state sees what is alive, too; a headless lineage's is its last snapshot.
    if (to === from + 1 && (death !== alive || headless)) exclusive[from] += blocks;
  }
  for (let at = 1; at < referenced.length; at++) referenced[at] += referenced[at - 1];
  return { referenced, exclusive };
}
