import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import type { Command } from "commander";
import { parseCommentedJson } from "#lib/answer-file/commented-json.ts";
import { KeelsonError } from "#lib/model/errors.ts";
import type { Firewall, Network } from "#services/api/network-schema.ts";
import { action, type CommandContext } from "../context.ts";
import { formatFacts, formatTable } from "../table.ts";
import { readStandardInput } from "../terminal.ts";

const onlySeconds = /^\d{1,4}$/;

/** The node's own networks; network boot is `keelson netboot`. */
export function addNetworkCommands(program: Command): void {
  const network = program
    .command("network")
    .description("the node's own networks: LAN, backplane, bonds, VLANs, firewall");

  network
    .command("show", { isDefault: true })
    .description("show the networks, as configured and as they are")
    .option("--config", "print the configuration alone, as `set` takes it")
    .action(
      action(async (context, options: { config?: boolean }) => {
        const document = await context.api.get<Network>("/network");
        if (options.config) {
          context.print(document.config, JSON.stringify(document.config, null, 2));
        } else context.print(document, () => describe(document));
      }),
    );

  network
    .command("set")
    .description("try other networks; the node takes them back unless you confirm")
    .argument("<file>", "JSON, comments allowed: as an answer file's network; - is standard input")
    .option("--within <seconds>", "how long to wait for the confirmation, 10 to 900", "60")
    .option("--confirm", "confirm by itself, once the node answers with the change in place")
    .addHelpText(
      "after",
      `
Examples:
  keelson network show --config > networks.json
  keelson network set networks.json --within 120
  keelson network confirm`,
    )
    .action(
      action(async (context, file: string, options: { within: string; confirm?: boolean }) => {
        if (!onlySeconds.test(options.within)) {
          throw new KeelsonError(
            "INVALID_ARGUMENT",
            `${options.within} is not a number of seconds.`,
          );
        }
        const text = file === "-" ? await readStandardInput() : readText(file);
        const seconds = Number(options.within);
        const { id } = await context.api.call<{ id: string }>("POST", "/network/apply", {
          config: parseCommentedJson(text, file),
          confirmWithinSeconds: seconds,
        });
        if (!options.confirm) {
          context.print(
            { id },
            `The change is being tried. Unless you run \`keelson network confirm\` within ${seconds} seconds, the node takes it back.`,
          );
          return;
        }
        await untilApplied(context, id, seconds);
        await context.api.call("POST", "/network/confirm", { id });
        context.print({ id }, "The node answers with the change in place; it is confirmed.");
      }),
    );

  network
    .command("confirm")
    .description("keep the change that is being tried")
    .action(
      action(async (context) => {
        const { id } = await waiting(context);
        await context.api.call("POST", "/network/confirm", { id });
        context.print({ id }, "Confirmed: the node keeps these networks.");
      }),
    );

  network
    .command("revert")
    .description("take back the change that is being tried")
    .action(
      action(async (context) => {
        const { id } = await waiting(context);
        await context.api.call("POST", "/network/revert", { id });
        context.print({ id }, "Taken back: the node has its former networks.");
      }),
    );

  network
    .command("firewall")
    .description("show what is open, on which interface, for which service")
    .option("--rules", "the rules as nft has them")
    .action(
      action(async (context, options: { rules?: boolean }) => {
        const document = await context.api.get<Firewall>("/network/firewall");
        context.print(document, () => (options.rules ? document.rules : describeOpen(document)));
      }),
    );
}

async function waiting(context: CommandContext): Promise<NonNullable<Network["pending"]>> {
  const { pending, lastChange } = await context.api.get<Network>("/network");
  if (pending !== null) return pending;
  throw new KeelsonError("NOT_FOUND", "No change of the network waits for confirmation.", {
    ...(lastChange?.outcome === "reverted"
      ? { remedy: `The last one was reverted: ${lastChange.reason}` }
      : {}),
  });
}

/** The node may be out of reach for a while; it reverts by itself in the end. */
async function untilApplied(context: CommandContext, id: string, seconds: number): Promise<void> {
  const end = Date.now() + seconds * 1000;
  let last: unknown;
  while (Date.now() < end) {
    await sleep(1_000);
    try {
      const { pending, lastChange } = await context.api.get<Network>("/network");
      if (pending?.id === id && pending.applied) return;
      if (lastChange?.id === id) {
        throw new KeelsonError("CONFLICT", `The change was reverted. ${lastChange.reason}`);
      }
    } catch (error) {
      if (error instanceof KeelsonError && error.code === "CONFLICT") throw error;
      last = error;
    }
  }
  throw new KeelsonError("TIMEOUT", "The node did not answer with the change in place.", {
    remedy: "It takes the change back by itself.",
    cause: last,
  });
}

function describe(document: Network): string {
  const { config, pending, lastChange, roles, links, problems, differences, firewall } = document;
  const running = pending?.config ?? config;
  const network = (role: "lan" | "backplane" | "netboot") => {
    const wanted = running[role];
    if (wanted === undefined) return null;
    const link = links.find(({ name }) => name === roles[role]);
    const has = link?.addresses.map(({ address }) => address).join(", ");
    return `${roles[role] ?? `no ${wanted.interface}`}  ${has || "no address"}${wanted.address === "dhcp" ? " (DHCP)" : ""}`;
  };
  const facts = formatFacts([
    ["LAN", network("lan")],
    ["backplane", network("backplane")],
    ["netboot", network("netboot")],
    ["firewall", firewall.active ? "active" : `NOT ACTIVE: ${firewall.failure}`],
    ...(pending === null
      ? []
      : [
          [
            "change",
            `waits for \`keelson network confirm\`, ${pending.secondsLeft} s left`,
          ] as const,
        ]),
    ...(lastChange?.outcome === "reverted" && pending === null
      ? [["last change", `reverted: ${lastChange.reason}`] as const]
      : []),
  ]);
  const table = formatTable(
    [
      { title: "LINK", value: ({ name }) => name, whole: true },
      { title: "KIND", value: kindOf, whole: true },
      { title: "STATE", value: ({ up, carrier }) => (carrier ? "up" : up ? "no link" : "off") },
      {
        title: "SPEED",
        value: ({ speedMbps }) => (speedMbps === undefined ? null : `${speedMbps} Mb/s`),
      },
      { title: "MTU", value: ({ mtu }) => mtu, align: "right" },
      {
        title: "ADDRESSES",
        value: ({ addresses }) => addresses.map(({ address }) => address).join(", "),
      },
    ],
    links,
    process.stdout.columns,
  );
  const faults = [
    ...problems.map(({ path, message }) => `${path}: ${message}`),
    ...differences.map(({ message }) => message),
    ...(document.restartNeeded === null ? [] : [document.restartNeeded]),
  ];
  return [facts, "", table, ...(faults.length === 0 ? [] : ["", ...faults])].join("\n");
}

function kindOf({ kind, bond, vlan, master }: Network["links"][number]): string {
  if (bond !== undefined) return `bond on ${bond.activePort ?? "no port"}`;
  if (vlan !== undefined) return `VLAN ${vlan.id} of ${vlan.parent}`;
  return master === undefined ? kind : `${kind} of ${master}`;
}

function describeOpen({ open, active, failure }: Firewall): string {
  const table = formatTable(
    [
      { title: "PORT", value: ({ port, protocol }) => `${port}/${protocol}`, whole: true },
      { title: "SERVICE", value: ({ service }) => service },
      { title: "FOR", value: ({ why }) => why },
      {
        title: "INTERFACES",
        value: ({ interfaces, networks }) =>
          interfaces === null
            ? "all"
            : interfaces.length === 0
              ? `none (no ${networks.join(" or ")})`
              : interfaces.join(", "),
      },
      {
        title: "NEW/S",
        value: ({ newPerSecond }) => newPerSecond,
        align: "right",
      },
    ],
    open,
    process.stdout.columns,
  );
  return active ? table : `THE FIREWALL IS NOT ACTIVE: ${failure}\n\n${table}`;
}

function readText(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch (cause) {
    throw new KeelsonError("NOT_FOUND", `${file} can't be read: ${(cause as Error).message}.`, {
      object: file,
      cause,
    });
  }
}
