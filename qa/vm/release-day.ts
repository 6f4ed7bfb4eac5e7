/**
 * Scenario `release-day`: the short way through `upgrade` and `rollback` that `npm test` takes. One
 * installation, one that served before if there is one, gets a good release, which is kept, then one
 * whose kernel panics, and comes back.
 */

import { expectThat } from "./expectation.ts";
import type { Firmware } from "./machine.ts";
import { ensureRelease } from "./release.ts";
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

const brokenVersion = "2026.12.1";

export const releaseDayScenario: Scenario = {
  name: "release-day",
  summary: "an upgrade that is kept, then one that comes back by itself",
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
  const release = await step(`the bundle of ${newVersion}`, () =>
    ensureRelease({ version: newVersion }, (line) => context.note(line)),
  );
  // Made while the first one is tried.
  const broken = { version: brokenVersion, broken: "kernel-panics" } as const;
  ensureRelease(broken).catch(() => {});
  const node = await step("an installation of the present release", () =>
    UpgradeNode.install(firmware, context),
  );
  node.reset();
  try {
    const old = await startFirst(node, firmware, context);
    const offered = await step("the bundle is copied from a stick and verified", () =>
      node.fetchFromStick(release.path),
    );
    await step(`the upgrade from ${old} leads to ${release.version}, kept`, async () => {
      const { id } = await node.startUpgrade(offered.id, quickGate);
      const { state, plan } = await node.waitForEnd(id);
      expectThat(plan.state === "done", `the plan is ${plan.state}: ${plan.failure}`);
      expectKept(state, release.version, old);
      expectLoaders(state, release.version);
      context.note(stepTimes(plan));
    });
    await step(`${brokenVersion}, whose kernel panics, returns by itself and says why`, () =>
      tryBroken(node, { kind: "kernel-panics", version: brokenVersion }, release.version, context),
    );
  } finally {
    await node.end();
  }
}
