/**
 * A disk as a file that is made while it is sent: any part of it can be made alone, so a download
 * that broke goes on where it was. Raw has all of the disk; qcow2 only what was written, in clusters
 * of 64 KiB, with its tables before the data:
 *
 *   header | refcount table | refcount blocks | L1 table | L2 tables | data, by guest offset
 *
 * Source: docs/interop/qcow2.txt of QEMU, version 3.
 */

export type DiskFileFormat = "raw" | "qcow2";

/** Of the disk: what was written there, not all zeroes. By offset, without overlaps. */
export interface DiskRange {
  readonly offsetBytes: number;
  readonly lengthBytes: number;
}

export type Piece =
  | { readonly kind: "bytes"; readonly bytes: Uint8Array }
  | { readonly kind: "zeroes"; readonly lengthBytes: number }
  | { readonly kind: "disk"; readonly offsetBytes: number; readonly lengthBytes: number };

export interface DiskFile {
  readonly sizeBytes: number;
  /** Of at most 1 MiB, from a byte of the file on, to its end. */
  pieces(from: number): Generator<Piece>;
}

const pieceBytes = 2 ** 20;
const clusterBits = 16;
const clusterBytes = 2 ** clusterBits;
const entriesPerTable = clusterBytes / 8;
const refcountsPerBlock = clusterBytes / 2;
/** Nobody else refers to the cluster. */
const copied = 1n << 63n;

export function diskFile(
  format: DiskFileFormat,
  diskBytes: number,
  ranges: readonly DiskRange[],
): DiskFile {
  return format === "raw" ? rawFile(diskBytes, ranges) : qcow2File(diskBytes, ranges);
}

function rawFile(sizeBytes: number, ranges: readonly DiskRange[]): DiskFile {
  return {
    sizeBytes,
    *pieces(from) {
      let at = from;
      for (const { offsetBytes, lengthBytes } of ranges) {
        const end = offsetBytes + lengthBytes;
        if (end <= at) continue;
        yield* zeroes(offsetBytes - at);
        at = Math.max(at, offsetBytes);
        yield* disk(at, end - at);
        at = end;
      }
      yield* zeroes(sizeBytes - at);
    },
  };
}

function* zeroes(lengthBytes: number): Generator<Piece> {
  for (let left = lengthBytes; left > 0; left -= pieceBytes) {
    yield { kind: "zeroes", lengthBytes: Math.min(left, pieceBytes) };
  }
}

function* disk(offsetBytes: number, lengthBytes: number): Generator<Piece> {
  for (let done = 0; done < lengthBytes; done += pieceBytes) {
    const length = Math.min(pieceBytes, lengthBytes - done);
    yield { kind: "disk", offsetBytes: offsetBytes + done, lengthBytes: length };
  }
}

/** Clusters of the disk that have data: `count` from `first` on are the file's `rank`th and on. */
interface Run {
  readonly first: number;
  readonly count: number;
  readonly rank: number;
}

function qcow2File(diskBytes: number, ranges: readonly DiskRange[]): DiskFile {
  const runs = clusterRuns(ranges);
  const last = runs.at(-1);
  const dataClusters = last === undefined ? 0 : last.rank + last.count;
  const l1Entries = Math.max(1, Math.ceil(diskBytes / (clusterBytes * entriesPerTable)));
  const l1Clusters = Math.ceil(l1Entries / entriesPerTable);
  const l2Tables = tablesOf(runs);
  let total = 0;
  let blocks = 0;
  let tables = 0;
  // The counts count themselves: a few rounds settle it.
  for (;;) {
    const next = 1 + tables + blocks + l1Clusters + l2Tables.length + dataClusters;
    if (next === total) break;
    total = next;
    blocks = Math.ceil(total / refcountsPerBlock);
    tables = Math.ceil(blocks / entriesPerTable);
  }
  const blocksAt = 1 + tables;
  const l1At = blocksAt + blocks;
  const l2At = l1At + l1Clusters;
  const dataAt = l2At + l2Tables.length;

  const table = (count: number, entry: (index: number) => number) => {
    const view = new DataView(new ArrayBuffer(clusterBytes));
    for (let i = 0; i < count; i++) {
      const cluster = entry(i);
      if (cluster > 0) view.setBigUint64(i * 8, BigInt(cluster * clusterBytes) | copied);
    }
    return new Uint8Array(view.buffer);
  };
  const indexOfTable = new Map(l2Tables.map((number, index) => [number, index]));
  /** One cluster of what lies before the data. */
  const metadata = (cluster: number): Uint8Array => {
    if (cluster === 0) return header(diskBytes, l1Entries, l1At, tables);
    if (cluster < blocksAt) {
      // Entries of the refcount table have no `copied` bit.
      const first = (cluster - 1) * entriesPerTable;
      const view = new DataView(new ArrayBuffer(clusterBytes));
      for (let i = 0; i < entriesPerTable && first + i < blocks; i++) {
        view.setBigUint64(i * 8, BigInt((blocksAt + first + i) * clusterBytes));
      }
      return new Uint8Array(view.buffer);
    }
    if (cluster < l1At) {
      const first = (cluster - blocksAt) * refcountsPerBlock;
      const view = new DataView(new ArrayBuffer(clusterBytes));
      for (let i = 0; i < refcountsPerBlock && first + i < total; i++) view.setUint16(i * 2, 1);
      return new Uint8Array(view.buffer);
    }
    if (cluster < l2At) {
      const first = (cluster - l1At) * entriesPerTable;
      return table(Math.min(entriesPerTable, l1Entries - first), (i) => {
        const index = indexOfTable.get(first + i);
        return index === undefined ? 0 : l2At + index;
      });
    }
    const first = l2Tables[cluster - l2At] * entriesPerTable;
    return l2Table(runs, first, dataAt, table);
  };
  return {
    sizeBytes: total * clusterBytes,
    *pieces(from) {
      let at = from;
      while (at < dataAt * clusterBytes) {
        const bytes = metadata(Math.floor(at / clusterBytes)).subarray(at % clusterBytes);
        yield { kind: "bytes", bytes };
        at += bytes.length;
      }
      for (const { first, count, rank } of runs) {
        const start = (dataAt + rank) * clusterBytes;
        const end = start + count * clusterBytes;
        if (end <= at) continue;
        const offset = first * clusterBytes + (at - start);
        const guestEnd = (first + count) * clusterBytes;
        yield* disk(offset, Math.min(guestEnd, diskBytes) - offset);
        // The disk may end within its last cluster.
        yield* zeroes(guestEnd - Math.max(offset, Math.min(guestEnd, diskBytes)));
        at = end;
      }
    },
  };
}

function clusterRuns(ranges: readonly DiskRange[]): Run[] {
  const runs: { first: number; count: number; rank: number }[] = [];
  for (const { offsetBytes, lengthBytes } of ranges) {
    if (lengthBytes === 0) continue;
    const first = Math.floor(offsetBytes / clusterBytes);
    const end = Math.ceil((offsetBytes + lengthBytes) / clusterBytes);
    const last = runs.at(-1);
    if (last === undefined || first > last.first + last.count) {
      const rank = last === undefined ? 0 : last.rank + last.count;
      runs.push({ first, count: end - first, rank });
    } else last.count = Math.max(last.count, end - last.first);
  }
  return runs;
}

/** Numbers of the L2 tables that have an entry. */
function tablesOf(runs: readonly Run[]): number[] {
  const numbers: number[] = [];
  for (const { first, count } of runs) {
    const end = Math.floor((first + count - 1) / entriesPerTable);
    for (let number = Math.floor(first / entriesPerTable); number <= end; number++) {
      if (numbers.at(-1) !== number) numbers.push(number);
    }
  }
  return numbers;
}

function l2Table(
  runs: readonly Run[],
  firstCluster: number,
  dataAt: number,
  table: (count: number, entry: (index: number) => number) => Uint8Array,
): Uint8Array {
  let at = firstRunPast(runs, firstCluster);
  return table(entriesPerTable, (i) => {
    const cluster = firstCluster + i;
    while (at < runs.length && runs[at].first + runs[at].count <= cluster) at++;
    const run = runs[at];
    if (run === undefined || run.first > cluster) return 0;
    return dataAt + run.rank + (cluster - run.first);
  });
}

/** Number of the first run that ends after a cluster. */
function firstRunPast(runs: readonly Run[], cluster: number): number {
  let low = 0;
  let high = runs.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (runs[middle].first + runs[middle].count <= cluster) low = middle + 1;
    else high = middle;
  }
  return low;
}

function header(
  diskBytes: number,
  l1Entries: number,
  l1At: number,
  refcountTableClusters: number,
): Uint8Array {
  const view = new DataView(new ArrayBuffer(clusterBytes));
  view.setUint32(0, 0x514649fb);
  view.setUint32(4, 3);
  view.setUint32(20, clusterBits);
  view.setBigUint64(24, BigInt(diskBytes));
  view.setUint32(36, l1Entries);
  view.setBigUint64(40, BigInt(l1At * clusterBytes));
  view.setBigUint64(48, BigInt(clusterBytes));
  view.setUint32(56, refcountTableClusters);
  view.setUint32(96, 4); // refcounts of 16 bits
  view.setUint32(100, 104);
  return new Uint8Array(view.buffer);
}
