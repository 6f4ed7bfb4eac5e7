/**
 * Scenario `rollback`: releases that are broken on purpose, each installed as an upgrade. The node
 * must come back to what it ran, by itself, and say why.
 */
import { KeelsonError } from "#lib/model/errors.ts";
import { type BrokenKind, brokenKinds } from "./broken-release.ts";
import { expectThat } from "./expectation.ts";
import { inLanes } from "./lanes.ts";
import type { Firmware } from "./machine.ts";
import { ensureRelease, type Release } from "./release.ts";
import type { Scenario, ScenarioContext } from "./scenario.ts";
import { newVersion, quickGate, startFirst, stepTimes } from "./upgrade.ts";
import { UpgradeNode } from "./upgrade-node.ts";

interface Expectation {
  /** What the failure's reason must say. */
  readonly reason: RegExp;
  /** How long the gate may take: long enough for a start under emulation where it must judge. */
  readonly deadlineSeconds: number;
  /** True: the failed boot got far enough to leave a log. */
  readonly leavesLog: boolean;
}

const expectations: Readonly<Record<BrokenKind, Expectation>> = {
  "kernel-panics": { reason: /did not get as far/, deadlineSeconds: 600, leavesLog: false },
  "initrd-hangs": { reason: /did not get as far/, deadlineSeconds: 600, leavesLog: false },
  "root-fails-verity": { reason: /did not get as far/, deadlineSeconds: 600, leavesLog: false },
  "service-crash-loops": { reason: /iscsi-target/, deadlineSeconds: 420, leavesLog: true },
  "api-answers-500": {
    reason: /API: it answers with status 500/,
    deadlineSeconds: 420,
    leavesLog: true,
  },
  "network-stays-down": { reason: /network: /, deadlineSeconds: 420, leavesLog: true },
  "health-gate-hangs": { reason: /health gate/, deadlineSeconds: 60, leavesLog: true },
};

export const rollbackScenario: Scenario = {
  name: "rollback",
  summary: "releases broken on purpose: each returns by itself, and says why",
  async run(context) {
    const kinds = brokenKinds.filter(
      (kind) => context.broken.length === 0 || context.broken.includes(kind),
    );
    if (kinds.length < context.broken.length) {
      throw new KeelsonError("INVALID_ARGUMENT", `--broken is one of ${brokenKinds.join(", ")}.`);
    }
    // UEFI unless BIOS is asked for: what returns is the same, what counts is tested by `upgrade`.
    const firmware = context.firmwares.includes("uefi") ? "uefi" : "bios";
    await context.group(firmware, () => returnFrom(kinds, firmware, context));
  },
};

async function returnFrom(
  kinds: readonly BrokenKind[],
  firmware: Firmware,
  context: ScenarioContext,
): Promise<void> {
  const { step } = context;
  for (const kind of kinds) {
    await step(`the bundle that is broken by ${kind}`, () => brokenBundle(kind, context));
  }
  const node = await step("an installation of the present release", () =>
    UpgradeNode.install(firmware, context),
  );
  try {
    const old = await startFirst(node, firmware, context);
    await node.machine!.saveState("kept");
    await node.kill();
    await inLanes(node, kinds, (lane, kind) =>
      step(kind, async () => {
        await lane.start("kept");
        await lane.waitUntilUp();
        await tryBroken(lane, { kind, version: newVersion }, old, context);
      }),
    );
  } finally {
    await node.end();
  }
}

function brokenBundle(
  broken: BrokenKind,
  context: ScenarioContext,
  version = newVersion,
): Promise<Release> {
  return ensureRelease({ version, broken }, (line) => context.note(line));
}

/** Upgrades from `old` to a broken release, and checks that the node came back and says why. */
export async function tryBroken(
  node: UpgradeNode,
  { kind, version }: { readonly kind: BrokenKind; readonly version: string },
  old: string,
  context: ScenarioContext,
): Promise<void> {
  const { reason, deadlineSeconds, leavesLog } = expectations[kind];
  const { path } = await brokenBundle(kind, context, version);
  const offered = await node.fetchFromStick(path);
  const { id } = await node.startUpgrade(offered.id, { ...quickGate, deadlineSeconds });
  const { state, plan } = await node.waitForEnd(id);
  expectThat(plan.state === "returned", `the plan is ${plan.state}: ${plan.failure}`);
  const [{ running, other }] = state.nodes;
  expectThat(running.version === old && running.state === "good", `it runs ${running.version}`);
  expectThat(other.state === "failed", `the other slot is ${other.state}`);
  const failure = state.lastFailure;
  expectThat(failure !== null && reason.test(failure.reason), `the reason is: ${failure?.reason}`);
  context.note(stepTimes(plan));
  context.note(`${kind}: ${failure!.reason} (${failure!.log.length} lines of log)`);
  if (leavesLog) expectThat(failure!.log.length > 0, "the failed boot's log is missing");
  await node.client.call("DELETE", `/upgrade/bundles/${offered.id}`);
}
