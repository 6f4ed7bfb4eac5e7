import { createHash } from "node:crypto";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { fixtureBundle, fixtureManifest } from "./bundle.fixture.ts";
import { canonicalJson } from "./canonical-json.ts";
import { isBundleError } from "./errors.ts";
import { decodeHeader, encodeHeader, headerBytes } from "./header.ts";
import {
  decodeManifest,
  encodeManifest,
  grubSlotConfig,
  slotPartitionUuids,
  ukiFileName,
} from "./manifest.ts";
import { compareVersions, isVersion } from "./version.ts";

describe("golden bytes of format 1", () => {
  test("the header", () => {
    expect(encodeHeader({ manifestBytes: 0x1234, signatureBytes: 0x567 }).toString("hex")).toBe(
      "4b42554e0d0a1a0a0100000034120000670500000000000000000000000000" + "00",
    );
  });

  test("the manifest's head: sorted, without white space", () => {
    expect(encodeManifest(fixtureManifest()).toString()).toMatch(
      /^\{"architecture":"amd64","buildId":"[0-9a-f]{32}","dataFormats":\{"chunk-store":\{"newest":1,"oldest":0\}\},"development":false,"formatVersion":1,"hardware":\["pc"\],"kernelLine":"root=/,
    );
  });

  test("a whole bundle, its Ed25519 signatures too", () => {
    const bundle = fixtureBundle();
    expect(bundle.length).toBe(goldenBytes);
    expect(createHash("sha256").update(bundle).digest("hex")).toBe(goldenSha256);
  });
});

const goldenBytes = 3997;
const goldenSha256 = "eecd4ee9457bdfee7ee716780b2c35546a5ade65aeeb910fb2e35e14e1850fd4";

describe("header", () => {
  const good = encodeHeader({ manifestBytes: 100, signatureBytes: 50 });

  test("is read as it was written, at the limits of its lengths too", () => {
    for (const lengths of [
      { manifestBytes: 1, signatureBytes: 0 },
      { manifestBytes: 262_144, signatureBytes: 131_072 },
    ]) {
      expect(decodeHeader(encodeHeader(lengths))).toEqual(lengths);
    }
  });

  test("any changed byte but a length within bounds is refused", () => {
    for (let at = 0; at < headerBytes; at++) {
      const bytes = Buffer.from(good);
      bytes[at] ^= 0x80;
      if (at === 12 || at === 13 || at === 16 || at === 17) continue;
      expect(() => decodeHeader(bytes), `byte ${at}`).toThrow(Error);
    }
  });

  test.each([
    [12, 0, "malformed"],
    [12, 262_145, "malformed"],
    [12, 0xffff_ffff, "malformed"],
    [16, 131_073, "malformed"],
    [20, 1, "malformed"],
    [8, 0, "format-unknown"],
    [8, 2, "format-unknown"],
    [0, 0, "not-a-bundle"],
  ] as const)("the number at %i as %i is %s", (at, value, problem) => {
    const bytes = Buffer.from(good);
    bytes.writeUInt32LE(value, at);
    try {
      decodeHeader(bytes);
      expect.unreachable();
    } catch (error) {
      expect(isBundleError(error, problem)).toBe(true);
    }
  });
});

describe("canonical JSON", () => {
  test("is the only spelling of any value, and reads back as it", () => {
    const whole = fc.letrec((tie) => ({
      value: fc.oneof(
        { maxDepth: 4 },
        fc.constant(null),
        fc.boolean(),
        fc.maxSafeInteger(),
        fc.string({ unit: "grapheme" }),
        fc.array(tie("value"), { maxLength: 4 }),
        fc.dictionary(fc.string(), tie("value"), { maxKeys: 4, noNullPrototype: true }),
      ),
    })).value;
    fc.assert(
      fc.property(whole, (value) => {
        const text = canonicalJson(value);
        expect(JSON.parse(text)).toEqual(value);
        expect(canonicalJson(JSON.parse(text))).toBe(text);
      }),
    );
  });

  test("RFC 8785: keys by UTF-16 code unit, escapes as JSON.stringify", () => {
    expect(canonicalJson({ "\u20ac": 1, "\r": 2, "1": 3, "\ud83d\ude00": 4, "\ufb33": 5 })).toBe(
      '{"\\r":2,"1":3,"\u20ac":1,"\ud83d\ude00":4,"\ufb33":5}',
    );
  });

  test.each([
    ["a fraction", 0.5],
    ["minus zero", -0],
    ["a number past 2^53", 2 ** 53],
    ["not a number", Number.NaN],
    ["undefined", undefined],
    ["half a surrogate pair", "\ud800"],
    ["an object with undefined", { a: undefined }],
    ["a date", new Date(0)],
  ])("%s has none", (_name, value) => {
    expect(() => canonicalJson(value)).toThrow("canonical");
  });
});

describe("manifest", () => {
  const text = encodeManifest(fixtureManifest()).toString();
  const refused = (changed: string) => {
    expect(changed).not.toBe(text);
    try {
      decodeManifest(Buffer.from(changed));
      expect.unreachable("it was taken");
    } catch (error) {
      if (!isBundleError(error, "malformed")) throw error;
      return error.message;
    }
  };

  test("is read as it was written", () => {
    expect(decodeManifest(Buffer.from(text))).toEqual(fixtureManifest());
  });

  test.each([
    ["white space", (json: string) => json.replace(":", ": ")],
    [
      "another order",
      (json: string) =>
        json.replace(/^\{("architecture":"amd64"),("buildId":"[0-9a-f]{32}")/, "{$2,$1"),
    ],
    ["a member twice", (json: string) => json.replace("{", '{"architecture":"amd64",')],
    ["an unknown member", (json: string) => `${json.slice(0, -1)},"zzz":1}`],
    ["a byte order mark", (json: string) => `\ufeff${json}`],
    ["an escape that needs none", (json: string) => json.replace("keelson", "keelso\\u006e")],
    ["a number as 1e0", (json: string) => json.replace('"newest":1', '"newest":1e0')],
    ["__proto__", (json: string) => json.replace("{", '{"__proto__":{"development":true},')],
    ["an array", () => "[]"],
    ["nothing", () => ""],
    ["deep nesting", () => "[".repeat(100_000)],
    ["a deep array", () => `${"[".repeat(100_000)}${"]".repeat(100_000)}`],
  ])("%s is refused", (_name, change) => {
    expect(refused(change(text))).toMatch(/manifest is not/);
  });

  test("bytes that are not UTF-8 are refused", () => {
    const bytes = Buffer.from(text);
    bytes[bytes.indexOf("nothing")] = 0xff;
    expect(() => decodeManifest(bytes)).toThrow("not JSON");
  });

  test.each([
    ["a path in the version", { version: "2026.12.0/../x" }],
    ["a version of month 13", { version: "2026.13.0" }],
    ["another format version", { formatVersion: 2 }],
    ["a kernel line with a line end", { kernelLine: `a\nroothash=${"ab".repeat(32)}` }],
    ["GRUB's own characters", { kernelLine: `x; $(y) roothash=${"ab".repeat(32)}` }],
    ["a kernel line for another root", { kernelLine: `roothash=${"cd".repeat(32)}` }],
    ["no hardware", { hardware: [] }],
    ["a part too few", { parts: fixtureManifest().parts.slice(1) }],
    ["parts in another order", { parts: fixtureManifest().parts.toReversed() }],
    ["a part twice", { parts: fixtureManifest().parts.with(1, fixtureManifest().parts[0]) }],
    ["an empty part", { parts: withSize(0, 0) }],
    ["a root that fits no slot", { parts: withSize(0, 2 ** 30 + 1) }],
    ["boot code over the partition table", { parts: withSize(8, 441) }],
    ["formats the wrong way round", { dataFormats: { x: { oldest: 2, newest: 1 } } }],
    ["notes without end", { notes: "x".repeat(64_001) }],
  ])("%s is refused", (_name, change) => {
    refused(canonicalJson({ ...fixtureManifest(), ...change }));
  });

  test("encoding refuses what decoding would", () => {
    expect(() => encodeManifest({ ...fixtureManifest(), version: "1.0" })).toThrow();
  });
});

function withSize(index: number, sizeBytes: number) {
  const { parts } = fixtureManifest();
  return parts.with(index, { ...parts[index], sizeBytes });
}

describe("versions", () => {
  test("compare by number, not by letter; +drift doesn't count", () => {
    const order = ["2025.12.9", "2026.1.0", "2026.2.0", "2026.11.2", "2026.11.10", "2026.12.0"];
    for (const [i, a] of order.entries()) {
      for (const [j, b] of order.entries()) {
        expect(Math.sign(compareVersions(a, b))).toBe(Math.sign(i - j));
      }
    }
    expect(compareVersions("2026.11.0", "2026.11.0+drift")).toBe(0);
  });

  test.each([
    "",
    "2026",
    "2026.11",
    "2026.011.0",
    "2026.0.0",
    "2026.13.0",
    "2026.1.00",
    "v2026.1.0",
  ])("%j is none", (text) => {
    expect(isVersion(text)).toBe(false);
    expect(() => compareVersions(text, "2026.1.0")).toThrow("not YYYY.M.PATCH");
  });
});

test("what the parts become on a disk", () => {
  expect(ukiFileName("2026.12.0")).toBe("keelson_2026.12.0+3.efi");
  expect(grubSlotConfig("b", "ro quiet")).toBe(
    "linux /keelson/b/vmlinuz ro quiet\ninitrd /keelson/b/microcode /keelson/b/initrd\n",
  );
  expect(slotPartitionUuids(`9116afe3e1630e97442a10b276e986ca${"0".repeat(32)}`)).toEqual({
    root: "9116afe3-e163-0e97-442a-10b276e986ca",
    verity: "00000000-0000-0000-0000-000000000000",
  });
});
