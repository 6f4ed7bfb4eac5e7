import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { isKeelsonError } from "#lib/model/errors.ts";
import { checkQcow2 } from "./image-file.ts";

/** A sound version 3 header of a 1 GiB disk; the parts that matter may be changed. */
function header(change: (head: Buffer) => void = () => {}): Buffer {
  const head = Buffer.alloc(512);
  head.writeUInt32BE(0x514649fb, 0);
  head.writeUInt32BE(3, 4);
  head.writeUInt32BE(16, 20);
  head.writeBigUInt64BE(1n << 30n, 24);
  change(head);
  return head;
}

describe("qcow2 header", () => {
  test("a sound one gives the disk's size", () => {
    expect(checkQcow2(header())).toBe(1 << 30);
    const version2 = header((head) => head.writeUInt32BE(2, 4));
    expect(checkQcow2(version2.subarray(0, 72))).toBe(1 << 30);
  });

  test.each<[string, (head: Buffer) => void, string]>([
    ["version 4", (head) => head.writeUInt32BE(4, 4), "FORMAT_CORRUPT"],
    ["a backing file", (head) => head.writeBigUInt64BE(512n, 8), "UNSUPPORTED"],
    ["encryption", (head) => head.writeUInt32BE(2, 32), "UNSUPPORTED"],
    ["an external data file", (head) => head.writeBigUInt64BE(4n, 72), "UNSUPPORTED"],
    ["the mark of corruption", (head) => head.writeBigUInt64BE(2n, 72), "FORMAT_CORRUPT"],
    ["no size", (head) => head.writeBigUInt64BE(0n, 24), "FORMAT_CORRUPT"],
    ["a size past 64 TiB", (head) => head.writeBigUInt64BE(1n << 60n, 24), "UNSUPPORTED"],
  ])("with %s it is refused", (_name, change, code) => {
    expect(() => checkQcow2(header(change))).toThrowError(expect.objectContaining({ code }));
  });

  test("cut short anywhere, or of any bytes, it is refused or read, never a crash", () => {
    for (let length = 0; length < 80; length++) {
      expect(() => checkQcow2(header().subarray(0, length))).toThrow(/cut short/);
    }
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 512 }), (bytes) => {
        try {
          const sizeBytes = checkQcow2(Buffer.from(bytes));
          return Number.isSafeInteger(sizeBytes) && sizeBytes > 0;
        } catch (error) {
          return isKeelsonError(error);
        }
      }),
    );
  });
});
