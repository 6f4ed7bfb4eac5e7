/**
 * netboot's side of api's internal socket: what a machine boots, and what was seen of it. api may
 * be away at any time; a boot answer then says so, and reports are dropped once the queue is full.
 */
import { z } from "zod";
import { isKeelsonError, KeelsonError } from "#lib/model/errors.ts";
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

export class ApiLink {
  #fetchBoot: typeof fetch;
  #fetchReport: typeof fetch;
  #counters: Counters;
  #queue: StageReport[] = [];
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
    this.#queue.push(report);
    this.#sending ??= this.#drain().finally(() => {
      this.#sending = undefined;
    });
  }

  async #drain(): Promise<void> {
    for (let next = this.#queue.shift(); next !== undefined; next = this.#queue.shift()) {
      try {
        const response = await post(this.#fetchReport, "/v1/clients/stages", next, reportTimeoutMs);
        await response.body?.cancel();
        this.#counters.add(response.ok ? "report.sent" : "report.refused");
      } catch (error) {
        this.#counters.add(
          isKeelsonError(error, "UNAVAILABLE") ? "report.dropped.api-away" : "report.dropped.error",
        );
      }
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
