/** Uploads outlive the page that began them: they are kept here until they end. */
import { signal } from "@preact/signals";
import type { Image, ImageCreate, Task } from "../../services/api/schema.ts";
import { asFailure, type Failure, request, sendFile } from "../client.ts";

export interface Upload {
  readonly key: number;
  readonly name: string;
  readonly sizeBytes: number;
  readonly sentBytes: number;
  readonly startedAtMs: number;
  readonly state: "sending" | "failed";
  readonly failure: Failure | undefined;
  readonly imageId: string | undefined;
}

export const uploads = signal<readonly Upload[]>([]);
const running = new Map<number, AbortController>();
let lastKey = 0;

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
  const image = await request<Image>("POST", "/images", { name, format });
  const key = ++lastKey;
  const abort = new AbortController();
  running.set(key, abort);
  uploads.value = [
    ...uploads.value,
    {
      key,
      name,
      sizeBytes: file.size,
      sentBytes: 0,
      startedAtMs: Date.now(),
      state: "sending",
      failure: undefined,
      imageId: image.id,
    },
  ];
  void send(key, image, file, abort.signal).finally(() => running.delete(key));
}

async function send(key: number, image: Image, file: File, stop: AbortSignal): Promise<void> {
  try {
    await sendFile<Task>("PUT", `/images/${image.id}/data`, file, stop, (sentBytes) =>
      change(key, { sentBytes }),
    );
    dismissUpload(key);
  } catch (error) {
    if (stop.aborted) dismissUpload(key);
    else change(key, { state: "failed", failure: asFailure(error) });
    // An image without its data is of no use; api may have removed it already.
    await request("DELETE", `/images/${image.id}`).catch(() => undefined);
  }
}

addEventListener("beforeunload", (event) => {
  if (running.size > 0) event.preventDefault();
});
