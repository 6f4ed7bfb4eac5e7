/**
 * What a volume may hold after a crash. Every write of a sector is kept, in order, until a crash
 * decides; an operation has a number that grows over all volumes.
 *
 * The store promises more than a disk: what survives is the state after some operation k, not below
 * the last flushed one, with operation k + 1 perhaps in part. Each sector read after a crash narrows
 * k to [number of the write found, number of the write that it should have been replaced by].
 */
export interface Version {
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
  /** Versions by sector, oldest first; a sector not here reads zero. */
  readonly sectors = new Map<number, Version[]>();

  constructor(uuid: string, sizeBytes: number, parent: VolumeModel | null) {
    this.uuid = uuid;
    this.sizeBytes = sizeBytes;
    this.parent = parent;
    if (parent === null) return;
    for (const [sector, versions] of parent.sectors) {
      this.sectors.set(sector, [{ operation: 0, stamp: versions[versions.length - 1].stamp }]);
    }
  }

  write(sector: number, stamp: number, operation: number): void {
    const versions = this.sectors.get(sector);
    if (versions === undefined) {
      this.sectors.set(sector, [
        { operation: 0, stamp: 0 },
        { operation, stamp },
      ]);
    } else if (versions[versions.length - 1].operation === operation) {
      versions[versions.length - 1] = { operation, stamp };
    } else versions.push({ operation, stamp });
  }

  /** What a read must return now. */
  expected(sector: number): number {
    const versions = this.sectors.get(sector);
    return versions === undefined ? 0 : versions[versions.length - 1].stamp;
  }

  /** Forgets the sector's versions of operations after `operation`. */
  undo(sector: number, operation: number): void {
    const versions = this.sectors.get(sector);
    if (versions === undefined) return;
    while (versions.length > 1 && versions[versions.length - 1].operation > operation) {
      versions.pop();
    }
  }

  /** Forgets the version of one operation. */
  drop(sector: number, operation: number): void {
    const versions = this.sectors.get(sector);
    const at = versions?.findIndex((version) => version.operation === operation) ?? -1;
    if (at > 0) versions!.splice(at, 1);
  }

  /** The version of one operation may be there or not. */
  doubt(sector: number, operation: number): void {
    const versions = this.sectors.get(sector);
    const at = versions?.findIndex((version) => version.operation === operation) ?? -1;
    if (at > 0) versions![at] = { ...versions![at], unsure: true };
  }

  /** Operations up to `operation` are durable: older versions can't come back. */
  flushed(operation: number): void {
    for (const versions of this.sectors.values()) {
      let keep = 0;
      while (keep + 1 < versions.length && versions[keep + 1].operation <= operation) keep++;
      if (keep > 0) versions.splice(0, keep);
    }
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
    const versions = volume.sectors.get(sector);
    if (versions === undefined) {
      return stamp === 0 ? undefined : `reads ${stamp}, though it was never written`;
    }
    // Zero may stand there twice, never written and discarded: then either may be meant.
    const found = versions.findLastIndex((version) => version.stamp === stamp);
    const first = versions.findIndex((version) => version.stamp === stamp);
    if (found < 0) {
      const allowed = versions.map((version) => version.stamp).join(", ");
      return `reads ${stamp}, and may only read ${allowed}`;
    }
    if (versions[first].unsure !== true) this.low = Math.max(this.low, versions[first].operation);
    const next = versions[found + 1];
    if (next !== undefined && next.unsure !== true) this.high = Math.min(this.high, next.operation);
    volume.sectors.set(sector, [{ operation: 0, stamp }]);
    if (this.low <= this.high) return undefined;
    return `reads ${stamp}: a later operation survived (${this.low}) than one that is lost (${this.high})`;
  }
}
