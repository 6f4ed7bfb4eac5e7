/**
 * The service: what it was last put, kept in its state file, and the data path that serves it. Starts
 * and serves without api, and waits for the store.
 */
import { join } from "node:path";
import { z } from "zod";
import { explainError, isKeelsonError, KeelsonError } from "#lib/model/errors.ts";
import type { SecretBox } from "#lib/seal/secret-box.ts";
import type { Log } from "#lib/service/log.ts";
import { readStateFile, writeStateFile } from "#lib/service/state-file.ts";
import { type DataLoop, startLoop } from "./control.ts";
import type { PortalAddress } from "./driver.ts";
import {
  type ApplyResult,
  type ExportsPut,
  type ExportsView,
  exportsPutSchema,
  type SessionsView,
  type TargetStatus,
} from "./schema.ts";
import type { CoreEvent } from "./target-core.ts";

/** The data path is asked for its status so often, and is given up on after so long. */
const heartbeatMs = 5_000;
const silenceLimitMs = 20_000;

/** Of the state file; a newer one is refused rather than misread. Version 1 was not sealed. */
const stateVersion = 2;
const statePlace = "iscsi-target/exports";

const stateSchema = z.union([
  z.strictObject({ version: z.literal(1), put: exportsPutSchema }),
  z.strictObject({ version: z.literal(stateVersion), sealed: z.string() }),
]);

export interface TargetOptions {
  readonly stateDir: string;
  readonly storeRun: string;
  readonly portals: readonly PortalAddress[];
  readonly native: boolean;
  readonly version: string;
  /** Seals what it is put, for the CHAP secrets in it. */
  readonly box: SecretBox;
  readonly log: Log;
  fail(error: unknown): never;
}

export class IscsiTarget {
  private readonly options: TargetOptions;
  private readonly statePath: string;
  private readonly loop: DataLoop;
  private readonly startedAt = new Date().toISOString();
  private boundPortals: readonly string[] = [];
  private generation = 0;
  private applying: Promise<unknown> = Promise.resolve();
  private readonly watchers = new Set<() => void>();
  private loopAlive = true;
  private lastAnswerMs = performance.now();
  private heartbeat: NodeJS.Timeout | undefined;

  private constructor(options: TargetOptions) {
    this.options = options;
    this.statePath = join(options.stateDir, "exports.json");
    const { log } = options;
    this.loop = startLoop(
      { storeRun: options.storeRun, native: options.native },
      {
        event: (event) => this.logEvent(event),
        sessions: () => {
          for (const watcher of this.watchers) watcher();
        },
        store: (connected, why) =>
          connected ? log.info("store connected") : log.warn("store lost", { why }),
        died: (error) => {
          this.loopAlive = false;
          options.fail(error);
        },
      },
    );
  }

  static async start(options: TargetOptions): Promise<IscsiTarget> {
    const target = new IscsiTarget(options);
    try {
      const kept = target.readState();
      if (kept !== undefined) {
        await target.loop.ask<"apply">({ type: "apply", put: kept });
        target.generation = kept.generation;
      }
      target.boundPortals = await target.loop.ask<"listen">({
        type: "listen",
        portals: options.portals,
      });
    } catch (error) {
      await target.loop.stop();
      throw error;
    }
    target.beat();
    options.log.info("serving", {
      portals: target.boundPortals.join(","),
      generation: target.generation,
    });
    return target;
  }

  /** `HOST:PORT` as bound. */
  get portals(): readonly string[] {
    return this.boundPortals;
  }

  private readState(): ExportsPut | undefined {
    const raw = readStateFile(this.statePath);
    if (raw === undefined) return undefined;
    const parsed = stateSchema.safeParse(raw);
    if (parsed.success) {
      if (!("put" in parsed.data)) return this.openState(parsed.data.sealed);
      this.writeState(parsed.data.put);
      return parsed.data.put;
    }
    const version = (raw as { version?: unknown } | null)?.version;
    if (typeof version === "number" && version > stateVersion) {
      throw new KeelsonError(
        "FORMAT_UNKNOWN",
        `${this.statePath} has format ${version}; this version reads up to ${stateVersion}.`,
        {
          operation: "read state",
          object: this.statePath,
          remedy: "Boot the version that wrote it, or move it away: api puts the policy again.",
        },
      );
    }
    throw this.unreadable(parsed.error.issues[0].path.join("."));
  }

  /** Undefined, said in the log, if it was sealed with another key: api puts the policy again. */
  private openState(sealed: string): ExportsPut | undefined {
    try {
      const plain: unknown = JSON.parse(this.options.box.open(sealed, statePlace));
      const parsed = exportsPutSchema.safeParse(plain);
      if (parsed.success) return parsed.data;
      throw this.unreadable(parsed.error.issues[0].path.join("."));
    } catch (error) {
      if (!isKeelsonError(error, "PERMISSION_DENIED")) throw error;
      const { log } = this.options;
      log.error("what was served can't be opened; waiting for api", { why: explainError(error) });
      return undefined;
    }
  }

  private writeState(put: ExportsPut): void {
    const sealed = this.options.box.seal(JSON.stringify(put), statePlace);
    writeStateFile(this.statePath, JSON.stringify({ version: stateVersion, sealed }));
  }

  /** Values are left out: they may be secrets. */
  private unreadable(place: string): KeelsonError {
    return new KeelsonError(
      "FORMAT_CORRUPT",
      `State file ${this.statePath} is unreadable at "${place}".`,
      {
        operation: "read state",
        object: this.statePath,
        remedy: "Move it away to start from nothing; api puts the policy again.",
      },
    );
  }

  private logEvent({ kind, ...fields }: CoreEvent): void {
    const { log } = this.options;
    const text = { ...fields };
    switch (kind) {
      case "login":
        log.info("logged in", text);
        return;
      case "loginFailed":
        log.warn("log-in refused", text);
        return;
      case "ended":
        log.info("session ended", text);
        return;
      case "dropped":
        log.warn("connection dropped", text);
        return;
      case "unit":
        log.info("volume", text);
    }
  }

  /**
   * Makes the exports what `put` says, kept first: after a crash the service comes back with what it
   * acknowledged. One at a time, in the order they came.
   */
  apply(put: ExportsPut): Promise<ApplyResult> {
    const next = this.applying.then(async () => {
      if (put.generation < this.generation) {
        throw new KeelsonError(
          "STALE_GENERATION",
          `Generation ${put.generation} of the exports is older than ${this.generation}, which is served.`,
          {
            operation: "apply exports",
            remedy: "Read the policy again and put what stands there.",
          },
        );
      }
      this.writeState(put);
      const result = await this.loop.ask<"apply">({ type: "apply", put });
      this.generation = put.generation;
      return result;
    });
    this.applying = next.catch(() => {});
    return next;
  }

  exports(): Promise<ExportsView> {
    return this.loop.ask<"exports">({ type: "exports" });
  }

  sessions(): Promise<SessionsView> {
    return this.loop.ask<"sessions">({ type: "sessions" });
  }

  async status(): Promise<TargetStatus> {
    return {
      version: this.options.version,
      startedAt: this.startedAt,
      generation: this.generation,
      portals: this.boundPortals,
      ...(await this.loop.ask<"status">({ type: "status" })),
    };
  }

  /** Calls `changed` at each log-in and log-out; returns how to stop that. */
  watch(changed: () => void): () => void {
    this.watchers.add(changed);
    return () => this.watchers.delete(changed);
  }

  /** A data path that spins or hangs is as bad as one that ended: the watchdog is to see it. */
  private beat(): void {
    this.heartbeat = setInterval(() => {
      this.loop.ask<"status">({ type: "status" }).then(
        () => {
          this.lastAnswerMs = performance.now();
        },
        () => {},
      );
    }, heartbeatMs).unref();
  }

  get healthy(): boolean {
    return this.loopAlive && performance.now() - this.lastAnswerMs < silenceLimitMs;
  }

  stop(): Promise<void> {
    clearInterval(this.heartbeat);
    return this.loop.stop();
  }
}
