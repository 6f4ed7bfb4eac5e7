/** `qcow2`: random overwrites over NBD, chunk-store beside QEMU's qcow2, with and without snapshots. */
import { join } from "node:path";
import { Random } from "#lib/sim/random.ts";
import { blockBytes } from "#services/chunk-store/limits.ts";
import {
  type Comparison,
  type ComparisonOptions,
  type Figure,
  inTurn,
  type NotMeasured,
  versus,
} from "./comparison.ts";
import { ChunkStore, Qcow2, type ServedVolume } from "./served-volumes.ts";

const depth = 32;
const mebibyte = 2 ** 20;
const manySnapshots = 1000;
/** Few enough that most still meet a block for the first time since the snapshot. */
const writesAfterSnapshot = 2048;
const unit = "writes/s";

export const qcow2: Comparison = {
  name: "qcow2",
  needBytes: (regionBytes) => 7 * regionBytes,
  method: [
    "Random 4 KiB overwrites, 32 at once and then a flush, over NBD on a unix socket, one connection, the same client for both. The volume was written once in order.",
    "store: the real chunk-store, its NBD server (16 requests in flight, meant for import and export) and the ring's fall-back socket between them, its file written before. qcow2: qemu-storage-daemon, cache.direct=off, cache.no-flush=off, 64 KiB clusters.",
    `right after a snapshot: the first ${writesAfterSnapshot} overwrites. with 1,000 snapshots: a volume of the store's that has them to one that has none.`,
  ],
  run: compareQcow2,
};

async function compareQcow2(options: ComparisonOptions): Promise<(Figure | NotMeasured)[]> {
  const { directory, regionBytes, seconds, progress } = options;
  const store = await ChunkStore.start(directory, 4 * regionBytes);
  let peer: Qcow2 | undefined;
  try {
    peer = await Qcow2.start(join(directory, "qcow2"), regionBytes);
    const volume = await store.volume(regionBytes);
    for (const [name, served] of Object.entries({ store: volume, qcow2: peer })) {
      progress(`filling ${name}`);
      await fill(served);
    }
    const overwriteFor = (served: ServedVolume) => overwrite(served, { seconds });
    const plain = await inTurn(options, unit, {
      store: () => overwriteFor(volume),
      qcow2: () => overwriteFor(peer!),
    });
    const figures = [
      versus("4k-randwrite-qd32", unit, plain.store, plain.qcow2),
      await afterSnapshot(volume, peer, options),
      await withManySnapshots(volume, () => store.volume(regionBytes), options),
    ];
    volume.client.close();
    peer.client.close();
    return figures;
  } finally {
    await peer?.stop();
    await store.stop();
  }
}

async function fill({ client }: ServedVolume): Promise<void> {
  const data = new Uint8Array(mebibyte).fill(0xa5);
  for (let at = 0; at < client.sizeBytes; at += mebibyte) await client.write([at], data);
  await client.flush();
}

const random = new Random(6);

/** Writes a second, flushes within the time; for some seconds, or so many writes. */
async function overwrite(
  { client }: ServedVolume,
  end: { readonly seconds: number } | { readonly writes: number },
): Promise<number> {
  const data = new Uint8Array(blockBytes).fill(0x5a);
  const blocks = client.sizeBytes / blockBytes;
  const started = performance.now();
  const elapsed = () => (performance.now() - started) / 1000;
  let writes = 0;
  while ("seconds" in end ? elapsed() < end.seconds : writes < end.writes) {
    const positions = Array.from({ length: depth }, () => random.below(blocks) * blockBytes);
    await client.write(positions, data);
    await client.flush();
    writes += depth;
  }
  return writes / elapsed();
}

async function afterSnapshot(
  store: ServedVolume,
  peer: ServedVolume,
  options: ComparisonOptions,
): Promise<Figure> {
  const name = "right after a snapshot";
  let taken = 0;
  const measure = async (served: ServedVolume) => {
    const snapshot = `after-${taken++}`;
    await served.snapshots.takeSnapshot(snapshot);
    const value = await overwrite(served, { writes: writesAfterSnapshot });
    await served.snapshots.deleteSnapshot(snapshot);
    return value;
  };
  const values = await inTurn(options, unit, {
    store: () => measure(store),
    qcow2: () => measure(peer),
  });
  return versus(name, unit, values.store, values.qcow2, { atLeast: 2 });
}

/** Not to qcow2: the store's volume with snapshots, a few overwrites apart, to one without. */
async function withManySnapshots(
  volume: ServedVolume,
  another: () => Promise<ServedVolume>,
  options: ComparisonOptions,
): Promise<Figure> {
  const name = "with 1,000 snapshots, to none";
  const bare = await another();
  await fill(bare);
  for (let i = 0; i < manySnapshots; i++) {
    await volume.snapshots.takeSnapshot(`many-${i}`);
    await overwrite(volume, { writes: depth });
  }
  const { seconds } = options;
  const values = await inTurn(options, unit, {
    "1,000": () => overwrite(volume, { seconds }),
    none: () => overwrite(bare, { seconds }),
  });
  bare.client.close();
  return versus(name, unit, values["1,000"], values.none, { atLeast: 0.9 });
}
