/** A store that was used: for tests of what reads all of one. */
import { expect } from "vitest";
import { SimDisk } from "#lib/sim/disk.ts";
import { Random } from "#lib/sim/random.ts";
import { BlockOp, BlockStatus } from "#lib/volume/block.ts";
import { createBatch } from "#lib/volume/executor.ts";
import { checksum } from "../file-disk.ts";
import { blockBytes, chunkBlocks } from "../limits.ts";
import { holePointer, mapWords } from "./layout.ts";
import { formatStore, mountStore } from "./mount.ts";
import type { Store } from "./store.ts";
import { Transfer } from "./transfer.ts";

export const device = "/dev/sdx";
export const pool = "11111111-2222-3333-4444-555555555555";
export const storeId = "66666666-7777-8888-9999-aaaaaaaaaaaa";
export const id = (number: number) =>
  `00000000-0000-4000-8000-${number.toString(16).padStart(12, "0")}`;

/** Volumes with snapshots, a clone and a deleted one; `clean`: shut down, else killed after a flush. */
export function usedDisk(clean = true): SimDisk {
  const disk = new SimDisk(16 << 20, new Random(3), (bytes) => checksum(bytes, 0, bytes.length));
  formatStore(disk, { device, pool, store: storeId, nowMs: 0, checksum });
  const store = mountStore(disk, { device, checksum, memoryBytes: 0 });
  const transfer = new Transfer(store);
  const batch = createBatch();
  const random = new Random(5);
  const write = (number: number) => {
    const lineage = store.lineages.byUuid.get(id(number))!;
    for (let i = 0; i < 40; i++) {
      batch.count = 1;
      batch.op[0] = BlockOp.write;
      batch.volume[0] = 0;
      batch.sector[0] = random.below(500) * 8;
      batch.lengthBytes[0] = blockBytes;
      batch.payloadOffset[0] = 0;
      batch.payload = new Uint8Array(blockBytes).fill(random.below(255) + 1);
      transfer.execute(batch, [{ lineage, snapshot: null }]);
      expect(batch.status[0]).toBe(BlockStatus.ok);
    }
  };
  const first = store.createVolume(id(1), 4 << 20, null);
  store.createVolume(id(2), 4 << 20, null);
  write(1);
  write(2);
  const [kept] = store.createSnapshots([{ lineage: first, uuid: id(11) }], 1);
  write(1);
  store.createVolume(id(3), 4 << 20, kept);
  write(3);
  store.createSnapshots([{ lineage: first, uuid: id(12) }], 2);
  write(1);
  store.deleteVolume(store.lineages.byUuid.get(id(2))!);
  for (let i = 0; i < 3000 && (store.turn() === 0 || disk.finishFlush()); i++);
  if (clean) store.shutdown();
  else {
    expect(store.flushSync()).toBe(true);
    // Its record states that those before it are durable.
    store.createVolume(id(4), 4 << 20, null);
    expect(store.flushSync()).toBe(true);
    disk.killProcess();
  }
  return disk;
}

/** What the store on a disk needs, by what it is; changes the disk no more than a mount does. */
export function blocksInUse(disk: SimDisk): { what: string; block: number }[] {
  const copy = new SimDisk(disk.sizeBytes, new Random(1), (bytes) =>
    checksum(bytes, 0, bytes.length),
  );
  copy.write(disk.image, 0, disk.sizeBytes, 0);
  // Of the store as it is, before a mount's own writes: the overlay keeps them off.
  const store: Store = mountStore(copy, { device, checksum, memoryBytes: 0, format: 0 });
  const found = new Map<number, string>([
    [0, "superblock"],
    [1, "superblock"],
  ]);
  for (const [what, slots] of Object.entries(store.hidden)) {
    for (const slot of slots) found.set(slot, what);
  }
  const { index, cache } = store;
  for (let record = 0; record < index.count; record++) {
    if (index.lineage[record] === 0) continue;
    if (index.slot[record] !== 0) found.set(index.slot[record], "map page");
    const frame = cache.load(record);
    for (let block = 0; block < chunkBlocks; block++) {
      const pointer = cache.words[frame * mapWords + block];
      if (pointer !== 0 && pointer !== holePointer) found.set(pointer, "data");
    }
  }
  return [...found].map(([block, what]) => ({ block, what }));
}

/** One bit is another one. */
export function flip(disk: SimDisk, byte: number, bit: number): void {
  disk.image[byte] ^= 1 << bit;
}
