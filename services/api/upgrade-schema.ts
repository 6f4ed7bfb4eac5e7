/**
 * Upgrades, as api says them (permissions upgrade:read and upgrade:write):
 *
 *   GET    /upgrade                   -> UpgradeState
 *   POST   /upgrade/bundles           the file's bytes -> OfferedBundle, verified
 *   POST   /upgrade/bundles/{id}/fetch -> OfferedBundle        copy one that is elsewhere
 *   GET    /upgrade/bundles/{id}/file the file's bytes
 *   GET    /upgrade/bundles/{id}/plan -> UpgradePlan           what would be done
 *   DELETE /upgrade/bundles/{id}      -> 204
 *   POST   /upgrade/start             PlanStart -> UpgradePlan
 *   POST   /upgrade/cancel            -> UpgradePlan           before the step `arm` only
 *   POST   /upgrade/rollback          -> UpgradePlan           to the other slot, if it has worked
 *   PUT    /upgrade/sources           SourceSettings -> UpgradeState
 *   POST   /upgrade/sources/check     -> UpgradeState
 *   DELETE /upgrade/failure           -> 204                   it has been read
 *
 * For a neighbour node, without a log-in (what they give is signed, and public):
 *
 *   GET    /upgrade/index.json        -> SharedIndex           an index as of a channel
 *   GET    /upgrade/shared/{id}       the file's bytes, from `Range: bytes=N-` on
 *
 * The resource `upgrade` of /events is the whole UpgradeState. What the fields mean is said in
 * firmware-updater/schema.ts.
 */
import { z } from "zod";

const time = z.iso.datetime();
const count = z.int().min(0);

const slotViewSchema = z.object({
  slot: z.enum(["a", "b"]),
  version: z.string().nullable(),
  state: z.enum(["good", "trial", "failed", "unfinished", "empty"]),
  triesLeft: count.nullable(),
});

const verdictSchema = z.discriminatedUnion("ok", [
  z.object({ ok: z.literal(true) }),
  z.object({ ok: z.literal(false), why: z.string() }),
]);

const nodeSlotsSchema = z.object({
  node: z.string(),
  firmware: z.enum(["uefi", "bios"]),
  running: slotViewSchema,
  other: slotViewSchema,
  wayBack: verdictSchema.meta({ description: "Whether the other slot can be booted." }),
  developmentBuild: z.boolean(),
});

export const offeredBundleSchema = z.object({
  id: z.string(),
  version: z.string().nullable(),
  notes: z.string(),
  sizeBytes: count,
  source: z.object({
    kind: z.enum(["upload", "directory", "usb", "channel", "node"]),
    where: z.string(),
  }),
  state: z.enum(["here", "remote", "fetching", "refused"]),
  receivedBytes: count,
  message: z.string().nullable(),
  developmentKey: z.boolean(),
  offeredAt: time,
  startable: verdictSchema,
});
export type OfferedBundle = z.infer<typeof offeredBundleSchema>;

export const planStepSchema = z.object({
  id: z.enum(["verify", "preflight", "write", "arm", "quiesce", "restart", "gate", "commit"]),
  node: z.string(),
  title: z.string(),
  state: z.enum(["waiting", "running", "done", "failed", "skipped"]),
  progressPercent: z.number().min(0).max(100).nullable(),
  startedAt: time.nullable(),
  endedAt: time.nullable(),
  message: z.string().nullable(),
});
export type PlanStep = z.infer<typeof planStepSchema>;

export const upgradePlanSchema = z.object({
  id: z.string(),
  kind: z.enum(["upgrade", "rollback"]),
  fromVersion: z.string(),
  toVersion: z.string(),
  bundleId: z.string().nullable(),
  state: z.enum(["planned", "running", "done", "returned", "failed", "cancelled"]),
  cancellable: z.boolean(),
  steps: z.array(planStepSchema),
  startedAt: time.nullable(),
  endedAt: time.nullable(),
  interruptionSeconds: count,
  failure: z.string().nullable(),
});
export type UpgradePlan = z.infer<typeof upgradePlanSchema>;

const historyEntrySchema = z.object({
  planId: z.string(),
  kind: z.enum(["upgrade", "rollback", "installation"]),
  fromVersion: z.string().nullable(),
  toVersion: z.string(),
  result: z.enum(["done", "returned", "failed", "cancelled"]),
  startedAt: time,
  endedAt: time,
  message: z.string().nullable(),
});
export type UpgradeHistoryEntry = z.infer<typeof historyEntrySchema>;

const failureSchema = z.object({
  planId: z.string(),
  version: z.string(),
  at: time,
  reason: z.string(),
  attempts: z.array(
    z.object({
      bootId: z.string(),
      startedAt: time,
      reached: z.string(),
      reason: z.string().nullable(),
    }),
  ),
  log: z.array(z.string()),
});
export type UpgradeFailure = z.infer<typeof failureSchema>;

const webAddress = z.url({ protocol: /^https$/, error: "Give an https:// address, or null." });

export const sourceSettingsSchema = z.object({
  channel: webAddress.nullable(),
  neighbour: webAddress.nullable(),
  neighbourFingerprint: z
    .string()
    .regex(
      /^([0-9a-f]{2}:?){31}[0-9a-f]{2}$/i,
      "Give a SHA-256 fingerprint: 64 hexadecimal digits.",
    )
    .nullable()
    .default(null)
    .meta({ description: "Of the neighbour's CA, as its screen shows it." }),
});

export type SourceSettings = z.infer<typeof sourceSettingsSchema>;

export const sharedIndexSchema = z.object({
  format: z.literal(1),
  bundles: z.array(
    z.object({ url: z.string(), version: z.string(), sizeBytes: count, notes: z.string() }),
  ),
});
export type SharedIndex = z.infer<typeof sharedIndexSchema>;

export const upgradeStateSchema = z.object({
  revision: count,
  nodes: z.array(nodeSlotsSchema),
  bundles: z.array(offeredBundleSchema),
  plan: upgradePlanSchema.nullable(),
  history: z.array(historyEntrySchema),
  lastFailure: failureSchema.nullable(),
  sources: sourceSettingsSchema.extend({
    checkedAt: time.nullable(),
    message: z.string().nullable(),
  }),
  spool: z.object({ freeBytes: count, limitBytes: count }),
});
export type UpgradeState = z.infer<typeof upgradeStateSchema>;

export const planStartSchema = z.object({
  bundleId: z.string().min(1).max(100),
  gate: z
    .object({
      holdSeconds: z.int().min(10).max(3600).optional(),
      deadlineSeconds: z.int().min(60).max(7200).optional(),
    })
    .optional(),
});
export type PlanStart = z.infer<typeof planStartSchema>;
