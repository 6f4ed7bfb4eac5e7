import { describe, expect, test } from "vitest";
import type { MacAddress } from "#lib/model/ids.ts";
import { formatIpv4, type Ipv4, parseIpv4 } from "#lib/wire/dhcp/address.ts";
import {
  dhclientDiscover,
  edk2HttpDiscover,
  edk2PxeDiscover,
  ipxeDiscover,
} from "#lib/wire/dhcp/captured.fixture.ts";
import { type DhcpMessage, decodeMessage, messageType, typeOf } from "#lib/wire/dhcp/message.ts";
import { asciiText, optionCode, uint8, uint32 } from "#lib/wire/dhcp/options.ts";
import { type Arrival, type Decision, DhcpServer, type Reply } from "./dhcp-server.ts";
import { LeaseTable } from "./lease.ts";
import { netbootConfig } from "./schema.ts";

const ip = (text: string) => parseIpv4(text)!;
const own = ip("10.0.0.1");
const none = ip("0.0.0.0");

function decoded(bytes: Uint8Array): DhcpMessage {
  const result = decodeMessage(bytes);
  if ("malformed" in result) throw new Error(result.malformed);
  return result.message;
}

/** `message` with another type, fields, or options (undefined removes one). */
function change(
  message: DhcpMessage,
  fields: Partial<DhcpMessage>,
  options: Record<number, Uint8Array | undefined> = {},
): DhcpMessage {
  const all = new Map(message.options);
  for (const [code, value] of Object.entries(options)) {
    if (value === undefined) all.delete(Number(code));
    else all.set(Number(code), value);
  }
  return { ...message, ...fields, options: all };
}

const type = (name: keyof typeof messageType) => ({
  [optionCode.messageType]: uint8(messageType[name]),
});

function setUp(options: { mode?: "server" | "proxy"; inUse?: (ip: Ipv4) => boolean } = {}) {
  const config = netbootConfig.parse({
    generation: 1,
    interfaces: [
      {
        name: "eth0",
        mode: options.mode ?? "server",
        subnet: "10.0.0.0/24",
        pool: { first: "10.0.0.10", last: "10.0.0.12" },
        router: "10.0.0.254",
        leaseSeconds: 600,
      },
    ],
    relayed: [{ subnet: "10.9.0.0/24", pool: { first: "10.9.0.10", last: "10.9.0.20" } }],
  });
  let nowMs = 1_000_000;
  const leases = new LeaseTable(() => nowMs);
  const others: string[] = [];
  const server = new DhcpServer({
    leases,
    now: () => nowMs,
    config: () => config,
    loaders: () =>
      new Map([
        ["undionly.kpxe", new Uint8Array(9)],
        ["snponly.efi", new Uint8Array(9)],
      ]),
    httpPort: () => 80,
    commit: async (lease) => leases.put(lease),
    free: async (address) => void leases.remove(address),
    inUse: async (address) => options.inUse?.(address) ?? false,
    otherServer: (_, address) => others.push(formatIpv4(address)),
  });
  const arrival = (port: 67 | 4011 = 67): Arrival => ({
    policy: config.interfaces[0],
    address: own,
    port,
    from: { address: port === 67 ? none : ip("10.0.0.77"), port: 68 },
  });
  return {
    leases,
    others,
    handle: (message: DhcpMessage, port?: 67 | 4011) => server.handle(message, arrival(port)),
    wait: (ms: number) => {
      nowMs += ms;
    },
  };
}

function replyOf(decision: Decision): Reply {
  if ("drop" in decision) throw new Error(`dropped: ${decision.drop}`);
  return decision.reply;
}

const text = (message: DhcpMessage, code: number) =>
  asciiText(message.options.get(code) ?? new Uint8Array());

describe("server", () => {
  test("discover, request: offer and ack of one address, broadcast", async () => {
    const { handle, leases } = setUp();
    const offer = replyOf(await handle(decoded(dhclientDiscover)));
    expect(typeOf(offer.message)).toBe(messageType.offer);
    expect(offer.to).toEqual({ address: ip("255.255.255.255"), port: 68 });
    const address = offer.message.yiaddr;
    expect(leases.at(address)?.state).toBe("offered");
    const request = change(
      decoded(dhclientDiscover),
      {},
      {
        ...type("request"),
        [optionCode.requestedAddress]: uint32(address),
        [optionCode.serverIdentifier]: uint32(own),
      },
    );
    const ack = replyOf(await handle(request));
    expect(typeOf(ack.message)).toBe(messageType.ack);
    expect(ack.message.yiaddr).toBe(address);
    expect(ack.message.options.get(optionCode.leaseTime)).toEqual(uint32(600));
    expect(leases.at(address)?.state).toBe("bound");
  });

  test("an offer nobody took is free again after a minute", async () => {
    const { handle, leases, wait } = setUp();
    const offer = replyOf(await handle(decoded(dhclientDiscover)));
    wait(60_001);
    expect(leases.at(offer.message.yiaddr)).toBeUndefined();
  });

  test("renewing is unicast to the client, and extends the lease", async () => {
    const { handle, leases, wait } = setUp();
    const address = replyOf(await handle(decoded(dhclientDiscover))).message.yiaddr;
    const renew = change(decoded(dhclientDiscover), { ciaddr: address }, type("request"));
    await handle(renew);
    wait(300_000);
    const ack = replyOf(await handle(renew));
    expect(ack.to).toEqual({ address, port: 68 });
    expect(ack.message.ciaddr).toBe(address);
    expect(leases.at(address)?.expiresAtMs).toBe(1_000_000 + 300_000 + 600_000);
  });

  test.each([
    ["of another subnet", "192.168.1.5"],
    ["outside the pool", "10.0.0.99"],
    ["this node's own", "10.0.0.1"],
    ["the router's", "10.0.0.254"],
    ["the broadcast address", "10.0.0.255"],
  ])("INIT-REBOOT with an address %s: NAK", async (_, address) => {
    const { handle } = setUp();
    const request = change(
      decoded(dhclientDiscover),
      {},
      {
        ...type("request"),
        [optionCode.requestedAddress]: uint32(ip(address)),
      },
    );
    const nak = replyOf(await handle(request));
    expect(typeOf(nak.message)).toBe(messageType.nak);
    expect(nak.message.yiaddr).toBe(none);
    expect(nak.to.address).toBe(ip("255.255.255.255"));
  });

  test("a client whose lease this server lost is given its free address again", async () => {
    const { handle } = setUp();
    const request = change(decoded(dhclientDiscover), { ciaddr: ip("10.0.0.11") }, type("request"));
    expect(typeOf(replyOf(await handle(request)).message)).toBe(messageType.ack);
  });

  test("an address in use by a stranger is put aside and another is offered", async () => {
    const strangers = [ip("10.0.0.10"), ip("10.0.0.11")];
    const { handle, leases } = setUp({ inUse: (address) => strangers.includes(address) });
    const offer = replyOf(await handle(decoded(dhclientDiscover)));
    expect(formatIpv4(offer.message.yiaddr)).toBe("10.0.0.12");
    expect(leases.all().filter((lease) => lease.state === "declined").length).toBeLessThanOrEqual(
      2,
    );
  });

  test("when strangers use the whole pool, nothing is offered and the reason is named", async () => {
    const { handle } = setUp({ inUse: () => true });
    expect(await handle(decoded(dhclientDiscover))).toEqual({ drop: "pool-in-use-by-others" });
    expect(await handle(decoded(dhclientDiscover))).toEqual({ drop: "pool-exhausted" });
  });

  test("choosing another server frees our offer and names the other", async () => {
    const { handle, leases, others } = setUp();
    const address = replyOf(await handle(decoded(dhclientDiscover))).message.yiaddr;
    const request = change(
      decoded(dhclientDiscover),
      {},
      {
        ...type("request"),
        [optionCode.serverIdentifier]: uint32(ip("10.0.0.2")),
      },
    );
    expect(await handle(request)).toEqual({ drop: "chose-another-server" });
    expect(leases.at(address)).toBeUndefined();
    expect(others).toEqual(["10.0.0.2"]);
  });

  test("a client can't release or decline another's lease", async () => {
    const { handle, leases } = setUp();
    const address = replyOf(await handle(decoded(dhclientDiscover))).message.yiaddr;
    await handle(change(decoded(dhclientDiscover), { ciaddr: address }, type("request")));
    const chaddr = Uint8Array.from([2, 9, 9, 9, 9, 9, ...new Uint8Array(10)]);
    const stranger = change(decoded(dhclientDiscover), { chaddr, ciaddr: address });
    expect(await handle(change(stranger, {}, type("release")))).toEqual({
      drop: "release-not-ours",
    });
    const decline = { ...type("decline"), [optionCode.requestedAddress]: uint32(address) };
    expect(await handle(change(stranger, {}, decline))).toEqual({ drop: "decline-not-ours" });
    expect(leases.at(address)?.state).toBe("bound");
  });

  test("a relay's subnet has its own pool, and the relay is its router", async () => {
    const { handle } = setUp();
    const reply = replyOf(
      await handle(change(decoded(dhclientDiscover), { giaddr: ip("10.9.0.1") })),
    );
    expect(formatIpv4(reply.message.yiaddr)).toMatch(/^10\.9\.0\.(1\d|20)$/);
    expect(reply.message.options.get(optionCode.router)).toEqual(uint32(ip("10.9.0.1")));
    expect(reply.to).toEqual({ address: ip("10.9.0.1"), port: 67 });
  });

  test.each([
    ["a reply", { op: 2 }, {}, "not-a-request"],
    ["Infiniband", { htype: 32 }, {}, "not-ethernet"],
    ["an all-zero MAC", { chaddr: new Uint8Array(16) }, {}, "not-ethernet"],
    ["plain BOOTP", {}, { [optionCode.messageType]: undefined }, "no-message-type"],
    ["a server's message", {}, type("offer"), "not-a-client-message"],
    ["a relay of nowhere", { giaddr: ip("172.16.0.1") }, {}, "relay-of-unknown-subnet"],
    ["a request for nothing", {}, type("request"), "request-without-address"],
    ["INFORM without an address", {}, type("inform"), "inform-without-address"],
  ])("%s is dropped, with the reason", async (_, fields, options, drop) => {
    const { handle } = setUp();
    expect(await handle(change(decoded(dhclientDiscover), fields, options))).toEqual({ drop });
  });
});

describe("boot options", () => {
  const mac = "52:54:00:4b:00:01";
  const uuid = "11223344-5566-7788-99aa-bbccddeeff00";

  test.each([
    ["BIOS PXE", ipxeDiscover, "undionly.kpxe", "PXEClient"],
    ["EDK2 PXE", edk2PxeDiscover, "snponly.efi", "PXEClient"],
    ["EDK2 HTTP boot", edk2HttpDiscover, "http://10.0.0.1/loader/snponly.efi", "HTTPClient"],
  ])("server, %s: loader, class, option 97 echoed", async (_, bytes, file, vendor) => {
    const { handle } = setUp();
    const plain = { [optionCode.ipxe]: undefined, [optionCode.userClass]: undefined };
    const { message } = replyOf(await handle(change(decoded(bytes), {}, plain)));
    expect(message.file).toBe(file);
    expect(text(message, optionCode.bootFileName)).toBe(file);
    expect(text(message, optionCode.vendorClass)).toBe(vendor);
    expect(message.siaddr).toBe(own);
    expect(message.options.get(optionCode.clientMachineId)).toEqual(
      decoded(bytes).options.get(optionCode.clientMachineId),
    );
    const control = message.options.get(optionCode.vendorSpecific);
    expect(control === undefined ? undefined : [...control]).toEqual(
      vendor === "PXEClient" ? [6, 1, 8, 255] : undefined,
    );
  });

  test("iPXE gets its script's URL, and is told not to wait for proxies", async () => {
    const { handle } = setUp();
    const { message } = replyOf(await handle(decoded(ipxeDiscover)));
    expect(message.file).toBe(`http://10.0.0.1/boot.ipxe?mac=${mac}&uuid=${uuid}&arch=0`);
    expect([...message.options.get(optionCode.ipxe)!]).toEqual([0xb0, 1, 1]);
    expect(message.options.has(optionCode.vendorClass)).toBe(false);
  });

  test("an architecture without a loader still gets an address, and no boot file", async () => {
    const { handle } = setUp();
    const arm = change(
      decoded(edk2PxeDiscover),
      {},
      {
        [optionCode.clientArchitecture]: Uint8Array.of(0, 11),
      },
    );
    const { message } = replyOf(await handle(arm));
    expect(message.file).toBe("");
    expect(message.options.has(optionCode.vendorClass)).toBe(false);
  });
});

describe("proxy", () => {
  test("a PXE discover gets an offer with a boot file and no address", async () => {
    const { handle, leases } = setUp({ mode: "proxy" });
    const decision = await handle(decoded(edk2PxeDiscover));
    const { message } = replyOf(decision);
    expect(message.yiaddr).toBe(none);
    expect(message.file).toBe("snponly.efi");
    expect(message.options.has(optionCode.leaseTime)).toBe(false);
    expect(message.options.get(optionCode.serverIdentifier)).toEqual(uint32(own));
    expect(decision.sighting?.mac).toBe("52:54:00:4b:00:01" as MacAddress);
    expect(leases.all()).toEqual([]);
  });

  test("iPXE beside another server: option 60 and discovery control, else it ignores a proxy", async () => {
    const { handle } = setUp({ mode: "proxy" });
    const { message } = replyOf(await handle(decoded(ipxeDiscover)));
    expect(text(message, optionCode.vendorClass)).toBe("PXEClient");
    expect([...message.options.get(optionCode.vendorSpecific)!]).toEqual([6, 1, 8, 255]);
  });

  test("on port 4011 a request is acknowledged to where it came from", async () => {
    const { handle } = setUp({ mode: "proxy" });
    const request = change(decoded(edk2PxeDiscover), { ciaddr: ip("10.0.0.77") }, type("request"));
    const reply = replyOf(await handle(request, 4011));
    expect(typeOf(reply.message)).toBe(messageType.ack);
    expect(reply.to).toEqual({ address: ip("10.0.0.77"), port: 68 });
  });

  test.each([
    ["a client that isn't PXE", dhclientDiscover, {}, "not-a-pxe-client"],
    ["a request on port 67", edk2PxeDiscover, type("request"), "not-for-a-proxy"],
    ["a release", edk2PxeDiscover, type("release"), "not-for-a-proxy"],
    [
      "without option 93",
      edk2PxeDiscover,
      { [optionCode.clientArchitecture]: undefined },
      "not-a-pxe-client",
    ],
  ])("%s is left to the other server", async (_, bytes, options, drop) => {
    const { handle } = setUp({ mode: "proxy" });
    expect(await handle(change(decoded(bytes), {}, options))).toEqual({ drop });
  });
});
