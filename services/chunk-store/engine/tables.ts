/**
 * The tables that a checkpoint writes anew each time, as the bodies of their pages: volumes,
 * snapshots, and how many blocks each cell has. Which records a cell has follows from the index.
 */
import type { Version } from "#lib/model/writer.ts";
import { blockBytes } from "../limits.ts";
import {
  cellRecordBytes,
  cellsPerPage,
  getUint64,
  OperationFlag,
  operationRecordBytes,
  operationsPerPage,
  pageHeaderBytes,
  setUint64,
  snapshotRecordBytes,
  snapshotsPerPage,
  uuidBytes,
  uuidText,
  volumeRecordBytes,
  volumesPerPage,
} from "./layout.ts";
import { createLineage, type Lineages } from "./lineages.ts";

export interface TablePage {
  /** A block; the body stands after where the header goes. */
  readonly page: Uint8Array;
  readonly count: number;
}

/** Of a lineage or, without `sealed` and `headless`, of a snapshot. */
const flag = { sealed: 1, deleted: 2, headless: 4 } as const;

/** Pages that the tables take now, at most. */
export function tablePages(lineages: Lineages): number {
  return (
    Math.ceil(lineages.byNumber.size / volumesPerPage) +
    Math.ceil(lineages.snapshotCount / snapshotsPerPage) +
    Math.ceil(lineages.cells.count / cellsPerPage) +
    operationPages(lineages)
  );
}

function operationPages({ byNumber }: Lineages): number {
  let count = 0;
  for (const { operations } of byNumber.values()) count += operations.length;
  return Math.ceil(count / operationsPerPage);
}

/** In order of lineage number: parents before their clones. */
export function encodeLineages(lineages: Lineages): TablePage[] {
  const sorted = [...lineages.byNumber.values()].sort((a, b) => a.number - b.number);
  return paged(sorted, volumesPerPage, volumeRecordBytes, (lineage, page, view, at) => {
    page.set(uuidBytes(lineage.uuid), at);
    view.setUint32(at + 16, lineage.number, true);
    view.setUint32(at + 20, lineage.parent?.number ?? 0, true);
    view.setUint32(at + 24, lineage.forkEpoch, true);
    view.setUint32(at + 28, lineage.firstEpoch, true);
    view.setUint32(at + 32, lineage.epoch, true);
    const flags =
      (lineage.sealed ? flag.sealed : 0) |
      (lineage.deleted ? flag.deleted : 0) |
      (lineage.headless ? flag.headless : 0);
    view.setUint32(at + 36, flags, true);
    setUint64(view, at + 40, lineage.sizeBytes);
    setUint64(view, at + 48, lineage.ownedBlocks);
    const { writer } = lineage;
    view.setUint32(at + 56, writer.groupEpoch, true);
    view.setUint32(at + 60, writer.generation, true);
    view.setUint32(at + 64, writer.id[0], true);
    view.setUint32(at + 68, writer.id[1], true);
    encodeVersion(view, at + 72, lineage.version);
    encodeVersion(view, at + 84, lineage.flushed);
  });
}

function encodeVersion(view: DataView, at: number, { generation, sequence }: Version): void {
  view.setUint32(at, generation, true);
  setUint64(view, at + 4, sequence);
}

function decodeVersion(view: DataView, at: number): Version {
  return { generation: view.getUint32(at, true), sequence: getUint64(view, at + 4) };
}

/** In order of lineage and epoch. */
export function encodeSnapshots(lineages: Lineages): TablePage[] {
  const all = [...lineages.byNumber.values()].flatMap(({ snapshots }) => snapshots);
  return paged(all, snapshotsPerPage, snapshotRecordBytes, (snapshot, page, view, at) => {
    page.set(uuidBytes(snapshot.uuid), at);
    view.setUint32(at + 16, snapshot.lineage.number, true);
    view.setUint32(at + 20, snapshot.epoch, true);
    view.setUint32(at + 24, snapshot.deleted ? flag.deleted : 0, true);
    setUint64(view, at + 32, snapshot.sizeBytes);
    setUint64(view, at + 40, snapshot.createdMs);
  });
}

export function encodeCells(lineages: Lineages): TablePage[] {
  const rows: { lineage: number; birth: number; death: number; blocks: number }[] = [];
  for (const { number, cells } of lineages.byNumber.values()) {
    for (const { birth, death, blocks } of cells) {
      if (blocks > 0) rows.push({ lineage: number, birth, death, blocks });
    }
  }
  return paged(rows, cellsPerPage, cellRecordBytes, (row, _page, view, at) => {
    view.setUint32(at, row.lineage, true);
    view.setUint32(at + 4, row.birth, true);
    view.setUint32(at + 8, row.death, true);
    setUint64(view, at + 16, row.blocks);
  });
}

/** In order of lineage, then as they were done. */
export function encodeOperations(lineages: Lineages): TablePage[] {
  const rows = [...lineages.byNumber.values()].flatMap(({ number, operations }) =>
    operations.map((operation) => ({ lineage: number, operation })),
  );
  const bytes = operationRecordBytes;
  return paged(rows, operationsPerPage, bytes, ({ lineage, operation }, _page, view, at) => {
    view.setUint32(at, lineage, true);
    const { discards, partly } = operation;
    const flags = (discards ? OperationFlag.discards : 0) | (partly ? OperationFlag.partly : 0);
    view.setUint32(at + 4, flags, true);
    setUint64(view, at + 8, operation.sector);
    view.setUint32(at + 16, operation.sectors, true);
    encodeVersion(view, at + 20, operation);
  });
}

function paged<Row>(
  rows: readonly Row[],
  perPage: number,
  rowBytes: number,
  encode: (row: Row, page: Uint8Array, view: DataView, at: number) => void,
): TablePage[] {
  const pages: TablePage[] = [];
  for (let first = 0; first < rows.length; first += perPage) {
    const page = new Uint8Array(blockBytes);
    const view = new DataView(page.buffer);
    const some = rows.slice(first, first + perPage);
    for (let i = 0; i < some.length; i++) {
      encode(some[i], page, view, pageHeaderBytes + i * rowBytes);
    }
    pages.push({ page, count: some.length });
  }
  return pages;
}

/** False if the page names what is not there. */
export type Decode = (lineages: Lineages, page: Uint8Array, count: number) => boolean;

export const decodeLineages: Decode = (lineages, page, count) => {
  const view = new DataView(page.buffer, page.byteOffset, blockBytes);
  for (let i = 0; i < Math.min(count, volumesPerPage); i++) {
    const at = pageHeaderBytes + i * volumeRecordBytes;
    const parentNumber = view.getUint32(at + 20, true);
    const parent = parentNumber === 0 ? null : lineages.byNumber.get(parentNumber);
    if (parent === undefined) return false;
    const flags = view.getUint32(at + 36, true);
    const lineage = createLineage(
      {
        number: view.getUint32(at + 16, true),
        uuid: uuidText(page.subarray(at, at + 16)),
        parent,
        forkEpoch: view.getUint32(at + 24, true),
        firstEpoch: view.getUint32(at + 28, true),
        epoch: view.getUint32(at + 32, true),
        sizeBytes: getUint64(view, at + 40),
        sealed: (flags & flag.sealed) !== 0,
        deleted: (flags & flag.deleted) !== 0,
        headless: (flags & flag.headless) !== 0,
        ownedBlocks: getUint64(view, at + 48),
      },
      lineages.cells,
    );
    lineage.writer = {
      groupEpoch: view.getUint32(at + 56, true),
      generation: view.getUint32(at + 60, true),
      id: [view.getUint32(at + 64, true), view.getUint32(at + 68, true)],
    };
    lineage.version = decodeVersion(view, at + 72);
    lineage.flushed = decodeVersion(view, at + 84);
    lineages.load(lineage);
  }
  return true;
};

export const decodeSnapshots: Decode = (lineages, page, count) => {
  const view = new DataView(page.buffer, page.byteOffset, blockBytes);
  for (let i = 0; i < Math.min(count, snapshotsPerPage); i++) {
    const at = pageHeaderBytes + i * snapshotRecordBytes;
    const lineage = lineages.byNumber.get(view.getUint32(at + 16, true));
    const epoch = view.getUint32(at + 20, true);
    if (lineage === undefined || epoch <= (lineage.snapshots.at(-1)?.epoch ?? 0)) return false;
    lineages.addSnapshot({
      uuid: uuidText(page.subarray(at, at + 16)),
      ...{ lineage, epoch },
      sizeBytes: getUint64(view, at + 32),
      createdMs: getUint64(view, at + 40),
      deleted: (view.getUint32(at + 24, true) & flag.deleted) !== 0,
      children: 0,
      openCount: 0,
    });
  }
  return true;
};

export const decodeCells: Decode = (lineages, page, count) => {
  const view = new DataView(page.buffer, page.byteOffset, blockBytes);
  for (let i = 0; i < Math.min(count, cellsPerPage); i++) {
    const at = pageHeaderBytes + i * cellRecordBytes;
    const lineage = lineages.byNumber.get(view.getUint32(at, true));
    if (lineage === undefined) return false;
    const cell = lineage.cells.at(view.getUint32(at + 4, true), view.getUint32(at + 8, true));
    cell.blocks = getUint64(view, at + 16);
  }
  return true;
};

export const decodeOperations: Decode = (lineages, page, count) => {
  const view = new DataView(page.buffer, page.byteOffset, blockBytes);
  for (let i = 0; i < Math.min(count, operationsPerPage); i++) {
    const at = pageHeaderBytes + i * operationRecordBytes;
    const lineage = lineages.byNumber.get(view.getUint32(at, true));
    if (lineage === undefined) return false;
    const flags = view.getUint32(at + 4, true);
    lineage.operations.push({
      discards: (flags & OperationFlag.discards) !== 0,
      partly: (flags & OperationFlag.partly) !== 0,
      sector: getUint64(view, at + 8),
      sectors: view.getUint32(at + 16, true),
      ...decodeVersion(view, at + 20),
    });
  }
  return true;
};
