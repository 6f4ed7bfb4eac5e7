/** Plain reads and writes of block devices (or files), synced before they count. */
import { closeSync, fsyncSync, openSync, readSync, writeSync } from "node:fs";
import { KeelsonError } from "#lib/model/errors.ts";

const chunkBytes = 4 << 20;
/** A sync this often keeps the progress true: dirty pages would make the first half look fast. */
const syncBytes = 32 << 20;

/** Copies all of `source` to the start of `device` and syncs it. Reports bytes as they are written. */
export async function copyToDevice(
  source: string,
  device: string,
  advance: (bytes: number) => void,
): Promise<void> {
  const from = openSync(source, "r");
  try {
    const to = openSync(device, "r+");
    try {
      const buffer = Buffer.alloc(chunkBytes);
      for (let at = 0, unsynced = 0; ; ) {
        const count = readSync(from, buffer, 0, chunkBytes, at);
        if (count === 0) break;
        writeAll(to, buffer.subarray(0, count), at, device);
        at += count;
        unsynced += count;
        if (unsynced >= syncBytes) {
          fsyncSync(to);
          unsynced = 0;
        }
        advance(count);
        await new Promise((resolve) => setImmediate(resolve));
      }
      fsyncSync(to);
    } finally {
      closeSync(to);
    }
  } finally {
    closeSync(from);
  }
}

export function writeDevice(device: string, offsetBytes: number, bytes: Uint8Array): void {
  const file = openSync(device, "r+");
  try {
    writeAll(file, bytes, offsetBytes, device);
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
}

export function readDevice(device: string, offsetBytes: number, lengthBytes: number): Buffer {
  const file = openSync(device, "r");
  try {
    const buffer = Buffer.alloc(lengthBytes);
    const count = readSync(file, buffer, 0, lengthBytes, offsetBytes);
    return buffer.subarray(0, count);
  } finally {
    closeSync(file);
  }
}

export async function zeroDevice(
  device: string,
  offsetBytes: number,
  lengthBytes: number,
): Promise<void> {
  writeDevice(device, offsetBytes, Buffer.alloc(lengthBytes));
}

function writeAll(file: number, bytes: Uint8Array, at: number, device: string): void {
  for (let done = 0; done < bytes.length; ) {
    try {
      done += writeSync(file, bytes, done, bytes.length - done, at + done);
    } catch (cause) {
      throw new KeelsonError(
        "MEDIA_ERROR",
        `${device} refused a write at byte ${at + done}: ${(cause as Error).message}.`,
        { operation: "write disk", object: device, remedy: "Replace the disk.", cause },
      );
    }
  }
}
