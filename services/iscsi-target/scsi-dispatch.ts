/**
 * From CDB to task. READ and WRITE of every form are decoded in place; the rest goes to
 * rare-commands.ts, which may take its time.
 */
import { BlockFlag, sectorBytes } from "#lib/volume/block.ts";
import { readU32, writeU32 } from "#lib/wire/iscsi/layout.ts";
import { Bhs, CommandFlag, ResponseFlag, TargetOpcode } from "#lib/wire/iscsi/pdu.ts";
import { CdbFlag, cdbBlocks, cdbLba, ScsiOp, ScsiStatus } from "#lib/wire/scsi/cdb.ts";
import { noUnit } from "#lib/wire/scsi/inquiry.ts";
import { Sense } from "#lib/wire/scsi/sense.ts";
import { type Connection, DataMode } from "./connection.ts";
import type { DataPath } from "./data-path.ts";
import type { LogicalUnit } from "./logical-unit.ts";
import { maxTransferBlocks } from "./logical-unit.ts";
import type { RareCommands } from "./rare-commands.ts";
import { TaskKind } from "./task-table.ts";

const sectorShift = 9;
const sectorMask = sectorBytes - 1;

export class ScsiDispatch {
  private readonly path: DataPath;
  private readonly rare: RareCommands;

  constructor(path: DataPath, rare: RareCommands) {
    this.path = path;
    this.rare = rare;
  }

  /**
   * One SCSI Command PDU whose header is complete at `b[p]`; its data segment (`dataLength` bytes)
   * follows. Sets up where that goes. False: no room; the PDU must be given again later.
   */
  command(c: Connection, b: Uint8Array, p: number, dataLength: number): boolean {
    const path = this.path;
    const immediate = (b[p] & 0x40) !== 0;
    const cmdSN = readU32(b, p + Bhs.cmdSN);
    if (!immediate && (cmdSN !== c.expCmdSN || ((c.maxCmdSN() - cmdSN) | 0) < 0)) {
      // Outside the window, or a repetition: ignored without an answer (section 4.2.2.1).
      c.dataMode = dataLength > 0 ? DataMode.discard : DataMode.none;
      return true;
    }
    const flags = b[p + 1];
    const initiatorTag = readU32(b, p + Bhs.initiatorTaskTag);
    const expected = readU32(b, p + Bhs.expectedDataTransferLength);
    const slot = path.begin(c, initiatorTag, expected);
    if (slot < 0) {
      if (c.awaitingDataOut === 0) {
        path.stall(c);
        return false;
      }
      if (!immediate) c.expCmdSN = (cmdSN + 1) >>> 0;
      this.refuseUntracked(c, initiatorTag, ScsiStatus.taskSetFull);
      c.dataMode = dataLength > 0 ? DataMode.discard : DataMode.none;
      return true;
    }
    if (!immediate) c.expCmdSN = (cmdSN + 1) >>> 0;
    c.lastIoMs = c.lastReceivedMs;
    c.dataMode = dataLength > 0 ? DataMode.discard : DataMode.none;

    const unit = c.unit!;
    path.table.units[slot] = unit;
    const cdb = p + Bhs.cdb;
    const opcode = b[cdb];
    if (b[p + Bhs.lun + 1] !== 0 || (b[p + Bhs.lun] & 0xbf) !== 0) {
      this.otherLun(c, slot, b.slice(cdb, cdb + 16));
      return true;
    }
    if (c.unitAttentions.length > 0 || unit.reservations.active) {
      if (!this.rare.admit(c, slot, opcode, b, cdb)) return true;
    }
    switch (opcode) {
      case ScsiOp.read10:
      case ScsiOp.read16:
      case ScsiOp.read12:
      case ScsiOp.read6:
        this.read(c, slot, unit, opcode, b, cdb, (flags & CommandFlag.read) !== 0);
        return true;
      case ScsiOp.write10:
      case ScsiOp.write16:
      case ScsiOp.write12:
      case ScsiOp.write6:
      case ScsiOp.writeAndVerify10:
      case ScsiOp.writeAndVerify12:
      case ScsiOp.writeAndVerify16:
        return this.write(c, slot, unit, opcode, b, cdb, flags, dataLength, immediate);
      default:
        return this.other(c, slot, b.slice(cdb, cdb + 16), flags, dataLength, immediate);
    }
  }

  /** Sense for a range that can't be, else 0. */
  private checkRange(unit: LogicalUnit, lba: number, blocks: number): number {
    if (lba + blocks > unit.blocks) return Sense.lbaOutOfRange;
    return blocks > maxTransferBlocks ? Sense.invalidFieldInCdb : 0;
  }

  private read(
    c: Connection,
    slot: number,
    unit: LogicalUnit,
    opcode: number,
    b: Uint8Array,
    cdb: number,
    takes: boolean,
  ): void {
    const path = this.path;
    const table = path.table;
    const lba = cdbLba(b, cdb);
    const blocks = cdbBlocks(b, cdb);
    const options = opcode === ScsiOp.read6 ? 0 : b[cdb + 1];
    const sense =
      (options & CdbFlag.protect) !== 0
        ? Sense.invalidFieldInCdb
        : this.checkRange(unit, lba, blocks);
    if (sense !== 0) {
      path.fail(c, slot, sense);
      return;
    }
    const bytes = blocks << sectorShift;
    table.commandBytes[slot] = bytes;
    const expected = takes ? table.expectedBytes[slot] : 0;
    const move = Math.min(expected, bytes);
    if (move === 0) {
      path.respond(c, slot);
      return;
    }
    table.kind[slot] = TaskKind.read;
    table.sector[slot] = lba;
    table.moveBytes[slot] = move;
    if ((options & CdbFlag.fua) !== 0) table.flags[slot] = BlockFlag.forceUnitAccess;
    path.start(slot);
  }

  private write(
    c: Connection,
    slot: number,
    unit: LogicalUnit,
    opcode: number,
    b: Uint8Array,
    cdb: number,
    flags: number,
    dataLength: number,
    immediate: boolean,
  ): boolean {
    const path = this.path;
    const table = path.table;
    const lba = cdbLba(b, cdb);
    const blocks = cdbBlocks(b, cdb);
    const options = opcode === ScsiOp.write6 ? 0 : b[cdb + 1];
    let sense = 0;
    if ((options & CdbFlag.protect) !== 0) sense = Sense.invalidFieldInCdb;
    else if (unit.writeProtected) sense = Sense.writeProtected;
    else sense = this.checkRange(unit, lba, blocks);
    if (sense !== 0) {
      path.fail(c, slot, sense);
      return true;
    }
    const bytes = blocks << sectorShift;
    table.commandBytes[slot] = bytes;
    const offered = (flags & CommandFlag.write) !== 0 ? table.expectedBytes[slot] : 0;
    // Less than the command says writes the bytes there are; more is cut off.
    const move = Math.min(offered, bytes);
    if (move === 0) {
      path.respond(c, slot);
      return true;
    }
    // VERIFY after WRITE: the store checks a checksum on every read; durable is what is asked for.
    const durable = (options & CdbFlag.fua) !== 0 || isWriteAndVerify(opcode);
    table.moveBytes[slot] = move;
    if ((move & sectorMask) !== 0) {
      table.kind[slot] = TaskKind.rare;
      this.rare.writePart(c, slot, lba, move, durable);
    } else {
      table.kind[slot] = TaskKind.write;
      table.sector[slot] = lba;
      if (durable) table.flags[slot] = BlockFlag.forceUnitAccess;
    }
    return this.takeData(c, slot, move, flags, dataLength, immediate);
  }

  /** Rare commands; those with a parameter list take it as a write takes its data. */
  private other(
    c: Connection,
    slot: number,
    cdb: Uint8Array,
    flags: number,
    dataLength: number,
    immediate: boolean,
  ): boolean {
    const path = this.path;
    const table = path.table;
    table.kind[slot] = TaskKind.rare;
    const listBytes = this.rare.start(c, slot, cdb);
    if (listBytes <= 0) return true;
    table.commandBytes[slot] = listBytes;
    const offered = (flags & CommandFlag.write) !== 0 ? table.expectedBytes[slot] : 0;
    const move = Math.min(offered, listBytes);
    if (move === 0) {
      table.steps[slot]!(slot);
      return true;
    }
    table.moveBytes[slot] = move;
    return this.takeData(c, slot, move, flags, dataLength, immediate);
  }

  private takeData(
    c: Connection,
    slot: number,
    move: number,
    flags: number,
    dataLength: number,
    immediate: boolean,
  ): boolean {
    const path = this.path;
    const table = path.table;
    table.unsolicited[slot] = (flags & CommandFlag.final) !== 0 ? 0 : 1;
    table.burstEnd[slot] = c.parameters.firstBurstBytes;
    if (!path.expectData(c, slot, move, dataLength)) {
      if (c.awaitingDataOut > 0) {
        // Waiting here would keep the data of other writes, behind this one, from coming in.
        table.unsolicited[slot] = 0;
        path.refuse(c, slot, ScsiStatus.taskSetFull);
        return true;
      }
      if (!immediate) c.expCmdSN = (c.expCmdSN - 1) >>> 0;
      path.undo(c, slot);
      path.stall(c);
      return false;
    }
    if (dataLength > 0) this.acceptData(c, slot, dataLength, table.unsolicited[slot] === 0);
    else path.askForData(c, slot);
    return true;
  }

  /** The segment that follows belongs at the task's next offset. */
  acceptData(c: Connection, slot: number, dataLength: number, final: boolean): void {
    const table = this.path.table;
    const received = table.receivedBytes[slot];
    const wanted = table.moveBytes[slot] - received;
    const accept = wanted < dataLength ? Math.max(wanted, 0) : dataLength;
    c.dataMode = DataMode.payload;
    c.dataTask = slot;
    c.dataFinal = final;
    c.dataLength = dataLength;
    c.dataStart = table.payloadOffset[slot] + received;
    c.dataAt = c.dataStart;
    c.dataRemaining = accept;
    c.dataExcess = dataLength - accept;
  }

  private otherLun(c: Connection, slot: number, cdb: Uint8Array): void {
    const path = this.path;
    switch (cdb[0]) {
      case ScsiOp.inquiry:
        this.rare.inquiry(c, slot, cdb, noUnit);
        return;
      case ScsiOp.reportLuns:
        this.rare.start(c, slot, cdb);
        return;
      case ScsiOp.requestSense:
        this.rare.requestSense(c, slot, cdb, Sense.logicalUnitNotSupported);
        return;
      default:
        path.fail(c, slot, Sense.logicalUnitNotSupported);
    }
  }

  /** Answers a command for which there is no task. Room for one answer was checked before. */
  private refuseUntracked(c: Connection, initiatorTag: number, status: number): void {
    const at = this.path.writer.header(
      c,
      TargetOpcode.scsiResponse,
      ResponseFlag.final,
      initiatorTag,
    );
    const bytes = this.path.queues.headers;
    bytes[at + 3] = status;
    writeU32(bytes, at + 24, c.statSN);
    c.statSN = (c.statSN + 1) >>> 0;
    this.path.writer.finishHeader(c, at);
  }
}

function isWriteAndVerify(opcode: number): boolean {
  return (
    opcode === ScsiOp.writeAndVerify10 ||
    opcode === ScsiOp.writeAndVerify12 ||
    opcode === ScsiOp.writeAndVerify16
  );
}
