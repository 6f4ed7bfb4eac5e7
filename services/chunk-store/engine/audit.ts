/**
 * Counts every block of a mounted store in two ways: by the bitmap, and by what leads to it. Reads
 * all map pages; for tests and for an offline check. Changes nothing.
 */
import { chunkBlocks } from "../limits.ts";
import { alive } from "./cells.ts";
import { holePointer, mapWords } from "./layout.ts";
import { intervalAfter, intervalOf, isNeeded, type Lineage } from "./lineages.ts";
import type { Store } from "./store.ts";

/** By birth and death. */
type CountedCells = Map<number, { birth: number; death: number; blocks: number }>;

/** What is wrong, a sentence each; empty if all adds up. */
export function auditStore(store: Store): string[] {
  const { allocator, index, cache, hidden, lineages, superblock } = store;
  const problems: string[] = [];
  const seen = new Uint8Array(allocator.blocks);
  const claim = (block: number, owner: string) => {
    if (block >= allocator.blocks) problems.push(`${owner} names block ${block}, past the device`);
    else if (seen[block] === 1) problems.push(`${owner} names block ${block}, which has an owner`);
    else {
      seen[block] = 1;
      if (!allocator.isUsed(block)) problems.push(`${owner} names block ${block}, which is free`);
    }
  };
  for (let block = 0; block < superblock.logFirstBlock + superblock.logBlocks; block++) {
    claim(block, "the fixed part");
  }
  for (const [name, slots] of Object.entries(hidden)) {
    for (const slot of slots) claim(slot, `the ${name}`);
  }
  for (const slot of store.retiredSlots) claim(slot, "the retired slots");
  for (const slot of store.checkpoint?.freed ?? []) claim(slot, "the checkpoint under way");
  for (const block of allocator.pendingList()) claim(block, "the freed blocks");
  const counted = new Map<number, CountedCells>();
  for (const [number, lineage] of lineages.byNumber) {
    counted.set(number, new Map());
    problems.push(...auditLists(store, lineage));
  }
  let dirty = 0;
  for (let record = 0; record < index.count; record++) {
    const number = index.lineage[record];
    if (number === 0) continue;
    if (cache.isDirty(record)) dirty++;
    const name = `chunk ${index.chunk[record]} of lineage ${number} at epoch ${index.epoch[record]}`;
    const lineage = lineages.byNumber.get(number);
    if (lineage === undefined) {
      problems.push(`${name} belongs to no volume`);
      continue;
    }
    if (index.slot[record] !== 0) claim(index.slot[record], `the map page of ${name}`);
    const older = index.older[record];
    if (older >= 0 && index.epoch[older] >= index.epoch[record]) {
      problems.push(`${name} is not older than the record after it`);
    }
    const page = pageOf(store, record);
    // A block that newer records have too is counted by the newest of them.
    const newer = index.newer[record] < 0 ? undefined : pageOf(store, index.newer[record]);
    if (page === undefined) {
      problems.push(`the map page of ${name} is unreadable`);
      continue;
    }
    if (newer !== undefined) {
      const lacking = lackingBlock(page, newer, index.epoch[record]);
      if (lacking !== undefined) {
        problems.push(`${name} lacks block ${lacking}, which the next newer one has from before`);
      }
    }
    const death =
      newer === undefined ? alive : intervalOf(lineage, index.epoch[index.newer[record]]);
    const cells = counted.get(number)!;
    for (let block = 0; block < chunkBlocks; block++) {
      const pointer = page[block];
      if (pointer === 0 || pointer === holePointer || newer?.[block] === pointer) continue;
      claim(pointer, name);
      const birth = intervalOf(lineage, page[2 * chunkBlocks + block]);
      const key = birth * 2 ** 32 + death;
      const cell = cells.get(key);
      if (cell === undefined) cells.set(key, { birth, death, blocks: 1 });
      else cell.blocks++;
    }
  }
  if (dirty !== cache.dirtyCount) {
    problems.push(`${cache.dirtyCount} map pages are counted as dirty, and ${dirty} are`);
  }
  for (const lineage of lineages.byNumber.values()) {
    problems.push(...auditCounts(lineage, counted.get(lineage.number)!));
  }
  let free = 0;
  for (let block = 0; block < allocator.blocks; block++) {
    if (!allocator.isUsed(block)) free++;
    else if (seen[block] === 0) problems.push(`block ${block} is taken, and nothing leads to it`);
  }
  if (free !== allocator.freeBlocks) {
    problems.push(`${allocator.freeBlocks} blocks are counted as free, and ${free} are`);
  }
  const space = store.space();
  const sum = space.used + space.metadata + space.reclaiming + space.reserved + space.free;
  if (sum !== space.device) problems.push(`the parts add up to ${sum} of ${space.device} blocks`);
  return problems;
}

/** A newer record began as a copy: what it has from up to `epoch`, the older one of that epoch has. */
function lackingBlock(older: Uint32Array, newer: Uint32Array, epoch: number): number | undefined {
  for (let block = 0; block < chunkBlocks; block++) {
    const pointer = newer[block];
    if (pointer === 0 || pointer === holePointer || newer[2 * chunkBlocks + block] > epoch)
      continue;
    const same =
      older[block] === pointer && older[chunkBlocks + block] === newer[chunkBlocks + block];
    if (!same) return block;
  }
  return undefined;
}

function pageOf({ cache }: Store, record: number): Uint32Array | undefined {
  const frame = cache.load(record);
  return frame < 0 ? undefined : cache.words.slice(frame * mapWords, (frame + 1) * mapWords);
}

/** Every record is in the list of the cell that its epoch and the next newer one's give. */
function auditLists({ index }: Store, lineage: Lineage): string[] {
  const problems: string[] = [];
  let listed = 0;
  for (const cell of lineage.cells) {
    let records = 0;
    for (let record = cell.head; record >= 0; record = index.after(record)) {
      const newer = index.newer[record];
      const birth = intervalOf(lineage, index.epoch[record]);
      const death = newer < 0 ? alive : intervalOf(lineage, index.epoch[newer]);
      if (
        index.lineage[record] !== lineage.number ||
        birth !== cell.birth ||
        death !== cell.death
      ) {
        problems.push(`record ${record} is of cell ${birth} to ${death}, and listed in another`);
      }
      records++;
    }
    if (records !== cell.records)
      problems.push(`a cell counts ${cell.records} of ${records} records`);
    listed += records;
  }
  let there = 0;
  for (let record = 0; record < index.count; record++) {
    if (index.lineage[record] === lineage.number) there++;
  }
  if (listed !== there)
    problems.push(`lineage ${lineage.number} lists ${listed} of ${there} records`);
  return problems;
}

function auditCounts(lineage: Lineage, counted: CountedCells): string[] {
  const problems: string[] = [];
  const sum = [...counted.values()].reduce((total, { blocks }) => total + blocks, 0);
  if (sum !== lineage.ownedBlocks) {
    problems.push(`volume ${lineage.uuid} counts ${lineage.ownedBlocks} blocks, and has ${sum}`);
  }
  // While its newest state is being freed, what was born in it is counted at the end only.
  if (lineage.deleted && lineage.children === 0 && lineage.barrier !== lineage.epoch)
    return problems;
  // A snapshot that is being dropped counts as the next one: half of its records are gone already.
  const settled = (interval: number): number => {
    const at = lineage.snapshots.findIndex(({ epoch }) => epoch === interval);
    if (at < 0 || isNeeded(lineage.snapshots[at])) return interval;
    return settled(intervalAfter(lineage, at));
  };
  const difference = new Map<string, number>();
  const add = (birth: number, death: number, blocks: number) => {
    const cell = `${settled(birth)} to ${settled(death)}`;
    difference.set(cell, (difference.get(cell) ?? 0) + blocks);
  };
  for (const { birth, death, blocks } of lineage.cells) add(birth, death, -blocks);
  for (const { birth, death, blocks } of counted.values()) add(birth, death, blocks);
  for (const [cell, blocks] of difference) {
    if (blocks !== 0) {
      problems.push(
        `lineage ${lineage.number} has ${blocks} blocks more of ${cell} than it counts`,
      );
    }
  }
  return problems;
}
