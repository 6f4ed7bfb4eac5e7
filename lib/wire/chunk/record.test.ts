import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  decodeDone,
  decodeHello,
  decodeOpened,
  doneBytes,
  encodeClose,
  encodeCompletion,
  encodeDone,
  encodeHello,
  encodeOpen,
  encodeOpened,
  encodeRequest,
  judgeHello,
  Mode,
  maxPayloadBytes,
  openClaim,
  openVolumeId,
  Refusal,
  Request,
  requestSector,
  requestWords,
} from "./record.ts";
import { ringLayout } from "./ring.ts";

const hex = (bytes: Uint8Array) =>
  Buffer.from(bytes)
    .toString("hex")
    .replace(/(00)+$/, "");
const hello = { version: 2, mode: 1, entries: 1024, payloadBytes: 32 << 20, refusal: 0 };

describe("golden bytes: they never change within a version", () => {
  test("hello", () => {
    expect(hex(encodeHello(hello))).toBe("4b45454c424c4b31020000000100000000040000" + "00000002");
  });
  test("open, close, completion, opened", () => {
    const id = "01234567-89ab-cdef-0123-456789abcdef";
    expect(hex(encodeOpen(id, 5))).toBe(
      "6400000000000000050000000000000001234567" + "89abcdef0123456789abcdef",
    );
    expect(openVolumeId(encodeOpen(id, 5))).toBe(id);
    expect(openClaim(encodeOpen(id, 5))).toBeUndefined();
    const claim = { generation: 7, groupEpoch: 2, id: [0x11223344, 0x55667788] } as const;
    expect(hex(encodeOpen(id, 5, claim))).toBe(
      "6400000000000000050000000100000001234567" +
        "89abcdef0123456789abcdef07000000020000004433221188776655",
    );
    expect(openClaim(encodeOpen(id, 5, claim))).toEqual(claim);
    expect(hex(encodeClose(3))).toBe("6500000003");
    expect(hex(encodeCompletion(7, 2))).toBe("0700000002");
    const opened = {
      ...{ token: 5, status: 0, handle: 9, readOnly: true, sizeBytes: 2 ** 40 },
      ...{ generation: 7, groupEpoch: 2, partly: false },
      version: { generation: 7, sequence: 300 },
      flushed: { generation: 6, sequence: 5 },
    };
    expect(hex(encodeOpened(opened))).toBe(
      "faffffff00000000000000000000000009000000010000000000000000010000" +
        "070000000200000007000000060000002c0100000000000005",
    );
    const done = new Uint8Array(doneBytes);
    encodeDone(done, 0, {
      ...opened.version,
      ...{ discards: true, partly: true, sector: 2 ** 33, sectors: 8 },
    });
    expect(hex(done)).toBe("07000000030000002c0100000000000000000000020000" + "0008");
  });
  test("request", () => {
    const words = new Int32Array(requestWords);
    encodeRequest(words, 0, 2, 3, 2 ** 33 + 5, 4096, 8192, 1, 6, 7, 7, 2 ** 32 + 300);
    expect([...words]).toEqual([2, 3, 6, 4096, 5, 2, 8192, 1, 7, 7, 300, 1, 0, 0, 0, 0]);
    expect(words.length * 4).toBe(64);
  });
});

describe("round trips", () => {
  test("hello", () => {
    const number = fc.nat(2 ** 31);
    const any = fc.record({
      version: number,
      mode: number,
      entries: number,
      payloadBytes: number,
      refusal: number,
    });
    fc.assert(
      fc.property(any, (value) => {
        expect(decodeHello(encodeHello(value))).toEqual(value);
      }),
    );
  });
  test("sectors up to 2^44 - 1", () => {
    fc.assert(
      fc.property(fc.nat(2 ** 44 - 1), (sector) => {
        const words = new Int32Array(2 * requestWords);
        encodeRequest(words, requestWords, 1, 0, sector, 512, 0, 0, 0);
        expect(requestSector(words, requestWords)).toBe(sector);
      }),
    );
  });
  test("opened, and what was done", () => {
    const number = fc.nat(2 ** 31);
    const size = fc.nat(Number.MAX_SAFE_INTEGER);
    const version = fc.record({ generation: number, sequence: size });
    const any = fc.record({
      ...{ generation: number, groupEpoch: number, version, flushed: version },
      token: fc.nat(2 ** 30),
      status: fc.nat(8),
      handle: fc.nat(4096),
      readOnly: fc.boolean(),
      partly: fc.boolean(),
      sizeBytes: fc.nat(Number.MAX_SAFE_INTEGER),
    });
    fc.assert(
      fc.property(any, (value) => {
        expect(decodeOpened(encodeOpened(value))).toEqual(value);
      }),
    );
    const operation = fc.record({
      ...{ generation: fc.integer({ min: 1, max: 2 ** 32 - 1 }), sequence: size },
      ...{ sector: size, sectors: size, discards: fc.boolean(), partly: fc.boolean() },
    });
    fc.assert(
      fc.property(operation, (value) => {
        const bytes = new Uint8Array(3 * doneBytes);
        encodeDone(bytes, doneBytes, value);
        expect(decodeDone(bytes, doneBytes)).toEqual(value);
        expect(decodeDone(bytes, 2 * doneBytes)).toBeUndefined();
      }),
    );
  });
});

describe("what is not ours", () => {
  test("a hello cut anywhere is no hello", () => {
    const bytes = encodeHello(hello);
    for (let length = 0; length < bytes.length; length++) {
      expect(decodeHello(bytes.subarray(0, length))).toBeUndefined();
    }
  });
  test("a sector past what can be counted", () => {
    const words = new Int32Array(requestWords);
    words[Request.sectorHigh] = 1 << 12;
    expect(requestSector(words, 0)).toBe(-1);
    words[Request.sectorHigh] = -1;
    expect(requestSector(words, 0)).toBe(-1);
  });
  test.each([
    ["another version", { version: 1 }, Refusal.version],
    ["version 0", { version: 0 }, Refusal.version],
    ["an unknown mode", { mode: 3 }, Refusal.mode],
    ["entries not a power of two", { entries: 1000 }, Refusal.sizes],
    ["no entries", { entries: 0 }, Refusal.sizes],
    ["too many entries", { entries: 8192 }, Refusal.sizes],
    ["no payload", { payloadBytes: 0 }, Refusal.sizes],
    ["payload of an odd size", { payloadBytes: (1 << 20) + 4096 }, Refusal.sizes],
    ["too much payload", { payloadBytes: 2 * maxPayloadBytes }, Refusal.sizes],
    ["all well", {}, Refusal.none],
  ])("%s", (_, change, refusal) => {
    expect(judgeHello({ ...hello, ...change }, [Mode.ring])).toBe(refusal);
  });
  test("a mode the store does not offer; no hello at all", () => {
    expect(judgeHello(hello, [Mode.inline])).toBe(Refusal.mode);
    expect(judgeHello(undefined, [Mode.inline])).toBe(Refusal.magic);
  });
});

test("the ring's parts don't overlap and begin on pages", () => {
  for (const entries of [2, 64, 1024, 4096]) {
    const layout = ringLayout(entries, 1 << 20);
    expect(layout.controlOffset).toBe(1 << 20);
    expect(layout.completionsOffset - layout.requestsOffset).toBe(entries * 64);
    expect(layout.controlBytes - layout.completionsOffset).toBeGreaterThanOrEqual(entries * 16);
    expect(layout.controlBytes % 4096).toBe(0);
    expect(layout.totalBytes).toBe((1 << 20) + layout.controlBytes);
  }
});
