/**
 * Commands that read or write blocks in more than one step: WRITE SAME, UNMAP, COMPARE AND WRITE,
 * ORWRITE, VERIFY with data. Rare enough to use closures; steps run in the batch that reaps them.
 */
import { BlockFlag, BlockOp, BlockStatus } from "#lib/volume/block.ts";
import { readU16 } from "#lib/wire/iscsi/layout.ts";
import {
  CdbFlag,
  cdbBlocks,
  cdbLba,
  parseUnmapList,
  ScsiOp,
  ScsiStatus,
} from "#lib/wire/scsi/cdb.ts";
import { Sense } from "#lib/wire/scsi/sense.ts";
import { senseOf } from "./block-sense.ts";
import type { Connection } from "./connection.ts";
import type { DataPath } from "./data-path.ts";
import { blockLimits, type LogicalUnit, maxTransferBlocks } from "./logical-unit.ts";

const sectorBytes = 512;
/** Bytes a WRITE SAME with a pattern writes at a time. */
const patternBytes = 64 * 1024;
/** Blocks of one discard or zeroing request. */
const rangeBlocks = (64 << 20) / sectorBytes;

/** One range after the other, so that a long list takes one place in the ring. */
interface Range {
  lba: number;
  blocks: number;
}

export class BlockCommands {
  private readonly path: DataPath;
  private readonly lifted: (unit: LogicalUnit) => void;

  /** `lifted`: called when a unit held for one command is free again. */
  constructor(path: DataPath, lifted: (unit: LogicalUnit) => void) {
    this.path = path;
    this.lifted = lifted;
  }

  private writable(unit: LogicalUnit, lba: number, blocks: number): number {
    if (unit.writeProtected) return Sense.writeProtected;
    return lba + blocks > unit.blocks ? Sense.lbaOutOfRange : 0;
  }

  /** A step that waits while the unit is held, as a READ or WRITE would. */
  private whenReady(slot: number, step: (slot: number) => void): void {
    this.path.runWhenReady(slot, step);
  }

  // ---- UNMAP, WRITE SAME ----

  unmap(c: Connection, slot: number, cdb: Uint8Array): number {
    const path = this.path;
    const length = readU16(cdb, 7);
    const unit = c.unit!;
    if ((cdb[1] & 0x01) !== 0) {
      // The ANCHOR bit (SBC-3, UNMAP): blocks are not kept anchored here.
      path.fail(c, slot, Sense.invalidFieldInCdb);
      return 0;
    }
    if (unit.writeProtected) {
      path.fail(c, slot, Sense.writeProtected);
      return 0;
    }
    if (length === 0) {
      path.respond(c, slot);
      return 0;
    }
    path.table.steps[slot] = () => {
      const ranges = parseUnmapList(path.parameters(slot));
      if (ranges === undefined) {
        path.fail(c, slot, Sense.parameterListLength);
        return;
      }
      const blocks = ranges.reduce((sum, range) => sum + range.blocks, 0);
      let sense = 0;
      if (ranges.length > blockLimits.maxUnmapDescriptors || blocks > blockLimits.maxUnmapBlocks) {
        sense = Sense.invalidFieldInParameterList;
      }
      if (ranges.some((range) => range.lba + range.blocks > unit.blocks)) {
        sense = Sense.lbaOutOfRange;
      }
      if (sense !== 0) {
        path.fail(c, slot, sense);
        return;
      }
      this.whenReady(slot, () =>
        this.zero(
          c,
          slot,
          unit,
          BlockOp.discard,
          ranges.map((range) => ({ ...range })),
        ),
      );
    };
    return length;
  }

  writeSame(c: Connection, slot: number, cdb: Uint8Array): number {
    const path = this.path;
    const unit = c.unit!;
    const lba = cdbLba(cdb);
    const blocks = cdbBlocks(cdb);
    const unmap = (cdb[1] & 0x08) !== 0;
    const noData = cdb[0] === ScsiOp.writeSame16 && (cdb[1] & 0x01) !== 0;
    let sense = 0;
    // Protection, PBDATA and LBDATA, ANCHOR: none is there.
    if ((cdb[1] & (CdbFlag.protect | 0x16)) !== 0) sense = Sense.invalidFieldInCdb;
    else sense = this.writable(unit, lba, blocks);
    if (sense === 0 && (blocks === 0 || blocks > blockLimits.maxWriteSameBlocks)) {
      sense = Sense.invalidFieldInCdb;
    }
    if (sense !== 0) {
      path.fail(c, slot, sense);
      return 0;
    }
    const op = unmap ? BlockOp.discard : BlockOp.writeZeroes;
    if (noData) {
      this.whenReady(slot, () => this.zero(c, slot, unit, op, [{ lba, blocks }]));
      return 0;
    }
    // More or less than one block of data is not what the command says.
    if (path.table.expectedBytes[slot] !== sectorBytes) {
      path.fail(c, slot, Sense.invalidFieldInCdb);
      return 0;
    }
    path.table.steps[slot] = () => {
      const pattern = path.parameters(slot).slice();
      this.whenReady(slot, () => {
        if (pattern.every((byte) => byte === 0)) {
          this.zero(c, slot, unit, op, [{ lba, blocks }]);
        } else this.repeat(c, slot, unit, pattern, { lba, blocks });
      });
    };
    return sectorBytes;
  }

  private zero(c: Connection, slot: number, unit: LogicalUnit, op: BlockOp, ranges: Range[]): void {
    const path = this.path;
    if (path.ended(slot)) return;
    while (ranges.length > 0 && ranges[0].blocks === 0) ranges.shift();
    if (ranges.length === 0) {
      path.finish(c, slot);
      return;
    }
    const range = ranges[0];
    const blocks = Math.min(range.blocks, rangeBlocks);
    const asked = path.rareRequests.submit(
      unit,
      op,
      range.lba,
      blocks * sectorBytes,
      0,
      0,
      (status) => {
        if (status !== BlockStatus.ok) {
          if (!path.ended(slot)) path.fail(c, slot, senseOf(status));
          return;
        }
        range.lba += blocks;
        range.blocks -= blocks;
        this.zero(c, slot, unit, op, ranges);
      },
    );
    if (!asked) path.refuse(c, slot, ScsiStatus.busy);
  }

  private repeat(
    c: Connection,
    slot: number,
    unit: LogicalUnit,
    pattern: Uint8Array,
    range: Range,
  ): void {
    const path = this.path;
    const bytes = Math.min(range.blocks * sectorBytes, patternBytes);
    const offset = path.port.allocate(bytes);
    if (offset < 0) {
      path.refuse(c, slot, ScsiStatus.busy);
      return;
    }
    for (let at = 0; at < bytes; at += sectorBytes) path.port.payload.set(pattern, offset + at);
    const end = (act: () => void) => {
      path.port.release(offset, bytes);
      if (!path.ended(slot)) act();
    };
    const next = () => {
      const blocks = Math.min(range.blocks, bytes / sectorBytes);
      const length = blocks * sectorBytes;
      const asked = path.rareRequests.submit(
        unit,
        BlockOp.write,
        range.lba,
        length,
        offset,
        0,
        (status) => {
          if (status !== BlockStatus.ok) end(() => path.fail(c, slot, senseOf(status)));
          else {
            range.lba += blocks;
            range.blocks -= blocks;
            if (range.blocks === 0 || path.table.aborted[slot] !== 0)
              end(() => path.finish(c, slot));
            else next();
          }
        },
      );
      if (!asked) end(() => path.refuse(c, slot, ScsiStatus.busy));
    };
    next();
  }

  // ---- those that read first ----

  compareAndWrite(c: Connection, slot: number, cdb: Uint8Array): number {
    const blocks = cdb[13];
    const lba = cdbLba(cdb);
    let sense = this.writable(c.unit!, lba, blocks);
    if ((cdb[1] & CdbFlag.protect) !== 0 || blocks > blockLimits.maxCompareAndWriteBlocks) {
      sense = Sense.invalidFieldInCdb;
    }
    return this.readFirst(
      c,
      slot,
      lba,
      blocks,
      2 * blocks * sectorBytes,
      sense,
      true,
      (given, found) => {
        const bytes = blocks * sectorBytes;
        const at = firstDifference(given.subarray(0, bytes), found);
        if (at >= 0) return { differs: at };
        return { write: given.subarray(bytes), durable: (cdb[1] & CdbFlag.fua) !== 0 };
      },
    );
  }

  orWrite(c: Connection, slot: number, cdb: Uint8Array): number {
    const blocks = cdbBlocks(cdb);
    const lba = cdbLba(cdb);
    let sense = this.writable(c.unit!, lba, blocks);
    if ((cdb[1] & CdbFlag.protect) !== 0 || blocks > maxTransferBlocks) {
      sense ||= Sense.invalidFieldInCdb;
    }
    return this.readFirst(
      c,
      slot,
      lba,
      blocks,
      blocks * sectorBytes,
      sense,
      true,
      (given, found) => {
        for (let at = 0; at < given.length; at++) given[at] |= found[at];
        return { write: given, durable: (cdb[1] & CdbFlag.fua) !== 0 };
      },
    );
  }

  /**
   * A write that ends within a block keeps the rest of that block (RFC 7143 section 11.4.5.1: what
   * was offered is moved, the rest is residual). The range was checked.
   */
  writePart(c: Connection, slot: number, lba: number, bytes: number, durable: boolean): void {
    const blocks = Math.ceil(bytes / sectorBytes);
    this.readFirst(c, slot, lba, blocks, bytes, 0, true, (given) => ({ write: given, durable }));
  }

  /** `single`: one block of data is compared with each of the range. The range was checked. */
  verifyBytes(c: Connection, slot: number, lba: number, blocks: number, single: boolean): number {
    const bytes = single ? sectorBytes : blocks * sectorBytes;
    return this.readFirst(c, slot, lba, blocks, bytes, 0, false, (given, found) => {
      for (let at = 0; at < found.length; at += given.length) {
        const difference = firstDifference(given, found.subarray(at, at + given.length));
        if (difference >= 0) return { differs: at + difference };
      }
      return {};
    });
  }

  /**
   * Takes `listBytes` of data out, reads the range, decides. `alone`: no other write may
   * come between the read and the write.
   */
  private readFirst(
    c: Connection,
    slot: number,
    lba: number,
    blocks: number,
    listBytes: number,
    sense: number,
    alone: boolean,
    decide: (
      given: Uint8Array,
      found: Uint8Array,
    ) => { differs?: number; write?: Uint8Array; durable?: boolean },
  ): number {
    const path = this.path;
    const unit = c.unit!;
    if (sense !== 0) {
      path.fail(c, slot, sense);
      return 0;
    }
    // What comes must be what the command says: half a comparison is worth nothing.
    if (path.table.expectedBytes[slot] !== listBytes) {
      path.fail(c, slot, Sense.invalidFieldInCdb);
      return 0;
    }
    if (blocks === 0) {
      path.respond(c, slot);
      return 0;
    }
    const bytes = blocks * sectorBytes;
    const run = () => {
      const offset = path.port.allocate(bytes);
      const end = (act: () => void) => {
        if (offset >= 0) path.port.release(offset, bytes);
        if (!path.ended(slot)) act();
        if (alone && unit.release(path.port.connected)) this.lifted(unit);
      };
      const busy = () => end(() => path.refuse(c, slot, ScsiStatus.busy));
      if (offset < 0) {
        busy();
        return;
      }
      const asked = path.rareRequests.submit(
        unit,
        BlockOp.read,
        lba,
        bytes,
        offset,
        0,
        (status) => {
          if (status !== BlockStatus.ok || path.table.aborted[slot] !== 0) {
            end(() => path.fail(c, slot, senseOf(status)));
            return;
          }
          const given = path.parameters(slot);
          const verdict = decide(given, path.port.payload.subarray(offset, offset + bytes));
          if (verdict.differs !== undefined) {
            const at = verdict.differs;
            end(() => path.fail(c, slot, Sense.miscompareDuringVerify, at));
            return;
          }
          if (verdict.write === undefined) {
            end(() => path.finish(c, slot));
            return;
          }
          path.port.payload.set(verdict.write, offset);
          const flags = verdict.durable ? BlockFlag.forceUnitAccess : 0;
          const written = path.rareRequests.submit(
            unit,
            BlockOp.write,
            lba,
            bytes,
            offset,
            flags,
            (done) =>
              end(() =>
                done === BlockStatus.ok ? path.finish(c, slot) : path.fail(c, slot, senseOf(done)),
              ),
          );
          if (!written) busy();
        },
      );
      if (!asked) busy();
    };
    path.table.steps[slot] = () => {
      this.whenReady(slot, () => {
        if (alone) unit.acquire(run);
        else run();
      });
    };
    return listBytes;
  }
}

/** Index of the first byte that differs, or -1. */
function firstDifference(a: Uint8Array, b: Uint8Array): number {
  for (let at = 0; at < a.length; at++) if (a[at] !== b[at]) return at;
  return -1;
}
