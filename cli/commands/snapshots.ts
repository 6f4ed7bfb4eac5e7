import type { Command } from "commander";
import { KeelsonError } from "#lib/model/errors.ts";
import { formatSize } from "#lib/model/size.ts";
import { snapshotTree, type TreeRow } from "#lib/model/snapshot-tree.ts";
import type { ExportCreated, Volume } from "#services/api/schema.ts";
import type { Differences, Snapshot } from "#services/api/snapshot-schema.ts";
import { action, type CommandContext, clock } from "../context.ts";
import { exportDisk } from "../disk-download.ts";
import { formatFacts } from "../table.ts";

const unknown = (bytes: number | null) => (bytes === null ? "?" : formatSize(bytes));

/** By `VOLUME@NAME`, by a name that is there once, by id or its beginning. */
export async function findSnapshot(context: CommandContext, text: string): Promise<Snapshot> {
  const [volume, name] = text.split("@");
  if (name === undefined) return await context.find<Snapshot>("/snapshots", "snapshot", text);
  const { id } = await context.find<Volume>("/volumes", "volume", volume);
  const rows = await context.api.get<Snapshot[]>(`/snapshots?volumeId=${id}`);
  const found = rows.find((row) => row.name.toLowerCase() === name.toLowerCase());
  if (found !== undefined) return found;
  throw new KeelsonError("NOT_FOUND", `${volume} has no snapshot ${name}.`, { object: text });
}

export function addSnapshotCommands(program: Command): void {
  const snapshots = program
    .command("snapshots")
    .alias("snapshot")
    .description("states of volumes that are kept");
  addRecordCommands(snapshots);
  addTreeCommand(snapshots);
  addUseCommands(snapshots);
}

type Row = TreeRow<Volume, Snapshot>;

function nameOf(row: Row): string {
  if (row.kind === "gone") return `(deleted volume ${row.record.id.slice(0, 8)})`;
  return row.kind === "volume" ? row.record.name : `@${row.record.name}`;
}

function heldBytes(row: Row): string | null {
  if (row.kind === "gone") return null;
  return unknown(row.kind === "volume" ? row.record.allocatedBytes : row.record.referencedBytes);
}

function addTreeCommand(snapshots: Command): void {
  snapshots
    .command("tree")
    .description("which volume and which snapshot came from which")
    .action(
      action(async (context) => {
        const [volumes, all] = await Promise.all([
          context.api.get<Volume[]>("/volumes"),
          context.api.get<Snapshot[]>("/snapshots"),
        ]);
        context.table<Row>(
          snapshotTree(volumes, all),
          [
            {
              title: "NAME",
              value: (row) => `${"  ".repeat(row.depth)}${nameOf(row)}`,
              whole: true,
            },
            {
              title: "SINCE",
              value: (row) => (row.kind === "gone" ? null : clock(row.record.createdAt)),
              whole: true,
            },
            { title: "HOLDS", value: heldBytes, align: "right" },
            { title: "STATE", value: (row) => (row.kind === "gone" ? null : row.record.state) },
          ],
          "No volumes.",
        );
      }),
    );
}

function addRecordCommands(snapshots: Command): void {
  snapshots
    .command("list", { isDefault: true })
    .description("list them, of one volume or of all")
    .argument("[volume]", "its name or id")
    .action(
      action(async (context, text: string | undefined) => {
        const volume =
          text === undefined ? undefined : await context.find<Volume>("/volumes", "volume", text);
        const query = volume === undefined ? "" : `&volumeId=${volume.id}`;
        context.table(
          await context.api.get<Snapshot[]>(`/snapshots?sort=createdAt${query}`),
          [
            { title: "VOLUME", value: ({ volumeName, volumeId }) => volumeName ?? volumeId },
            { title: "NAME", value: ({ name }) => name, whole: true },
            { title: "TAKEN", value: ({ createdAt }) => clock(createdAt), whole: true },
            {
              title: "HOLDS",
              value: ({ referencedBytes }) => unknown(referencedBytes),
              align: "right",
            },
            {
              title: "FREES",
              value: ({ exclusiveBytes }) => unknown(exclusiveBytes),
              align: "right",
            },
            {
              title: "STATE",
              value: ({ state, hold }) => (hold ? `${state}, held` : state),
              whole: true,
            },
            { title: "CLONES", value: ({ clones }) => clones.length, align: "right" },
            { title: "SCHEDULE", value: ({ scheduleName }) => scheduleName },
            { title: "ID", value: ({ id }) => id.slice(0, 8), whole: true },
          ],
          "No snapshots.",
        );
      }),
    );
  snapshots
    .command("create")
    .description("take snapshots of volumes, all at one instant")
    .argument("<name>", "the same for each of them")
    .argument("<volume...>", "their names or ids")
    .option("--description <text>", "what it is for")
    .addHelpText(
      "after",
      `
Example:
  keelson snapshot create before-upgrade db-data db-log`,
    )
    .action(
      action(async (context, name: string, texts: string[], options: { description?: string }) => {
        const volumes: string[] = [];
        for (const text of texts) {
          volumes.push((await context.find<Volume>("/volumes", "volume", text)).id);
        }
        const made = await context.api.call<Snapshot[]>("POST", "/snapshots", {
          ...{ volumes, name },
          ...(options.description === undefined ? {} : { description: options.description }),
        });
        context.print(made, () =>
          made.map((each) => `Snapshot ${each.volumeName}@${each.name} is taken.`).join("\n"),
        );
      }),
    );
  snapshots
    .command("show")
    .description("all that is known of one")
    .argument("<snapshot>", "VOLUME@NAME, a name or an id")
    .action(
      action(async (context, text: string) => {
        const found = await findSnapshot(context, text);
        context.print(found, () =>
          formatFacts([
            ["id", found.id],
            ["name", found.name],
            ["description", found.description],
            ["volume", found.volumeName ?? found.volumeId],
            ["taken", clock(found.createdAt)],
            ["state", found.hold ? `${found.state}, held` : found.state],
            ["size", formatSize(found.sizeBytes)],
            ["holds", unknown(found.referencedBytes)],
            ["frees when deleted", unknown(found.exclusiveBytes)],
            ["clones", found.clones.map(({ name }) => name).join(", ")],
            ["schedule", found.scheduleName],
            ["group", found.groupId],
          ]),
        );
      }),
    );
  const change = (name: string, description: string, body: object, done: string) =>
    snapshots
      .command(name)
      .description(description)
      .argument("<snapshot>", "VOLUME@NAME, a name or an id")
      .action(
        action(async (context, text: string) => {
          const { id } = await findSnapshot(context, text);
          const changed = await context.api.call<Snapshot>("PATCH", `/snapshots/${id}`, body);
          context.print(changed, `Snapshot ${changed.name} ${done}.`);
        }),
      );
  change("hold", "keep it until it is released", { hold: true }, "is held");
  change("release", "let it be deleted again", { hold: false }, "is released");
  snapshots
    .command("rename")
    .description("give it another name")
    .argument("<snapshot>", "VOLUME@NAME, a name or an id")
    .argument("<name>")
    .option("--description <text>", "what it is for")
    .action(
      action(async (context, text: string, name: string, options: { description?: string }) => {
        const { id } = await findSnapshot(context, text);
        const changed = await context.api.call<Snapshot>("PATCH", `/snapshots/${id}`, {
          name,
          ...(options.description === undefined ? {} : { description: options.description }),
        });
        context.print(changed, `Snapshot ${changed.name} is renamed.`);
      }),
    );
  snapshots
    .command("delete")
    .description("delete one; its clones stay")
    .argument("<snapshot>", "VOLUME@NAME, a name or an id")
    .action(
      action(async (context, text: string) => {
        const found = await findSnapshot(context, text);
        await context.api.call("DELETE", `/snapshots/${found.id}`);
        context.print(found, `Snapshot ${found.name} is deleted.`);
      }),
    );
}

function addUseCommands(snapshots: Command): void {
  snapshots
    .command("export")
    .description("download what it holds as a file; one that broke goes on")
    .argument("<snapshot>", "VOLUME@NAME, a name or an id")
    .argument("[file]", "default: VOLUME-NAME.qcow2 or .img here")
    .option(
      "--format <format>",
      "qcow2, which keeps what was never written out of the file, or raw",
      "qcow2",
    )
    .addHelpText("after", "\nExample:\n  keelson snapshot export db-data@monday monday.qcow2")
    .action(
      action(
        async (context, text: string, file: string | undefined, options: { format: string }) => {
          const { id, volumeName, volumeId, name } = await findSnapshot(context, text);
          await exportDisk(
            context,
            `/snapshots/${id}/data`,
            `${volumeName ?? volumeId}-${name}`,
            file,
            options,
          );
        },
      ),
    );
  snapshots
    .command("diff")
    .description("what of its volume changed since; or until another snapshot")
    .argument("<snapshot>", "VOLUME@NAME, a name or an id")
    .argument("[to]", "a later snapshot of the same volume")
    .action(
      action(async (context, text: string, to: string | undefined) => {
        const from = await findSnapshot(context, text);
        const later = to === undefined ? "" : `&to=${(await findSnapshot(context, to)).id}`;
        const path = `/volumes/${from.volumeId}/differences?from=${from.id}${later}`;
        const first = await context.api.get<Differences>(path);
        const ranges = [...first.ranges];
        for (let { next } = first; next !== null; ) {
          const page = await context.api.get<Differences>(`${path}&after=${next}`);
          ranges.push(...page.ranges);
          next = page.next;
        }
        const changedBytes = ranges.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0);
        context.print({ ranges, changedBytes }, () =>
          [
            ...ranges.map(
              ({ offsetBytes, lengthBytes, zero }) =>
                `${offsetBytes} ${lengthBytes}${zero ? " zero" : ""}`,
            ),
            `${formatSize(changedBytes)} in ${ranges.length} ranges differ.`,
          ].join("\n"),
        );
      }),
    );
  snapshots
    .command("attach")
    .description("clone it and export the clone, to get files back; the CHAP secret is shown once")
    .argument("<snapshot>", "VOLUME@NAME, a name or an id")
    .requiredOption("--initiator <iqn>", "the machine that gets it")
    .option("--no-chap", "without a secret: whoever says it has that name may use it")
    .addHelpText(
      "after",
      `
Afterwards: keelson exports delete NAME, then keelson volumes delete NAME.`,
    )
    .action(
      action(async (context, text: string, options: { initiator: string; chap: boolean }) => {
        const { id } = await findSnapshot(context, text);
        const made = await context.api.call<ExportCreated>("POST", `/snapshots/${id}/attach`, {
          initiator: options.initiator,
          chap: options.chap ? "generate" : "none",
        });
        context.print(made, () =>
          formatFacts([
            ["volume", made.volumeName],
            ["target", made.targetIqn],
            ["portals", made.portals.join(", ")],
            ["LUN", "0"],
            ["CHAP user", made.chapUser],
            ["CHAP secret", made.chapSecret],
            ["state", made.state],
          ]),
        );
      }),
    );
}
