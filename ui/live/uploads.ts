/**
 * Uploads outlive the page that began them: they are kept here until they end. One whose connection
 * breaks goes on where it broke, as soon as the node is there again.
 */
import { signal } from "@preact/signals";
import type { Image, ImageCreate, Task } from "../../services/api/schema.ts";
import { asFailure, type Failure, RequestError, request, sendFile } from "../client.ts";

export interface Upload {
  readonly key: number;
  readonly name: string;
  readonly sizeBytes: number;
  readonly sentBytes: number;
  /** Since the connection was last made: for the pace. */
  readonly startedAtMs: number;
  readonly startedBytes: number;
  /** Waiting: the node can't be reached. */
  readonly state: "sending" | "waiting" | "failed";
  readonly failure: Failure | undefined;
  readonly imageId: string | undefined;
}

export const uploads = signal<readonly Upload[]>([]);
const running = new Map<number, AbortController>();
let lastKey = 0;
const retryMs = 3_000;

function change(key: number, fields: Partial<Upload>): void {
  uploads.value = uploads.value.map((upload) =>
    upload.key === key ? { ...upload, ...fields } : upload,
  );
}

export function dismissUpload(key: number): void {
  uploads.value = uploads.value.filter((upload) => upload.key !== key);
}

export function cancelUpload(key: number): void {
  running.get(key)?.abort();
}

/**
 * Creates the image, then sends the file in the background. Throws what api says against the name;
 * what goes wrong later stands in `uploads`.
 */
export async function startUpload(
  file: File,
  name: string,
  format: ImageCreate["format"],
): Promise<void> {
  continueUpload(file, await request<Image>("POST", "/images", { name, format }));
}

/**
 * Sends what the node doesn't have of `file`, which is the one that the upload began with; throws if
 * it can't be that one.
 */
export function continueUpload(file: File, image: Image): void {
  const sentBytes = image.receivedBytes ?? 0;
  if (sentBytes > 0 && file.size <= sentBytes) {
    throw new RequestError({
      title: `The node has more of ${image.name} than this file.`,
      detail: "Choose the file that the upload began with.",
      code: "CONFLICT",
    });
  }
  const key = ++lastKey;
  const abort = new AbortController();
  running.set(key, abort);
  uploads.value = [
    ...uploads.value,
    {
      ...{ key, name: image.name, sizeBytes: file.size, sentBytes },
      ...{ startedAtMs: Date.now(), startedBytes: sentBytes },
      ...{ state: "sending", failure: undefined, imageId: image.id },
    },
  ];
  void send(key, image, file, abort.signal).finally(() => running.delete(key));
}

async function send(key: number, image: Image, file: File, stop: AbortSignal): Promise<void> {
  try {
    let next: Image | undefined = image;
    while (next?.state === "uploading") next = await sendRest(key, next, file, stop);
    dismissUpload(key);
  } catch (error) {
    if (stop.aborted) dismissUpload(key);
    else change(key, { state: "failed", failure: asFailure(error) });
    await (stop.aborted ? remove(image.id) : forgetFailed(image.id)).catch(() => undefined);
  }
}

function remove(id: string): Promise<unknown> {
  return request("DELETE", `/images/${id}`);
}

/** Why it failed is told with the upload. One that the node still takes may go on. */
async function forgetFailed(id: string): Promise<void> {
  const { state, receivedBytes } = await request<Image>("GET", `/images/${id}`);
  if (state === "failed" || (state === "uploading" && !receivedBytes)) await remove(id);
}

/** The image as it is once the node is there again; undefined if all was sent. */
async function sendRest(
  key: number,
  { id, receivedBytes }: Image,
  file: File,
  stop: AbortSignal,
): Promise<Image | undefined> {
  const from = receivedBytes ?? 0;
  change(key, {
    ...{ state: "sending", sentBytes: from },
    ...{ startedBytes: from, startedAtMs: Date.now() },
  });
  const range = { "content-range": `bytes ${from}-${file.size - 1}/${file.size}` };
  try {
    const rest = file.slice(from);
    const onProgress = (sentBytes: number) => change(key, { sentBytes: from + sentBytes });
    const path = `/images/${id}/data`;
    await sendFile<Task>("PUT", path, rest, stop, onProgress, from === 0 ? {} : range);
    return undefined;
  } catch (error) {
    if (stop.aborted || asFailure(error).code !== "UNAVAILABLE") throw error;
  }
  change(key, { state: "waiting" });
  for (;;) {
    await pause(stop);
    try {
      return await request<Image>("GET", `/images/${id}`);
    } catch (error) {
      if (asFailure(error).code !== "UNAVAILABLE") throw error;
    }
  }
}

/** Rejects when `stop` aborts. */
function pause(stop: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, retryMs);
    stop.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(stop.reason);
    });
  });
}

addEventListener("beforeunload", (event) => {
  if (running.size > 0) event.preventDefault();
});
