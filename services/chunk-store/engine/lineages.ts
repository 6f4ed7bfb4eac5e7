/**
 * Volumes as the store sees them: a lineage is a volume's own line of blocks, over what its parent
 * had when it was cloned. Lineage numbers are never used twice.
 */
import { blockBytes } from "../limits.ts";
import {
  getUint64,
  pageHeaderBytes,
  setUint64,
  uuidBytes,
  uuidText,
  volumeRecordBytes,
  volumesPerPage,
} from "./layout.ts";

export interface Lineage {
  readonly number: number;
  readonly uuid: string;
  readonly parent: Lineage | null;
  /** The parent's epoch that a clone sees. 0 without a parent. */
  readonly forkEpoch: number;
  readonly firstEpoch: number;
  /** Of new map records. */
  epoch: number;
  sizeBytes: number;
  sealed: boolean;
  /** Invisible; its blocks are freed once no clone sees them. */
  deleted: boolean;
  ownedBlocks: number;
  /** Clones of it that exist, deleted ones included. */
  children: number;
  /** Users now; not on disk. */
  openCount: number;
}

const flag = { sealed: 1, deleted: 2 } as const;

export class Lineages {
  readonly byNumber = new Map<number, Lineage>();
  /** Visible volumes. */
  readonly byUuid = new Map<string, Lineage>();
  nextNumber = 1;

  add(lineage: Lineage): void {
    this.byNumber.set(lineage.number, lineage);
    if (!lineage.deleted) this.byUuid.set(lineage.uuid, lineage);
    if (lineage.parent !== null) lineage.parent.children++;
    if (lineage.number >= this.nextNumber) this.nextNumber = lineage.number + 1;
  }

  delete(lineage: Lineage): void {
    lineage.deleted = true;
    if (this.byUuid.get(lineage.uuid) === lineage) this.byUuid.delete(lineage.uuid);
  }

  forget(lineage: Lineage): void {
    this.byNumber.delete(lineage.number);
    if (lineage.parent !== null) lineage.parent.children--;
  }

  /** A deleted lineage that nobody sees any more, if there is one. */
  nextToReap(): Lineage | undefined {
    for (const lineage of this.byNumber.values()) {
      if (lineage.deleted && lineage.children === 0) return lineage;
    }
    return undefined;
  }

  get pages(): number {
    return Math.ceil(this.byNumber.size / volumesPerPage);
  }

  usedBlocks(): number {
    let sum = 0;
    for (const lineage of this.byNumber.values()) sum += lineage.ownedBlocks;
    return sum;
  }

  /** Body of every volume page, in order of lineage number: parents before their clones. */
  encode(): { page: Uint8Array; count: number }[] {
    const sorted = [...this.byNumber.values()].sort((a, b) => a.number - b.number);
    const pages: { page: Uint8Array; count: number }[] = [];
    for (let first = 0; first < sorted.length; first += volumesPerPage) {
      const page = new Uint8Array(blockBytes);
      const view = new DataView(page.buffer);
      const some = sorted.slice(first, first + volumesPerPage);
      some.forEach((lineage, i) => {
        const at = pageHeaderBytes + i * volumeRecordBytes;
        page.set(uuidBytes(lineage.uuid), at);
        view.setUint32(at + 16, lineage.number, true);
        view.setUint32(at + 20, lineage.parent?.number ?? 0, true);
        view.setUint32(at + 24, lineage.forkEpoch, true);
        view.setUint32(at + 28, lineage.firstEpoch, true);
        view.setUint32(at + 32, lineage.epoch, true);
        const flags = (lineage.sealed ? flag.sealed : 0) | (lineage.deleted ? flag.deleted : 0);
        view.setUint32(at + 36, flags, true);
        setUint64(view, at + 40, lineage.sizeBytes);
        setUint64(view, at + 48, lineage.ownedBlocks);
      });
      pages.push({ page, count: some.length });
    }
    return pages;
  }

  /** Adds the volumes of one page. False if it names a parent that is not there. */
  decode(page: Uint8Array, count: number): boolean {
    const view = new DataView(page.buffer, page.byteOffset, blockBytes);
    for (let i = 0; i < Math.min(count, volumesPerPage); i++) {
      const at = pageHeaderBytes + i * volumeRecordBytes;
      const parentNumber = view.getUint32(at + 20, true);
      const parent = parentNumber === 0 ? null : this.byNumber.get(parentNumber);
      if (parent === undefined) return false;
      const flags = view.getUint32(at + 36, true);
      this.add({
        number: view.getUint32(at + 16, true),
        uuid: uuidText(page.subarray(at, at + 16)),
        parent,
        forkEpoch: view.getUint32(at + 24, true),
        firstEpoch: view.getUint32(at + 28, true),
        epoch: view.getUint32(at + 32, true),
        sizeBytes: getUint64(view, at + 40),
        sealed: (flags & flag.sealed) !== 0,
        deleted: (flags & flag.deleted) !== 0,
        ownedBlocks: getUint64(view, at + 48),
        children: 0,
        openCount: 0,
      });
    }
    return true;
  }
}
