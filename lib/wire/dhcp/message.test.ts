import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { formatIpv4, type Ipv4, isHost, parseIpv4, parseSubnet } from "./address.ts";
import {
  dhclientDiscover,
  edk2HttpDiscover,
  edk2PxeDiscover,
  ipxeDiscover,
} from "./captured.fixture.ts";
import {
  bootReply,
  type DhcpMessage,
  decodeMessage,
  encodeMessage,
  macOf,
  messageType,
  replyTo,
  typeOf,
} from "./message.ts";
import { asciiText, formatOptions, optionCode, parseOptions } from "./options.ts";
import { pxeClientOf, pxeVendorOptions, userClasses, uuidOf } from "./pxe.ts";

function decoded(bytes: Uint8Array): DhcpMessage {
  const result = decodeMessage(bytes);
  if ("malformed" in result) throw new Error(result.malformed);
  return result.message;
}

const uuid = "11223344-5566-7788-99aa-bbccddeeff00";

describe("captured messages", () => {
  test.each([
    ["iPXE ROM", ipxeDiscover, { arch: 0, vendor: "PXEClient", ipxe: true, uuid }],
    ["EDK2 PXE", edk2PxeDiscover, { arch: 7, vendor: "PXEClient", ipxe: false, uuid }],
    ["EDK2 HTTP boot", edk2HttpDiscover, { arch: 16, vendor: "HTTPClient", ipxe: false, uuid }],
  ] as const)("%s: who it is", (_, bytes, wanted) => {
    const message = decoded(bytes);
    expect(typeOf(message)).toBe(messageType.discover);
    expect(macOf(message)).toBe("52:54:00:4b:00:01");
    expect(pxeClientOf(message)).toMatchObject(wanted);
  });

  test("dhclient is no PXE client", () => {
    const message = decoded(dhclientDiscover);
    expect(macOf(message)).toBe("52:54:00:4b:00:04");
    expect(pxeClientOf(message)).toBeUndefined();
  });

  test("each option is read to its end, and written again byte for byte", () => {
    for (const bytes of [ipxeDiscover, edk2PxeDiscover, edk2HttpDiscover]) {
      const result = decodeMessage(bytes);
      expect(result).toMatchObject({ truncatedOptions: false });
      const again = encodeMessage(decoded(bytes));
      expect(Buffer.from(again.subarray(0, bytes.length)).equals(Buffer.from(bytes))).toBe(true);
    }
  });

  test("iPXE's bare option 77, which breaks RFC 3004, names iPXE", () => {
    const message = decoded(ipxeDiscover);
    const bare = message.options.get(optionCode.userClass)!;
    expect(asciiText(bare)).toBe("iPXE");
    expect(userClasses(bare)).toEqual(["iPXE"]);
    const without = new Map(message.options);
    without.delete(optionCode.ipxe);
    expect(pxeClientOf({ ...message, options: without })?.ipxe).toBe(true);
  });
});

describe("decoding", () => {
  test.each([
    ["an empty datagram", new Uint8Array(), "too-short"],
    ["a header cut before the cookie", ipxeDiscover.subarray(0, 239), "too-short"],
    [
      "BOOTP without the cookie",
      ipxeDiscover.map((byte, i) => (i === 236 ? 0 : byte)),
      "no-magic-cookie",
    ],
    ["an unknown op", ipxeDiscover.map((byte, i) => (i === 0 ? 3 : byte)), "bad-op"],
    [
      "a hardware address of 17 bytes",
      ipxeDiscover.map((byte, i) => (i === 2 ? 17 : byte)),
      "bad-hardware-length",
    ],
  ])("%s: the reason", (_, bytes, reason) => {
    expect(decodeMessage(bytes)).toEqual({ malformed: reason });
  });

  test("an option longer than the packet loses itself, not what came before", () => {
    const cut = ipxeDiscover.subarray(0, 250);
    const result = decodeMessage(cut);
    expect(result).toMatchObject({ truncatedOptions: true });
    expect(typeOf(decoded(cut))).toBe(messageType.discover);
  });

  test("option 52 brings options out of file and sname, file first", () => {
    const bytes = Uint8Array.from(dhclientDiscover);
    bytes.set([52, 1, 3, 255], 240 + 3);
    bytes.set([12, 2, 0x61, 0x62, 255], 108);
    bytes.set([12, 1, 0x63, 255], 44);
    const message = decoded(bytes);
    expect(asciiText(message.options.get(optionCode.hostName)!)).toBe("abc");
    expect(message.file).toBe("");
  });

  test("any bytes survive", () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ maxLength: 700 }),
        fc.uint8Array({ maxLength: 300 }),
        fc.boolean(),
        (noise, tail, framed) => {
          const bytes = framed
            ? Uint8Array.from([...ipxeDiscover.subarray(0, 240), ...tail])
            : noise;
          const result = decodeMessage(bytes);
          if ("malformed" in result) return;
          pxeClientOf(result.message);
          macOf(result.message);
          pxeVendorOptions(result.message);
        },
      ),
      { numRuns: 3000 },
    );
  });
});

describe("encoding", () => {
  const address = fc.integer({ min: 0, max: 0xffffffff }).map((value) => value as Ipv4);
  const message = fc.record({
    op: fc.constantFrom(1, 2),
    htype: fc.integer({ min: 0, max: 255 }),
    hlen: fc.integer({ min: 0, max: 16 }),
    hops: fc.integer({ min: 0, max: 255 }),
    xid: fc.integer({ min: 0, max: 0xffffffff }),
    secs: fc.integer({ min: 0, max: 65_535 }),
    flags: fc.integer({ min: 0, max: 65_535 }),
    ciaddr: address,
    yiaddr: address,
    siaddr: address,
    giaddr: address,
    chaddr: fc.uint8Array({ minLength: 16, maxLength: 16 }),
    sname: fc.stringMatching(/^[ -~]{0,63}$/),
    file: fc.stringMatching(/^[ -~]{0,127}$/),
    options: fc
      .array(
        fc.tuple(
          fc.integer({ min: 1, max: 254 }).filter((code) => code !== optionCode.overload),
          fc.uint8Array({ maxLength: 700 }),
        ),
        { maxLength: 8 },
      )
      .map((entries) => new Map(entries)),
  });

  test("what is written is read back, long options and all (RFC 3396)", () => {
    fc.assert(
      fc.property(message, (value) => {
        const back = decoded(encodeMessage(value));
        expect({ ...back, options: undefined }).toEqual({ ...value, options: undefined });
        expect(new Map([...back.options].sort())).toEqual(new Map([...value.options].sort()));
      }),
      { numRuns: 500 },
    );
  });

  test("a reply has BOOTP's least size, the client's ids, and option 82 last", () => {
    const request = decoded(ipxeDiscover);
    const relayed = {
      ...request,
      giaddr: parseIpv4("10.0.0.9")!,
      options: new Map([[optionCode.relayAgent as number, Uint8Array.of(1, 1, 7)]]),
    };
    const bytes = encodeMessage(replyTo(relayed, new Map([[53, Uint8Array.of(2)]])));
    expect(bytes.length).toBe(300);
    const reply = decoded(bytes);
    expect(reply.op).toBe(bootReply);
    expect(reply.xid).toBe(request.xid);
    expect(formatIpv4(reply.giaddr)).toBe("10.0.0.9");
    expect(Buffer.from(bytes.subarray(240, 249)).toString("hex")).toBe("3501025203010107ff");
  });

  test("a file name of 128 characters is refused, never cut", () => {
    expect(() => encodeMessage({ ...decoded(ipxeDiscover), file: "a".repeat(128) })).toThrow(
      RangeError,
    );
  });

  test("an option of 256 bytes is two", () => {
    const bytes = formatOptions(new Map([[43, new Uint8Array(256).fill(7)]]));
    expect([bytes[0], bytes[1], bytes[257], bytes[258]]).toEqual([43, 255, 43, 1]);
    expect(parseOptions(bytes).options.get(43)).toEqual(new Uint8Array(256).fill(7));
  });
});

describe("PXE fields", () => {
  test.each([
    ["too short", "00112233", undefined],
    ["another type", `01${"11".repeat(16)}`, undefined],
    ["all zeros: the board has none", `00${"00".repeat(16)}`, undefined],
    ["all ones: the board has none", `00${"ff".repeat(16)}`, undefined],
    ["mixed-endian as SMBIOS", "0044332211665588 7799aabbccddeeff00".replace(" ", ""), uuid],
  ])("UUID, %s", (_, hex, wanted) => {
    expect(uuidOf(Uint8Array.from(Buffer.from(hex, "hex")))).toBe(wanted);
  });

  test.each(["vendorClass", "clientArchitecture", "clientInterface"] as const)(
    "without %s it is not taken for a PXE client",
    (name) => {
      const message = decoded(edk2PxeDiscover);
      const options = new Map(message.options);
      options.delete(optionCode[name]);
      expect(pxeClientOf({ ...message, options })).toBeUndefined();
    },
  );

  test("user classes as RFC 3004 writes them", () => {
    const bytes = Uint8Array.from([4, 0x69, 0x50, 0x58, 0x45, 2, 0x61, 0x62]);
    expect(userClasses(bytes)).toEqual(["iPXE", "ab"]);
  });

  test("option 43 says discovery control 8, and echoes a boot item", () => {
    const message = decoded(edk2PxeDiscover);
    expect([...pxeVendorOptions(message)]).toEqual([6, 1, 8, 255]);
    const options = new Map(message.options).set(43, Uint8Array.of(71, 4, 0, 0, 0, 0, 255));
    const inner = [6, 1, 8, 71, 4, 0, 0, 0, 0, 255];
    expect([...pxeVendorOptions({ ...message, options })]).toEqual(inner);
  });
});

describe("addresses", () => {
  test.each(["", "1.2.3", "1.2.3.4.5", "256.1.1.1", "01.2.3.4", "1.2.3.4 ", "a.b.c.d"])(
    "'%s' is not one",
    (text) => {
      expect(parseIpv4(text)).toBeUndefined();
    },
  );

  test("every number is written and read back", () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 0xffffffff }), (value) => {
        expect(parseIpv4(formatIpv4(value as Ipv4))).toBe(value);
      }),
    );
  });

  test("network and broadcast addresses are no hosts", () => {
    const subnet = parseSubnet("10.0.0.77/30")!;
    const hosts = ["10.0.0.75", "10.0.0.76", "10.0.0.77", "10.0.0.78", "10.0.0.79"];
    expect(hosts.filter((ip) => isHost(subnet, parseIpv4(ip)!))).toEqual([
      "10.0.0.77",
      "10.0.0.78",
    ]);
    expect(parseSubnet("10.0.0.0/33")).toBeUndefined();
    expect(parseSubnet("10.0.0.0/0")).toBeUndefined();
  });
});
