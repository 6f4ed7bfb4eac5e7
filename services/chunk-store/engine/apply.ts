/**
 * Does to the map what log entries say. The running store and replay come through here, with the
 * same entries in the same order, so that a mount after a crash ends where the store was.
 *
 * A block that a write or discard replaces goes free if no snapshot can see it: if it was born after
 * the newest one. Else it stays, as dead, in the record that the snapshot reads; `dropOld` frees it
 * when that snapshot goes.
 */
import { isAfter, type Version } from "#lib/model/writer.ts";
import { chunkBlocks } from "../limits.ts";
import { alive } from "./cells.ts";
import { EntryFlag, EntryType, holePointer, mapWords, OperationFlag } from "./layout.ts";
import {
  createLineage,
  findBarrier,
  firstSnapshotFrom,
  intervalAfter,
  intervalOf,
  type Lineage,
  snapshotAt,
} from "./lineages.ts";
import { entryWords } from "./log.ts";
import type { Store } from "./store.ts";

/** Entries `count` from word `at` on. False if a map page is unreadable. */
export function applyEntries(
  store: Store,
  words: Uint32Array,
  at: number,
  count: number,
  sequence: number,
  replaying: boolean,
): boolean {
  const change: Change = { store, words, sequence, replaying, chunk: -1, frame: -1 };
  let lineage: Lineage | undefined;
  for (let i = 0; i < count; i++, at += entryWords) {
    const number = words[at + 1];
    if (lineage === undefined || lineage.number !== number) {
      lineage = store.lineages.byNumber.get(number);
      change.chunk = -1;
    }
    const type = words[at] & 0xff;
    if (type !== EntryType.write) change.chunk = -1;
    if (type === EntryType.volumeCreate) {
      if (i + 1 < count) createVolume(change, at);
    } else if (lineage === undefined) {
      // One that was forgotten while its last writes were on their way; or an identity.
    } else if (type === EntryType.write) {
      if (!write(change, lineage, at)) return false;
    } else if (type === EntryType.discard) {
      if (!discard(change, lineage, at)) return false;
    } else if (type === EntryType.dropOld) {
      if (!dropOld(change, lineage, words[at + 2], words[at + 5])) return false;
    } else if (type === EntryType.dropHead) {
      if (!dropHead(change, lineage, words[at + 2], words[at + 5])) return false;
    } else if (type === EntryType.snapshotCreate) {
      if (i + 1 < count) createSnapshot(change, lineage, at);
    } else changeVolume(change, type, lineage, at);
  }
  return true;
}

interface Change {
  readonly store: Store;
  readonly words: Uint32Array;
  readonly sequence: number;
  readonly replaying: boolean;
  /** Of the write before, if that was of the same volume: its chunk, and the frame that it is in. */
  chunk: number;
  frame: number;
}

// ---- blocks --------------------------------------------------------------------------------

function write(change: Change, lineage: Lineage, at: number): boolean {
  const { store, words } = change;
  const { cache, allocator } = store;
  if (change.chunk !== words[at + 2]) {
    change.frame = writableFrame(store, lineage, words[at + 2], words[at + 5]);
    change.chunk = words[at + 2];
  }
  const { frame } = change;
  if (frame < 0) return false;
  cache.beginChange(frame);
  const block = words[at] >>> 16;
  replace(change, lineage, frame, block);
  const pointer = words[at + 3];
  cache.set(frame, block, pointer, words[at + 4], words[at + 5]);
  lineage.live.blocks++;
  lineage.ownedBlocks++;
  if (change.replaying) allocator.take(pointer);
  allocator.touch(pointer);
  return true;
}

function discard(change: Change, lineage: Lineage, at: number): boolean {
  const { store, words } = change;
  const { cache, index } = store;
  const flags = (words[at] >>> 8) & 0xff;
  const first = words[at] >>> 16;
  const end = first + words[at + 3];
  const chunk = words[at + 2];
  const record = index.find(lineage.number, chunk);
  if (record < 0 && (flags & EntryFlag.hole) === 0) return true;
  const drop = (flags & EntryFlag.drop) !== 0;
  const frame = drop ? cache.load(record) : writableFrame(store, lineage, chunk, words[at + 5]);
  if (frame < 0) return false;
  const filler = (flags & EntryFlag.hole) === 0 ? 0 : holePointer;
  cache.beginChange(frame);
  for (let block = first; block < end; block++) {
    replace(change, lineage, frame, block);
    cache.set(frame, block, filler, 0, words[at + 5]);
  }
  if (drop) {
    index.takeOutOf(lineage.cells.at(intervalOf(lineage, index.epoch[record]), alive), record);
    removeRecord(store, record);
  }
  return true;
}

/** Frame of the chunk's newest record, if no snapshot reads it; else of a new one, its copy. */
function writableFrame(store: Store, lineage: Lineage, chunk: number, epoch: number): number {
  const { index, cache } = store;
  const record = index.find(lineage.number, chunk);
  if (record < 0) {
    const added = index.add(lineage.number, chunk, epoch);
    index.putInto(lineage.live, added);
    return cache.load(added);
  }
  if (index.epoch[record] > lineage.barrier) return cache.load(record);
  const from = cache.load(record);
  if (from < 0) return -1;
  cache.held = from;
  const copy = index.add(lineage.number, chunk, epoch);
  const to = cache.load(copy);
  cache.held = -1;
  cache.beginChange(to);
  cache.copy(from, to);
  const born = intervalOf(lineage, index.epoch[record]);
  index.takeOutOf(lineage.cells.at(born, alive), record);
  index.putInto(lineage.cells.at(born, lineage.epoch), record);
  index.putInto(lineage.live, copy);
  return to;
}

/** The block that stands there goes: free, or dead. */
function replace(change: Change, lineage: Lineage, frame: number, block: number): void {
  const { store } = change;
  const { words } = store.cache;
  const cell = frame * mapWords + block;
  const pointer = words[cell];
  if (pointer === 0 || pointer === holePointer) return;
  const birth = words[cell + 2 * chunkBlocks];
  const born =
    birth === lineage.epoch || lineage.snapshots.length === 0
      ? lineage.live
      : lineage.cells.at(intervalOf(lineage, birth), alive);
  born.blocks--;
  const record = store.cache.record(frame);
  if (
    birth <= lineage.barrier ||
    (lineage.dropping > 0 && olderHas(store, record, frame, block, pointer))
  ) {
    const death = intervalOf(lineage, store.index.epoch[record]);
    lineage.cells.at(born.birth, death).blocks++;
  } else free(change, lineage, pointer);
}

/** A record of a snapshot that is being dropped still names the block: `dropOld` will free it. */
function olderHas(
  store: Store,
  record: number,
  frame: number,
  block: number,
  pointer: number,
): boolean {
  const { index, cache } = store;
  const older = index.older[record];
  if (older < 0) return false;
  cache.held = frame;
  const other = cache.load(older);
  cache.held = -1;
  // Unreadable: `dropOld` will say so; to keep a block is safe.
  return other < 0 || cache.words[other * mapWords + block] === pointer;
}

function free({ store, sequence, replaying }: Change, lineage: Lineage, pointer: number): void {
  lineage.ownedBlocks--;
  store.allocator.touch(pointer);
  if (replaying) store.allocator.release(pointer);
  else store.allocator.free(pointer, sequence);
}

/** Its page is in memory. */
function removeRecord(store: Store, record: number): void {
  const { index, cache } = store;
  // A checkpoint under way still leads to it.
  cache.beginChange(index.frame[record]);
  const slot = index.slot[record];
  cache.forget(record);
  if (slot !== 0) store.retireSlot(slot);
  index.remove(record);
}

// ---- what snapshots leave behind -------------------------------------------------------------

/**
 * `epoch` is that of a record in cell (s, the interval after s), s a deleted snapshot: nobody reads
 * it any more. Its blocks that were born in s's interval and that the newer record lacks go free.
 */
function dropOld(change: Change, lineage: Lineage, chunk: number, epoch: number): boolean {
  const { store } = change;
  const { index, cache } = store;
  const record = index.findAsOf(lineage.number, chunk, epoch);
  if (record < 0 || index.epoch[record] !== epoch || index.newer[record] < 0) return true;
  const newer = index.newer[record];
  const frame = cache.load(record);
  if (frame < 0) return false;
  cache.held = frame;
  const newerFrame = cache.load(newer);
  cache.held = -1;
  if (newerFrame < 0) return false;
  const interval = intervalOf(lineage, epoch);
  const before = lineage.snapshots[firstSnapshotFrom(lineage, epoch) - 1]?.epoch ?? 0;
  const death = intervalOf(lineage, index.epoch[newer]);
  const cell = lineage.cells.at(interval, death);
  const { words } = cache;
  for (let block = 0; block < chunkBlocks; block++) {
    const pointer = words[frame * mapWords + block];
    if (pointer === 0 || pointer === holePointer) continue;
    if (pointer === words[newerFrame * mapWords + block]) continue;
    if (words[frame * mapWords + 2 * chunkBlocks + block] <= before) continue;
    cell.blocks--;
    free(change, lineage, pointer);
  }
  index.takeOutOf(cell, record);
  const older = index.older[record];
  if (older >= 0) {
    const born = intervalOf(lineage, index.epoch[older]);
    index.takeOutOf(lineage.cells.at(born, interval), older);
    index.putInto(lineage.cells.at(born, death), older);
  }
  removeRecord(store, record);
  return true;
}

/**
 * Frees what of a chunk was written after epoch `bound`. The cells of what was born then are not
 * kept up: `forgetHead` takes them away as a whole.
 */
function dropHead(change: Change, lineage: Lineage, chunk: number, bound: number): boolean {
  const { store } = change;
  const { index, cache } = store;
  const { words } = cache;
  let record = index.find(lineage.number, chunk);
  while (record >= 0 && index.epoch[record] > bound) {
    const older = index.older[record];
    const frame = cache.load(record);
    if (frame < 0) return false;
    cache.held = frame;
    const olderFrame = older < 0 ? -1 : cache.load(older);
    cache.held = -1;
    if (older >= 0 && olderFrame < 0) return false;
    for (let block = 0; block < chunkBlocks; block++) {
      const pointer = words[frame * mapWords + block];
      if (pointer === 0 || pointer === holePointer) continue;
      if (older >= 0 && pointer === words[olderFrame * mapWords + block]) continue;
      free(change, lineage, pointer);
    }
    const interval = intervalOf(lineage, index.epoch[record]);
    index.takeOutOf(lineage.cells.at(interval, alive), record);
    if (older >= 0) {
      const born = intervalOf(lineage, index.epoch[older]);
      index.takeOutOf(lineage.cells.at(born, interval), older);
      index.putInto(lineage.cells.at(born, alive), older);
    }
    removeRecord(store, record);
    record = older;
  }
  return true;
}

/** The interval of a snapshot becomes part of the next one. */
function forgetSnapshot({ store }: Change, lineage: Lineage, epoch: number): void {
  const { cells, snapshots } = lineage;
  const at = firstSnapshotFrom(lineage, epoch);
  if (snapshots[at]?.epoch !== epoch) return;
  const next = intervalAfter(lineage, at);
  const merge = (from: ReturnType<typeof cells.at>, birth: number, death: number) => {
    const to = cells.at(birth, death);
    to.blocks += from.blocks;
    store.index.join(from, to);
    cells.delete(from);
  };
  for (const cell of [...cells.bornIn(epoch)]) {
    // The records of cell (epoch, next) were dropped one by one. What it counts still is of others,
    // whose newer ones went before, with snapshot `next`: its own end will free them.
    const death = cell.death === next ? intervalAfter(lineage, at + 1) : cell.death;
    if (cell.blocks === 0 && cell.records === 0) cells.delete(cell);
    else merge(cell, next, death);
  }
  for (const cell of cells.diedIn(epoch)) merge(cell, cell.birth, next);
  store.lineages.removeSnapshot(snapshots[at]);
  snapshots.splice(at, 1);
  findBarrier(lineage);
}

/** After `dropHead` of every chunk: what the snapshot at `bound` sees is the newest state. */
function forgetHead({ store }: Change, lineage: Lineage, bound: number): void {
  const { cells, snapshots } = lineage;
  const { lineages } = store;
  for (const cell of [...cells]) {
    if (cell.birth > bound) cells.delete(cell);
    else if (cell.death > bound && cell.death !== alive) {
      const to = cells.at(cell.birth, alive);
      to.blocks += cell.blocks;
      store.index.join(cell, to);
      cells.delete(cell);
    }
  }
  while (snapshots.length > 0 && snapshots[snapshots.length - 1].epoch > bound) {
    lineages.removeSnapshot(snapshots.pop()!);
  }
  if (bound === 0) {
    lineages.forget(lineage);
    return;
  }
  lineage.headless = true;
  lineage.epoch = bound;
  lineage.live = cells.at(bound, alive);
  findBarrier(lineage);
}

// ---- volumes and snapshots -------------------------------------------------------------------

function createVolume({ store, words }: Change, at: number): void {
  const { lineages } = store;
  const identity = at + entryWords;
  const epoch = words[at + 5];
  lineages.add(
    createLineage(
      {
        number: words[at + 1],
        uuid: uuidOfWords(words.subarray(identity + 2, identity + 6)),
        parent: lineages.byNumber.get(words[at + 2]) ?? null,
        forkEpoch: words[at + 3],
        firstEpoch: epoch,
        epoch,
        sizeBytes: sizeOf(words, at),
        ...{ sealed: false, deleted: false, headless: false, ownedBlocks: 0 },
      },
      lineages.cells,
    ),
  );
}

function createSnapshot({ store, words }: Change, lineage: Lineage, at: number): void {
  const identity = at + entryWords;
  store.lineages.addSnapshot({
    uuid: uuidOfWords(words.subarray(identity + 2, identity + 6)),
    lineage,
    epoch: words[at + 5],
    sizeBytes: lineage.sizeBytes,
    createdMs: sizeOf(words, at),
    ...{ deleted: false, children: 0, openCount: 0 },
  });
  lineage.epoch = words[at + 3];
  lineage.live = lineage.cells.at(lineage.epoch, alive);
  store.lineages.passEpoch(lineage.epoch);
}

function changeVolume(change: Change, type: number, lineage: Lineage, at: number): void {
  const { lineages } = change.store;
  const { words } = change;
  if (type === EntryType.volumeSeal) lineage.sealed = true;
  else if (type === EntryType.volumeResize) lineage.sizeBytes = sizeOf(words, at);
  else if (type === EntryType.volumeDelete) lineages.delete(lineage);
  else if (type === EntryType.claim) claim(lineage, words, at);
  else if (type === EntryType.operation) noteOperation(lineage, words, at);
  else if (type === EntryType.groupFlush) noteFlush(lineage, versionOf(words, at));
  else if (type === EntryType.headForget) forgetHead(change, lineage, words[at + 5]);
  else if (type === EntryType.snapshotForget) forgetSnapshot(change, lineage, words[at + 5]);
  else if (type === EntryType.snapshotDelete) {
    const snapshot = snapshotAt(lineage, words[at + 5]);
    if (snapshot !== undefined) lineages.deleteSnapshot(snapshot);
  }
}

// ---- groups ----------------------------------------------------------------------------------

function claim(lineage: Lineage, words: Uint32Array, at: number): void {
  lineage.writer = {
    generation: words[at + 3],
    groupEpoch: words[at + 4],
    id: [words[at + 6], words[at + 7]],
  };
}

function noteOperation(lineage: Lineage, words: Uint32Array, at: number): void {
  const version = versionOf(words, at);
  const flags = (words[at] >>> 8) & 0xff;
  const partly = (flags & OperationFlag.partly) !== 0;
  const last = lineage.operations.at(-1);
  if (last?.sequence === version.sequence && last.generation === version.generation) {
    lineage.operations.pop();
  }
  if (!partly) lineage.version = version;
  lineage.operations.push({
    ...version,
    discards: (flags & OperationFlag.discards) !== 0,
    partly,
    sector: words[at + 2] + (words[at] >>> 16) * 2 ** 32,
    sectors: words[at + 3],
  });
}

function noteFlush(lineage: Lineage, flushed: Version): void {
  const { operations } = lineage;
  lineage.flushed = flushed;
  const kept = operations.findIndex((operation) => isAfter(operation, flushed));
  operations.splice(0, kept < 0 ? operations.length : kept);
}

function versionOf(words: Uint32Array, at: number): Version {
  return { generation: words[at + 4], sequence: sizeOf(words, at) };
}

function sizeOf(words: Uint32Array, at: number): number {
  return words[at + 6] + words[at + 7] * 2 ** 32;
}

function uuidOfWords(words: Uint32Array): string {
  const hex = Array.from(words, (word) => {
    const bytes = [word & 0xff, (word >>> 8) & 0xff, (word >>> 16) & 0xff, word >>> 24];
    return bytes.map((byte) => byte.toString(16).padStart(2, "0")).join("");
  }).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}
