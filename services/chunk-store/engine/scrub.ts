/**
 * All of a mounted store read again, in steps between which requests go on: superblocks and pages,
 * then data. What memory has of the map is written anew where the disk's copy is bad; a bad block
 * of data is reported.
 */
import { blockBytes, chunkBlocks } from "../limits.ts";
import { beginCheckpoint, checkpointNow } from "./checkpoint.ts";
import {
  bitmapBlocksPerPage,
  checkPage,
  decodeSuperblock,
  indexRecordsPerPage,
  PageKind,
} from "./layout.ts";
import { type BadBlock, DataScan } from "./scan.ts";
import type { Store } from "./store.ts";

export interface ScrubStep {
  /** Where to go on (`DataScan.position`); null: all was read. */
  readonly next: number | null;
  /** Map records looked at, of how many. */
  readonly done: number;
  readonly of: number;
  readonly bytes: number;
  /** Pages and superblocks that are written anew from memory. */
  readonly healed: number;
  readonly bad: readonly BadBlock[];
}

/** A slow disk is held up by no more than this at a time: reads of data, or records without any. */
const mostReads = 8;
const mostRecords = 64;

/** Reads on from `from`, at most 1 MiB a read; from 0, first superblocks and pages. Blocks meanwhile. */
export function scrubStep(store: Store, from: number): ScrubStep {
  const bad: BadBlock[] = [];
  let healed = 0;
  let read = 0;
  if (from === 0) {
    const pages = scrubPages(store);
    healed += pages.healed;
    read += pages.read * blockBytes;
  }
  const scan = new DataScan(store, (found) => bad.push(found));
  scan.position = from;
  for (let records = 0; !scan.done && records < mostRecords; records++) {
    if (scan.position % chunkBlocks === 0) {
      if (healMapPage(store, scan.record)) healed++;
      read += blockBytes;
    }
    const blocks = scan.step(mostReads);
    read += blocks * blockBytes;
    if (blocks > 0) break;
  }
  if (healed > 0 && store.checkpoint === null && store.failure === null) beginCheckpoint(store);
  return {
    next: scan.done ? null : scan.position,
    ...{ done: scan.record, of: store.index.count },
    ...{ bytes: read, healed, bad },
  };
}

/** True if the disk's copy of a page that is in memory was bad: there is another now. */
function healMapPage(store: Store, record: number): boolean {
  const { allocator, index, cache, superblock, checksum, log, disk } = store;
  const slot = index.slot[record];
  const frame = index.frame[record];
  if (index.lineage[record] === 0 || slot === 0 || frame < 0 || cache.dirty[frame] === 1) {
    return false;
  }
  const { lineage, chunk, epoch } = index;
  const page = readPage(store, slot);
  const good =
    page !== undefined &&
    checkPage(
      page,
      PageKind.map,
      superblock.pool,
      lineage[record],
      chunk[record],
      epoch[record],
      checksum,
    );
  if (good || !store.makeRoom(1)) return false;
  // `makeRoom` may have finished a checkpoint, which moves no clean page.
  const fresh = allocator.allocateMetadata();
  if (fresh < 0) return false;
  const bytes = new Uint8Array(blockBytes);
  cache.encode(frame, bytes, log.mountGeneration, log.sequence);
  if (!disk.write(bytes, 0, blockBytes, fresh * blockBytes)) {
    store.retire("a page could not be written anew");
    return false;
  }
  allocator.touch(fresh);
  store.retireSlot(slot);
  index.setSlot(record, fresh);
  return true;
}

/** Superblocks, index, bitmap, tables. */
function scrubPages(store: Store): { read: number; healed: number } {
  const { hidden, superblock, index, allocator, checksum, device } = store;
  const kinds = {
    index: PageKind.index,
    bitmap: PageKind.bitmap,
    volumes: PageKind.volumes,
    snapshots: PageKind.snapshots,
    cells: PageKind.cells,
    directory: PageKind.directory,
  } as const;
  let read = 0;
  let healed = 0;
  for (const [name, kind] of Object.entries(kinds) as [keyof typeof kinds, PageKind][]) {
    hidden[name].forEach((slot, number) => {
      read++;
      const page = readPage(store, slot);
      if (page !== undefined && checkPage(page, kind, superblock.pool, number, 0, 0, checksum)) {
        return;
      }
      healed++;
      // The others are written by each checkpoint in any case.
      if (name === "index") index.touch(number * indexRecordsPerPage);
      if (name === "bitmap") allocator.touch(number * bitmapBlocksPerPage);
    });
  }
  // The second superblock is written by the first mount, so both are there.
  for (const number of [0, 1]) {
    read++;
    const block = readPage(store, number);
    const good =
      block !== undefined && typeof decodeSuperblock(block, device, checksum) === "object";
    if (!good) healed++;
  }
  if (healed > 0) {
    // Superblocks are written in turn: after two checkpoints both are new.
    checkpointNow(store);
    checkpointNow(store);
  }
  return { read, healed };
}

function readPage({ disk }: Store, block: number): Uint8Array | undefined {
  const bytes = new Uint8Array(blockBytes);
  disk.forget?.(block * blockBytes, blockBytes);
  return disk.read(bytes, 0, blockBytes, block * blockBytes) ? bytes : undefined;
}
