import { randomBytes } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { SecretBox } from "#lib/seal/secret-box.ts";
import { serverCertificate } from "./certificate.ts";
import { checkNetbootChange, netbootConfig, netbootInterfaces } from "./netboot-policy.ts";
import { readClockState, readIdentity, readNetbootDefault, subnetOf } from "./node.ts";
import { netbootChangeSchema } from "./schema.ts";

const directory = mkdtempSync(join(tmpdir(), "keelson-node-"));
afterAll(() => rmSync(directory, { recursive: true }));

describe("identity", () => {
  const appliance = (variant: string) =>
    `NAME=Keelson\nID=keelson\nVERSION_ID=2026.11.0\nVARIANT_ID=${variant}\n`;
  test.each([
    ["a release", appliance("release"), false, "2026.11.0"],
    ["a development image", appliance("development"), true, "2026.11.0"],
    ["a source tree on Debian", 'ID=debian\nVERSION_ID="13"\n', true, "dev"],
    ["no os-release", "", true, "dev"],
  ])("%s", (_name, osRelease, devBuild, version) => {
    expect(readIdentity({}, osRelease)).toMatchObject({ devBuild, version, id: null });
  });
});

test("the clock's state is known only where a time service says it", () => {
  expect(readClockState(0, join(directory, "none")).quality).toBe("bad");
  expect(readClockState(0, directory)).toMatchObject({ quality: "good", value: false });
  writeFileSync(join(directory, "synchronized"), "");
  expect(readClockState(0, directory)).toMatchObject({ quality: "good", value: true });
});

test.each([
  ["10.77.0.1", 24, "10.77.0.0/24"],
  ["192.168.130.7", 17, "192.168.128.0/17"],
  ["255.255.255.254", 31, "255.255.255.254/31"],
  ["10.0.0.1", 32, "10.0.0.1/32"],
])("%s/%i is in %s", (address, prefixLength, subnet) => {
  expect(subnetOf(address, prefixLength)).toBe(subnet);
});

describe("network boot", () => {
  const addresses = [
    {
      interface: "lan0",
      mac: "52:54:00:00:00:01",
      address: "192.0.2.10",
      prefixLength: 24,
      family: "IPv4" as const,
    },
    {
      interface: "boot0",
      mac: "52:54:00:00:00:02",
      address: "10.77.0.1",
      prefixLength: 24,
      family: "IPv4" as const,
    },
  ];
  const answerFile = readNetbootDefault({
    KEELSON_NETBOOT_INTERFACE: "boot0",
    KEELSON_NETBOOT_MODE: "server",
    KEELSON_NETBOOT_POOL: "10.77.0.100-10.77.0.199",
    KEELSON_NETBOOT_GATEWAY: "",
    KEELSON_NETBOOT_DNS: "10.77.0.1,9.9.9.9",
  });
  const none = { list: () => [] } as never;

  test("the answer file's settings hold until somebody changes them", () => {
    const byDefault = netbootInterfaces(none, addresses, answerFile);
    expect(netbootConfig(byDefault)).toEqual([
      {
        name: "boot0",
        mode: "server",
        subnet: "10.77.0.0/24",
        pool: { first: "10.77.0.100", last: "10.77.0.199" },
        dns: ["10.77.0.1", "9.9.9.9"],
        leaseSeconds: 3600,
      },
    ]);
    const changed = {
      list: () => [
        {
          id: "boot0",
          settings: { mode: "off", pool: null, gateway: null, dns: [], leaseSeconds: 3600 },
        },
      ],
    } as never;
    expect(netbootConfig(netbootInterfaces(changed, addresses, answerFile))).toEqual([]);
    expect(netbootConfig(netbootInterfaces(none, addresses, null))).toEqual([]);
  });

  test("a server whose interface has no address yet is left out, not put wrongly", () => {
    expect(netbootConfig(netbootInterfaces(none, [], answerFile))).toEqual([]);
  });

  const known = netbootInterfaces(none, addresses, null);
  const check = (name: string, settings: object) =>
    checkNetbootChange(netbootChangeSchema.parse({ interface: name, settings }), known);
  const server = (first: string, last: string, more = {}) => ({
    mode: "server",
    pool: { first, last },
    ...more,
  });
  test.each([
    ["eth9", { mode: "proxy" }, /no interface eth9/],
    ["boot0", server("10.78.0.5", "10.78.0.6"), /not in 10\.77\.0\.0\/24/],
    ["boot0", server("10.77.0.9", "10.77.0.5"), /before its first/],
    ["boot0", server("10.77.0.0", "10.77.0.5"), /network's own/],
    ["boot0", server("10.77.0.5", "10.77.0.255"), /broadcast/],
    ["boot0", server("10.77.0.5", "10.77.0.9", { gateway: "10.78.0.1" }), /gateway is not in/],
  ])("%s %j is refused", (name, settings, message) => {
    expect(() => check(name, settings)).toThrow(message);
  });
  test("what fits is taken", () => {
    check("boot0", server("10.77.0.5", "10.77.0.9", { gateway: "10.77.0.1" }));
    check("boot0", { mode: "proxy" });
    expect(() =>
      netbootChangeSchema.parse({ interface: "boot0", settings: { mode: "server" } }),
    ).toThrow(/needs a pool/);
  });
});

describe("certificate", () => {
  const box = new SecretBox(randomBytes(32));

  test("the CA stays; the server's is made anew for a new address; keys are private", async () => {
    const state = join(directory, "state");
    const first = await serverCertificate(state, "node1", ["10.0.0.1"], box);
    const same = await serverCertificate(state, "node1", ["10.0.0.1"], box);
    expect(same).toEqual(first);
    const moved = await serverCertificate(state, "node1", ["10.0.0.2"], box);
    expect(moved.fingerprint).toBe(first.fingerprint);
    expect(moved.chain).not.toBe(first.chain);
    expect(statSync(join(state, "tls", "ca.key")).mode & 0o777).toBe(0o600);
    expect(statSync(join(state, "tls", "server.key")).mode & 0o777).toBe(0o600);
  });

  test("a server certificate of another CA is replaced", async () => {
    const [a, b] = [join(directory, "a"), join(directory, "b")];
    await serverCertificate(a, "node1", [], box);
    await serverCertificate(b, "node1", [], box);
    for (const file of ["server.crt", "server.key"]) {
      writeFileSync(join(a, "tls", file), readFileSync(join(b, "tls", file)));
    }
    const mended = await serverCertificate(a, "node1", [], box);
    expect(mended.chain).not.toContain(readFileSync(join(b, "tls", "server.crt"), "utf8").trim());
  });
});
