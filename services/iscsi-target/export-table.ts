/** The exports served now: which units there are, who may see them, and whether their volumes are open. */
import { KeelsonError } from "#lib/model/errors.ts";
import type { Iqn } from "#lib/model/ids.ts";
import { type BlockStatus, nextWriter, type OpenVolume, sectorBytes } from "#lib/volume/block.ts";
import { Sense } from "#lib/wire/scsi/sense.ts";
import type { Connection } from "./connection.ts";
import type { DataPath } from "./data-path.ts";
import { LogicalUnit, stateOfOpenFailure } from "./logical-unit.ts";
import { notReadySense } from "./rare-commands.ts";
import type { Chap, ExportsPut, ExportsView } from "./schema.ts";

/** Between two tries to open a volume. */
const openRetryMs = 1_000;
/** A command waits so long for a store that is away before it is answered NOT READY. */
const patienceMs = 60_000;

export interface ExportTableParts {
  readonly path: DataPath;
  sessionsOf(unit: LogicalUnit): Iterable<Connection>;
  endSession(c: Connection, why: string): void;
  /** The unit's requests may go (again). */
  onReady(unit: LogicalUnit): void;
  onChange(unit: LogicalUnit, why: string): void;
}

export class ExportTable {
  generation = 0;
  private readonly parts: ExportTableParts;
  private readonly path: DataPath;
  private units = new Map<string, LogicalUnit>();
  private connected = false;
  private nowMs = 0;

  constructor(parts: ExportTableParts) {
    this.parts = parts;
    this.path = parts.path;
  }

  byIqn(iqn: Iqn): LogicalUnit | undefined {
    for (const unit of this.units.values()) if (unit.entry.iqn === iqn) return unit;
    return undefined;
  }

  *visible(initiator: Iqn, fromLoopback: boolean): Generator<LogicalUnit> {
    for (const unit of this.units.values()) if (unit.mayUse(initiator, fromLoopback)) yield unit;
  }

  credentials(initiator: Iqn, fromLoopback: boolean): Chap[] {
    return [...this.visible(initiator, fromLoopback)].flatMap((unit) => unit.entry.chap ?? []);
  }

  /** Makes the exports what `put` says; returns how many sessions that ended. */
  apply(put: ExportsPut): number {
    if (put.generation < this.generation) {
      throw new KeelsonError(
        "STALE_GENERATION",
        `Generation ${put.generation} of the exports is older than ${this.generation}, which is served.`,
        { operation: "apply exports", remedy: "Read the policy again and put what stands there." },
      );
    }
    const newer = put.generation > this.generation;
    let ended = 0;
    const next = new Map<string, LogicalUnit>();
    for (const entry of put.exports) {
      const standing = this.units.get(entry.id);
      const same =
        standing !== undefined &&
        standing.volumeId === entry.volumeId &&
        standing.entry.iqn === entry.iqn;
      if (!same) {
        next.set(entry.id, new LogicalUnit(entry, this.path.table));
        continue;
      }
      next.set(entry.id, standing);
      if (standing.entry.readOnly !== entry.readOnly) {
        for (const c of this.parts.sessionsOf(standing)) c.attend(Sense.modeParametersChanged);
      }
      standing.entry = entry;
      for (const c of this.parts.sessionsOf(standing)) {
        if (standing.mayUse(c.initiator, c.fromLoopback)) continue;
        this.parts.endSession(c, "the export no longer names this initiator");
        ended++;
      }
      // The volume may have another size by now.
      if (newer && standing.handle >= 0) this.open(standing);
    }
    const removed = [...this.units.values()].filter((unit) => next.get(unit.entry.id) !== unit);
    this.units = next;
    this.generation = put.generation;
    for (const unit of removed) {
      for (const c of this.parts.sessionsOf(unit)) {
        this.parts.endSession(c, "the export was removed");
        ended++;
      }
      if (unit.handle >= 0) this.path.port.close(unit.handle);
      unit.handle = -1;
      unit.state = "notFound";
      this.failHeld(unit);
    }
    for (const unit of next.values()) if (unit.handle < 0) this.open(unit);
    return ended;
  }

  /** Opens the volume, or opens it once more to see its size. */
  private open(unit: LogicalUnit): void {
    if (unit.opening || !this.path.port.connected) return;
    unit.opening = true;
    unit.nextOpenMs = this.nowMs + openRetryMs;
    const opened = (result: OpenVolume | BlockStatus) => {
      unit.opening = false;
      if (typeof result === "number") this.openFailed(unit, result);
      else if (this.units.get(unit.entry.id) !== unit) this.path.port.close(result.handle);
      else this.opened(unit, result);
    };
    this.path.port.open(unit.volumeId, opened, nextWriter);
  }

  private openFailed(unit: LogicalUnit, status: BlockStatus): void {
    if (unit.handle >= 0 && unit.state === "ready") return;
    const state = stateOfOpenFailure(status);
    if (state !== unit.state) {
      unit.state = state;
      const why = state === "notFound" ? "the store has no such volume" : `status ${status}`;
      this.parts.onChange(unit, why);
    }
    unit.hold = true;
  }

  private opened(unit: LogicalUnit, volume: OpenVolume): void {
    const blocks = Math.floor(volume.sizeBytes / sectorBytes);
    const same = unit.handle >= 0 && unit.blocks === blocks;
    const before = unit.handle;
    if (same && unit.state === "ready") {
      this.path.port.close(volume.handle);
      return;
    }
    if (before >= 0 && unit.requestsInFlight > 0) {
      // What is on its way under the old handle ends first.
      this.path.port.close(volume.handle);
      unit.nextOpenMs = this.nowMs;
      unit.resizing = true;
      unit.hold = true;
      return;
    }
    if (before >= 0) this.path.port.close(before);
    if (unit.blocks > 0 && unit.blocks !== blocks) {
      for (const c of this.parts.sessionsOf(unit)) c.attend(Sense.capacityChanged);
    }
    unit.resizing = false;
    unit.handle = volume.handle;
    unit.blocks = blocks;
    unit.volumeReadOnly = volume.readOnly;
    unit.state = "ready";
    unit.awaySinceMs = -1;
    this.parts.onChange(unit, "open");
    if (unit.settle(this.path.port.connected)) this.parts.onReady(unit);
  }

  /** Sees the store go and come back. Each batch: cheap while nothing changed. */
  checkStore(nowMs: number): void {
    const { connected } = this.path.port;
    if (connected === this.connected) return;
    this.connected = connected;
    this.nowMs = nowMs;
    for (const unit of this.units.values()) {
      if (!connected) {
        unit.hold = true;
        if (unit.awaySinceMs < 0) unit.awaySinceMs = nowMs;
      } else if (unit.handle < 0) this.open(unit);
      else {
        unit.awaySinceMs = -1;
        if (unit.state === "storeFailed") this.open(unit);
        else if (unit.settle(true)) this.parts.onReady(unit);
      }
    }
  }

  tick(nowMs: number): void {
    this.nowMs = nowMs;
    this.checkStore(nowMs);
    for (const unit of this.units.values()) {
      const wanted = unit.handle < 0 || unit.state === "storeFailed" || unit.resizing;
      if (wanted && nowMs >= unit.nextOpenMs) this.open(unit);
      if (unit.handle < 0 && unit.awaySinceMs < 0) unit.awaySinceMs = nowMs;
      const gone = unit.state === "storeFailed" || unit.state === "notFound";
      const tooLong = unit.awaySinceMs >= 0 && nowMs - unit.awaySinceMs > patienceMs;
      if (gone || tooLong) this.failHeld(unit);
    }
  }

  private failHeld(unit: LogicalUnit): void {
    for (;;) {
      const slot = unit.held.shift();
      if (slot < 0) return;
      const c = this.path.connections[this.path.table.connection[slot]];
      if (c !== undefined) this.path.fail(c, slot, notReadySense(unit));
    }
  }

  view(): ExportsView {
    return {
      generation: this.generation,
      exports: [...this.units.values()].map((unit) => ({
        id: unit.entry.id,
        iqn: unit.entry.iqn,
        lun: 0,
        volumeId: unit.volumeId,
        initiators: unit.entry.initiators,
        openToLoopback: unit.entry.openToLoopback,
        readOnly: unit.entry.readOnly,
        chapUser: unit.entry.chap?.user ?? null,
        chapMutual: unit.entry.chap?.mutualUser !== undefined,
        volumeState: this.path.port.connected ? unit.state : "storeUnreachable",
        sizeBytes: unit.sizeBytes,
        sessionCount: [...this.parts.sessionsOf(unit)].length,
      })),
    };
  }
}
