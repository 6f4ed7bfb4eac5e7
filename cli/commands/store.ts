import type { Command } from "commander";
import { KeelsonError } from "#lib/model/errors.ts";
import { formatSize } from "#lib/model/size.ts";
import { blockBytes } from "#services/chunk-store/limits.ts";
import {
  checkDevice,
  describeMap,
  describeStore,
  type MapRecord,
  repairDevice,
  type StoreCheck,
  type StoreDescription,
  type StoreProblem,
  type VolumeDescription,
} from "#services/chunk-store/offline.ts";
import { action, type CommandContext, clock } from "../context.ts";
import { type Column, formatFacts, formatTable } from "../table.ts";

interface InspectOptions {
  readonly map?: string;
}

interface CheckOptions {
  readonly quick?: boolean;
  readonly repair?: boolean;
}

const mostShown = 50;

/** Commands for a store on a disk of this machine that no service has mounted; they ask no node. */
export function addStoreCommands(program: Command): void {
  const group = program
    .command("store")
    .description("stores on disks of this machine, while no chunk-store has them mounted");

  group
    .command("inspect")
    .description("say what a store is and holds; nothing is written")
    .argument("<device>", "a store's file or block device")
    .option("--map <volume>", "where the chunks of a volume lie; its id")
    .addHelpText(
      "after",
      "\nExamples:\n  keelson store inspect /dev/disk/by-partlabel/keelson-store\n  keelson store inspect store.img --json",
    )
    .action(
      action(async (context, device: string, { map }: InspectOptions) => {
        if (map !== undefined) {
          context.table(describeMap(device, map), mapColumns, "Nothing was ever written to it.");
          return;
        }
        const description = describeStore(device);
        context.print(description, () => describe(description));
      }),
    );

  group
    .command("check")
    .description("compare all of a store with its checksums and counts; exit code 1 if it is bad")
    .argument("<device>", "a store's file or block device")
    .option("--quick", "without reading data: superblocks, log, map and counts only")
    .option(
      "--repair",
      "then write what can be made anew: a damaged superblock; the log goes into the map",
    )
    .addHelpText(
      "after",
      "\nWithout --repair nothing is written.\n\nExamples:\n  keelson store check store.img\n  keelson store check /dev/sdb4 --quick",
    )
    .action(
      action(async (context, device: string, options: CheckOptions) => {
        const found = check(device, options);
        const repaired = options.repair === true && mayRepair(found, device);
        if (repaired) repairDevice(device);
        report(context, device, found, repaired, options);
        const bad = repaired ? [] : found.problems;
        if (bad.length > 0) process.exitCode = 1;
      }),
    );
}

function check(device: string, { quick }: CheckOptions): StoreCheck {
  const shows = process.stderr.isTTY === true;
  let shown = -1;
  try {
    return checkDevice(device, {
      data: quick !== true,
      progress(done, of) {
        const percent = Math.floor((100 * done) / Math.max(1, of));
        if (!shows || percent === shown) return;
        shown = percent;
        process.stderr.write(`\r${percent} % of data read`);
      },
    });
  } finally {
    if (shown >= 0) process.stderr.write(`\r${" ".repeat(20)}\r`);
  }
}

/** Only what is wrong with a copy can be made anew from the other one. */
function mayRepair({ problems }: StoreCheck, device: string): boolean {
  const lasting = problems.find(({ kind }) => kind !== "superblock");
  if (lasting === undefined) return true;
  throw new KeelsonError(
    "FORMAT_CORRUPT",
    `${device} was not changed: what is damaged can't be made anew from it. ${lasting.text}`,
    {
      operation: "repair store",
      object: device,
      remedy:
        "Run the check without --repair for all of it. Copy out what is good, or go back to a backup.",
    },
  );
}

function report(
  context: CommandContext,
  device: string,
  { problems, notes, blocks }: StoreCheck,
  repaired: boolean,
  { quick }: CheckOptions,
): void {
  const document = { device, sound: problems.length === 0, repaired, problems, notes, blocks };
  context.print(document, () => {
    const read =
      quick === true ? "its data was not read" : `${formatSize(blocks * blockBytes)} of data read`;
    if (problems.length === 0) return [...notes, `${device} is sound; ${read}.`].join("\n");
    const lines = problems.slice(0, mostShown).map(({ text }) => text);
    if (problems.length > mostShown) {
      lines.push(`... and ${problems.length - mostShown} more: --json gives all.`);
    }
    const end = repaired
      ? "Repaired."
      : `${device} has ${count(problems.length, "problem")}; ${read}. Nothing was written.`;
    return [...lines, ...notes, "", end, ...(repaired ? [] : advice(problems))].join("\n");
  });
}

function advice(problems: readonly StoreProblem[]): string[] {
  const has = (kind: StoreProblem["kind"]) => problems.some((problem) => problem.kind === kind);
  if (has("mount"))
    return ["It can't be mounted as it is: keep the disk, and go back to a backup."];
  if (has("map")) return ["Export its volumes before anything is written to it."];
  if (has("data")) return ["Restore these ranges from a backup: a write makes a bad block good."];
  return ["It can be mounted; --repair makes the damaged copy anew."];
}

const count = (number: number, what: string) => `${number} ${what}${number === 1 ? "" : "s"}`;

const columns: readonly Column<VolumeDescription>[] = [
  { title: "VOLUME", value: ({ id }) => id, whole: true },
  { title: "STATE", value: ({ state }) => state },
  { title: "SIZE", value: ({ sizeBytes }) => formatSize(sizeBytes), align: "right" },
  { title: "OWN", value: ({ ownBytes }) => formatSize(ownBytes), align: "right" },
  { title: "SNAPSHOTS", value: ({ snapshots }) => snapshots.length, align: "right" },
  { title: "CLONE OF", value: ({ origin }) => origin?.volumeId ?? null },
];

function describe(store: StoreDescription): string {
  const { log, checkpoint, space, superblocks } = store;
  const facts = formatFacts([
    ["Device", `${store.device}, ${formatSize(store.sizeBytes)} used by the store`],
    ["Store", store.storeId],
    ["Pool", store.poolId],
    ["Format", `${store.format}, made ${clock(store.createdAt)}`],
    ["State", store.clean ? "shut down" : "not shut down: a mount replays its log"],
    ["Mounts", String(store.mounts)],
    [
      "Superblocks",
      superblocks
        .map(({ state, sequence }) => (sequence === null ? state : `${state} (${sequence})`))
        .join(", "),
    ],
    [
      "Log",
      `${formatSize(log.usedBytes)} of ${formatSize(log.sizeBytes)}, ${count(log.records, "record")} since the checkpoint`,
    ],
    [
      "Checkpoint",
      `at record ${checkpoint.sequence}: ${count(checkpoint.mapPages, "map page")}, ${count(checkpoint.tablePages, "page")} of index and tables`,
    ],
    [
      "Space",
      `${formatSize(space.used)} data, ${formatSize(space.metadata)} metadata, ${formatSize(space.reclaiming + space.reserved)} kept back, ${formatSize(space.free)} free`,
    ],
  ]);
  const { volumes } = store;
  if (volumes.length === 0) return `${facts}\n\nIt has no volumes.`;
  return `${facts}\n\n${formatTable(columns, volumes, process.stdout.columns)}`;
}

const mapColumns: readonly Column<MapRecord>[] = [
  { title: "OFFSET", value: ({ offsetBytes }) => formatSize(offsetBytes), align: "right" },
  { title: "EPOCH", value: ({ epoch }) => epoch, align: "right" },
  { title: "PAGE", value: ({ page }) => page, align: "right" },
  { title: "BLOCKS", value: ({ blocks }) => blocks, align: "right" },
  {
    title: "WHERE",
    value: ({ extents }) => extents.map(([first, blocks]) => `${first}+${blocks}`).join(" "),
  },
];
