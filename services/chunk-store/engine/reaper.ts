/**
 * Frees in the background what deleted volumes and snapshots leave, a few map records a slice. Each
 * slice is a log record, so that a crash in the middle goes on where it was.
 */
import type { Cell } from "./cells.ts";
import { EntryType } from "./layout.ts";
import { intervalAfter, isNeeded, type Lineage } from "./lineages.ts";
import type { Store } from "./store.ts";

const recordsPerSlice = 16;

/** One slice. False when there is nothing to free, or the store is retired. */
export function reap(store: Store): boolean {
  const { lineages } = store;
  for (const lineage of lineages.reapable) {
    if (reapHead(store, lineage) || reapSnapshot(store, lineage)) {
      return store.failure === null;
    }
    lineages.reapable.delete(lineage);
  }
  return false;
}

/** A deleted volume's newest state, down to the newest snapshot that somebody needs. */
function reapHead(store: Store, lineage: Lineage): boolean {
  const { barrier: bound } = lineage;
  const gone = lineage.deleted && lineage.children === 0;
  if (!gone || (lineage.headless && bound === lineage.epoch)) return false;
  const cells = lineage.cells.newest().filter(({ birth }) => birth > bound);
  if (!store.prepare(recordsPerSlice, 0)) return true;
  addDrops(store, lineage, EntryType.dropHead, cells, () => bound);
  if (store.log.count === 0) addForget(store, EntryType.headForget, lineage, bound);
  store.commit();
  return true;
}

/** The oldest deleted snapshot that nobody needs and that another state follows. */
function reapSnapshot(store: Store, lineage: Lineage): boolean {
  const { snapshots, cells } = lineage;
  const at = snapshots.findIndex((snapshot) => !isNeeded(snapshot));
  if (at < 0) return false;
  const { epoch } = snapshots[at];
  const cell = cells.find(epoch, intervalAfter(lineage, at));
  if (!store.prepare(recordsPerSlice, 0)) return true;
  const { index } = store;
  if (cell !== undefined) {
    addDrops(store, lineage, EntryType.dropOld, [cell], (record) => index.epoch[record]);
  }
  if (store.log.count === 0) addForget(store, EntryType.snapshotForget, lineage, epoch);
  store.commit();
  return true;
}

function addDrops(
  store: Store,
  lineage: Lineage,
  type: number,
  cells: readonly Cell[],
  epochOf: (record: number) => number,
): void {
  const { index, log } = store;
  for (const cell of cells) {
    for (let record = cell.head; record >= 0; record = index.after(record)) {
      if (log.count === recordsPerSlice) return;
      log.add(type, 0, 0, lineage.number, index.chunk[record], 0, 0, epochOf(record), 0, 0);
    }
  }
}

function addForget(store: Store, type: number, lineage: Lineage, epoch: number): void {
  store.log.add(type, 0, 0, lineage.number, 0, 0, 0, epoch, 0, 0);
}
