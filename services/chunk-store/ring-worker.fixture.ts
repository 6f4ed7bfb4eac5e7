/** A store's thread over plain memory, for the tests of the thread itself. */
import { parentPort, workerData } from "node:worker_threads";
import type { VolumeId } from "#lib/model/ids.ts";
import { MemoryExecutor } from "#lib/volume/memory-executor.ts";
import { serveRing } from "./ring-worker.ts";
import type { RingWorkerData } from "./ring-worker-client.ts";

const { wakeFd, own } = workerData as RingWorkerData<{ path: string; volume: VolumeId }>;

class FixtureExecutor extends MemoryExecutor {
  override control(message: unknown, answer: (reply: unknown) => void): void {
    if (message === "die") process.nextTick(() => process.exit(3));
    else if (message === "throw") throw new Error("as asked");
    else answer({ echo: message });
  }
}

const executor = new FixtureExecutor();
executor.volumes.set(own.volume, new Uint8Array(1 << 20));
await serveRing({ executor, path: own.path, port: parentPort!, wakeFd });
