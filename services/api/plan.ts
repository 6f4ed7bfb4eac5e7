/**
 * From what is wanted (policy) and what was observed to the steps between them. Pure: the executor
 * (`reconciler.ts`) does the steps in this order and plans again, until there are none.
 *
 * The order prevents harm: a volume exists before an export names it, and an export is gone before
 * its volume is deleted or goes back to a snapshot. A service that couldn't be asked gets no steps:
 * unknown is not absent.
 */
import { createHash } from "node:crypto";
import type { PutVolume, SnapshotInfo, VolumeInfo } from "#services/chunk-store/schema.ts";
import type { ExportsPutInput, ExportsView } from "#services/iscsi-target/schema.ts";
import type { NetbootConfigInput } from "./peers.ts";
import type { BootRecord, ExportRecord, ImageRecord, VolumeRecord } from "./policy.ts";
import type { SnapshotRecord } from "./snapshot-records.ts";
import { type SnapshotStep, snapshotDeletions, snapshotSteps } from "./snapshot-steps.ts";

export interface Wanted {
  /** Of the policy that this is: what services are given as generation. */
  readonly generation: number;
  readonly volumes: readonly VolumeRecord[];
  readonly snapshots: readonly SnapshotRecord[];
  readonly images: readonly ImageRecord[];
  readonly boots: readonly BootRecord[];
  readonly exports: readonly ExportRecord[];
  readonly netboot: readonly NetbootConfigInput["interfaces"][number][];
}

/** Null: the service could not be asked. */
export interface Observed {
  readonly volumes: readonly VolumeInfo[] | null;
  /** Null also if snapshots were being made meanwhile: a new one would look lost. */
  readonly snapshots: readonly SnapshotInfo[] | null;
  readonly exports: Pick<ExportsView, "generation"> | null;
  readonly netboot: { readonly generation: number } | null;
  /** Digest of what api last put, by service; null after api's start. */
  readonly putDigest: { readonly exports: string | null; readonly netboot: string | null };
}

export type Step =
  | SnapshotStep
  | { readonly kind: "createVolume"; readonly id: string; readonly body: PutVolume }
  | { readonly kind: "resizeVolume"; readonly id: string; readonly sizeBytes: number }
  | { readonly kind: "sealVolume"; readonly id: string }
  | { readonly kind: "readyVolume"; readonly id: string }
  | { readonly kind: "loseVolume"; readonly id: string; readonly failure: string }
  | { readonly kind: "putExports"; readonly body: ExportsPutInput; readonly digest: string }
  | { readonly kind: "putNetboot"; readonly body: NetbootConfigInput; readonly digest: string }
  | { readonly kind: "revertVolume"; readonly id: string; readonly snapshotId: string }
  | { readonly kind: "deleteVolume"; readonly id: string }
  | { readonly kind: "forgetVolume"; readonly id: string };

export function plan(wanted: Wanted, observed: Observed): Step[] {
  return [
    ...volumeSteps(wanted, observed),
    ...snapshotSteps(wanted, observed),
    ...exportSteps(wanted, observed),
    ...netbootSteps(wanted, observed),
    ...revertSteps(wanted, observed),
    ...snapshotDeletions(wanted, observed),
    ...deletionSteps(wanted, observed),
  ];
}

function volumeSteps(wanted: Wanted, observed: Observed): Step[] {
  if (observed.volumes === null) return [];
  const there = new Map(observed.volumes.map((volume) => [volume.id, volume]));
  const steps: Step[] = [];
  for (const volume of wanted.volumes) {
    const { id, sizeBytes } = volume;
    const found = there.get(id);
    if (volume.state === "creating") {
      if (found === undefined) {
        // Put again with the same body is the same volume: a crash in between costs nothing.
        const parent = volume.parentVolumeId;
        steps.push({
          kind: "createVolume",
          id,
          body:
            volume.parentSnapshotId !== undefined
              ? { snapshot: volume.parentSnapshotId, sizeBytes }
              : parent === null
                ? { sizeBytes }
                : { parent, sizeBytes },
        });
      }
      steps.push({ kind: "readyVolume", id });
    } else if (volume.state === "ready") {
      if (found === undefined) {
        steps.push({ kind: "loseVolume", id, failure: "The store no longer has this volume." });
        continue;
      }
      if (found.sizeBytes < sizeBytes) steps.push({ kind: "resizeVolume", id, sizeBytes });
      if (volume.sealed && !found.sealed) steps.push({ kind: "sealVolume", id });
    } else if (volume.state === "failed" && found !== undefined && wasLost(volume)) {
      // It was only away: another device was mounted, and the right one is back.
      steps.push({ kind: "readyVolume", id });
    }
  }
  return steps;
}

function wasLost(volume: VolumeRecord): boolean {
  return volume.failure?.startsWith("The store no longer has") ?? false;
}

function exportSteps(wanted: Wanted, observed: Observed): Step[] {
  if (observed.exports === null) return [];
  const entries = exportEntries(wanted);
  const digest = digestOf(entries);
  const { generation } = observed.exports;
  // A newer generation than ours is never overwritten: `STALE_GENERATION` is reported instead.
  if (generation > wanted.generation) return [];
  const same = observed.putDigest.exports === digest && generation > 0;
  if (same) return [];
  return [
    {
      kind: "putExports",
      body: { generation: wanted.generation, exports: entries },
      digest,
    },
  ];
}

/** What iscsi-target is to serve: only volumes that exist. In order of id, so that it compares. */
export function exportEntries(wanted: Wanted): ExportsPutInput["exports"] {
  const ready = new Map(
    wanted.volumes
      .filter(({ state, revertTo }) => state === "ready" && revertTo === undefined)
      .map((volume) => [volume.id, volume]),
  );
  const boots = wanted.boots
    .filter(({ cloneVolumeId }) => cloneVolumeId !== null && ready.has(cloneVolumeId))
    .map((boot) => ({
      id: `boot.${boot.id}`,
      iqn: boot.targetIqn,
      volumeId: boot.cloneVolumeId!,
      initiators: [boot.initiatorIqn],
      openToLoopback: false,
      readOnly: false,
      chap: { user: boot.chapUser, secret: boot.chapSecret },
    }));
  const exports = wanted.exports
    .filter(({ volumeId }) => ready.has(volumeId))
    .map((entry) => ({
      id: `export.${entry.id}`,
      iqn: entry.targetIqn,
      volumeId: entry.volumeId,
      initiators: [...entry.initiators],
      openToLoopback: entry.openToLoopback,
      readOnly: entry.readOnly || ready.get(entry.volumeId)!.sealed,
      ...(entry.chapUser === null || entry.chapSecret === null
        ? {}
        : { chap: { user: entry.chapUser, secret: entry.chapSecret } }),
    }));
  return [...boots, ...exports].sort((a, b) => (a.id < b.id ? -1 : 1));
}

function netbootSteps(wanted: Wanted, observed: Observed): Step[] {
  if (observed.netboot === null) return [];
  const { generation } = observed.netboot;
  if (generation > wanted.generation) return [];
  const digest = digestOf(wanted.netboot);
  if (observed.putDigest.netboot === digest && generation > 0) return [];
  return [
    {
      kind: "putNetboot",
      body: { generation: wanted.generation, interfaces: wanted.netboot },
      digest,
    },
  ];
}

/** Behind the step that takes its export away: a volume that is open is refused. */
function revertSteps(wanted: Wanted, observed: Observed): Step[] {
  if (observed.volumes === null) return [];
  return wanted.volumes.flatMap(({ id, state, revertTo }): Step[] =>
    state === "ready" && revertTo !== undefined
      ? [{ kind: "revertVolume", id, snapshotId: revertTo }]
      : [],
  );
}

function deletionSteps(wanted: Wanted, observed: Observed): Step[] {
  if (observed.volumes === null) return [];
  const there = new Set(observed.volumes.map(({ id }) => id));
  return wanted.volumes
    .filter(({ state }) => state === "deleting")
    .flatMap(({ id }): Step[] => [
      ...(there.has(id) ? [{ kind: "deleteVolume", id } as const] : []),
      { kind: "forgetVolume", id },
    ]);
}

function digestOf(value: unknown): string {
  return createHash("sha256").update(JSON.stringify(value)).digest("hex");
}
