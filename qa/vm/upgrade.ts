/**
 * Scenario `upgrade`: from the installed release to a newer one, kept after its health gate, with
 * the old one as the way back. Under UEFI by the button in Chromium, under BIOS by the command-line
 * client. Then the plug is pulled, 30 times or `--cuts N` (`power-cuts.ts`).
 */
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { join, resolve } from "node:path";
import { KeelsonError } from "#lib/model/errors.ts";
import type { UpgradePlan, UpgradeState } from "#services/api/upgrade-schema.ts";
import { expectThat } from "./expectation.ts";
import type { Firmware } from "./machine.ts";
import { grubGreeting, replacedLoaders } from "./other-loaders.ts";
import { cutPower } from "./power-cuts.ts";
import { ensureRelease, type Release } from "./release.ts";
import type { Scenario, ScenarioContext } from "./scenario.ts";
import { UpgradeWindow } from "./upgrade-button.ts";
import { UpgradeNode } from "./upgrade-node.ts";

export const newVersion = "2026.12.0";
/** Short, so that a scenario ends; what is judged is the same. */
export const quickGate = { holdSeconds: 20, deadlineSeconds: 1500 };

const root = resolve(import.meta.dirname, "../..");

export const upgradeScenario: Scenario = {
  name: "upgrade",
  summary:
    "to a newer release by button and CLI, and back; then the plug is pulled on the way, --cuts times",
  async run(context) {
    const release = await context.step(`the bundle of ${newVersion}`, () =>
      ensureRelease({ version: newVersion }, (line) => context.note(line)),
    );
    for (const firmware of context.firmwares) {
      await context.group(firmware === "bios" ? "SeaBIOS, GRUB" : "OVMF, systemd-boot", () =>
        upgradeUnder(firmware, release, context),
      );
    }
  },
};

async function upgradeUnder(
  firmware: Firmware,
  release: Release,
  context: ScenarioContext,
): Promise<void> {
  const { step } = context;
  const { version } = release;
  const node = await step("an installation of the present release", () =>
    UpgradeNode.install(firmware, context),
  );
  try {
    const old = await startFirst(node, firmware, context);
    if (firmware === "uefi") await upgradeByButton(node, release, context);
    else await upgradeByCommand(node, release, context);
    await step(`${version} runs and is kept; ${old} is the way back`, async () => {
      const state = await node.waitUntilKept();
      expectKept(state, version, old);
      expectLoaders(state, version);
    });
    await step("it boots the new release by the new loaders, without counting", async () => {
      await node.powerOff();
      const { serial } = await node.start();
      await node.waitUntilUp();
      expectKept(await node.waitUntilKept(), version, old);
      const greets = firmware === "uefi" || serial.text.includes(grubGreeting(newVersion));
      expectThat(greets, "GRUB does not read its new configuration");
    });
    await step("the way back leads to the old release, kept", async () => {
      const plan = await node.client.call<{ id: string }>("POST", "/upgrade/rollback");
      const { state, plan: ended } = await node.waitForEnd(plan.id);
      expectThat(ended.state === "done", `the plan is ${ended.state}: ${ended.failure}`);
      expectKept(state, old, version);
    });
    if (context.cuts > 0 && firmware === context.firmwares.at(-1)) {
      const [{ id }] = (await node.waitFor("bundle", ({ bundles }) => bundles.length > 0)).bundles;
      const cuts = { bundleId: id, oldVersion: old, newVersion: version, gate: quickGate };
      await cutPower(node, cuts, context);
    }
  } finally {
    await node.end();
  }
}

/** The version that was installed; its first start has been found well and its slot is kept. */
export async function startFirst(
  node: UpgradeNode,
  firmware: Firmware,
  { step }: ScenarioContext,
): Promise<string> {
  await node.startFirst();
  return step("it starts, is well, and its slot is kept", async () => {
    await node.waitUntilUp();
    const [{ firmware: seen, running, other }] = (await node.waitUntilKept()).nodes;
    expectThat(seen === firmware, `firmware ${seen}`);
    expectThat(other.state === "empty", `other slot ${other.state}`);
    return running.version!;
  });
}

async function upgradeByButton(
  node: UpgradeNode,
  { path, version }: Release,
  { step }: ScenarioContext,
): Promise<void> {
  const window = await step("Chromium opens the page of upgrades", () => UpgradeWindow.open(node));
  try {
    await step("the bundle is uploaded there, and found good", () => window.upload(path, version));
    await step("the button is pressed, after what will happen was shown", () =>
      window.start(version),
    );
    await step("the page follows the upgrade through the restart to its end", () =>
      window.follow(),
    );
  } catch (error) {
    await window.keep("vm-upgrade-failed").catch(() => {});
    throw error;
  } finally {
    await window.close();
  }
}

async function upgradeByCommand(
  node: UpgradeNode,
  { path, version }: Release,
  { step, directory }: ScenarioContext,
): Promise<void> {
  const home = mkdtempSync(join(directory, "home-"));
  const keelson = (...arguments_: string[]) => runCommand(home, arguments_, node.password);
  try {
    await step("keelson login, which trusts the CA that it was told", async () => {
      const { url } = node.client;
      const logIn = ["login", url, "--password-stdin"];
      const asked = await keelson(...logIn).catch((error: Error) => error.message);
      const [fingerprint] = /(?:[0-9A-F]{2}:){31}[0-9A-F]{2}/.exec(asked) ?? [];
      expectThat(fingerprint !== undefined, `it says: ${asked}`);
      await keelson(...logIn, "--trust", fingerprint!);
    });
    await step("keelson upgrade upload", () => keelson("upgrade", "upload", path));
    await step("keelson upgrade start, which follows it to its end", async () => {
      const said = await keelson("upgrade", "start", version);
      expectThat(said.includes(version), `it says: ${said}`);
    });
    const status = await step("keelson upgrade status", () => keelson("upgrade", "status"));
    expectThat(/^.*Runs +(\S+)/m.exec(status)?.[1] === version, `it says: ${status}`);
  } finally {
    rmSync(home, { recursive: true, force: true });
  }
}

/** What the command-line client prints; INTERNAL with its complaint when it ends badly. */
async function runCommand(
  home: string,
  arguments_: readonly string[],
  input: string,
): Promise<string> {
  const child = spawn(process.execPath, [join(root, "cli/main.ts"), ...arguments_], {
    stdio: ["pipe", "pipe", "pipe"],
    env: {
      ...process.env,
      ...{ HOME: home, XDG_CONFIG_HOME: home },
      NODE_OPTIONS: "--disable-warning=ExperimentalWarning",
    },
  });
  child.stdin.on("error", () => {});
  child.stdin.end(`${input}\n`);
  let output = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8");
    stream.on("data", (text: string) => {
      output += text;
    });
  }
  const code = await new Promise((done) => child.once("close", done));
  if (code === 0) return output;
  throw new KeelsonError(
    "INTERNAL",
    `keelson ${arguments_.join(" ")} ended with ${code}: ${output}`,
  );
}

/** The commit has put every boot loader of the release in place. */
export function expectLoaders({ plan }: UpgradeState, version: string): void {
  const message = plan?.steps.find(({ id }) => id === "commit")?.message;
  const wanted = `Boot loaders of ${version} put in place: ${replacedLoaders}.`;
  expectThat(message === wanted, `the commit says: ${message}`);
}

/** `verify 20 s, write 60 s`: by the node's own clock. */
export function stepTimes({ steps }: UpgradePlan): string {
  return steps
    .flatMap(({ id, startedAt, endedAt }) => {
      if (startedAt === null || endedAt === null) return [];
      return [`${id} ${Math.round((Date.parse(endedAt) - Date.parse(startedAt)) / 1000)} s`];
    })
    .join(", ");
}

export function expectKept(state: UpgradeState, running: string, other: string): void {
  const [node] = state.nodes;
  expectThat(node.running.version === running, `it runs ${node.running.version}, not ${running}`);
  expectThat(node.running.state === "good", `the running slot is ${node.running.state}`);
  expectThat(node.other.version === other, `the other slot has ${node.other.version}`);
  expectThat(node.other.state === "good", `the other slot is ${node.other.state}`);
}
