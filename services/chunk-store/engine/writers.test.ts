/** Who may write a volume, and the numbered changes of a group. */
import { describe, expect, test } from "vitest";
import type { Version, Writer } from "#lib/model/writer.ts";
import { SimDisk } from "#lib/sim/disk.ts";
import { Random } from "#lib/sim/random.ts";
import { BlockOp, BlockStatus } from "#lib/volume/block.ts";
import { createBatch } from "#lib/volume/executor.ts";
import { checksum } from "../file-disk.ts";
import { checkpointNow } from "./checkpoint.ts";
import { formatStore, mountStore } from "./mount.ts";
import type { Store } from "./store.ts";
import { Transfer } from "./transfer.ts";
import { device, id, pool, storeId } from "./used-disk.fixture.ts";
import { claimVolume, grant, noteGroupFlush } from "./writers.ts";

class Bench {
  readonly disk = new SimDisk(16 << 20, new Random(3), (bytes) => checksum(bytes, 0, bytes.length));
  store: Store;

  constructor() {
    formatStore(this.disk, { device, pool, store: storeId, nowMs: 0, checksum });
    this.store = this.mount();
    this.store.createVolume(id(1), 8 << 20, null);
    this.store.flushSync();
  }

  private mount(): Store {
    return mountStore(this.disk, { device, checksum, memoryBytes: 0 });
  }

  cutPower(kind: "nothing" | "everything" = "nothing"): void {
    this.disk.cutPower(kind);
    this.store = this.mount();
  }

  get lineage() {
    return this.store.lineages.byUuid.get(id(1))!;
  }

  claim(wanted: Writer): Writer | BlockStatus {
    let answer: Writer | BlockStatus | undefined;
    claimVolume(this.store, this.lineage, wanted, (granted) => {
      answer = granted;
    });
    expect(answer).toBeUndefined();
    while (this.disk.finishFlush());
    this.store.turn();
    return answer!;
  }

  request(op: number, block: number, blocks: number, writer: number, version: Version): number {
    const batch = createBatch();
    batch.count = 1;
    batch.op[0] = op;
    batch.sector[0] = block * 8;
    batch.lengthBytes[0] = blocks * 4096;
    batch.payload = new Uint8Array(blocks * 4096).fill(version.sequence);
    batch.writer[0] = writer;
    batch.generation[0] = version.generation;
    batch.sequence[0] = version.sequence;
    new Transfer(this.store).execute(batch, [{ lineage: this.lineage, snapshot: null }]);
    this.found = batch.payload[0];
    return batch.status[0];
  }

  private found = -1;

  value(block: number): number {
    expect(this.request(BlockOp.read, block, 1, 0, { generation: 0, sequence: 0 })).toBe(0);
    return this.found;
  }
}

const one: Writer = { generation: 0, groupEpoch: 0, id: [1, 1] };
const two: Writer = { generation: 0, groupEpoch: 0, id: [2, 2] };
const version = (sequence: number) => ({ generation: 1, sequence });

describe("a claim", () => {
  test("gives each writer a greater generation, and the same one its own again", () => {
    const bench = new Bench();
    const first = bench.claim(one);
    expect(first).toEqual({ ...one, generation: 1 });
    expect(bench.claim(one)).toEqual(first);
    expect(bench.claim(two)).toEqual({ ...two, generation: 2 });
    expect(bench.claim({ ...one, generation: 1 })).toBe(BlockStatus.fenced);
    expect(bench.claim({ ...one, generation: 7 })).toEqual({ ...one, generation: 7 });
  });

  test("that is granted holds through a power cut, and shuts the former writer out", () => {
    const bench = new Bench();
    bench.claim(one);
    bench.claim(two);
    bench.cutPower();
    expect(bench.lineage.writer).toEqual({ ...two, generation: 2 });
    const none = { generation: 0, sequence: 0 };
    expect(bench.request(BlockOp.write, 0, 1, 1, none)).toBe(BlockStatus.fenced);
    expect(bench.request(BlockOp.write, 0, 1, 0, none)).toBe(BlockStatus.fenced);
    expect(bench.request(BlockOp.write, 0, 1, 2, none)).toBe(BlockStatus.ok);
  });

  test("of an older list of members is refused", () => {
    const present = { ...one, generation: 3, groupEpoch: 5 };
    expect(grant(present, { ...two, groupEpoch: 4 })).toBeNull();
    expect(grant(present, { ...two, groupEpoch: 5 })).toEqual({
      ...two,
      ...{ generation: 4, groupEpoch: 5 },
    });
    expect(grant(present, { ...one, groupEpoch: 6 })).toEqual({
      ...one,
      ...{ generation: 3, groupEpoch: 6 },
    });
  });

  test("goes over to the volume as it is after a revert", () => {
    const bench = new Bench();
    bench.claim(one);
    const [snapshot] = bench.store.createSnapshots([{ lineage: bench.lineage, uuid: id(9) }], 1);
    const before = bench.lineage.number;
    bench.store.revertVolume(bench.lineage, snapshot);
    expect(bench.lineage.number).not.toBe(before);
    expect(bench.lineage.writer.generation).toBe(1);
  });

  test("is refused by a store whose flush fails", () => {
    const bench = new Bench();
    bench.disk.failNextFlush = true;
    expect(bench.claim(one)).toBe(BlockStatus.storeFailed);
  });
});

describe("changes of a group", () => {
  test("are done once, in their order; what was done since the last flush of all is known", () => {
    const bench = new Bench();
    bench.claim(one);
    for (const sequence of [1, 2, 3]) bench.request(BlockOp.write, 0, 1, 1, version(sequence));
    expect(bench.request(BlockOp.write, 0, 1, 1, version(2))).toBe(BlockStatus.ok);
    expect(bench.value(0)).toBe(3);
    bench.request(BlockOp.discard, 256, 512, 1, version(4));
    expect(bench.lineage.version).toEqual(version(4));
    // Neither what is not done here, nor what an older writer says.
    noteGroupFlush(bench.store, bench.lineage, 1, version(9));
    noteGroupFlush(bench.store, bench.lineage, 0, version(3));
    expect(bench.lineage.operations.length).toBe(4);
    noteGroupFlush(bench.store, bench.lineage, 1, version(2));
    expect(bench.lineage.operations).toEqual([
      { ...version(3), discards: false, partly: false, sector: 0, sectors: 8 },
      { ...version(4), discards: true, partly: false, sector: 2048, sectors: 4096 },
    ]);
  });

  test("are known again after a power cut, also those that only a checkpoint has", () => {
    const bench = new Bench();
    bench.claim(one);
    for (const sequence of [1, 2]) bench.request(BlockOp.write, 0, 1, 1, version(sequence));
    checkpointNow(bench.store);
    bench.request(BlockOp.write, 1, 1, 1, version(3));
    bench.store.flushSync();
    bench.request(BlockOp.write, 1, 1, 1, version(4));
    const { operations } = bench.lineage;
    bench.cutPower();
    expect(bench.lineage.version).toEqual(version(3));
    expect(bench.lineage.operations).toEqual(operations.slice(0, 3));
    expect(bench.lineage.writer).toEqual({ ...one, generation: 1 });
  });

  test("a version keeps its place past 2^32", () => {
    const bench = new Bench();
    bench.claim(one);
    const late = { generation: 1, sequence: 2 ** 40 + 1 };
    bench.request(BlockOp.write, 0, 1, 1, late);
    bench.store.flushSync();
    bench.cutPower();
    expect(bench.lineage.version).toEqual(late);
    checkpointNow(bench.store);
    bench.cutPower();
    expect(bench.lineage.version).toEqual(late);
  });

  test("one that a power cut left in part is told as such, and done anew", () => {
    const bench = new Bench();
    bench.claim(one);
    bench.request(BlockOp.write, 0, 1, 1, version(1));
    // More blocks than a record of this small log has entries: it goes over several.
    const blocks = bench.store.log.recordEntries + 20;
    const before = bench.store.log.sequence;
    bench.disk.crashAt = Number.POSITIVE_INFINITY;
    const { append } = bench.store.log;
    bench.store.log.append = function () {
      // Only the first record of it reaches the disk.
      return this.sequence > before ? false : append.call(this);
    };
    expect(bench.request(BlockOp.write, 256, blocks, 1, version(2))).not.toBe(BlockStatus.ok);
    bench.cutPower("everything");
    expect(bench.lineage.version).toEqual(version(1));
    expect(bench.lineage.operations.at(-1)).toMatchObject({ ...version(2), partly: true });
    expect(bench.request(BlockOp.write, 256, blocks, 1, version(2))).toBe(BlockStatus.ok);
    expect(bench.lineage.version).toEqual(version(2));
    expect(bench.lineage.operations.map(({ partly }) => partly)).toEqual([false, false]);
  });
});
