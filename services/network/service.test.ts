/** The real service with the real nft and ip, in namespaces of its own; networkd is the VM's part. */
import { type ChildProcess, execFileSync, spawn, spawnSync } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { unixClient, unwrap } from "#lib/rpc/client.ts";
import type { NetworkApi } from "./api.ts";

const root = join(import.meta.dirname, "../..");
const possible = process.getuid?.() === 0 && spawnSync("nft", ["--version"]).status === 0;
const [inside, outside] = [`knet-${process.pid}-node`, `knet-${process.pid}-neighbour`];
const address = "10.5.0.1";
const ip = (...args: string[]) => execFileSync("ip", args, { encoding: "utf8" });
const within = (space: string, ...command: string[]) =>
  spawn("ip", ["netns", "exec", space, ...command], { stdio: ["ignore", "pipe", "pipe"] });

describe.skipIf(!possible)("keelson-network in a namespace", () => {
  const directory = possible ? mkdtempSync(join(tmpdir(), "knet-")) : "";
  const state = join(directory, "state");
  const files = join(directory, "networkd");
  const socket = join(directory, "run/api.sock");
  const children = new Set<ChildProcess>();
  const client = () => unixClient<NetworkApi>(socket);
  let service: ChildProcess;

  async function start(): Promise<void> {
    service = within(
      inside,
      ...[process.execPath, join(root, "services/network/main.ts")],
      ...["--state", state, "--run", join(directory, "run"), "--networkd", files],
      ...["--handover", join(directory, "network.json"), "--netif", join(directory, "none")],
      ...["--ports", join(root, "units/ports.d"), "--port-kind", "veth"],
    );
    children.add(service);
    let said = "";
    service.stderr!.on("data", (text) => {
      said += text;
    });
    for (let tries = 0; !(await answers()); tries++) {
      if (tries > 100 || service.exitCode !== null) throw new Error(`It does not start: ${said}`);
      await delay(100);
    }
  }
  const view = () => unwrap(client().v1.network.$get());
  const answers = () => existsSync(socket) && view().then(Boolean, () => false);

  /** As a machine would be after kill -9: `ip netns exec` becomes the service itself. */
  async function kill(): Promise<void> {
    const gone = new Promise((resolve) => service.once("close", resolve));
    service.kill("SIGKILL");
    await gone;
    children.delete(service);
  }

  beforeAll(async () => {
    mkdirSync(state);
    const network = {
      lan: { interface: "lan0", address: `${address}/24` },
      netboot: { interface: "lan0", mode: "proxy" },
    };
    const handover = { version: 1, hostName: "k1", ntp: [], network };
    writeFileSync(join(directory, "network.json"), JSON.stringify(handover));
    for (const space of [inside, outside]) {
      ip("netns", "add", space);
      ip("-n", space, "link", "set", "lo", "up");
    }
    ip(
      "-n",
      inside,
      "link",
      "add",
      "lan0",
      "type",
      "veth",
      "peer",
      "name",
      "cable",
      "netns",
      outside,
    );
    ip("-n", inside, "address", "add", `${address}/24`, "dev", "lan0");
    ip("-n", outside, "address", "add", "10.5.0.9/24", "dev", "cable");
    ip("-n", inside, "link", "set", "lan0", "up");
    ip("-n", outside, "link", "set", "cable", "up");
    ip("-n", outside, "route", "add", "255.255.255.255", "dev", "cable");
    await start();
  });

  afterAll(() => {
    for (const child of children) child.kill("SIGKILL");
    for (const space of [inside, outside]) spawnSync("ip", ["netns", "del", space]);
    rmSync(directory, { recursive: true, force: true });
  });

  /** `open`, `closed` or `silent`, from the neighbour. */
  async function knock(ports: readonly number[], host = address): Promise<Record<string, string>> {
    const script = `
      const { connect } = require("node:net");
      const knock = (port) => new Promise((resolve) => {
        const socket = connect({ host: "${host}", port, timeout: 2000 });
        const end = (what) => { socket.destroy(); resolve([port, what]); };
        socket.once("connect", () => end("open"));
        socket.once("timeout", () => end("silent"));
        socket.once("error", ({ code }) => end(code === "ECONNREFUSED" ? "closed" : code));
      });
      Promise.all(${JSON.stringify(ports)}.map(knock))
        .then((all) => console.log(JSON.stringify(Object.fromEntries(all))));`;
    const child = within(outside, process.execPath, "-e", script);
    let text = "";
    child.stdout.on("data", (part) => {
      text += part;
    });
    await new Promise((resolve) => child.once("close", resolve));
    return JSON.parse(text) as Record<string, string>;
  }

  test("what is declared for the LAN is open, all else is closed, though it listens", async () => {
    const script = `for (const port of [22, 80, 443, 3260, 8443]) require("node:net").createServer(() => {}).listen(port, "0.0.0.0");`;
    const listener = within(inside, process.execPath, "-e", script);
    children.add(listener);
    const ports = [22, 80, 443, 3260, 8443, 9999];
    let seen: Record<string, string> = {};
    for (let tries = 0; tries < 30 && seen[3260] !== "open"; tries++) {
      await delay(100);
      seen = await knock(ports);
    }
    expect(seen).toEqual({
      ...{ 22: "closed", 80: "open", 443: "open", 3260: "open", 8443: "closed", 9999: "closed" },
    });
    expect(await view()).toMatchObject({
      roles: { lan: "lan0" },
      firewall: { active: true, failure: null },
    });
    const { open } = await unwrap(client().v1.firewall.$get());
    expect(open.filter(({ interfaces }) => interfaces?.includes("lan0"))).toMatchObject([
      ...[67, 69, 80].map((port) => ({ port, service: "netboot" })),
      { port: 443, service: "api" },
      { port: 3260, service: "iscsi-target" },
      { port: 4011, service: "netboot" },
    ]);
    listener.kill();
    children.delete(listener);
  });

  test("one address that begins too many connections a second is held up", async () => {
    const script = `
      const { createServer } = require("node:net");
      createServer(() => {}).listen(443, "0.0.0.0", () => console.log("ready"));`;
    const listener = within(inside, process.execPath, "-e", script);
    children.add(listener);
    await new Promise((resolve) => listener.stdout.once("data", resolve));
    const seen = await knock(Array.from({ length: 60 }, () => 443));
    expect(seen).toEqual({ 443: "open" });
    const flood = `
      const { connect } = require("node:net");
      let open = 0, asked = 0;
      const begin = () => {
        for (let i = 0; i < 50; i++, asked++) {
          const socket = connect({ host: "${address}", port: 443 });
          socket.once("connect", () => { open++; });
          socket.once("error", () => {});
        }
      };
      const timer = setInterval(begin, 20);
      setTimeout(() => { console.log(JSON.stringify({ open, asked })); process.exit(0); }, 900);`;
    const child = within(outside, process.execPath, "-e", flood);
    let text = "";
    child.stdout.on("data", (part) => {
      text += part;
    });
    await new Promise((resolve) => child.once("close", resolve));
    const { open, asked } = JSON.parse(text) as { open: number; asked: number };
    // 200 at once and 100 each second.
    expect(asked).toBeGreaterThan(500);
    expect(open).toBeLessThan(350);
    expect(open).toBeGreaterThan(50);
    listener.kill();
    children.delete(listener);
  });

  test("an address of another network is not to be had from here, not even by its ARP", async () => {
    const other = "10.8.0.1";
    ip("-n", inside, "link", "add", "other0", "type", "bridge");
    ip("-n", inside, "address", "add", `${other}/24`, "dev", "other0");
    ip("-n", inside, "link", "set", "other0", "up");
    ip("-n", outside, "route", "add", "10.8.0.0/24", "dev", "cable");
    const script = `require("node:net").createServer(() => {}).listen(443, "0.0.0.0", () => console.log("ready"));`;
    const listener = within(inside, process.execPath, "-e", script);
    children.add(listener);
    await new Promise((resolve) => listener.stdout.once("data", resolve));
    const settings = readFileSync(
      join(root, "image/files/usr/lib/sysctl.d/60-keelson-network.conf"),
      "utf8",
    );
    for (const [, key, value] of settings.matchAll(/^(net\.\S+) = (\d+)$/gm)) {
      const path = `/proc/sys/${key.replaceAll(".", "/")}`;
      execFileSync("ip", ["netns", "exec", inside, "sh", "-c", `echo ${value} > ${path}`]);
    }
    expect(await knock([443])).toEqual({ 443: "open" });
    // Nobody says who has it; told all the same, its packets are dropped.
    expect(await knock([443], other)).toEqual({
      443: expect.stringMatching(/EHOSTUNREACH|silent/),
    });
    const neighbours = ip("-n", outside, "-4", "neigh", "show", other);
    expect(neighbours).not.toMatch(/REACHABLE|STALE|DELAY/);
    const mac = JSON.parse(ip("-n", inside, "-json", "link", "show", "lan0"))[0].address;
    ip("-n", outside, "neigh", "replace", other, "lladdr", mac, "dev", "cable", "nud", "permanent");
    expect(await knock([443], other)).toEqual({ 443: "silent" });
    listener.kill();
    children.delete(listener);
  });

  test("a machine without an address reaches DHCP by broadcast, TFTP's answers may be acknowledged", async () => {
    // Both answer from a port of their own, as TFTP does (RFC 1350 section 4).
    const script = `
      const { createSocket } = require("node:dgram");
      let ready = 0;
      for (const port of [67, 69, 5353]) {
        const server = createSocket("udp4");
        server.on("message", (text, from) => {
          console.log("got " + port);
          if (port === 67) return;
          const answer = createSocket("udp4");
          answer.on("message", () => { console.log("acknowledged " + port); answer.close(); });
          answer.send("data", from.port, from.address);
        });
        server.bind(port, () => { if (++ready === 3) console.log("ready"); });
      }`;
    const listener = within(inside, process.execPath, "-e", script);
    children.add(listener);
    let heard = "";
    listener.stdout.on("data", (text) => {
      heard += text;
    });
    const hears = async (what: string) => {
      for (let tries = 0; tries < 50 && !heard.includes(what); tries++) await delay(100);
      return heard;
    };
    await hears("ready");
    const asking = `
      const { createSocket } = require("node:dgram");
      const socket = createSocket("udp4");
      socket.on("message", (text, from) => socket.send("ack", from.port, from.address));
      socket.bind(6868, () => {
        socket.setBroadcast(true);
        socket.send("discover", 67, "255.255.255.255");
        socket.send("read", 69, "${address}");
        socket.send("query", 5353, "${address}");
      });
      setTimeout(() => process.exit(0), 1500);`;
    const client = within(outside, process.execPath, "-e", asking);
    await new Promise((resolve) => client.once("close", resolve));
    expect(await hears("acknowledged 69")).toContain("acknowledged 69");
    expect(heard).toContain("got 67");
    expect(heard).not.toContain("got 5353");
    listener.kill();
    children.delete(listener);
  });

  const fileOf = (name: string) => {
    const path = join(files, name);
    return existsSync(path) ? readFileSync(path, "utf8") : undefined;
  };

  test("killed while a change waits: the next start has the confirmed files again", async () => {
    const before = fileOf("30-keelson-lan0.network");
    expect(before).toContain(`Address=${address}/24`);
    const body = { config: { lan: { interface: "lan0", vlan: 7, address: "10.6.0.1/24" } } };
    const { id } = await unwrap(
      client().v1.apply.$post({ json: { ...body, confirmWithinSeconds: 60 } }),
    );
    for (let tries = 0; tries < 50 && fileOf("40-keelson-lan.netdev") === undefined; tries++) {
      await delay(100);
    }
    expect(fileOf("40-keelson-lan.netdev")).toContain("Id=7");
    await kill();
    expect(readdirSync(state)).toEqual(["pending.json"]);
    await start();
    expect(readdirSync(state)).toEqual([]);
    expect(fileOf("30-keelson-lan0.network")).toBe(before);
    expect(fileOf("40-keelson-lan.netdev")).toBeUndefined();
    expect((await view()).lastChange).toMatchObject({ id, outcome: "reverted" });
    const rules = ip("netns", "exec", inside, "nft", "list", "table", "inet", "keelson");
    expect(rules).toContain('iifname "lan0" tcp dport 443 accept');
  });

  test("killed after the confirmation: the new one counts, and the firewall follows", async () => {
    const config = { lan: { interface: "lan0", vlan: 7, address: "10.6.0.1/24" } };
    const { id } = await unwrap(
      client().v1.apply.$post({ json: { config, confirmWithinSeconds: 60 } }),
    );
    for (let tries = 0; (await view()).pending?.applied !== true; tries++) {
      expect(tries).toBeLessThan(50);
      await delay(100);
    }
    await unwrap(client().v1.confirm.$post({ json: { id } }));
    await kill();
    expect(readdirSync(state)).toEqual(["confirmed.json"]);
    await start();
    expect(fileOf("40-keelson-lan.netdev")).toContain("Id=7");
    const rules = ip("netns", "exec", inside, "nft", "list", "table", "inet", "keelson");
    expect(rules).toContain('iifname "lan" tcp dport 443 accept');
  });

  test.each<[string, object, RegExp]>([
    ["no configuration", {}, /at config/],
    ["too little time", { config: {}, confirmWithinSeconds: 1 }, /must be at least 10/],
    ["a field too much", { config: {}, force: true }, /force/],
  ])("refused: %s", async (_, json, message) => {
    await expect(unwrap(client().v1.apply.$post({ json } as never))).rejects.toThrow(message);
    expect((await view()).pending).toBeNull();
  });
});
