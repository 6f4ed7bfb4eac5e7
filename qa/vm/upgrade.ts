/**
 * Scenario `upgrade`: from the installed release to a newer one, kept after its health gate, with
 * the old one as the way back. `--cuts N` then pulls the plug N times: at each step of the plan in
 * turn, and in between. A killed QEMU loses what the guest had not flushed; a node that is up again
 * has booted the old or the new release, whole, since dm-verity checks every block that it reads.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { KeelsonError } from "#lib/model/errors.ts";
import type { UpgradeState } from "#services/api/upgrade-schema.ts";
import type { Firmware } from "./machine.ts";
import { ensureRelease } from "./release.ts";
import type { Scenario, ScenarioContext } from "./scenario.ts";
import { type KeptDisk, planMs, UpgradeNode } from "./upgrade-node.ts";

export const newVersion = "2026.12.0";
/** Short, so that a scenario ends; what is judged is the same. */
export const quickGate = { holdSeconds: 20, deadlineSeconds: 1500 };

export const upgradeScenario: Scenario = {
  name: "upgrade",
  summary: "to a newer release and back; --cuts N pulls the plug N times on the way",
  async run(context) {
    const bundle = await context.step(`the bundle of ${newVersion}`, () =>
      ensureRelease({ version: newVersion }, (line) => context.note(line)),
    );
    for (const firmware of context.firmwares) {
      await context.group(firmware === "bios" ? "SeaBIOS, GRUB" : "OVMF, systemd-boot", () =>
        upgradeUnder(firmware, bundle, context),
      );
    }
  },
};

async function upgradeUnder(
  firmware: Firmware,
  bundle: string,
  context: ScenarioContext,
): Promise<void> {
  const { step } = context;
  const node = await step("an installation of the present release", () =>
    UpgradeNode.install(firmware, context),
  );
  node.reset();
  let before: KeptDisk | undefined;
  try {
    await node.start();
    const installed = await step("it starts, is well, and its slot is kept", async () => {
      await node.waitUntilUp();
      const state = await node.waitUntilKept();
      expectThat(state.nodes[0].firmware === firmware, `firmware ${state.nodes[0].firmware}`);
      expectThat(
        state.nodes[0].other.state === "empty",
        `other slot ${state.nodes[0].other.state}`,
      );
      return state;
    });
    const old = installed.nodes[0].running.version!;
    const offered = await step("the bundle is uploaded and verified", () => node.upload(bundle));
    if (context.cuts > 0) {
      before = await step("the disk before the upgrade is kept for the cuts", async () => {
        await node.powerOff();
        const kept = node.keep("before");
        await node.start();
        await node.waitUntilUp();
        await node.waitUntilKept();
        return kept;
      });
    }
    await step(`the upgrade from ${old} leads to ${newVersion}, kept`, async () => {
      const { id } = await node.startUpgrade(offered.id, quickGate);
      const { state, plan } = await node.waitForEnd(id);
      expectThat(plan.state === "done", `the plan is ${plan.state}: ${plan.failure}`);
      expectKept(state, offered.version!, old);
    });
    await step("it boots the new release again, without counting", async () => {
      await node.powerOff();
      await node.start();
      await node.waitUntilUp();
      expectKept(await node.waitUntilKept(), offered.version!, old);
    });
    await step("the way back leads to the old release, kept", async () => {
      const plan = await node.client.call<{ id: string }>("POST", "/upgrade/rollback");
      const { state, plan: ended } = await node.waitForEnd(plan.id);
      expectThat(ended.state === "done", `the plan is ${ended.state}: ${ended.failure}`);
      expectKept(state, old, offered.version!);
    });
    await node.kill();
    if (before !== undefined) await cutPower(node, before, offered.id, old, context);
  } finally {
    await node.kill();
    before?.delete();
  }
}

/** Moments to pull the plug at: each step once, then any time. */
const cutSteps = [
  ...["verify", "preflight", "write", "write", "write", "arm", "quiesce", "restart", "gate"],
  "commit",
] as const;

async function cutPower(
  node: UpgradeNode,
  before: KeptDisk,
  bundleId: string,
  old: string,
  context: ScenarioContext,
): Promise<void> {
  const random = randomFrom(context.seed);
  context.note(`seed ${context.seed}`);
  before.restore();
  await node.start();
  for (let cut = 0; cut < context.cuts; cut++) {
    const wanted = cutSteps[cut % cutSteps.length];
    await context.step(
      `cut ${cut + 1} of ${context.cuts}, at "${wanted}" or soon after`,
      async () => {
        await node.waitUntilUp();
        let state = await node.waitFor("state after a cut", () => true);
        expectWhole(state, old);
        if (state.plan?.state === "returned" || state.nodes[0].running.version === newVersion) {
          // This round is over: from the beginning.
          if (state.plan?.state === "running") state = (await node.waitForEnd()).state;
          expectWhole(state, old);
          await node.kill();
          before.restore();
          await node.start();
          await node.waitUntilUp();
        }
        if (state.plan?.state !== "running") {
          await node.waitUntilKept();
          await node.startUpgrade(bundleId, quickGate);
        }
        await waitForStep(node, wanted);
        await sleep(random() * (wanted === "write" ? 30_000 : 2_000));
        await node.kill();
        await node.start();
      },
    );
  }
  await context.step("after the last cut it comes up and its plan ends", async () => {
    await node.waitUntilUp();
    const state = await node.waitFor("end", ({ plan }) => plan?.state !== "running");
    expectWhole(state, old);
  });
}

/** Until the step runs, or is over; the node may be away for the restart. */
async function waitForStep(node: UpgradeNode, wanted: string): Promise<void> {
  const until = Date.now() + planMs;
  while (Date.now() < until) {
    const state = await node.tryState();
    const step = state?.plan?.steps.find(({ id }) => id === wanted);
    if (step !== undefined && step.state !== "waiting") return;
    if (state?.plan?.state !== undefined && state.plan.state !== "running") return;
    await sleep(200);
  }
  throw new KeelsonError("TIMEOUT", `The plan did not come to its step "${wanted}".`);
}

function expectWhole(state: UpgradeState, old: string): void {
  const { running } = state.nodes[0];
  expectThat(
    running.version === old || running.version === newVersion,
    `it runs ${running.version}, which is neither`,
  );
}

export function expectKept(state: UpgradeState, running: string, other: string): void {
  const [node] = state.nodes;
  expectThat(node.running.version === running, `it runs ${node.running.version}, not ${running}`);
  expectThat(node.running.state === "good", `the running slot is ${node.running.state}`);
  expectThat(node.other.version === other, `the other slot has ${node.other.version}`);
  expectThat(node.other.state === "good", `the other slot is ${node.other.state}`);
}

export function expectThat(holds: boolean, otherwise: string): void {
  if (!holds) throw new KeelsonError("INTERNAL", `Unexpected: ${otherwise}.`);
}

/** mulberry32. */
function randomFrom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let value = Math.imul(state ^ (state >>> 15), 1 | state);
    value = (value + Math.imul(value ^ (value >>> 7), 61 | value)) ^ value;
    return ((value ^ (value >>> 14)) >>> 0) / 2 ** 32;
  };
}
