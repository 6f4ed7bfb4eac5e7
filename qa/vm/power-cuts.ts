/**
 * Power cuts during an upgrade. The upgrade runs once undisturbed, and on its way the machine's
 * state is kept at chosen moments: memory, devices, disk. Each cut goes on from one of them, for a
 * random part of the time to the next, and then loses its power: QEMU is killed, and with it what
 * the guest had not flushed. The node must then start, with the old release or the new one, whole:
 * dm-verity checks every block that it reads.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { KeelsonError } from "#lib/model/errors.ts";
import { Random } from "#lib/sim/random.ts";
import type { UpgradeState } from "#services/api/upgrade-schema.ts";
import { inLanes } from "./lanes.ts";
import type { ScenarioContext } from "./scenario.ts";
import type { UpgradeNode } from "./upgrade-node.ts";

interface Moment {
  readonly name: string;
  /** To the next moment, or to the end. */
  lengthMs: number;
}

interface Cuts {
  readonly bundleId: string;
  readonly oldVersion: string;
  readonly newVersion: string;
  readonly gate: { readonly holdSeconds: number; readonly deadlineSeconds: number };
}

const pollMs = 100;
/** A guest of one emulated core feels each question. */
const askMs = 1_500;
const longestMs = 3_600_000;

/** `node` runs and has the bundle; it ends up off. */
export async function cutPower(
  node: UpgradeNode,
  cuts: Cuts,
  context: ScenarioContext,
): Promise<void> {
  const { step } = context;
  const moments = await step("an upgrade runs, and its moments are kept", () =>
    keepMoments(node, cuts),
  );
  context.note(moments.map(({ name, lengthMs }) => `${name} ${seconds(lengthMs)} s`).join(", "));
  await node.kill();
  const random = new Random(context.seed);
  context.note(`seed ${context.seed}`);
  const wanted = Array.from({ length: context.cuts }, (_, index) => {
    const moment = moments[index % moments.length];
    return { number: index + 1, moment, delayMs: random.below(moment.lengthMs) };
  });
  const outcomes = new Map<string, number>();
  await inLanes(node, wanted, async (lane, { number, moment, delayMs }) => {
    const what = `cut ${number} of ${context.cuts}: ${moment.name} + ${seconds(delayMs)} s`;
    await step(what, async () => {
      const outcome = await cutOnce(lane, moment.name, delayMs, cuts);
      outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
    });
  });
  context.note([...outcomes].map(([what, count]) => `${count} times ${what}`).join(", "));
}

/** Goes on from a moment, pulls the plug, starts again; what runs then, and that it ends well. */
async function cutOnce(node: UpgradeNode, moment: string, delayMs: number, cuts: Cuts) {
  await node.start(moment);
  await sleep(delayMs);
  await node.kill();
  node.checkDiskFiles();
  await node.start();
  await node.waitUntilUp();
  const state = await node.waitFor("state after the cut", () => true);
  expectWhole(state, cuts);
  return `${state.nodes[0].running.version} with the plan ${state.plan?.state ?? "not begun"}`;
}

function expectWhole({ nodes: [{ running, other }] }: UpgradeState, cuts: Cuts): void {
  const { oldVersion, newVersion } = cuts;
  if (running.version !== oldVersion && running.version !== newVersion) {
    throw new KeelsonError("INTERNAL", `It runs ${running.version}, which is neither release.`);
  }
  // With the new release on trial the old one must still be there to return to.
  if (running.version === newVersion && (other.version !== oldVersion || other.state !== "good")) {
    throw new KeelsonError("INTERNAL", `The way back is gone: ${JSON.stringify(other)}.`);
  }
}

/** Runs the upgrade to its end and keeps a state at each of its moments. */
async function keepMoments(node: UpgradeNode, cuts: Cuts): Promise<Moment[]> {
  const moments: (Moment & { keptAt: number })[] = [];
  const keep = async (name: string) => {
    const { machine } = node;
    const now = Date.now();
    const last = moments.at(-1);
    if (last !== undefined) last.lengthMs = now - last.keptAt;
    await machine!.saveState(name);
    moments.push({ name, lengthMs: 0, keptAt: Date.now() });
  };
  await keep("before");
  const { id } = await node.startUpgrade(cuts.bundleId, cuts.gate);
  const serial = node.machine!.serial.text.length;
  const said = (pattern: RegExp) => pattern.test(node.machine!.serial.text.slice(serial));
  const passed = new Set<string>();
  // Beside the loop: an answer that never comes, since the node restarts, must not hold it up.
  let state: UpgradeState | undefined;
  const asking = setInterval(() => {
    void node.tryState().then((answer) => {
      state = answer ?? state;
    });
  }, askMs);
  try {
    const until = Date.now() + longestMs;
    while (Date.now() < until) {
      const plan = state?.plan?.id === id ? state.plan : undefined;
      if (plan !== undefined && plan.state !== "running") {
        moments.at(-1)!.lengthMs = Date.now() - moments.at(-1)!.keptAt;
        if (plan.state === "done") return moments;
        throw new KeelsonError("INTERNAL", `The plan is ${plan.state}: ${plan.failure}.`);
      }
      const name = reached(plan?.steps ?? [], said).find((each) => !passed.has(each));
      if (name === undefined) {
        await sleep(pollMs);
      } else {
        passed.add(name);
        await keep(name);
      }
    }
  } finally {
    clearInterval(asking);
  }
  throw new KeelsonError("TIMEOUT", "The undisturbed upgrade does not end.");
}

type Steps = readonly {
  readonly id: string;
  readonly state: string;
  readonly progressPercent: number | null;
}[];

/** Names of the moments that have come, the oldest first. */
function reached(steps: Steps, said: (pattern: RegExp) => boolean): string[] {
  const names: string[] = [];
  const step = (id: string) => steps.find((each) => each.id === id);
  const begun = (id: string) => (step(id)?.state ?? "waiting") !== "waiting";
  const share = step("write")?.state === "running" ? (step("write")!.progressPercent ?? 0) : 0;
  if (begun("verify")) names.push("verify");
  if (begun("write")) names.push("write");
  if (share >= 40) names.push("write-40");
  if (share >= 90 || (step("write")?.state === "done" && begun("arm"))) names.push("write-90");
  if (begun("arm")) names.push("arm");
  if (begun("restart")) names.push("restart");
  if (said(/reboot: Restarting|Restarting system/)) names.push("firmware");
  if (said(/Boot in \d s|EFI stub|GNU GRUB|Loading/)) names.push("loader");
  if (said(/keelson-var: /)) names.push("initrd");
  if (begun("gate")) names.push("gate");
  if (begun("commit")) names.push("commit");
  return names;
}

const seconds = (ms: number) => (ms / 1000).toFixed(1);
