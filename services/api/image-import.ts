/**
 * From an uploaded file to a sealed volume that clients are cloned from:
 *
 *   uploading --all bytes spooled--> importing: check -> volume -> convert -> seal --> ready
 *     |  ^ `-- failure or cancel: spool and half-made volume go, the reason stays --> failed
 *     `--' broke off: what came stays in the spool for a day
 */
import { randomUUID } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import { explainError, KeelsonError } from "#lib/model/errors.ts";
import type { Log } from "#lib/service/log.ts";
import type { Clock } from "./clock.ts";
import { checkImage, convertImage, inspectImage } from "./image-file.ts";
import type { ImageFormat } from "./image-formats.ts";
import type { StorePeer } from "./peers.ts";
import type { ImageRecord, Policy } from "./policy.ts";
import type { Reconciler } from "./reconciler.ts";
import { type Task, volumeSectorBytes } from "./schema.ts";
import { interrupted, type TaskHandle, type TaskList } from "./tasks.ts";
import { type Part, UploadSpool } from "./upload-spool.ts";

export interface ImageImportOptions {
  readonly policy: Policy;
  readonly reconciler: Reconciler;
  readonly store: StorePeer;
  readonly tasks: TaskList;
  readonly clock: Clock;
  readonly log: Log;
  /** Uploads stand here until they are converted. */
  readonly spool: string;
}

/** Nobody goes on with an upload after this. */
const abandonedMs = 86_400_000;
const sweepMs = 3_600_000;
const settleTimeoutMs = 60_000;
/** Conversions at once; uploads wait for their turn in the spool. */
const mostConversions = 1;

interface Running {
  readonly task: TaskHandle;
  readonly ended: Promise<void>;
  /** Ends an upload as if its sender had gone; undefined once it is whole. */
  breakOff: (() => void) | undefined;
}

export class ImageImports {
  readonly #options: ImageImportOptions;
  readonly #spool: UploadSpool;
  readonly #running = new Map<string, Running>();
  #converting = 0;
  #stopping = false;
  #sweeping: NodeJS.Timeout | undefined;
  readonly #waiting: (() => void)[] = [];

  constructor(options: ImageImportOptions) {
    this.#options = options;
    this.#spool = new UploadSpool(options.spool, options.clock);
  }

  /** What a restart left behind: half-made imports fail, with the reason; their files go. */
  async recover(): Promise<void> {
    const { policy } = this.#options;
    for (const id of this.#spool.ids) {
      if (policy.find("image", id)?.state !== "uploading") await this.#spool.remove(id);
    }
    this.#sweeping = setInterval(() => void this.sweep(), sweepMs).unref();
    for (const image of policy.list("image")) {
      if (image.state === "importing") {
        await this.#fail(image.id, "The node's api was restarted during the import.");
      } else if (image.state === "deleting") await this.remove(image.id);
    }
  }

  async create(name: string, format: ImageFormat | "auto"): Promise<ImageRecord> {
    const record: ImageRecord = {
      id: randomUUID(),
      name,
      state: "uploading",
      ...formatFields(format),
      sizeBytes: null,
      volumeId: null,
      failure: null,
      createdAt: this.#options.clock.now(),
    };
    await this.#options.policy.change((draft) => draft.put("image", record));
    return record;
  }

  /** How much of an image's file has come; 0 unless it is being uploaded. */
  receivedBytes(imageId: string): number {
    return this.#spool.receivedBytes(imageId);
  }

  /**
   * Spools the body, then imports in the background. A new sender takes the place of one whose
   * connection is not known to be broken yet: a browser sends anew by itself when one is. CONFLICT
   * if the image has its data already, or if that is not the part that is missing.
   */
  async receive(imageId: string, body: AsyncIterable<Uint8Array>, part: Part): Promise<Task> {
    const { policy, tasks } = this.#options;
    const before = this.#running.get(imageId);
    if (before?.breakOff !== undefined) {
      before.breakOff();
      await before.ended;
    }
    // Only now: what took so long may have failed.
    const image = policy.get("image", imageId);
    if (image.state !== "uploading" || this.#running.has(imageId)) {
      throw new KeelsonError("CONFLICT", `The image ${image.name} takes no data now.`, {
        object: imageId,
        remedy: "Delete it and import it anew.",
      });
    }
    this.#spool.expect(imageId, part);
    const task = tasks.start("image-import", imageId, `Import ${image.name}`);
    const { promise: ended, resolve: end } = Promise.withResolvers<void>();
    const broken = new AbortController();
    const running: Running = {
      ...{ task, ended },
      breakOff: () => broken.abort(new Error("another part came")),
    };
    this.#running.set(imageId, running);
    const finish = () => {
      this.#running.delete(imageId);
      end();
    };
    try {
      task.phase("upload", part.totalBytes);
      const signal = AbortSignal.any([task.signal, broken.signal]);
      const brokeOff = await this.#spool.receive(imageId, body, part, signal, task.bytes);
      if (brokeOff !== null) {
        const why = this.#stopping ? interrupted : explainError(brokeOff);
        this.#options.log.warn("upload broke off", { image: imageId, why });
        task.end("failed", why);
        finish();
        throw brokeOff;
      }
    } catch (error) {
      if (task.running) {
        await this.#giveUp(imageId, task, error);
        finish();
      }
      throw error;
    }
    running.breakOff = undefined;
    void this.#import(imageId, task)
      .catch((error) => this.#giveUp(imageId, task, error))
      .finally(finish);
    return tasks.find(task.id)!;
  }

  /** IN_USE while boot entries name it. Cancels its import. */
  async remove(imageId: string): Promise<void> {
    const { policy, reconciler } = this.#options;
    const refuse = () => {
      const volumeId = policy.find("image", imageId)?.volumeId;
      const users = [
        ...policy.list("boot").filter((boot) => boot.imageId === imageId),
        ...policy.list("export").filter((entry) => entry.volumeId === volumeId),
      ];
      if (users.length === 0) return;
      const names = users.map(({ name }) => name).join(", ");
      throw new KeelsonError("IN_USE", `The image is used by ${names}.`, {
        object: imageId,
        remedy: "Delete these boot entries and exports first, or give them another image.",
      });
    };
    policy.get("image", imageId);
    refuse();
    const running = this.#running.get(imageId);
    if (running !== undefined) {
      if (running.task.running) this.#options.tasks.cancel(running.task.id);
      await running.ended;
    }
    await this.#spool.remove(imageId);
    await policy.change((draft) => {
      refuse();
      const image = draft.get("image", imageId);
      if (image === undefined) return;
      const volume = image.volumeId === null ? undefined : draft.get("volume", image.volumeId);
      if (volume !== undefined) draft.put("volume", { ...volume, state: "deleting" });
      draft.delete("image", imageId);
    });
    await reconciler.settle();
  }

  /** Ends running imports: at the next start they'd be found half-made. Uploads can go on then. */
  async stop(): Promise<void> {
    this.#stopping = true;
    clearInterval(this.#sweeping);
    const running = [...this.#running.values()];
    for (const { task, breakOff } of running) {
      if (breakOff !== undefined) breakOff();
      else if (task.running) this.#options.tasks.cancel(task.id);
    }
    await Promise.all(running.map(({ ended }) => ended));
  }

  /** Uploads that nobody went on with give back their room: done each hour. */
  async sweep(): Promise<void> {
    for (const id of this.#spool.ids) {
      if (this.#running.has(id) || this.#spool.idleMs(id) < abandonedMs) continue;
      await this.#spool.remove(id);
      await this.#fail(id, "The upload broke off, and nobody went on with it for a day.").catch(
        (cause) =>
          this.#options.log.error("cannot record a failed import", { why: explainError(cause) }),
      );
    }
  }

  async #import(imageId: string, task: TaskHandle): Promise<void> {
    const { policy, store, log } = this.#options;
    const path = this.#spool.path(imageId);
    task.phase("check");
    const said = policy.get("image", imageId);
    const { format, sizeBytes, source } = await inspectImage(
      path,
      said.sourceFormat ?? said.format,
      task.signal,
    );
    if (format === "qcow2") await checkImage(path, task.signal);
    await this.#turn(task);
    try {
      const volumeId = await this.#makeVolume(imageId, format, sizeBytes);
      await this.#until(task, () => {
        const volume = policy.find("volume", volumeId);
        if (volume?.state === "failed") throw new KeelsonError("NO_SPACE", volume.failure ?? "");
        return volume?.state === "ready";
      });
      task.phase("convert");
      const grant = await store.grant(volumeId);
      await convertImage(source, grant.uri, task.signal, task.percent);
      task.phase("seal");
      await store.seal(volumeId);
      await policy.change((draft) => {
        const volume = draft.get("volume", volumeId);
        const image = draft.get("image", imageId);
        if (volume === undefined || image === undefined) {
          throw new KeelsonError("CANCELLED", "The image was deleted meanwhile.");
        }
        draft.put("volume", { ...volume, sealed: true });
        draft.put("image", { ...image, state: "ready" });
      });
    } finally {
      this.#converting--;
      this.#waiting.shift()?.();
    }
    await this.#spool.remove(imageId);
    task.end("done");
    log.info("image imported", { image: imageId, format, size: sizeBytes });
  }

  async #makeVolume(imageId: string, format: ImageFormat, sizeBytes: number): Promise<string> {
    const volumeId = randomUUID();
    const wholeBytes = Math.ceil(sizeBytes / volumeSectorBytes) * volumeSectorBytes;
    await this.#options.policy.change((draft) => {
      const image = draft.get("image", imageId);
      if (image === undefined) throw new KeelsonError("CANCELLED", "The image was deleted.");
      draft.put("image", {
        ...{ ...image, ...formatFields(format) },
        ...{ state: "importing", sizeBytes: wholeBytes, volumeId },
      });
      draft.put("volume", {
        id: volumeId,
        name: image.name,
        kind: "image",
        state: "creating",
        failure: null,
        sizeBytes: wholeBytes,
        parentVolumeId: null,
        sealed: false,
        createdAt: this.#options.clock.now(),
      });
    });
    return volumeId;
  }

  async #turn(task: TaskHandle): Promise<void> {
    while (this.#converting >= mostConversions) {
      task.phase("wait");
      await new Promise<void>((resolve) => {
        this.#waiting.push(resolve);
        task.signal.addEventListener("abort", () => resolve(), { once: true });
      });
      if (task.signal.aborted) throw new KeelsonError("CANCELLED", "Cancelled.");
    }
    this.#converting++;
  }

  async #until(task: TaskHandle, holds: () => boolean): Promise<void> {
    const deadline = performance.now() + settleTimeoutMs;
    for (;;) {
      await this.#options.reconciler.settle();
      if (task.signal.aborted) throw new KeelsonError("CANCELLED", "Cancelled.");
      if (holds()) return;
      if (performance.now() > deadline) {
        const reason = this.#options.reconciler.problems[0]?.reason ?? "The store did not answer.";
        throw new KeelsonError("TIMEOUT", `The volume could not be made in time. ${reason}`);
      }
      await delay(200);
    }
  }

  async #giveUp(imageId: string, task: TaskHandle, error: unknown): Promise<void> {
    const cancelled = task.signal.aborted && !this.#stopping;
    const why = this.#stopping
      ? interrupted
      : cancelled
        ? "The import was cancelled."
        : explainError(error);
    this.#options.log.warn("image import failed", { image: imageId, why });
    await this.#spool.remove(imageId);
    // Told last, so that who waits for the task finds the image in its final state.
    await this.#fail(imageId, why).catch((cause) =>
      this.#options.log.error("cannot record a failed import", { why: explainError(cause) }),
    );
    task.end(cancelled ? "cancelled" : "failed", why);
  }

  async #fail(imageId: string, failure: string): Promise<void> {
    await this.#options.policy.change((draft) => {
      const image = draft.get("image", imageId);
      if (image === undefined) return;
      const volume = image.volumeId === null ? undefined : draft.get("volume", image.volumeId);
      if (volume !== undefined) draft.put("volume", { ...volume, state: "deleting" });
      draft.put("image", { ...image, state: "failed", failure, volumeId: null });
    });
    void this.#options.reconciler.settle();
  }
}

/** An older release knows two formats only, and leaves out what it doesn't know. */
function formatFields(format: ImageFormat | "auto"): Pick<ImageRecord, "format" | "sourceFormat"> {
  if (format === "auto" || format === "raw" || format === "qcow2") {
    return { format, sourceFormat: undefined };
  }
  return { format: "auto", sourceFormat: format };
}
