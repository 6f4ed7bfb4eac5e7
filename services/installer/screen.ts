/** What the installer shows while it waits. Pure. */
import { answerFileName, seedLabel } from "#lib/answer-file/answer-file.ts";
import { answersParameter } from "./answers.ts";
import { type DiskFacts, describeContent, describeDisk } from "./plan.ts";

export interface WaitingFacts {
  readonly version: string;
  readonly addresses: readonly string[];
  readonly disks: readonly DiskFacts[];
  /** Why the disks can't be listed. */
  readonly fault: string | undefined;
  /** Why the last answers were not used. */
  readonly refusal: string | undefined;
}

const shownDisks = 8;

export function waitingScreen(facts: WaitingFacts): string[] {
  const disks = facts.disks.filter(({ medium }) => !medium);
  return [
    "",
    `Keelson ${facts.version} installer`,
    `  Addresses of this machine: ${facts.addresses.length === 0 ? "none yet" : facts.addresses.join(", ")}`,
    "  Disks:",
    ...(facts.fault === undefined ? [] : [`    can't be listed: ${facts.fault}`]),
    ...(disks.length === 0 && facts.fault === undefined
      ? ["    none"]
      : disks.slice(0, shownDisks).map(diskLine)),
    ...(disks.length > shownDisks ? [`    and ${disks.length - shownDisks} more`] : []),
    ...(facts.refusal === undefined
      ? ["  Waiting for an answer file; nothing is written to any disk without one."]
      : ["  Not installed. Waiting for another answer file."]),
    `  Attach a medium labelled ${seedLabel} that holds ${answerFileName},`,
    `  or boot with ${answersParameter}=URL on the kernel line (key e in the boot menu).`,
  ];
}

function diskLine(disk: DiskFacts): string {
  const content = disk.content.map((each) => describeContent(each));
  const pools = disk.content.filter(({ pool }) => pool !== undefined);
  const what =
    content.length === 0
      ? "empty"
      : content.length <= 2
        ? content.join("; ")
        : [`${content.length} partitions`, ...pools.map((each) => describeContent(each))].join(
            "; ",
          );
  return `    ${describeDisk(disk)}: ${what}${disk.readOnly ? "; read-only" : ""}`;
}
