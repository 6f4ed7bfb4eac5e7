import { expect, test } from "vitest";
import { type Health, judgeHealth, runGate } from "./gate.ts";
import { linksNow, parseUnits } from "./probes.ts";
import type { Baseline } from "./state.ts";

const names = ["cluster-store", "chunk-store", "iscsi-target", "api"];
const well: Health = {
  units: names.map((name) => ({ name, active: "active", sub: "running", restarts: 0 })),
  links: [{ mac: "52:54:00:00:00:01", name: "enp0s2", ipv4: true }],
  api: null,
  store: null,
};
const baseline: Baseline = { units: [...names, "netboot"], links: well.links };
const withNetboot: Health = {
  ...well,
  units: [...well.units, { name: "netboot", active: "active", sub: "running", restarts: 0 }],
};

/** The gate over a series of observations, five seconds apart; the last one lasts. */
async function gateOver(series: readonly Health[], holdSeconds = 20, deadlineSeconds = 100) {
  let at = 0;
  const told: string[] = [];
  const verdict = await runGate({
    settings: { holdSeconds, deadlineSeconds },
    baseline,
    probes: { observe: async () => series[Math.min(at++, series.length - 1)] },
    uptimeSeconds: () => at * 5,
    tell: (message) => told.push(message),
    pauseMs: 0,
  });
  return { verdict, told, observations: at };
}

test("all well for long enough", async () => {
  const { verdict, observations } = await gateOver([withNetboot]);
  expect(verdict).toEqual({ ok: true });
  expect(observations).toBe(5);
});

test("a gap starts the time anew", async () => {
  const broken = { ...withNetboot, api: "no answer" };
  const { verdict, observations } = await gateOver([withNetboot, withNetboot, broken, withNetboot]);
  expect(verdict.ok).toBe(true);
  expect(observations).toBe(8);
});

test.each<[string, Health, RegExp]>([
  ["API answers 500", { ...withNetboot, api: "it answers with status 500" }, /API: .*500/],
  ["store has failed", { ...withNetboot, store: "it has failed" }, /store: it has failed/],
  ["network is not up", { ...withNetboot, links: [] }, /network: enp0s2 .* is not up/],
  [
    "network has no address",
    { ...withNetboot, links: [{ ...well.links[0], ipv4: false }] },
    /enp0s2 has no IPv4 address/,
  ],
  ["a service that ran is not there", well, /service netboot is not there/],
  [
    "a service has failed",
    { ...withNetboot, units: withNetboot.units.map((unit) => ({ ...unit, active: "failed" })) },
    /service api is failed/,
  ],
])("%s until the deadline", async (_name, health, reason) => {
  const { verdict } = await gateOver([health]);
  expect(verdict.ok).toBe(false);
  expect(verdict.ok ? "" : verdict.why).toMatch(reason);
});

test("a crash loop that looks well at each glance", async () => {
  const series = Array.from({ length: 40 }, (_, index) => ({
    ...withNetboot,
    units: withNetboot.units.map((unit) =>
      unit.name === "iscsi-target" ? { ...unit, restarts: Math.floor(index / 3) } : unit,
    ),
  }));
  const { verdict } = await gateOver(series);
  expect(verdict.ok ? "" : verdict.why).toMatch(/iscsi-target fell over/);
});

test("what ran before is wanted, what did not is not", () => {
  expect(judgeHealth(well, null)).toEqual([]);
  expect(judgeHealth(well, baseline)).toEqual(["service netboot is not there"]);
});

test("systemctl's words, and units that this node lacks", () => {
  const text = `Id=keelson-api.service
LoadState=loaded
ActiveState=active
SubState=running
NRestarts=2

Id=keelson-netboot.service
LoadState=not-found
ActiveState=inactive
SubState=dead
NRestarts=0
`;
  expect(parseUnits(text)).toEqual([
    { name: "api", active: "active", sub: "running", restarts: 2 },
  ]);
});

test("a link-local address is no address", () => {
  const address = { netmask: "", internal: false, cidr: null } as const;
  const mac = "52:54:00:00:00:01";
  const found = linksNow({
    lo: [{ ...address, address: "127.0.0.1", family: "IPv4", mac, internal: true }],
    enp0s2: [{ ...address, address: "169.254.3.4", family: "IPv4", mac }],
  });
  expect(found).toEqual([{ name: "enp0s2", mac, ipv4: false }]);
});
