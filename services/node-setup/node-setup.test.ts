import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import type { NodeConfig } from "#lib/answer-file/node-config.ts";
import { findPort } from "#lib/network/resolve.ts";
import { renderNode } from "./render.ts";

const ports = [
  { name: "enp0s3", mac: "52:54:00:00:00:01" },
  { name: "enp0s5", mac: "52:54:00:00:00:02" },
];

type Network = Omit<NodeConfig["network"], "bonds">;

function config(network: Network): NodeConfig {
  return {
    version: 1,
    id: "4f0c1de2-0b7a-4a51-9c57-2f6d1f7a9e10",
    name: "k1",
    timeZone: "Europe/Stockholm",
    ntp: ["ntp.example"],
    network: { bonds: [], ...network },
    adminHash: "$6$x$y",
    store: { device: "/dev/disk/by-partuuid/u" },
    installedVersion: "1",
  };
}

function render(network: Network, confirmed?: NodeConfig["network"]) {
  const rendered = renderNode(config(network), { ports, version: "2026.11.0", confirmed });
  const file = (end: string) => rendered.files.find(({ path }) => path.endsWith(end));
  const environment = Object.fromEntries(
    file("node.env")!
      .content.trim()
      .split("\n")
      .map((line) => line.split(/=(.*)/s).slice(0, 2)),
  );
  return { ...rendered, file, environment };
}

const dhcp = { interface: "first", address: "dhcp", dns: [] };
const netboot = {
  ...{ interface: "52:54:00:00:00:01", mode: "server" as const, address: "10.77.0.1/24" },
  ...{ pool: "10.77.0.100-10.77.0.199", dns: ["10.77.0.1", "9.9.9.9"] },
};

describe("which interface", () => {
  test.each([
    ["first", [], "enp0s3"],
    ["first", ["enp0s3"], "enp0s5"],
    ["enp0s5", [], "enp0s5"],
    ["52-54-00-00-00-02", [], "enp0s5"],
    ["enp9s9", [], undefined],
  ])("%s without %j", (selector, taken, name) => {
    expect(findPort(selector, ports, taken)?.name).toBe(name);
  });
});

describe("files of a boot", () => {
  test("a LAN by DHCP and netboot of its own: `first` leaves the named one alone", () => {
    const { lan, file, environment, warnings } = render({ lan: dhcp, netboot });
    expect(warnings).toEqual([]);
    expect(lan).toBe("enp0s5");
    expect(JSON.parse(file("network.json")!.content)).toEqual({
      version: 1,
      hostName: "k1",
      ntp: ["ntp.example"],
      network: { bonds: [], lan: dhcp, netboot },
    });
    expect(file("netboot.enabled")).toBeDefined();
    expect(environment).toMatchObject({
      KEELSON_NODE_NAME: "k1",
      KEELSON_STORE_DEVICE: "/dev/disk/by-partuuid/u",
      KEELSON_LAN_INTERFACE: "enp0s5",
      KEELSON_PORTAL_ADDRESS: "10.77.0.1",
      KEELSON_NETBOOT_MODE: "server",
      KEELSON_NETBOOT_INTERFACE: "enp0s3",
      KEELSON_NETBOOT_PREFIX: "24",
      KEELSON_NETBOOT_POOL: "10.77.0.100-10.77.0.199",
      KEELSON_NETBOOT_DNS: "10.77.0.1,9.9.9.9",
      TZ: "Europe/Stockholm",
    });
  });

  test("a static LAN that netboot shares has one address", () => {
    const lan = {
      interface: "enp0s3",
      address: "192.0.2.10/24",
      gateway: "192.0.2.1",
      dns: ["192.0.2.1"],
    };
    const shared = {
      interface: "enp0s3",
      mode: "server" as const,
      pool: "192.0.2.50-192.0.2.60",
      dns: [],
    };
    const { environment } = render({ lan, netboot: shared });
    expect(environment).toMatchObject({
      KEELSON_NETBOOT_ADDRESS: "192.0.2.10",
      KEELSON_NETBOOT_PREFIX: "24",
      KEELSON_PORTAL_ADDRESS: "192.0.2.10",
    });
  });

  test("without netboot nothing serves DHCP", () => {
    const { file, environment } = render({ lan: dhcp });
    expect(file("netboot.enabled")).toBeUndefined();
    expect(environment.KEELSON_NETBOOT_MODE).toBe("off");
  });

  test("a missing netboot card is a warning, and netboot stays off; the LAN is set up", () => {
    const { file, environment, warnings } = render({
      lan: dhcp,
      netboot: { ...netboot, interface: "52:54:00:00:00:99" },
    });
    expect(warnings).toEqual([
      "No interface '52:54:00:00:00:99' for netboot; there are: enp0s3 (52:54:00:00:00:01), enp0s5 (52:54:00:00:00:02).",
    ]);
    expect(file("netboot.enabled")).toBeUndefined();
    expect(environment.KEELSON_LAN_INTERFACE).toBe("enp0s3");
    expect(environment.KEELSON_NETBOOT_MODE).toBe("off");
  });

  test("what was confirmed since the installation counts, and is not handed over again", () => {
    const confirmed = {
      bonds: [],
      lan: { interface: "enp0s3", address: "192.0.2.10/24", dns: [] },
    };
    const { environment, file } = render({ lan: dhcp, netboot }, confirmed);
    expect(environment).toMatchObject({
      KEELSON_LAN_INTERFACE: "enp0s3",
      KEELSON_LAN_ADDRESS: "192.0.2.10",
      KEELSON_NETBOOT_MODE: "off",
    });
    expect(file("netboot.enabled")).toBeUndefined();
    expect(JSON.parse(file("network.json")!.content).network).toMatchObject({ lan: dhcp, netboot });
  });

  test("the password's hash is for api alone", () => {
    const hash = render({ lan: dhcp }).file("admin.hash")!;
    expect(hash).toMatchObject({ mode: 0o400, owner: "keelson-api", content: "$6$x$y\n" });
    expect(render({ lan: dhcp }).file("node.env")!.content).not.toContain("$6$");
  });
});

/** RestartPreventExitStatus= of the unit: another start would end the same. */
test.each([
  ["no node.json", undefined, /This disk is not fully installed: no .*node.json/],
  ["a damaged node.json", '{ "version": 1', /node.json/],
  ["a node.json of a later version", '{ "version": 99 }', /node.json/],
])("%s ends it for good", (_, content, message) => {
  const root = mkdtempSync(join(tmpdir(), "keelson-node-setup-"));
  try {
    mkdirSync(join(root, "state"));
    if (content !== undefined) writeFileSync(join(root, "state/node.json"), content);
    const main = join(import.meta.dirname, "main.ts");
    const arguments_ = [main, "--root", root, "--state", "/state", "--run", "/run"];
    const { status, stderr } = spawnSync(process.execPath, arguments_, { encoding: "utf8" });
    expect(stderr).toMatch(message);
    expect(stderr).not.toMatch(/\n\s+at /);
    expect(status).toBe(78);
  } finally {
    rmSync(root, { recursive: true });
  }
});
