/**
 * What a plan that was under way when the updater (or the machine) stopped goes on with. Pure; its
 * test is the whole table.
 */
import type { StepId } from "./schema.ts";
import type { StoredPlan } from "./state.ts";

export interface BootFacts {
  readonly rootHash: string;
  readonly bootId: string;
  /** What the boot loader would still give the new slot; undefined: it would not boot it. */
  readonly triesLeft: number | "good" | undefined;
}

export type Recovery =
  /** Nothing was under way. */
  | { readonly kind: "none" }
  /** Go on with this step; what was half done is done again. */
  | { readonly kind: "resume"; readonly step: StepId }
  /** It ends here: nothing was armed, the running version was never in question. */
  | { readonly kind: "fail"; readonly why: string }
  /** The new version was tried and the old one is back. */
  | { readonly kind: "returned" };

/** Interruptions before the plan is given up: a cut that the writing itself causes would repeat. */
export const mostResumes = 5;
const fullTries = 3;

export function recover(plan: StoredPlan | null, boot: BootFacts): Recovery {
  if (plan === null || plan.state !== "running") return { kind: "none" };
  const next = plan.steps.find(({ state }) => state !== "done" && state !== "skipped");
  if (next === undefined) return { kind: "resume", step: "commit" };
  if (boot.rootHash === plan.to.rootHash) return inNewSlot(next.id);
  if (boot.rootHash !== plan.from.rootHash) {
    return { kind: "fail", why: "Another system was started meanwhile." };
  }
  switch (next.id) {
    case "verify":
    case "preflight":
    case "write":
      return beforeArming(plan, next.id);
    case "arm":
      // Whatever of it was done, the new slot was never started: this boot is the old slot's.
      return boot.triesLeft === fullTries || neverArmed(boot)
        ? beforeArming(plan, "arm")
        : { kind: "returned" };
    case "quiesce":
    case "restart":
      if (boot.triesLeft !== fullTries) return { kind: "returned" };
      return plan.resumes >= mostResumes ? { kind: "returned" } : { kind: "resume", step: next.id };
    case "gate":
    case "commit":
      return { kind: "returned" };
  }
}

function inNewSlot(step: StepId): Recovery {
  return step === "commit" ? { kind: "resume", step: "commit" } : { kind: "resume", step: "gate" };
}

function beforeArming(plan: StoredPlan, step: StepId): Recovery {
  return plan.resumes >= mostResumes
    ? { kind: "fail", why: `It was interrupted ${plan.resumes + 1} times in the step "${step}".` }
    : { kind: "resume", step };
}

function neverArmed(boot: BootFacts): boolean {
  return boot.triesLeft === undefined || boot.triesLeft === "good";
}
