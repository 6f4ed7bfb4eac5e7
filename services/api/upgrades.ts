/** keelson-firmware-updater over its socket: its state followed, its operations passed on. */

import { join } from "node:path";
import type { Readable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import type { UpgradeState as UpdaterState } from "#firmware-updater/schema.ts";
import { KeelsonError } from "#lib/model/errors.ts";
import { unixFetch, unixPost } from "#lib/rpc/client.ts";
import { errorOf } from "#lib/rpc/problem.ts";
import type {
  OfferedBundle,
  PlanStart,
  SharedIndex,
  SourceSettings,
  UpgradePlan,
  UpgradeState,
} from "./upgrade-schema.ts";

const waitSeconds = 25;
const retryMs = 5_000;
const callTimeoutMs = 60_000;
/** A bundle is answered when all of it has come and was verified. */
const slowCallTimeoutMs = 3_600_000;

export class Upgrades {
  readonly #socket: string;
  readonly #fetch: typeof fetch;
  readonly #slowFetch: typeof fetch;
  #last: UpgradeState | null = null;
  #onChange: () => void = () => {};

  constructor(run: string) {
    this.#socket = join(run, "api.sock");
    this.#fetch = unixFetch(this.#socket, callTimeoutMs);
    this.#slowFetch = unixFetch(this.#socket, slowCallTimeoutMs);
  }

  /** What the updater said last; null before it did, and on nodes without one. */
  get last(): UpgradeState | null {
    return this.#last;
  }

  onChange(listener: () => void): void {
    this.#onChange = listener;
  }

  /** Keeps `last` fresh until `signal` aborts. A node without an updater is asked now and then. */
  async follow(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        const after = this.#last?.revision ?? -1;
        const next = await this.#state(`?after=${after}&wait=${waitSeconds}`, signal);
        if (next.revision !== after) {
          this.#last = next;
          this.#onChange();
        }
      } catch {
        if (this.#last !== null) {
          this.#last = null;
          this.#onChange();
        }
        await sleep(retryMs, undefined, { signal }).catch(() => {});
      }
    }
  }

  async state(): Promise<UpgradeState> {
    return await this.#state("", AbortSignal.timeout(callTimeoutMs));
  }

  async #state(query: string, signal: AbortSignal): Promise<UpgradeState> {
    const answer = await this.#fetch(`http://unix/v1/state${query}`, { signal });
    const document: unknown = await answer.json().catch(() => null);
    if (!answer.ok) throw errorOf(document, answer.status);
    const state: UpdaterState = document as UpdaterState;
    return state as UpgradeState;
  }

  async upload(source: Readable, lengthBytes: number | null, name: string): Promise<OfferedBundle> {
    const { status, document } = await unixPost(this.#socket, "/v1/bundles", source, {
      headers: {
        "content-type": "application/octet-stream",
        "x-upload-name": encodeURIComponent(name),
        ...(lengthBytes === null ? {} : { "content-length": String(lengthBytes) }),
      },
      idleMs: slowCallTimeoutMs,
    });
    if (status !== 201) throw errorOf(document, status);
    return document as OfferedBundle;
  }

  fetchBundle(id: string): Promise<OfferedBundle> {
    return this.#call("POST", `bundles/${encodeURIComponent(id)}/fetch`);
  }

  removeBundle(id: string): Promise<void> {
    return this.#call("DELETE", `bundles/${encodeURIComponent(id)}`);
  }

  /** The file's answer as it is: status, headers, stream. */
  async bundleFile(id: string, range: string | undefined): Promise<Response> {
    const answer = await this.#slowFetch(`http://unix/v1/bundles/${encodeURIComponent(id)}/file`, {
      headers: range === undefined ? {} : { range },
    });
    if (!answer.ok) throw errorOf(await answer.json().catch(() => null), answer.status);
    return answer;
  }

  /** What a neighbour may copy: only what is here and verified. Addresses are relative to the index. */
  async shared(): Promise<SharedIndex> {
    const { bundles } = this.#last ?? (await this.state());
    return {
      format: 1,
      bundles: bundles.flatMap(({ id, version, sizeBytes, notes, state }) =>
        state === "here" && version !== null
          ? [{ url: `shared/${id}`, version, sizeBytes, notes }]
          : [],
      ),
    };
  }

  preview(id: string): Promise<UpgradePlan> {
    return this.#call("GET", `bundles/${encodeURIComponent(id)}/plan`);
  }

  start(body: PlanStart): Promise<UpgradePlan> {
    return this.#json("POST", "plan/start", body);
  }

  cancel(): Promise<UpgradePlan> {
    return this.#call("POST", "plan/cancel");
  }

  rollBack(): Promise<UpgradePlan> {
    return this.#call("POST", "rollback");
  }

  setSources(body: SourceSettings): Promise<UpgradeState> {
    return this.#json("PUT", "sources", body);
  }

  checkSources(): Promise<UpgradeState> {
    return this.#call("POST", "sources/check");
  }

  clearFailure(): Promise<void> {
    return this.#call("DELETE", "failure");
  }

  #json<Answer>(method: string, path: string, body: unknown): Promise<Answer> {
    return this.#call(method, path, {
      body: JSON.stringify(body),
      headers: { "content-type": "application/json" },
    });
  }

  async #call<Answer>(
    method: string,
    path: string,
    sent: { body?: string; headers?: Record<string, string> } = {},
  ): Promise<Answer> {
    const answer = await this.#slowFetch(`http://unix/v1/${path}`, { method, ...sent });
    if (answer.status === 204) return undefined as Answer;
    const document: unknown = await answer.json().catch(() => null);
    if (!answer.ok) throw errorOf(document, answer.status);
    if (document === null) {
      throw new KeelsonError("UNAVAILABLE", "The updater's answer is not JSON.");
    }
    return document as Answer;
  }
}
