/** Made-up networks, upgrades and certificates of a node on a busy day, typed by api's schemas. */

import type { AuditTarget } from "#services/api/audit-target-schema.ts";
import type { Firewall, Network } from "#services/api/network-schema.ts";
import type { Tls } from "#services/api/tls-schema.ts";
import type {
  OfferedBundle,
  PlanStep,
  UpgradePlan,
  UpgradeState,
} from "#services/api/upgrade-schema.ts";

const dayMs = 86_400_000;
const ago = (ageMs: number) => new Date(Date.now() - ageMs).toISOString();

function link(name: string, fields: Partial<Network["links"][number]> = {}) {
  return {
    name,
    kind: "port",
    mac: "52:54:00:1a:00:01",
    permanentMac: "52:54:00:1a:00:01",
    up: true,
    carrier: true,
    speedMbps: 10_000,
    mtu: 9000,
    addresses: [],
    ...fields,
  } satisfies Network["links"][number];
}

function network(pending: boolean): Network {
  const config: Network["config"] = {
    bonds: [
      {
        name: "bond0",
        ports: ["enp1s0", "enp2s0"],
        mode: "active-backup",
        primary: "enp1s0",
        miimonMs: 100,
      },
    ],
    lan: {
      interface: "bond0",
      address: "192.0.2.10/24",
      gateway: "192.0.2.1",
      dns: ["192.0.2.1"],
      mtu: 9000,
    },
    backplane: { interface: "lan", vlan: 20, address: "10.9.0.1/24", mtu: 9000 },
  };
  return {
    config,
    pending: pending ? { id: "c1", config, applied: true, secondsLeft: 47 } : null,
    lastChange: {
      id: "c0",
      outcome: "reverted",
      at: ago(dayMs),
      reason: "Nobody confirmed it within 60 seconds.",
    },
    roles: { lan: "bond0", backplane: "backplane" },
    links: [
      link("enp1s0", { master: "bond0" }),
      link("enp2s0", { master: "bond0", carrier: false }),
      link("enp3s0", { up: false, carrier: false }),
      link("bond0", {
        kind: "bond",
        addresses: [{ address: "192.0.2.10/24", dynamic: false }],
        bond: { mode: "active-backup", activePort: "enp1s0", primary: "enp1s0", miimonMs: 100 },
      }),
      link("backplane", {
        kind: "vlan",
        addresses: [{ address: "10.9.0.1/24", dynamic: false }],
        vlan: { id: 20, parent: "bond0" },
      }),
    ],
    problems: [],
    differences: [
      { link: "enp2s0", kind: "degraded", message: "A port of bond0 has no link: plug it in." },
    ],
    firewall: { active: true, failure: null },
    restartNeeded: null,
  };
}

const firewall: Firewall = {
  active: true,
  failure: null,
  open: [
    {
      service: "api",
      protocol: "tcp",
      port: 443,
      why: "console and API",
      interfaces: ["bond0"],
      networks: ["lan"],
      newPerSecond: 200,
    },
    {
      service: "iscsi-target",
      protocol: "tcp",
      port: 3260,
      why: "iSCSI",
      interfaces: ["bond0", "backplane"],
      networks: ["lan", "backplane"],
      newPerSecond: null,
    },
  ],
  rules: "table inet keelson {}",
};

const titles = {
  verify: "Check the bundle's signature and hashes",
  preflight: "Look whether the node is fit for it",
  write: "Write the other slot",
  arm: "Make it the one that starts next, with three tries",
  quiesce: "Bring services to rest",
  restart: "Restart",
  gate: "Watch for two minutes whether all works",
  commit: "Keep the new release",
} as const;

/** `running`: which step is under way; those before it are done. */
export function upgradePlan(running: keyof typeof titles | undefined): UpgradePlan {
  const ids = Object.keys(titles) as (keyof typeof titles)[];
  const at = running === undefined ? -1 : ids.indexOf(running);
  const steps = ids.map(
    (id, index): PlanStep => ({
      id,
      node: "node-1",
      title: titles[id],
      state: index < at ? "done" : index === at ? "running" : "waiting",
      progressPercent: index === at ? 42 : null,
      startedAt: index <= at ? ago((at - index + 1) * 20_000) : null,
      endedAt: index < at ? ago((at - index) * 20_000) : null,
      message: index === at ? "1.1 GiB of 2.6 GiB" : null,
    }),
  );
  return {
    id: "p1",
    kind: "upgrade",
    fromVersion: "2026.11.0",
    toVersion: "2026.12.0",
    bundleId: "b1",
    state: running === undefined ? "planned" : "running",
    cancellable: at < ids.indexOf("arm"),
    steps,
    startedAt: running === undefined ? null : ago(60_000),
    endedAt: null,
    interruptionSeconds: 75,
    failure: null,
  };
}

const offered: OfferedBundle = {
  id: "b1",
  version: "2026.12.0",
  notes:
    "Bonds fail back to their primary port.\nUpgrades return by themselves when a release doesn't work.",
  sizeBytes: 734_003_200,
  source: { kind: "upload", where: "" },
  state: "here",
  receivedBytes: 734_003_200,
  message: null,
  developmentKey: false,
  offeredAt: ago(3_600_000),
  startable: { ok: true },
};

function upgrade(running: boolean): UpgradeState {
  return {
    revision: 1,
    nodes: [
      {
        node: "node-1",
        firmware: "uefi",
        running: { slot: "a", version: "2026.11.0", state: "good", triesLeft: null },
        other: { slot: "b", version: "2026.10.2", state: "good", triesLeft: null },
        wayBack: { ok: true },
        developmentBuild: false,
      },
    ],
    bundles: [
      offered,
      {
        ...offered,
        id: "b2",
        version: "2026.12.1",
        source: { kind: "channel", where: "https://releases.example/stable" },
        state: "remote",
        startable: { ok: false, why: "It is not on this node yet: fetch it first." },
      },
      {
        ...offered,
        id: "b3",
        version: null,
        notes: "",
        source: { kind: "usb", where: "/media/stick/keelson-2026.12.0.kbundle" },
        state: "refused",
        message: "The file ends after 12 of 734 MB: copy it again.",
        startable: { ok: false, why: "It was refused." },
      },
    ],
    plan: running ? upgradePlan("write") : null,
    history: [
      {
        planId: "h2",
        kind: "upgrade",
        fromVersion: "2026.11.0",
        toVersion: "2026.11.9",
        result: "returned",
        startedAt: ago(2 * dayMs),
        endedAt: ago(2 * dayMs - 600_000),
        message: "The API answered 500 for two minutes.",
      },
      {
        planId: "h1",
        kind: "installation",
        fromVersion: null,
        toVersion: "2026.10.2",
        result: "done",
        startedAt: ago(60 * dayMs),
        endedAt: ago(60 * dayMs),
        message: null,
      },
    ],
    lastFailure: {
      planId: "h2",
      version: "2026.11.9",
      at: ago(2 * dayMs),
      reason: "The API answered 500 for two minutes.",
      attempts: [
        { bootId: "1", startedAt: ago(2 * dayMs), reached: "services up", reason: null },
        {
          bootId: "2",
          startedAt: ago(2 * dayMs - 200_000),
          reached: "services up",
          reason: "GET /ping: 500",
        },
      ],
      log: Array.from(
        { length: 60 },
        (_, line) =>
          `Nov 19 05:12:${String(line).padStart(2, "0")} node-1 keelson-api[812]: line ${line}`,
      ),
    },
    sources: {
      channel: "https://releases.example/stable",
      neighbour: null,
      neighbourFingerprint: null,
      checkedAt: ago(600_000),
      message: null,
    },
    spool: { freeBytes: 9e9, limitBytes: 4e9 },
  };
}

const certificate = {
  subject: "CN=node-1",
  issuer: "CN=Keelson node-1 CA",
  names: ["node-1.example", "192.0.2.10"],
  validFrom: ago(30 * dayMs),
  validTo: ago(-12 * dayMs),
  keyType: "EC P-256",
  serial: "01",
  fingerprint: Array.from({ length: 32 }, () => "A7").join(":"),
};

const tls: Tls = {
  source: "uploaded",
  certificate,
  chain: [certificate],
  names: [
    { name: "node-1.example", covered: true },
    { name: "fd00::2", covered: false },
  ],
  uploadedAt: ago(30 * dayMs),
  caCertificate: "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n",
  caFingerprint: certificate.fingerprint,
};

/** `busy`: it doesn't take them. */
function auditTarget(busy: boolean): AuditTarget {
  return {
    settings: {
      url: "syslog+tls://logs.example.org:6514",
      caCertificate: null,
      everySeconds: 300,
      everyEntries: 50,
      tokenSet: false,
      changedAt: ago(dayMs),
    },
    delivered: { sequence: 4711, at: ago(busy ? dayMs : 60_000) },
    waiting: busy ? 12 : 0,
    failure: busy
      ? { reason: "logs.example.org:6514 refuses connections.", since: ago(dayMs / 2) }
      : null,
  };
}

/** `busy`: an upgrade and a change of the networks are under way. */
export function nodeDocuments(busy: boolean): Readonly<Record<string, unknown>> {
  return {
    network: network(busy),
    "network/firewall": firewall,
    upgrade: upgrade(busy),
    "upgrade/bundles/b1/plan": upgradePlan(undefined),
    "settings/tls": tls,
    "settings/audit-target": auditTarget(busy),
  };
}
