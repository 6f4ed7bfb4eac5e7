/**
 * The whole chain with the real services: a BIOS client's iPXE asks DHCP, gets its script from api
 * through netboot, logs in by CHAP at iscsi-target and boots a disk that lives in chunk-store.
 */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import type { BootEntry, Client, Image, Volume } from "#services/api/schema.ts";
import { eventually, expectEqual, expectMatch, expectTrue } from "./expect.ts";
import { startGuest } from "./guest.ts";
import { keelsonNode } from "./node.ts";
import type { Suite } from "./suite.ts";

const patienceMs = 300_000;
const sign = "KEELSON-LAB-BOOT";

/** A boot sector that writes `sign` to COM1 and halts; the rest of the 16 MiB disk is empty. */
function bootDisk(): Buffer {
  const disk = Buffer.alloc(16 << 20);
  const code = [
    ...[0x31, 0xc0], // xor ax, ax
    ...[0x8e, 0xd8], // mov ds, ax
    ...[0xbe, 0x20, 0x7c], // mov si, text
    0xac, // next: lodsb
    ...[0x84, 0xc0, 0x74, 0x11], // test al, al; jz halt
    ...[0x88, 0xc4], // mov ah, al
    ...[0xba, 0xfd, 0x03], // mov dx, COM1 line status
    ...[0xec, 0xa8, 0x20, 0x74, 0xfb], // wait: in al, dx; test al, 20h; jz wait
    ...[0xb2, 0xf8, 0x88, 0xe0, 0xee], // mov dl, 0f8h; mov al, ah; out dx, al
    ...[0xeb, 0xea], // jmp next
    ...[0xf4, 0xeb, 0xfd], // halt: hlt; jmp halt
  ];
  disk.set(code);
  disk.write(`\r\n${sign}\r\n\0`, 0x20, "latin1");
  disk.set([0x55, 0xaa], 510);
  return disk;
}

export const boot: Suite = {
  name: "boot",
  summary: "BIOS iPXE to a SAN disk, with all four services: script, CHAP, sanboot",
  needs: ["qemu-system-x86_64", "qemu-img"],
  async run(lab) {
    const segment = await lab.segment();
    const host = await segment.host("node", "10.77.0.1/24");
    const { api } = await keelsonNode(lab, host);
    const mac = "52:54:00:4b:01:01";
    const uuid = "a1b2c3d4-0000-4000-8000-00000000b007";

    await lab.test("api turns DHCP on and netboot serves it", async () => {
      await api.call("PUT", "/netboot", {
        interface: "eth0",
        settings: {
          mode: "server",
          pool: { first: "10.77.0.100", last: "10.77.0.120" },
          gateway: null,
          dns: [],
          leaseSeconds: 600,
        },
      });
    });

    let image: Image | undefined;
    await lab.test("a raw image is uploaded and becomes ready", async () => {
      const file = join(lab.directory("image"), "boot.img");
      writeFileSync(file, bootDisk());
      const made = await api.call<Image>("POST", "/images", { name: "lab-boot", format: "raw" });
      await api.call("PUT", `/images/${made.id}/data`, undefined, file);
      image = await eventually(
        () => api.call<Image>("GET", `/images/${made.id}`),
        ({ state }) => state === "ready" || state === "failed",
        "the image",
        30_000,
      );
      expectEqual(image.state, "ready", `the image (${image.failure})`);
    });

    await lab.test(
      "an unknown client is told so, waits, and boots once it is registered",
      async () => {
        const guest = await startGuest(lab, segment, { firmware: "ipxe-rom", mac, uuid });
        await guest.program.waitFor(/Keelson does not know this machine/, patienceMs);
        const unknown = await api.call<Client[]>("GET", "/clients");
        const seen = unknown.find((client) => client.mac === mac);
        expectEqual(seen?.bootEntryId, null, "boot entry of the unknown client");
        await api.call("POST", "/boot-entries", { name: "lab-client", imageId: image!.id, mac });
        await guest.program.waitFor(new RegExp(sign), patienceMs);
        await guest.program.kill();
      },
    );

    await lab.test("the API saw every stage, with address, UUID and architecture", async () => {
      const client = (await api.call<Client[]>("GET", "/clients")).find((one) => one.mac === mac);
      expectTrue(client !== undefined, `no client ${mac}`);
      expectEqual(client!.uuid, uuid, "UUID");
      expectMatch(client!.address ?? "", /^10\.77\.0\.1\d\d$/, "address");
      const stages = client!.stages.map(({ stage }) => stage);
      for (const stage of ["dhcp", "script", "san"] as const) {
        expectTrue(stages.includes(stage), `no stage ${stage} in ${JSON.stringify(stages)}`);
      }
    });

    await lab.test("the second boot uses the same clone", async () => {
      const before = (await api.call<BootEntry[]>("GET", "/boot-entries"))[0];
      expectTrue(before.cloneVolumeId !== null, "the entry has no clone");
      const guest = await startGuest(lab, segment, { firmware: "ipxe-rom", mac, uuid });
      await guest.program.waitFor(new RegExp(sign), patienceMs);
      await guest.program.kill();
      const after = (await api.call<BootEntry[]>("GET", "/boot-entries"))[0];
      expectEqual(after.cloneVolumeId, before.cloneVolumeId, "the clone");
      const clones = (await api.call<Volume[]>("GET", "/volumes")).filter(
        ({ kind }) => kind === "client",
      );
      expectEqual(clones.length, 1, "clones");
    });
  },
};
