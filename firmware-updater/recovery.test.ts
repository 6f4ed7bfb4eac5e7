import { expect, test } from "vitest";
import { defaultGate, makePlan } from "./plan.ts";
import { type BootFacts, mostResumes, type Recovery, recover } from "./recovery.ts";
import { type StepId, stepIds } from "./schema.ts";
import type { StoredPlan } from "./state.ts";

const oldHash = "a".repeat(64);
const newHash = "b".repeat(64);

/** A plan whose steps before `step` are done, and `step` is running. */
function planAt(step: StepId, change: Partial<StoredPlan> = {}): StoredPlan {
  const plan = makePlan({
    id: "1",
    kind: "upgrade",
    from: { version: "2026.11.0", rootHash: oldHash },
    fromSlot: "a",
    to: { version: "2026.12.0", rootHash: newHash },
    bundleId: "x",
    gate: defaultGate,
    startedAt: "",
  });
  const at = stepIds.indexOf(step);
  return {
    ...plan,
    steps: plan.steps.map((each, index) => ({
      ...each,
      state: index < at ? "done" : index === at ? "running" : "waiting",
    })),
    ...change,
  };
}

const boot = (rootHash: string, triesLeft: BootFacts["triesLeft"]): BootFacts => ({
  rootHash,
  bootId: "boot",
  triesLeft,
});
const resume = (step: StepId): Recovery => ({ kind: "resume", step });
const returned: Recovery = { kind: "returned" };

/** step x which slot runs x what the loader would give the new one -> what is done. */
const table: [StepId, "old" | "new", BootFacts["triesLeft"], Recovery][] = [
  ["verify", "old", undefined, resume("verify")],
  ["preflight", "old", undefined, resume("preflight")],
  ["write", "old", undefined, resume("write")],
  ["arm", "old", undefined, resume("arm")],
  ["arm", "old", 3, resume("arm")],
  ["arm", "old", "good", resume("arm")],
  ["arm", "old", 2, returned],
  ["arm", "old", 0, returned],
  ["arm", "new", 2, resume("gate")],
  ["quiesce", "old", 3, resume("quiesce")],
  ["quiesce", "old", 2, returned],
  ["quiesce", "new", 2, resume("gate")],
  ["restart", "old", 3, resume("restart")],
  ["restart", "old", 0, returned],
  ["restart", "old", undefined, returned],
  ["restart", "new", 2, resume("gate")],
  ["gate", "new", 2, resume("gate")],
  ["gate", "new", 0, resume("gate")],
  ["gate", "old", 0, returned],
  ["gate", "old", undefined, returned],
  ["commit", "new", 2, resume("commit")],
  ["commit", "new", "good", resume("commit")],
  ["commit", "old", 0, returned],
];

test.each(table)("in %s, the %s version runs, %s tries left", (step, runs, left, expected) => {
  const found = recover(planAt(step), boot(runs === "old" ? oldHash : newHash, left));
  expect(found).toEqual(expected);
});

test("nothing was under way", () => {
  expect(recover(null, boot(oldHash, undefined))).toEqual({ kind: "none" });
  for (const state of ["done", "failed", "returned", "cancelled"] as const) {
    expect(recover(planAt("gate", { state }), boot(oldHash, 0))).toEqual({ kind: "none" });
  }
});

test("another system was started meanwhile", () => {
  const found = recover(planAt("gate"), boot("c".repeat(64), undefined));
  expect(found.kind).toBe("fail");
});

test("an interruption that comes again and again ends the plan", () => {
  const plan = planAt("write", { resumes: mostResumes });
  expect(recover(plan, boot(oldHash, undefined)).kind).toBe("fail");
  const armed = planAt("restart", { resumes: mostResumes });
  expect(recover(armed, boot(oldHash, 3))).toEqual(returned);
});
