/** Carries out the steps of `snapshot-steps.ts`; each may be repeated. */
import { isKeelsonError } from "#lib/model/errors.ts";
import type { SnapshotInfo } from "#services/chunk-store/schema.ts";
import type { Clock } from "./clock.ts";
import type { Peers } from "./peers.ts";
import type { Policy } from "./policy.ts";
import type { SnapshotRecord } from "./snapshot-records.ts";
import type { SnapshotStep } from "./snapshot-steps.ts";

export async function doSnapshotStep(
  step: SnapshotStep,
  { policy, peers }: { readonly policy: Policy; readonly peers: Peers; readonly clock: Clock },
): Promise<void> {
  const from = (states: readonly SnapshotRecord["state"][], next: Partial<SnapshotRecord> | null) =>
    policy.change((draft) => {
      const record = draft.get("snapshot", step.id);
      // Somebody may have asked for its deletion since the plan was made.
      if (record === undefined || !states.includes(record.state)) return;
      if (next === null) draft.delete("snapshot", step.id);
      else draft.put("snapshot", { ...record, ...next });
    });
  switch (step.kind) {
    case "readySnapshot":
      return await from(["creating", "missing"], { state: "ready", ...factsOf(step.info) });
    case "dropSnapshot":
      return await from(["creating"], null);
    case "loseSnapshot":
      return await from(["ready"], { state: "missing" });
    case "adoptSnapshot":
      return await policy.change((draft) => {
        if (draft.get("snapshot", step.id) !== undefined) return;
        draft.put("snapshot", {
          id: step.id,
          // The id is in it, so that no other one has this name.
          name: `found-${step.id}`,
          description: "It was found in the store: nobody here knows who made it.",
          volumeId: step.info.volume,
          groupId: step.id,
          state: "ready",
          hold: false,
          scheduleId: null,
          ...factsOf(step.info),
        });
      });
    case "deleteSnapshot":
      return await peers.store.deleteSnapshot(step.id).catch((error) => {
        if (!isKeelsonError(error, "NOT_FOUND")) throw error;
      });
    case "forgetSnapshot":
      return await from(["deleting"], null);
  }
}

function factsOf({ sizeBytes, createdAt }: SnapshotInfo) {
  return { sizeBytes, createdAt };
}
