/** Snapshots, clones of them, what they keep, and what is free once they are gone. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import { PowerCut, SimDisk } from "#lib/sim/disk.ts";
import { Random } from "#lib/sim/random.ts";
import { BlockOp, BlockStatus } from "#lib/volume/block.ts";
import { createBatch } from "#lib/volume/executor.ts";
import { checksum } from "../file-disk.ts";
import { auditStore } from "./audit.ts";
import { findDifferences } from "./differences.ts";
import { intervalAfter, type Lineage, type Snapshot } from "./lineages.ts";
import { formatStore, mountStore } from "./mount.ts";
import type { Store } from "./store.ts";
import { Transfer } from "./transfer.ts";

const pool = "11111111-2222-3333-4444-555555555555";
const storeId = "66666666-7777-8888-9999-aaaaaaaaaaaa";
const mebibyte = 2 ** 20;
const nowMs = 1_800_000_000_000;
const id = (number: number) => `00000000-0000-4000-8000-${number.toString(16).padStart(12, "0")}`;

class Bench {
  disk: SimDisk;
  store: Store;
  private transfer: Transfer;
  private readonly batch = createBatch();
  private nextId = 100;

  constructor(disk = formatted()) {
    this.disk = disk;
    this.store = this.mount();
    this.transfer = new Transfer(this.store);
  }

  private mount(): Store {
    return mountStore(this.disk, { device: "disk", checksum, memoryBytes: 0, pool });
  }

  /** As after kill -9 and, with `power`, after a power cut that loses all that was not flushed. */
  restart(power = false): void {
    if (power) this.disk.cutPower("nothing");
    else this.disk.killProcess();
    this.store = this.mount();
    this.transfer = new Transfer(this.store);
  }

  volume(number = 1, mebibytes = 4): Lineage {
    return this.store.createVolume(id(number), mebibytes * mebibyte, null);
  }

  find(number: number): Lineage {
    return this.store.lineages.byUuid.get(id(number))!;
  }

  snapshot(...lineages: Lineage[]): Snapshot[] {
    const wanted = lineages.map((lineage) => ({ lineage, uuid: id(this.nextId++) }));
    return this.store.createSnapshots(wanted, nowMs);
  }

  clone(number: number, of: Snapshot): Lineage {
    return this.store.createVolume(id(number), of.sizeBytes, of);
  }

  request(of: Lineage | Snapshot, op: number, block: number, blocks: number, value = 0): number {
    const { batch } = this;
    const snapshot = "lineage" in of ? of : null;
    const lineage = "lineage" in of ? of.lineage : of;
    batch.count = 1;
    batch.op[0] = op;
    batch.volume[0] = 0;
    batch.sector[0] = block * 8;
    batch.lengthBytes[0] = blocks * 4096;
    batch.payloadOffset[0] = 0;
    batch.payload = new Uint8Array(blocks * 4096).fill(value);
    this.transfer.execute(batch, [{ lineage, snapshot }]);
    return batch.status[0];
  }

  write(of: Lineage | Snapshot, value: number, block = 0, blocks = 1): void {
    expect(this.request(of, BlockOp.write, block, blocks, value)).toBe(BlockStatus.ok);
  }

  discard(of: Lineage, block: number, blocks: number): void {
    expect(this.request(of, BlockOp.discard, block, blocks)).toBe(BlockStatus.ok);
  }

  /** First byte of each block; every block must be of one byte. */
  read(of: Lineage | Snapshot, block = 0, blocks = 1): number[] {
    expect(this.request(of, BlockOp.read, block, blocks)).toBe(BlockStatus.ok);
    const { payload } = this.batch;
    return Array.from({ length: blocks }, (_, i) => {
      const bytes = payload.subarray(i * 4096, (i + 1) * 4096);
      expect(bytes.every((byte) => byte === bytes[0])).toBe(true);
      return bytes[0];
    });
  }

  settle(): void {
    for (let i = 0; i < 5000 && (this.store.turn() === 0 || this.disk.finishFlush()); i++);
  }

  audit(): void {
    expect(auditStore(this.store)).toEqual([]);
  }

  /** Blocks of data that only this snapshot keeps. */
  exclusive({ lineage, epoch }: Snapshot): number {
    const at = lineage.snapshots.findIndex((each) => each.epoch === epoch);
    return lineage.cells.find(epoch, intervalAfter(lineage, at))?.blocks ?? 0;
  }

  get used(): number {
    return this.store.space().used;
  }
}

function formatted(sizeBytes = 32 * mebibyte): SimDisk {
  const disk = new SimDisk(sizeBytes, new Random(7), (bytes) => checksum(bytes, 0, bytes.length));
  formatStore(disk, { device: "disk", pool, store: storeId, nowMs: 0, checksum });
  return disk;
}

describe("a snapshot", () => {
  test("keeps what was there, whatever is written, discarded or zeroed after it", () => {
    const bench = new Bench();
    const volume = bench.volume();
    bench.write(volume, 1, 0, 4);
    const [first] = bench.snapshot(volume);
    bench.write(volume, 2, 1);
    bench.discard(volume, 2, 1);
    const [second] = bench.snapshot(volume);
    bench.discard(volume, 0, 256);
    expect(bench.read(first, 0, 4)).toEqual([1, 1, 1, 1]);
    expect(bench.read(second, 0, 4)).toEqual([1, 2, 0, 1]);
    expect(bench.read(volume, 0, 4)).toEqual([0, 0, 0, 0]);
    expect(bench.request(first, BlockOp.write, 0, 1)).toBe(BlockStatus.readOnly);
    bench.audit();
    for (const power of [false, true]) {
      bench.store.flushSync();
      bench.restart(power);
      bench.audit();
      const found = bench.store.lineages.snapshots;
      expect(bench.read(found.get(first.uuid)!, 0, 4)).toEqual([1, 1, 1, 1]);
      expect(bench.read(found.get(second.uuid)!, 0, 4)).toEqual([1, 2, 0, 1]);
    }
  });

  test("copies no data: it costs one log record, and the first write to a chunk one map page", () => {
    const bench = new Bench();
    const volume = bench.volume();
    bench.write(volume, 1, 0, 256);
    const { used } = bench;
    const written = bench.store.log.writtenBytes;
    bench.snapshot(volume);
    expect(bench.store.log.writtenBytes - written).toBe(512);
    expect(bench.used).toBe(used);
    const records = bench.store.index.live;
    bench.write(volume, 2, 7);
    expect(bench.used).toBe(used + 1);
    expect(bench.store.index.live).toBe(records + 1);
  });

  test("of several volumes is one instant: after a power cut all of them are there, or none", () => {
    for (let keep = 0; keep < 2; keep++) {
      const bench = new Bench();
      const volumes = [1, 2, 3].map((number) => bench.volume(number));
      for (const [i, volume] of volumes.entries()) bench.write(volume, i + 1);
      bench.store.flushSync();
      const snapshots = bench.snapshot(...volumes);
      if (keep === 1) bench.store.flushSync();
      bench.restart(true);
      const found = snapshots.filter(({ uuid }) => bench.store.lineages.snapshots.has(uuid));
      expect(found).toHaveLength(keep * 3);
    }
  });

  test("has the size that its volume had", () => {
    const bench = new Bench();
    const volume = bench.volume(1, 4);
    const [snapshot] = bench.snapshot(volume);
    bench.store.growVolume(volume, 8 * mebibyte);
    expect(bench.request(snapshot, BlockOp.read, 1024, 1)).toBe(BlockStatus.outOfRange);
    expect(bench.request(volume, BlockOp.read, 1024, 1)).toBe(BlockStatus.ok);
  });

  test("of a store in the former format is refused until that is left", () => {
    const disk = new SimDisk(16 * mebibyte, new Random(7), (bytes) =>
      checksum(bytes, 0, bytes.length),
    );
    formatStore(disk, { device: "disk", pool, store: storeId, nowMs: 0, checksum, format: 0 });
    const store = mountStore(disk, { device: "disk", checksum, memoryBytes: 0, format: 0 });
    const volume = store.createVolume(id(1), mebibyte, null);
    const wanted = [{ lineage: volume, uuid: id(2) }];
    expect(() => store.createSnapshots(wanted, nowMs)).toThrow(/no snapshots yet/);
    store.raiseFormat(1);
    expect(store.createSnapshots(wanted, nowMs)).toHaveLength(1);
  });
});

describe("deleting", () => {
  test("frees what only the snapshot had, in any order, and reads of the others stay", () => {
    const orders = [
      [0, 1, 2, 3],
      [3, 2, 1, 0],
      [1, 3, 0, 2],
      [2, 0, 3, 1],
    ];
    for (const order of orders) {
      const bench = new Bench();
      const volume = bench.volume();
      const snapshots: Snapshot[] = [];
      const expected: number[][] = [];
      for (let round = 1; round <= 4; round++) {
        bench.write(volume, round, round, 3);
        if (round % 2 === 0) bench.discard(volume, round + 1, 1);
        expected.push(bench.read(volume, 0, 8));
        snapshots.push(...bench.snapshot(volume));
      }
      bench.write(volume, 9, 2, 2);
      const now = bench.read(volume, 0, 8);
      const left = new Set(order);
      for (const at of order) {
        const frees = bench.exclusive(snapshots[at]);
        const { used } = bench;
        bench.store.deleteSnapshot(snapshots[at]);
        left.delete(at);
        bench.settle();
        expect(used - bench.used).toBe(frees);
        bench.audit();
        for (const other of left)
          expect(bench.read(snapshots[other], 0, 8)).toEqual(expected[other]);
        expect(bench.read(volume, 0, 8)).toEqual(now);
      }
      expect(bench.used).toBe(now.filter((value) => value !== 0).length);
      expect(bench.store.index.live).toBe(1);
    }
  });

  test("of the newest snapshot while its volume is written frees each block once", () => {
    const bench = new Bench();
    const volume = bench.volume(1, 8);
    for (let chunk = 0; chunk < 8; chunk++) bench.write(volume, 1, chunk * 256, 4);
    const [snapshot] = bench.snapshot(volume);
    for (let chunk = 0; chunk < 8; chunk++) bench.write(volume, 2, chunk * 256, 1);
    bench.store.deleteSnapshot(snapshot);
    for (let chunk = 0; chunk < 8; chunk++) bench.write(volume, 3, chunk * 256, 3);
    bench.audit();
    bench.settle();
    bench.audit();
    expect(bench.used).toBe(8 * 4);
  });

  test("of a volume keeps its snapshots, and frees what only its newest state had", () => {
    const bench = new Bench();
    const volume = bench.volume();
    bench.write(volume, 1, 0, 10);
    const [snapshot] = bench.snapshot(volume);
    bench.write(volume, 2, 0, 6);
    bench.write(volume, 2, 600, 6);
    bench.store.deleteVolume(volume);
    bench.settle();
    bench.audit();
    expect(bench.used).toBe(10);
    expect(bench.read(snapshot, 0, 10)).toEqual(new Array(10).fill(1));
    bench.store.flushSync();
    bench.restart();
    bench.audit();
    bench.store.deleteSnapshot(bench.store.lineages.snapshots.get(snapshot.uuid)!);
    bench.settle();
    expect(bench.used).toBe(0);
    expect(bench.store.lineages.byNumber.size).toBe(0);
  });

  test("a deleted origin stays while a clone of its snapshot sees it, then all is free", () => {
    const bench = new Bench();
    const volume = bench.volume();
    bench.write(volume, 1, 0, 8);
    const [snapshot] = bench.snapshot(volume);
    bench.write(volume, 2, 0, 8);
    const clone = bench.clone(2, snapshot);
    const second = bench.clone(3, bench.snapshot(clone)[0]);
    bench.store.deleteSnapshot(snapshot);
    bench.store.deleteVolume(volume);
    bench.settle();
    bench.audit();
    expect(bench.read(clone, 0, 8)).toEqual(new Array(8).fill(1));
    expect(bench.read(second, 0, 8)).toEqual(new Array(8).fill(1));
    expect(bench.used).toBe(8);
    for (const line of [clone, second]) bench.store.deleteVolume(line);
    for (const left of [...bench.store.lineages.snapshots.values()]) {
      bench.store.deleteSnapshot(left);
    }
    bench.settle();
    bench.audit();
    expect(bench.used).toBe(0);
    expect(bench.store.lineages.byNumber.size).toBe(0);
  });

  test("half done when the power goes, it is finished by the next mount", () => {
    const bench = new Bench();
    const volume = bench.volume(1, 24);
    for (let chunk = 0; chunk < 24; chunk++) bench.write(volume, 1, chunk * 256, 2);
    const [snapshot] = bench.snapshot(volume);
    for (let chunk = 0; chunk < 24; chunk++) bench.write(volume, 2, chunk * 256, 2);
    bench.store.deleteSnapshot(snapshot);
    bench.store.turn();
    bench.store.flushSync();
    bench.restart(true);
    bench.audit();
    bench.settle();
    bench.audit();
    expect(bench.used).toBe(48);
    expect(bench.read(bench.find(1), 23 * 256, 2)).toEqual([2, 2]);
  });

  test("half done, and the one before it goes too: its space still adds up", () => {
    const bench = new Bench();
    const volume = bench.volume(1, 24);
    for (let chunk = 0; chunk < 24; chunk++) bench.write(volume, 1, chunk * 256, 2);
    const [first] = bench.snapshot(volume);
    for (let chunk = 0; chunk < 24; chunk++) bench.write(volume, 2, chunk * 256);
    const [second] = bench.snapshot(volume);
    for (let chunk = 0; chunk < 24; chunk++) bench.write(volume, 3, chunk * 256);
    bench.store.deleteSnapshot(second);
    bench.store.turn();
    bench.store.deleteSnapshot(first);
    do bench.audit();
    while (bench.store.turn() === 0);
    expect(bench.used).toBe(48);
  });
});

describe("a clone of a snapshot", () => {
  test("sees the volume as it was, and its own writes and discards", () => {
    const bench = new Bench();
    const volume = bench.volume();
    bench.write(volume, 1, 0, 4);
    const [snapshot] = bench.snapshot(volume);
    bench.write(volume, 5, 0, 4);
    const clone = bench.clone(2, snapshot);
    bench.write(clone, 2, 1);
    bench.discard(clone, 2, 1);
    expect(bench.read(clone, 0, 4)).toEqual([1, 2, 0, 1]);
    const [ofClone] = bench.snapshot(clone);
    bench.discard(clone, 0, 256);
    expect(bench.read(clone, 0, 4)).toEqual([0, 0, 0, 0]);
    expect(bench.read(ofClone, 0, 4)).toEqual([1, 2, 0, 1]);
    bench.audit();
  });
});

describe("reverting", () => {
  test("leads back, keeps the snapshots, and frees what was written since", () => {
    const bench = new Bench();
    const volume = bench.volume();
    bench.write(volume, 1, 0, 4);
    const [first] = bench.snapshot(volume);
    bench.write(volume, 2, 0, 4);
    const [second] = bench.snapshot(volume);
    bench.write(volume, 3, 0, 4);
    const reverted = bench.store.revertVolume(volume, first);
    expect(reverted.uuid).toBe(volume.uuid);
    bench.settle();
    bench.audit();
    expect(bench.read(reverted, 0, 4)).toEqual([1, 1, 1, 1]);
    expect(bench.read(second, 0, 4)).toEqual([2, 2, 2, 2]);
    expect(bench.used).toBe(8);
    bench.write(reverted, 4, 0, 1);
    bench.store.flushSync();
    bench.restart();
    expect(bench.read(bench.find(1), 0, 2)).toEqual([4, 1]);
    // Forward again: a snapshot later than the one reverted to.
    const forward = bench.store.revertVolume(
      bench.find(1),
      bench.store.lineages.snapshots.get(second.uuid)!,
    );
    bench.settle();
    expect(bench.read(forward, 0, 4)).toEqual([2, 2, 2, 2]);
    bench.audit();
  });
});

describe("differences", () => {
  test("name the ranges that changed, over snapshots, clones and pages of an answer", () => {
    const bench = new Bench();
    const volume = bench.volume(1, 16);
    bench.write(volume, 1, 0, 512);
    const [first] = bench.snapshot(volume);
    bench.write(volume, 2, 10, 3);
    const [second] = bench.snapshot(volume);
    bench.write(volume, 3, 12, 2);
    bench.discard(volume, 300, 4);
    bench.write(volume, 3, 1024, 1);
    const state = (of: Snapshot | Lineage) =>
      "lineage" in of ? of : { lineage: of, epoch: of.epoch };
    const ranges = (from: Snapshot | null, to: Snapshot | Lineage, limit = 100) => {
      const found: string[] = [];
      for (let chunk: number | null = 0; chunk !== null; ) {
        const some = findDifferences(bench.store, from, state(to), chunk, limit);
        found.push(
          ...some.ranges.map(({ first, count, zero }) => `${first}+${count}${zero ? " zero" : ""}`),
        );
        chunk = some.nextChunk;
      }
      return found;
    };
    expect(ranges(first, second)).toEqual(["10+3"]);
    expect(ranges(second, volume)).toEqual(["12+2", "300+4 zero", "1024+1"]);
    expect(ranges(first, volume, 1)).toEqual(["10+4", "300+4 zero", "1024+1"]);
    expect(ranges(null, second)).toEqual(["0+512"]);
    const clone = bench.clone(2, second);
    bench.write(clone, 9, 700, 1);
    expect(ranges(first, clone)).toEqual(["10+3", "700+1"]);
    expect(() => ranges(second, first)).toThrow(/does not descend/);
    const other = bench.volume(3);
    expect(() => ranges(first, other)).toThrow(/does not descend/);
  });
});

describe("space", () => {
  test("what snapshots keep, share and what is newest add up, through 400 random changes", () => {
    const random = new Random(20261128);
    const bench = new Bench(formatted(64 * mebibyte));
    const volume = bench.volume(1, 16);
    let snapshots: Snapshot[] = [];
    for (let step = 0; step < 400; step++) {
      const choice = random.below(10);
      const block = random.below(16) * 256 + random.below(4);
      if (choice < 6) bench.write(volume, 1 + random.below(200), block, 1 + random.below(5));
      else if (choice < 7) bench.discard(volume, block, 1 + random.below(300));
      else if (choice < 9) snapshots.push(...bench.snapshot(volume));
      else if (snapshots.length > 0) {
        const gone = random.pick(snapshots);
        snapshots = snapshots.filter((each) => each !== gone);
        bench.store.deleteSnapshot(gone);
      }
      if (random.oneIn(3)) bench.store.turn();
      if (random.oneIn(20)) bench.settle();
      if (step % 40 === 0) bench.audit();
    }
    bench.settle();
    bench.audit();
    for (const snapshot of snapshots) bench.store.deleteSnapshot(snapshot);
    bench.store.deleteVolume(volume);
    bench.settle();
    expect(bench.used).toBe(0);
    bench.store.shutdown();
    bench.restart();
    bench.audit();
    expect(bench.store.space().metadata).toBeLessThan(bench.store.superblock.logBlocks + 12);
  });
});

describe("a store of format 0, as 2026.11.0 left it", () => {
  function golden(): SimDisk {
    const path = join(import.meta.dirname, "golden/format-0.img.gz");
    const image = gunzipSync(readFileSync(path));
    const disk = new SimDisk(image.length, new Random(1), (bytes) =>
      checksum(bytes, 0, bytes.length),
    );
    disk.write(image, 0, image.length, 0);
    disk.flushSync();
    return disk;
  }

  test("is read, brought forward, and its deleted volume's space comes back", () => {
    const bench = new Bench(golden());
    bench.audit();
    expect(bench.store.superblock.format).toBe(1);
    const [parent, child] = [bench.find(1), bench.find(2)];
    expect(bench.read(parent, 0, 64)).toEqual(new Array(64).fill(1));
    expect(bench.read(parent, 512, 1)).toEqual([2]);
    expect(bench.read(child, 2, 1)).toEqual([0]);
    expect(bench.read(child, 256, 1)).toEqual([5]);
    expect(bench.find(3)).toBeUndefined();
    bench.settle();
    bench.audit();
    expect(bench.used).toBe(65 + 2);
    const [snapshot] = bench.snapshot(child);
    bench.write(child, 8, 256, 1);
    expect(bench.read(snapshot, 256, 1)).toEqual([5]);
    bench.audit();
  });

  test("a kill or a power cut at any moment of that leaves it whole, with what it counts", () => {
    let crashes = 0;
    for (let call = 1; ; call++) {
      for (const cut of ["kill", "nothing", "any"] as const) {
        const disk = golden();
        disk.crashAt = disk.calls + call;
        let crashed = false;
        try {
          mountStore(disk, { device: "disk", checksum, memoryBytes: 0, pool });
        } catch (error) {
          if (!(error instanceof PowerCut)) throw error;
          crashed = true;
        }
        if (cut === "kill") disk.killProcess();
        else disk.cutPower(cut);
        const bench = new Bench(disk);
        bench.audit();
        expect(bench.read(bench.find(2), 256, 1)).toEqual([5]);
        bench.snapshot(bench.find(2));
        bench.write(bench.find(2), 9, 256, 1);
        bench.audit();
        if (crashed) crashes++;
        else if (cut === "any") {
          expect(crashes).toBeGreaterThan(9);
          return;
        }
      }
    }
  });

  test("stays of format 0 while the former version may have to read it", () => {
    const disk = golden();
    const options = { device: "disk", checksum, memoryBytes: 0, pool, format: 0 };
    let store = mountStore(disk, options);
    for (let i = 0; i < 100 && (store.turn() === 0 || disk.finishFlush()); i++);
    store.createVolume(id(4), mebibyte, null);
    store.shutdown();
    const view = new DataView(disk.image.buffer);
    expect([view.getUint32(16, true), view.getUint32(4096 + 16, true)]).toEqual([0, 0]);
    store = mountStore(disk, options);
    expect(auditStore(store)).toEqual([]);
    // No pages that 2026.11.0 would not keep up, and no entries that it would not know.
    expect(store.superblock.cellPages).toBe(0);
    expect(store.lineages.byNumber.size).toBe(4);
    store.raiseFormat(1);
    expect(view.getUint32(16, true) + view.getUint32(4096 + 16, true)).toBe(2);
    for (let i = 0; i < 100 && (store.turn() === 0 || disk.finishFlush()); i++);
    expect(store.lineages.byNumber.size).toBe(3);
    expect(auditStore(store)).toEqual([]);
  });
});
