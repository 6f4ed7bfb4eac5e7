/** Offline check: a sound store has no problems, each planted one is found, nothing is written. */
import { describe, expect, test } from "vitest";
import { SimDisk } from "#lib/sim/disk.ts";
import { Random } from "#lib/sim/random.ts";
import { checksum } from "../file-disk.ts";
import { blockBytes, chunkBlocks } from "../limits.ts";
import { checkStore } from "./check.ts";
import { holePointer, mapWords, PageKind, pageHeaderBytes, sealPage } from "./layout.ts";
import { formatStore, mountStore } from "./mount.ts";
import { blocksInUse, device, flip, id, pool, storeId, usedDisk } from "./used-disk.fixture.ts";

const check = (disk: SimDisk, data = true) =>
  checkStore(disk, { device, checksum, memoryBytes: 0, data });

describe("a sound store", () => {
  test.each([
    ["shut down", true],
    ["killed", false],
  ])("%s: no problem, all of its data read, not a byte of it changed", (_, clean) => {
    const disk = usedDisk(clean);
    const before = Buffer.from(disk.image);
    const { problems, blocks } = check(disk);
    expect(problems).toEqual([]);
    expect(blocks).toBe(blocksInUse(disk).filter(({ what }) => what === "data").length);
    expect(before.equals(disk.image)).toBe(true);
  });

  test("whose superblock was being written when the power went: said, and no problem", () => {
    const disk = usedDisk(false);
    const sequences = [0, 1].map((number) =>
      Buffer.from(disk.image.buffer).readBigUInt64LE(number * blockBytes + 64),
    );
    const older = sequences[0] < sequences[1] ? 0 : 1;
    // The newer one's first sectors, as a write that was cut would leave them.
    const from = (1 - older) * blockBytes;
    disk.image.copyWithin(older * blockBytes, from, from + 512);
    disk.image[older * blockBytes + 64] += 1;
    const { problems, notes } = check(disk);
    expect(problems).toEqual([]);
    expect(notes).toEqual([
      `Superblock ${older} was being written when the store stopped, and is not whole; the next mount writes it anew.`,
    ]);
    mountStore(disk, { device, checksum, memoryBytes: 0 });
    disk.killProcess();
    expect(check(disk)).toMatchObject({ problems: [], notes: [] });
  });

  test("just formatted, when only one superblock was ever written", () => {
    const disk = new SimDisk(8 << 20, new Random(3), () => 0);
    formatStore(disk, { device, pool, store: storeId, nowMs: 0, checksum });
    expect(check(disk).problems).toEqual([]);
  });
});

describe("a planted fault is found", () => {
  test("one bit of any block that is in use, whatever the block holds", () => {
    const disk = usedDisk();
    const random = new Random(9);
    const kinds = new Set<string>();
    for (const { block, what } of blocksInUse(disk)) {
      const byte = block * blockBytes + random.below(blockBytes);
      // Of a page's kind, checksum and the rest of its header as of its content.
      const bit = random.below(8);
      flip(disk, byte, bit);
      const { problems } = check(disk);
      expect(problems, `${what} ${block}, byte ${byte % blockBytes}, bit ${bit}`).not.toEqual([]);
      flip(disk, byte, bit);
      kinds.add(what);
    }
    expect([...kinds].sort()).toEqual(
      [
        ...["superblock", "index", "bitmap", "volumes", "snapshots", "cells", "directory"],
        ...["map page", "data"],
      ].sort(),
    );
    expect(check(disk).problems).toEqual([]);
  });

  test("data: with device, block, volume and offset, and the snapshot that has it", () => {
    const disk = usedDisk();
    for (const { block } of blocksInUse(disk).filter(({ what }) => what === "data")) {
      flip(disk, block * blockBytes, 0);
    }
    const { problems } = check(disk);
    const data = problems.filter(({ kind }) => kind === "data");
    expect(data).toHaveLength(problems.length);
    const snapshots = new Set(data.map(({ bad }) => bad!.snapshot));
    expect(snapshots).toEqual(new Set([null, id(11), id(12)]));
    expect(data[0].text).toMatch(
      /^Block \d+ of \/dev\/sdx is not what was written: volume 0{8}-0000-4000-8000-0{11}[13], offset \d+/,
    );
    expect(check(disk, false).problems, "without reading data").toEqual([]);
  });

  test("a record of the log that is known to have been durable", () => {
    const disk = usedDisk(false);
    const log = 2 * blockBytes;
    const sectors: number[] = [];
    for (let at = log; at < log + 64 * blockBytes; at += 512) {
      if (Buffer.from(disk.image.subarray(at, at + 4)).toString() === "KLOG") sectors.push(at);
    }
    // All but the last one, of which no later one says that it was durable.
    let found = 0;
    for (const at of sectors) {
      flip(disk, at + 20, 3);
      if (check(disk).problems.some(({ kind }) => kind === "mount")) found++;
      flip(disk, at + 20, 3);
    }
    expect(sectors.length).toBeGreaterThan(10);
    expect(found).toBe(sectors.length - 1);
  });

  /** Map pages as they stand, newer ones first, and a way to put a changed one back with a good checksum. */
  const changeMapPage = (disk: SimDisk, change: (words: Uint32Array) => void) => {
    blocksInUse(disk)
      .filter(({ what }) => what === "map page")
      .reverse()
      .forEach(({ block }) => {
        const page = disk.image.slice(block * blockBytes, (block + 1) * blockBytes);
        const view = new DataView(page.buffer);
        const words = new Uint32Array(page.buffer, pageHeaderBytes, mapWords);
        change(words);
        const header = [40, 44, 48].map((at) => view.getUint32(at, true));
        const poolBytes = page.slice(8, 24);
        const [generation, sequence] = [view.getUint32(24, true), view.getUint32(32, true)];
        const [a, b, c] = header;
        const kind = PageKind.map;
        sealPage(page, kind, poolBytes, generation, sequence, a, b, c, checksum);
        disk.image.set(page, block * blockBytes);
      });
  };

  test("two owners of one block, each page as sound as it may be", () => {
    const disk = usedDisk();
    let first = 0;
    changeMapPage(disk, (words) => {
      const at = words.findIndex((word, i) => i < chunkBlocks && word !== 0);
      if (first === 0) first = words[at];
      else words[at] = first;
    });
    expect(
      check(disk, false)
        .problems.map(({ text }) => text)
        .join("\n"),
    ).toMatch(/names block \d+, which has an owner/);
  });

  test("blocks that nothing leads to, and counts that are too high", () => {
    const disk = usedDisk();
    const pages = new Map<number, number>();
    changeMapPage(disk, (words) => {
      for (const pointer of words.subarray(0, chunkBlocks)) {
        pages.set(pointer, (pages.get(pointer) ?? 0) + 1);
      }
    });
    changeMapPage(disk, (words) => {
      const only = words.findIndex((word, i) => i < chunkBlocks && pages.get(word) === 1);
      if (only >= 0) words[only] = 0;
    });
    const said = check(disk, false)
      .problems.map(({ text }) => text)
      .join("\n");
    expect(said).toMatch(/block \d+ is taken, and nothing leads to it/);
    expect(said).toMatch(/counts \d+ blocks, and has \d+/);
  });

  test("a block that only the newer of two records has, though it is older than both", () => {
    const disk = usedDisk();
    const seen = new Set<number>();
    changeMapPage(disk, (words) => {
      for (let block = 0; block < chunkBlocks; block++) {
        const pointer = words[block];
        if (pointer === 0 || pointer === holePointer) continue;
        if (seen.has(pointer)) words[block] = 0;
        seen.add(pointer);
      }
    });
    expect(
      check(disk, false)
        .problems.map(({ text }) => text)
        .join("\n"),
    ).toMatch(/lacks block \d+, which the next newer one has from before/);
  });

  test("both superblocks; a device that is no store is told apart", () => {
    const disk = usedDisk();
    flip(disk, 100, 0);
    flip(disk, blockBytes + 100, 0);
    expect(check(disk).problems).toEqual([
      { kind: "mount", text: "Both superblocks of the store on /dev/sdx are damaged." },
    ]);
    disk.image.fill(0, 0, 2 * blockBytes);
    expect(() => check(disk)).toThrow(/does not hold a Keelson store/);
  });
});
