import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  defineLayout,
  type Fields,
  type Layout,
  readU24,
  readU32,
  type Values,
  writeU24,
  writeU32,
} from "./layout.ts";
import {
  Bhs,
  bhsBytes,
  dataInLayout,
  layouts,
  loginLayout,
  padding,
  scsiCommandLayout,
  serialBefore,
} from "./pdu.ts";

/** Values that fill every field of a layout with bytes all different. */
function fill(layout: Layout<Fields>): Values<Fields> {
  let next = 1;
  const values: Record<string, number | Uint8Array> = {};
  for (const [name, [, kind, length]] of Object.entries(layout.fields)) {
    if (kind === "bytes") values[name] = Uint8Array.from({ length: length! }, () => next++);
    else {
      let value = 0;
      for (let byte = 0; byte < { u8: 1, u16: 2, u24: 3, u32: 4 }[kind]; byte++) {
        value = value * 256 + (next++ & 0xff);
      }
      values[name] = value;
    }
  }
  return values as Values<Fields>;
}

describe.each(layouts.map((layout) => ({ name: layout.name, layout })))("$name", ({ layout }) => {
  test("is one basic header segment", () => {
    expect(layout.sizeBytes).toBe(bhsBytes);
  });

  test("comes back as it went", () => {
    const values = fill(layout);
    const bytes = layout.encode(values);
    expect(layout.decode(bytes)).toEqual(values);
    const shifted = new Uint8Array(bytes.length + 7);
    shifted.set(bytes, 7);
    expect(layout.decode(shifted, 7)).toEqual(values);
  });

  test("truncated by any number of bytes is no PDU", () => {
    const bytes = layout.encode(fill(layout));
    for (let length = 0; length < bhsBytes; length++) {
      expect(layout.decode(bytes.subarray(0, length))).toBeUndefined();
    }
    expect(layout.decode(bytes, 1)).toBeUndefined();
    expect(layout.decode(bytes, -1)).toBeUndefined();
  });

  test("over-sized: what follows belongs to the next", () => {
    const values = fill(layout);
    const bytes = new Uint8Array(bhsBytes + 9).fill(0xee);
    bytes.set(layout.encode(values));
    expect(layout.decode(bytes)).toEqual(values);
  });

  test("a value too large for its field is refused", () => {
    expect(() => layout.encode({ flags: 256 })).toThrow(RangeError);
    expect(() => layout.encode({ dataSegmentLength: 2 ** 24 })).toThrow(RangeError);
    expect(() => layout.encode({ initiatorTaskTag: -1 })).toThrow(RangeError);
  });

  test("any 48 bytes decode", () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: bhsBytes, maxLength: bhsBytes }), (bytes) => {
        const values = layout.decode(bytes)!;
        expect(values.opcode).toBe(bytes[0]);
        // What isn't reserved survives the way back.
        const again = layout.encode(values);
        expect(layout.decode(again)).toEqual(values);
      }),
    );
  });
});

test("a SCSI Command's golden bytes: READ(10) of 8 blocks at 0x1000", () => {
  const cdb = new Uint8Array(16);
  cdb.set([0x28, 0, 0, 0, 0x10, 0, 0, 0, 8, 0]);
  const bytes = scsiCommandLayout.encode({
    opcode: 0x01,
    flags: 0xc1,
    initiatorTaskTag: 0x01020304,
    expectedDataTransferLength: 4096,
    cmdSN: 7,
    expStatSN: 9,
    cdb,
  });
  expect(Buffer.from(bytes).toString("hex")).toBe(
    "01c10000000000000000000000000000" +
      "01020304000010000000000700000009" +
      "28000000100000000800000000000000",
  );
});

test("the hot path's offsets are those of the layouts", () => {
  expect(scsiCommandLayout.fields.cdb[0]).toBe(Bhs.cdb);
  expect(scsiCommandLayout.fields.expectedDataTransferLength[0]).toBe(
    Bhs.expectedDataTransferLength,
  );
  expect(scsiCommandLayout.fields.cmdSN[0]).toBe(Bhs.cmdSN);
  expect(dataInLayout.fields.bufferOffset[0]).toBe(Bhs.bufferOffset);
  expect(dataInLayout.fields.residualCount[0]).toBe(Bhs.residualCount);
  expect(dataInLayout.fields.dataSN[0]).toBe(Bhs.dataSN);
  expect(loginLayout.fields.dataSegmentLength[0]).toBe(Bhs.dataSegmentLength);
});

test("a layout that overlaps, leaves a gap or runs over does not load", () => {
  expect(() => defineLayout("x", 4, { a: [0, "u16"], b: [1, "u16"] }, [[3, 1]])).toThrow(
    "overlaps",
  );
  expect(() => defineLayout("x", 4, { a: [0, "u16"] }, [])).toThrow("byte 2");
  expect(() => defineLayout("x", 4, { a: [2, "u24"] }, [[0, 2]])).toThrow("overlaps");
});

test("hot readers and writers agree for every value", () => {
  const bytes = new Uint8Array(8);
  fc.assert(
    fc.property(fc.nat({ max: 0xffffffff }), fc.nat({ max: 4 }), (value, at) => {
      writeU32(bytes, at, value);
      expect(readU32(bytes, at)).toBe(value);
      writeU24(bytes, at, value & 0xffffff);
      expect(readU24(bytes, at)).toBe(value & 0xffffff);
    }),
  );
});

test("segments end on a word", () => {
  expect([0, 1, 2, 3, 4, 5].map(padding)).toEqual([0, 3, 2, 1, 0, 3]);
});

test("serial numbers wrap", () => {
  expect(serialBefore(1, 2)).toBe(true);
  expect(serialBefore(0xffffffff, 0)).toBe(true);
  expect(serialBefore(0, 0xffffffff)).toBe(false);
  expect(serialBefore(5, 5)).toBe(false);
});
