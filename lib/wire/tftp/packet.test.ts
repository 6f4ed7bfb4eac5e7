import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { decodePacket, encodePacket, negotiate, type Packet } from "./packet.ts";

const hex = (text: string) => Uint8Array.from(Buffer.from(text.replaceAll(/\s/g, ""), "hex"));
const limits = { blockBytes: 1468, windowBlocks: 64 };

// The forms that tftp-hpa and iPXE send, written by hand from the RFCs and frozen.
const golden: readonly [string, string, Packet][] = [
  [
    "RRQ without options",
    "0001 756e64696f6e6c792e6b70786500 6f6374657400",
    { type: "rrq", file: "undionly.kpxe", mode: "octet", options: new Map() },
  ],
  [
    "RRQ with blksize and tsize",
    "0001 697078652e65666900 6f6374657400 626c6b73697a6500 3134333200 7473697a6500 3000",
    {
      type: "rrq",
      file: "ipxe.efi",
      mode: "octet",
      options: new Map([
        ["blksize", "1432"],
        ["tsize", "0"],
      ]),
    },
  ],
  ["ACK", "0004 0102", { type: "ack", block: 258 }],
  ["ERROR 8", "0005 0008 4e6f00", { type: "error", code: 8, text: "No" }],
  ["empty DATA", "0003 ffff", { type: "data", block: 65_535, bytes: new Uint8Array() }],
  ["OACK", "0006 7473697a6500 373400", { type: "oack", options: new Map([["tsize", "74"]]) }],
];

describe("packets", () => {
  test.each(golden)("%s is read and written as frozen", (_, bytes, packet) => {
    expect(decodePacket(hex(bytes))).toEqual({ packet });
    expect(Buffer.from(encodePacket(packet)).toString("hex")).toBe(bytes.replaceAll(" ", ""));
  });

  test.each([
    ["nothing", "", "too-short"],
    ["half an opcode", "00", "too-short"],
    ["an opcode alone", "0001", "too-short"],
    ["an unknown opcode", "00090000", "unknown-opcode"],
    ["a file name that doesn't end", "000161626364", "bad-request"],
    ["a file without a mode", "00016100", "bad-request"],
    ["a request over 512 bytes", `0001${"61".repeat(600)}006f6374657400`, "request-too-long"],
    ["an OACK that doesn't end", "00067473", "bad-oack"],
  ])("%s is malformed", (_, bytes, reason) => {
    expect(decodePacket(hex(bytes))).toEqual({ malformed: reason });
  });

  test("an option without a value is dropped, of two of one name the first counts", () => {
    const bytes = hex("0001 6100 6f6374657400 4253495a4500 3800 6273697a6500 3900 787800");
    const decoded = decodePacket(bytes);
    expect(decoded).toMatchObject({ packet: { options: new Map([["bsize", "8"]]) } });
  });

  test("any bytes survive, and what is read writes the same again", () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ maxLength: 600 }),
        fc.constantFrom(1, 2, 3, 4, 5, 6, undefined),
        (bytes, opcode) => {
          if (opcode !== undefined && bytes.length >= 2) bytes.set([0, opcode]);
          const decoded = decodePacket(bytes);
          if ("malformed" in decoded) return;
          const again = decodePacket(encodePacket(decoded.packet));
          expect(again).toEqual(decoded);
        },
      ),
      { numRuns: 3000 },
    );
  });
});

describe("negotiation", () => {
  const grant = (options: Record<string, string>) =>
    Object.fromEntries(negotiate(new Map(Object.entries(options)), 1000, limits).accepted);

  test.each([
    [{}, {}],
    [{ tsize: "0" }, { tsize: "1000" }],
    [{ blksize: "512" }, { blksize: "512" }],
    [{ blksize: "8192" }, { blksize: "1468" }],
    [{ blksize: "65464" }, { blksize: "1468" }],
    [{ blksize: "65465" }, {}],
    [{ blksize: "7" }, {}],
    [{ blksize: "-1" }, {}],
    [{ blksize: "0x200" }, {}],
    [{ blksize: "" }, {}],
    [{ windowsize: "4" }, { windowsize: "4" }],
    [{ windowsize: "65535" }, { windowsize: "64" }],
    [{ windowsize: "0" }, {}],
    [{ timeout: "3" }, { timeout: "3" }],
    [{ timeout: "0" }, {}],
    [{ timeout: "256" }, {}],
    [{ multicast: "" }, {}],
  ])("%o is granted as %o", (asked, granted) => {
    expect(grant(asked as Record<string, string>)).toEqual(granted);
  });
});
