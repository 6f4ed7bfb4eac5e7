/** The two slots of a boot disk: where they are, which one runs, what each is worth. */
import type { FormatRange } from "#lib/data-format/formats.ts";
import { KeelsonError } from "#lib/model/errors.ts";
import { readGrubenv, readUkiEntries } from "./boot-entries.ts";
import type { Files } from "./files.ts";
import { gptTypes, readGpt, slotUuids } from "./gpt.ts";
import type { SlotName, SlotView } from "./schema.ts";

export interface SlotPlace {
  readonly slot: SlotName;
  /** Paths of the partitions, and their places in the table. */
  readonly root: string;
  readonly verity: string;
  readonly rootIndex: number;
  readonly verityIndex: number;
  readonly rootBytes: number;
  readonly verityBytes: number;
}

export interface BootDisk {
  /** The whole disk, for its partition table. */
  readonly disk: string;
  /** Where its ESP is mounted. */
  readonly esp: string;
  readonly slots: Readonly<Record<SlotName, SlotPlace>>;
}

export function otherSlot(slot: SlotName): SlotName {
  return slot === "a" ? "b" : "a";
}

/** `/dev/vda` -> `/dev/vda4`, `/dev/nvme0n1` -> `/dev/nvme0n1p4`. */
export function partitionPath(disk: string, index: number): string {
  return `${disk}${/\d$/.test(disk) ? "p" : ""}${index + 1}`;
}

/** Slot A is the first pair of root and verity on the disk (docs/formats/image.md), B the second. */
export function findBootDisk(
  files: Files,
  disk: string,
  esp: string,
  pathOf: (disk: string, index: number) => string = partitionPath,
): BootDisk {
  const entries = readGpt(files, disk);
  const place = (slot: SlotName, nth: number): SlotPlace => {
    const root = entries.filter(({ type }) => type === gptTypes.root)[nth];
    const verity = entries.filter(({ type }) => type === gptTypes.rootVerity)[nth];
    if (root === undefined || verity === undefined) {
      throw new KeelsonError("FORMAT_UNKNOWN", `${disk} has no slot ${slot.toUpperCase()}.`, {
        operation: "look at the boot disk",
        object: disk,
        remedy: "Its partitions were changed by hand; install again, the store can be kept.",
      });
    }
    return {
      slot,
      root: pathOf(disk, root.index),
      verity: pathOf(disk, verity.index),
      rootIndex: root.index,
      verityIndex: verity.index,
      rootBytes: root.sizeBytes,
      verityBytes: verity.sizeBytes,
    };
  };
  return { disk, esp, slots: { a: place("a", 0), b: place("b", 1) } };
}

/** The slot that holds the root of `rootHash`, by its partition's UUID. */
export function slotOfRoot(files: Files, at: BootDisk, rootHash: string): SlotName | undefined {
  const { root, verity } = slotUuids(rootHash);
  const entries = readGpt(files, at.disk);
  return (["a", "b"] as const).find((slot) => {
    const { rootIndex, verityIndex } = at.slots[slot];
    const uuidAt = (wanted: number) => entries.find(({ index }) => index === wanted)?.uuid;
    return uuidAt(rootIndex) === root && uuidAt(verityIndex) === verity;
  });
}

/** What was in a slot when it was last written, by the updater's own account. */
export interface SlotRecord {
  readonly version: string;
  readonly rootHash: string;
  /** True once it has passed the gate. */
  readonly worked: boolean;
  /** True after it has failed a trial. */
  readonly failed: boolean;
  /** What it reads of /var and stores; undefined: its version didn't say. */
  readonly dataFormats?: Readonly<Record<string, FormatRange>> | undefined;
}

/** By record, partition table and boot entries: a slot counts as good only if all three say so. */
export function viewSlot(
  files: Files,
  at: BootDisk,
  slot: SlotName,
  record: SlotRecord | undefined,
  firmware: "uefi" | "bios",
): SlotView {
  if (record === undefined) return { slot, version: null, state: "empty", triesLeft: null };
  const { version, rootHash } = record;
  const view = { slot, version, triesLeft: null };
  if (record.failed) return { ...view, state: "failed" };
  if (slotOfRoot(files, at, rootHash) !== slot) return { ...view, state: "unfinished" };
  const left = triesLeft(files, at, slot, rootHash, firmware);
  if (left === undefined) return { ...view, state: "unfinished" };
  if (record.worked) return { ...view, state: "good" };
  if (left === "good") return { ...view, state: "good" };
  return left === 0 ? { ...view, state: "failed" } : { ...view, state: "trial", triesLeft: left };
}

/** Tries that the boot loader would give; "good" without counting; undefined: it would not boot it. */
export function triesLeft(
  files: Files,
  at: BootDisk,
  slot: SlotName,
  rootHash: string,
  firmware: "uefi" | "bios",
): number | "good" | undefined {
  if (firmware === "bios") {
    const environment = readGrubenv(files, at.esp);
    if (environment.ok[slot]) return "good";
    return environment.tries[slot] === 0 && environment.first !== slot
      ? undefined
      : environment.tries[slot];
  }
  const entries = readUkiEntries(files, at.esp).filter((entry) => entry.rootHash === rootHash);
  if (entries.length === 0) return undefined;
  if (entries.some((entry) => entry.triesLeft === null)) return "good";
  return Math.max(...entries.map((entry) => entry.triesLeft ?? 0));
}
