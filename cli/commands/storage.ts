import { statSync } from "node:fs";
import { basename } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import type { Command } from "commander";
import { KeelsonError } from "#lib/model/errors.ts";
import { formatSize } from "#lib/model/size.ts";
import { imageFormats } from "#services/api/image-formats.ts";
import type { Export, ExportCreated, Image, Task, Volume } from "#services/api/schema.ts";
import type { VolumeReverted } from "#services/api/snapshot-schema.ts";
import { action, type CommandContext, collect, sizeArgument } from "../context.ts";
import { exportDisk } from "../disk-download.ts";
import { uploadImage } from "../disk-upload.ts";
import { formatFacts } from "../table.ts";
import { ProgressLine } from "../terminal.ts";
import { findSnapshot } from "./snapshots.ts";

const pollMs = 300;

export function addStorageCommands(program: Command): void {
  addVolumeCommands(program);
  addImageCommands(program);
  addExportCommands(program);
}

function addVolumeCommands(program: Command): void {
  const volumes = program.command("volumes").alias("volume").description("disks in the store");
  volumes
    .command("list", { isDefault: true })
    .description("list them")
    .action(
      action(async (context) =>
        context.table(
          await context.api.get<Volume[]>("/volumes"),
          [
            { title: "NAME", value: ({ name }) => name, whole: true },
            { title: "KIND", value: ({ kind }) => kind, whole: true },
            { title: "STATE", value: ({ state }) => state, whole: true },
            { title: "SIZE", value: ({ sizeBytes }) => formatSize(sizeBytes), align: "right" },
            {
              title: "USED",
              value: ({ allocatedBytes }) =>
                allocatedBytes === null ? "?" : formatSize(allocatedBytes),
              align: "right",
            },
            { title: "ID", value: ({ id }) => id.slice(0, 8), whole: true },
            { title: "USED BY", value: ({ usedBy }) => usedBy.map((user) => user.name).join(", ") },
            { title: "FAILURE", value: ({ failure }) => failure },
          ],
          "No volumes.",
        ),
      ),
    );
  volumes
    .command("create")
    .description("make a thin volume, empty or a clone of an image")
    .argument("<name>")
    .argument("[size]", "such as 10G; with --image it may be left out")
    .option("--image <name>", "clone this image")
    .addHelpText(
      "after",
      `
Examples:
  keelson volumes create scratch 10G
  keelson volumes create debian-copy --image debian-13`,
    )
    .action(
      action(
        async (context, name: string, size: string | undefined, options: { image?: string }) => {
          if (size === undefined && options.image === undefined) {
            throw new KeelsonError("INVALID_ARGUMENT", "How large?", {
              remedy: "Give a size such as 10G, or --image to clone one.",
            });
          }
          const sizeBytes = size === undefined ? undefined : sizeArgument(size);
          const image =
            options.image === undefined
              ? undefined
              : await context.find<Image>("/images", "image", options.image);
          const volume = await context.api.call<Volume>("POST", "/volumes", {
            name,
            ...(sizeBytes === undefined ? {} : { sizeBytes }),
            ...(image === undefined ? {} : { fromImageId: image.id }),
          });
          if (volume.state === "failed") throw new KeelsonError("NO_SPACE", volume.failure ?? name);
          context.print(
            volume,
            `Volume ${name}: ${formatSize(volume.sizeBytes)}, ${volume.state}.`,
          );
        },
      ),
    );
  volumes
    .command("clone")
    .description("make a volume of a snapshot; it takes space only for what is written to it")
    .argument("<name>", "of the new volume")
    .argument("<snapshot>", "VOLUME@NAME, a name or an id")
    .argument("[size]", "larger than the snapshot, such as 20G")
    .action(
      action(async (context, name: string, text: string, size: string | undefined) => {
        const { id } = await findSnapshot(context, text);
        const volume = await context.api.call<Volume>("POST", "/volumes", {
          ...{ name, origin: { snapshotId: id } },
          ...(size === undefined ? {} : { sizeBytes: sizeArgument(size) }),
        });
        if (volume.state === "failed") throw new KeelsonError("NO_SPACE", volume.failure ?? name);
        context.print(volume, `Volume ${name}: ${formatSize(volume.sizeBytes)}, ${volume.state}.`);
      }),
    );
  volumes
    .command("revert")
    .description("make a volume what a snapshot of it is; nothing may use it meanwhile")
    .argument("<volume>", "its name or id")
    .argument("<snapshot>", "VOLUME@NAME, a name or an id")
    .option("--no-keep", "take no snapshot of what is there now: there is then no way back")
    .action(
      action(async (context, text: string, wanted: string, options: { keep: boolean }) => {
        const volume = await context.find<Volume>("/volumes", "volume", text);
        const whole = wanted.includes("@") ? wanted : `${volume.name}@${wanted}`;
        const { id } = await findSnapshot(context, whole).catch(() =>
          findSnapshot(context, wanted),
        );
        const done = await context.api.call<VolumeReverted>(
          "POST",
          `/volumes/${volume.id}/revert`,
          { snapshotId: id, keepPresent: options.keep },
        );
        const undo =
          done.kept === null
            ? "What was there is gone."
            : `What was there is ${volume.name}@${done.kept.name}.`;
        context.print(done, `Volume ${volume.name} went back. ${undo}`);
      }),
    );
  volumes
    .command("resize")
    .description("make a volume larger")
    .argument("<volume>", "its name or id")
    .argument("<size>", "its new size")
    .action(
      action(async (context, text: string, size: string) => {
        const sizeBytes = sizeArgument(size);
        const { id } = await context.find<Volume>("/volumes", "volume", text);
        const volume = await context.api.call<Volume>("PATCH", `/volumes/${id}`, { sizeBytes });
        context.print(volume, `Volume ${volume.name}: ${formatSize(volume.sizeBytes)}.`);
      }),
    );
  volumes
    .command("delete")
    .description("delete a volume and all that is in it")
    .argument("<volume>", "its name or id")
    .option("--with-snapshots", "and its snapshots, if it has any")
    .action(
      action(async (context, text: string, options: { withSnapshots?: boolean }) => {
        const volume = await context.find<Volume>("/volumes", "volume", text);
        const query = options.withSnapshots === true ? "?snapshots=delete" : "";
        await context.api.call("DELETE", `/volumes/${volume.id}${query}`);
        context.print(volume, `Volume ${volume.name} is deleted.`);
      }),
    );
}

function addImageCommands(program: Command): void {
  const images = program
    .command("images")
    .alias("image")
    .description("disk images that clients are cloned from");
  images
    .command("list", { isDefault: true })
    .description("list them")
    .action(
      action(async (context) =>
        context.table(
          await context.api.get<Image[]>("/images"),
          [
            { title: "NAME", value: ({ name }) => name, whole: true },
            { title: "STATE", value: ({ state }) => state, whole: true },
            { title: "FORMAT", value: ({ format }) => format, whole: true },
            {
              title: "SIZE",
              value: ({ sizeBytes }) => (sizeBytes === null ? null : formatSize(sizeBytes)),
              align: "right",
            },
            { title: "CLIENTS", value: ({ bootEntryCount }) => bootEntryCount, align: "right" },
            { title: "ID", value: ({ id }) => id.slice(0, 8), whole: true },
            { title: "FAILURE", value: ({ failure }) => failure },
          ],
          "No images. Import one with: keelson images import FILE",
        ),
      ),
    );
  images
    .command("export")
    .description("download an image as a file; a download that broke goes on")
    .argument("<image>", "its name or id")
    .argument("[file]", "default: NAME.qcow2 or .img here")
    .option("--format <format>", "qcow2 or raw", "qcow2")
    .action(
      action(
        async (context, text: string, file: string | undefined, options: { format: string }) => {
          const { id, name } = await context.find<Image>("/images", "image", text);
          await exportDisk(context, `/images/${id}/data`, name, file, options);
        },
      ),
    );
  images
    .command("import")
    .description("upload a disk image and import it")
    .argument("<file>", "a disk image")
    .option("--name <name>", "the image's name (default: the file's)")
    .option("--format <format>", `auto, ${imageFormats.join(", ")}`, "auto")
    .option("--resume <image>", "go on with an upload that broke, by the image's name or id")
    .addHelpText(
      "after",
      `
What breaks on the way is tried again for a while. After that, or after Ctrl-C, the node keeps what
it has for a day: --resume sends the rest of the same file.

Examples:
  keelson images import debian-13-generic-amd64.qcow2 --name debian-13
  keelson images import debian-13-generic-amd64.qcow2 --resume debian-13`,
    )
    .action(
      action(async (context, file: string, options: ImportOptions) => {
        const found = statSync(file, { throwIfNoEntry: false });
        if (found === undefined || !found.isFile()) {
          throw new KeelsonError("NOT_FOUND", `${file} is not a file.`);
        }
        const image = await imageFor(context, file, found.size, options);
        try {
          const line = new ProgressLine();
          const task = await uploadImage(context.api, image, file, found.size, (percent) =>
            line.show("upload", percent),
          ).finally(() => line.end());
          await follow(context, task);
        } catch (error) {
          await forgetFailed(context, image.id);
          throw error;
        }
        const done = await context.api.get<Image>(`/images/${image.id}`);
        context.print(
          done,
          `Image ${done.name}: ${formatSize(done.sizeBytes ?? 0)}, ${done.state}.`,
        );
      }),
    );
  images
    .command("delete")
    .description("delete an image that no boot entry uses")
    .argument("<image>", "its name or id")
    .action(
      action(async (context, text: string) => {
        const image = await context.find<Image>("/images", "image", text);
        await context.api.call("DELETE", `/images/${image.id}`);
        context.print(image, `Image ${image.name} is deleted.`);
      }),
    );
}

interface ImportOptions {
  readonly name?: string;
  readonly format: string;
  readonly resume?: string;
}

/** A new image, or the one whose upload goes on. */
async function imageFor(
  context: CommandContext,
  file: string,
  sizeBytes: number,
  options: ImportOptions,
): Promise<Image> {
  const { format, resume } = options;
  if (resume === undefined) {
    const name = options.name ?? basename(file).replace(/\.(raw|img|qcow2?|bin)$/i, "");
    return await context.api.call<Image>("POST", "/images", { name, format });
  }
  const image = await context.find<Image>("/images", "image", resume);
  if (image.state !== "uploading") {
    throw new KeelsonError(
      "CONFLICT",
      `The image ${image.name} is ${image.state}, not uploading.`,
      {
        object: image.id,
        remedy: "Import the file anew, without --resume.",
      },
    );
  }
  // Whether the length is the same the node tells; with nothing to send it could not be asked.
  if (image.receivedBytes !== null && image.receivedBytes >= sizeBytes) {
    throw new KeelsonError(
      "CONFLICT",
      `The node has ${image.receivedBytes} bytes already; ${file} has ${sizeBytes}.`,
      { object: file, remedy: "Give the file that the upload began with." },
    );
  }
  return image;
}

/** A failed import isn't left behind: its reason is told here. One that broke off can go on. */
async function forgetFailed(context: CommandContext, id: string): Promise<void> {
  const image = await context.api.get<Image>(`/images/${id}`).catch(() => undefined);
  if (image?.state !== "failed") return;
  await context.api.call("DELETE", `/images/${id}`).catch(() => {});
}

/** Until the task has ended. Ctrl-C cancels it on the node too. */
async function follow(context: CommandContext, started: Task): Promise<void> {
  const line = new ProgressLine();
  let task = started;
  const cancel = () => void context.api.call("DELETE", `/tasks/${started.id}`).catch(() => {});
  process.once("SIGINT", cancel);
  try {
    while (task.state === "running") {
      line.show(task.phase, task.progressPercent);
      await delay(pollMs);
      task = await context.api.get<Task>(`/tasks/${started.id}`);
    }
  } finally {
    process.off("SIGINT", cancel);
    line.end();
  }
  if (task.state === "done") return;
  const code = task.state === "cancelled" ? "CANCELLED" : "FORMAT_CORRUPT";
  throw new KeelsonError(code, task.failure ?? "The import failed.");
}

interface ExportOptions {
  readonly initiator?: string[];
  readonly readOnly?: boolean;
  readonly chap: boolean;
}

function addExportCommands(program: Command): void {
  const exports = program
    .command("exports")
    .alias("export")
    .description("volumes that iSCSI initiators may use");
  exports
    .command("list", { isDefault: true })
    .description("list them")
    .action(
      action(async (context) =>
        context.table(
          await context.api.get<Export[]>("/exports"),
          [
            { title: "NAME", value: ({ name }) => name, whole: true },
            { title: "VOLUME", value: ({ volumeName }) => volumeName },
            { title: "STATE", value: ({ state }) => state, whole: true },
            { title: "TARGET", value: ({ targetIqn }) => targetIqn },
            { title: "INITIATORS", value: ({ initiators }) => initiators.join(",") },
            { title: "CHAP", value: ({ chapUser }) => chapUser ?? "none" },
            { title: "SESSIONS", value: ({ sessionCount }) => sessionCount, align: "right" },
            { title: "PROBLEM", value: ({ message }) => message },
          ],
          "No exports.",
        ),
      ),
    );
  exports
    .command("create")
    .description("let initiators use a volume; the CHAP secret is shown once")
    .argument("<name>")
    .argument("<volume>", "its name or id")
    .requiredOption("--initiator <iqn>", "who may use it (repeatable)", collect)
    .option("--read-only", "nobody may write")
    .option("--no-chap", "without a secret: whoever says it has that name may use it")
    .addHelpText(
      "after",
      `
Example:
  keelson exports create data scratch --initiator iqn.1993-08.org.debian:01:abcdef`,
    )
    .action(
      action(async (context, name: string, volumeText: string, options: ExportOptions) => {
        const volume = await context.find<Volume>("/volumes", "volume", volumeText);
        const created = await context.api.call<ExportCreated>("POST", "/exports", {
          name,
          volumeId: volume.id,
          initiators: options.initiator ?? [],
          readOnly: options.readOnly ?? false,
          chap: { kind: options.chap ? "generate" : "none" },
        });
        context.print(created, () =>
          formatFacts([
            ["target", created.targetIqn],
            ["portals", created.portals.join(", ")],
            ["LUN", "0"],
            ["CHAP user", created.chapUser],
            ["CHAP secret", created.chapSecret],
            ["state", created.state],
          ]),
        );
      }),
    );
  exports
    .command("allow")
    .description("name anew who may use an export; others lose it")
    .argument("<export>", "its name or id")
    .argument("<iqn...>", "the initiators")
    .action(
      action(async (context, text: string, initiators: string[]) => {
        const { id } = await context.find<Export>("/exports", "export", text);
        const changed = await context.api.call<Export>("PATCH", `/exports/${id}`, { initiators });
        context.print(changed, `${changed.name}: ${changed.initiators.join(", ")}`);
      }),
    );
  exports
    .command("delete")
    .description("end an export; its volume stays")
    .argument("<export>", "its name or id")
    .action(
      action(async (context, text: string) => {
        const found = await context.find<Export>("/exports", "export", text);
        await context.api.call("DELETE", `/exports/${found.id}`);
        context.print(found, `Export ${found.name} is deleted.`);
      }),
    );
}
