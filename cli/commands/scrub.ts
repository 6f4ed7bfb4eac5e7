import type { Command } from "commander";
import { KeelsonError } from "#lib/model/errors.ts";
import { formatSize } from "#lib/model/size.ts";
import type { Scrub } from "#services/api/scrub-schema.ts";
import { action, clock, sizeArgument } from "../context.ts";
import { type Column, formatFacts, formatTable } from "../table.ts";

interface SetOptions {
  readonly every?: string;
  readonly rate?: number;
}

const mostShown = 20;

export function addScrubCommands(program: Command): void {
  const group = program
    .command("scrub")
    .description("read all of the store again, to find bad blocks before they are needed");

  group
    .command("status", { isDefault: true })
    .description("show how far it is, what the last one found, and when the next one begins")
    .action(action(async (context) => print(context, await context.api.get("/store/scrub"))));

  group
    .command("start")
    .description("begin one now")
    .action(
      action(async (context) => print(context, await context.api.call("POST", "/store/scrub"))),
    );

  group
    .command("stop")
    .description("stop the one that runs")
    .action(
      action(async (context) => print(context, await context.api.call("DELETE", "/store/scrub"))),
    );

  group
    .command("set")
    .description("say how often, and how fast")
    .option("--every <days>", "from the end of one to the next: 14, or 0 for only when told")
    .option("--rate <size>", "what it may read a second at most: 32M", sizeArgument)
    .addHelpText("after", "\nExample:\n  keelson scrub set --every 7 --rate 100M")
    .action(
      action(async (context, { every, rate }: SetOptions) => {
        if (every === undefined && rate === undefined) {
          throw new KeelsonError("INVALID_ARGUMENT", "Nothing to set was given.", {
            remedy: "Give --every, --rate, or both.",
          });
        }
        if (every !== undefined && !/^\d{1,3}$/.test(every)) {
          throw new KeelsonError("INVALID_ARGUMENT", `--every ${every} is not a number of days.`, {
            remedy: "Give 0 to 365.",
          });
        }
        const { settings } = await context.api.get<Scrub>("/store/scrub");
        const changed = {
          everyDays: every === undefined ? settings.everyDays : Number(every),
          bytesPerSecond: rate ?? settings.bytesPerSecond,
        };
        print(context, await context.api.call("PUT", "/store/scrub/settings", changed));
      }),
    );
}

const columns: readonly Column<NonNullable<Scrub["run"]>["bad"][number]>[] = [
  { title: "BLOCK", value: ({ block }) => block, align: "right" },
  { title: "VOLUME", value: ({ volumeName, volumeId }) => volumeName ?? volumeId, whole: true },
  { title: "OFFSET", value: ({ offsetBytes }) => offsetBytes, align: "right" },
  { title: "SINCE SNAPSHOT", value: ({ snapshotId }) => snapshotId },
  { title: "WHY", value: ({ why }) => why },
];

function print(
  context: { print(document: unknown, text: () => string): void },
  scrub: Scrub,
): void {
  context.print(scrub, () => describe(scrub));
}

function describe({ settings, nextAt, run }: Scrub): string {
  const { everyDays, bytesPerSecond } = settings;
  const often = everyDays === 0 ? "only when told" : `every ${everyDays} days`;
  const facts = formatFacts([
    ["settings", `${often}, at most ${formatSize(bytesPerSecond)} a second`],
    ["next", nextAt === null ? null : clock(nextAt)],
    ["last", run === null ? "none yet" : stateOf(run)],
    ...(run === null
      ? []
      : ([
          ["read", formatSize(run.readBytes)],
          ["bad blocks", String(run.badCount)],
          ["healed", `${run.healed} pages`],
        ] as const)),
  ]);
  if (run === null || run.bad.length === 0) return facts;
  const shown = run.bad.slice(0, mostShown);
  const more = run.badCount > shown.length ? `\n... ${run.badCount - shown.length} more` : "";
  return `${facts}\n\n${formatTable(columns, shown, process.stdout.columns)}${more}`;
}

function stateOf(run: NonNullable<Scrub["run"]>): string {
  const began = `begun ${clock(run.startedAt)}`;
  if (run.state === "running") return `runs, ${run.progressPercent} %, ${began}`;
  const ended = run.endedAt === null ? "" : ` ${clock(run.endedAt)}`;
  return `${run.state}${ended}, ${began}${run.reason === null ? "" : `: ${run.reason}`}`;
}
