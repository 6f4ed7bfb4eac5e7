import type { Command } from "commander";
import { KeelsonError } from "#lib/model/errors.ts";
import type { ApiEvent, BootEntry, Client, Image } from "#services/api/schema.ts";
import { action, type CommandContext, clock } from "../context.ts";
import { formatDuration, printable } from "../table.ts";

interface EntryOptions {
  readonly mac?: string;
  readonly uuid?: string;
  readonly image?: string;
  readonly name?: string;
}

export function addBootCommands(program: Command): void {
  addEntryCommands(program);
  addClientCommands(program);
}

function addEntryCommands(program: Command): void {
  const boot = program.command("boot").description("boot entries: which machine boots which image");
  boot
    .command("list", { isDefault: true })
    .description("list them")
    .action(
      action(async (context) =>
        context.table(
          await context.api.get<BootEntry[]>("/boot-entries"),
          [
            { title: "NAME", value: ({ name }) => name, whole: true },
            { title: "MAC", value: ({ mac }) => mac, whole: true },
            { title: "UUID", value: ({ uuid }) => uuid },
            { title: "IMAGE", value: ({ imageName }) => imageName },
            { title: "CLONE", value: ({ cloneState }) => cloneState, whole: true },
            { title: "CHAP", value: ({ chap }) => chap },
            { title: "ID", value: ({ id }) => id.slice(0, 8), whole: true },
          ],
          "No boot entries. Add one with: keelson boot add NAME --mac MAC --image IMAGE",
        ),
      ),
    );
  boot
    .command("add")
    .description("let a machine boot its own clone of an image")
    .argument("[name]", "what to call it (or --name)")
    .option("--name <name>", "what to call it")
    .option("--mac <address>", "the machine's MAC address")
    .option("--uuid <uuid>", "the machine's SMBIOS UUID")
    .requiredOption("--image <name>", "the image's name or id")
    .addHelpText(
      "after",
      `
Examples:
  keelson boot add lab-01 --mac 52:54:00:12:34:56 --image debian-13
  keelson boot add lab-02 --uuid 4c4c4544-0042-4810-8054-b7c04f463132 --image debian-13`,
    )
    .action(
      action(async (context, given: string | undefined, options: EntryOptions) => {
        const name = given ?? options.name;
        if (name === undefined) {
          throw new KeelsonError("INVALID_ARGUMENT", "What is the entry to be called?", {
            remedy: "Give a name: keelson boot add NAME ...",
          });
        }
        const image = await context.find<Image>("/images", "image", options.image!);
        const entry = await context.api.call<BootEntry>("POST", "/boot-entries", {
          name,
          imageId: image.id,
          ...(options.mac === undefined ? {} : { mac: options.mac }),
          ...(options.uuid === undefined ? {} : { uuid: options.uuid }),
        });
        context.print(entry, `${name} boots ${image.name} from now on.`);
      }),
    );
  boot
    .command("set")
    .description("change an entry; another image means a new clone")
    .argument("<entry>", "its name or id")
    .option("--name <name>", "rename it")
    .option("--mac <address>", "another MAC address, 'none' for no one")
    .option("--uuid <uuid>", "another UUID, 'none' for no one")
    .option("--image <name>", "another image")
    .action(
      action(async (context, text: string, options: EntryOptions) => {
        const { id } = await find(context, text);
        const image =
          options.image === undefined
            ? undefined
            : await context.find<Image>("/images", "image", options.image);
        const orNull = (value: string) => (value === "none" ? null : value);
        const entry = await context.api.call<BootEntry>("PATCH", `/boot-entries/${id}`, {
          ...(options.name === undefined ? {} : { name: options.name }),
          ...(options.mac === undefined ? {} : { mac: orNull(options.mac) }),
          ...(options.uuid === undefined ? {} : { uuid: orNull(options.uuid) }),
          ...(image === undefined ? {} : { imageId: image.id }),
        });
        context.print(entry, `${entry.name} boots ${entry.imageName ?? "nothing"}.`);
      }),
    );
  boot
    .command("reset")
    .description("throw the machine's clone away: its next boot starts from the image again")
    .argument("<entry>", "its name or id")
    .action(
      action(async (context, text: string) => {
        const { id } = await find(context, text);
        const entry = await context.api.call<BootEntry>("POST", `/boot-entries/${id}/reset`);
        context.print(entry, `${entry.name} starts from ${entry.imageName ?? "its image"} again.`);
      }),
    );
  boot
    .command("remove")
    .alias("delete")
    .description("remove an entry and the machine's clone")
    .argument("<entry>", "its name or id")
    .action(
      action(async (context, text: string) => {
        const entry = await find(context, text);
        await context.api.call("DELETE", `/boot-entries/${entry.id}`);
        context.print(entry, `${entry.name} boots no more.`);
      }),
    );
}

function find(context: CommandContext, text: string): Promise<BootEntry> {
  return context.find<BootEntry>("/boot-entries", "boot entry", text);
}

function addClientCommands(program: Command): void {
  const clients = program
    .command("clients")
    .alias("client")
    .description("machines that were seen booting");
  clients
    .command("list", { isDefault: true })
    .description("list them, with the stage each has reached")
    .action(
      action(async (context) =>
        context.table(
          await context.api.get<Client[]>("/clients"),
          [
            { title: "MAC", value: ({ mac }) => mac, whole: true },
            { title: "ENTRY", value: ({ bootEntryName }) => bootEntryName ?? "unknown" },
            { title: "STAGE", value: ({ stage }) => stage, whole: true },
            { title: "ADDRESS", value: ({ address }) => address, whole: true },
            { title: "ARCH", value: ({ arch }) => arch },
            { title: "SESSIONS", value: ({ sessionCount }) => sessionCount, align: "right" },
            { title: "SEEN", value: ({ lastSeenAgeMs }) => `${formatDuration(lastSeenAgeMs)} ago` },
            { title: "FAILURE", value: ({ failure }) => failure },
          ],
          "No client was seen yet.",
        ),
      ),
    );
  clients
    .command("watch")
    .description("a line for each stage as it is reached, until Ctrl-C")
    .action(action(async (context) => watch(context)));
  clients
    .command("forget")
    .description("forget what was seen of a machine")
    .argument("<mac>")
    .action(
      action(async (context, mac: string) => {
        await context.api.call("DELETE", `/clients/${encodeURIComponent(mac)}`);
        context.print({ mac }, `${mac} is forgotten.`);
      }),
    );
}

async function watch(context: CommandContext): Promise<void> {
  const ended = new AbortController();
  process.once("SIGINT", () => ended.abort());
  process.once("SIGTERM", () => ended.abort());
  const told = new Map<string, string>();
  const tell = (client: Client) => {
    const reached = client.stages.at(-1);
    const key = `${reached?.stage} ${reached?.at} ${client.failure}`;
    if (told.get(client.mac) === key) return;
    told.set(client.mac, key);
    if (context.json) return console.log(JSON.stringify(client));
    const name = client.bootEntryName ?? "unknown";
    const failure = client.failure === null ? "" : `  ${client.failure}`;
    const detail = reached?.detail ? ` (${reached.detail})` : "";
    const at = clock(reached?.at ?? client.lastSeenAt);
    console.log(
      printable(`${at}  ${client.mac}  ${name}  ${reached?.stage ?? "-"}${detail}${failure}`),
    );
  };
  try {
    for await (const { event, data } of context.api.events(ended.signal)) {
      // A reset comes first: what is already there.
      if (event === "reset") (await context.api.get<Client[]>("/clients")).forEach(tell);
      if (event !== "change") continue;
      const change = JSON.parse(data) as ApiEvent;
      if (change.resource === "clients" && change.value !== null) tell(change.value as Client);
    }
  } catch (error) {
    if (!ended.signal.aborted) throw error;
  }
  if (!ended.signal.aborted) {
    throw new KeelsonError("UNAVAILABLE", `The connection to ${context.api.url} ended.`);
  }
}
