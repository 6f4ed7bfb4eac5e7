import { describe, expect, test } from "vitest";
import { bad, type Checked, good } from "#lib/aime/checked.ts";
import type { ServedStoreInfo, VolumeInfo } from "#services/chunk-store/schema.ts";
import type { InterfaceView, NetbootStatus } from "#services/netboot/schema.ts";
import { ConditionBoard, type ConditionInput, judgeAll } from "./conditions.ts";
import type { ImageRecord, LockedRecord, Policy, VolumeRecord } from "./policy.ts";

const origin = { source: "chunk-store", atMs: 1000, maxAgeMs: 20_000 };
const ok = <Value>(value: Value): Checked<Value> => good(value, origin);

const size = 1000 * 2 ** 20;
const store = (change: Partial<ServedStoreInfo> = {}) =>
  ok({
    state: "mounted",
    sizeBytes: size,
    freeBytes: size / 2,
    checksumErrors: 0,
    badBlocks: { count: 0, first: null },
    ...change,
  } as ServedStoreInfo);

interface Records {
  volume?: Partial<VolumeRecord>[];
  image?: Partial<ImageRecord>[];
}
const policy = (records: Records = {}, revision = 10, locked: readonly LockedRecord[] = []) =>
  ({
    revision,
    locked: () => locked,
    list: (kind: keyof Records) => records[kind] ?? [],
  }) as unknown as Pick<Policy, "list" | "revision" | "locked">;

const netboot = (change: Partial<NetbootStatus> = {}) =>
  ok({ generation: 1, interfaces: [], missingLoaders: [], ...change } as unknown as NetbootStatus);

const eth1 = (change: Partial<InterfaceView>): InterfaceView => ({
  name: "eth1",
  mode: "server",
  otherServers: [],
  poolSize: 0,
  leased: 0,
  ...change,
});

const overdue = {
  reason: "It refuses connections.",
  since: "2026-11-21T08:00:00.000Z",
  forMs: 900_000,
};

const calm: ConditionInput = {
  observation: {
    store: store(),
    volumes: ok([]),
    snapshots: ok([]),
    target: ok({} as never),
    exports: ok({ generation: 10, exports: [] }),
    sessions: ok({ sessions: [], ended: [] }),
    netboot: netboot(),
  },
  problems: [],
  policy: policy(),
  netbootWanted: true,
  clusterStore: ok("etcd"),
  network: null,
  clockSynchronised: ok(true),
  devBuild: false,
  sealedBy: "tpm2",
  tls: null,
  audit: { failure: null, damage: null },
  headDelivery: null,
  scheduleFailures: new Map(),
  nowMs: 2000,
};

const judged = (change: Partial<ConditionInput>, id: string) =>
  judgeAll({ ...calm, ...change }).find(
    ({ code, subject }) => (subject === null ? code : `${code}:${subject}`) === id,
  )?.finding;
const observed = (change: Partial<ConditionInput["observation"]>): Partial<ConditionInput> => ({
  observation: { ...calm.observation, ...change },
});

test("nothing is wrong on a node where nothing is", () => {
  expect(judgeAll(calm).filter(({ finding }) => finding.status !== "false")).toEqual([]);
});

describe("each fault is true when it is there, with its reason", () => {
  const faults: [string, Partial<ConditionInput>, RegExp][] = [
    ["STORE_FAILED", observed({ store: store({ state: "failed", reason: "fsync: EIO" }) }), /EIO/],
    [
      "STORE_SPACE_LOW",
      observed({ store: store({ freeBytes: size * 0.1 }) }),
      /100 MiB of 1000 MiB/,
    ],
    [
      "STORE_FULL",
      observed({ store: store({ freeBytes: size * 0.02 }) }),
      /writes fail, reads go on/,
    ],
    ["STORE_CHECKSUM_ERRORS", observed({ store: store({ checksumErrors: 2 }) }), /2 reads/],
    [
      "STORE_BAD_BLOCKS",
      observed({
        store: store({
          device: "/dev/sdb4",
          badBlocks: {
            count: 3,
            first: { block: 7, volume: "v", offsetBytes: 8192, snapshot: null, why: "checksum" },
          },
        }),
      }),
      /3 blocks of \/dev\/sdb4 are bad; the first is block 7, of volume v at offset 8192/,
    ],
    [
      "STORE_UNKNOWN_VOLUMES",
      observed({ volumes: ok([{ id: "stranger" } as VolumeInfo]) }),
      /stranger.*left alone/,
    ],
    ["SERVICE_UNREACHABLE:chunk-store", observed({ store: bad("no socket", origin) }), /no socket/],
    ["SERVICE_UNREACHABLE:iscsi-target", observed({ target: bad("gone", origin) }), /gone/],
    ["SERVICE_UNREACHABLE:netboot", observed({ netboot: bad("gone", origin) }), /gone/],
    ["SERVICE_UNREACHABLE:cluster-store", { clusterStore: bad("no quorum", origin) }, /quorum/],
    [
      "POLICY_BEHIND:iscsi-target",
      observed({ exports: ok({ generation: 11, exports: [] }) }),
      /generation 11; the cluster store is at 10/,
    ],
    [
      "POLICY_NOT_APPLIED:v",
      { problems: [{ step: "deleteVolume", object: "v", reason: "In use.", since: "" }] },
      /In use/,
    ],
    [
      "VOLUME_FAILED:v",
      {
        policy: policy({ volume: [{ id: "v", name: "disk", state: "failed", failure: "Full." }] }),
      },
      /disk: Full/,
    ],
    [
      "IMAGE_IMPORT_FAILED:i",
      {
        policy: policy({ image: [{ id: "i", name: "debian", state: "failed", failure: "Cut." }] }),
      },
      /debian: Cut/,
    ],
    ["AUDIT_LOG_FAILED", { audit: { failure: "/var is full.", damage: null } }, /No change is/],
    [
      "AUDIT_HEADS_NOT_DELIVERED",
      { headDelivery: { host: "logs:6514", failure: overdue } },
      /logs:6514 took none since 2026-11-21T08:00:00.000Z. It refuses connections/,
    ],
    ["AUDIT_LOG_DAMAGED", { audit: { failure: null, damage: "x was changed." } }, /x was changed/],
    ["SECRETS_WEAKLY_SEALED", { sealedBy: "host" }, /who has the whole disk/],
    ["SECRETS_WEAKLY_SEALED", { sealedBy: "file" }, /as for development/],
    [
      "SECRETS_LOCKED:export/e",
      { policy: policy({}, 10, [{ kind: "export", id: "e", why: "Another key." }]) },
      /Another key/,
    ],
    [
      "TLS_CERTIFICATE_EXPIRING",
      { tls: { unusable: null, ends: { at: "2026-12-01", subject: "k1", soon: true } } },
      /k1 is valid until 2026-12-01/,
    ],
    ["TLS_CERTIFICATE_UNUSABLE", { tls: { unusable: "Another key.", ends: null } }, /Another key/],
    [
      "NETBOOT_INTERFACE:eth1",
      observed({
        netboot: netboot({
          interfaces: [eth1({ problem: "no address" })],
        }),
      }),
      /no address/,
    ],
    [
      "NETBOOT_OTHER_SERVER:eth1",
      observed({ netboot: netboot({ interfaces: [eth1({ otherServers: ["10.0.0.9"] })] }) }),
      /10\.0\.0\.9 gives out addresses too/,
    ],
    [
      "NETBOOT_LOADER_MISSING",
      observed({ netboot: netboot({ missingLoaders: ["ipxe.efi"] }) }),
      /ipxe\.efi/,
    ],
    ["CLOCK_NOT_SYNCHRONISED", { clockSynchronised: ok(false) }, /No time server/],
    ["DEVELOPMENT_BUILD", { devBuild: true }, /throw-away key/],
  ];
  test.each(faults)("%s", (id, change, reason) => {
    const finding = judged(change, id);
    expect(finding?.status).toBe("true");
    expect(finding?.reason).toMatch(reason);
  });
});

describe("what can't be known is unknown", () => {
  const blind = observed({ store: bad("no socket", origin), volumes: bad("no socket", origin) });
  test.each(["STORE_FAILED", "STORE_SPACE_LOW", "STORE_FULL", "STORE_UNKNOWN_VOLUMES"])(
    "%s, when the store doesn't answer or answered long ago",
    (id) => {
      expect(judged(blind, id)?.status).toBe("unknown");
      expect(judged({ nowMs: 21_000 }, id)?.status).toBe("unknown");
    },
  );
  test("CLOCK_NOT_SYNCHRONISED, without a time service", () => {
    const clockSynchronised = bad("nobody says", origin);
    expect(judged({ clockSynchronised }, "CLOCK_NOT_SYNCHRONISED")?.status).toBe("unknown");
  });
});

test("heads are overdue after a quarter of an hour of failures, not at the first", () => {
  const id = "AUDIT_HEADS_NOT_DELIVERED";
  const failing = (forMs: number) => ({
    headDelivery: { host: "logs:6514", failure: { ...overdue, forMs } },
  });
  expect(judged(failing(899_999), id)?.status).toBe("false");
  expect(judged(failing(900_000), id)?.status).toBe("true");
  expect(judged({ headDelivery: { host: "logs:6514", failure: null } }, id)?.status).toBe("false");
  expect(judged({}, id)).toBeUndefined();
});

test("a full store isn't also nearly full", () => {
  const change = observed({ store: store({ freeBytes: 0 }) });
  expect(judged(change, "STORE_SPACE_LOW")?.status).toBe("false");
});

test("a node that isn't asked to netboot has no netboot faults", () => {
  const ids = judgeAll({
    ...calm,
    netbootWanted: false,
    ...observed({ netboot: bad("x", origin) }),
  });
  expect(ids.some(({ code, subject }) => code.startsWith("NETBOOT") || subject === "netboot")).toBe(
    false,
  );
});

describe("the board", () => {
  let nowMs = 0;
  const board = new ConditionBoard({
    bootMs: () => nowMs,
    now: () => new Date(Date.UTC(2026, 10, 21) + nowMs).toISOString(),
  });
  const find = (id: string) => board.list().find((condition) => condition.id === id);

  test("keeps since, mutes for a time, and forgets what is gone", () => {
    board.update(judgeAll({ ...calm, devBuild: true }));
    const { since } = find("DEVELOPMENT_BUILD")!;
    nowMs = 5000;
    board.update(judgeAll({ ...calm, devBuild: true }));
    expect(find("DEVELOPMENT_BUILD")).toMatchObject({ since, status: "true", mutedUntil: null });
    expect(find("DEVELOPMENT_BUILD")?.lastSeenAt).not.toBe(since);
    expect(board.mute("DEVELOPMENT_BUILD", 60_000)).toBe(true);
    expect(find("DEVELOPMENT_BUILD")?.mutedUntil).toBe("2026-11-21T00:01:05.000Z");
    nowMs = 65_000;
    expect(find("DEVELOPMENT_BUILD")?.mutedUntil).toBeNull();
    expect(board.mute("NO_SUCH", 1)).toBe(false);
    board.update([]);
    expect(board.list()).toEqual([]);
  });
});
