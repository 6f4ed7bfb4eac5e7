import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  decodeClientFlags,
  decodeGo,
  decodeOptionHeader,
  decodeReply,
  decodeRequest,
  encodeExport,
  encodeExportInfo,
  encodeGo,
  encodeGreeting,
  encodeOption,
  encodeOptionReply,
  encodeReply,
  encodeRequest,
  NbdError,
  Option,
  OptionReply,
  requestBytes,
} from "./nbd.ts";

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex");
const u32 = fc.integer({ min: 0, max: 2 ** 32 - 1 });
const u16 = fc.integer({ min: 0, max: 65535 });

describe("golden bytes", () => {
  test("the server's greeting", () => {
    expect(hex(encodeGreeting())).toBe("4e42444d4147494349484156454f50540003");
  });

  test("an acknowledgement of GO", () => {
    expect(hex(encodeOptionReply(Option.go, OptionReply.acknowledged))).toBe(
      "0003e889045565a9000000070000000100000000",
    );
  });

  test("INFO_EXPORT of 1 GiB", () => {
    expect(hex(encodeExportInfo(2 ** 30, 0x6d))).toBe("00000000000040000000006d");
  });

  test("EXPORT_NAME's answer has 124 zeroes unless declined", () => {
    expect(encodeExport(512, 1, false).length).toBe(134);
    expect(hex(encodeExport(512, 1, true))).toBe("00000000000002000001");
  });
});

describe("round trips", () => {
  test("requests", () => {
    const request = fc.record({
      flags: u16,
      type: u16,
      cookie: fc.bigInt(0n, 2n ** 64n - 1n),
      offset: fc.maxSafeNat(),
      length: u32,
    });
    fc.assert(
      fc.property(request, (value) => {
        const bytes = encodeRequest(value);
        expect(bytes.length).toBe(requestBytes);
        expect(decodeRequest(bytes)).toEqual(value);
      }),
    );
  });

  test("replies and options", () => {
    fc.assert(
      fc.property(fc.bigInt(0n, 2n ** 64n - 1n), u32, fc.uint8Array(), (cookie, option, data) => {
        expect(decodeReply(encodeReply(cookie, NbdError.noSpace))).toEqual({
          cookie,
          error: 28,
        });
        expect(decodeOptionHeader(encodeOption(option, data))).toEqual({
          option,
          length: data.length,
        });
      }),
    );
  });

  test("GO's data", () => {
    const name = fc.string({ unit: "grapheme", maxLength: 64 });
    fc.assert(
      fc.property(name, fc.array(u16, { maxLength: 8 }), (text, types) => {
        expect(decodeGo(encodeGo(text, types))).toEqual({ name: text, types });
      }),
    );
  });
});

describe("bad input", () => {
  test("GO's data cut anywhere, or with more behind it, is refused", () => {
    const whole = encodeGo("export", [3]);
    for (let length = 0; length < whole.length; length++) {
      expect(decodeGo(whole.subarray(0, length))).toBeUndefined();
    }
    expect(decodeGo(new Uint8Array([...whole, 0]))).toBeUndefined();
  });

  test("any bytes give a value or PROTOCOL, nothing else", () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 28, maxLength: 64 }), (bytes) => {
        decodeGo(bytes);
        for (const decode of [decodeRequest, decodeOptionHeader, decodeReply, decodeClientFlags]) {
          try {
            decode(bytes);
          } catch (error) {
            expect(error).toMatchObject({ code: "PROTOCOL" });
          }
        }
      }),
    );
  });

  test("an offset past 2^53 is not a number that could be in range", () => {
    const bytes = encodeRequest({ flags: 0, type: 0, cookie: 1n, offset: 0, length: 1 });
    bytes.fill(0xff, 16, 24);
    expect(decodeRequest(bytes).offset).toBe(Number.POSITIVE_INFINITY);
  });
});
