/** What this node's data is written in, and who could read it (lib/data-format, decision 0155). */
import { join } from "node:path";
import type { Release } from "#lib/bundle/release.ts";
import {
  type FormatRange,
  type HeldFormats,
  raised,
  unreadable,
} from "#lib/data-format/formats.ts";
import { HeldFormatsFile } from "#lib/data-format/held.ts";
import type { SlotView, Verdict } from "./schema.ts";
import type { SlotRecord } from "./slots.ts";

type Ranges = Readonly<Record<string, FormatRange>>;

export class NodeFormats {
  readonly file: HeldFormatsFile;
  readonly #release: () => Release;

  /** `release`: of the running version. */
  constructor(stateFolder: string, release: () => Release) {
    this.file = new HeldFormatsFile(join(stateFolder, "formats.json"));
    this.#release = release;
  }

  held(): HeldFormats {
    return this.file.read();
  }

  /**
   * The running version is kept: from now on its own formats may be written. At the commit, and at
   * each start of a version that is kept, so that a cut between the two is made up for.
   */
  raise(): void {
    const held = this.held();
    const next = raised(held, this.#release().dataFormats);
    const same = Object.keys(next).every((name) => next[name] === held[name]);
    if (!same || !this.file.isWritten) this.file.write(next);
  }

  /** Why `version`, which reads `ranges`, can't run here. Undefined: it can, or doesn't say. */
  against(version: string, ranges: Ranges | undefined): string | undefined {
    const data = ranges === undefined ? undefined : unreadable(ranges, this.held());
    return data === undefined ? undefined : `${version} can't read this node's ${data}.`;
  }

  /** Said beforehand, if the running version can't read what `next` writes once it is kept. */
  wayBackEnds(next: { version: string; dataFormats: Ranges }): string | undefined {
    const { version, dataFormats } = this.#release();
    const data = unreadable(dataFormats, raised(this.held(), next.dataFormats));
    if (data === undefined) return undefined;
    return `Once ${next.version} is kept there is no way back: ${version} can't read its ${data}.`;
  }
}

/** Whether the other slot can be booted: its version has worked, and reads what is on the node. */
export function wayBack(
  view: SlotView,
  record: SlotRecord | undefined,
  formats: NodeFormats,
): Verdict {
  if (record === undefined || !record.worked || view.state !== "good") {
    return { ok: false, why: "The other slot holds no version that has worked here." };
  }
  const why = formats.against(record.version, record.dataFormats);
  return why === undefined ? { ok: true } : { ok: false, why };
}
