import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { openClusterStore } from "#lib/cluster-store/open.ts";
import type { ClusterStore } from "#lib/cluster-store/store.ts";
import { firstFormats, raised } from "#lib/data-format/formats.ts";
import { HeldFormatsFile } from "#lib/data-format/held.ts";
import { type PolicyMigration, policyFormatKey, settlePolicyFormat } from "./policy-format.ts";

let folder: string;
let store: ClusterStore;
let held: HeldFormatsFile;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "keelson-policy-format-"));
  store = openClusterStore(`sqlite:${join(folder, "cluster.sqlite")}`);
  held = new HeldFormatsFile(join(folder, "formats.json"));
});
afterEach(async () => {
  await store.close();
  rmSync(folder, { recursive: true, force: true });
});

const next = { oldest: 1, newest: 2 };
/** A next version's: sizes in a member of their own. */
const toSecond: PolicyMigration = {
  to: 2,
  async run(target) {
    for (const { key, value, modRevision } of (await target.list("policy/record/volume/"))
      .entries) {
      const { size, ...rest } = JSON.parse(value);
      if (size === undefined) continue;
      await target.transact(
        [{ key, modRevision }],
        [{ put: key, value: JSON.stringify({ ...rest, sizeBytes: size }) }],
      );
    }
  },
};
const volume = "policy/record/volume/1";
const put = (key: string, value: unknown) =>
  store.transact([], [{ put: key, value: JSON.stringify(value) }]);
const get = async (key: string) => JSON.parse((await store.get(key))?.value ?? "null");

test("records stay as the old slot reads them while the new version is on trial", async () => {
  await put(volume, { id: "1", size: 5 });
  expect(await settlePolicyFormat(store, held, next, [toSecond])).toBe(1);
  expect(await get(volume)).toEqual({ id: "1", size: 5 });
  expect(await settlePolicyFormat(store, held), "the old slot, back again").toBe(1);

  held.write(raised(firstFormats, { policy: next }));
  expect(await settlePolicyFormat(store, held, next, [toSecond])).toBe(2);
  expect(await get(volume)).toEqual({ id: "1", sizeBytes: 5 });
  await expect(settlePolicyFormat(store, held)).rejects.toThrow(
    "Policy has format 2; this version reads 1.",
  );
});

test("a migration that was cut off is done again, and counts only when all of it is done", async () => {
  await put(volume, { id: "1", size: 5 });
  held.write(raised(firstFormats, { policy: next }));
  const cut: PolicyMigration = {
    to: 2,
    async run(target) {
      await toSecond.run(target);
      throw new Error("the power went");
    },
  };
  await expect(settlePolicyFormat(store, held, next, [cut])).rejects.toThrow("the power went");
  expect(await store.get(policyFormatKey)).toBeUndefined();
  expect(await settlePolicyFormat(store, held, next, [toSecond])).toBe(2);
  expect(await get(volume)).toEqual({ id: "1", sizeBytes: 5 });
});

test.each([["3"], ["0"], ["two"], [""]])(
  "format %j is refused before a record is read",
  async (text) => {
    await store.transact([], [{ put: policyFormatKey, value: text }]);
    await expect(settlePolicyFormat(store, held, next, [toSecond])).rejects.toMatchObject({
      code: "FORMAT_UNKNOWN",
    });
  },
);
