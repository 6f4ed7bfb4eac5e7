/**
 * Scrubs: from time to time all of the store is read again, at a bounded rate, so that a bad block
 * is known before its data is needed. One at a time; a restart goes on where it was.
 *
 *   due or told -> running --all read--> finished
 *                     |  `--told------> stopped
 *                     `--store failed-> failed
 */
import { setTimeout as sleep } from "node:timers/promises";
import { z } from "zod";
import { explainError, KeelsonError } from "#lib/model/errors.ts";
import type { Log } from "#lib/service/log.ts";
import { readStateFile, writeStateFile } from "#lib/service/state-file.ts";
import type { ScrubStep } from "./engine/scrub.ts";
import {
  type BadBlocks,
  badBlocksSchema,
  type ScrubInfo,
  type ScrubRun,
  type ScrubSettings,
  scrubRunSchema,
  scrubSettingsSchema,
} from "./schema.ts";

export interface ScrubberOptions {
  /** Where settings and the last run are kept. */
  readonly file: string;
  step(from: number): Promise<ScrubStep>;
  nowMs(): number;
  readonly log: Log;
}

const defaults: ScrubSettings = { everyDays: 14, bytesPerSecond: 32 * 2 ** 20 };
const saveMs = 30_000;
const dueMs = 60_000;
const dayMs = 86_400_000;
/** Kept of a run; more are counted. */
const mostBad = 1000;

const fileSchema = z.object({
  version: z.literal(1),
  settings: scrubSettingsSchema,
  /** When it was first due to count from, ms since 1970. */
  sinceMs: z.number(),
  run: scrubRunSchema.extend({ position: z.number() }).nullable(),
  badBlocks: badBlocksSchema,
});
type Kept = z.infer<typeof fileSchema>;

export class Scrubber {
  readonly #options: ScrubberOptions;
  readonly #stopping = new AbortController();
  readonly #timer: NodeJS.Timeout;
  #kept: Kept;
  #savedMs = 0;
  #running: Promise<void> | null = null;
  #stopAsked = false;

  /** What is kept is of no use if it can't be read: it begins anew, and says so. */
  constructor(options: ScrubberOptions) {
    this.#options = options;
    const fresh: Kept = {
      ...{ version: 1, settings: defaults, sinceMs: options.nowMs(), run: null },
      badBlocks: { count: 0, first: null },
    };
    this.#kept = readKept(options) ?? fresh;
    this.#save();
    if (this.#kept.run?.state === "running") this.#run();
    this.#timer = setInterval(() => this.#startIfDue(), dueMs);
    this.#timer.unref();
    this.#startIfDue();
  }

  /** Of the run that found some last, until one ends that found none: a new one clears nothing. */
  get badBlocks(): BadBlocks {
    return this.#kept.badBlocks;
  }

  info(): ScrubInfo {
    const { settings, run } = this.#kept;
    const nextMs = this.#nextMs();
    return {
      settings,
      nextAt: nextMs === null ? null : new Date(nextMs).toISOString(),
      run: run === null ? null : viewOf(run),
    };
  }

  /** CONFLICT while one runs. */
  start(): ScrubInfo {
    if (this.#running !== null) {
      throw new KeelsonError("CONFLICT", "A scrub runs already.", {
        operation: "start scrub",
        remedy: "Let it end, or stop it first.",
      });
    }
    this.#kept.run = {
      ...{ startedAt: this.#now(), endedAt: null, state: "running", reason: null },
      ...{ progressPercent: 0, readBytes: 0, healed: 0, badCount: 0, bad: [], position: 0 },
    };
    this.#save();
    this.#options.log.info("scrub started");
    this.#run();
    return this.info();
  }

  /** Without one that runs, nothing changes. */
  async stop(): Promise<ScrubInfo> {
    this.#stopAsked = true;
    await this.#running;
    this.#stopAsked = false;
    return this.info();
  }

  set(settings: ScrubSettings): ScrubInfo {
    this.#kept.settings = settings;
    this.#save();
    return this.info();
  }

  /** One that runs goes on after the next start. */
  async close(): Promise<void> {
    clearInterval(this.#timer);
    this.#stopping.abort();
    await this.#running;
    this.#save();
  }

  #nextMs(): number | null {
    const { settings, run, sinceMs } = this.#kept;
    if (settings.everyDays === 0 || run?.state === "running") return null;
    const last = run === null ? sinceMs : Date.parse(run.endedAt ?? run.startedAt);
    return last + settings.everyDays * dayMs;
  }

  #startIfDue(): void {
    const next = this.#nextMs();
    if (this.#running === null && next !== null && next <= this.#options.nowMs()) this.start();
  }

  #run(): void {
    this.#running = this.#loop().finally(() => {
      this.#running = null;
    });
  }

  async #loop(): Promise<void> {
    const { step, log } = this.#options;
    const run = this.#kept.run!;
    const { signal } = this.#stopping;
    try {
      while (!this.#stopAsked) {
        const beganMs = performance.now();
        const { next, done, of, bytes, healed, bad } = await step(run.position);
        run.readBytes += bytes;
        run.healed += healed;
        run.badCount += bad.length;
        run.bad.push(...bad.slice(0, mostBad - run.bad.length));
        if (run.badCount > 0) this.#kept.badBlocks = { count: run.badCount, first: run.bad[0] };
        for (const { block, volume, offsetBytes, why } of bad) {
          log.error("bad block", { block, volume, offsetBytes, why });
        }
        if (next === null) return this.#end("finished");
        run.position = next;
        run.progressPercent = Math.floor((100 * done) / Math.max(1, of));
        if (signal.aborted) return;
        if (bad.length > 0 || performance.now() - this.#savedMs > saveMs) this.#save();
        const takesMs = (1000 * bytes) / this.#kept.settings.bytesPerSecond;
        // Also without a pause the store's thread serves others between two steps.
        const pauseMs = takesMs - (performance.now() - beganMs);
        await sleep(Math.max(0, pauseMs), undefined, { signal });
      }
      this.#end("stopped");
    } catch (error) {
      if (signal.aborted) return;
      this.#end("failed", explainError(error));
    }
  }

  #end(state: "finished" | "stopped" | "failed", reason: string | null = null): void {
    const run = this.#kept.run!;
    Object.assign(run, { state, reason, endedAt: this.#now() });
    if (state === "finished") {
      run.progressPercent = 100;
      if (run.badCount === 0) this.#kept.badBlocks = { count: 0, first: null };
    }
    this.#save();
    const { readBytes, healed, badCount } = run;
    this.#options.log.info(`scrub ${state}`, {
      ...{ readBytes, healed, badCount },
      ...(reason === null ? {} : { reason }),
    });
  }

  #now(): string {
    return new Date(this.#options.nowMs()).toISOString();
  }

  #save(): void {
    this.#savedMs = performance.now();
    try {
      writeStateFile(this.#options.file, JSON.stringify(this.#kept));
    } catch (error) {
      this.#options.log.warn(`scrub state not kept: ${explainError(error)}`);
    }
  }
}

function viewOf({ position: _, ...run }: NonNullable<Kept["run"]>): ScrubRun {
  return run;
}

function readKept({ file, log }: ScrubberOptions): Kept | undefined {
  try {
    const found = readStateFile(file);
    if (found === undefined) return undefined;
    const parsed = fileSchema.safeParse(found);
    if (parsed.success) return parsed.data;
    log.warn(`${file} is not what it should be; scrubs begin anew`);
  } catch (error) {
    log.warn(explainError(error));
  }
  return undefined;
}
