import { expect, test } from "vitest";
import { checkNetworkConfig } from "#lib/network/schema.ts";
import { configOf, draftOf, freeBondName, type NetworkConfig } from "./network-draft.ts";

function checked(value: unknown): NetworkConfig {
  const result = checkNetworkConfig(value);
  if (!result.ok) throw new Error(JSON.stringify(result.problems));
  return result.config;
}

const full = checked({
  bonds: [{ name: "bond0", ports: ["enp1s0", "enp2s0"], primary: "enp2s0", miimonMs: 250 }],
  lan: {
    interface: "bond0",
    address: "192.0.2.10/24",
    gateway: "192.0.2.1",
    dns: ["192.0.2.1", "192.0.2.2"],
    mtu: 9000,
  },
  backplane: { interface: "lan", vlan: 20, address: "10.9.0.1/24", mtu: 9000 },
  netboot: { interface: "enp3s0", mode: "proxy", address: "10.77.0.1/24" },
});

test.each([
  ["everything", full],
  ["nothing but what is given", checked({})],
])("%s: what wasn't edited comes back as it was", (_name, config) => {
  expect(checked(configOf(draftOf(config), config))).toEqual(config);
});

test("a backplane that is turned off is gone; network boot stays", () => {
  const draft = draftOf(full);
  const config = configOf({ ...draft, backplane: { ...draft.backplane, on: false } }, full);
  expect(config.backplane).toBeUndefined();
  expect(config.netboot).toEqual(full.netboot);
});

test("what is no number goes to the check as it was typed, and is refused there by its place", () => {
  const draft = draftOf(full);
  const config = configOf({ ...draft, lan: { ...draft.lan, mtu: "big" } }, full);
  expect(checkNetworkConfig(config)).toMatchObject({ ok: false, problems: [{ path: "lan.mtu" }] });
});

test("by DHCP there is no fixed gateway", () => {
  const draft = draftOf(full);
  const config = configOf({ ...draft, lan: { ...draft.lan, dhcp: true } }, full);
  expect(config.lan).not.toHaveProperty("gateway");
  expect(config.lan?.address).toBe("dhcp");
});

test("a new bond takes the first free number", () => {
  expect(freeBondName([])).toBe("bond0");
  expect(freeBondName(draftOf(full).bonds)).toBe("bond1");
});
