import { describe, expect, test } from "vitest";
import { type AnswersInput, checkAnswers } from "#lib/answer-file/schema.ts";
import { type ContentFacts, type DiskFacts, type PlanResult, planInstall } from "./plan.ts";

const gib = 2 ** 30;
const needs = { minimumDiskBytes: 5.6 * gib, minimumStoreBytes: gib };
const poolA = { id: "5f0c1de2-0b7a-4a51-9c57-2f6d1f7a9e10", name: "alpha" };
const poolB = { id: "6f0c1de2-0b7a-4a51-9c57-2f6d1f7a9e10", name: "beta" };

function disk(path: string, change: Partial<DiskFacts> = {}): DiskFacts {
  return {
    path,
    links: [`/dev/disk/by-id/virtio-${path.slice(-1)}`],
    sizeBytes: 100 * gib,
    model: "Model X",
    serial: `serial-${path.slice(-1)}`,
    readOnly: false,
    medium: false,
    partitionTable: undefined,
    content: [],
    ...change,
  };
}

function part(path: string, change: Partial<ContentFacts> = {}): ContentFacts {
  return {
    path,
    sizeBytes: gib,
    label: undefined,
    fileSystem: "ext4",
    partitionUuid: `uuid-${path.slice(-2)}`,
    pool: undefined,
    ...change,
  };
}

const medium = disk("/dev/sr0", { medium: true });
const debian = disk("/dev/vdb", { partitionTable: "gpt", content: [part("/dev/vdb1")] });
const poolDisk = disk("/dev/vdc", {
  partitionTable: "gpt",
  content: [part("/dev/vdc1", { fileSystem: undefined, pool: poolA })],
});
const oldNode = disk("/dev/vdd", {
  partitionTable: "gpt",
  content: [
    part("/dev/vdd1", { label: "keelson-bios", fileSystem: undefined }),
    part("/dev/vdd2", { label: "keelson-esp", fileSystem: "vfat" }),
    part("/dev/vdd3", { label: "keelson_2026.10.0", fileSystem: "erofs" }),
    part("/dev/vdd5", { label: "_empty", fileSystem: undefined }),
    part("/dev/vdd7", { label: "keelson-var" }),
    part("/dev/vdd8", { label: "keelson-store", fileSystem: undefined, pool: poolB }),
  ],
});

function plan(disks: readonly DiskFacts[], change: Partial<AnswersInput>): PlanResult {
  const checked = checkAnswers({
    version: 1,
    node: { name: "k1" },
    disk: "only",
    admin: { passwordHash: `$6$abcdefgh$${"a".repeat(86)}` },
    ...change,
  });
  if (!checked.ok) throw new Error(checked.problems.map(({ message }) => message).join());
  return planInstall([medium, ...disks], checked.answers, needs);
}

describe("which disk", () => {
  const two = [disk("/dev/vda"), disk("/dev/vde", { sizeBytes: 500 * gib, model: "Model Y" })];
  test.each<[string, readonly DiskFacts[], AnswersInput["disk"], string]>([
    ["the only one", [disk("/dev/vda")], "only", "/dev/vda"],
    ["by path", two, { path: "/dev/vde" }, "/dev/vde"],
    ["by a lasting path", two, { path: "/dev/disk/by-id/virtio-e" }, "/dev/vde"],
    ["by serial", two, { serial: "serial-a" }, "/dev/vda"],
    ["by model, whatever the case", two, { model: "model y" }, "/dev/vde"],
    ["by size", two, { minSize: "200G" }, "/dev/vde"],
    [
      "a read-only one does not count",
      [disk("/dev/vda"), disk("/dev/vdf", { readOnly: true })],
      "only",
      "/dev/vda",
    ],
  ])("%s", (_, disks, selector, path) => {
    const result = plan(disks, { disk: selector });
    expect(result).toMatchObject({ ok: true, plan: { disk: { path } } });
  });

  test.each<[string, readonly DiskFacts[], AnswersInput["disk"], RegExp]>([
    ["none at all", [], "only", /There is no disk/],
    ["two for only", two, "only", /2 disks match disk "only": \/dev\/vda .*; \/dev\/vde/],
    ["two for a size", two, { minSize: "50G" }, /2 disks match minSize '50G'/],
    ["a serial nobody has", two, { serial: "nope" }, /No disk matches serial 'nope'\. There are:/],
    ["the medium itself", two, { path: "/dev/sr0" }, /No disk matches/],
    [
      "too small, with what is needed",
      [disk("/dev/vda", { sizeBytes: 4 * gib })],
      "only",
      /too small: 5\.6 GiB are needed, 1\.6 GiB more than it has/,
    ],
  ])("refuses %s", (_, disks, selector, reason) => {
    const result = plan(disks, { disk: selector });
    expect(result).toMatchObject({ ok: false, reason: expect.stringMatching(reason) });
  });

  test("a larger store needs a larger disk", () => {
    expect(plan([disk("/dev/vda")], { store: { size: "95G" } })).toMatchObject({ ok: true });
    expect(plan([disk("/dev/vda")], { store: { size: "96G" } })).toMatchObject({
      ok: false,
      reason: expect.stringMatching(/100\.6|101 GiB/),
    });
  });
});

describe("what may be erased", () => {
  test.each<[string, readonly DiskFacts[], Partial<AnswersInput>, RegExp]>([
    ["other data, disk only", [debian], {}, /holds data: ext4 on \/dev\/vdb1/],
    ["other data, by size", [debian], { disk: { minSize: "10G" } }, /holds data/],
    ["other data, by model", [debian], { disk: { model: "Model X" } }, /holds data/],
    ["a pool, disk only", [poolDisk], {}, /Keelson pool 'alpha'.*doesn't allow to erase/],
    [
      "a pool, though the disk is named",
      [poolDisk],
      { disk: { path: "/dev/vdc" } },
      /Keelson pool 'alpha'/,
    ],
    [
      "a pool, though another is named",
      [poolDisk],
      { erasePools: ["beta"] },
      /Keelson pool 'alpha'/,
    ],
    ["an old node's pool", [oldNode], { disk: { serial: "serial-d" } }, /Keelson pool 'beta'/],
    ["a pool that isn't there", [oldNode], { store: { pool: "gone" } }, /There is no pool 'gone'/],
    [
      "a name that fits two pools",
      [
        poolDisk,
        disk("/dev/vdf", { content: [part("/dev/vdf", { pool: { ...poolB, name: "alpha" } })] }),
      ],
      { disk: { path: "/dev/vdc" }, erasePools: ["alpha"] },
      /fits 2 pools/,
    ],
    [
      "foreign data beside a named pool",
      [disk("/dev/vdc", { content: [...poolDisk.content, part("/dev/vdc2", { label: "home" })] })],
      { erasePools: ["alpha"] },
      /holds data: ext4 'home' on \/dev\/vdc2/,
    ],
  ])("not %s", (_, disks, change, reason) => {
    expect(plan(disks, change)).toMatchObject({ ok: false, reason: expect.stringMatching(reason) });
  });

  test.each<[string, readonly DiskFacts[], Partial<AnswersInput>]>([
    ["other data on a disk named by path", [debian], { disk: { path: "/dev/vdb" } }],
    ["other data on a disk named by serial", [debian], { disk: { serial: "serial-b" } }],
    ["a pool named by id", [poolDisk], { erasePools: [poolA.id] }],
    ["a pool named by name", [poolDisk], { erasePools: ["alpha"] }],
    ["an old node with its pool named", [oldNode], { erasePools: ["beta"] }],
    ["an empty partition table", [disk("/dev/vda", { partitionTable: "gpt" })], {}],
  ])("%s", (_, disks, change) => {
    expect(plan(disks, change)).toMatchObject({ ok: true });
  });

  test("pools on other disks stay and are said to", () => {
    const result = plan([disk("/dev/vda"), poolDisk], {
      disk: { path: "/dev/vda" },
      erasePools: ["alpha"],
    });
    expect(result).toMatchObject({
      ok: true,
      plan: { erases: [], keeps: [expect.stringContaining("alpha")], store: { kind: "new" } },
    });
  });
});

describe("an existing pool is used", () => {
  test("from another disk", () => {
    const result = plan([disk("/dev/vda"), poolDisk], {
      disk: { path: "/dev/vda" },
      store: { pool: "alpha" },
    });
    expect(result).toMatchObject({
      ok: true,
      plan: {
        store: { kind: "kept", device: "/dev/disk/by-partuuid/uuid-c1" },
        keepsPartition: undefined,
      },
    });
  });

  test("on the disk that is installed to: everything else goes", () => {
    const result = plan([oldNode], { store: { pool: poolB.id } });
    expect(result).toMatchObject({
      ok: true,
      plan: { keepsPartition: { path: "/dev/vdd8" }, keeps: [expect.stringContaining("beta")] },
    });
    expect(result.ok && result.plan.erases).toHaveLength(5);
  });
});
