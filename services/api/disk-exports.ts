/** What a snapshot or an image holds, as a file that is made while it is sent (`disk-file.ts`). */
import { KeelsonError } from "#lib/model/errors.ts";
import { NbdClient } from "#lib/nbd/client.ts";
import {
  type DiskFile,
  type DiskFileFormat,
  type DiskRange,
  diskFile,
  type Piece,
} from "./disk-file.ts";
import type { StorePeer } from "./peers.ts";

/** Each holds a connection to the store, and its table in memory. */
const mostAtOnce = 8;
const batchBytes = 4 * 2 ** 20;
const sectorBytes = 512;
const zero = new Uint8Array(2 ** 20);

export interface OpenedDisk {
  readonly sizeBytes: number;
  /** Bytes of the file from `from` up to `to`. */
  read(from: number, to: number): AsyncGenerator<Uint8Array>;
  /** To be called once, also when nothing was read. */
  close(): void;
}

export class DiskExports {
  readonly #store: Pick<StorePeer, "grantReader" | "differences">;
  #open = 0;

  constructor(store: Pick<StorePeer, "grantReader" | "differences">) {
    this.#store = store;
  }

  /** `id` is of a snapshot or a sealed volume: what can't change. IN_USE beyond so many at once. */
  async open(
    kind: "snapshot" | "volume",
    id: string,
    sizeBytes: number,
    format: DiskFileFormat,
  ): Promise<OpenedDisk> {
    if (this.#open >= mostAtOnce) {
      throw new KeelsonError("IN_USE", `${mostAtOnce} disks are being downloaded already.`, {
        operation: "download disk",
        remedy: "Try again when one has ended.",
      });
    }
    this.#open++;
    let client: NbdClient | undefined;
    let closed = false;
    const close = () => {
      if (closed) return;
      closed = true;
      this.#open--;
      client?.close();
    };
    try {
      const file = diskFile(format, sizeBytes, await this.#rangesOf(id));
      const { token, socket } = await this.#store.grantReader(kind, id);
      client = await NbdClient.connect(socket, token);
      const nbd = client;
      return {
        sizeBytes: file.sizeBytes,
        read: (from, to) => send(file, nbd, sizeBytes, from, to),
        close,
      };
    } catch (error) {
      close();
      throw error;
    }
  }

  /** Of all that it sees, also of what it is a clone of. */
  async #rangesOf(id: string): Promise<DiskRange[]> {
    const ranges: DiskRange[] = [];
    for (let next: number | null = 0; next !== null; ) {
      const page = await this.#store.differences(null, id, next);
      for (const { zero: empty, ...range } of page.ranges) if (!empty) ranges.push(range);
      next = page.next;
    }
    return ranges;
  }
}

/** The next batch is read while the one before is sent. */
async function* send(
  file: DiskFile,
  nbd: NbdClient,
  diskBytes: number,
  from: number,
  to: number,
): AsyncGenerator<Uint8Array> {
  let left = to - from;
  const pieces = file.pieces(from);
  const fetchNext = () => fetchBatch(takeBatch(pieces), nbd, diskBytes);
  let coming = fetchNext();
  while (left > 0) {
    const batch = await coming;
    if (batch.length === 0) return;
    coming = fetchNext();
    // Its failure is told when it is its turn, if it ever is.
    coming.catch(() => {});
    for (const part of batch) {
      yield part.subarray(0, Math.min(part.length, left));
      left -= part.length;
      if (left <= 0) return;
    }
  }
}

function takeBatch(pieces: Generator<Piece>): Piece[] {
  const batch: Piece[] = [];
  let bytes = 0;
  while (bytes < batchBytes) {
    const { done, value } = pieces.next();
    if (done === true) break;
    batch.push(value);
    bytes += value.kind === "bytes" ? value.bytes.length : value.lengthBytes;
  }
  return batch;
}

async function fetchBatch(
  batch: readonly Piece[],
  nbd: NbdClient,
  diskBytes: number,
): Promise<Uint8Array[]> {
  // Whole sectors are read: a download may go on from any byte.
  const wanted = batch.flatMap((piece) => {
    if (piece.kind !== "disk") return [];
    const offset = Math.floor(piece.offsetBytes / sectorBytes) * sectorBytes;
    const end = Math.ceil((piece.offsetBytes + piece.lengthBytes) / sectorBytes) * sectorBytes;
    return [{ offset, length: Math.min(end, diskBytes) - offset }];
  });
  const read = wanted.length === 0 ? [] : await nbd.read(wanted);
  let next = 0;
  return batch.map((piece) => {
    if (piece.kind === "bytes") return piece.bytes;
    if (piece.kind === "zeroes") return zero.subarray(0, piece.lengthBytes);
    const bytes = read[next++];
    const skip = piece.offsetBytes % sectorBytes;
    return bytes.subarray(skip, skip + piece.lengthBytes);
  });
}
