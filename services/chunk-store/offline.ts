/** A store that no service has mounted: what it is, whether it is sound, for `keelson store`. */
import { KeelsonError } from "#lib/model/errors.ts";
import {
  type CheckOptions,
  checkStore,
  mountAside,
  readSuperblocks,
  type StoreCheck,
  type SuperblockState,
} from "./engine/check.ts";
import {
  formatVersions,
  holePointer,
  logSectorBytes,
  mapWords,
  uuidText,
} from "./engine/layout.ts";
import { mountStore } from "./engine/mount.ts";
import type { Store } from "./engine/store.ts";
import { checksum, type FileDisk, openFileDisk } from "./file-disk.ts";
import { blockBytes, chunkBlocks } from "./limits.ts";

export type { StoreCheck, StoreProblem } from "./engine/check.ts";

const memoryBytes = 256 * 2 ** 20;

export interface StoreDescription {
  readonly device: string;
  readonly format: number;
  readonly poolId: string;
  readonly storeId: string;
  readonly createdAt: string;
  readonly sizeBytes: number;
  /** It was shut down: nothing is left in its log that its map lacks. */
  readonly clean: boolean;
  readonly mounts: number;
  readonly superblocks: readonly {
    readonly state: "good" | "damaged" | "never written";
    readonly sequence: number | null;
  }[];
  readonly log: {
    readonly sizeBytes: number;
    readonly usedBytes: number;
    /** Since the last checkpoint: what a mount replays. */
    readonly records: number;
    readonly lastSequence: number;
  };
  readonly checkpoint: {
    readonly sequence: number;
    readonly mapPages: number;
    readonly tablePages: number;
  };
  /** In bytes; the parts add up to `device`. */
  readonly space: Readonly<
    Record<"device" | "used" | "metadata" | "reclaiming" | "reserved" | "free", number>
  >;
  readonly volumes: readonly VolumeDescription[];
}

export interface VolumeDescription {
  readonly id: string;
  readonly lineage: number;
  readonly state: "live" | "sealed" | "deleted";
  readonly sizeBytes: number;
  readonly ownBytes: number;
  /** Volume and epoch that it is a clone of. */
  readonly origin: { readonly volumeId: string; readonly epoch: number } | null;
  readonly snapshots: readonly {
    readonly id: string;
    readonly epoch: number;
    readonly createdAt: string;
    readonly deleted: boolean;
  }[];
}

/** A map record: what a chunk of 1 MiB is from an epoch on. */
export interface MapRecord {
  readonly offsetBytes: number;
  readonly epoch: number;
  /** Block of its page; null: only the log has it. */
  readonly page: number | null;
  readonly blocks: number;
  /** Where data lies on the device, in blocks: `[first, count]`. */
  readonly extents: readonly (readonly [number, number])[];
}

/** FORMAT_UNKNOWN: no store. FORMAT_CORRUPT: it can't be mounted. IN_USE: a service has it. */
export function describeStore(path: string): StoreDescription {
  return reading(path, (disk) => {
    const states = readSuperblocks(disk, path, checksum);
    const store = mountAside(disk, { device: path, checksum, memoryBytes });
    return descriptionOf(store, states);
  });
}

/** Of a volume, by chunk and falling epoch. NOT_FOUND if the store has no such volume. */
export function describeMap(path: string, volumeId: string): MapRecord[] {
  return reading(path, (disk) => {
    const store = mountAside(disk, { device: path, checksum, memoryBytes });
    const { index, cache, lineages } = store;
    const lineage = lineages.byUuid.get(volumeId);
    if (lineage === undefined) {
      throw new KeelsonError("NOT_FOUND", `${path} has no volume ${volumeId}.`, {
        object: volumeId,
        remedy: "`keelson store inspect` without --map lists those it has.",
      });
    }
    const found: MapRecord[] = [];
    for (let record = 0; record < index.count; record++) {
      if (index.lineage[record] !== lineage.number) continue;
      const frame = cache.load(record);
      const at = frame * mapWords;
      const pointers = frame < 0 ? [] : cache.words.slice(at, at + chunkBlocks);
      const extents = extentsOf(pointers);
      found.push({
        offsetBytes: index.chunk[record] * chunkBlocks * blockBytes,
        epoch: index.epoch[record],
        page: index.slot[record] === 0 ? null : index.slot[record],
        blocks: extents.reduce((sum, [, count]) => sum + count, 0),
        extents,
      });
    }
    return found.sort((a, b) => a.offsetBytes - b.offsetBytes || b.epoch - a.epoch);
  });
}

/** Changes nothing. */
export function checkDevice(
  path: string,
  options: Pick<CheckOptions, "data" | "progress">,
): StoreCheck {
  return reading(path, (disk) =>
    checkStore(disk, { ...options, device: path, checksum, memoryBytes }),
  );
}

/** Mounts it and shuts it down: its log is brought into the map, and both superblocks are written. */
export function repairDevice(path: string): void {
  const disk = openFileDisk(path);
  let store: Store | undefined;
  try {
    store = mountStore(disk, {
      device: path,
      checksum,
      memoryBytes,
      format: formatVersions.oldest,
    });
    store.shutdown();
    store.requireMounted();
  } finally {
    if (store === undefined) disk.close();
  }
}

function reading<Result>(path: string, use: (disk: FileDisk) => Result): Result {
  const disk = openFileDisk(path, undefined, "read");
  try {
    return use(disk);
  } finally {
    disk.close();
  }
}

function descriptionOf(store: Store, states: readonly SuperblockState[]): StoreDescription {
  const { superblock, log, index, hidden, lineages } = store;
  const { bytes, ...blocks } = store.space();
  const newest = states
    .filter((state) => typeof state === "object")
    .reduce((a, b) => (b.sequence > a.sequence ? b : a));
  return {
    device: store.device,
    format: newest.format,
    poolId: uuidText(superblock.pool),
    storeId: uuidText(superblock.store),
    createdAt: new Date(superblock.createdMs).toISOString(),
    sizeBytes: superblock.deviceBlocks * blockBytes,
    clean: newest.clean,
    mounts: newest.mountGeneration,
    superblocks: states.map((state) =>
      typeof state === "object"
        ? { state: "good", sequence: state.sequence }
        : {
            state: state === "foreign" && newest.sequence === 0 ? "never written" : "damaged",
            sequence: null,
          },
    ),
    log: {
      sizeBytes: superblock.logBlocks * blockBytes,
      usedBytes: log.usedSectors * logSectorBytes,
      // The mount's own record, which is nowhere but in memory, doesn't count.
      records: log.sequence - 1 - newest.checkpointSequence,
      lastSequence: log.sequence - 1,
    },
    checkpoint: {
      sequence: newest.checkpointSequence,
      mapPages: index.slots,
      tablePages: Object.values(hidden).reduce((sum, slots) => sum + slots.length, 0),
    },
    space: Object.fromEntries(
      Object.entries(blocks).map(([part, count]) => [part, bytes(count)]),
    ) as StoreDescription["space"],
    volumes: [...lineages.byNumber.values()].map(
      (lineage): VolumeDescription => ({
        id: lineage.uuid,
        lineage: lineage.number,
        state: lineage.deleted ? "deleted" : lineage.sealed ? "sealed" : "live",
        sizeBytes: lineage.sizeBytes,
        ownBytes: lineage.ownedBlocks * blockBytes,
        origin:
          lineage.parent === null
            ? null
            : { volumeId: lineage.parent.uuid, epoch: lineage.forkEpoch },
        snapshots: lineage.snapshots.map(({ uuid, epoch, createdMs, deleted }) => ({
          id: uuid,
          epoch,
          createdAt: new Date(createdMs).toISOString(),
          deleted,
        })),
      }),
    ),
  };
}

function extentsOf(pointers: Iterable<number>): [number, number][] {
  const extents: [number, number][] = [];
  for (const pointer of pointers) {
    if (pointer === 0 || pointer === holePointer) continue;
    const last = extents.at(-1);
    if (last !== undefined && last[0] + last[1] === pointer) last[1]++;
    else extents.push([pointer, 1]);
  }
  return extents;
}
