/**
 * Scenario `release-day`: the short way through `upgrade` and `rollback` that `npm test` takes. One
 * installation, one that served before if there is one, gets a good release, which is kept; a copy
 * of it, beside it, gets one whose kernel panics, and comes back.
 */
import { expectThat } from "./expectation.ts";
import { servingState } from "./installations.ts";
import { inLanes } from "./lanes.ts";
import type { Firmware } from "./machine.ts";
import { ensureRelease, type Release } from "./release.ts";
import { tryBroken } from "./rollback.ts";
import type { Scenario, ScenarioContext } from "./scenario.ts";
import {
  expectKept,
  expectLoaders,
  newVersion,
  quickGate,
  startFirst,
  stepTimes,
} from "./upgrade.ts";
import { UpgradeNode } from "./upgrade-node.ts";

export const releaseDayScenario: Scenario = {
  name: "release-day",
  summary: "an upgrade that is kept, then one that comes back by itself",
  prepare: () => buildBundles(() => {}),
  async run(context) {
    for (const firmware of context.firmwares) {
      await context.group(firmware === "bios" ? "SeaBIOS, GRUB" : "OVMF, systemd-boot", () =>
        releaseDay(firmware, context),
      );
    }
  },
};

async function releaseDay(firmware: Firmware, context: ScenarioContext): Promise<void> {
  const { step } = context;
  // Made while the node starts, which takes one core.
  const building = buildBundles(context.note);
  building.catch(() => {});
  const node = await step("an installation of the present release", () =>
    UpgradeNode.take(firmware, context),
  );
  try {
    const old = await startFirst(node, firmware, context);
    await node.machine!.saveState(servingState);
    await node.kill();
    const release = await step(`the bundles of ${newVersion}`, () => building);
    const days = [
      {
        name: `the upgrade from ${old} leads to ${newVersion}, kept`,
        run: (lane: UpgradeNode) => upgrade(lane, release, old, context),
      },
      {
        name: `a ${newVersion} whose kernel panics returns to ${old} by itself and says why`,
        run: (lane: UpgradeNode) =>
          tryBroken(lane, { kind: "kernel-panics", version: newVersion }, old, context),
      },
    ];
    await inLanes(node, days, (lane, { name, run }) =>
      step(name, async () => {
        await lane.start(servingState);
        await lane.waitUntilUp();
        await run(lane);
      }),
    );
  } finally {
    await node.end();
  }
}

/** The good one; the broken one is there then, too. */
async function buildBundles(note: (text: string) => void): Promise<Release> {
  const release = await ensureRelease({ version: newVersion }, note);
  await ensureRelease({ version: newVersion, broken: "kernel-panics" }, note);
  return release;
}

async function upgrade(
  node: UpgradeNode,
  { path, version }: Release,
  old: string,
  context: ScenarioContext,
): Promise<void> {
  const offered = await node.fetchFromStick(path);
  const { id } = await node.startUpgrade(offered.id, quickGate);
  const { state, plan } = await node.waitForEnd(id);
  expectThat(plan.state === "done", `the plan is ${plan.state}: ${plan.failure}`);
  expectKept(state, version, old);
  expectLoaders(state, version);
  context.note(stepTimes(plan));
}
