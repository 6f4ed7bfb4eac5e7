/**
 * The format of policy's records, in the cluster store itself: a version that doesn't know it must
 * not start on it. Absent: the first release's. Raised only once a version is kept (lib/data-format).
 */
import type { ClusterStore } from "#lib/cluster-store/store.ts";
import {
  dataFormats,
  type FormatRange,
  firstFormats,
  rangeText,
} from "#lib/data-format/formats.ts";
import type { HeldFormatsFile } from "#lib/data-format/held.ts";
import { KeelsonError } from "#lib/model/errors.ts";

export const policyFormatKey = "format/policy";

/** From `to - 1` to `to`. It is done again if it was cut off, and on records that are done already. */
export interface PolicyMigration {
  readonly to: number;
  run(store: ClusterStore): Promise<void>;
}

/** None yet: a second format brings the first one, and reads records of both until it has run. */
const migrations: readonly PolicyMigration[] = [];

/**
 * Refuses (FORMAT_UNKNOWN) policy that this version can't read; brings it forward as far as the
 * node may hold. Gives the format it now has.
 */
export async function settlePolicyFormat(
  store: ClusterStore,
  held: HeldFormatsFile,
  range: FormatRange = dataFormats.policy,
  steps: readonly PolicyMigration[] = migrations,
): Promise<number> {
  const entry = await store.get(policyFormatKey);
  let present = entry === undefined ? firstFormats.policy : Number(entry.value);
  let modRevision = entry?.modRevision ?? 0;
  if (!Number.isInteger(present) || present < range.oldest || present > range.newest) {
    throw new KeelsonError(
      "FORMAT_UNKNOWN",
      `Policy has format ${entry?.value}; this version reads ${rangeText(range)}.`,
      {
        operation: "read policy",
        object: policyFormatKey,
        remedy: "Boot the version that wrote it.",
      },
    );
  }
  const wanted = held.writes("policy", range);
  while (present < wanted) {
    const step = steps.find(({ to }) => to === present + 1);
    if (step === undefined) {
      throw new KeelsonError("INTERNAL", `Nothing brings policy to format ${present + 1}.`);
    }
    await step.run(store);
    const { done, revision } = await store.transact(
      [{ key: policyFormatKey, modRevision }],
      [{ put: policyFormatKey, value: String(step.to) }],
    );
    // Another node's api was as far: it goes on from there.
    if (!done) return await settlePolicyFormat(store, held, range, steps);
    present = step.to;
    modRevision = revision;
  }
  return present;
}
