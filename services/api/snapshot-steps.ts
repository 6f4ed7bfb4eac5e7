/** From policy's snapshots and the store's to the steps between them: part of `plan.ts`. Pure. */
import type { SnapshotInfo, VolumeInfo } from "#services/chunk-store/schema.ts";
import type { VolumeRecord } from "./policy.ts";
import type { SnapshotRecord } from "./snapshot-records.ts";

export type SnapshotStep =
  | { readonly kind: "readySnapshot"; readonly id: string; readonly info: SnapshotInfo }
  | { readonly kind: "dropSnapshot"; readonly id: string }
  | { readonly kind: "loseSnapshot"; readonly id: string }
  | { readonly kind: "adoptSnapshot"; readonly id: string; readonly info: SnapshotInfo }
  | { readonly kind: "deleteSnapshot"; readonly id: string }
  | { readonly kind: "forgetSnapshot"; readonly id: string };

export interface SnapshotsWanted {
  readonly snapshots: readonly SnapshotRecord[];
  readonly volumes: readonly VolumeRecord[];
}

/** Null: the store could not be asked, or it was asked while snapshots were being made. */
export interface SnapshotsObserved {
  readonly snapshots: readonly SnapshotInfo[] | null;
  readonly volumes: readonly VolumeInfo[] | null;
}

/**
 *   record     in the store   step
 *   creating   yes            ready: it was made, and api ended before it could say so
 *   creating   no             dropped: nobody was told of it, and its instant is over
 *   ready      no             missing
 *   missing    yes            ready: another disk was mounted, and the right one is back
 *   none       yes            adopted, unless its volume is a stranger too (STORE_UNKNOWN_VOLUMES)
 */
export function snapshotSteps(
  wanted: SnapshotsWanted,
  observed: SnapshotsObserved,
): SnapshotStep[] {
  if (observed.snapshots === null) return [];
  const there = new Map(observed.snapshots.map((info) => [info.id, info]));
  const steps: SnapshotStep[] = [];
  for (const { id, state } of wanted.snapshots) {
    const info = there.get(id);
    there.delete(id);
    if (state === "creating") {
      steps.push(
        info === undefined ? { kind: "dropSnapshot", id } : { kind: "readySnapshot", id, info },
      );
    } else if (state === "ready" && info === undefined) steps.push({ kind: "loseSnapshot", id });
    else if (state === "missing" && info !== undefined) {
      steps.push({ kind: "readySnapshot", id, info });
    }
  }
  const ours = new Set(wanted.volumes.map(({ id }) => id));
  const theirs = observed.volumes === null ? null : new Set(observed.volumes.map(({ id }) => id));
  for (const [id, info] of there) {
    const stranger = theirs === null || theirs.has(info.volume);
    if (ours.has(info.volume) || !stranger) steps.push({ kind: "adoptSnapshot", id, info });
  }
  return steps;
}

/** Before their volumes go, so that no volume stays in the store for the sake of its snapshots. */
export function snapshotDeletions(
  wanted: SnapshotsWanted,
  observed: SnapshotsObserved,
): SnapshotStep[] {
  if (observed.snapshots === null) return [];
  const there = new Set(observed.snapshots.map(({ id }) => id));
  return wanted.snapshots
    .filter(({ state }) => state === "deleting")
    .flatMap(({ id }): SnapshotStep[] => [
      ...(there.has(id) ? [{ kind: "deleteSnapshot", id } as const] : []),
      { kind: "forgetSnapshot", id },
    ]);
}
