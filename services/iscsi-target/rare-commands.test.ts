import { describe, expect, test } from "vitest";
import { BlockOp, BlockStatus } from "#lib/volume/block.ts";
import { readU32 } from "#lib/wire/iscsi/layout.ts";
import { taskManagementLayout } from "#lib/wire/iscsi/pdu.ts";
import { Sense } from "#lib/wire/scsi/sense.ts";
import {
  Bench,
  be32,
  initiatorName,
  pattern,
  read10,
  type TestInitiator,
  targetName,
  volumeId,
  write10,
} from "./test-bench.ts";

const compareAndWrite = (lba: number, blocks: number) => [
  0x89,
  0,
  0,
  0,
  0,
  0,
  ...be32(lba),
  0,
  0,
  0,
  blocks,
  0,
  0,
];
const disk = (bench: Bench) => bench.port.volumes.get(volumeId)!;
const allFree = (bench: Bench) => expect(bench.port.area.freeBytes).toBe(bench.port.payload.length);

function second(bench: Bench): TestInitiator {
  const initiator = bench.connect();
  const names: [string, string][] = [
    ["InitiatorName", initiatorName],
    ["TargetName", targetName],
  ];
  initiator.login(1, 3, names, { isid: Uint8Array.of(0x80, 9, 9, 9, 9, 9) });
  initiator.run([0, 0, 0, 0, 0, 0]);
  return initiator;
}

describe("COMPARE AND WRITE", () => {
  test("writes where the disk is as expected; else says which byte differs and writes nothing", () => {
    const bench = new Bench();
    const initiator = bench.connect().enter();
    const before = pattern(1024, 3);
    const after = pattern(1024, 4);
    disk(bench).set(before, 5 * 512);
    const good = Buffer.concat([before, after]);
    expect(initiator.run(compareAndWrite(5, 2), 2048, "write", good, 2048).status).toBe(0);
    expect(Buffer.compare(disk(bench).subarray(2560, 3584), after)).toBe(0);
    const bad = Uint8Array.from(good);
    bad.set(after);
    bad[700] ^= 0xff;
    const result = initiator.run(compareAndWrite(5, 2), 2048, "write", bad, 2048);
    expect(result.sense).toBe(Sense.miscompareDuringVerify);
    expect(readU32(result.pdu.data, 5)).toBe(700);
    expect(Buffer.compare(disk(bench).subarray(2560, 3584), after)).toBe(0);
    allFree(bench);
  });

  test("two at once on one block: exactly one wins", () => {
    const bench = new Bench();
    const [one, two] = [bench.connect().enter(), second(bench)];
    const before = new Uint8Array(512);
    bench.port.held = true;
    one.command(compareAndWrite(0, 1), 1024, "write", Buffer.concat([before, pattern(512, 1)]));
    two.command(compareAndWrite(0, 1), 1024, "write", Buffer.concat([before, pattern(512, 2)]));
    bench.settle();
    bench.port.held = false;
    bench.settle();
    const statuses = [one, two].map((initiator) => initiator.received.shift()!.header[3]);
    expect(statuses.sort()).toEqual([0, 2]);
    allFree(bench);
  });

  test("a write that comes between waits until it is over", () => {
    const bench = new Bench();
    const [one, two] = [bench.connect().enter(), second(bench)];
    bench.port.held = true;
    one.command(
      compareAndWrite(0, 1),
      1024,
      "write",
      Buffer.concat([new Uint8Array(512), pattern(512, 1)]),
    );
    bench.settle();
    two.command(write10(0, 1), 512, "write", pattern(512, 2));
    bench.settle();
    // Only the comparison's read is with the store.
    expect(bench.port.requests.map(({ op }) => op)).toEqual([BlockOp.read]);
    bench.port.held = false;
    bench.settle();
    expect([one, two].map((initiator) => initiator.received.shift()!.header[3])).toEqual([0, 0]);
    expect(Buffer.compare(disk(bench).subarray(0, 512), pattern(512, 2))).toBe(0);
  });

  test("aborted midway: nothing is written, the unit is free again", () => {
    const bench = new Bench();
    const initiator = bench.connect().enter();
    bench.port.held = true;
    const tag = initiator.command(
      compareAndWrite(0, 1),
      1024,
      "write",
      Buffer.concat([new Uint8Array(512), pattern(512, 1)]),
    );
    bench.settle();
    initiator.send(
      taskManagementLayout.encode({
        opcode: 0x42,
        flags: 0x81,
        initiatorTaskTag: 0x99,
        referencedTaskTag: tag,
        cmdSN: initiator.cmdSN,
      }),
    );
    bench.settle();
    bench.port.held = false;
    bench.settle();
    expect(initiator.received.map(({ opcode }) => opcode)).toEqual([0x22]);
    initiator.received.length = 0;
    expect(
      disk(bench)
        .subarray(0, 512)
        .every((byte) => byte === 0),
    ).toBe(true);
    expect(initiator.run(write10(0, 1), 512, "write", pattern(512), 512).status).toBe(0);
    allFree(bench);
  });

  test("a connection that goes away midway frees the unit for others", () => {
    const bench = new Bench();
    const [one, two] = [bench.connect().enter(), second(bench)];
    bench.port.held = true;
    const data = Buffer.concat([new Uint8Array(512), pattern(512, 1)]);
    one.command(compareAndWrite(0, 1), 1024, "write", data);
    bench.settle();
    bench.hangUp(one.id);
    bench.port.held = false;
    expect(two.run(write10(0, 1), 512, "write", pattern(512, 2), 512).status).toBe(0);
    allFree(bench);
  });

  test.each([
    ["too little data", 1, 512],
    ["too much data", 1, 2048],
    ["data for no blocks", 0, 1024],
  ])("%s is refused", (_name, blocks, bytes) => {
    const bench = new Bench();
    const { sense } = bench
      .connect()
      .enter()
      .run(compareAndWrite(0, blocks), bytes, "write", pattern(bytes), bytes);
    expect(sense).toBe(Sense.invalidFieldInCdb);
  });
});

describe("zeroing", () => {
  const writeSame = (lba: number, blocks: number, flags = 0) => [
    0x93,
    flags,
    0,
    0,
    0,
    0,
    ...be32(lba),
    ...be32(blocks),
    0,
    0,
  ];

  test("WRITE SAME of zeros zeroes, of a pattern repeats it, with UNMAP discards", () => {
    const bench = new Bench();
    const initiator = bench.connect().enter();
    disk(bench).fill(0xee);
    expect(initiator.run(writeSame(8, 16), 512, "write", new Uint8Array(512), 512).status).toBe(0);
    expect(bench.port.done.at(-1)!.op).toBe(BlockOp.writeZeroes);
    expect(disk(bench)[4095]).toBe(0xee);
    expect(
      disk(bench)
        .subarray(4096, 12288)
        .every((byte) => byte === 0),
    ).toBe(true);
    const block = pattern(512, 5);
    expect(initiator.run(writeSame(32, 300), 512, "write", block, 512).status).toBe(0);
    for (const index of [0, 127, 128, 299]) {
      const at = (32 + index) * 512;
      expect(Buffer.compare(disk(bench).subarray(at, at + 512), block)).toBe(0);
    }
    expect(disk(bench)[332 * 512]).toBe(0xee);
    // NDOB: no data at all.
    expect(initiator.run(writeSame(32, 300, 0x09)).status).toBe(0);
    expect(bench.port.done.at(-1)!.op).toBe(BlockOp.discard);
    allFree(bench);
  });

  test("UNMAP of several ranges, one after the other; a range past the end stops all", () => {
    const bench = new Bench();
    const initiator = bench.connect().enter();
    disk(bench).fill(0xee);
    const list = (ranges: [number, number][]) => {
      const bytes = Buffer.alloc(8 + 16 * ranges.length);
      bytes.writeUInt16BE(bytes.length - 2, 0);
      bytes.writeUInt16BE(16 * ranges.length, 2);
      for (const [index, [lba, blocks]] of ranges.entries()) {
        bytes.writeUInt32BE(lba, 12 + 16 * index);
        bytes.writeUInt32BE(blocks, 16 + 16 * index);
      }
      return bytes;
    };
    const unmap = (ranges: [number, number][]) => {
      const data = list(ranges);
      const cdb = [0x42, 0, 0, 0, 0, 0, 0, 0, data.length, 0];
      return initiator.run(cdb, data.length, "write", data, data.length);
    };
    expect(
      unmap([
        [0, 8],
        [16, 8],
        [0, 0],
      ]).status,
    ).toBe(0);
    expect([0, 4096, 8192, 12288].map((at) => disk(bench)[at])).toEqual([0, 0xee, 0, 0xee]);
    expect(
      unmap([
        [32, 8],
        [8190, 8],
      ]).sense,
    ).toBe(Sense.lbaOutOfRange);
    expect(disk(bench)[32 * 512]).toBe(0xee);
  });

  test("a full store fails WRITE SAME too", () => {
    const bench = new Bench();
    bench.port.faults.set(BlockOp.write, BlockStatus.noSpace);
    const initiator = bench.connect().enter();
    const result = initiator.run(writeSame(0, 8), 512, "write", pattern(512), 512);
    expect(result.sense).toBe(Sense.spaceAllocationFailed);
    allFree(bench);
  });
});

describe("VERIFY", () => {
  const verify = (lba: number, blocks: number, check: number) => [
    0x2f,
    check << 1,
    ...be32(lba),
    0,
    0,
    blocks,
    0,
  ];

  test("reads; compares with what is sent, block by block or as one", () => {
    const bench = new Bench();
    const initiator = bench.connect().enter();
    disk(bench).set(pattern(512, 1), 0);
    disk(bench).set(pattern(512, 1), 512);
    const both = Buffer.concat([pattern(512, 1), pattern(512, 1)]);
    expect(initiator.run(verify(0, 2, 0)).status).toBe(0);
    expect(initiator.run(verify(0, 2, 1), 1024, "write", both, 1024).status).toBe(0);
    expect(initiator.run(verify(0, 2, 3), 512, "write", pattern(512, 1), 512).status).toBe(0);
    const { sense } = initiator.run(verify(0, 3, 3), 512, "write", pattern(512, 1), 512);
    expect(sense).toBe(Sense.miscompareDuringVerify);
    bench.port.faults.set(BlockOp.read, BlockStatus.mediaError);
    expect(initiator.run(verify(0, 2, 0)).sense).toBe(Sense.unrecoveredReadError);
    allFree(bench);
  });
});

describe("persistent reservations", () => {
  const key = (digit: number) => Uint8Array.from({ length: 8 }, () => digit);
  function reserveOut(
    initiator: TestInitiator,
    action: number,
    own: number,
    other = 0,
    type = 0,
  ): number {
    const list = new Uint8Array(24);
    list.set(key(own));
    list.set(key(other), 8);
    return initiator.run([0x5f, action, type, 0, 0, 0, 0, 0, 24, 0], 24, "write", list, 24).status;
  }

  test("write exclusive: others read and don't write, until it is preempted", () => {
    const bench = new Bench();
    const [one, two] = [bench.connect().enter(), second(bench)];
    expect(reserveOut(one, 0, 0, 1)).toBe(0);
    expect(reserveOut(one, 1, 1, 0, 1)).toBe(0);
    expect(two.run(read10(0, 1), 512, "read").status).toBe(0);
    expect(two.run(write10(0, 1), 512, "write", pattern(512), 512).status).toBe(0x18);
    expect(two.run([0, 0, 0, 0, 0, 0]).status).toBe(0);
    expect(one.run(write10(0, 1), 512, "write", pattern(512), 512).status).toBe(0);
    // Not registered: it can't take over.
    expect(reserveOut(two, 4, 2, 1, 1)).toBe(0x18);
    expect(reserveOut(two, 0, 0, 2)).toBe(0);
    expect(reserveOut(two, 4, 2, 1, 1)).toBe(0);
    expect(two.run(write10(0, 1), 512, "write", pattern(512), 512).status).toBe(0);
    expect(one.run([0, 0, 0, 0, 0, 0]).sense).toBe(Sense.registrationsPreempted);
    expect(one.run(write10(0, 1), 512, "write", pattern(512), 512).status).toBe(0x18);
  });

  test("exclusive access, registrants only: a registered one may, another may not", () => {
    const bench = new Bench();
    const [one, two] = [bench.connect().enter(), second(bench)];
    reserveOut(one, 0, 0, 1);
    expect(reserveOut(one, 1, 1, 0, 6)).toBe(0);
    expect(two.run(read10(0, 1), 512, "read").status).toBe(0x18);
    reserveOut(two, 0, 0, 2);
    expect(two.run(read10(0, 1), 512, "read").status).toBe(0);
    expect(reserveOut(one, 3, 1)).toBe(0);
    expect(two.run([0, 0, 0, 0, 0, 0]).sense).toBe(Sense.reservationsPreempted);
    const keys = one.run([0x5e, 0, 0, 0, 0, 0, 0, 0, 255, 0], 255, "read").data;
    expect(readU32(keys, 4)).toBe(0);
  });
});
