/** A running store reads itself: what memory has is written anew, what it has not is reported. */
import { expect, test } from "vitest";
import type { SimDisk } from "#lib/sim/disk.ts";
import { checksum } from "../file-disk.ts";
import { blockBytes } from "../limits.ts";
import { auditStore } from "./audit.ts";
import { checkStore } from "./check.ts";
import { mountStore } from "./mount.ts";
import { type ScrubStep, scrubStep } from "./scrub.ts";
import type { Store } from "./store.ts";
import { blocksInUse, device, flip, id, usedDisk } from "./used-disk.fixture.ts";

const mount = (disk: SimDisk) => mountStore(disk, { device, checksum, memoryBytes: 0 });

function scrub(store: Store, disk: SimDisk) {
  const steps: ScrubStep[] = [];
  for (let from: number | null = 0; from !== null; from = steps.at(-1)!.next) {
    steps.push(scrubStep(store, from));
    for (let i = 0; i < 100 && (store.turn() === 0 || disk.finishFlush()); i++);
  }
  return {
    steps: steps.length,
    bytes: steps.reduce((sum, step) => sum + step.bytes, 0),
    healed: steps.reduce((sum, step) => sum + step.healed, 0),
    bad: steps.flatMap(({ bad }) => bad),
  };
}

test("a sound store is read in small steps, all of its data once, and nothing is found", () => {
  const disk = usedDisk();
  const data = blocksInUse(disk).filter(({ what }) => what === "data");
  const store = mount(disk);
  const { bad, healed, steps, bytes } = scrub(store, disk);
  expect({ bad, healed }).toEqual({ bad: [], healed: 0 });
  expect(steps).toBeGreaterThan(10);
  expect(bytes).toBeGreaterThanOrEqual(data.length * blockBytes);
});

test("each bad block of data is found once, whatever else is read", () => {
  const disk = usedDisk();
  const data = blocksInUse(disk).filter(({ what }) => what === "data");
  const store = mount(disk);
  for (const { block } of data) flip(disk, block * blockBytes + 9, 1);
  const { bad } = scrub(store, disk);
  expect(bad.map(({ block }) => block).sort()).toEqual(data.map(({ block }) => block).sort());
  expect(new Set(bad.map(({ volume }) => volume))).toEqual(new Set([id(1), id(3)]));
});

test("superblocks, index, bitmap and tables are written anew from memory", () => {
  const disk = usedDisk();
  const store = mount(disk);
  const bad = [0, 1, ...Object.values(store.hidden).flat()];
  for (const block of bad) flip(disk, block * blockBytes + 12, 5);
  expect(scrub(store, disk)).toMatchObject({ healed: bad.length, bad: [] });
  expect(scrub(store, disk)).toMatchObject({ healed: 0, bad: [] });
  expect(auditStore(store)).toEqual([]);
  store.shutdown();
  expect(checkStore(disk, { device, checksum, memoryBytes: 0, data: true }).problems).toEqual([]);
});

test("a map page that is in memory is written anew; one that isn't is reported", () => {
  const disk = usedDisk();
  const store = mount(disk);
  const { index, cache } = store;
  const records = Array.from({ length: index.count }, (_, record) => record).filter(
    (record) => index.lineage[record] !== 0,
  );
  const [kept, lost] = records;
  cache.load(kept);
  cache.forget(lost);
  for (const record of [kept, lost]) flip(disk, index.slot[record] * blockBytes + 80, 2);
  const { healed, bad } = scrub(store, disk);
  expect(healed).toBe(1);
  expect(bad).toMatchObject([{ why: "map", block: index.slot[lost], volume: id(1) }]);
  expect(scrub(store, disk)).toMatchObject({ healed: 0, bad: [{ why: "map" }] });
});
