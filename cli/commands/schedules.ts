import type { Command } from "commander";
import { KeelsonError } from "#lib/model/errors.ts";
import { type Weekday, weekdays } from "#services/api/local-time.ts";
import type { Volume } from "#services/api/schema.ts";
import type { Keep, SnapshotSchedule, When } from "#services/api/snapshot-schema.ts";
import { action, type CommandContext, clock } from "../context.ts";

interface TimeOptions {
  readonly every?: string;
  readonly at?: string;
  readonly days?: string;
}

const rules = ["last", "hours", "days", "weeks", "months"] as const;

type KeepOptions = {
  readonly [Rule in (typeof rules)[number] as `keep${Capitalize<Rule>}`]?: string;
};
type Options = TimeOptions & KeepOptions;

const path = "/snapshot-schedules";

export function addScheduleCommands(program: Command): void {
  const schedules = program
    .command("schedules")
    .alias("schedule")
    .description("when snapshots are taken, and which are kept");
  schedules
    .command("list", { isDefault: true })
    .description("list them")
    .action(
      action(async (context) => {
        const rows = await context.api.get<SnapshotSchedule[]>(path);
        const names = new Map(
          (await context.api.get<Volume[]>("/volumes")).map(({ id, name }) => [id, name]),
        );
        context.table(
          rows,
          [
            { title: "NAME", value: ({ name }) => name, whole: true },
            { title: "WHEN", value: ({ when }) => whenText(when), whole: true },
            { title: "KEEPS", value: ({ keep }) => keepText(keep) },
            {
              title: "VOLUMES",
              value: ({ volumeIds }) => volumeIds.map((id) => names.get(id) ?? id).join(", "),
            },
            {
              title: "NEXT",
              value: ({ nextRunAt }) => (nextRunAt === null ? "off" : clock(nextRunAt)),
              whole: true,
            },
            {
              title: "LAST",
              value: ({ lastRun }) => (lastRun === null ? null : clock(lastRun.at)),
              whole: true,
            },
            { title: "SNAPSHOTS", value: ({ snapshotCount }) => snapshotCount, align: "right" },
            { title: "PROBLEM", value: ({ failure }) => failure },
          ],
          "No schedules.",
        );
      }),
    );
  withTimes(
    schedules
      .command("create")
      .description("take snapshots of volumes by the clock")
      .argument("<name>", "snapshots are named after it")
      .argument("<volume...>", "names or ids; their snapshots are of one instant"),
  )
    .addHelpText(
      "after",
      `
Examples:
  keelson schedule create hourly db-data db-log --every 1h --keep-hours 24 --keep-days 7
  keelson schedule create nightly scratch --at 02:30 --keep-days 14 --keep-months 6
  keelson schedule create weekend archive --days sat,sun --at 23:00`,
    )
    .action(
      action(async (context, name: string, texts: string[], options: Options) => {
        const when = readWhen(options);
        if (when === undefined) {
          throw new KeelsonError("INVALID_ARGUMENT", "When?", {
            remedy: "Give --every 1h, --at 02:30, or --days sat,sun --at 23:00.",
          });
        }
        const volumeIds: string[] = [];
        for (const text of texts) {
          volumeIds.push((await context.find<Volume>("/volumes", "volume", text)).id);
        }
        const keep = readKeep(options) ?? {};
        show(context, await context.api.call("POST", path, { name, volumeIds, when, keep }));
      }),
    );
  withTimes(
    schedules
      .command("change")
      .description("other times, or other rules of what is kept (then all of them anew)")
      .argument("<schedule>", "its name or id"),
  ).action(
    action(async (context, text: string, options: Options) => {
      const { id } = await context.find<SnapshotSchedule>(path, "schedule", text);
      const [when, keep] = [readWhen(options), readKeep(options)];
      const body = {
        ...(when === undefined ? {} : { when }),
        ...(keep === undefined ? {} : { keep }),
      };
      show(context, await context.api.call("PATCH", `${path}/${id}`, body));
    }),
  );
  for (const [command, description, enabled] of [
    ["enable", "run it again, from its next time on", true],
    ["disable", "take and delete nothing until it is enabled", false],
  ] as const) {
    schedules
      .command(command)
      .description(description)
      .argument("<schedule>", "its name or id")
      .action(
        action(async (context, text: string) => {
          const { id } = await context.find<SnapshotSchedule>(path, "schedule", text);
          show(context, await context.api.call("PATCH", `${path}/${id}`, { enabled }));
        }),
      );
  }
  schedules
    .command("delete")
    .description("delete a schedule; its snapshots stay")
    .argument("<schedule>", "its name or id")
    .action(
      action(async (context, text: string) => {
        const found = await context.find<SnapshotSchedule>(path, "schedule", text);
        await context.api.call("DELETE", `${path}/${found.id}`);
        context.print(found, `Schedule ${found.name} is deleted.`);
      }),
    );
}

function withTimes(command: Command): Command {
  return command
    .option("--every <time>", "such as 15m, 1h, 1d")
    .option("--at <time>", "each day at this time of the node, such as 02:30")
    .option("--days <days>", "with --at: only on these, such as sat,sun")
    .option("--keep-last <n>", "keep the newest ones")
    .option("--keep-hours <n>", "keep the last one of each of so many hours")
    .option("--keep-days <n>", "of each of so many days")
    .option("--keep-weeks <n>", "of each of so many weeks")
    .option("--keep-months <n>", "of each of so many months");
}

function show(context: CommandContext, schedule: SnapshotSchedule): void {
  const next = schedule.nextRunAt === null ? "It is off" : `Next: ${clock(schedule.nextRunAt)}`;
  context.print(
    schedule,
    `Schedule ${schedule.name}: ${whenText(schedule.when)}, keeps ${keepText(schedule.keep)}. ${next}.`,
  );
}

function readWhen({ every, at, days }: TimeOptions): When | undefined {
  if (every !== undefined) {
    const found = /^(\d+)\s*(m|min|h|d)$/.exec(every);
    const unit = { m: 1, min: 1, h: 60, d: 1440 }[found?.[2] ?? ""];
    if (unit === undefined || at !== undefined || days !== undefined) {
      throw new KeelsonError("INVALID_ARGUMENT", `--every ${every} is not understood.`, {
        remedy: "Give it alone, such as 15m, 1h or 1d.",
      });
    }
    return { kind: "every", minutes: Number(found![1]) * unit };
  }
  if (days !== undefined) {
    return { kind: "weekly", days: days.split(",").map(readDay), at: at ?? "00:00" };
  }
  return at === undefined ? undefined : { kind: "daily", at };
}

function readDay(text: string): Weekday {
  const day = weekdays.find((name) => text.length >= 3 && name.startsWith(text.toLowerCase()));
  if (day !== undefined) return day;
  throw new KeelsonError("INVALID_ARGUMENT", `${text} is no day of the week.`, {
    remedy: "Write mon, tue, wed, thu, fri, sat, sun.",
  });
}

/** Undefined: no rule was given. */
function readKeep(options: KeepOptions): Keep | undefined {
  const given = rules.flatMap((rule) => {
    const text = options[`keep${rule[0].toUpperCase()}${rule.slice(1)}` as keyof KeepOptions];
    return text === undefined ? [] : [[rule, Number(text)] as const];
  });
  return given.length === 0 ? undefined : Object.fromEntries(given);
}

function whenText(when: When): string {
  if (when.kind === "daily") return `daily at ${when.at}`;
  if (when.kind === "weekly") {
    return `${when.days.map((day) => day.slice(0, 3)).join(",")} at ${when.at}`;
  }
  const { minutes } = when;
  if (minutes % 1440 === 0) return `every ${minutes / 1440}d`;
  return minutes % 60 === 0 ? `every ${minutes / 60}h` : `every ${minutes}m`;
}

function keepText(keep: Keep): string {
  const parts = rules.flatMap((rule) =>
    keep[rule] === undefined ? [] : [`${keep[rule]} ${rule}`],
  );
  return parts.length === 0 ? "all" : parts.join(", ");
}
