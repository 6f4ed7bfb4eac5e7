import { describe, expect, test } from "vitest";
import { SimDisk } from "#lib/sim/disk.ts";
import { Random } from "#lib/sim/random.ts";
import { BlockOp, BlockStatus } from "#lib/volume/block.ts";
import { createBatch } from "#lib/volume/executor.ts";
import { checksum } from "../file-disk.ts";
import { auditStore } from "./audit.ts";
import { encodeSuperblock } from "./layout.ts";
import type { Lineage } from "./lineages.ts";
import { formatStore, mountStore } from "./mount.ts";
import type { Store } from "./store.ts";
import { Transfer } from "./transfer.ts";

const pool = "11111111-2222-3333-4444-555555555555";
const storeId = "66666666-7777-8888-9999-aaaaaaaaaaaa";
const volume = "00000000-0000-4000-8000-000000000001";
const clone = "00000000-0000-4000-8000-000000000002";
const mebibyte = 2 ** 20;

function newDisk(sizeBytes = 16 * mebibyte): SimDisk {
  const disk = new SimDisk(sizeBytes, new Random(7), (bytes) => checksum(bytes, 0, bytes.length));
  formatStore(disk, { device: "disk", pool, store: storeId, nowMs: 0, checksum });
  return disk;
}

const mount = (disk: SimDisk, poolId = pool) =>
  mountStore(disk, { device: "disk", checksum, memoryBytes: 0, pool: poolId });

function settle(store: Store, disk: SimDisk): void {
  for (let i = 0; i < 3000 && (store.turn() === 0 || disk.finishFlush()); i++);
}

/** One request on a volume; reads give their bytes. */
class Client {
  readonly store: Store;
  private readonly transfer: Transfer;
  private readonly batch = createBatch();

  constructor(store: Store) {
    this.store = store;
    this.transfer = new Transfer(store);
  }

  run(lineage: Lineage, op: number, offset: number, bytes: Uint8Array | number): BlockStatus {
    const { batch } = this;
    batch.count = 1;
    batch.op[0] = op;
    batch.volume[0] = 0;
    batch.sector[0] = offset / 512;
    batch.lengthBytes[0] = typeof bytes === "number" ? bytes : bytes.length;
    batch.payloadOffset[0] = 0;
    if (typeof bytes !== "number") batch.payload = bytes;
    this.transfer.execute(batch, [{ lineage, snapshot: null }]);
    return batch.status[0] as BlockStatus;
  }

  write(lineage: Lineage, offset: number, length: number, value: number): BlockStatus {
    return this.run(lineage, BlockOp.write, offset, new Uint8Array(length).fill(value));
  }

  /** The values in a range, without repetition: `[1, 0]`. */
  values(lineage: Lineage, offset: number, length: number): number[] {
    const bytes = new Uint8Array(length).fill(255);
    expect(this.run(lineage, BlockOp.read, offset, bytes)).toBe(BlockStatus.ok);
    return [...bytes].filter((value, i) => i === 0 || value !== bytes[i - 1]);
  }
}

describe("reading and writing", () => {
  test("what was never written reads zero and takes no space", () => {
    const client = new Client(mount(newDisk()));
    const lineage = client.store.createVolume(volume, 2 ** 40, null);
    expect(client.values(lineage, 2 ** 39, 65536)).toEqual([0]);
    expect(lineage.ownedBlocks).toBe(0);
  });

  test("a sector write keeps the rest of its block", () => {
    const client = new Client(mount(newDisk()));
    const lineage = client.store.createVolume(volume, mebibyte, null);
    client.write(lineage, 0, 8192, 1);
    client.write(lineage, 1024, 512, 2);
    client.write(lineage, 3584, 1024, 3);
    expect(client.values(lineage, 0, 8192)).toEqual([1, 2, 1, 3, 1]);
    expect(lineage.ownedBlocks).toBe(2);
  });

  test("a discard gives whole blocks back and zeroes the edges", () => {
    const disk = newDisk();
    const client = new Client(mount(disk));
    const lineage = client.store.createVolume(volume, 4 * mebibyte, null);
    client.write(lineage, 0, mebibyte, 1);
    client.run(lineage, BlockOp.discard, 512, 512 * 1024);
    expect(client.values(lineage, 0, mebibyte)).toEqual([1, 0, 1]);
    expect(lineage.ownedBlocks).toBe(129);
    client.run(lineage, BlockOp.discard, 0, 4 * mebibyte);
    expect(lineage.ownedBlocks).toBe(0);
    settle(client.store, disk);
    expect(auditStore(client.store)).toEqual([]);
  });

  test("a changed byte on the disk is a media error of that block alone", () => {
    const disk = newDisk();
    const client = new Client(mount(disk));
    const lineage = client.store.createVolume(volume, mebibyte, null);
    client.write(lineage, 0, 8192, 0xaa);
    const at = disk.image.findIndex((_, i) => i % 4096 === 0 && disk.image[i + 9] === 0xaa);
    disk.image[at + 9] ^= 1;
    const bad: string[] = [];
    client.store.onMediaError = (id, offset) => bad.push(`${id} ${offset}`);
    expect(client.run(lineage, BlockOp.read, 0, new Uint8Array(4096))).toBe(BlockStatus.mediaError);
    expect(client.values(lineage, 4096, 4096)).toEqual([0xaa]);
    expect(bad).toEqual([`${volume} 0`]);
  });
});

describe("clones", () => {
  test("a clone reads its parent until it writes or discards", () => {
    const disk = newDisk();
    const client = new Client(mount(disk));
    const parent = client.store.createVolume(volume, 2 * mebibyte, null);
    client.write(parent, 0, 12288, 1);
    client.store.sealVolume(parent);
    const child = client.store.createVolume(clone, 4 * mebibyte, {
      lineage: parent,
      epoch: parent.epoch,
    });
    client.write(child, 4096, 4096, 2);
    client.run(child, BlockOp.discard, 8192, 4096);
    expect(client.values(child, 0, 16384)).toEqual([1, 2, 0]);
    expect(client.values(parent, 0, 16384)).toEqual([1, 0]);
    expect(client.write(parent, 0, 512, 9)).toBe(BlockStatus.readOnly);
  });

  test("a deleted parent stays while its clone sees it, then all is free", () => {
    const disk = newDisk();
    const client = new Client(mount(disk));
    const { store } = client;
    const parent = store.createVolume(volume, 2 * mebibyte, null);
    client.write(parent, 0, mebibyte, 1);
    store.sealVolume(parent);
    const child = store.createVolume(clone, 2 * mebibyte, { lineage: parent, epoch: parent.epoch });
    store.deleteVolume(parent);
    settle(store, disk);
    expect(store.lineages.byUuid.has(volume)).toBe(false);
    expect(client.values(child, 0, mebibyte)).toEqual([1]);
    store.deleteVolume(child);
    settle(store, disk);
    expect(store.lineages.byNumber.size).toBe(0);
    expect(store.space().used).toBe(0);
    expect(auditStore(store)).toEqual([]);
  });
});

describe("a full store", () => {
  test("fails writes, reads on, mounts, and takes writes again after a deletion", () => {
    const disk = newDisk(4 * mebibyte);
    let client = new Client(mount(disk));
    let lineage = client.store.createVolume(volume, 64 * mebibyte, null);
    let written = 0;
    while (client.write(lineage, written, 65536, 5) === BlockStatus.ok) written += 65536;
    expect(written).toBeGreaterThan(mebibyte);
    expect(client.write(lineage, 0, 65536, 6)).toBe(BlockStatus.noSpace);
    expect(client.values(lineage, 0, 65536)).toEqual([5]);
    client.store.flush(() => {});
    settle(client.store, disk);
    disk.cutPower("any");
    client = new Client(mount(disk));
    lineage = client.store.lineages.byUuid.get(volume)!;
    expect(client.values(lineage, 0, written)).toEqual([5]);
    expect(client.run(lineage, BlockOp.discard, 0, mebibyte)).toBe(BlockStatus.ok);
    expect(client.write(lineage, 0, 65536, 7)).toBe(BlockStatus.ok);
    client.store.deleteVolume(lineage);
    settle(client.store, disk);
    expect(client.store.space().used).toBe(0);
    expect(auditStore(client.store)).toEqual([]);
  });
});

describe("flushes", () => {
  test("one request is one device flush, and those that wait share one", () => {
    const disk = newDisk();
    const store = mount(disk);
    const before = disk.flushes;
    const done: boolean[] = [];
    store.flush((ok) => done.push(ok));
    store.flush((ok) => done.push(ok));
    store.flush((ok) => done.push(ok));
    settle(store, disk);
    expect(done).toEqual([true, true, true]);
    expect(disk.flushes - before).toBe(2);
  });

  test("a failed flush retires the store: everything is refused from then on", () => {
    const disk = newDisk();
    const client = new Client(mount(disk));
    const lineage = client.store.createVolume(volume, mebibyte, null);
    disk.failNextFlush = true;
    const done: boolean[] = [];
    client.store.flush((ok) => done.push(ok));
    settle(client.store, disk);
    expect(done).toEqual([false]);
    expect(client.write(lineage, 0, 512, 1)).toBe(BlockStatus.storeFailed);
    expect(() => client.store.createVolume(clone, 512, null)).toThrow(/retired/);
  });
});

describe("bad devices", () => {
  test("no store on it", () => {
    const disk = new SimDisk(8 * mebibyte, new Random(1), () => 0);
    expect(() => mount(disk)).toThrow(expect.objectContaining({ code: "FORMAT_UNKNOWN" }));
  });

  test("a newer format", () => {
    const disk = newDisk();
    const store = mount(disk);
    for (const slot of [0, 1]) {
      const bytes = encodeSuperblock(store.superblock, checksum);
      const view = new DataView(bytes.buffer);
      view.setUint32(16, 9, true);
      view.setUint32(24, 0, true);
      view.setUint32(24, checksum(bytes, 0, 4096), true);
      disk.image.set(bytes, slot * 4096);
    }
    expect(() => mount(disk)).toThrow(/format 9/);
  });

  test("both superblocks damaged", () => {
    const disk = newDisk();
    mount(disk);
    disk.image[100] ^= 1;
    disk.image[4096 + 100] ^= 1;
    expect(() => mount(disk)).toThrow(expect.objectContaining({ code: "FORMAT_CORRUPT" }));
  });

  test("the newest superblock lost after the log went on", () => {
    const disk = newDisk();
    const store = mount(disk);
    store.createVolume(volume, mebibyte, null);
    store.flushSync();
    const newest = store.superblock.sequence % 2;
    disk.image[newest * 4096 + 100] ^= 1;
    expect(() => mount(disk)).toThrow(/newest superblock/);
  });

  test("a device that shrank, and another pool", () => {
    const disk = newDisk();
    const small = new SimDisk(8 * mebibyte, new Random(1), () => 0);
    small.image.set(disk.image.subarray(0, 8 * mebibyte));
    expect(() => mount(small)).toThrow(/shrunk/);
    expect(() => mount(disk, "99999999-2222-3333-4444-555555555555")).toThrow(
      expect.objectContaining({ code: "CONFLICT" }),
    );
  });

  test("a damaged log record that was durable is reported, not dropped", () => {
    const disk = newDisk();
    const client = new Client(mount(disk));
    const lineage = client.store.createVolume(volume, mebibyte, null);
    client.write(lineage, 0, 4096, 1);
    client.store.flushSync();
    client.write(lineage, 4096, 4096, 1);
    client.store.flushSync();
    disk.image[2 * 4096 + 512 + 20] ^= 1;
    expect(() => mount(disk)).toThrow(/Log record 2 .* is damaged/);
  });
});

test("golden bytes of a superblock: a change of these is a change of the format", () => {
  const bytes = encodeSuperblock(mount(newDisk()).superblock, checksum);
  const hex = Buffer.from(bytes).toString("hex");
  expect(hex.slice(0, 32)).toBe(Buffer.from("KEELSON-STORE-SB").toString("hex"));
  // Version 1, flags: experimental.
  expect(hex.slice(32, 48)).toBe("0100000001000000");
  expect(hex.slice(64, 128)).toBe(`${pool}${storeId}`.replaceAll("-", ""));
  expect(hex.slice(128, 192)).toBe(
    "0100000000000000010000000000000000100000000000000010000000010000",
  );
});
