/**
 * Everything that changes what a disk boots. The order within each function is what a power cut
 * between any two writes relies on; slot-writer.test.ts cuts it at every one of them.
 *
 *   retire   no entry leads to the slot                  before a byte of it changes
 *   write    root, verity, GRUB's files, UKI without its first sector, partition table
 *   arm      grubenv, the UKI's first sector             the loader tries it three times
 *   keep     an uncounted entry, then the counted ones go
 *
 * Throughout, the running slot has an entry that is not touched.
 */
import { join } from "node:path";
import { compareVersions } from "#lib/bundle/version.ts";
import { KeelsonError } from "#lib/model/errors.ts";
import {
  copyUki,
  readGrubenv,
  readUkiEntries,
  removeFile,
  removeUki,
  tries,
  type UkiEntry,
  ukiPath,
  wakeUki,
  writeAndCompare,
  writeDormantUki,
  writeGrubenv,
  writeWhole,
} from "./boot-entries.ts";
import type { Files } from "./files.ts";
import { changeGpt, slotUuids } from "./gpt.ts";
import type { SlotName } from "./schema.ts";
import { type BootDisk, otherSlot } from "./slots.ts";

/** A version and the hash that names its root. */
export interface Release {
  readonly version: string;
  readonly rootHash: string;
}

export type SlotPartName = "root" | "verity" | "uki" | "vmlinuz" | "microcode" | "initrd";

export class SlotWriter {
  readonly #files: Files;
  readonly #at: BootDisk;

  constructor(files: Files, at: BootDisk) {
    this.#files = files;
    this.#at = at;
  }

  /** Nothing boots the other slot any more. `running` is what runs and keeps its entries. */
  retire(runningSlot: SlotName, running: Release): void {
    const { esp } = this.#at;
    const slot = otherSlot(runningSlot);
    const now = readGrubenv(this.#files, esp);
    writeGrubenv(this.#files, esp, {
      first: runningSlot,
      ok: { ...now.ok, [slot]: false },
      tries: { ...now.tries, [slot]: 0 },
    });
    const entries = readUkiEntries(this.#files, esp);
    const own = entries.filter(({ rootHash }) => rootHash === running.rootHash);
    if (own.length === 0) {
      throw new KeelsonError("CONFLICT", "The running version has no boot entry of its own.", {
        operation: "retire the other slot",
        object: esp,
        remedy: "Nothing was changed. Install again, the store can be kept.",
      });
    }
    for (const entry of entries) {
      if (entry.rootHash !== running.rootHash) removeUki(this.#files, entry.path);
    }
  }

  /** A part of a retired slot. Gives the first sector of the UKI, which `arm` needs. */
  async writePart(
    slot: SlotName,
    release: Release,
    name: SlotPartName,
    pieces: AsyncIterable<Uint8Array>,
    advance: (bytes: number) => void,
  ): Promise<Buffer | undefined> {
    const { esp, slots } = this.#at;
    switch (name) {
      case "root":
      case "verity":
        await writeAndCompare(this.#files, slots[slot][name], pieces, advance);
        return undefined;
      case "uki":
        return await writeDormantUki(
          this.#files,
          ukiPath(esp, release.version, tries),
          counted(pieces, advance),
        );
      default: {
        const folder = join(esp, "keelson", slot);
        this.#files.makeFolder(folder);
        await writeWhole(this.#files, join(folder, name), counted(pieces, advance));
        return undefined;
      }
    }
  }

  /** After all parts: what GRUB starts, and the partition table's names for the slot. */
  async finish(slot: SlotName, release: Release, slotConfig: string): Promise<void> {
    const { esp, disk, slots } = this.#at;
    const folder = join(esp, "keelson", slot);
    const known = new Set(["vmlinuz", "microcode", "initrd"]);
    for (const name of this.#files.list(folder)) {
      if (!known.has(name)) removeFile(this.#files, join(folder, name));
    }
    await writeWhole(this.#files, join(folder, "slot.cfg"), one(Buffer.from(slotConfig)));
    const uuids = slotUuids(release.rootHash);
    const label = `keelson_${release.version}`;
    changeGpt(this.#files, disk, [
      { index: slots[slot].rootIndex, uuid: uuids.root, label },
      { index: slots[slot].verityIndex, uuid: uuids.verity, label },
    ]);
  }

  /** The next start tries the slot that was written. */
  arm(slot: SlotName, release: Release, ukiHead: Buffer): void {
    this.#tryWithGrub(slot);
    wakeUki(this.#files, ukiPath(this.#at.esp, release.version, tries), ukiHead);
  }

  /**
   * The next start tries the other slot, which has worked before. Where its version is the lower
   * one, the running version's entry is replaced by one without tries: it comes last, and still
   * comes when the other does not start.
   */
  async armBack(runningSlot: SlotName, running: Release, back: Release): Promise<void> {
    const { esp } = this.#at;
    const files = this.#files;
    const counted = ukiPath(esp, back.version, tries);
    const [source] = this.#entriesOf(back);
    if (source === undefined) {
      throw new KeelsonError("NOT_FOUND", `${back.version} has no boot entry any more.`, {
        operation: "boot the other slot",
        remedy: "Upgrade to a version by its bundle instead.",
      });
    }
    if (!this.#entriesOf(back).some(({ path }) => path === counted)) {
      await copyUki(files, source.path, counted);
    }
    for (const { path } of this.#entriesOf(back)) if (path !== counted) removeUki(files, path);
    if (compareVersions(running.version, back.version) > 0) await this.#putLast(running);
    this.#tryWithGrub(otherSlot(runningSlot));
  }

  /** From the trial itself: it is given up, the next start takes the slot that last worked. */
  dismiss(trialSlot: SlotName, trial: Release): void {
    const now = readGrubenv(this.#files, this.#at.esp);
    writeGrubenv(this.#files, this.#at.esp, {
      first: otherSlot(trialSlot),
      ok: { ...now.ok, [trialSlot]: false, [otherSlot(trialSlot)]: true },
      tries: { ...now.tries, [trialSlot]: 0 },
    });
    for (const { path } of this.#entriesOf(trial)) removeUki(this.#files, path);
  }

  /**
   * The running slot is kept: it boots always, the other one (if it has worked) only without it.
   * Repeatable, and right also for a fresh installation.
   */
  async keep(slot: SlotName, running: Release, other: Release | undefined): Promise<void> {
    const { esp } = this.#at;
    const files = this.#files;
    const plain = ukiPath(esp, running.version, null);
    const own = this.#entriesOf(running);
    if (own.length > 0 && !own.some(({ path }) => path === plain)) {
      await copyUki(files, own[0].path, plain);
    }
    for (const { path } of this.#entriesOf(running)) if (path !== plain) removeUki(files, path);
    const environment = readGrubenv(files, esp);
    writeGrubenv(files, esp, {
      first: slot,
      ok: { ...environment.ok, [slot]: true },
      tries: { ...environment.tries, [slot]: tries },
    });
    // systemd-boot prefers the higher version, whichever was kept last.
    if (other !== undefined && compareVersions(other.version, running.version) > 0) {
      await this.#putLast(other);
    }
  }

  #tryWithGrub(slot: SlotName): void {
    const now = readGrubenv(this.#files, this.#at.esp);
    writeGrubenv(this.#files, this.#at.esp, {
      first: slot,
      ok: { ...now.ok, [slot]: false },
      tries: { ...now.tries, [slot]: tries },
    });
  }

  async #putLast(release: Release): Promise<void> {
    const last = ukiPath(this.#at.esp, release.version, 0);
    const entries = this.#entriesOf(release);
    if (entries.length === 0) return;
    if (!entries.some(({ path }) => path === last)) {
      await copyUki(this.#files, entries[0].path, last);
    }
    for (const { path } of this.#entriesOf(release)) {
      if (path !== last) removeUki(this.#files, path);
    }
  }

  #entriesOf({ rootHash }: Release): UkiEntry[] {
    return readUkiEntries(this.#files, this.#at.esp).filter((entry) => entry.rootHash === rootHash);
  }
}

async function* counted(pieces: AsyncIterable<Uint8Array>, advance: (bytes: number) => void) {
  for await (const piece of pieces) {
    yield piece;
    advance(piece.length * 2);
  }
}

async function* one(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes;
}
