/**
 * What a volume may hold after a crash. Every write of a sector is kept, in order, until a crash
 * decides; an operation has a number that grows over all volumes.
 *
 * The store promises more than a disk: what survives is the state after some operation k, not below
 * the last flushed one, with operation k + 1 perhaps in part. Each sector read after a crash narrows
 * k to [number of the write found, number of the write that it should have been replaced by].
 */
interface Version {
  /** Number of the operation that wrote it. */
  readonly operation: number;
  /** 0 reads zero. */
  readonly stamp: number;
  /** It may have been done or not: says nothing of the operations around it. */
  readonly unsure?: boolean;
}

export class VolumeModel {
  readonly uuid: string;
  readonly sizeBytes: number;
  sealed = false;
  isSnapshot = false;
  readonly parent: VolumeModel | null;
  /** Stamps, by sector, that no crash takes away; -1 or beyond the end: never written. */
  private stamps: Int32Array;
  /** What was written to a sector since, oldest first; never empty. */
  readonly later = new Map<number, Version[]>();
  private sorted: readonly number[] | undefined;

  constructor(uuid: string, sizeBytes: number, parent: VolumeModel | null) {
    this.uuid = uuid;
    this.sizeBytes = sizeBytes;
    this.parent = parent;
    this.stamps = parent?.stamps.slice() ?? new Int32Array(0);
    this.sorted = parent?.sorted;
    for (const sector of parent?.later.keys() ?? []) {
      this.stamps[sector] = parent!.expected(sector);
    }
  }

  /** Sectors that were ever written, in order. */
  get sectors(): readonly number[] {
    if (this.sorted === undefined) {
      const sorted: number[] = [];
      this.stamps.forEach((stamp, sector) => {
        if (stamp >= 0) sorted.push(sector);
      });
      this.sorted = sorted;
    }
    return this.sorted;
  }

  /** Sectors of which a crash may decide what they read, in order. */
  undecided(): readonly number[] {
    return [...this.later.keys()].sort((a, b) => a - b);
  }

  has(sector: number): boolean {
    return this.settled(sector) >= 0;
  }

  /** Its stamp that no crash takes away; -1 if it was never written. */
  settled(sector: number): number {
    return this.stamps[sector] ?? -1;
  }

  write(sector: number, stamp: number, operation: number): void {
    const versions = this.later.get(sector);
    if (versions === undefined) {
      if (!this.has(sector)) {
        this.growTo(sector);
        this.stamps[sector] = 0;
        this.sorted = undefined;
      }
      this.later.set(sector, [{ operation, stamp }]);
    } else if (versions[versions.length - 1].operation === operation) {
      versions[versions.length - 1] = { operation, stamp };
    } else versions.push({ operation, stamp });
  }

  /** What a read must return now. */
  expected(sector: number): number {
    return this.later.get(sector)?.at(-1)?.stamp ?? Math.max(this.settled(sector), 0);
  }

  /** What a read had to return when `operation` was the last one done. */
  expectedAt(sector: number, operation: number): number {
    const versions = this.later.get(sector);
    if (versions !== undefined) {
      for (let at = versions.length - 1; at >= 0; at--) {
        if (versions[at].operation <= operation) return versions[at].stamp;
      }
    }
    return Math.max(this.settled(sector), 0);
  }

  /** Forgets the sector's versions of operations after `operation`. */
  undo(sector: number, operation: number): void {
    const versions = this.later.get(sector);
    if (versions === undefined) return;
    while (versions.length > 0 && versions[versions.length - 1].operation > operation) {
      versions.pop();
    }
    if (versions.length === 0) this.later.delete(sector);
  }

  /** Forgets the version of one operation. */
  drop(sector: number, operation: number): void {
    const versions = this.later.get(sector);
    const at = versions?.findIndex((version) => version.operation === operation) ?? -1;
    if (at < 0) return;
    versions!.splice(at, 1);
    if (versions!.length === 0) this.later.delete(sector);
  }

  /** The version of one operation may be there or not. */
  doubt(sector: number, operation: number): void {
    const versions = this.later.get(sector);
    const at = versions?.findIndex((version) => version.operation === operation) ?? -1;
    if (at >= 0) versions![at] = { ...versions![at], unsure: true };
  }

  /** Operations up to `operation` are durable: older versions can't come back. */
  flushed(operation: number): void {
    for (const [sector, versions] of this.later) {
      let durable = 0;
      while (durable < versions.length && versions[durable].operation <= operation) durable++;
      if (durable === 0) continue;
      this.stamps[sector] = versions[durable - 1].stamp;
      if (durable === versions.length) this.later.delete(sector);
      else versions.splice(0, durable);
    }
  }

  /** A crash has decided. */
  settle(sector: number, stamp: number): void {
    this.stamps[sector] = stamp;
    this.later.delete(sector);
  }

  private growTo(sector: number): void {
    const { stamps } = this;
    if (sector < stamps.length) return;
    this.stamps = new Int32Array(Math.max(sector + 1, 2 * stamps.length)).fill(-1);
    this.stamps.set(stamps);
  }
}

/** The cut k that all sectors of all volumes must agree on. */
export class Cut {
  private low: number;
  private high = Number.POSITIVE_INFINITY;

  /** Nothing below `flushed` may be missing. */
  constructor(flushed: number) {
    this.low = flushed;
  }

  /**
   * A sector was read after a crash as `stamp`. Gives what is wrong, or undefined; the model then
   * holds this as the sector's only version.
   */
  observe(volume: VolumeModel, sector: number, stamp: number): string | undefined {
    const settled = volume.settled(sector);
    const later = volume.later.get(sector);
    if (settled < 0) {
      return stamp === 0 ? undefined : `reads ${stamp}, though it was never written`;
    }
    if (later === undefined) {
      return stamp === settled ? undefined : `reads ${stamp}, and may only read ${settled}`;
    }
    // Zero may stand there twice, never written and discarded: then either may be meant. Number 0 is
    // what is settled, number i is `later[i - 1]`.
    let first = stamp === settled ? 0 : -1;
    let last = first;
    for (let i = 0; i < later.length; i++) {
      if (later[i].stamp !== stamp) continue;
      last = i + 1;
      if (first < 0) first = last;
    }
    if (last < 0) {
      const allowed = [settled, ...later.map((version) => version.stamp)].join(", ");
      return `reads ${stamp}, and may only read ${allowed}`;
    }
    const since = first === 0 ? undefined : later[first - 1];
    if (since !== undefined && since.unsure !== true) {
      this.low = Math.max(this.low, since.operation);
    }
    const next = later.at(last);
    if (next !== undefined && next.unsure !== true) this.high = Math.min(this.high, next.operation);
    volume.settle(sector, stamp);
    if (this.low <= this.high) return undefined;
    return `reads ${stamp}: a later operation survived (${this.low}) than one that is lost (${this.high})`;
  }
}
