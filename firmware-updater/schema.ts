/**
 * What crosses `<run>/api.sock` of keelson-firmware-updater; services/api passes it on under
 * /api/v1/upgrade (services/api/upgrade-schema.ts says the same for OpenAPI).
 *
 *   GET    /v1/state                  -> UpgradeState       ?after=REVISION&wait=SECONDS: long poll
 *   POST   /v1/bundles                the file's bytes -> OfferedBundle, verified
 *   POST   /v1/bundles/{id}/fetch     -> OfferedBundle      copy one that is elsewhere; 202
 *   GET    /v1/bundles/{id}/file      the file's bytes; api gives them to neighbour nodes
 *   DELETE /v1/bundles/{id}           -> 204
 *   GET    /v1/bundles/{id}/plan      -> UpgradePlan        what would be done; nothing is done
 *   POST   /v1/plan/start             PlanStart -> UpgradePlan
 *   POST   /v1/plan/cancel            -> UpgradePlan        before the step `arm` only
 *   POST   /v1/rollback               -> UpgradePlan        the other slot, if it has worked
 *   PUT    /v1/sources                SourceSettings -> UpgradeState
 *   POST   /v1/sources/check          -> UpgradeState       look at channel, sticks and neighbours now
 *   DELETE /v1/failure                -> 204                the last failure has been read
 *
 * Times are RFC 3339 in UTC. A cluster adds entries to `nodes` and steps of other nodes.
 */

export type SlotName = "a" | "b";

/**
 * good: has worked. trial: booted or about to be, with tries left. failed: its tries are used up.
 * unfinished: being written, or given up: nothing boots it. empty: nothing was ever written.
 */
export type SlotState = "good" | "trial" | "failed" | "unfinished" | "empty";

export interface SlotView {
  readonly slot: SlotName;
  /** Null: empty, or not known. */
  readonly version: string | null;
  readonly state: SlotState;
  /** Of a trial; else null. */
  readonly triesLeft: number | null;
}

/** Why not, as a value: the screen shows `why`. */
export type Verdict = { readonly ok: true } | { readonly ok: false; readonly why: string };

export interface NodeSlots {
  /** The node's name. */
  readonly node: string;
  readonly firmware: "uefi" | "bios";
  readonly running: SlotView;
  readonly other: SlotView;
  /** Whether the other slot can be booted. */
  readonly wayBack: Verdict;
  /** Signed by a throw-away key: shown on every screen. */
  readonly developmentBuild: boolean;
}

export type SourceKind = "upload" | "directory" | "usb" | "channel" | "node";

export interface OfferedBundle {
  /** The file's SHA-256 (its first 32 hexadecimal digits), or of its address while it is elsewhere. */
  readonly id: string;
  readonly version: string | null;
  readonly notes: string;
  readonly sizeBytes: number;
  readonly source: { readonly kind: SourceKind; readonly where: string };
  /** here: verified, in the spool. remote: offered, not copied. fetching: being copied. refused: see message. */
  readonly state: "here" | "remote" | "fetching" | "refused";
  readonly receivedBytes: number;
  readonly message: string | null;
  readonly developmentKey: boolean;
  readonly offeredAt: string;
  /** Whether a plan with it can start now. */
  readonly startable: Verdict;
}

export const stepIds = [
  "verify",
  "preflight",
  "write",
  "arm",
  "quiesce",
  "restart",
  "gate",
  "commit",
] as const;
export type StepId = (typeof stepIds)[number];

export interface PlanStep {
  readonly id: StepId;
  readonly node: string;
  /** One line: "Write 2026.12.0 to slot B". */
  readonly title: string;
  readonly state: "waiting" | "running" | "done" | "failed" | "skipped";
  /** 0 to 100; null where it can't be known. */
  readonly progressPercent: number | null;
  readonly startedAt: string | null;
  readonly endedAt: string | null;
  /** What it does now, or what it found. */
  readonly message: string | null;
}

/**
 * running: steps are being done. returned: the new version failed and the old one is back.
 * failed: it ended before anything was armed; the running version was never in question.
 */
export type PlanState = "planned" | "running" | "done" | "returned" | "failed" | "cancelled";

export interface UpgradePlan {
  readonly id: string;
  readonly kind: "upgrade" | "rollback";
  readonly fromVersion: string;
  readonly toVersion: string;
  readonly bundleId: string | null;
  readonly state: PlanState;
  readonly cancellable: boolean;
  readonly steps: readonly PlanStep[];
  readonly startedAt: string | null;
  readonly endedAt: string | null;
  /** Guests lose their disks from the restart until the services are back: seconds, estimated. */
  readonly interruptionSeconds: number;
  readonly failure: string | null;
}

export interface HistoryEntry {
  readonly planId: string;
  readonly kind: "upgrade" | "rollback" | "installation";
  readonly fromVersion: string | null;
  readonly toVersion: string;
  readonly result: "done" | "returned" | "failed" | "cancelled";
  readonly startedAt: string;
  readonly endedAt: string;
  readonly message: string | null;
}

export interface BootAttempt {
  readonly bootId: string;
  readonly startedAt: string;
  /** How far it got: "mounted /var", "services started", "health gate". */
  readonly reached: string;
  readonly reason: string | null;
}

export interface UpgradeFailure {
  readonly planId: string;
  readonly version: string;
  readonly at: string;
  readonly reason: string;
  readonly attempts: readonly BootAttempt[];
  /** Lines of the failed boot's journal (or of pstore), the last ones; empty if it left none. */
  readonly log: readonly string[];
}

export interface SourceSettings {
  /** URL of a channel's index; null: none. */
  readonly channel: string | null;
  /** https:// address of a node whose bundles are offered here; null: none. */
  readonly neighbour: string | null;
  /** SHA-256 of that node's CA, as its screen shows it; null: no neighbour. */
  readonly neighbourFingerprint: string | null;
}

export interface SourceView extends SourceSettings {
  readonly checkedAt: string | null;
  readonly message: string | null;
}

export interface UpgradeState {
  /** Grows with each change, over restarts too. */
  readonly revision: number;
  readonly nodes: readonly NodeSlots[];
  readonly bundles: readonly OfferedBundle[];
  /** The running plan, or the last one. */
  readonly plan: UpgradePlan | null;
  /** Newest first. */
  readonly history: readonly HistoryEntry[];
  readonly lastFailure: UpgradeFailure | null;
  readonly sources: SourceView;
  /** Room for bundles. */
  readonly spool: { readonly freeBytes: number; readonly limitBytes: number };
}

export interface GateSettings {
  /** How long everything must stay well, seconds, 10 to 3600; 120 unless told. */
  readonly holdSeconds: number;
  /** How long after the boot that must be reached, seconds, 60 to 7200; 1200 unless told. */
  readonly deadlineSeconds: number;
}

export interface PlanStart {
  readonly bundleId: string;
  readonly gate?: Partial<GateSettings>;
}
