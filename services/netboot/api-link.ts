/**
 * netboot's side of api's internal socket: what a machine boots, and what was seen of it. api may
 * be away at any time; a boot answer then says so, and reports wait, up to a minute or a full queue.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { z } from "zod";
import { KeelsonError } from "#lib/model/errors.ts";
import { unixFetch } from "#lib/rpc/client.ts";
import { errorOf } from "#lib/rpc/problem.ts";
import type { BootAnswer, BootRequest, StageReport } from "#services/api/boot-schema.ts";
import type { Counters } from "./counters.ts";

const answerSchema = z.discriminatedUnion("action", [
  z.object({
    action: z.literal("san"),
    /** 0.0.0.0 stands for the address that the client reached netboot on. */
    portal: z.string().regex(/^\d+\.\d+\.\d+\.\d+(:\d{1,5})?$/),
    iqn: z.string(),
    lun: z.int().min(0).max(16_383),
    initiatorIqn: z.string(),
    chap: z.object({ user: z.string(), secret: z.string() }),
  }),
  z.object({ action: z.literal("unknown"), message: z.string() }),
  z.object({ action: z.literal("error"), message: z.string() }),
]);

/** First boot clones an image, so api may take its time. */
const bootTimeoutMs = 30_000;
const reportTimeoutMs = 10_000;
const maxQueue = 256;
/** A report that could not be told for so long is dropped: nobody waits for that boot any more. */
const reportAgeMs = 60_000;
const retryMs = 1_000;

export class ApiLink {
  #fetchBoot: typeof fetch;
  #fetchReport: typeof fetch;
  #counters: Counters;
  #queue: { readonly report: StageReport; readonly sinceMs: number }[] = [];
  #sending: Promise<void> | undefined;

  constructor(socket: string, counters: Counters) {
    this.#fetchBoot = unixFetch(socket, bootTimeoutMs);
    this.#fetchReport = unixFetch(socket, reportTimeoutMs);
    this.#counters = counters;
  }

  /** UNAVAILABLE when api doesn't answer, PROTOCOL when its answer can't be understood. */
  async boot(request: BootRequest): Promise<BootAnswer> {
    const response = await post(this.#fetchBoot, "/v1/boot", request, bootTimeoutMs);
    const body: unknown = await response.json().catch(() => null);
    if (!response.ok) throw errorOf(body, response.status);
    const parsed = answerSchema.safeParse(body);
    if (parsed.success) return parsed.data;
    throw new KeelsonError("PROTOCOL", "The API's boot answer has an unknown form.", {
      operation: "ask for a boot answer",
      remedy: "Are api and netboot of the same version?",
      cause: parsed.error,
    });
  }

  /** Fire and forget, in order. */
  report(report: StageReport): void {
    if (this.#queue.length >= maxQueue) {
      this.#counters.add("report.dropped.queue-full");
      return;
    }
    this.#queue.push({ report, sinceMs: performance.now() });
    this.#sending ??= this.#drain().finally(() => {
      this.#sending = undefined;
    });
  }

  async #drain(): Promise<void> {
    for (let next = this.#queue[0]; next !== undefined; next = this.#queue[0]) {
      const tooOld = performance.now() - next.sinceMs > reportAgeMs;
      const fate = tooOld ? "dropped.too-old" : await this.#send(next.report);
      if (fate === undefined) {
        // api starts again, or is busy: a stage lost would be missing from that boot for good.
        this.#counters.add("report.again");
        await sleep(retryMs, undefined, { ref: false });
        continue;
      }
      this.#queue.shift();
      this.#counters.add(`report.${fate}`);
    }
  }

  /** Undefined: api was not reached. */
  async #send(report: StageReport): Promise<"sent" | "refused" | undefined> {
    try {
      const response = await post(this.#fetchReport, "/v1/clients/stages", report, reportTimeoutMs);
      await response.body?.cancel();
      return response.ok ? "sent" : "refused";
    } catch {
      return undefined;
    }
  }
}

function post(send: typeof fetch, path: string, body: unknown, timeoutMs: number) {
  return send(`http://unix${path}`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
    signal: AbortSignal.timeout(timeoutMs),
  });
}
