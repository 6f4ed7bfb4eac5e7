/** Real firmware against netboot, up to the boot script: BIOS and UEFI, server and proxy. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { bootAnswers } from "./boot-answers.ts";
import { expectEqual, expectMatch, expectTrue } from "./expect.ts";
import { type Firmware, startGuest } from "./guest.ts";
import { type Namespace, type Segment, waitForSocket } from "./lab.ts";
import { type NetbootNode, netbootNode, nodeAddress, serverPolicy } from "./netboot-node.ts";
import type { Suite } from "./suite.ts";

/** What a client's console must show at the end: the answer's message, through the script. */
const message = "The lab says: register me";

/** Emulated firmware is slow; Debian 12's iPXE ROM needs 20 s on an idle machine. */
const patienceMs = 300_000;

interface ClientLine {
  readonly mac: string;
  readonly uuid?: string;
  readonly arch?: number;
  readonly ip?: string;
  readonly stage: string;
  readonly stages: Record<string, string>;
  readonly action?: string;
}

export const proxyPolicy = { generation: 1, interfaces: [{ name: "eth0", mode: "proxy" }] };

/** dnsmasq as the segment's DHCP server, knowing nothing of network boot. */
export async function dnsmasq(segment: Segment): Promise<Namespace> {
  const host = await segment.host("dnsmasq", "10.77.0.2/24");
  const program = host.spawn("dnsmasq", [
    ...["--no-daemon", "--conf-file=/dev/null", "--port=0", "--interface=eth0"],
    ...["--bind-interfaces", "--dhcp-range=10.77.0.200,10.77.0.220,1h", "--log-dhcp"],
    ...["--dhcp-leasefile=/dev/null", "--dhcp-authoritative", "--user=root"],
  ]);
  await program.waitFor(/DHCP, IP range/, 10_000);
  return host;
}

export const pxe: Suite = {
  name: "pxe",
  summary: "iPXE, OVMF PXE and OVMF HTTP boot up to the script, in server and proxy mode",
  needs: ["qemu-system-x86_64", "dnsmasq"],
  async run(lab) {
    let serial = 0x10;

    /** Boots a guest until its console shows the message, and checks what netboot saw of it. */
    const boots = async (
      segment: Segment,
      node: NetbootNode,
      firmware: Firmware,
      wanted: { readonly arch: readonly number[]; readonly stages: readonly string[] },
    ): Promise<string> => {
      const tail = (serial++).toString(16);
      const mac = `52:54:00:4b:00:${tail}`;
      const uuid = `11223344-5566-7788-99aa-bbccddee00${tail}`;
      const guest = await startGuest(lab, segment, { firmware, mac, uuid });
      await guest.program.waitFor(/The lab says: register me/, patienceMs);
      expectMatch(guest.program.output, new RegExp(`MAC address: ${mac}`), "the console");
      await guest.program.kill();
      const clients = await node.get<ClientLine[]>("/v1/clients");
      const client = clients.find((line) => line.mac === mac);
      expectTrue(client !== undefined, `netboot lists no ${mac}`);
      expectEqual(client!.uuid, uuid, "UUID");
      expectEqual(client!.action, "unknown", "action");
      expectTrue(wanted.arch.includes(client!.arch ?? -1), `architecture ${client!.arch}`);
      expectEqual(Object.keys(client!.stages).sort(), [...wanted.stages].sort(), "stages");
      return mac;
    };

    const answers = await bootAnswers(lab, { action: "unknown", message });
    const args = ["--api-run", answers.folder];
    await waitForSocket(join(answers.folder, "internal.sock"), 5000);

    const segment = await lab.segment();
    const node = await netbootNode(lab, segment, { args, policy: serverPolicy });

    await lab.test("server: QEMU's iPXE ROM gets the script", async () => {
      const mac = await boots(segment, node, "ipxe-rom", { arch: [0], stages: ["dhcp", "script"] });
      const seen = answers.reports.filter((report) => report.mac === mac);
      expectEqual(
        seen.map((report) => report.stage),
        ["dhcp", "script"],
        "reports to api",
      );
    });

    await lab.test("server: a BIOS PXE client chain-loads undionly.kpxe", async () => {
      const script = join(lab.directory("chain"), "chain.ipxe");
      writeFileSync(script, `#!ipxe\ndhcp\nchain tftp://${nodeAddress}/undionly.kpxe\n`);
      const firmware = { lkrn: "/usr/lib/ipxe/ipxe.lkrn", script };
      await boots(segment, node, firmware, { arch: [0], stages: ["dhcp", "loader", "script"] });
    });

    await lab.test("server: OVMF's PXE stack loads iPXE by TFTP", async () => {
      const mac = await boots(segment, node, "uefi-pxe", {
        arch: [7, 9],
        stages: ["dhcp", "loader", "script"],
      });
      const seen = answers.reports.filter((report) => report.mac === mac);
      expectEqual(
        seen.map((report) => report.stage),
        ["dhcp", "loader", "script"],
        "reports to api",
      );
    });

    await lab.test("server: OVMF's HTTP boot loads iPXE by URL", async () => {
      await boots(segment, node, "uefi-http", {
        arch: [7, 9, 16],
        stages: ["dhcp", "loader", "script"],
      });
    });

    const shared = await lab.segment();
    await dnsmasq(shared);
    const proxy = await netbootNode(lab, shared, { args, policy: proxyPolicy });

    await lab.test("proxy beside dnsmasq: QEMU's iPXE ROM gets the script", async () => {
      await boots(shared, proxy, "ipxe-rom", { arch: [0], stages: ["dhcp", "script"] });
      expectEqual(await proxy.get("/v1/leases"), [], "leases of a proxy");
      const status = await proxy.get<{ interfaces: { otherServers: string[] }[] }>("/v1/status");
      expectEqual(status.interfaces[0].otherServers, ["10.77.0.2"], "other servers in status");
    });

    await lab.test("proxy beside dnsmasq: OVMF's PXE stack loads iPXE by TFTP", async () => {
      await boots(shared, proxy, "uefi-pxe", {
        arch: [7, 9],
        stages: ["dhcp", "loader", "script"],
      });
    });

    await lab.test("proxy beside dnsmasq: OVMF's HTTP boot loads iPXE by URL", async () => {
      await boots(shared, proxy, "uefi-http", {
        arch: [7, 9, 16],
        stages: ["dhcp", "loader", "script"],
      });
    });
  },
};
