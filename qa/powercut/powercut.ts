/**
 * Power cuts on a real chunk-store: the process is killed under load, and its disk then keeps any
 * subset of the sectors that were not flushed. Nothing flushed may be missing, no block torn, and
 * `keelson store check` must find the store sound before it is mounted again.
 */
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { dataFormats } from "#lib/data-format/formats.ts";
import { isKeelsonError, KeelsonError } from "#lib/model/errors.ts";
import type { VolumeId } from "#lib/model/ids.ts";
import { Random } from "#lib/sim/random.ts";
import { BlockStatus } from "#lib/volume/block.ts";
import { NbdVolume } from "#services/chunk-store/nbd-volume.ts";
import { checkDevice } from "#services/chunk-store/offline.ts";
import { openStore } from "#services/chunk-store/store-device.ts";
import { CutDisk } from "./cut-disk.ts";
import { fioVerify, fioVolumeBytes, fioVolumeId, fioWrite, requireFio } from "./fio.ts";
import { Load, type LoadCounts } from "./load.ts";
import { StoreProcess } from "./store-process.ts";

export interface PowerCutOptions {
  readonly rounds: number;
  readonly seed: number;
  /** The disk says yes to a flush and does nothing: this must be found out. */
  readonly swallowFlushes?: boolean;
  readonly addon?: boolean;
  /** fio fills a volume before each cut, and verifies it afterwards. */
  readonly fio?: boolean;
  /** The store's data past the page cache. */
  readonly direct?: boolean;
  readonly onRound?: (round: number, text: string) => void;
}

export interface PowerCutResult extends LoadCounts {
  /** Cuts made; fewer than asked for if something was lost. */
  readonly rounds: number;
  /** The first thing found wrong, or null. */
  readonly problem: string | null;
}

const storeBytes = 32 * 2 ** 20;
const volumeId = "5e1f0c1a-3b62-4d0e-9c0c-d0a1f2b3c4d5" as VolumeId;
const workers = 6;

/** Ends at the first problem. Needs /dev/fuse and root or fusermount3. */
export async function runPowerCuts(options: PowerCutOptions): Promise<PowerCutResult> {
  if (options.fio) requireFio();
  const directory = mkdtempSync(join(tmpdir(), "keelson-powercut-"));
  mkdirSync(join(directory, "state"));
  const durable = join(directory, "disk.img");
  const made = openStore({
    path: durable,
    createBytes: storeBytes,
    pool: undefined,
    memoryBytes: 0,
    format: dataFormats["chunk-store"].newest,
  });
  made.store.shutdown();
  let disk: CutDisk | undefined;
  let store: StoreProcess | undefined;
  const random = new Random(options.seed);
  const load = new Load(workers);
  const environment = options.addon === false ? { KEELSON_NO_NATIVE: "1" } : {};
  const flags = options.direct === true ? ["--direct"] : [];
  let rounds = 0;
  let problem: string | null = null;
  // Also when it is told to stop half-way.
  const abandon = () => {
    store?.abandon();
    disk?.abandon();
    rmSync(directory, { recursive: true, force: true });
  };
  process.once("exit", abandon);
  try {
    disk = await CutDisk.mount(durable, join(directory, "mnt"), options.swallowFlushes ?? false);
    store = await StoreProcess.start(directory, disk.file, environment, flags);
    await store.call("PUT", `/v1/volumes/${volumeId}`, { sizeBytes: load.sizeBytes });
    if (options.fio) {
      await store.call("PUT", `/v1/volumes/${fioVolumeId}`, { sizeBytes: fioVolumeBytes });
    }
    while (rounds < options.rounds && problem === null) {
      if (options.fio) await fillByFio(store, rounds);
      await loadUntilKilled(store, load, random);
      const text = disk.cut(random.next(), random.pick([0, 10, 50, 50, 90, 100]));
      rounds++;
      problem = checkOffline(disk.file);
      if (problem !== null) break;
      try {
        store = await StoreProcess.start(directory, disk.file, environment, flags);
      } catch (error) {
        // A store that does not mount after a power cut has lost everything.
        if (!isKeelsonError(error)) throw error;
        problem = error.message;
        break;
      }
      problem = await check(store, load);
      if (options.fio) problem ??= await fioVerify(store, rounds - 1);
      options.onRound?.(rounds, `${text}, ${load.counts.writes} writes so far`);
    }
  } finally {
    process.off("exit", abandon);
    await store?.kill();
    await disk?.unmount();
    rmSync(directory, { recursive: true, force: true });
  }
  return { rounds, problem, ...load.counts };
}

/** As `keelson store check` finds what the cut has left; null: sound. */
function checkOffline(file: string): string | null {
  const [first] = checkDevice(file, { data: true }).problems;
  return first === undefined ? null : `keelson store check: ${first.text}`;
}

async function openVolume(store: StoreProcess, id = volumeId): Promise<NbdVolume> {
  const volume = await NbdVolume.open(store.ringPath, id);
  if (typeof volume === "object") return volume;
  throw new KeelsonError("NOT_FOUND", `Volume ${id} does not open: status ${volume}.`);
}

async function fillByFio(store: StoreProcess, round: number): Promise<void> {
  await fioWrite(store, round);
  const volume = await openVolume(store, fioVolumeId);
  const status = await volume.flush();
  volume.close();
  if (status !== BlockStatus.ok)
    throw new KeelsonError("INTERNAL", `A flush ended with ${status}.`);
}

async function loadUntilKilled(store: StoreProcess, load: Load, random: Random): Promise<void> {
  const volume = await openVolume(store);
  const running = load.run(volume, random);
  await new Promise((resolve) => setTimeout(resolve, 100 + random.below(500)));
  await store.kill();
  load.stop();
  volume.close();
  await running;
}

async function check(store: StoreProcess, load: Load): Promise<string | null> {
  try {
    const volume = await openVolume(store);
    await load.verify(volume);
    volume.close();
    return load.problem ?? null;
  } catch (error) {
    if (!isKeelsonError(error)) throw error;
    return error.message;
  }
}
