/** The API before keelson-network's own socket and state machine; only the machine is made up. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { afterAll, beforeAll, expect, test } from "vitest";
import { readLinks } from "#lib/network/links.ts";
import type { NetworkFile } from "#lib/network/networkd.ts";
import type { StoredNetwork } from "#lib/network/stored.ts";
import { hashPassword } from "#lib/password/password.ts";
import { type Listener, serveUnix } from "#lib/rpc/serve.ts";
import { createApi } from "#services/network/api.ts";
import { NodeNetwork } from "#services/network/network.ts";
import { type Api, startApi } from "./api.ts";
import { firewallSchema, networkSchema } from "./network-schema.ts";

const directory = mkdtempSync(join(tmpdir(), "keelson-api-network-"));
const run = join(directory, "network");
const quiet = { error() {}, warn() {}, info() {}, debug() {} };
const links = readLinks(
  JSON.stringify([
    {
      ...{ ifname: "enp1s0", link_type: "ether", flags: ["UP", "LOWER_UP"], mtu: 1500 },
      ...{ max_mtu: 9000, address: "52:54:00:00:00:01" },
      addr_info: [
        { family: "inet", local: "10.0.2.15", prefixlen: 24, scope: "global", dynamic: true },
      ],
    },
  ]),
);

let files: readonly NetworkFile[] = [];
let network: NodeNetwork;
let listener: Listener;
let api: Api;
let token = "";

beforeAll(async () => {
  const disk = new Map<string, StoredNetwork>();
  network = await NodeNetwork.start({
    handover: {
      ...{ version: 1, hostName: "k1", ntp: [] },
      network: { bonds: [], lan: { interface: "first", address: "dhcp", dns: [] } },
    },
    store: {
      confirmed: () => disk.get("confirmed"),
      pending: () => disk.get("pending"),
      writeConfirmed: (stored) => void disk.set("confirmed", stored),
      writePending: (stored) => void disk.set("pending", stored),
      removePending: () => void disk.delete("pending"),
    },
    system: {
      links: async () => links,
      loadFirewall: async () => {},
      configure: async (given) => {
        files = given;
      },
    },
    declarations: [
      {
        service: "api",
        opens: [{ protocol: "tcp", port: 443, networks: ["lan"], why: "API and console" }],
      },
    ],
    log: quiet,
    graceMs: 5,
  });
  listener = await serveUnix(
    createApi(network, () => {}),
    join(run, "api.sock"),
  );
  mkdirSync(join(directory, "state"));
  writeFileSync(join(directory, "admin.hash"), `${hashPassword("correct horse")}\n`);
  const away = (name: string) => join(directory, `no-${name}`);
  api = await startApi({
    ...{ state: join(directory, "state"), run: join(directory, "run"), https: null },
    http: { host: "127.0.0.1", port: 0 },
    peers: {
      ...{ store: away("store"), iscsi: away("target"), netboot: away("netboot"), network: run },
      updater: away("updater"),
    },
    clusterStore: `sqlite:${join(directory, "cluster.sqlite")}`,
    ...{ ui: null, spool: join(directory, "spool"), portalAddress: "auto", log: quiet },
    adminHashFile: join(directory, "admin.hash"),
  });
  const session = await call("POST", "/session", { user: "admin", password: "correct horse" });
  token = session.body.token;
});
afterAll(async () => {
  await api?.close();
  await listener?.close();
  await network?.stop();
  rmSync(directory, { recursive: true });
});

async function call(method: string, path: string, body?: unknown) {
  const answer = await fetch(`${api.addresses.http}/api/v1${path}`, {
    method,
    headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  const document = answer.status === 204 ? null : await answer.json();
  // biome-ignore lint/suspicious/noExplicitAny: each test looks at what it asked for.
  return { status: answer.status, body: document as any };
}

test("what is answered is what the schema says, field by field", async () => {
  const { body } = await call("GET", "/network");
  expect(networkSchema.strict().parse(body)).toEqual(body);
  expect(body).toMatchObject({ roles: { lan: "enp1s0" }, pending: null });
  const firewall = await call("GET", "/network/firewall");
  expect(firewallSchema.strict().parse(firewall.body)).toEqual(firewall.body);
  expect(firewall.body.open).toMatchObject([{ port: 443, interfaces: ["enp1s0"] }]);
});

test("a fault of the form and one that only the machine shows are told by place", async () => {
  const wrong = await call("POST", "/network/apply", { config: { lan: { mtu: 20 } } });
  expect(wrong.status).toBe(400);
  expect(wrong.body.errors).toEqual([
    { field: "config.lan.mtu", message: expect.stringMatching(/^20 is not an MTU from 1280/) },
  ]);
  const overlap = await call("POST", "/network/apply", {
    config: { backplane: { vlan: 20, address: "10.0.2.200/28" } },
  });
  expect(overlap.status).toBe(400);
  expect(overlap.body.errors).toMatchObject([
    { field: "backplane.address", message: expect.stringMatching(/DHCP gave it/) },
  ]);
});

test("applied, confirmed once, and not twice", async () => {
  const config = { lan: { interface: "enp1s0", address: "192.0.2.10/24" } };
  const applied = await call("POST", "/network/apply", { config });
  expect(applied.status).toBe(202);
  const { id } = applied.body;
  const second = await call("POST", "/network/apply", { config });
  expect(second).toMatchObject({ status: 409, body: { code: "CONFLICT" } });
  for (let tries = 0; !(await call("GET", "/network")).body.pending.applied; tries++) {
    expect(tries).toBeLessThan(100);
    await delay(10);
  }
  expect(files.map(({ content }) => content).join()).toContain("Address=192.0.2.10/24");
  expect((await call("POST", "/network/confirm", { id: "another" })).status).toBe(404);
  expect((await call("POST", "/network/confirm", { id })).status).toBe(204);
  const again = await call("POST", "/network/revert", { id });
  expect(again).toMatchObject({
    status: 404,
    body: { title: expect.stringMatching(/confirmed already/) },
  });
});

test("keelson-network away: said, and a condition", async () => {
  await listener.close();
  expect(await call("GET", "/network")).toMatchObject({
    status: 503,
    body: { code: "UNAVAILABLE", title: expect.stringMatching(/No answer on .*api\.sock/) },
  });
  for (let tries = 0; ; tries++) {
    const { body } = await call("GET", "/conditions");
    const found = body.find(({ id }: { id: string }) => id === "SERVICE_UNREACHABLE:network");
    if (found?.status === "true") break;
    expect(tries).toBeLessThan(100);
    await delay(200);
  }
});
