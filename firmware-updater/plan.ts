/** The planner: from what is running and what is offered to one readable list. Pure. */
import type { GateSettings, NodeSlots, PlanStep, SlotName, StepId, UpgradePlan } from "./schema.ts";
import type { Release } from "./slot-writer.ts";
import { otherSlot } from "./slots.ts";
import type { StoredPlan, StoredStep } from "./state.ts";

export const defaultGate: GateSettings = { holdSeconds: 120, deadlineSeconds: 1200 };
/** Restart of a plain machine until its services answer; the gate doesn't interrupt guests. */
const interruptionSeconds = 120;

export interface PlanRequest {
  readonly id: string;
  readonly kind: "upgrade" | "rollback";
  readonly from: Release;
  readonly fromSlot: SlotName;
  readonly to: Release;
  readonly bundleId: string | null;
  readonly gate: GateSettings;
  readonly startedAt: string;
}

export function makePlan(request: PlanRequest): StoredPlan {
  const toSlot = otherSlot(request.fromSlot);
  return {
    ...request,
    toSlot,
    state: "running",
    steps: stepsOf(request, toSlot),
    endedAt: null,
    failure: null,
    ukiHead: null,
    baseline: null,
    restartBootId: null,
    gateBootId: null,
    gateFailure: null,
    resumes: 0,
  };
}

function stepsOf({ kind, from, to, gate }: PlanRequest, toSlot: SlotName): StoredStep[] {
  const slot = `slot ${toSlot.toUpperCase()}`;
  const titles: Partial<Record<StepId, string>> = {
    ...(kind === "upgrade"
      ? {
          verify: `Verify the bundle of ${to.version}`,
          preflight: "Check space, power and store; note what works now",
          write: `Write ${to.version} to ${slot} and read it back`,
        }
      : { preflight: "Check the store; note what works now" }),
    arm: `Let the boot loader try ${to.version} three times`,
    quiesce: "Bring the disks up to date",
    restart: `Restart into ${to.version}: guests wait meanwhile`,
    gate: `Watch ${to.version} for ${gate.holdSeconds} s: services, API, store, network`,
    commit: `Keep ${to.version}; ${from.version} stays as the way back`,
  };
  return Object.entries(titles).map(([id, title]) => ({
    id: id as StepId,
    title,
    state: "waiting",
    startedAt: null,
    endedAt: null,
    message: null,
  }));
}

/** Steps that can be undone by simply not going on. */
const cancellableSteps: readonly StepId[] = ["verify", "preflight", "write"];

export function isCancellable(plan: StoredPlan): boolean {
  if (plan.state !== "running") return false;
  const next = plan.steps.find(({ state }) => state !== "done" && state !== "skipped");
  return next !== undefined && cancellableSteps.includes(next.id);
}

export function viewPlan(
  plan: StoredPlan,
  node: string,
  progress: Readonly<Partial<Record<StepId, number>>>,
): UpgradePlan {
  return {
    id: plan.id,
    kind: plan.kind,
    fromVersion: plan.from.version,
    toVersion: plan.to.version,
    bundleId: plan.bundleId,
    state: plan.state,
    cancellable: isCancellable(plan),
    steps: plan.steps.map(
      (step): PlanStep => ({
        ...step,
        node,
        progressPercent: step.state === "done" ? 100 : (progress[step.id] ?? null),
      }),
    ),
    startedAt: plan.startedAt,
    endedAt: plan.endedAt,
    interruptionSeconds,
    failure: plan.failure,
  };
}

/** A plan that is only shown. */
export function previewPlan(request: PlanRequest, node: string): UpgradePlan {
  const plan = viewPlan(makePlan(request), node, {});
  return { ...plan, state: "planned", cancellable: false, startedAt: null };
}

/** What preflight looks at. Undefined: it can't be known on this node. */
export interface PreflightFacts {
  readonly slots: NodeSlots;
  readonly rootBytes: number;
  readonly verityBytes: number;
  readonly slotRootBytes: number;
  readonly slotVerityBytes: number;
  readonly espFreeBytes: number;
  readonly espNeededBytes: number;
  readonly onBattery: boolean | undefined;
  readonly storeProblem: string | undefined;
}

/** Reasons against going on, and what is worth saying. */
export function judgePreflight(facts: PreflightFacts): { against: string[]; notes: string[] } {
  const against: string[] = [];
  const notes: string[] = [];
  const mebibytes = (bytes: number) => `${Math.ceil(bytes / 2 ** 20)} MiB`;
  if (facts.rootBytes > facts.slotRootBytes || facts.verityBytes > facts.slotVerityBytes) {
    against.push(
      `The root needs ${mebibytes(facts.rootBytes)}, the slot has ${mebibytes(facts.slotRootBytes)}.`,
    );
  }
  if (facts.espFreeBytes < facts.espNeededBytes) {
    against.push(
      `The ESP has ${mebibytes(facts.espFreeBytes)} free and ${mebibytes(facts.espNeededBytes)} are needed.`,
    );
  }
  if (facts.onBattery === true) {
    against.push("The node runs on its battery. Wait until mains power is back.");
  }
  if (facts.onBattery === undefined) notes.push("No UPS is known: power is taken as stable.");
  if (facts.storeProblem !== undefined) {
    against.push(`The store is not well: ${facts.storeProblem} Mend that first.`);
  }
  return { against, notes };
}
