import { createReadStream, statSync } from "node:fs";
import { basename } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import type { Command } from "commander";
import { isKeelsonError, KeelsonError } from "#lib/model/errors.ts";
import { formatSize } from "#lib/model/size.ts";
import type {
  OfferedBundle,
  PlanStep,
  UpgradeHistoryEntry,
  UpgradePlan,
  UpgradeState,
} from "#services/api/upgrade-schema.ts";
import { action, type CommandContext, clock } from "../context.ts";
import { formatFacts, printable } from "../table.ts";
import { ProgressLine } from "../terminal.ts";

const pollMs = 1_000;
/** A restart is away for minutes; longer than this, a person should look. */
const longestSilenceMs = 30 * 60_000;

/** Upgrades of the node, and the way back. */
export function addUpgradeCommands(program: Command): void {
  const upgrade = program
    .command("upgrade")
    .description("the node's own version: upgrade it, follow that, go back");
  addShowing(upgrade);
  addBundles(upgrade);
  addPlans(upgrade);
  addSources(upgrade);
}

function addShowing(upgrade: Command): void {
  upgrade
    .command("status", { isDefault: true })
    .description("show the version, the other slot, and the last upgrade")
    .action(
      action(async (context) => {
        const state = await read(context);
        context.print(state, () => describe(state));
      }),
    );
  upgrade
    .command("list")
    .description("list the bundles that are here or offered")
    .action(
      action(async (context) =>
        context.table(
          (await read(context)).bundles,
          [
            { title: "VERSION", value: ({ version }) => version, whole: true },
            { title: "STATE", value: (bundle) => stateOf(bundle), whole: true },
            { title: "SIZE", value: ({ sizeBytes }) => formatSize(sizeBytes), align: "right" },
            { title: "FROM", value: ({ source }) => `${source.kind} ${source.where}`.trim() },
            { title: "ID", value: ({ id }) => id.slice(0, 8), whole: true },
            { title: "REMARK", value: (bundle) => remarkOf(bundle) },
          ],
          "No bundles. Upload one with: keelson upgrade upload FILE",
        ),
      ),
    );
  upgrade
    .command("history")
    .description("list the upgrades so far")
    .action(
      action(async (context) =>
        context.table<UpgradeHistoryEntry>(
          (await read(context)).history,
          [
            { title: "ENDED", value: ({ endedAt }) => clock(endedAt), whole: true },
            { title: "WHAT", value: ({ kind }) => kind, whole: true },
            { title: "FROM", value: ({ fromVersion }) => fromVersion, whole: true },
            { title: "TO", value: ({ toVersion }) => toVersion, whole: true },
            { title: "RESULT", value: ({ result }) => result, whole: true },
            { title: "WHY", value: ({ message }) => message },
          ],
          "No upgrades yet.",
        ),
      ),
    );
  upgrade
    .command("failure")
    .description("show why the last upgrade came back, with the log of its boot")
    .option("--clear", "put the report away")
    .action(
      action(async (context, options: { clear?: boolean }) => {
        const { lastFailure } = await read(context);
        context.print(lastFailure, () =>
          lastFailure === null
            ? "No upgrade has failed."
            : [
                `${lastFailure.version}: ${lastFailure.reason}`,
                ...lastFailure.attempts.map(
                  ({ startedAt, reached, reason }) =>
                    `  ${clock(startedAt)}  ${reached}${reason === null ? "" : `: ${reason}`}`,
                ),
                ...(lastFailure.log.length === 0 ? ["It left no log."] : ["", ...lastFailure.log]),
              ]
                .map(printable)
                .join("\n"),
        );
        if (options.clear === true) await context.api.call("DELETE", "/upgrade/failure");
      }),
    );
}

function addBundles(upgrade: Command): void {
  upgrade
    .command("upload")
    .description("send a bundle to the node, which checks it")
    .argument("<file>", "keelson-VERSION.kbundle")
    .addHelpText("after", "\nExample:\n  keelson upgrade upload keelson-2026.12.0.kbundle")
    .action(
      action(async (context, file: string) => {
        const found = statSync(file, { throwIfNoEntry: false });
        if (found === undefined || !found.isFile()) {
          throw new KeelsonError("NOT_FOUND", `${file} is not a file.`);
        }
        const line = new ProgressLine();
        async function* counted() {
          let sent = 0;
          for await (const part of createReadStream(file, { highWaterMark: 1 << 20 })) {
            yield part as Uint8Array;
            sent += (part as Uint8Array).byteLength;
            line.show("upload", (sent / found!.size) * 100);
          }
        }
        try {
          const bundle = await context.api.upload<OfferedBundle>(
            `/upgrade/bundles?name=${encodeURIComponent(basename(file))}`,
            counted(),
            found.size,
            { method: "POST" },
          );
          line.end();
          context.print(bundle, `${bundle.version} is on the node. ${remarkOf(bundle)}`.trim());
        } finally {
          line.end();
        }
      }),
    );
  upgrade
    .command("fetch")
    .description(
      "copy an offered bundle to the node: from a stick, a folder, the channel, a neighbour",
    )
    .argument("<bundle>", "its version or id")
    .action(
      action(async (context, text: string) => {
        const { id } = await findBundle(context, text, ["remote", "refused", "fetching"]);
        const version = (
          await context.api.call<OfferedBundle>("POST", `/upgrade/bundles/${id}/fetch`)
        ).version;
        const line = new ProgressLine();
        try {
          for (;;) {
            const bundle = (await read(context)).bundles.find((each) => each.id === id);
            if (bundle === undefined) break;
            if (bundle.state === "refused") {
              throw new KeelsonError("FORMAT_CORRUPT", bundle.message ?? "It was refused.");
            }
            line.show("fetch", (100 * bundle.receivedBytes) / bundle.sizeBytes);
            await delay(pollMs);
          }
        } finally {
          line.end();
        }
        context.print({ version }, `${version ?? "The bundle"} is on the node.`);
      }),
    );
  upgrade
    .command("delete")
    .description("delete a bundle from the node")
    .argument("<bundle>", "its version or id")
    .action(
      action(async (context, text: string) => {
        const bundle = await findBundle(context, text);
        await context.api.call("DELETE", `/upgrade/bundles/${bundle.id}`);
        context.print(bundle, `${bundle.version} is deleted.`);
      }),
    );
}

function addPlans(upgrade: Command): void {
  upgrade
    .command("plan")
    .description("show what an upgrade would do; nothing is done")
    .argument("<bundle>", "its version or id")
    .action(
      action(async (context, text: string) => {
        const { id } = await findBundle(context, text, ["here"]);
        const plan = await context.api.get<UpgradePlan>(`/upgrade/bundles/${id}/plan`);
        context.print(plan, () => describePlan(plan));
      }),
    );
  upgrade
    .command("start")
    .description("upgrade to a version, and follow that through the restart")
    .argument("<bundle>", "its version or id")
    .option("--no-wait", "return at once; `keelson upgrade watch` follows it")
    .addHelpText("after", "\nExample:\n  keelson upgrade start 2026.12.0")
    .action(
      action(async (context, text: string, options: { wait: boolean }) => {
        const { id } = await findBundle(context, text, ["here"]);
        const plan = await context.api.call<UpgradePlan>("POST", "/upgrade/start", {
          bundleId: id,
        });
        await followOrPrint(context, plan, options.wait);
      }),
    );
  upgrade
    .command("rollback")
    .description("boot the other slot, if its version has worked, and keep it")
    .option("--no-wait", "return at once")
    .action(
      action(async (context, options: { wait: boolean }) => {
        const plan = await context.api.call<UpgradePlan>("POST", "/upgrade/rollback");
        await followOrPrint(context, plan, options.wait);
      }),
    );
  upgrade
    .command("cancel")
    .description("cancel the upgrade, as long as nothing is armed")
    .action(
      action(async (context) => {
        const plan = await context.api.call<UpgradePlan>("POST", "/upgrade/cancel");
        context.print(plan, "It is being cancelled.");
      }),
    );
  upgrade
    .command("watch")
    .description("follow the upgrade that runs")
    .action(
      action(async (context) => {
        const { plan } = await read(context);
        if (plan === null) return context.print(null, "No upgrade has run.");
        await follow(context, plan.id);
      }),
    );
}

function addSources(upgrade: Command): void {
  upgrade
    .command("channel")
    .description("set where new versions are looked for")
    .argument("<url>", "https:// address of a channel's index, or off")
    .action(
      action(async (context, text: string) => {
        const { neighbour, neighbourFingerprint } = (await read(context)).sources;
        const channel = text === "off" ? null : text;
        const state = await context.api.call<UpgradeState>("PUT", "/upgrade/sources", {
          ...{ channel, neighbour, neighbourFingerprint },
        });
        context.print(state.sources, channel === null ? "No channel." : `Channel: ${channel}`);
      }),
    );
  upgrade
    .command("neighbour")
    .description("set another node whose bundles are offered to this one")
    .argument("<url>", "https:// address of that node, or off")
    .option(
      "--trust <fingerprint>",
      "SHA-256 fingerprint of that node's CA, as its screen shows it",
    )
    .addHelpText(
      "after",
      `
Without --trust the node says which fingerprint it sees there, and sets nothing: compare it with
the one on the neighbour's screen.

Example:
  keelson upgrade neighbour https://10.77.0.2 --trust 5F:8A:...`,
    )
    .action(
      action(async (context, text: string, options: { trust?: string }) => {
        const { channel } = (await read(context)).sources;
        const neighbour = text === "off" ? null : text;
        const state = await context.api.call<UpgradeState>("PUT", "/upgrade/sources", {
          ...{ channel, neighbour },
          neighbourFingerprint: neighbour === null ? null : (options.trust ?? null),
        });
        context.print(
          state.sources,
          neighbour === null ? "No neighbour node." : `Neighbour node: ${neighbour}`,
        );
      }),
    );
  upgrade
    .command("check")
    .description("look for new versions now: channel, neighbour node, sticks, folders")
    .action(
      action(async (context) => {
        const state = await context.api.call<UpgradeState>("POST", "/upgrade/sources/check");
        const count = state.bundles.filter((bundle) => bundle.state === "remote").length;
        context.print(state.bundles, `${count} offered. ${state.sources.message ?? ""}`.trim());
      }),
    );
}

async function followOrPrint(
  context: CommandContext,
  plan: UpgradePlan,
  wait: boolean,
): Promise<void> {
  if (wait) await follow(context, plan.id);
  else context.print(plan, () => describePlan(plan));
}

/** Through restarts of the node, until the plan has ended; exit code 1 unless it was done. */
async function follow(context: CommandContext, planId: string): Promise<void> {
  const line = new ProgressLine();
  const told = new Map<string, PlanStep["state"]>();
  let heardAt = Date.now();
  try {
    for (;;) {
      const plan = await tryPlan(context);
      if (plan === undefined) {
        if (Date.now() - heardAt > longestSilenceMs) {
          throw new KeelsonError("TIMEOUT", "The node has not answered for 30 minutes.", {
            remedy: "Look at its screen; it returns to the old version by itself.",
          });
        }
        line.show("restarting", null);
      } else {
        heardAt = Date.now();
        if (plan.id !== planId) {
          throw new KeelsonError("CONFLICT", "Another upgrade was started meanwhile.");
        }
        for (const step of plan.steps) {
          if (step.state === "running") line.show(step.title, step.progressPercent);
          else if (step.state !== "waiting" && told.get(step.id) !== step.state && !context.json) {
            line.end();
            console.log(printable(describeStep(step)));
          }
          told.set(step.id, step.state);
        }
        if (plan.state !== "running") {
          line.end();
          context.print(plan, describeEnd(plan));
          if (plan.state === "done") return;
          throw new KeelsonError("CANCELLED", plan.failure ?? `The upgrade has ${plan.state}.`, {
            remedy: "`keelson upgrade failure` says more.",
          });
        }
      }
      await delay(pollMs);
    }
  } finally {
    line.end();
  }
}

/** Undefined while the node is away. */
async function tryPlan(context: CommandContext): Promise<UpgradePlan | undefined> {
  try {
    return (await read(context)).plan ?? undefined;
  } catch (error) {
    if (isKeelsonError(error, "UNAVAILABLE") || isKeelsonError(error, "TIMEOUT")) return undefined;
    throw error;
  }
}

function read(context: CommandContext): Promise<UpgradeState> {
  return context.api.get<UpgradeState>("/upgrade");
}

async function findBundle(
  context: CommandContext,
  text: string,
  states?: readonly OfferedBundle["state"][],
): Promise<OfferedBundle> {
  const { bundles } = await read(context);
  const found = bundles
    .filter(({ id, version }) => version === text || (text.length >= 4 && id.startsWith(text)))
    .filter(({ state }) => states === undefined || states.includes(state));
  if (found.length === 1) return found[0];
  throw new KeelsonError(
    found.length === 0 ? "NOT_FOUND" : "INVALID_ARGUMENT",
    found.length === 0 ? `There is no such bundle ${text}.` : `${text} could be several bundles.`,
    { remedy: "`keelson upgrade list` shows them." },
  );
}

function stateOf(bundle: OfferedBundle): string {
  if (bundle.state !== "fetching") return bundle.state;
  return `fetching ${Math.floor((100 * bundle.receivedBytes) / bundle.sizeBytes)} %`;
}

function remarkOf({ message, startable, state, developmentKey }: OfferedBundle): string {
  if (message !== null) return message;
  if (state === "here" && !startable.ok) return startable.why;
  return developmentKey ? "Development build." : "";
}

export function describe(state: UpgradeState): string {
  const [node] = state.nodes;
  const slot = (view: typeof node.running) =>
    `${view.version ?? "nothing"} (slot ${view.slot.toUpperCase()}, ${view.state}${
      view.triesLeft === null ? "" : `, ${view.triesLeft} tries left`
    })`;
  const best = state.bundles.find(({ startable }) => startable.ok);
  return [
    formatFacts([
      ["Runs", slot(node.running)],
      ["Other slot", slot(node.other)],
      ["Offered", best?.version ?? "nothing newer"],
      ["Last failure", state.lastFailure?.reason ?? "none"],
    ]),
    ...(state.plan === null ? [] : ["", describePlan(state.plan)]),
  ].join("\n");
}

function describePlan(plan: UpgradePlan): string {
  return [
    describeEnd(plan),
    ...plan.steps.map((step) => printable(describeStep(step))),
    ...(plan.state === "planned"
      ? [`Guests wait about ${plan.interruptionSeconds} s, during the restart.`]
      : []),
  ].join("\n");
}

const marks = { waiting: " ", running: ">", done: "+", failed: "!", skipped: "-" } as const;

function describeStep({ state, title, message, progressPercent }: PlanStep): string {
  const percent =
    state === "running" && progressPercent !== null ? ` ${Math.floor(progressPercent)} %` : "";
  return `  ${marks[state]} ${title}${percent}${message === null ? "" : `. ${message}`}`;
}

function describeEnd({ kind, fromVersion, toVersion, state, failure }: UpgradePlan): string {
  const what = kind === "upgrade" ? "Upgrade" : "Way back";
  return printable(
    `${what} ${fromVersion} -> ${toVersion}: ${state}${failure === null ? "." : `. ${failure}`}`,
  );
}
