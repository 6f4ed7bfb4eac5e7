/**
 * A store that nobody has mounted, looked at without writing to it: it is mounted over a layer in
 * memory, replay and all, then every page, count and block is compared with every other.
 */
import { isKeelsonError } from "#lib/model/errors.ts";
import { blockBytes } from "../limits.ts";
import { auditStore } from "./audit.ts";
import type { Checksum } from "./disk.ts";
import {
  decodeSuperblock,
  formatVersions,
  type Superblock,
  superblockFlag,
  superblockFlagsOffset,
} from "./layout.ts";
import { mountStore } from "./mount.ts";
import { type DiskToRead, OverlayDisk } from "./overlay-disk.ts";
import { type BadBlock, DataScan } from "./scan.ts";
import type { Store } from "./store.ts";

export interface CheckOptions {
  /** Its name, for messages. */
  readonly device: string;
  readonly checksum: Checksum;
  /** For map pages. */
  readonly memoryBytes: number;
  /** Also reads all data, and compares it with its checksums. */
  readonly data: boolean;
  /** Map records looked at, of how many. */
  readonly progress?: (done: number, of: number) => void;
}

export interface StoreProblem {
  /** `superblock`: one of two; `mount`: it can't be mounted; `map`: what leads to data; `data`. */
  readonly kind: "superblock" | "mount" | "map" | "data";
  readonly text: string;
  /** Of data. */
  readonly bad?: BadBlock;
}

export interface StoreCheck {
  readonly problems: readonly StoreProblem[];
  /** What a power cut may leave of a sound store and the next mount makes good; sentences. */
  readonly notes: readonly string[];
  /** Blocks of data that were read. */
  readonly blocks: number;
}

export type SuperblockState = Superblock | "foreign" | "damaged";

/** Both, as they stand. MEDIA_ERROR never: what can't be read is damaged. */
export function readSuperblocks(
  disk: DiskToRead,
  device: string,
  checksum: Checksum,
): SuperblockState[] {
  return [0, 1].map((number) => {
    const bytes = new Uint8Array(blockBytes);
    if (!disk.read(bytes, 0, blockBytes, number * blockBytes)) return "damaged";
    return decodeSuperblock(bytes, device, checksum);
  });
}

/** The store as a mount would find it; nothing that is done to it reaches `disk`. */
export function mountAside(
  disk: DiskToRead,
  { device, checksum, memoryBytes }: Pick<CheckOptions, "device" | "checksum" | "memoryBytes">,
): Store {
  const overlay = new OverlayDisk(disk, checksum);
  return mountStore(overlay, { device, checksum, memoryBytes, format: formatVersions.oldest });
}

/** Throws FORMAT_UNKNOWN if `disk` holds no store, or one of a format that this program can't read. */
export function checkStore(disk: DiskToRead, options: CheckOptions): StoreCheck {
  const { device, checksum } = options;
  const { problems, notes } = superblockFindings(disk, device, checksum);
  let store: Store;
  try {
    store = mountAside(disk, options);
  } catch (error) {
    if (!isKeelsonError(error, "FORMAT_CORRUPT") && !isKeelsonError(error, "MEDIA_ERROR")) {
      throw error;
    }
    problems.push({ kind: "mount", text: error.message });
    return { problems, notes, blocks: 0 };
  }
  problems.push(...auditStore(store).map((text) => ({ kind: "map", text }) as const));
  if (!options.data) return { problems, notes, blocks: 0 };
  const scan = new DataScan(store, (bad) => {
    // Reported by the audit.
    if (bad.why === "map") return;
    problems.push({ kind: "data", text: describeBadBlock(bad, device), bad });
  });
  while (!scan.done) {
    scan.step();
    options.progress?.(scan.record, store.index.count);
  }
  return { problems, notes, blocks: scan.blocks };
}

/**
 * A superblock takes the place of the older one, so a power cut while it is written leaves that
 * one torn and the other one whole. In a store that was not shut down a damaged one is therefore
 * what is to be expected, and goes with the next mount: had it been the newer one and whole once,
 * the log would name it, and the mount would refuse to do without it.
 */
function superblockFindings(
  disk: DiskToRead,
  device: string,
  checksum: Checksum,
): {
  readonly problems: StoreProblem[];
  readonly notes: string[];
} {
  const problems: StoreProblem[] = [];
  const notes: string[] = [];
  const states = readSuperblocks(disk, device, checksum);
  const valid = states.filter((state) => typeof state === "object");
  const newest = Math.max(...valid.map(({ sequence }) => sequence));
  const wasShutDown = states.some((state, number) =>
    typeof state === "object" ? state.clean && state.sequence === newest : saysClean(disk, number),
  );
  for (const [number, state] of states.entries()) {
    if (typeof state === "object" || valid.length === 0) continue;
    // The second one is written by the first mount.
    if (state === "foreign" && newest === 0) continue;
    if (wasShutDown || state === "foreign") {
      const text = `Superblock ${number} is damaged; the store lives by the other one.`;
      problems.push({ kind: "superblock", text });
    } else {
      notes.push(
        `Superblock ${number} was being written when the store stopped, and is not whole; the next mount writes it anew.`,
      );
    }
  }
  return { problems, notes };
}

/** As far as a damaged superblock can be believed. */
function saysClean(disk: DiskToRead, number: number): boolean {
  const bytes = new Uint8Array(blockBytes);
  if (!disk.read(bytes, 0, blockBytes, number * blockBytes)) return true;
  return (
    (new DataView(bytes.buffer).getUint32(superblockFlagsOffset, true) & superblockFlag.clean) !== 0
  );
}

/** One sentence, for people: what is bad, where, and whose it is. */
export function describeBadBlock(bad: BadBlock, device: string): string {
  const { block, volume, offsetBytes, snapshot, why } = bad;
  const what = {
    unreadable: "can't be read",
    checksum: "is not what was written",
    map: "leads to data and is damaged",
  }[why];
  const since = snapshot === null ? "" : `, since snapshot ${snapshot}`;
  return `Block ${block} of ${device} ${what}: volume ${volume}, offset ${offsetBytes}${since}.`;
}
