import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { defaultParameters, negotiate, rules } from "./negotiation.ts";
import {
  formatBinary,
  formatText,
  maxTextBytes,
  parseBinary,
  parseNumber,
  parseText,
} from "./text.ts";

const latin1 = (text: string) => Buffer.from(text, "latin1");

describe("text", () => {
  test("pairs come back as they went", () => {
    const pairs: [string, string][] = [
      ["InitiatorName", "iqn.2026-11.org.example:a"],
      ["AuthMethod", "CHAP,None"],
      ["X-empty", ""],
      ["Equals", "a=b"],
    ];
    const parsed = parseText(formatText(pairs));
    expect(parsed).toEqual({ ok: true, pairs: new Map(pairs) });
  });

  test.each([
    ["a key without a value", "Key\0", "noEquals"],
    ["no key", "=value\0", "badKey"],
    ["a space in a key", "a b=c\0", "badKey"],
    ["a key of 64 bytes", `${"k".repeat(64)}=v\0`, "badKey"],
    ["a key twice", "a=1\0a=2\0", "repeatedKey"],
    ["no end", "a=1", "unterminated"],
  ])("%s is refused", (_name, text, fault) => {
    expect(parseText(latin1(text))).toEqual({ ok: false, fault });
  });

  test("more text than fits is refused; zeros between pairs are not", () => {
    expect(parseText(new Uint8Array(maxTextBytes + 1)).ok).toBe(false);
    expect(parseText(latin1("a=1\0\0\0b=2\0\0"))).toEqual({
      ok: true,
      pairs: new Map([
        ["a", "1"],
        ["b", "2"],
      ]),
    });
    expect(parseText(new Uint8Array(0))).toEqual({ ok: true, pairs: new Map() });
  });

  test("any bytes survive the parser", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 512 }), (bytes) => {
        const parsed = parseText(bytes);
        if (parsed.ok) expect(parseText(formatText(parsed.pairs))).toEqual(parsed);
      }),
    );
  });
});

describe("binary values", () => {
  test("hex and base64 are the same", () => {
    expect([...parseBinary("0x0aFf")!]).toEqual([0x0a, 0xff]);
    expect([...parseBinary("0bCv8=")!]).toEqual([0x0a, 0xff]);
    expect([...parseBinary("0xaff")!]).toEqual([0x0a, 0xff]);
  });

  test.each(["", "0x", "0xzz", "0b", "abcd", "0b!!"])("%s is unreadable", (text) => {
    expect(parseBinary(text)).toBeUndefined();
  });

  test("every value comes back", () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 1, maxLength: 64 }), (bytes) => {
        expect([...parseBinary(formatBinary(bytes))!]).toEqual([...bytes]);
      }),
    );
  });

  test("numbers stay in their range", () => {
    expect(parseNumber("8192", 512, 65536)).toBe(8192);
    expect(parseNumber("0x2000", 512, 65536)).toBe(8192);
    expect(parseNumber("511", 512, 65536)).toBeUndefined();
    expect(parseNumber("65537", 512, 65536)).toBeUndefined();
    for (const text of ["", "-1", "1.5", "1e3", " 1", "0x", "99999999999"]) {
      expect(parseNumber(text, 0, 2 ** 40)).toBeUndefined();
    }
  });
});

describe("negotiation (RFC 7143 section 13)", () => {
  test.each([
    ["HeaderDigest", "None", "None"],
    ["HeaderDigest", "CRC32C,None", "CRC32C"],
    ["HeaderDigest", "X,None", "None"],
    ["HeaderDigest", "X", "Reject"],
    ["MaxConnections", "8", "1"],
    ["InitialR2T", "Yes", "Yes"],
    ["InitialR2T", "No", "No"],
    ["InitialR2T", "no", "Reject"],
    ["ImmediateData", "No", "No"],
    ["ImmediateData", "Yes", "Yes"],
    ["MaxBurstLength", "16776192", "1048576"],
    ["MaxBurstLength", "512", "512"],
    ["MaxBurstLength", "511", "Reject"],
    ["MaxBurstLength", "x", "Reject"],
    ["FirstBurstLength", "65536", "65536"],
    ["DefaultTime2Wait", "2", "2"],
    ["DefaultTime2Retain", "20", "0"],
    ["MaxOutstandingR2T", "16", "1"],
    ["DataPDUInOrder", "No", "Yes"],
    ["DataSequenceInOrder", "No", "Yes"],
    ["ErrorRecoveryLevel", "2", "0"],
    ["IFMarker", "Yes", "No"],
    ["OFMarkInt", "2048~8192", "Irrelevant"],
    ["TaskReporting", "FastAbort,RFC3720", "RFC3720"],
    ["iSCSIProtocolLevel", "2", "1"],
    ["X-com.example.thing", "1", "NotUnderstood"],
  ])("%s=%s is answered %s", (key, value, answer) => {
    expect(negotiate(key, value, defaultParameters()).answer).toBe(answer);
  });

  test("what is declared, or names somebody, is not answered", () => {
    for (const key of ["MaxRecvDataSegmentLength", "InitiatorAlias", "SessionType"]) {
      expect(negotiate(key, "8192", defaultParameters())).toEqual({ ok: true, answer: undefined });
    }
  });

  test("what is agreed is kept; what is rejected is not", () => {
    const parameters = defaultParameters();
    negotiate("MaxRecvDataSegmentLength", "65536", parameters);
    negotiate("MaxBurstLength", "131072", parameters);
    negotiate("FirstBurstLength", "nonsense", parameters);
    negotiate("DataDigest", "CRC32C", parameters);
    negotiate("InitialR2T", "No", parameters);
    negotiate("ImmediateData", "No", parameters);
    expect(parameters).toEqual({
      ...defaultParameters(),
      maxSendDataSegmentBytes: 65536,
      maxBurstBytes: 131072,
      dataDigest: true,
      initialR2T: false,
      immediateData: false,
    });
  });

  test("any value of any key leaves usable parameters", () => {
    const keys = [...rules.keys(), "IFMarkInt", "Unknown"];
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.constantFrom(...keys), fc.string())), (offers) => {
        const parameters = defaultParameters();
        for (const [key, value] of offers) negotiate(key, value, parameters);
        expect(parameters.maxBurstBytes).toBeGreaterThanOrEqual(512);
        expect(parameters.maxSendDataSegmentBytes).toBeGreaterThanOrEqual(512);
        expect(parameters.firstBurstBytes).toBeGreaterThanOrEqual(512);
      }),
    );
  });
});
