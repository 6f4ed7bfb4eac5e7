/** Entry of the thread that owns the store: mounts it, then serves the ring until told to stop. */
import { parentPort, workerData } from "node:worker_threads";
import { createLog } from "#lib/service/log.ts";
import { StoreExecutor } from "./executor.ts";
import { failure, serveRing } from "./ring-worker.ts";
import type { RingWorkerData } from "./ring-worker-client.ts";
import { openStore, type StoreDeviceOptions } from "./store-device.ts";

export interface StoreThreadData extends StoreDeviceOptions {
  readonly ringPath: string;
}

const port = parentPort!;
const { wakeFd, own } = workerData as RingWorkerData<StoreThreadData>;
const log = createLog("keelson-chunk-store");
try {
  const started = performance.now();
  const { store, disk, created } = openStore(own);
  store.onMediaError = (volume, offsetBytes, block) =>
    log.error("checksum mismatch", { volume, offsetBytes, block, device: own.path });
  store.onRetired = (reason) => log.error(`the store retired: ${reason}`, { device: own.path });
  log.info(created ? "store created and mounted" : "store mounted", {
    device: own.path,
    generation: store.superblock.mountGeneration,
    volumes: store.lineages.byUuid.size,
    ms: Math.round(performance.now() - started),
    addon: disk.wakeFd >= 0,
  });
  const executor = new StoreExecutor(store, disk);
  await serveRing({ executor, path: own.ringPath, port, wakeFd });
} catch (error) {
  port.postMessage(failure(error));
}
