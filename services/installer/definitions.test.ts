import { readdirSync, readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { installDefinitions, readRepartOutput } from "./definitions.ts";

/** The image's own definitions. */
const folder = new URL("../../image/repart.d/", import.meta.url);
const definitions = readdirSync(folder)
  .sort()
  .map((name) => ({ name, text: readFileSync(new URL(name, folder), "utf8") }));

const byLabel = (result: readonly { text: string }[], label: string) =>
  result.filter(({ text }) => text.includes(`Label=${label}\n`)).map(({ text }) => text);

test("contents are the installer's own business", () => {
  const result = installDefinitions(definitions, { storeBytes: undefined, withoutStore: false });
  expect(result).toHaveLength(definitions.length);
  expect(result.filter(({ text }) => /Copy|MakeDirectories/.test(text))).toEqual([]);
  expect(byLabel(result, "keelson-esp")[0]).toContain("Format=vfat");
});

test("partitions of fixed size take no part in sharing out the disk", () => {
  const result = installDefinitions(definitions, { storeBytes: undefined, withoutStore: false });
  for (const label of ["keelson-bios", "keelson-esp", "_empty"]) {
    for (const text of byLabel(result, label)) expect(text).toMatch(/^Weight=0$/m);
  }
  expect(byLabel(result, "keelson-store")[0]).not.toMatch(/^Weight=0$/m);
  expect(byLabel(result, "keelson-var")[0]).not.toMatch(/^Weight=0$/m);
});

test("a store of a given size has exactly that, in whole blocks", () => {
  const result = installDefinitions(definitions, {
    storeBytes: 10_000_000_001,
    withoutStore: false,
  });
  const [store] = byLabel(result, "keelson-store");
  expect(store.match(/^Size\w+=.*$/gm)).toEqual([
    "SizeMinBytes=10000003072",
    "SizeMaxBytes=10000003072",
  ]);
  expect(store.match(/^Weight=.*$/gm)).toEqual(["Weight=0"]);
});

test("no store partition where an existing store is used", () => {
  const result = installDefinitions(definitions, { storeBytes: undefined, withoutStore: true });
  expect(byLabel(result, "keelson-store")).toEqual([]);
  expect(result).toHaveLength(definitions.length - 1);
});

test("systemd-repart's answer, with words before it", () => {
  const output =
    'Applying changes.\n[{"type":"esp","label":"keelson-esp","uuid":"aa-bb","node":"/dev/vda2"},{"type":"x","uuid":"cc"}]';
  expect(readRepartOutput(output)).toEqual([
    { label: "keelson-esp", uuid: "aa-bb", device: "/dev/vda2" },
    { label: "", uuid: "cc", device: "/dev/disk/by-partuuid/cc" },
  ]);
});
