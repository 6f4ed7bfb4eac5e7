import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { Random } from "#lib/sim/random.ts";
import { checksum } from "../file-disk.ts";
import { Allocator } from "./allocator.ts";
import { ChunkIndex } from "./chunk-index.ts";
import {
  decodeSuperblock,
  openRecord,
  recordHeaderBytes,
  recordSectors,
  sealRecord,
  uuidBytes,
  uuidText,
} from "./layout.ts";

describe("allocator", () => {
  const fresh = (blocks: number) => {
    const allocator = new Allocator(blocks);
    allocator.recount();
    return allocator;
  };

  test("gives every block once, in one run while there is room, then none", () => {
    const allocator = fresh(5000);
    const given = Array.from({ length: 2000 }, () => allocator.allocateData());
    expect(given.every((block, i) => i === 0 || block === given[i - 1] + 1)).toBe(true);
    while (allocator.freeBlocks > 0) given.push(allocator.allocateMetadata());
    expect(new Set(given).size).toBe(5000);
    expect(given.every((block) => block >= 0 && block < 5000)).toBe(true);
    expect(allocator.allocateData()).toBe(-1);
  });

  test("a freed block comes back only when its record's sequence is released", () => {
    const allocator = fresh(64);
    while (allocator.freeBlocks > 0) allocator.allocateData();
    allocator.free(7, 10);
    allocator.free(9, 11);
    expect(allocator.allocateData()).toBe(-1);
    allocator.releasePending(10);
    expect(allocator.allocateData()).toBe(7);
    expect(allocator.allocateData()).toBe(-1);
    allocator.releasePending(11);
    expect(allocator.allocateMetadata()).toBe(9);
  });

  test("on a device of more than 8 TiB the last blocks are given too, each once", () => {
    const end = 2 ** 31 + 50_000;
    const allocator = new Allocator(end);
    allocator.words.fill(0xffffffff, 0, 2 ** 26);
    allocator.recount();
    const given = Array.from({ length: 50_000 }, () => allocator.allocateData());
    expect(new Set(given).size).toBe(50_000);
    expect(given.every((block) => block >= 2 ** 31 && block < end)).toBe(true);
    expect(allocator.allocateData()).toBe(-1);
  });

  test("after five overwrites of 75 % of the device in random order, runs are of 2.2 blocks", () => {
    const random = new Random(1);
    const allocator = fresh(65_536);
    const volume = Array.from({ length: 49_152 }, () => allocator.allocateData());
    let runs = 0;
    let last = -1;
    const writes = 5 * volume.length;
    for (let i = 0; i < writes; i++) {
      const at = random.below(volume.length);
      allocator.free(volume[at], i);
      volume[at] = allocator.allocateData();
      if (i % 1024 === 0) allocator.releasePending(i);
      if (i < writes - 16_384) continue;
      if (volume[at] !== last + 1) runs++;
      last = volume[at];
    }
    expect(16_384 / runs).toBeGreaterThan(2.2);
  });

  test("any order of taking and freeing keeps the counts", () => {
    fc.assert(
      fc.property(fc.array(fc.nat(3), { maxLength: 400 }), fc.nat(), (steps, pick) => {
        const allocator = fresh(300);
        const taken: number[] = [];
        steps.forEach((step, i) => {
          if (step > 0) {
            const block = step === 1 ? allocator.allocateMetadata() : allocator.allocateData();
            if (block >= 0) taken.push(block);
          } else if (taken.length > 0) {
            const [block] = taken.splice((pick + i) % taken.length, 1);
            allocator.free(block, i);
            if (i % 3 === 0) allocator.releasePending(i);
          }
        });
        expect(new Set(taken).size).toBe(taken.length);
        expect(allocator.freeBlocks).toBe(300 - taken.length - allocator.pendingCount);
      }),
    );
  });
});

test("the chunk index finds what a Map finds, through additions and removals", () => {
  const key = fc.tuple(fc.integer({ min: 1, max: 4 }), fc.nat(40), fc.boolean());
  fc.assert(
    fc.property(fc.array(key, { maxLength: 600 }), (steps) => {
      const index = new ChunkIndex();
      const expected = new Map<string, number>();
      for (const [lineage, chunk, remove] of steps) {
        const name = `${lineage} ${chunk}`;
        const record = expected.get(name);
        expect(index.find(lineage, chunk)).toBe(record ?? -1);
        if (record === undefined) expected.set(name, index.add(lineage, chunk, 1));
        else if (remove) {
          index.remove(record);
          expected.delete(name);
        }
      }
      for (const [name, record] of expected) {
        const [lineage, chunk] = name.split(" ").map(Number);
        expect(index.find(lineage, chunk)).toBe(record);
      }
      expect(index.live).toBe(expected.size);
    }),
  );
});

describe("log records", () => {
  const store = uuidBytes("66666666-7777-8888-9999-aaaaaaaaaaaa");
  const sealed = (entries: number) => {
    const bytes = new Uint8Array(recordSectors(entries) * 512);
    bytes.fill(0x5a, recordHeaderBytes, recordHeaderBytes + entries * 32);
    const view = new DataView(bytes.buffer);
    sealRecord(bytes, view, store, entries, 2 ** 40, 3, 2 ** 40 - 1, 5, checksum);
    return bytes;
  };

  test("golden bytes of an empty one", () => {
    const hex = Buffer.from(sealed(0).subarray(0, 64)).toString("hex");
    expect(hex.slice(0, 8)).toBe(Buffer.from("KLOG").toString("hex"));
    // Sequence, generation, durable sequence, superblock; no entries; the store.
    expect(hex.slice(16)).toBe(
      ["0000000000010000", "0300000000000000", "ffffffffff000000", "0500000000000000"].join("") +
        "0000000000000000" +
        "66666666777788889999aaaaaaaaaaaa",
    );
  });

  test("round trip; a torn one, one of another store and any changed bit are none", () => {
    const bytes = sealed(40);
    expect(openRecord(bytes, store, 4096, checksum)).toEqual({
      sequence: 2 ** 40,
      mountGeneration: 3,
      durableSequence: 2 ** 40 - 1,
      superblockSequence: 5,
      entryCount: 40,
    });
    expect(openRecord(bytes, uuidBytes("1".repeat(32)), 4096, checksum)).toBeUndefined();
    expect(openRecord(bytes.subarray(0, 512), store, 4096, checksum)).toBe(64 + 40 * 32);
    for (let sector = 0; sector < 2; sector++) {
      const torn = bytes.slice();
      torn.fill(0, sector * 512, (sector + 1) * 512);
      expect(openRecord(torn, store, 4096, checksum)).toBeUndefined();
    }
    fc.assert(
      fc.property(fc.nat((64 + 40 * 32) * 8 - 1), (bit) => {
        const changed = bytes.slice();
        changed[bit >> 3] ^= 1 << (bit & 7);
        expect(typeof openRecord(changed, store, 4096, checksum)).not.toBe("object");
      }),
    );
  });

  test("any bytes are no record and no superblock, and do no harm", () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 512, maxLength: 512 }), (bytes) => {
        bytes.set(sealed(0).subarray(0, 4));
        openRecord(bytes, store, 4096, checksum);
        const block = new Uint8Array(4096);
        block.set(bytes);
        expect(decodeSuperblock(block, "disk", checksum)).toBe("foreign");
      }),
    );
  });
});

test("UUIDs as bytes and text", () => {
  fc.assert(
    fc.property(fc.uuid(), (uuid) => {
      expect(uuidText(uuidBytes(uuid))).toBe(uuid);
    }),
  );
});
