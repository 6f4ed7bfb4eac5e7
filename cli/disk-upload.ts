/**
 * A disk image's file onto the node. What breaks on the way goes on where it broke; what was given
 * up goes on with `--resume`, also by another command on another day.
 */
import { createReadStream } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { isKeelsonError, KeelsonError } from "#lib/model/errors.ts";
import { formatSize } from "#lib/model/size.ts";
import type { Image, Task } from "#services/api/schema.ts";
import type { Connection } from "./connection.ts";

/** In a row, without a byte that arrived. */
const mostTries = 10;
const pauseMs = 2_000;

/**
 * Sends what the node doesn't have of `file`, `sizeBytes` long. The task of the import. UNAVAILABLE
 * if the node stays away: what it has is kept there for a day.
 */
export async function uploadImage(
  api: Pick<Connection, "upload" | "get">,
  image: Image,
  file: string,
  sizeBytes: number,
  progress: (percent: number) => void,
): Promise<Task> {
  let received = image.receivedBytes ?? 0;
  for (let tries = 0; ; tries++) {
    try {
      if (tries > 0) {
        const now = await whatArrived(api, image);
        if (typeof now !== "number") return now;
        if (now > received) tries = 0;
        received = now;
      }
      return await sendFrom(api, image.id, file, received, sizeBytes, progress);
    } catch (error) {
      if (!mayGoOn(error)) throw error;
      if (tries >= mostTries) throw givenUp(image, file, received, error);
      await sleep(pauseMs);
    }
  }
}

function sendFrom(
  api: Pick<Connection, "upload">,
  id: string,
  file: string,
  from: number,
  sizeBytes: number,
  progress: (percent: number) => void,
): Promise<Task> {
  async function* parts() {
    let sent = from;
    progress((100 * sent) / sizeBytes);
    for await (const part of createReadStream(file, { start: from, highWaterMark: 1 << 18 })) {
      yield part as Uint8Array;
      sent += (part as Uint8Array).byteLength;
      progress((100 * sent) / sizeBytes);
    }
  }
  return api.upload<Task>(`/images/${id}/data`, parts(), sizeBytes - from, {
    headers: from === 0 ? {} : { "content-range": `bytes ${from}-${sizeBytes - 1}/${sizeBytes}` },
  });
}

/** How many bytes the node has; the import's task if it has them all, and only its answer was lost. */
async function whatArrived(
  api: Pick<Connection, "get">,
  { id, name }: Image,
): Promise<number | Task> {
  const { state, receivedBytes, taskId } = await api.get<Image>(`/images/${id}`);
  if (state === "uploading") return receivedBytes ?? 0;
  if (taskId !== null) return await api.get<Task>(`/tasks/${taskId}`);
  throw new KeelsonError("CONFLICT", `The image ${name} is ${state}, not uploading.`);
}

/** A connection that broke is not final. */
function mayGoOn(error: unknown): boolean {
  return isKeelsonError(error) && ["UNAVAILABLE", "TIMEOUT"].includes(error.code);
}

function givenUp(image: Image, file: string, received: number, cause: unknown): KeelsonError {
  return new KeelsonError("UNAVAILABLE", `The upload broke after ${formatSize(received)}.`, {
    object: image.name,
    remedy: `It is kept for a day; go on with: keelson images import ${file} --resume ${image.name}`,
    cause,
  });
}
