/**
 * Makes docs/images/overview.png: a real node with a few images, and machines that really log in.
 *
 *   node qa/ui/readme-screenshot.ts [--out FILE] [--page /clients]
 */
import { randomBytes } from "node:crypto";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import type { BootEntry, Client, Image } from "#services/api/schema.ts";
import { logInAndScreenshot } from "./browser.ts";
import { fetchBootScript, holdSession } from "./initiator.ts";
import { type DevNode, startDevNode } from "./node.ts";

const { values } = parseArgs({
  options: {
    out: { type: "string", default: resolve(import.meta.dirname, "../../docs/images") },
  },
});

const images = [
  { name: "debian-13-workstation", sizeMib: 220 },
  { name: "debian-13-kiosk", sizeMib: 130 },
];
const machines = ["reading-room-01", "reading-room-02", "reading-room-03", "lab-bench-1", "kiosk"];

async function until(done: () => Promise<boolean>): Promise<void> {
  const deadline = Date.now() + 60_000;
  while (!(await done())) {
    if (Date.now() > deadline) throw new Error("It took longer than a minute.");
    await new Promise((next) => setTimeout(next, 150));
  }
}

async function upload(node: DevNode, name: string, sizeMib: number): Promise<string> {
  const { id } = await node.call<Image>("POST", "/images", { name, format: "raw" });
  await node.upload(id, randomBytes(sizeMib << 20));
  await until(async () => (await node.call<Image>("GET", `/images/${id}`)).state === "ready");
  return id;
}

async function boot(node: DevNode, mac: string, running: boolean): Promise<void> {
  const script = await fetchBootScript(node.bootUrl, mac);
  const reached = (stage: string) =>
    until(async () =>
      (await node.call<Client[]>("GET", "/clients")).some(
        (client) => client.mac === mac && client.stage === stage,
      ),
    );
  await holdSession(script, () => reached("san"));
  if (running) await holdSession(script, () => reached("os"));
}

const node = await startDevNode({ storeSize: "1G" });
try {
  const ids: string[] = [];
  for (const { name, sizeMib } of images) ids.push(await upload(node, name, sizeMib));
  await node.call("POST", "/volumes", { name: "vm-host-data", sizeBytes: 200 * 2 ** 20 });
  for (const [index, name] of machines.entries()) {
    const mac = `52:54:00:1a:00:${(index + 16).toString(16)}`;
    await node.call<BootEntry>("POST", "/boot-entries", {
      name,
      mac,
      imageId: ids[name === "kiosk" ? 1 : 0],
    });
    if (index < 4) await boot(node, mac, index !== 3);
  }
  await fetch(`${node.bootUrl}/boot.ipxe?mac=52:54:00:1a:00:42&arch=pcbios`);
  const common = { url: node.url, user: "admin", password: node.password };
  await logInAndScreenshot({ ...common, out: join(values.out, "overview.png"), heightPx: 880 });
  await logInAndScreenshot({
    ...common,
    out: join(values.out, "clients.png"),
    page: "/clients",
    heightPx: 620,
  });
} finally {
  await node.stop();
}
