/** The wizard's pages, made from what is typed and what the installer sees. Pure. */
import { formatDuration } from "#lib/model/duration.ts";
import { formatSize } from "#lib/model/size.ts";
import type {
  DiskView,
  InstallerView,
  MediumView,
  PlanView,
  Probe,
} from "#services/installer/schema.ts";
import type { Field, Option, Page } from "../form.ts";
import {
  backplaneFields,
  backplanePage,
  lanFields,
  lanPage,
  networkOf,
  networkProblems,
  networkRows,
  type Values,
} from "../network-form.ts";
import { answerProblems, answersText, chosenDisk } from "./answers.ts";
import { passwordProblem, passwordStrength } from "./password.ts";

export const steps = [
  "welcome",
  "disk",
  "network",
  "backplane",
  "test",
  "time",
  "password",
  "summary",
  "progress",
] as const;
export type Step = (typeof steps)[number];
/** Side pages of the summary. */
export type Side = "save" | "show";

export interface StepFacts {
  readonly view: InstallerView;
  readonly values: Values;
  readonly passwordHash: string | undefined;
  readonly probes: readonly Probe[] | undefined;
  readonly plan: PlanView | undefined;
  readonly media: readonly MediumView[] | undefined;
  /** Said by the last effect, until the next key. */
  readonly notice: string | undefined;
  readonly busy: string | undefined;
}

const line = (text = "", bold = false): Field => ({ kind: "line", text, bold });
const next: Option = { value: "next", label: "Next" };
const back: Option = { value: "back", label: "Back" };

export function stepPage(step: Step, facts: StepFacts): Page {
  const page = pages[step](facts);
  const notice = facts.busy ?? facts.notice ?? page.notice;
  const at = steps.indexOf(step);
  const numbered =
    step === "welcome" || step === "progress"
      ? page.title
      : `Step ${at} of ${steps.length - 2}: ${page.title}`;
  return { ...page, title: numbered, ...(notice === undefined ? {} : { notice }) };
}

const pages: Record<Step, (facts: StepFacts) => Page> = {
  welcome: welcomePage,
  disk: diskPage,
  network: networkPage,
  backplane: backplaneStep,
  test: testPage,
  time: timePage,
  password: passwordPage,
  summary: summaryPage,
  progress: progressPage,
};

function welcomePage({ view }: StepFacts): Page {
  const { phase } = view;
  return {
    title: "Setup",
    fields: [
      ...(phase.kind === "refused" ? refusalLines(phase.message) : []),
      line("Keelson turns this machine into a storage and netboot appliance.", true),
      line(),
      line(
        "This wizard asks for the disk, the network, name and time, and a password. Nothing is written to any disk before the summary is confirmed.",
      ),
      line(),
      line(
        `Addresses of this machine: ${view.addresses.length === 0 ? "none yet" : view.addresses.join(", ")}`,
      ),
      line(
        `Disks: ${
          view.disks
            .filter(({ medium }) => !medium)
            .map((disk) => `${disk.path} (${formatSize(disk.sizeBytes)})`)
            .join(", ") || "none"
        }`,
      ),
      ...(view.diskFault === null ? [] : [line(`Disks can't be listed: ${view.diskFault}`)]),
      line(),
      line(
        "While this page is shown, a medium labelled KEELSON-SEED with the answer file keelson-answers.json installs without asking.",
      ),
    ],
    buttons: [
      { value: "next", label: "Set up this machine" },
      { value: "restart", label: "Restart" },
      { value: "powerOff", label: "Power off" },
    ],
    ...(view.developmentKey
      ? { notice: "Development build: not signed with a release key. Not for data you need." }
      : {}),
  };
}

function refusalLines(message: string): Field[] {
  const [first, ...rest] = message.split("\n");
  const impossible = first.startsWith("Installation impossible");
  return [
    line(impossible ? first : `Answers refused: ${first}`, true),
    ...rest.map((text) => line(text)),
    line(),
  ];
}

function diskLabel(disk: DiskView): string {
  const what = [disk.model, disk.serial].filter(Boolean);
  return [disk.path.padEnd(14), formatSize(disk.sizeBytes).padStart(9), " ", what.join(", ")]
    .join(" ")
    .trimEnd()
    .slice(0, 70);
}

/** Disks that can be installed to; the others are told with the reason. */
function usable(disk: DiskView, view: InstallerView): string | undefined {
  if (disk.readOnly) return "read-only";
  if (disk.sizeBytes < view.minimumDiskBytes) {
    return `too small, ${formatSize(view.minimumDiskBytes)} are needed`;
  }
  return undefined;
}

function diskPage({ view, values }: StepFacts): Page {
  const disks = view.disks.filter(({ medium }) => !medium);
  const disk = chosenDisk(values, view);
  const pools = disk?.contents.flatMap(({ pool }) => pool ?? []) ?? [];
  const others = disk?.contents.filter(({ pool }) => pool === null) ?? [];
  const kept = view.disks.flatMap((each) =>
    each === disk ? [] : each.contents.filter(({ pool }) => pool !== null),
  );
  const problems: Record<string, string> = {};
  if (disk === undefined) problems.disk = "Choose the disk to install to.";
  const why = disk === undefined ? undefined : usable(disk, view);
  if (disk !== undefined && why !== undefined) problems.disk = `${disk.path} is ${why}.`;
  if (pools.length > 1 && values.pools === "keep") {
    problems.pools = "This disk holds several pools; only one could be kept. Use another disk.";
  }
  if (pools.length > 0 && values.pools === "erase") {
    const wanted = pools.map(poolWord).join(" ");
    if (values.poolName?.trim() !== wanted) {
      problems.poolName = `Type ${wanted} to erase ${pools.length === 1 ? "this pool" : "these pools"} and all volumes in it.`;
    }
  }
  if (others.length > 0 && values.eraseOther !== "yes") {
    problems.eraseOther = "Say that it may be erased, or choose another disk.";
  }
  return {
    title: "Disk",
    problems,
    fields: [
      line("Keelson is installed to:"),
      ...disks.map<Field>((each) => ({
        kind: "option",
        id: "disk",
        value: each.path,
        label: diskLabel(each),
      })),
      ...(disks.length === 0
        ? [line("There is no disk. Attach one: it is seen at once.", true)]
        : []),
      line(),
      ...(disk === undefined
        ? []
        : [line(`On ${disk.path}: ${disk.contents.length === 0 ? "nothing" : ""}`)]),
      ...(disk?.contents ?? []).map(({ text, pool }) =>
        line(`    ${pool !== null && values.pools === "keep" ? "kept:  " : "erased:"} ${text}`),
      ),
      ...(pools.length === 0
        ? []
        : [
            {
              kind: "choice" as const,
              id: "pools",
              label: "Pool on it",
              options: [
                { value: "keep", label: "keep and use it" },
                { value: "erase", label: "erase it" },
              ],
            },
          ]),
      ...(pools.length > 0 && values.pools === "erase"
        ? [
            line(`  To erase type: ${pools.map(poolWord).join(" ")}`),
            { kind: "text" as const, id: "poolName", label: "Pool to erase" },
          ]
        : []),
      ...(others.length === 0
        ? []
        : [
            {
              kind: "check" as const,
              id: "eraseOther",
              label: pools.length === 0 ? "Erase all that is on it" : "Erase the rest of it",
            },
          ]),
      ...(kept.length === 0 || disk === undefined
        ? []
        : [
            line(),
            line("Not touched, on other disks:"),
            ...kept.map(({ text }) => line(`    ${text}`)),
          ]),
    ],
    buttons: [next, back],
  };
}

/** What is typed to erase a pool: its name, or the start of its id. */
export function poolWord(pool: { readonly id: string; readonly name: string }): string {
  return pool.name === "" ? pool.id.slice(0, 8) : pool.name;
}

const pick = (problems: Record<string, string>, ...ids: string[]) =>
  Object.fromEntries(Object.entries(problems).filter(([id]) => ids.includes(id)));

/** Addresses with prefix length are what the LAN has by DHCP on this live system. */
function networkFaults({ view, values }: StepFacts): Record<string, string> {
  const addresses = view.interfaces.flatMap((port) =>
    values.port === "first" || port.mac === values.port ? port.addresses : [],
  );
  return networkProblems(networkOf(values), addresses);
}

function networkPage(facts: StepFacts): Page {
  return {
    title: "LAN",
    problems: pick(networkFaults(facts), ...lanFields),
    fields: lanPage(facts.values, facts.view.interfaces),
    buttons: [next, back],
  };
}

function backplaneStep(facts: StepFacts): Page {
  return {
    title: "Backplane",
    problems: pick(networkFaults(facts), ...backplaneFields),
    fields: backplanePage(facts.values, facts.view.interfaces),
    buttons: [next, back],
  };
}

function testPage({ probes }: StepFacts): Page {
  const failed = probes?.filter(({ ok }) => !ok) ?? [];
  return {
    title: "Network test",
    fields: [
      line("The network settings, tried on this machine now:"),
      line(),
      ...(probes ?? []).map(({ what, ok, result }) =>
        line(`  ${ok ? "ok    " : "FAILED"}  ${what}: ${result}`, !ok),
      ),
      ...(probes === undefined ? [line("  Being tried; this takes up to half a minute.")] : []),
      line(),
      ...(failed.length === 0
        ? []
        : [
            line(
              "Something did not answer. That may be as it should be (a firewall, a cable that comes later). Go back to change the settings, or go on with them as they are.",
            ),
          ]),
    ],
    buttons: [
      ...(probes === undefined || failed.length === 0
        ? [next]
        : [{ value: "next", label: "Go on all the same" }]),
      back,
      { value: "again", label: "Test again" },
    ],
  };
}

const timeZones = Intl.supportedValuesOf("timeZone");

function timePage({ view, values, passwordHash }: StepFacts): Page {
  const all = answerProblems(values, view, passwordHash);
  const typed = values.timeZone?.trim().toLowerCase() ?? "";
  const matches = timeZones.filter((name) => name.toLowerCase().includes(typed));
  const exact = all.timeZone === undefined;
  const shown = matches.slice(0, 6).join(", ");
  const problems = pick(all, "node.name", "timeZone", "ntp");
  if (!exact && matches.length > 0 && typed !== "") {
    problems.timeZone = `${problems.timeZone}\nDid you mean: ${shown}${matches.length > 6 ? ", ..." : ""}`;
  }
  return {
    title: "Name and time",
    problems,
    fields: [
      line("How this node is called, on the network and on its console:"),
      { kind: "text", id: "node.name", label: "Host name" },
      line(),
      line(
        "Clients trust its clock, so it should have a time server. Without one given here it takes what DHCP says, else Debian's.",
      ),
      { kind: "text", id: "timeZone", label: "Time zone" },
      { kind: "text", id: "ntp", label: "Time servers" },
      line("    Time zone such as Europe/Stockholm; servers with blanks between them."),
    ],
    buttons: [next, back],
  };
}

export function passwordProblems({ values, passwordHash }: StepFacts): Record<string, string> {
  const password = values.password ?? "";
  const again = values.passwordAgain ?? "";
  if (password === "" && again === "" && passwordHash !== undefined) return {};
  const problem = passwordProblem(password);
  return {
    ...(problem === undefined ? {} : { password: problem }),
    ...(password === again ? {} : { passwordAgain: "The two passwords are not the same." }),
  };
}

function passwordPage(facts: StepFacts): Page {
  const { values, passwordHash } = facts;
  const typed = values.password ?? "";
  const set = passwordHash !== undefined && typed === "";
  return {
    title: "Password",
    problems: passwordProblems(facts),
    fields: [
      line(
        "Password of the user admin, for the console in the browser and the shell here. Only its hash is kept. It can be reset at this node's own screen, nowhere else.",
      ),
      line(),
      ...(set
        ? [line("A password is set. Type a new one to change it, or go on.", true), line()]
        : []),
      { kind: "password", id: "password", label: "Password" },
      { kind: "password", id: "passwordAgain", label: "Once more" },
      line(),
      ...(typed === "" ? [] : [line(`    Strength: ${passwordStrength(typed)}`)]),
    ],
    buttons: [next, back],
  };
}

function summaryPage({ view, values, plan }: StepFacts): Page {
  const disk = chosenDisk(values, view);
  const row = (name: string, value: string) => line(`${name.padEnd(14)} ${value}`);
  return {
    title: "Summary",
    fields: [
      row("Host name", values["node.name"] ?? ""),
      row("Disk", disk === undefined ? "" : diskLabel(disk).replace(/ +/g, " ")),
      ...networkRows(values, view.interfaces).map(([name, value]) => row(name, value)),
      row("Time", `${values.timeZone}, servers: ${values.ntp || "by DHCP or Debian's"}`),
      row("Password", "set"),
      line(),
      ...(plan === undefined ? [line("Looking at the disks ...")] : planLines(plan)),
    ],
    buttons: [
      { value: "install", label: "Install" },
      back,
      { value: "save", label: "Save answers" },
      { value: "show", label: "Show answers" },
    ],
    notice: "Install writes to the disk. Until then nothing has been changed.",
  };
}

function planLines(plan: PlanView): Field[] {
  if (!plan.ok) return [line(`This can't be installed: ${plan.reason}`, true)];
  return [
    ...(plan.erases.length === 0 ? [line("Erases nothing: the disk is empty.")] : []),
    ...plan.erases.map((text) => line(`Erases  ${text}`, true)),
    ...plan.keeps.map((text) => line(`Keeps   ${text}`)),
  ];
}

function progressPage({ view }: StepFacts): Page {
  const { phase } = view;
  if (phase.kind === "done") {
    const word = phase.after === "reboot" ? "restart" : "power off";
    return {
      title: "Installed",
      fields: [
        line(`Keelson is installed as '${phase.name}' (${formatDuration(phase.tookMs)}).`, true),
        line(),
        ...(phase.password === null
          ? []
          : [
              line("Password of user admin, shown only here and only now:"),
              line(`    ${phase.password}`, true),
              line(),
            ]),
        line("What next:"),
        line("  1. Take the installation medium out."),
        line(`  2. The machine will ${word} by itself in a minute, or now.`),
        line("  3. Its screen then shows https://ADDRESS/ and a fingerprint. Open that"),
        line("     address in a browser and compare the certificate's fingerprint."),
        line("  4. Log in as admin."),
      ],
      buttons: [
        { value: "now", label: phase.after === "reboot" ? "Restart now" : "Power off now" },
      ],
    };
  }
  const percent = phase.kind === "installing" ? phase.percent : 0;
  const filled = Math.round((percent / 100) * 60);
  return {
    title: "Installing",
    fields: [
      line(),
      line(`[${"#".repeat(filled)}${".".repeat(60 - filled)}] ${String(percent).padStart(3)} %`),
      line(),
      line(phase.kind === "installing" ? `Now: ${phase.step}` : "Starting"),
      line(
        phase.kind === "installing" && phase.leftMs !== null
          ? `Time left: about ${formatDuration(phase.leftMs)}`
          : "",
      ),
      line(),
      line(
        "Do not switch the machine off. If it loses power, install again: the disk does not start before the installation is complete.",
      ),
    ],
    buttons: [],
  };
}

export function savePage(facts: StepFacts): Page {
  const { media, notice, busy } = facts;
  return {
    title: "Save answers",
    fields: [
      line(
        "The answers as keelson-answers.json, for an unattended install of the same node. The password is in it as a hash. Save it to:",
      ),
      line(),
      ...(media ?? []).map<Field>(({ device, label, sizeBytes }) => ({
        kind: "item",
        id: `medium:${device}`,
        label: `${device.padEnd(14)} ${formatSize(sizeBytes).padStart(9)}  ${label === "" ? "(no label)" : label}`,
      })),
      ...(media === undefined ? [line("Looking for media ...")] : []),
      ...(media?.length === 0
        ? [line("No medium that can be written. Plug in a USB stick (vfat or ext4).", true)]
        : []),
      line(),
      line("A medium labelled KEELSON-SEED (KEELSONSEED on vfat) installs without asking."),
    ],
    buttons: [back],
    ...(busy !== undefined ? { notice: busy } : notice !== undefined ? { notice } : {}),
  };
}

export function showPage(facts: StepFacts): Page {
  const text = answersText(facts.values, facts.view, facts.passwordHash);
  return {
    title: "Answers",
    fields: text
      .trimEnd()
      .split("\n")
      .map((each) => line(each)),
    buttons: [back],
    notice: "keelson-answers.json. Up and down move it.",
  };
}
