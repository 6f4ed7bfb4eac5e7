import type { Command } from "commander";
import { KeelsonError } from "#lib/model/errors.ts";
import { formatSize } from "#lib/model/size.ts";
import type { Condition, Netboot, Node, Store, Task } from "#services/api/schema.ts";
import { action, clock, collect } from "../context.ts";
import { formatDuration, formatFacts } from "../table.ts";

export function addNodeCommands(program: Command): void {
  program
    .command("node")
    .description("show the node, its services and its store")
    .action(
      action(async (context) => {
        const [node, store] = await Promise.all([
          context.api.get<Node>("/node"),
          context.api.get<Store>("/store"),
        ]);
        context.print({ node, store }, () => describe(node, store));
      }),
    );

  addConditionCommands(program);
  addTaskCommands(program);
  addNetbootCommands(program);
}

function describe(node: Node, store: Store): string {
  const size = (bytes: number | null) => (bytes === null ? "unknown" : formatSize(bytes));
  return formatFacts([
    ["node", node.name],
    ["version", `${node.version}${node.devBuild ? " (development build)" : ""}`],
    ["up for", formatDuration(node.uptimeMs)],
    [
      "addresses",
      node.addresses.map((entry) => `${entry.address} (${entry.interface})`).join(", "),
    ],
    ["iSCSI portals", node.portals.join(", ") || null],
    ["CA fingerprint", node.certificateFingerprint],
    ["store", `${store.state}${store.message === null ? "" : `: ${store.message}`}`],
    ["space", `${size(store.freeBytes)} of ${size(store.sizeBytes)} free`],
    ...node.services.map(
      ({ name, state, message }) =>
        [
          name,
          state === "unreachable" && message !== null ? `${state}: ${message}` : state,
        ] as const,
    ),
  ]);
}

function addConditionCommands(program: Command): void {
  const conditions = program
    .command("conditions")
    .description("faults that are there, and what to do");
  conditions
    .command("list", { isDefault: true })
    .description("list them, the worst first")
    .option("--all", "also those that are not there")
    .action(
      action(async (context, options: { all?: boolean }) => {
        const ranks = ["critical", "warning", "notice", "info"];
        const rows = (await context.api.get<Condition[]>("/conditions"))
          .filter((each) => options.all || (each.status !== "false" && each.mutedUntil === null))
          .sort((a, b) => ranks.indexOf(a.severity) - ranks.indexOf(b.severity));
        context.table(
          rows,
          [
            { title: "SEVERITY", value: ({ severity }) => severity, whole: true },
            {
              title: "STATUS",
              value: ({ status }) =>
                status === "unknown" ? "unknown" : status === "true" ? "there" : "no",
              whole: true,
            },
            { title: "ID", value: ({ id }) => id },
            { title: "REASON", value: ({ reason }) => reason },
            { title: "WHAT TO DO", value: ({ remedy }) => remedy },
            { title: "SINCE", value: ({ since }) => clock(since), whole: true },
          ],
          "Nothing is wrong.",
        );
      }),
    );
  conditions
    .command("mute")
    .description("don't show a fault for some time; it comes back when it gets worse")
    .argument("<id>", "as `keelson conditions` shows it")
    .option("--hours <n>", "for how long, 0 ends a mute", "24")
    .action(
      action(async (context, id: string, options: { hours: string }) => {
        const seconds = Math.round(Number(options.hours) * 3600);
        if (!Number.isFinite(seconds)) {
          throw new KeelsonError("INVALID_ARGUMENT", `${options.hours} is not a number of hours.`);
        }
        const condition = await context.api.call<Condition>(
          "PUT",
          `/conditions/${encodeURIComponent(id)}/mute`,
          { seconds },
        );
        const until = condition.mutedUntil;
        context.print(
          condition,
          until === null ? `${id} is shown.` : `${id} is muted until ${clock(until)}.`,
        );
      }),
    );
}

function addTaskCommands(program: Command): void {
  const tasks = program.command("tasks").description("what the node works on");
  tasks
    .command("list", { isDefault: true })
    .description("list them, the newest first")
    .action(
      action(async (context) =>
        context.table(
          await context.api.get<Task[]>("/tasks"),
          [
            { title: "ID", value: ({ id }) => id.slice(0, 8), whole: true },
            { title: "TASK", value: ({ title }) => title },
            { title: "STATE", value: ({ state }) => state, whole: true },
            { title: "PHASE", value: ({ phase }) => phase },
            {
              title: "DONE",
              value: ({ progressPercent }) =>
                progressPercent === null ? null : `${Math.floor(progressPercent)} %`,
              align: "right",
            },
            { title: "STARTED", value: ({ startedAt }) => clock(startedAt), whole: true },
            { title: "FAILURE", value: ({ failure }) => failure },
          ],
          "No tasks.",
        ),
      ),
    );
  tasks
    .command("cancel")
    .description("cancel a task")
    .argument("<id>", "its id, or the beginning of it")
    .action(
      action(async (context, id: string) => {
        const all = await context.api.get<Task[]>("/tasks");
        const found = all.filter((task) => task.id.startsWith(id));
        if (found.length !== 1) {
          throw new KeelsonError("NOT_FOUND", `${found.length} tasks begin with ${id}.`);
        }
        await context.api.call("POST", `/tasks/${found[0].id}/cancel`);
        context.print(found[0], `${found[0].title} is being cancelled.`);
      }),
    );
}

interface NetbootOptions {
  readonly pool?: string;
  readonly gateway?: string;
  readonly dns?: string[];
  readonly lease?: string;
}

function addNetbootCommands(program: Command): void {
  const netboot = program
    .command("netboot")
    .description("network boot by interface: DHCP server, proxy or off");
  netboot
    .command("show", { isDefault: true })
    .description("show what each interface does")
    .action(
      action(async (context) => {
        const document = await context.api.get<Netboot>("/netboot");
        if (context.json) return context.print(document, "");
        if (document.service !== "running") {
          const why = document.message === null ? "" : `: ${document.message}`;
          console.log(`The netboot service is ${document.service}${why}`);
        }
        context.table(
          document.interfaces,
          [
            { title: "INTERFACE", value: ({ name }) => name, whole: true },
            {
              title: "ADDRESS",
              value: ({ address, prefixLength }) =>
                address === null ? null : `${address}/${prefixLength}`,
              whole: true,
            },
            { title: "MODE", value: ({ settings }) => settings.mode, whole: true },
            {
              title: "POOL",
              value: ({ settings: { pool } }) =>
                pool === null ? null : `${pool.first}-${pool.last}`,
            },
            { title: "GATEWAY", value: ({ settings }) => settings.gateway },
            { title: "DNS", value: ({ settings }) => settings.dns.join(",") },
            { title: "PROBLEM", value: ({ message }) => message },
          ],
          "No interfaces.",
        );
      }),
    );
  netboot
    .command("set")
    .description("set what an interface does")
    .argument("<interface>", "its name, such as enp0s3")
    .argument("<mode>", "server, proxy or off")
    .option("--pool <first-last>", "addresses that the server leases")
    .option("--gateway <address>", "router for the clients")
    .option("--dns <address>", "name server for the clients (repeatable)", collect)
    .option("--lease <seconds>", "how long a lease lasts", "3600")
    .addHelpText(
      "after",
      `
Examples:
  keelson netboot set enp0s3 server --pool 10.77.0.100-10.77.0.199 --dns 10.77.0.1
  keelson netboot set enp0s3 proxy
  keelson netboot set enp0s3 off`,
    )
    .action(
      action(async (context, name: string, mode: string, options: NetbootOptions) => {
        const [first, last, ...rest] = options.pool?.split("-") ?? [];
        if (options.pool !== undefined && (last === undefined || rest.length > 0)) {
          throw new KeelsonError("INVALID_ARGUMENT", `${options.pool} is not a pool.`, {
            remedy: "Write it like 10.77.0.100-10.77.0.199.",
          });
        }
        const document = await context.api.call<Netboot>("PUT", "/netboot", {
          interface: name,
          settings: {
            mode,
            pool: options.pool === undefined ? null : { first, last },
            gateway: options.gateway ?? null,
            dns: options.dns ?? [],
            leaseSeconds: Number(options.lease),
          },
        });
        const now = document.interfaces.find((entry) => entry.name === name);
        const trouble = now?.message ?? null;
        context.print(document, `${name}: ${mode}.${trouble === null ? "" : ` ${trouble}`}`);
      }),
    );
}
