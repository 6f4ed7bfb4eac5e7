/**
 * From an uploaded file to a sealed volume that clients are cloned from:
 *
 *   uploading --all bytes spooled--> importing: check -> volume -> convert -> seal --> ready
 *       `-- failure or cancel: spool and half-made volume go, the reason stays --> failed
 */
import { randomUUID } from "node:crypto";
import { mkdirSync, readdirSync, rmSync } from "node:fs";
import { open, rm, statfs } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { explainError, KeelsonError } from "#lib/model/errors.ts";
import { formatSize } from "#lib/model/size.ts";
import type { Log } from "#lib/service/log.ts";
import type { Clock } from "./clock.ts";
import { checkImage, convertImage, inspectImage } from "./image-file.ts";
import type { ImageFormat } from "./image-formats.ts";
import type { StorePeer } from "./peers.ts";
import type { ImageRecord, Policy } from "./policy.ts";
import type { Reconciler } from "./reconciler.ts";
import { type Task, volumeSectorBytes } from "./schema.ts";
import { interrupted, type TaskHandle, type TaskList } from "./tasks.ts";

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

/** Left free on the spool's file system: the cluster store may live there too. */
const spoolReserveBytes = 64 * 2 ** 20;
const settleTimeoutMs = 60_000;
/** Conversions at once; uploads wait for their turn in the spool. */
const mostConversions = 1;

export class ImageImports {
  readonly #options: ImageImportOptions;
  readonly #running = new Map<string, { task: TaskHandle; ended: Promise<void> }>();
  #converting = 0;
  #stopping = false;
  readonly #waiting: (() => void)[] = [];

  constructor(options: ImageImportOptions) {
    this.#options = options;
  }

  /** What a restart left behind: half-made imports fail, with the reason; spooled files go. */
  async recover(): Promise<void> {
    const { policy, spool } = this.#options;
    mkdirSync(spool, { recursive: true, mode: 0o700 });
    for (const name of readdirSync(spool)) rmSync(join(spool, name), { force: true });
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

  /** Spools the body, then imports in the background. CONFLICT if the image has its data already. */
  async receive(
    imageId: string,
    body: AsyncIterable<Uint8Array>,
    lengthBytes: number | null,
  ): Promise<Task> {
    const { policy, tasks } = this.#options;
    const image = policy.get("image", imageId);
    if (image.state !== "uploading" || this.#running.has(imageId)) {
      throw new KeelsonError("CONFLICT", `The image ${image.name} takes no data now.`, {
        object: imageId,
        remedy: "Delete it and import it anew.",
      });
    }
    const task = tasks.start("image-import", imageId, `Import ${image.name}`);
    const path = join(this.#options.spool, imageId);
    const { promise: ended, resolve: end } = Promise.withResolvers<void>();
    this.#running.set(imageId, { task, ended });
    const finish = () => {
      this.#running.delete(imageId);
      end();
    };
    try {
      task.phase("upload", lengthBytes);
      await this.#spool(path, body, lengthBytes, task);
    } catch (error) {
      await this.#giveUp(imageId, path, task, error);
      finish();
      throw error;
    }
    void this.#import(imageId, path, task)
      .catch((error) => this.#giveUp(imageId, path, task, error))
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

  /** Ends running imports: at the next start they'd be found half-made. */
  async stop(): Promise<void> {
    this.#stopping = true;
    const running = [...this.#running.values()];
    for (const { task } of running) {
      if (task.running) this.#options.tasks.cancel(task.id);
    }
    await Promise.all(running.map(({ ended }) => ended));
  }

  async #spool(
    path: string,
    body: AsyncIterable<Uint8Array>,
    lengthBytes: number | null,
    task: TaskHandle,
  ): Promise<void> {
    const { bavail, bsize } = await statfs(this.#options.spool);
    const roomBytes = Math.max(0, bavail * bsize - spoolReserveBytes);
    const noRoom = () =>
      new KeelsonError("NO_SPACE", `The node has ${formatSize(roomBytes)} for an upload.`, {
        operation: "upload image",
        remedy: "Import a smaller file (qcow2 is smaller than raw), or free space on /var.",
      });
    if (lengthBytes !== null && lengthBytes > roomBytes) throw noRoom();
    const file = await open(path, "wx", 0o600);
    let bytes = 0;
    let toldBytes = 0;
    try {
      for await (const part of untilAborted(body, task.signal)) {
        if (task.signal.aborted) throw new KeelsonError("CANCELLED", "Cancelled.");
        bytes += part.byteLength;
        if (bytes > roomBytes) throw noRoom();
        await file.writeFile(part);
        if (bytes - toldBytes < 1 << 20) continue;
        toldBytes = bytes;
        task.bytes(bytes);
      }
    } catch (error) {
      if (error instanceof KeelsonError) throw error;
      if ((error as NodeJS.ErrnoException).code === "ENOSPC") throw noRoom();
      throw cutOff(bytes, lengthBytes, error);
    } finally {
      await file.close();
    }
    if (lengthBytes !== null && bytes !== lengthBytes) throw cutOff(bytes, lengthBytes);
    task.bytes(bytes);
  }

  async #import(imageId: string, path: string, task: TaskHandle): Promise<void> {
    const { policy, store, log } = this.#options;
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
    await rm(path, { force: true });
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

  async #giveUp(imageId: string, path: string, task: TaskHandle, error: unknown): Promise<void> {
    const cancelled = task.signal.aborted && !this.#stopping;
    const why = this.#stopping
      ? interrupted
      : cancelled
        ? "The import was cancelled."
        : explainError(error);
    this.#options.log.warn("image import failed", { image: imageId, why });
    await rm(path, { force: true });
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

/** Also while it waits for a sender that has gone silent. */
async function* untilAborted(
  body: AsyncIterable<Uint8Array>,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  const parts = body[Symbol.asyncIterator]();
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  aborted.catch(() => {});
  const stop = () => reject(new KeelsonError("CANCELLED", "Cancelled."));
  if (signal.aborted) stop();
  signal.addEventListener("abort", stop, { once: true });
  try {
    for (;;) {
      const next = parts.next();
      next.catch(() => {});
      const { done, value } = await Promise.race([next, aborted]);
      if (done) return;
      yield value;
    }
  } finally {
    signal.removeEventListener("abort", stop);
    // Not awaited: a silent sender never answers it.
    if (!signal.aborted) await parts.return?.();
    else void parts.return?.();
  }
}

function cutOff(bytes: number, lengthBytes: number | null, cause?: unknown): KeelsonError {
  const of = lengthBytes === null ? "" : ` of ${lengthBytes}`;
  return new KeelsonError("INVALID_ARGUMENT", `The upload ended after ${bytes}${of} bytes.`, {
    operation: "upload image",
    remedy: "Delete the image and import it again.",
    ...(cause === undefined ? {} : { cause }),
  });
}
