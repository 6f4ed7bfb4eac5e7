/** Seeds side by side, each lane a thread: a seed's run depends on nothing but the seed. */
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";
import { type Counts, play } from "./play.ts";
import { SimFailure } from "./run.ts";

export interface SeedFailure {
  readonly seed: number;
  readonly what: string;
}

export type SeedResult = { readonly seed: number; readonly counts: Counts } | SeedFailure;

interface Range {
  readonly first: number;
  readonly seeds: number;
  readonly operations: number;
  /** Ends with the first failure. */
  readonly until: boolean;
}

/** What a seed makes dies with it: in a larger young generation most of it is never copied. */
const resourceLimits = { maxYoungGenerationSizeMb: 96 };

/** Lane n of `lanes` takes every `lanes`-th seed. With one lane there is no thread. */
export async function runLanes(
  lanes: number,
  range: Range,
  onResult: (result: SeedResult) => void,
): Promise<void> {
  if (lanes === 1) {
    runLane(range, 0, 1, onResult);
    return;
  }
  const workers = Array.from(
    { length: lanes },
    (_, lane) =>
      new Worker(new URL(import.meta.url), { workerData: { range, lane, lanes }, resourceLimits }),
  );
  await Promise.all(
    workers.map(
      (worker) =>
        new Promise<void>((resolve, reject) => {
          worker.on("message", (result: SeedResult) => {
            onResult(result);
            if (range.until && !("counts" in result)) {
              for (const each of workers) void each.terminate();
            }
          });
          worker.once("error", reject);
          worker.once("exit", () => resolve());
        }),
    ),
  );
}

function runLane(
  { first, seeds, operations, until }: Range,
  lane: number,
  lanes: number,
  onResult: (result: SeedResult) => void,
): void {
  for (let seed = first + lane; seed < first + seeds; seed += lanes) {
    try {
      onResult({ seed, counts: play({ seed, operations }) });
    } catch (error) {
      if (!(error instanceof SimFailure)) throw error;
      onResult({ seed, what: error.message });
      if (until) return;
    }
  }
}

if (!isMainThread && parentPort !== null) {
  const { range, lane, lanes } = workerData as { range: Range; lane: number; lanes: number };
  runLane(range, lane, lanes, (result) => parentPort!.postMessage(result));
}
