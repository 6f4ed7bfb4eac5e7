/**
 * The real installer's loop and API on disks that lsblk only claims: what the console is tested
 * against, here and by hand (`node qa/console/simulated-installer.ts SOCKET`).
 */
import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { serveUnix } from "#lib/rpc/serve.ts";
import { createInstallerApp } from "#services/installer/api.ts";
import { Board } from "#services/installer/board.ts";
import { Installer } from "#services/installer/installer.ts";
import type { Probe } from "#services/installer/schema.ts";

export const disks = [
  {
    ...{ path: "/dev/nvme0n1", type: "disk", size: 500_107_862_016, ro: false, pttype: "gpt" },
    ...{ model: "Samsung SSD 980 PRO 500GB", serial: "S5GYNG0R104531T" },
    children: [
      { path: "/dev/nvme0n1p1", type: "part", size: 2 ** 29, ro: false, fstype: "vfat" },
      { path: "/dev/nvme0n1p2", type: "part", size: 2 ** 38, ro: false, fstype: "ext4" },
    ],
  },
  { path: "/dev/sda", type: "disk", size: 2 ** 30, ro: false, model: "Small", serial: "small-1" },
  {
    ...{ path: "/dev/sdb", type: "disk", size: 8_001_563_222_016, ro: false },
    ...{ model: "ST8000NM000A-2KE101", serial: "WSD2X0AB" },
  },
  {
    ...{ path: "/dev/sdc", type: "disk", size: 2 ** 33, ro: false, fstype: "iso9660" },
    ...{ label: "KEELSON", model: "Stick" },
  },
];

export const ports = [
  { name: "enp1s0", mac: "52:54:00:00:00:01", carrier: true, addresses: ["192.0.2.57/24"] },
  { name: "enp2s0", mac: "52:54:00:00:00:02", carrier: true, addresses: [] },
  { name: "enp3s0", mac: "52:54:00:00:00:03", carrier: false, addresses: [] },
];

const media = {
  blockdevices: [
    {
      ...{ path: "/dev/sdd", size: 2 ** 34, ro: false, rm: true, hotplug: true },
      children: [
        {
          ...{ path: "/dev/sdd1", size: 2 ** 34 - 2 ** 20, ro: false, rm: true, hotplug: true },
          ...{ fstype: "vfat", label: "STICK" },
        },
      ],
    },
  ],
};

export class SimulatedInstaller extends Installer {
  probes: Probe[] = [
    { what: "Address of the LAN (enp1s0)", ok: true, result: "192.0.2.57/24" },
    { what: "Gateway 192.0.2.1", ok: true, result: "answers" },
    { what: "DNS server 192.0.2.1", ok: false, result: "does not answer" },
  ];

  override async testNetwork(): Promise<Probe[]> {
    return this.probes;
  }
}

export async function startSimulatedInstaller(socket: string) {
  const scratch = mkdtempSync(join(tmpdir(), "keelson-sim-"));
  const board = new Board({
    version: "2026.11.0",
    developmentKey: true,
    ...{ addresses: [], interfaces: [], disks: [], diskFault: null, minimumDiskBytes: 6e9 },
    ...{ ready: false, attended: false, phase: { kind: "waiting" } },
  });
  const commands: string[][] = [];
  const installer = new SimulatedInstaller({
    board,
    run: async (program, arguments_) => {
      commands.push([program, ...arguments_]);
      if (program !== "lsblk") return "";
      return arguments_.some((text) => text.includes("HOTPLUG"))
        ? JSON.stringify(media)
        : JSON.stringify({ blockdevices: disks });
    },
    image: {
      ...{ product: "keelson", version: "2026.11.0", rootHash: randomBytes(32).toString("hex") },
      ...{ rootSizeBytes: 1, veritySizeBytes: 1, minimumDiskBytes: 6e9 },
      ...{ rootPartitionUuid: "a", verityPartitionUuid: "b" },
    },
    medium: "/nonexistent/medium",
    scratch,
    place: () => undefined,
    addresses: () => ["192.0.2.57 (enp1s0)"],
    ports: () => ports,
    nowMs: () => performance.now(),
    wake: () => void installer.round(),
  });
  const listener = await serveUnix(
    createInstallerApp(installer, (error) => console.error(error)),
    socket,
  );
  await installer.round();
  return {
    installer,
    board,
    commands,
    async close() {
      await listener.close();
      rmSync(scratch, { recursive: true, force: true });
    },
  };
}

if (import.meta.main) await startSimulatedInstaller(process.argv[2]);
