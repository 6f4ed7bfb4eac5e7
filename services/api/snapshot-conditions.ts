/** Faults of snapshots and their schedules: part of `conditions.ts`. */
import type { Finding } from "#lib/aime/condition.ts";
import type { Policy } from "./policy.ts";

export const snapshotTitles = {
  SNAPSHOT_MISSING: "A snapshot is no longer in the store",
  SNAPSHOT_SCHEDULE_FAILED: "Snapshots are not taken as scheduled",
} as const;

export function snapshotFaults(
  policy: Pick<Policy, "list">,
  failures: ReadonlyMap<string, string>,
): { code: keyof typeof snapshotTitles; subject: string; finding: Finding }[] {
  const fault = (reason: string, remedy: string): Finding => ({
    status: "true",
    severity: "warning",
    reason,
    remedy,
  });
  const volumes = new Map(policy.list("volume").map(({ id, name }) => [id, name]));
  const missing = policy
    .list("snapshot")
    .filter(({ state }) => state === "missing")
    .map(({ id, name, volumeId }) => ({
      code: "SNAPSHOT_MISSING" as const,
      subject: id,
      finding: fault(
        `The store no longer has ${name} of ${volumes.get(volumeId) ?? volumeId}.`,
        "Bring back the disk that holds it, or delete it from the list.",
      ),
    }));
  const failed = policy
    .list("snapshot-schedule")
    .filter(({ id }) => failures.has(id))
    .map(({ id, name }) => ({
      code: "SNAPSHOT_SCHEDULE_FAILED" as const,
      subject: name,
      finding: fault(failures.get(id)!, "See the schedule and its volumes; it is tried again."),
    }));
  return [...missing, ...failed];
}
