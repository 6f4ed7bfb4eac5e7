import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { BlockOp } from "#lib/volume/block.ts";
import { readU32 } from "#lib/wire/iscsi/layout.ts";
import { Sense } from "#lib/wire/scsi/sense.ts";
import { Bench, be32, pattern, read10, reservedTag, volumeId, write10 } from "./test-bench.ts";

const freeOf = (bench: Bench) => bench.port.area.freeBytes;

describe("writes and reads", () => {
  test.each([
    ["immediate data", [["ImmediateData", "Yes"]], 65536],
    [
      "R2T only, as iPXE",
      [
        ["InitialR2T", "Yes"],
        ["ImmediateData", "No"],
      ],
      0,
    ],
    [
      "header and data digests",
      [
        ["HeaderDigest", "CRC32C"],
        ["DataDigest", "CRC32C"],
      ],
      4096,
    ],
    [
      "short bursts and segments",
      [
        ["MaxBurstLength", "4096"],
        ["MaxRecvDataSegmentLength", "512"],
      ],
      512,
    ],
  ] as [string, [string, string][], number][])(
    "%s: what was written reads back",
    (_n, pairs, immediate) => {
      const bench = new Bench();
      const initiator = bench.connect().enter(pairs);
      const data = pattern(65536);
      expect(initiator.run(write10(8, 128), 65536, "write", data, immediate).status).toBe(0);
      const back = initiator.run(read10(8, 128), 65536, "read");
      expect(back.status).toBe(0);
      expect(Buffer.compare(back.data, data)).toBe(0);
      expect(freeOf(bench)).toBe(bench.port.payload.length);
    },
  );

  test("the same in pieces of every size", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 700 }),
        fc.integer({ min: 1, max: 40 }),
        (piece, blocks) => {
          const bench = new Bench({ sizeBytes: 1 << 20 });
          const initiator = bench.connect().enter([
            ["DataDigest", "CRC32C"],
            ["FirstBurstLength", "2048"],
          ]);
          initiator.pieceBytes = piece;
          const data = pattern(blocks * 512, piece);
          const written = initiator.run(
            write10(1, blocks),
            data.length,
            "write",
            data,
            Math.min(2048, data.length),
          );
          expect(written.status).toBe(0);
          expect(
            Buffer.compare(initiator.run(read10(1, blocks), data.length, "read").data, data),
          ).toBe(0);
          expect(freeOf(bench)).toBe(bench.port.payload.length);
        },
      ),
      { numRuns: 60 },
    );
  });

  test("unsolicited data up to the first burst, then R2T", () => {
    const bench = new Bench();
    const initiator = bench.connect().enter([
      ["InitialR2T", "No"],
      ["FirstBurstLength", "4096"],
    ]);
    const data = pattern(8192);
    const tag = initiator.command(write10(0, 16), 8192, "write", data.subarray(0, 1024), {
      final: false,
    });
    initiator.dataOut(tag, reservedTag, 1024, 0, data.subarray(1024, 2048), false);
    initiator.dataOut(tag, reservedTag, 2048, 1, data.subarray(2048, 4096), true);
    bench.settle();
    const r2t = initiator.received.shift()!;
    expect([r2t.opcode, readU32(r2t.header, 40), readU32(r2t.header, 44)]).toEqual([
      0x31, 4096, 4096,
    ]);
    initiator.dataOut(tag, readU32(r2t.header, 20), 4096, 0, data.subarray(4096));
    bench.settle();
    expect(initiator.received.shift()!.header[3]).toBe(0);
    expect(Buffer.compare(bench.port.volumes.get(volumeId)!.subarray(0, 8192), data)).toBe(0);
  });

  test.each([
    ["a wrong offset", 512, 0, 512],
    ["a wrong DataSN", 0, 27, 512],
    ["more than was asked for", 0, 0, 8192],
  ])("Data-Out with %s fails the write, and nothing is written", (_name, offset, dataSN, bytes) => {
    const bench = new Bench();
    const initiator = bench.connect().enter([["ImmediateData", "No"]]);
    const tag = initiator.command(write10(0, 8), 4096, "write");
    bench.settle();
    const r2t = initiator.received.shift()!;
    initiator.dataOut(tag, readU32(r2t.header, 20), offset, dataSN, pattern(bytes));
    bench.settle();
    const answer = initiator.received.shift()!;
    expect([answer.opcode, answer.header[3], answer.data[4]]).toEqual([0x21, 2, 0x0b]);
    expect(bench.port.done.some(({ op }) => op === BlockOp.write)).toBe(false);
    expect(freeOf(bench)).toBe(bench.port.payload.length);
    expect(initiator.run(read10(0, 1), 512, "read").status).toBe(0);
  });

  test("a damaged data segment fails its write; a damaged header ends the connection", () => {
    const bench = new Bench();
    const initiator = bench.connect().enter([
      ["HeaderDigest", "CRC32C"],
      ["DataDigest", "CRC32C"],
    ]);
    const sent: Uint8Array[] = [];
    const push = initiator.push.bind(initiator);
    initiator.push = (bytes) => {
      sent.push(bytes);
    };
    initiator.command(write10(0, 1), 512, "write", pattern(512));
    initiator.push = push;
    const damaged = Uint8Array.from(sent[0]);
    damaged[100] ^= 1;
    push(damaged);
    bench.settle();
    const answer = initiator.received.shift()!;
    expect([answer.header[3], answer.data[4], answer.data[14], answer.data[15]]).toEqual([
      2, 0x0b, 0x47, 5,
    ]);
    expect(bench.port.done.some(({ op }) => op === BlockOp.write)).toBe(false);
    const header = new Uint8Array(52);
    header[0] = 0x40;
    push(header);
    bench.settle();
    expect(initiator.open).toBe(false);
  });

  test("FUA reaches the store", () => {
    const bench = new Bench();
    const initiator = bench.connect().enter();
    initiator.run(write10(0, 1), 512, "write", pattern(512), 512);
    expect(bench.port.forcedWrites).toBe(0);
    initiator.run(write10(0, 1, 0x08), 512, "write", pattern(512), 512);
    expect(bench.port.forcedWrites).toBe(1);
    initiator.run([0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    expect(bench.port.done.at(-1)!.op).toBe(BlockOp.flush);
  });

  test.each([
    ["READ(6)", [0x08, 0, 0, 4, 1, 0]],
    ["READ(10)", read10(4, 1)],
    ["READ(12)", [0xa8, 0, ...be32(4), ...be32(1), 0, 0]],
    ["READ(16)", [0x88, 0, 0, 0, 0, 0, ...be32(4), ...be32(1), 0, 0]],
  ])("%s reads block 4", (_name, cdb) => {
    const bench = new Bench();
    bench.port.volumes.get(volumeId)!.set(pattern(512, 9), 2048);
    const { data } = bench.connect().enter().run(cdb, 512, "read");
    expect(Buffer.compare(data, pattern(512, 9))).toBe(0);
  });

  test.each([
    ["past the end", read10(8192, 1), 512, Sense.lbaOutOfRange],
    ["over the end", read10(8191, 2), 1024, Sense.lbaOutOfRange],
    ["protected", read10(0, 1, 0x20), 512, Sense.invalidFieldInCdb],
    ["longer than a transfer may be", read10(0, 2049), 2049 * 512, Sense.invalidFieldInCdb],
    ["an unknown command", [0xff, 0, 0, 0, 0, 0], 0, Sense.invalidOpcode],
  ])("%s is refused", (_name, cdb, expected, sense) => {
    const bench = new Bench();
    expect(bench.connect().enter().run(cdb, expected, "read").sense).toBe(sense);
  });

  test.each([
    // expected, overflow/underflow bits, residual, bytes
    [512, 0x04, 512, 512],
    [1024, 0, 0, 1024],
    [4096, 0x02, 3072, 1024],
    [700, 0x04, 324, 700],
  ])("a read of 1024 bytes into %i: residual", (expected, bits, residual, bytes) => {
    const bench = new Bench();
    const result = bench.connect().enter().run(read10(0, 2), expected, "read");
    expect([result.flags & 0x06, result.residual, result.data.length]).toEqual([
      bits,
      residual,
      bytes,
    ]);
  });

  test.each([200, 700])("a write of 1024 bytes offered %i writes just those", (offered) => {
    const bench = new Bench();
    const initiator = bench.connect().enter();
    const before = pattern(1024, 1);
    const data = pattern(1024, 2);
    initiator.run(write10(0, 2), 1024, "write", before, 1024);
    const result = initiator.run(write10(0, 2), offered, "write", data.subarray(0, offered), 0);
    expect([result.status, result.flags & 0x06, result.residual]).toEqual([
      0,
      0x04,
      1024 - offered,
    ]);
    const found = Buffer.from(initiator.run(read10(0, 2), 1024, "read").data);
    expect(found.equals(Buffer.concat([data.subarray(0, offered), before.subarray(offered)]))).toBe(
      true,
    );
  });

  test("an answer of no bytes is a SCSI Response, never an empty Data-In", () => {
    const bench = new Bench();
    const { pdu, status } = bench.connect().enter().run([0x12, 0, 0, 0, 0, 0], 0, "read");
    expect([pdu.opcode, status]).toEqual([0x21, 0]);
  });

  test("another LUN isn't there", () => {
    const bench = new Bench();
    const initiator = bench.connect().enter();
    initiator.command(read10(0, 1), 512, "read", undefined, { lun: 1 });
    initiator.command([0x12, 0, 0, 0, 36, 0], 36, "read", undefined, { lun: 1 });
    bench.settle();
    const [read, inquiry] = initiator.received;
    expect([read.data[4], read.data[14]]).toEqual([5, 0x25]);
    expect(inquiry.data[0]).toBe(0x7f);
  });
});

describe("want of room", () => {
  test("reads wait for payload and all are answered, in a payload of one read", () => {
    const bench = new Bench({ payloadBytes: 1 << 20 });
    bench.port.volumes.get(volumeId)!.set(pattern(4 << 20));
    const initiator = bench.connect().enter();
    for (let count = 0; count < 16; count++)
      initiator.command(read10(count, 1024), 1024 * 512, "read");
    bench.settle();
    const ends = initiator.received.filter((pdu) => pdu.opcode === 0x25 && (pdu.flags & 1) !== 0);
    expect(ends).toHaveLength(16);
    expect(freeOf(bench)).toBe(1 << 20);
  });

  test("solicited writes wait for payload before they are asked for", () => {
    const bench = new Bench({ payloadBytes: 1 << 20 });
    const one = bench.connect().enter([
      ["ImmediateData", "No"],
      ["MaxBurstLength", "1048576"],
    ]);
    const tags = [0, 1, 2].map((index) =>
      one.command(write10(index * 2048, 2048), 1 << 20, "write"),
    );
    for (const tag of tags) {
      bench.settle();
      const asked = one.received.filter((pdu) => pdu.opcode === 0x31);
      expect(asked).toHaveLength(1);
      one.received.length = 0;
      one.dataOut(tag, readU32(asked[0].header, 20), 0, 0, pattern(262144), false);
      for (let part = 1; part < 4; part++) {
        one.dataOut(
          tag,
          readU32(asked[0].header, 20),
          part * 262144,
          part,
          pattern(262144),
          part === 3,
        );
      }
    }
    bench.settle();
    expect(one.received.at(-1)!.header[3]).toBe(0);
  });

  test("immediate data with no payload: TASK SET FULL where others' data stands behind it", () => {
    const bench = new Bench({ payloadBytes: 1 << 20 });
    const initiator = bench.connect().enter();
    const first = initiator.command(write10(0, 2048), 1 << 20, "write", pattern(4096));
    initiator.command(write10(0, 1), 512, "write", pattern(512));
    bench.settle();
    const full = initiator.received.find((pdu) => pdu.opcode === 0x21)!;
    expect(full.header[3]).toBe(0x28);
    const r2t = initiator.received.find((pdu) => pdu.opcode === 0x31)!;
    expect(readU32(r2t.header, 16)).toBe(first);
  });

  test("immediate data with no payload waits where nothing stands behind it", () => {
    const bench = new Bench({ payloadBytes: 1 << 20 });
    const reader = bench.connect().enter();
    bench.port.held = true;
    reader.command(read10(0, 2048), 1 << 20, "read");
    bench.settle();
    const writer = bench.connect();
    writer.login(
      1,
      3,
      [
        ["InitiatorName", "iqn.2026-11.org.example:client"],
        ["TargetName", "iqn.2026-11.org.example:disk"],
      ],
      { isid: Uint8Array.of(0x80, 9, 9, 9, 9, 9) },
    );
    writer.command([0, 0, 0, 0, 0, 0], 0, "none");
    writer.command(write10(0, 1), 512, "write", pattern(512));
    bench.settle();
    expect(bench.core.stalled(writer.id)).toBe(true);
    bench.port.held = false;
    bench.settle();
    expect(writer.received.at(-1)!.header[3]).toBe(0);
    expect(bench.core.stalled(writer.id)).toBe(false);
  });

  test("a ring without room makes requests wait", () => {
    const bench = new Bench();
    bench.port.entries = 2;
    const initiator = bench.connect().enter();
    for (let count = 0; count < 20; count++) initiator.command(read10(count, 1), 512, "read");
    bench.settle();
    expect(initiator.received).toHaveLength(20);
  });

  test("tasks that run out stall the connection, and it goes on", () => {
    const bench = new Bench({ taskCapacity: 4 });
    const initiator = bench.connect().enter();
    for (let count = 0; count < 30; count++) initiator.command(read10(count, 1), 512, "read");
    bench.settle();
    expect(initiator.received).toHaveLength(30);
  });

  test("an initiator that doesn't read holds nobody up and loses nothing", () => {
    const bench = new Bench();
    const deaf = bench.connect().enter();
    const other = bench.connect();
    other.login(
      1,
      3,
      [
        ["InitiatorName", "iqn.2026-11.org.example:client"],
        ["TargetName", "iqn.2026-11.org.example:disk"],
      ],
      { isid: Uint8Array.of(0x80, 9, 9, 9, 9, 9) },
    );
    other.run([0, 0, 0, 0, 0, 0]);
    deaf.deaf = true;
    for (let count = 0; count < 128; count++) deaf.command([0x12, 1, 0x83, 0, 255, 0], 255, "read");
    bench.settle();
    expect(other.run(read10(0, 1), 512, "read").status).toBe(0);
    deaf.deaf = false;
    bench.settle();
    expect(deaf.received).toHaveLength(128);
  });

  test("a connection that closes with tasks everywhere leaves nothing behind", () => {
    const bench = new Bench({ payloadBytes: 1 << 20 });
    const initiator = bench.connect().enter();
    bench.port.held = true;
    initiator.command(read10(0, 64), 32768, "read");
    initiator.command(write10(0, 8), 4096, "write", pattern(4096));
    initiator.command(write10(0, 64), 32768, "write", pattern(512));
    for (let count = 0; count < 40; count++) initiator.command(read10(0, 256), 131072, "read");
    bench.settle();
    bench.hangUp(initiator.id);
    bench.port.held = false;
    bench.settle();
    expect(freeOf(bench)).toBe(1 << 20);
    expect(bench.connect().enter().run(read10(0, 1), 512, "read").status).toBe(0);
  });
});

describe("bytes nobody should send", () => {
  test("any bytes before log-in: the target survives and serves others", () => {
    const bench = new Bench();
    const good = bench.connect().enter();
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 400 }), (bytes) => {
        const bad = bench.connect();
        bad.push(bytes);
        bench.settle();
        bench.hangUp(bad.id);
      }),
      { numRuns: 300 },
    );
    expect(good.run(read10(0, 1), 512, "read").status).toBe(0);
  });

  test("any PDU in full feature: the target survives, nothing leaks", () => {
    const bench = new Bench();
    const good = bench.connect();
    good.login(
      1,
      3,
      [
        ["InitiatorName", "iqn.2026-11.org.example:client"],
        ["TargetName", "iqn.2026-11.org.example:disk"],
      ],
      { isid: Uint8Array.of(0x80, 9, 9, 9, 9, 9) },
    );
    good.run([0, 0, 0, 0, 0, 0]);
    const opcodes = fc.constantFrom(0, 1, 2, 4, 5, 6, 0x10, 0x1c, 0x3f, 0x21);
    const codes = fc.constantFrom(
      0x28,
      0x2a,
      0x12,
      0x41,
      0x42,
      0x89,
      0x8a,
      0x5f,
      0x5e,
      0xa0,
      0xa3,
      0x55,
      0x2f,
      0x93,
    );
    const pdu = fc.record({
      opcode: opcodes,
      immediate: fc.boolean(),
      rest: fc.uint8Array({ minLength: 47, maxLength: 47 }),
      code: codes,
      small: fc.boolean(),
      data: fc.uint8Array({ maxLength: 600 }),
    });
    fc.assert(
      fc.property(fc.array(pdu, { maxLength: 12 }), (pdus) => {
        const bad = bench.connect().enter();
        for (const { opcode, immediate, rest, code, small, data } of pdus) {
          const header = Uint8Array.of(opcode | (immediate ? 0x40 : 0), ...rest);
          header[4] = 0;
          header.set(be32(bad.cmdSN), 24);
          // TARGET COLD RESET ends everybody's session, as it should.
          if (opcode === 2) header[1] = 0x80 | (header[1] % 7);
          if (opcode === 1) {
            header[32] = code;
            if (small) header.fill(0, 33, 44);
            header.fill(0, 8, 16);
          }
          bad.send(header, data);
          bad.cmdSN = (bad.cmdSN + 1) >>> 0;
          bench.settle();
        }
        bench.hangUp(bad.id);
        bench.settle();
        expect(freeOf(bench)).toBe(bench.port.payload.length);
      }),
      { numRuns: 150 },
    );
    // Resets among them told it so.
    while (good.run([0, 0, 0, 0, 0, 0]).status !== 0);
    expect(good.run(read10(0, 1), 512, "read").status).toBe(0);
  });
});
