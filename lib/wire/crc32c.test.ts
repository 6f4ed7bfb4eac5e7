import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { native } from "#native";
import { crc32c } from "./crc32c.ts";

/** RFC 7143 (RFC 3720 appendix B.4) and the usual check value. */
const known: [string, Uint8Array, number][] = [
  ["123456789", new TextEncoder().encode("123456789"), 0xe3069283],
  ["32 bytes of zeros", new Uint8Array(32), 0x8a9136aa],
  ["32 bytes of ones", new Uint8Array(32).fill(0xff), 0x62a8ab43],
  ["32 bytes up", Uint8Array.from({ length: 32 }, (_, i) => i), 0x46dd794e],
  ["32 bytes down", Uint8Array.from({ length: 32 }, (_, i) => 31 - i), 0x113fdb5c],
];

describe("crc32c", () => {
  test.each(known)("%s", (_, bytes, sum) => {
    expect(crc32c(bytes)).toBe(sum);
  });

  test("continues where it left off", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), fc.nat(300), (bytes, cut) => {
        const first = crc32c(bytes.subarray(0, cut));
        expect(crc32c(bytes.subarray(cut), first)).toBe(crc32c(bytes));
      }),
    );
  });

  test.skipIf(native === undefined)("the addon gives the same at every length", () => {
    const bytes = Uint8Array.from({ length: 8300 }, (_, i) => (i * 7 + (i >> 8)) & 255);
    for (const length of [0, 1, 7, 8, 9, 4079, 4080, 4081, 4096, 8160, 8192, 8299]) {
      const part = bytes.subarray(0, length);
      expect(native!.crc32c(part, 9)).toBe(crc32c(part, 9));
      expect(native!.crc32cTable(part, 9)).toBe(crc32c(part, 9));
    }
  });
});
