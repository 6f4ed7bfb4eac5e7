import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { cdbBlocks, cdbLba, cdbLength, parseUnmapList, supportedCommands } from "./cdb.ts";
import { noUnit, standardInquiry, type UnitIdentity, vpdPage } from "./inquiry.ts";
import { ModePage, modeSelect, modeSense } from "./mode.ts";
import { descriptorSense, fixedSense, Sense, writeFixedSense } from "./sense.ts";

const identity: UnitIdentity = {
  vendor: "KEELSON",
  product: "VOLUME",
  revision: "1",
  serial: "6f1f9a3e7c0b4c599d530d7c2f3f8a11",
  uuid: Buffer.from("6f1f9a3e7c0b4c599d530d7c2f3f8a11", "hex"),
  targetName: "iqn.2026-11.org.example:a",
};
const limits = {
  maxTransferBlocks: 2048,
  optimalTransferBlocks: 512,
  maxCompareAndWriteBlocks: 255,
  maxUnmapBlocks: 1 << 20,
  maxUnmapDescriptors: 256,
  maxWriteSameBlocks: 63488,
  granularityBlocks: 8,
};

describe("commands", () => {
  test.each([
    ["READ(6)", [0x08, 0xff, 0x23, 0x45, 0x00, 0], 0x1f2345, 256],
    ["READ(10)", [0x28, 0, 0xff, 0xff, 0xff, 0xff, 0, 0x01, 0x02, 0], 0xffffffff, 0x102],
    ["READ(12)", [0xa8, 0, 0, 0, 0, 5, 0, 1, 0, 0, 0, 0], 5, 0x10000],
    [
      "WRITE(16)",
      [0x8a, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0xff, 0xff, 0xff, 0xff, 0, 0],
      2 ** 32 + 2,
      2 ** 32 - 1,
    ],
  ])("%s: address and length", (_name, cdb, lba, blocks) => {
    const bytes = Uint8Array.from(cdb);
    expect(cdbLba(bytes)).toBe(lba);
    expect(cdbBlocks(bytes)).toBe(blocks);
  });

  test("an address past 2^53 is past the end of anything", () => {
    const cdb = new Uint8Array(16).fill(0xff);
    cdb[0] = 0x88;
    expect(cdbLba(cdb)).toBe(Number.POSITIVE_INFINITY);
  });

  test("each supported command's usage map is as long as its CDB and opens with its code", () => {
    for (const command of supportedCommands) {
      expect(command.usage.length, command.name).toBe(cdbLength(command.opcode));
      expect(command.usage[0], command.name).toBe(command.opcode);
    }
  });

  test("UNMAP lists: cut descriptors are ignored, a short header is a fault", () => {
    const list = Buffer.alloc(8 + 32);
    list.writeUInt16BE(38, 0);
    list.writeUInt16BE(32, 2);
    list.writeBigUInt64BE(8n, 8);
    list.writeUInt32BE(16, 16);
    list.writeBigUInt64BE(100n, 24);
    list.writeUInt32BE(1, 32);
    expect(parseUnmapList(list)).toEqual([
      { lba: 8, blocks: 16 },
      { lba: 100, blocks: 1 },
    ]);
    expect(parseUnmapList(list.subarray(0, 30))).toEqual([{ lba: 8, blocks: 16 }]);
    expect(parseUnmapList(list.subarray(0, 7))).toBeUndefined();
    expect(parseUnmapList(new Uint8Array(0))).toEqual([]);
  });

  test("any bytes survive as an UNMAP list", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        for (const range of parseUnmapList(bytes) ?? []) {
          expect(range.lba).toBeGreaterThanOrEqual(0);
          expect(range.blocks).toBeLessThan(2 ** 32);
        }
      }),
    );
  });
});

describe("sense", () => {
  test("golden bytes: a full store", () => {
    expect(Buffer.from(fixedSense(Sense.spaceAllocationFailed)).toString("hex")).toBe(
      "700007000000000a00000000270700000000",
    );
    expect([...descriptorSense(Sense.spaceAllocationFailed)]).toEqual([
      0x72, 7, 0x27, 7, 0, 0, 0, 0,
    ]);
  });

  test("a miscompare names the first byte that differs", () => {
    const bytes = new Uint8Array(20).fill(0xee);
    writeFixedSense(bytes, 1, Sense.miscompareDuringVerify, 0x01020304);
    expect([...bytes.subarray(1, 9)]).toEqual([0xf0, 0, 0x0e, 1, 2, 3, 4, 10]);
    expect([bytes[13], bytes[14]]).toEqual([0x1d, 0]);
    expect([bytes[0], bytes[19]]).toEqual([0xee, 0xee]);
  });
});

describe("inquiry", () => {
  test("standard data: a disk of KEELSON", () => {
    const data = standardInquiry(identity);
    expect(data[0]).toBe(0);
    expect(data[4]).toBe(data.length - 5);
    expect(Buffer.from(data.subarray(8, 36)).toString("latin1")).toBe(
      "KEELSON VOLUME          1   ",
    );
    expect(standardInquiry(identity, noUnit)[0]).toBe(0x7f);
  });

  test("every page that page 00 names is there, with its length", () => {
    const listed = vpdPage(0, identity, limits)!;
    for (const code of listed.subarray(4)) {
      const data = vpdPage(code, identity, limits)!;
      expect(data[1]).toBe(code);
      expect((data[2] << 8) | data[3]).toBe(data.length - 4);
    }
    expect(vpdPage(0xc0, identity, limits)).toBeUndefined();
  });

  test("the volume's name is an NAA 6 of its id; descriptors add up", () => {
    const data = vpdPage(0x83, identity, limits)!;
    expect([...data.subarray(4, 8)]).toEqual([0x01, 0x03, 0, 16]);
    expect(data[8]).toBe(0x6f);
    let at = 4;
    while (at < data.length) at += 4 + data[at + 3];
    expect(at).toBe(data.length);
  });

  test("block limits, thin provisioning", () => {
    const data = Buffer.from(vpdPage(0xb0, identity, limits)!);
    expect(data[5]).toBe(255);
    expect(data.readUInt32BE(8)).toBe(2048);
    expect(data.readUInt32BE(20)).toBe(1 << 20);
    expect(data.readUInt32BE(24)).toBe(256);
    expect(data.readUInt32BE(40)).toBe(63488);
    expect(vpdPage(0xb2, identity, limits)![5]).toBe(0xe4);
  });
});

describe("modes", () => {
  const state = { softwareWriteProtect: false, descriptorSense: false };
  const ask = (pageCode: number, more: object = {}) =>
    modeSense(
      {
        ten: false,
        pageCode,
        subpage: 0,
        control: 0,
        disableBlockDescriptors: false,
        longLba: false,
        ...more,
      },
      state,
      false,
      2 ** 33,
      512,
    );

  test("the write cache is on and said to be volatile", () => {
    const data = ask(ModePage.caching)!;
    expect(data[0]).toBe(data.length - 1);
    expect(data[3]).toBe(8);
    expect([data[12], data[13], data[14]]).toEqual([0x08, 18, 0x04]);
    // More blocks than 32 bits hold.
    expect([...data.subarray(4, 8)]).toEqual([0xff, 0xff, 0xff, 0xff]);
  });

  test("a read-only unit says WP", () => {
    const request = {
      ten: true,
      pageCode: 0x3f,
      subpage: 0,
      control: 0,
      disableBlockDescriptors: true,
      longLba: false,
    };
    expect(modeSense(request, state, true, 1, 512)![3]).toBe(0x90);
    expect(modeSense(request, state, false, 1, 512)![3]).toBe(0x10);
  });

  test("unknown pages and subpages are refused", () => {
    expect(ask(0x2a)).toBeUndefined();
    expect(ask(ModePage.caching, { subpage: 1 })).toBeUndefined();
  });

  test("MODE SELECT changes SWP and nothing else", () => {
    const control = Buffer.from(
      ask(ModePage.control, { disableBlockDescriptors: true })!.subarray(4),
    );
    control[4] |= 0x08;
    const swp = modeSelect(Buffer.concat([Buffer.alloc(4), control]), false, state);
    expect(swp).toMatchObject({ ok: true, changed: true, next: { softwareWriteProtect: true } });
    const caching = Buffer.from(
      ask(ModePage.caching, { disableBlockDescriptors: true })!.subarray(4),
    );
    caching[2] = 0;
    expect(modeSelect(Buffer.concat([Buffer.alloc(4), caching]), false, state)).toEqual({
      ok: false,
      fault: "field",
    });
  });

  test("any bytes survive MODE SELECT", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 64 }), fc.boolean(), (bytes, ten) => {
        const result = modeSelect(bytes, ten, state);
        if (!result.ok) expect(["length", "field"]).toContain(result.fault);
      }),
    );
  });
});
