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
  for (let tries = 0; ; ) {
    try {
      return await sendFrom(api, image.id, file, received, sizeBytes, progress);
    } catch (error) {
      if (!mayGoOn(error)) throw error;
      const now = await whatArrived(api, image.id, error, pauseMs, () => ++tries <= mostTries);
      if (now.task !== undefined) return now.task;
      if (now.received > received) tries = 0;
      received = now.received;
      if (++tries > mostTries) throw givenUp(image, file, received, error);
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

/** Asks until the node answers; a task if it has all of it, and only the answer was lost. */
async function whatArrived(
  api: Pick<Connection, "get">,
  id: string,
  broke: unknown,
  pause: number,
  again: () => boolean,
): Promise<{ readonly received: number; readonly task?: Task }> {
  for (;;) {
    await sleep(pause);
    try {
      const image = await api.get<Image>(`/images/${id}`);
      if (image.state === "uploading") return { received: image.receivedBytes ?? 0 };
      if (image.taskId === null) throw broke;
      return { received: 0, task: await api.get<Task>(`/tasks/${image.taskId}`) };
    } catch (error) {
      if (!mayGoOn(error) || !again()) throw error;
    }
  }
}

/** A connection that broke is not final; nor that the node counts other bytes than were thought. */
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
