/** 100,000 random operations of every kind; then all is deleted, and every block is free again. */
import { expect, test } from "vitest";
import { isKeelsonError } from "#lib/model/errors.ts";
import { SimDisk } from "#lib/sim/disk.ts";
import { Random } from "#lib/sim/random.ts";
import { BlockOp, BlockStatus } from "#lib/volume/block.ts";
import { createBatch } from "#lib/volume/executor.ts";
import { checksum } from "../file-disk.ts";
import { blockBytes } from "../limits.ts";
import { auditStore } from "./audit.ts";
import { checkpointNow } from "./checkpoint.ts";
import type { Lineage, Snapshot } from "./lineages.ts";
import { formatStore, mountStore } from "./mount.ts";
import { Transfer } from "./transfer.ts";
import { device, id, pool, storeId } from "./used-disk.fixture.ts";

const operations = 100_000;
const volumeBlocks = 1024;

test("after everything was deleted every block is free again", () => {
  const disk = new SimDisk(48 << 20, new Random(1), (bytes) => checksum(bytes, 0, bytes.length));
  formatStore(disk, { device, pool, store: storeId, nowMs: 0, checksum });
  const store = mountStore(disk, { device, checksum, memoryBytes: 0 });
  const { lineages, allocator } = store;
  const before = allocator.freeBlocks;
  const transfer = new Transfer(store);
  const batch = createBatch();
  batch.payload = new Uint8Array(16 * blockBytes);
  const random = new Random(20_261_128);
  let nextId = 1;
  const counts = new Map<string, number>();
  const count = (what: string) => counts.set(what, (counts.get(what) ?? 0) + 1);

  const settle = () => {
    for (let i = 0; i < 100_000 && (store.turn() === 0 || disk.finishFlush()); i++);
  };
  const request = (lineage: Lineage, op: number) => {
    const first = random.below(volumeBlocks - 16);
    const blocks = 1 + random.below(16);
    batch.count = 1;
    batch.op[0] = op;
    batch.volume[0] = 0;
    batch.sector[0] = first * 8;
    batch.lengthBytes[0] = blocks * blockBytes;
    batch.payloadOffset[0] = 0;
    batch.payload.fill(1 + random.below(255), 0, blocks * blockBytes);
    transfer.execute(batch, [{ lineage, snapshot: null }]);
    const status = batch.status[0];
    if (status !== BlockStatus.ok) expect(status).toBe(BlockStatus.noSpace);
    count(status === BlockStatus.ok ? (op === BlockOp.write ? "write" : "discard") : "full");
    return status === BlockStatus.ok;
  };
  const pickVolume = () => random.pick([...lineages.byUuid.values()]) as Lineage | undefined;
  const pickSnapshot = () => random.pick([...lineages.snapshots.values()]) as Snapshot | undefined;
  const deleteSome = () => {
    const snapshot = pickSnapshot();
    if (snapshot !== undefined) store.deleteSnapshot(snapshot);
    const volume = lineages.byUuid.size > 1 ? pickVolume() : undefined;
    if (volume !== undefined) store.deleteVolume(volume);
    count("delete");
    settle();
  };

  for (let i = 0; i < operations; i++) {
    const volume = lineages.byUuid.size > 0 ? pickVolume() : undefined;
    const dice = random.below(1000);
    try {
      if (volume === undefined || (dice < 4 && lineages.byUuid.size < 12)) {
        store.createVolume(id(nextId++), volumeBlocks * blockBytes, null);
        count("create");
      } else if (dice < 850) {
        if (!request(volume, BlockOp.write)) deleteSome();
      } else if (dice < 950) request(volume, BlockOp.discard);
      else if (dice < 970 && lineages.snapshots.size < 60) {
        store.createSnapshots([{ lineage: volume, uuid: id(nextId++) }], i);
        count("snapshot");
      } else if (dice < 980 && lineages.snapshots.size > 0 && lineages.byUuid.size < 12) {
        store.createVolume(id(nextId++), volumeBlocks * blockBytes, pickSnapshot()!);
        count("clone");
      } else if (dice < 985 && volume.snapshots.some(({ deleted }) => !deleted)) {
        const own = volume.snapshots.filter(({ deleted }) => !deleted);
        store.revertVolume(volume, random.pick(own));
        count("revert");
      } else deleteSome();
    } catch (error) {
      if (!isKeelsonError(error, "NO_SPACE")) throw error;
      deleteSome();
    }
    if (i % 50 === 0) settle();
    if (i % 10_000 === 0) expect(auditStore(store), `after ${i} operations`).toEqual([]);
  }
  for (const what of ["write", "discard", "create", "snapshot", "clone", "revert", "delete"]) {
    expect(counts.get(what), what).toBeGreaterThan(100);
  }

  for (const snapshot of [...lineages.snapshots.values()]) store.deleteSnapshot(snapshot);
  for (const volume of [...lineages.byUuid.values()]) store.deleteVolume(volume);
  settle();
  checkpointNow(store);
  checkpointNow(store);
  expect(auditStore(store)).toEqual([]);
  expect({ lineages: lineages.byNumber.size, records: store.index.live }).toEqual({
    lineages: 0,
    records: 0,
  });
  const { used, reclaiming } = store.space();
  expect({ used, reclaiming }).toEqual({ used: 0, reclaiming: 0 });
  // Some pages of the index stay, empty: their numbers are for life.
  const kept = store.hidden.index.length;
  const tables = Object.values(store.hidden).reduce((sum, slots) => sum + slots.length, 0);
  expect(before - allocator.freeBlocks).toBe(tables);
  expect(kept).toBeLessThan(20);
});
