/** isc-dhclient and hand-made messages against netboot's DHCP server. */
import { formatIpv4 } from "#lib/wire/dhcp/address.ts";
import { messageType, typeOf } from "#lib/wire/dhcp/message.ts";
import { optionCode } from "#lib/wire/dhcp/options.ts";
import { address, ask, clientMessage, dhclient, exchange, ip4 } from "./dhcp-client.ts";
import { eventually, expectEqual, expectMatch, expectTrue } from "./expect.ts";
import { netbootNode, nodeAddress, serverPolicy } from "./netboot-node.ts";
import type { Suite } from "./suite.ts";

interface LeaseLine {
  readonly ip: string;
  readonly mac: string;
  readonly state: string;
}

const bound = /script: (?:BOUND|REBOOT) (\S+)/;
const noOther = ["--no-tftp", "--no-http"];

export const dhcp: Suite = {
  name: "dhcp",
  summary: "isc-dhclient and malformed packets against netboot's DHCP server",
  needs: ["dhclient"],
  async run(lab) {
    const segment = await lab.segment();
    let node = await netbootNode(lab, segment, { args: noOther, policy: serverPolicy });
    const leases = () => node.get<LeaseLine[]>("/v1/leases");
    const policy = (change: object, generation: number) => ({
      ...serverPolicy,
      generation,
      interfaces: [{ ...serverPolicy.interfaces[0], ...change }],
    });

    // Runs beside the other tests: with a lease of 60 s it renews after 30.
    await node.put("/v1/config", policy({ leaseSeconds: 60 }, 2));
    const renewing = dhclient(lab, await segment.host("renewing"));

    await lab.test("dhclient gets an address of the pool with router, DNS and domain", async () => {
      const [, ip] = await renewing.program.waitFor(bound, 15_000);
      expectTrue(/^10\.77\.0\.1[0-4]\d$/.test(ip), `${ip} is not of the pool`);
      const told = renewing.environment("BOUND");
      expectEqual(told.new_subnet_mask, "255.255.255.0", "mask");
      expectEqual(told.new_routers, nodeAddress, "router");
      expectEqual(told.new_domain_name_servers, "10.77.0.53", "DNS");
      expectEqual(told.new_domain_name, "lab.test", "domain");
      expectEqual(told.new_dhcp_lease_time, "60", "lease time");
      expectEqual(told.new_dhcp_renewal_time, "30", "T1");
      expectEqual(told.new_dhcp_rebinding_time, "52", "T2");
      expectTrue(
        (await leases()).some((lease) => lease.ip === ip && lease.state === "bound"),
        "the lease is not listed",
      );
    });
    await node.put("/v1/config", policy({}, 3));

    await lab.test("a client that comes back with its lease file keeps its address", async () => {
      const host = await segment.host("back");
      const first = dhclient(lab, host);
      const [, ip] = await first.program.waitFor(bound, 15_000);
      await first.program.kill();
      const again = dhclient(lab, host, { leaseFile: first.leaseFile });
      const [, second] = await again.program.waitFor(bound, 15_000);
      expectEqual(second, ip, "address after INIT-REBOOT");
    });

    await lab.test("dhclient -r gives the address back", async () => {
      const host = await segment.host("release");
      const client = dhclient(lab, host);
      const [, ip] = await client.program.waitFor(bound, 15_000);
      const { leaseFile, pidFile } = client;
      const end = dhclient(lab, host, { leaseFile, pidFile, args: ["-r"] });
      await end.program.exited;
      await eventually(
        leases,
        (all) => !all.some((lease) => lease.ip === ip),
        `the lease after ${end.program.output}`,
      );
    });

    await lab.test("leases survive kill -9 and a restart", async () => {
      const before = (await leases()).filter((lease) => lease.state === "bound");
      expectTrue(before.length >= 2, "two leases at least");
      await node.service.program.kill();
      node = await netbootNode(lab, segment, {
        args: noOther,
        state: node.service.state,
        host: node.host,
      });
      expectEqual(await leases(), before, "leases after the restart");
    });

    await lab.test("a reservation is kept for its MAC", async () => {
      const reservations = [{ mac: "02:00:00:00:00:42", ip: "10.77.0.42", hostname: "answer" }];
      await node.put("/v1/config", { ...policy({}, 4), reservations });
      const client = dhclient(lab, await segment.host("reserved", undefined, "02:00:00:00:00:42"));
      const [, ip] = await client.program.waitFor(bound, 15_000);
      expectEqual(ip, "10.77.0.42", "address");
      expectEqual(client.environment("BOUND").new_host_name, "answer", "host name");
    });

    await lab.test("an address that a stranger uses is not offered", async () => {
      const squatter = await segment.host("squatter", "10.77.0.60/24");
      await squatter.ip("addr", "add", "10.77.0.61/24", "dev", "eth0");
      const pool = { first: "10.77.0.60", last: "10.77.0.62" };
      await node.put("/v1/config", policy({ pool }, 5));
      // This MAC's first choice is .60: both of the squatter's addresses are tried before .62.
      const host = await segment.host("careful", undefined, "02:00:00:00:03:03");
      const client = dhclient(lab, host);
      const [, ip] = await client.program.waitFor(bound, 40_000);
      expectEqual(ip, "10.77.0.62", "the only free address");
      const declined = (await leases()).filter((lease) => lease.state === "declined");
      expectEqual(
        declined.map((lease) => lease.ip),
        ["10.77.0.60", "10.77.0.61"],
        "addresses put aside",
      );
    });

    const raw = await segment.host("raw");
    await node.put("/v1/config", policy({}, 6));

    await lab.test("DECLINE takes the address out of the pool", async () => {
      const mac = "02:00:00:00:01:01";
      const offer = await ask(raw, { type: "discover", mac });
      const ip = offer!.yiaddr;
      const request = [[optionCode.requestedAddress, ip4(formatIpv4(ip))]] as const;
      const ours = [optionCode.serverIdentifier, ip4(nodeAddress)] as const;
      const ack = await ask(raw, { type: "request", mac, options: [...request, ours] });
      expectEqual(typeOf(ack!), messageType.ack, "reply to REQUEST");
      await ask(raw, { type: "decline", mac, options: [...request, ours] }, { waitMs: 300 });
      const next = await ask(raw, { type: "discover", mac, options: request });
      expectTrue(next!.yiaddr !== ip, `${formatIpv4(ip)} was offered again`);
    });

    await lab.test("a wrong address is refused with NAK, broadcast", async () => {
      const mac = "02:00:00:00:01:02";
      const options = [[optionCode.requestedAddress, ip4("192.168.7.7")]] as const;
      const nak = await ask(raw, { type: "request", mac, options });
      expectEqual(typeOf(nak!), messageType.nak, "reply");
    });

    await lab.test(
      "a request to another server is left to it, and names it in status",
      async () => {
        const mac = "02:00:00:00:01:03";
        const options = [
          [optionCode.requestedAddress, ip4("10.77.0.120")],
          [optionCode.serverIdentifier, ip4("10.77.0.254")],
        ] as const;
        expectEqual(
          await ask(raw, { type: "request", mac, options }, { waitMs: 700 }),
          undefined,
          "reply",
        );
        const status = await node.get<{ interfaces: { otherServers: string[] }[] }>("/v1/status");
        expectEqual(status.interfaces[0].otherServers, ["10.77.0.254"], "other servers");
      },
    );

    await lab.test("through a relay: reply to giaddr:67 with option 82 as it was", async () => {
      const relay = await segment.host("relay", "10.77.0.9/24");
      const information = Uint8Array.from([1, 4, 9, 9, 9, 9, 2, 3, 1, 2, 3]);
      const reply = await ask(
        relay,
        {
          type: "discover",
          mac: "02:00:00:00:01:04",
          giaddr: "10.77.0.9",
          options: [[optionCode.relayAgent, information]],
        },
        { to: nodeAddress, port: 67 },
      );
      expectEqual(typeOf(reply!), messageType.offer, "reply");
      expectEqual([...reply!.options.get(optionCode.relayAgent)!], [...information], "option 82");
    });

    await lab.test("a relay of another subnet is served from that subnet's pool", async () => {
      const relay = await segment.host("far-relay", "10.77.0.8/24");
      await relay.ip("addr", "add", "10.78.0.1/24", "dev", "eth0");
      await node.host.ip("route", "add", "10.78.0.0/24", "via", "10.77.0.8");
      const relayed = [
        { subnet: "10.78.0.0/24", pool: { first: "10.78.0.10", last: "10.78.0.20" } },
      ];
      await node.put("/v1/config", { ...policy({}, 7), relayed });
      const mac = "02:00:00:00:01:05";
      const reply = await ask(
        relay,
        { type: "discover", mac, giaddr: "10.78.0.1" },
        { to: nodeAddress, port: 67 },
      );
      expectTrue(formatIpv4(reply!.yiaddr).startsWith("10.78.0."), formatIpv4(reply!.yiaddr));
      expectEqual([...reply!.options.get(optionCode.router)!], [10, 78, 0, 1], "router");
    });

    await lab.test("INFORM is answered without a lease", async () => {
      const host = await segment.host("inform", "10.77.0.77/24");
      const reply = await ask(
        host,
        { type: "inform", mac: "02:00:00:00:01:06", ciaddr: "10.77.0.77" },
        { to: nodeAddress },
      );
      expectEqual(typeOf(reply!), messageType.ack, "reply");
      expectEqual(reply!.yiaddr, address("0.0.0.0"), "yiaddr");
      expectEqual(reply!.options.has(optionCode.leaseTime), false, "lease time");
    });

    await lab.test(
      "2000 malformed packets: counted by reason, and the next lease is given",
      async () => {
        const before = (await node.counters())["dhcp.received"] ?? 0;
        const whole = clientMessage({ type: "discover", mac: "02:00:00:00:01:07" });
        const send = Array.from({ length: 2000 }, (_, index) => {
          const bytes = Uint8Array.from(whole);
          // A walk over the packet: bytes turned, the end cut, so that each field is hit.
          bytes[(index * 7) % bytes.length] ^= 1 + (index % 255);
          bytes[236 + ((index * 13) % 64)] ^= index % 256;
          const cut = bytes.subarray(
            0,
            index % 3 === 0 ? (index * 11) % bytes.length : bytes.length,
          );
          return { hex: Buffer.from(cut).toString("hex"), to: "255.255.255.255", port: 67 };
        });
        for (let at = 0; at < send.length; at += 100) {
          await exchange(raw, {
            port: 68,
            interface: "eth0",
            send: send.slice(at, at + 100),
            replies: 1000,
            waitMs: 50,
          });
        }
        const counters = await eventually(
          () => node.counters(),
          (now) => (now["dhcp.received"] ?? 0) - before >= 1900,
          "packets counted",
        );
        expectTrue((counters["dhcp.malformed.too-short"] ?? 0) > 100, "too-short is counted");
        expectTrue(
          (counters["dhcp.malformed.no-magic-cookie"] ?? 0) > 0,
          "no-magic-cookie is counted",
        );
        expectTrue((counters["dhcp.truncated-options"] ?? 0) > 0, "truncated options are counted");
        const client = dhclient(lab, await segment.host("after"));
        await client.program.waitFor(bound, 20_000);
      },
    );

    await lab.test("dhclient renews by itself before T2, at the same address", async () => {
      const [, ip] = bound.exec(renewing.program.output)!;
      const [, renewed] = await renewing.program.waitFor(/script: RENEW (\S+)/, 45_000);
      expectEqual(renewed, ip, "address");
    });

    await lab.test("without the addon one interface is served by plain sockets", async () => {
      const other = await lab.segment();
      await netbootNode(lab, other, {
        args: noOther,
        policy: serverPolicy,
        env: { KEELSON_NO_NATIVE: "1" },
      });
      const client = dhclient(lab, await other.host("client"));
      await client.program.waitFor(bound, 20_000);
    });

    await lab.test("two interfaces: each client gets an address of its own segment", async () => {
      const [left, right] = [await lab.segment(), await lab.segment()];
      const host = await left.host("node", "10.77.0.1/24");
      await right.attach(host, "eth1");
      await host.ip("addr", "add", "10.79.0.1/24", "dev", "eth1");
      const second = {
        ...serverPolicy.interfaces[0],
        name: "eth1",
        subnet: "10.79.0.0/24",
        pool: { first: "10.79.0.100", last: "10.79.0.149" },
        router: "10.79.0.1",
      };
      const both = { generation: 1, interfaces: [serverPolicy.interfaces[0], second] };
      await netbootNode(lab, left, { args: noOther, policy: both, host });
      const clients = [left, right].map(async (side) =>
        dhclient(lab, await side.host("client")).program.waitFor(bound, 20_000),
      );
      const [a, b] = await Promise.all(clients);
      expectMatch(a[1], /^10\.77\.0\./, "left");
      expectMatch(b[1], /^10\.79\.0\./, "right");
    });
  },
};
