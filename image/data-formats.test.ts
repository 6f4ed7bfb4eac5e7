/**
 * /var of every release kept, as that release left it (`golden-var/`), opened by today's services.
 * The files are frozen: a new release adds a folder, none is ever made anew.
 */
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { recover } from "#firmware-updater/recovery.ts";
import { StateFile } from "#firmware-updater/state.ts";
import { nodeConfigVersion, parseNodeConfig } from "#lib/answer-file/node-config.ts";
import { type AuditEntry, ChainVerifier } from "#lib/audit/chain.ts";
import { readRelease } from "#lib/bundle/release.ts";
import { openClusterStore } from "#lib/cluster-store/open.ts";
import { dataFormats, firstFormats, unreadable } from "#lib/data-format/formats.ts";
import { HeldFormatsFile } from "#lib/data-format/held.ts";
import { storedNetworks } from "#lib/network/stored.ts";
import { loadSecretKey } from "#lib/seal/secret-key.ts";
import { createLog } from "#lib/service/log.ts";
import { MemoryExecutor } from "#lib/volume/memory-executor.ts";
import { StoreNetServer } from "#lib/volume/store-net-server.ts";
import { TestNode } from "#services/api/platform.fixture.ts";
import { Policy } from "#services/api/policy.ts";
import { RecordSeal } from "#services/api/record-seal.ts";
import { formatVersions as storeFormats } from "#services/chunk-store/engine/layout.ts";
import { IscsiTarget } from "#services/iscsi-target/target.ts";
import { NetbootService } from "#services/netboot/service.ts";
import { dataFormats as released, upgradesFrom } from "./release-facts.ts";

const golden = join(import.meta.dirname, "golden-var");
const log = createLog("test", { JOURNAL_STREAM: "" });
const noLines = { error() {}, warn() {}, info() {}, debug() {} };

test("what a release says of its formats is what its programs know", () => {
  expect(released).toBe(dataFormats);
  expect(dataFormats["chunk-store"]).toEqual(storeFormats);
  expect(dataFormats.node.newest).toBe(nodeConfigVersion);
  for (const { oldest, newest } of Object.values(dataFormats)) {
    expect(oldest).toBeLessThanOrEqual(newest);
  }
});

test("the oldest release that may be upgraded from is among those kept", () => {
  expect(readdirSync(golden)).toContain(upgradesFrom);
});

describe.each(readdirSync(golden))("/var of %s", (release) => {
  let folder: string;
  let held: HeldFormatsFile;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "keelson-golden-var-"));
    cpSync(join(golden, release), folder, { recursive: true });
    held = new HeldFormatsFile(join(folder, "firmware-updater/formats.json"));
  });
  afterEach(() => rmSync(folder, { recursive: true, force: true }));

  test("is of formats that this version reads", () => {
    expect(held.isWritten).toBe(true);
    expect(unreadable(dataFormats, held.read())).toBeUndefined();
    if (release === "2026.11.0") expect(held.read()).toEqual(firstFormats);
  });

  test("node.json", () => {
    const config = parseNodeConfig(readFileSync(join(folder, "node.json"), "utf8"), "node.json");
    expect(config).toMatchObject({ name: "keelson-1", installedVersion: release });
    expect(config.network.backplane).toEqual({
      ...{ interface: "lan", vlan: 77, address: "10.77.0.1/24" },
    });
  });

  test("network: what was confirmed, and it can be written back", () => {
    const { confirmed } = storedNetworks(join(folder, "network"), held);
    const network = confirmed.read()!;
    expect(network.network.bonds[0]).toMatchObject({ name: "bond0", primary: "enp1s0" });
    confirmed.write(network);
    expect(confirmed.read()).toEqual(network);
  });

  test("netboot: policy and leases", async () => {
    const service = await NetbootService.start({
      ...{ state: join(folder, "netboot"), loaders: folder, apiSocket: join(folder, "no-api") },
      ...{
        dhcp: null,
        tftp: null,
        http: null,
        interfaces: undefined,
        log: noLines,
        version: "test",
      },
      fail: (error) => {
        throw error;
      },
    });
    try {
      expect(service.config()).toMatchObject({
        generation: 42,
        reservations: [{ hostname: "client" }],
      });
      expect(service.leases()).toMatchObject([{ mac: "52:54:00:00:00:01", ip: "10.88.0.100" }]);
    } finally {
      await service.stop();
    }
  });

  test("iscsi-target: exports and their secrets, served before api is there", async () => {
    const state = join(folder, "iscsi-target");
    const store = new StoreNetServer(new MemoryExecutor());
    await store.listen(join(folder, "ring.sock"));
    const target = await IscsiTarget.start({
      ...{ stateDir: state, storeRun: folder, portals: [{ host: "127.0.0.1", port: 0 }] },
      ...{ native: false, version: "test", box: loadSecretKey(undefined, state).box, log },
      fail: (error) => {
        throw error;
      },
    });
    try {
      const view = await target.exports();
      expect(view.generation).toBe(42);
      expect(JSON.stringify(view)).toContain("iqn.2026-11.org.example:disk");
    } finally {
      await target.stop();
      await store.stop();
    }
  });

  test("api: accounts, tokens, policy with its secrets, and the audit chain", async () => {
    const node = new TestNode({
      bootMs: () => performance.now(),
      now: () => "2026-11-21T09:00:00.000Z",
    });
    cpSync(join(folder, "api"), join(node.state, "api"), { recursive: true });
    cpSync(join(folder, "cluster.sqlite"), join(node.state, "cluster.sqlite"));
    try {
      await node.start();
      const token = readFileSync(join(folder, "api/token"), "utf8").trim();
      const users = await fetch(`${node.http}/api/v1/users`, {
        headers: { authorization: `Bearer ${token}` },
      });
      expect(users.status, "the token of then").toBe(200);
      expect(((await users.json()) as { id: string }[]).map(({ id }) => id).sort()).toEqual([
        ...["admin", "operator"],
      ]);
      const operator = { user: "operator", password: "a long pass phrase" };
      const secondStep = await node.call("POST", "/session", operator);
      expect(secondStep, "the password is right, and the security key is asked for").toMatchObject({
        ...{ status: 202, body: { methods: ["security-key"] } },
      });
      const names = async (path: string) =>
        ((await node.call("GET", path)).body as { name: string }[]).map(({ name }) => name);
      expect(await names("/volumes")).toContain("disk");
      expect(await names("/images")).toEqual(["debian"]);
      expect(await names("/boot-entries")).toEqual(["client"]);
      expect(await names("/exports")).toEqual(["disk"]);
      const text = await fetch(`${node.http}/api/v1/audit/export?from=1`, {
        headers: { authorization: `Bearer ${node.token}` },
      }).then((answer) => answer.text());
      const chain = new ChainVerifier();
      const lines = text.split("\n").filter((line) => line !== "");
      for (const line of lines) chain.add(line);
      expect(chain.verdict()).toMatchObject({ ok: true, firstSequence: 1 });
      expect((JSON.parse(lines[0]) as AuditEntry).sequence).toBe(1);
      expect(lines.length).toBeGreaterThan(3);
      expect(node.lines.filter((line) => line.startsWith("error"))).toEqual([]);
    } finally {
      await node.remove();
    }
    const store = openClusterStore(`sqlite:${join(folder, "cluster.sqlite")}`);
    const { box } = loadSecretKey(undefined, join(folder, "api"));
    const policy = await Policy.open(store, new RecordSeal(box));
    expect(policy.list("boot")[0].chapSecret).toBe("chap secret of client");
    expect(policy.list("export")[0].chapSecret).toBe("chap secret of disk");
    expect(policy.locked()).toEqual([]);
    policy.close();
    await store.close();
  });

  test("firmware-updater: the restart into its successor is taken up, by either slot", () => {
    const state = new StateFile(join(folder, "firmware-updater"), held, log).load();
    const { plan } = state;
    expect(state.revision).toBe(57);
    expect(state.sources.channel).toBe("https://example.org/keelson/index.json");
    const boot = (rootHash: string, triesLeft: number) =>
      recover(plan, { rootHash, bootId: "boot-2", triesLeft });
    expect(boot(plan!.to.rootHash, 2)).toEqual({ kind: "resume", step: "gate" });
    expect(boot(plan!.from.rootHash, 0)).toEqual({ kind: "returned" });
  });

  test("nothing that today's services write on trial is of a newer format", () => {
    const before = held.read();
    const { confirmed } = storedNetworks(join(folder, "network"), held);
    confirmed.write(confirmed.read()!);
    const updater = new StateFile(join(folder, "firmware-updater"), held, log);
    updater.save(updater.load());
    const number = (path: string, member: string) =>
      JSON.parse(readFileSync(join(folder, path), "utf8"))[member];
    expect(number("network/confirmed.json", "version")).toBe(before.network);
    expect(number("firmware-updater/state.json", "format")).toBe(before.upgrade);
  });
});

test("release.json of an image takes what this version says", () => {
  const folder = mkdtempSync(join(tmpdir(), "keelson-release-json-"));
  const path = join(folder, "release.json");
  try {
    const facts = {
      version: "2026.11.0",
      development: true,
      architecture: "amd64",
      hardware: "pc",
    };
    writeFileSync(path, JSON.stringify({ ...facts, dataFormats: released }));
    expect(readRelease(path).dataFormats).toEqual(dataFormats);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});
