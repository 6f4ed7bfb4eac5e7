import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { SimDisk } from "#lib/sim/disk.ts";
import { Random } from "#lib/sim/random.ts";
import { BlockOp, BlockStatus } from "#lib/volume/block.ts";
import { createBatch } from "#lib/volume/executor.ts";
import { checksum } from "../file-disk.ts";
import { blockBytes } from "../limits.ts";
import { Allocator } from "./allocator.ts";
import { auditStore } from "./audit.ts";
import { advanceCheckpoint, beginCheckpoint, checkpointNow } from "./checkpoint.ts";
import { Deltas } from "./deltas.ts";
import { formatStore, mountStore } from "./mount.ts";
import type { Store } from "./store.ts";
import { Transfer } from "./transfer.ts";

const mebibyte = 2 ** 20;
const device = "disk";
const volume = "00000000-0000-4000-8000-000000000001";
/** More than the least number of map pages in memory, 16. */
const chunks = 40;

/** A store with one volume that has a block in each of its chunks. */
class Bench {
  readonly disk = new SimDisk(64 * mebibyte, new Random(7), (bytes) =>
    checksum(bytes, 0, bytes.length),
  );
  store: Store;
  private readonly batch = createBatch();

  constructor() {
    const pool = "11111111-2222-3333-4444-555555555555";
    const store = "66666666-7777-8888-9999-aaaaaaaaaaaa";
    formatStore(this.disk, { device, pool, store, nowMs: 0, checksum });
    this.store = this.mount();
    this.store.createVolume(volume, chunks * mebibyte, null);
    this.write(0, 1);
  }

  /** One block at `offset` of each chunk. */
  write(offset: number, value: number): void {
    for (let chunk = 0; chunk < chunks; chunk++) {
      this.run(BlockOp.write, chunk, offset, new Uint8Array(blockBytes).fill(value));
    }
  }

  values(offset: number): number[] {
    const found = new Set<number>();
    for (let chunk = 0; chunk < chunks; chunk++) {
      const block = new Uint8Array(blockBytes).fill(255);
      this.run(BlockOp.read, chunk, offset, block);
      for (const value of block) found.add(value);
    }
    return [...found];
  }

  remount(): void {
    this.store = this.mount();
    expect(auditStore(this.store)).toEqual([]);
  }

  private mount(): Store {
    return mountStore(this.disk, { device, checksum, memoryBytes: 0 });
  }

  private run(op: number, chunk: number, offset: number, bytes: Uint8Array): void {
    const { batch, store } = this;
    batch.count = 1;
    batch.op[0] = op;
    batch.volume[0] = 0;
    batch.sector[0] = (chunk * mebibyte + offset) / 512;
    batch.lengthBytes[0] = bytes.length;
    batch.payloadOffset[0] = 0;
    batch.payload = bytes as Uint8Array<ArrayBuffer>;
    const lineage = store.lineages.byUuid.get(volume)!;
    new Transfer(store).execute(batch, [{ lineage, snapshot: null }]);
    expect(batch.status[0]).toBe(BlockStatus.ok);
  }
}

describe("map pages that memory has no room for", () => {
  test("leave their changes in it, and are whole when they come back", () => {
    const bench = new Bench();
    const { cache } = bench.store;
    expect(cache.frames).toBeLessThan(chunks);
    expect(cache.dirtyCount).toBe(chunks);
    expect(cache.deltas.count).toBe(chunks - cache.frames);
    bench.write(blockBytes, 2);
    expect(bench.values(0)).toEqual([1]);
    expect(bench.values(blockBytes)).toEqual([2]);
    expect(auditStore(bench.store)).toEqual([]);
  });

  test("are in a checkpoint like the others; then nothing is left of their changes", () => {
    const bench = new Bench();
    checkpointNow(bench.store);
    expect(bench.store.cache.dirtyCount).toBe(0);
    expect(bench.store.cache.deltas.count).toBe(0);
    bench.write(blockBytes, 2);
    bench.store.shutdown();
    bench.remount();
    expect(bench.store.log.usedSectors).toBeLessThan(4);
    expect(bench.values(0)).toEqual([1]);
    expect(bench.values(blockBytes)).toEqual([2]);
  });
});

describe("requests while a checkpoint is written", () => {
  const allPages = chunks + 8;

  test.each([0, 1, 7, 24, chunks - 1, chunks, chunks + 2])(
    "after %i of its pages: they change what comes after it, wherever the power goes",
    (pages) => {
      for (const ended of [false, true]) {
        const bench = new Bench();
        beginCheckpoint(bench.store);
        advanceCheckpoint(bench.store, pages);
        expect(bench.store.checkpoint?.stage).toBe("pages");
        bench.write(0, 2);
        bench.write(blockBytes, 3);
        if (ended) checkpointNow(bench.store);
        expect(bench.store.flushSync()).toBe(true);
        bench.disk.cutPower("nothing");
        bench.remount();
        expect(bench.values(0)).toEqual([2]);
        expect(bench.values(blockBytes)).toEqual([3]);
      }
    },
  );

  test("what it has is what was there when it began", () => {
    const bench = new Bench();
    beginCheckpoint(bench.store);
    const { sequence } = bench.store.checkpoint!;
    bench.write(0, 2);
    advanceCheckpoint(bench.store, allPages);
    bench.disk.finishFlush();
    bench.store.turn();
    bench.disk.finishFlush();
    bench.store.turn();
    expect(bench.store.checkpoint).toBeNull();
    expect(bench.store.superblock.checkpointSequence).toBe(sequence);
    // Nothing after its end was flushed, so nothing after its begin need be there.
    bench.disk.cutPower("nothing");
    bench.remount();
    expect([[1], [2], [1, 2], [2, 1]]).toContainEqual(bench.values(0));
  });
});

describe("deltas", () => {
  test("give back what each list was given, the last first, and grow as they must", () => {
    const cell = fc.tuple(fc.nat(255), fc.nat(2 ** 32 - 1), fc.nat(2 ** 32 - 1), fc.nat(99));
    fc.assert(
      fc.property(fc.array(fc.array(cell, { maxLength: 300 }), { maxLength: 9 }), (lists) => {
        const deltas = new Deltas(64);
        const heads = lists.map((cells) =>
          cells.reduce((list, each) => deltas.add(list, ...each), -1),
        );
        expect(deltas.count).toBe(lists.flat().length);
        heads.forEach((head, i) => {
          const found: number[][] = [];
          deltas.take(head, (...each) => found.push(each));
          expect(found).toEqual(lists[i].toReversed());
        });
        expect(deltas.count).toBe(0);
      }),
    );
  });
});

describe("replay", () => {
  test("who takes a block may come before who had it: it is as after the log's own order", () => {
    fc.assert(
      fc.property(fc.array(fc.nat(19), { maxLength: 200 }), fc.nat(), (blocks, seed) => {
        const random = new Random(seed);
        const used = new Set<number>([0, 1, 2]);
        const takenAt = new Map<number, number>();
        const events: { block: number; taken: boolean; at: number }[] = [];
        for (const block of blocks) {
          const taken = !used.has(block);
          // Any time; but whoever took a block takes it before letting it go.
          const at = taken ? random.below(1000) : (takenAt.get(block) ?? 0) + random.below(1000);
          if (taken) {
            used.add(block);
            takenAt.set(block, at);
          } else used.delete(block);
          events.push({ block, taken, at });
        }
        const allocator = new Allocator(20);
        allocator.recount();
        for (const block of [0, 1, 2]) allocator.take(block);
        allocator.beginReplay();
        for (const { block, taken } of events.toSorted((a, b) => a.at - b.at)) {
          if (taken) allocator.take(block);
          else allocator.release(block);
        }
        allocator.endReplay();
        for (let block = 0; block < 20; block++) {
          expect(allocator.isUsed(block)).toBe(used.has(block));
        }
        expect(allocator.freeBlocks).toBe(20 - used.size);
      }),
    );
  });
});
