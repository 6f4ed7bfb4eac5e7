/** The pages of an installed node's console: status, menu, and what the menu leads to. Pure. */
import { wrapLine } from "#lib/terminal/wrap.ts";
import type { MediumView } from "#services/installer/schema.ts";
import type { Field, Option, Page } from "../form.ts";
import {
  backplaneFields,
  backplanePage,
  lanFields,
  lanPage,
  networkOf,
  networkProblems,
  type PortView,
  type Values,
} from "../network-form.ts";
import { passwordProblem, passwordStrength } from "../wizard/password.ts";
import { healthOf, type NodeFacts, type SlotFacts } from "./facts.ts";

export const places = [
  "status",
  "menu",
  "network",
  "backplane",
  "confirm",
  "password",
  "logs",
  "support",
  "shell",
  "restart",
  "powerOff",
  "slot",
  "reset",
] as const;
export type Place = (typeof places)[number];

export interface PageFacts {
  readonly facts: NodeFacts;
  readonly values: Values;
  /** Whole seconds until a network change reverts; undefined: none waits. */
  readonly secondsLeft: number | undefined;
  readonly log: readonly string[] | undefined;
  readonly media: readonly MediumView[] | undefined;
  readonly support: { readonly url: string; readonly place: string } | undefined;
  readonly notice: string | undefined;
  readonly busy: string | undefined;
}

const line = (text = "", bold = false): Field => ({ kind: "line", text, bold });
const back: Option = { value: "back", label: "Back" };

export function nodePage(place: Place, given: PageFacts): Page {
  const page = pages[place](given);
  const notice = given.busy ?? given.notice ?? page.notice;
  return { ...page, ...(notice === undefined ? {} : { notice }) };
}

const pages: Record<Place, (given: PageFacts) => Page> = {
  status: statusPage,
  menu: menuPage,
  network: networkMenuPage,
  backplane: backplaneMenuPage,
  confirm: confirmPage,
  password: resetPasswordPage,
  logs: logsPage,
  support: supportPage,
  shell: shellPage,
  restart: () =>
    surePage("Restart", "restart", [
      "Restart this node?",
      "Machines that have their disks here stop until it is back.",
    ]),
  powerOff: () =>
    surePage("Shut down", "powerOff", [
      "Shut this node down?",
      "Machines that have their disks here stop until somebody switches it on again.",
    ]),
  slot: slotPage,
  reset: resetPage,
};

export function portsOf(facts: NodeFacts): PortView[] {
  return (facts.network?.links ?? [])
    .filter(({ kind }) => kind === "port")
    .map(({ name, permanentMac, carrier }) => ({ name, mac: permanentMac, carrier }));
}

function addressesOf(facts: NodeFacts): string[] {
  return facts.api === undefined ? addressesAt(facts, "lan") : [...facts.api.addresses];
}

function addressesAt({ network }: NodeFacts, role: "lan" | "backplane"): string[] {
  const link = network?.links.find(({ name }) => name === network.roles[role]);
  return (link?.addresses ?? []).map(({ address }) => address.replace(/\/\d+$/, ""));
}

function statusPage({ facts }: PageFacts): Page {
  const { word, details } = healthOf(facts);
  const row = (name: string, value: string, bold = false) =>
    line(`  ${name.padEnd(12)} ${value}`, bold);
  // Browsers are not let in from the backplane (units/ports.d/api.json).
  const closed = addressesAt(facts, "backplane");
  const urls = addressesOf(facts)
    .filter((address) => !closed.includes(address))
    .map((address) => (address.includes(":") ? `https://[${address}]/` : `https://${address}/`));
  const certificates = certificateRows(facts);
  const told = details.flatMap((text) => wrapLine(text, 60));
  // What is wrong gets the rows that the rest leaves of the screen's sixteen.
  const room = Math.max(2, 11 - Math.min(4, Math.max(1, urls.length)) - certificates.length);
  const slot = facts.slots === undefined ? "" : `, slot ${facts.slots.running}`;
  return {
    title: facts.name === "" ? "not set up" : facts.name,
    fields: [
      ...(facts.unconfigured
        ? [
            line(
              "This disk is not set up: it was reset, or the installation is not complete.",
              true,
            ),
            line("Boot the installation medium and install again. Pools are kept."),
            line(),
          ]
        : []),
      ...(urls.length === 0
        ? [row("Console", "no address yet")]
        : urls
            .slice(0, 4)
            .map((url, index) => row(index === 0 ? "Console" : "", url, index === 0))),
      ...certificates.map(([name, value]) => row(name, value)),
      row("Health", word, word !== "good"),
      ...(told.length <= room
        ? told
        : [...told.slice(0, room - 1), "and more, in the browser"]
      ).map((text) => row("", text)),
      row("Version", `${facts.version}${slot}`),
      line(),
      ...nextSteps(facts, word),
    ],
    buttons: [
      { value: "menu", label: "Menu" },
      { value: "logs", label: "Logs" },
    ],
    ...(facts.developmentBuild
      ? { notice: "Development build: not signed with a release key. Not for data you need." }
      : {}),
  };
}

/** The certificate's own fingerprint is what browsers show, its CA's what `keelson login` shows. */
function certificateRows({ api }: NodeFacts): [string, string][] {
  const fingerprint = api?.fingerprint ?? null;
  const ca = api?.caFingerprint ?? null;
  if (fingerprint === null) return [["Certificate", "not there yet"]];
  return [
    ...fingerprintRows("Certificate", fingerprint),
    ...(ca === null || ca === fingerprint ? [] : fingerprintRows("Its CA", ca)),
  ];
}

/** 32 bytes as hex fill two lines of 16. */
function fingerprintRows(name: string, fingerprint: string): [string, string][] {
  const bytes = fingerprint.split(":");
  return [
    [name, `SHA-256 ${bytes.slice(0, 16).join(":")}`],
    ["", `        ${bytes.slice(16).join(":")}`],
  ];
}

function nextSteps(facts: NodeFacts, word: string): Field[] {
  if (facts.unconfigured) return [];
  if (word.startsWith("starting")) return [line("It is starting; this takes a minute or two.")];
  if (!word.startsWith("good")) {
    return [line("Look at Logs, or at the conditions in the browser.")];
  }
  return [
    line(
      "Open the address in a browser and compare the certificate's fingerprint, or use keelson login and compare its CA's. Log in as admin.",
    ),
  ];
}

function menuPage({ facts }: PageFacts): Page {
  const item = (id: string, label: string): Field => ({ kind: "item", id, label });
  return {
    title: "Menu",
    fields: [
      ...(facts.network === undefined
        ? []
        : [item("network", "Network            addresses, bond, VLAN, backplane")]),
      item("password", "Password reset     a new password for admin"),
      item("logs", "Logs               what the services say"),
      item("support", "Support bundle     for whoever helps you, without secrets"),
      item("shell", "Shell              recorded; asks for admin's password"),
      ...(facts.slots === undefined
        ? []
        : [item("slot", `Other version      ${otherVersion(facts.slots)}`)]),
      item("restart", "Restart"),
      item("powerOff", "Shut down"),
      item("reset", "Factory reset      forget all settings"),
    ],
    buttons: [back],
  };
}

const pick = (problems: Record<string, string>, ids: readonly string[]) =>
  Object.fromEntries(Object.entries(problems).filter(([id]) => ids.includes(id)));

function faults({ facts, values }: PageFacts): Record<string, string> {
  const lan = facts.network?.links.find(({ name }) => name === facts.network?.roles.lan);
  return networkProblems(
    networkOf(values, facts.network?.config),
    (lan?.addresses ?? []).map(({ address }) => address),
  );
}

function networkMenuPage(given: PageFacts): Page {
  return {
    title: "Network: LAN",
    problems: pick(faults(given), lanFields),
    fields: lanPage(given.values, portsOf(given.facts)),
    buttons: [{ value: "apply", label: "Apply" }, { value: "backplane", label: "Backplane" }, back],
    notice: "A change goes back by itself after 60 s unless it is confirmed.",
  };
}

function backplaneMenuPage(given: PageFacts): Page {
  return {
    title: "Network: backplane",
    problems: pick(faults(given), backplaneFields),
    fields: backplanePage(given.values, portsOf(given.facts)),
    buttons: [{ value: "apply", label: "Apply" }, back],
    notice: "A change goes back by itself after 60 s unless it is confirmed.",
  };
}

function confirmPage({ facts, secondsLeft }: PageFacts): Page {
  const pending = facts.network?.pending;
  const last = facts.network?.lastChange;
  if (pending == null) {
    return {
      title: "Network",
      fields: [
        line(last == null ? "No change is waiting." : `The change was ${last.outcome}.`, true),
        ...(last == null ? [] : [line(last.reason)]),
      ],
      buttons: [back],
    };
  }
  return {
    title: "Network",
    fields: [
      line("The new settings are in force.", true),
      line(),
      line(`They go back by themselves in ${secondsLeft ?? pending.secondsLeft} s.`),
      line(),
      line("Can the node be reached as it should be? Its addresses now:"),
      ...addressesOf(facts).map((address) => line(`    ${address}`)),
    ],
    buttons: [
      // First, so that an Enter too many confirms nothing.
      { value: "revert", label: "Go back now" },
      { value: "keep", label: "Keep them" },
    ],
  };
}

export function resetPasswordProblems(values: Values): Record<string, string> {
  const problem = passwordProblem(values.newPassword ?? "");
  return {
    ...(problem === undefined ? {} : { newPassword: problem }),
    ...(values.newPassword === values.newPasswordAgain
      ? {}
      : { newPasswordAgain: "The two passwords are not the same." }),
  };
}

function resetPasswordPage({ values }: PageFacts): Page {
  const typed = values.newPassword ?? "";
  return {
    title: "Password reset",
    problems: resetPasswordProblems(values),
    fields: [
      line(
        "A new password for the user admin. It needs no old one: whoever stands here has the machine. All of admin's sessions end, and the audit log tells of it.",
      ),
      line(),
      { kind: "password", id: "newPassword", label: "New password" },
      { kind: "password", id: "newPasswordAgain", label: "Once more" },
      { kind: "check", id: "removeSecondFactor", label: "Also remove admin's second factor" },
      line(),
      ...(typed === "" ? [] : [line(`    Strength: ${passwordStrength(typed)}`)]),
    ],
    buttons: [{ value: "setPassword", label: "Set password" }, back],
  };
}

function logsPage({ log, values }: PageFacts): Page {
  const wanted = (values.search ?? "").trim();
  return {
    title: wanted === "" ? "Logs" : `Logs with '${wanted.slice(0, 30)}'`,
    fields: [
      { kind: "text", id: "search", label: "Search for" },
      line(),
      ...(log === undefined ? [line("Reading ...")] : []),
      ...(log?.length === 0 ? [line("Nothing found.")] : []),
      ...(log ?? []).map((text) => line(text)),
    ],
    buttons: [
      { value: "readLogs", label: "Search" },
      { value: "older", label: "Up" },
      { value: "newer", label: "Down" },
      back,
    ],
  };
}

function supportPage({ media, support }: PageFacts): Page {
  return {
    title: "Support bundle",
    fields: [
      line(
        "Logs, states and settings of this node, packed for whoever helps you. Passwords, keys and tokens are taken out.",
      ),
      line(),
      ...(support === undefined
        ? [
            {
              kind: "item" as const,
              id: "bundle:url",
              label: "Make it, to download with a browser",
            },
            ...(media ?? []).map<Field>(({ device, label }) => ({
              kind: "item",
              id: `bundle:${device}`,
              label: `Make it, on ${device} ${label === "" ? "" : `(${label})`}`,
            })),
            ...(media?.length === 0
              ? [line("    Plug in a USB stick (vfat, ext4) to save it there.")]
              : []),
          ]
        : support.url === ""
          ? [line(`Saved: ${support.place}`, true)]
          : [
              line("Ready for one download within 15 minutes, at:", true),
              line(),
              line(`  ${support.url}`),
            ]),
    ],
    buttons: [back],
  };
}

function shellPage(): Page {
  return {
    title: "Shell",
    fields: [
      line(
        "A shell as root on this line, for repair. That it was opened and closed is recorded in the audit log. Leave it with: exit",
      ),
      line(),
      { kind: "password", id: "shellPassword", label: "Password of admin" },
    ],
    buttons: [{ value: "openShell", label: "Open" }, back],
  };
}

/** Without colour, what can't be done says so in words. */
function otherVersion({ other, otherVersion: version, why }: SlotFacts): string {
  if (why !== undefined) return `not possible: slot ${other} ${why}`;
  return `boot ${version ?? "it"} in slot ${other}`;
}

function slotPage({ facts }: PageFacts): Page {
  const slots = facts.slots;
  if (slots === undefined) return { title: "Other version", fields: [], buttons: [back] };
  return {
    title: "Other version",
    fields: [
      line(`Running: ${facts.version}, slot ${slots.running}.`),
      line(`Other slot: ${slots.otherVersion ?? "no version"}, slot ${slots.other}.`),
      line(),
      ...(slots.why === undefined
        ? [
            line("The node restarts with the other version.", true),
            line("Machines that have their disks here stop until it is back."),
          ]
        : [
            line(`Slot ${slots.other} ${slots.why}: it can't be booted.`, true),
            line("Upgrades put another version in it, in the browser or with keelson upgrade."),
          ]),
    ],
    buttons:
      slots.why === undefined
        ? [
            { ...back, label: "Back" },
            { value: "otherSlot", label: "Boot it" },
          ]
        : [back],
  };
}

function resetPage({ facts, values }: PageFacts): Page {
  const named = values.resetName?.trim() === facts.name && facts.name !== "";
  return {
    title: "Factory reset",
    problems: named ? {} : { resetName: `Type ${facts.name} to reset this node.` },
    fields: [
      line(
        "This forgets the node's settings, users, volumes' names and exports, and restarts.",
        true,
      ),
      line(
        "The pool keeps its blocks unless it is erased too; then every volume is lost. Afterwards install again from the medium.",
      ),
      line(),
      { kind: "text", id: "resetName", label: "Name of this node" },
      { kind: "check", id: "erasePool", label: "Erase this node's pool too" },
    ],
    buttons: [{ value: "reset", label: "Reset" }, back],
  };
}

/** Back first: an Enter too many must not restart anything. */
function surePage(title: string, value: string, texts: readonly string[]): Page {
  return {
    title,
    fields: texts.map((text, index) => line(text, index === 0)),
    buttons: [back, { value, label: title }],
  };
}
