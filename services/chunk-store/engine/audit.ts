/**
 * Counts every block of a mounted store in two ways: by the bitmap, and by what leads to it. Reads
 * all map pages; for tests and for an offline check. Changes nothing.
 */
import { chunkBlocks } from "../limits.ts";
import { holePointer, mapWords } from "./layout.ts";
import type { Store } from "./store.ts";

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
  const owned = new Map<number, number>();
  for (let record = 0; record < index.count; record++) {
    const number = index.lineage[record];
    if (number === 0) continue;
    const name = `chunk ${index.chunk[record]} of lineage ${number}`;
    if (!lineages.byNumber.has(number)) problems.push(`${name} belongs to no volume`);
    if (index.slot[record] !== 0) claim(index.slot[record], `the map page of ${name}`);
    const frame = cache.load(record);
    if (frame < 0) {
      problems.push(`the map page of ${name} is unreadable`);
      continue;
    }
    for (let block = 0; block < chunkBlocks; block++) {
      const pointer = cache.words[frame * mapWords + block];
      if (pointer === 0 || pointer === holePointer) continue;
      claim(pointer, name);
      owned.set(number, (owned.get(number) ?? 0) + 1);
    }
  }
  for (const lineage of lineages.byNumber.values()) {
    const counted = owned.get(lineage.number) ?? 0;
    if (counted !== lineage.ownedBlocks) {
      problems.push(
        `volume ${lineage.uuid} counts ${lineage.ownedBlocks} blocks, and has ${counted}`,
      );
    }
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
