/** SCSI commands beside READ and WRITE that need no block of the volume, or only look at it. */
import { readU16, readU32, writeU16, writeU32 } from "#lib/wire/iscsi/layout.ts";
import {
  CdbFlag,
  cdbBlocks,
  cdbLba,
  ScsiOp,
  ScsiStatus,
  ServiceAction,
  supportedCommands,
} from "#lib/wire/scsi/cdb.ts";
import { standardInquiry, vpdPage } from "#lib/wire/scsi/inquiry.ts";
import { modeSelect, modeSense } from "#lib/wire/scsi/mode.ts";
import { descriptorSense, fixedSense, Sense } from "#lib/wire/scsi/sense.ts";
import type { BlockCommands } from "./block-commands.ts";
import type { Connection } from "./connection.ts";
import type { DataPath } from "./data-path.ts";
import { blockLimits, type LogicalUnit, maxTransferBlocks } from "./logical-unit.ts";
import type { ReservationCommands } from "./reservation-commands.ts";
import { TaskKind } from "./task-table.ts";

const sectorBytes = 512;
/** 2^3 sectors a block of the store. */
const physicalExponent = 3;

export class RareCommands {
  private readonly path: DataPath;
  private readonly blocks: BlockCommands;
  private readonly reserve: ReservationCommands;
  private readonly sessionsOf: (unit: LogicalUnit) => Iterable<Connection>;

  constructor(
    path: DataPath,
    blocks: BlockCommands,
    reserve: ReservationCommands,
    sessionsOf: (unit: LogicalUnit) => Iterable<Connection>,
  ) {
    this.path = path;
    this.blocks = blocks;
    this.reserve = reserve;
    this.sessionsOf = sessionsOf;
  }

  /** Unit attentions and reservations come before the command. False: it was answered. */
  admit(c: Connection, slot: number, opcode: number, b: Uint8Array, cdb: number): boolean {
    const informing =
      opcode === ScsiOp.inquiry || opcode === ScsiOp.reportLuns || opcode === ScsiOp.requestSense;
    if (c.unitAttentions.length > 0 && !informing) {
      this.path.fail(c, slot, c.unitAttentions.shift()!);
      return false;
    }
    if (c.unit!.reservations.conflicts(c, opcode, b, cdb)) {
      this.path.refuse(c, slot, ScsiStatus.reservationConflict);
      return false;
    }
    return true;
  }

  /**
   * Carries out the command of `slot`. Positive: so many bytes of parameters are wanted first, then
   * `steps[slot]` goes on. Else it is answered or under way.
   */
  start(c: Connection, slot: number, cdb: Uint8Array): number {
    const path = this.path;
    const unit = c.unit!;
    switch (cdb[0]) {
      case ScsiOp.testUnitReady:
        if (unit.state === "ready") path.respond(c, slot);
        else path.fail(c, slot, notReadySense(unit));
        return 0;
      case ScsiOp.inquiry:
        this.inquiry(c, slot, cdb, 0);
        return 0;
      case ScsiOp.requestSense:
        this.requestSense(c, slot, cdb, c.unitAttentions.shift() ?? Sense.none);
        return 0;
      case ScsiOp.reportLuns:
        this.reportLuns(c, slot, cdb);
        return 0;
      case ScsiOp.modeSense6:
      case ScsiOp.modeSense10:
        this.modeSense(c, slot, cdb);
        return 0;
      case ScsiOp.modeSelect6:
      case ScsiOp.modeSelect10:
        return this.modeSelect(c, slot, cdb);
      case ScsiOp.readCapacity10:
        this.readCapacity10(c, slot, cdb);
        return 0;
      case ScsiOp.serviceActionIn16:
        this.serviceActionIn(c, slot, cdb);
        return 0;
      case ScsiOp.maintenanceIn:
        this.maintenanceIn(c, slot, cdb);
        return 0;
      case ScsiOp.startStopUnit:
      case ScsiOp.preventAllowMediumRemoval:
        path.respond(c, slot);
        return 0;
      case ScsiOp.readDefectData10:
        path.answer(c, slot, Uint8Array.of(0, cdb[2] & 0x1f, 0, 0).subarray(0, readU16(cdb, 7)));
        return 0;
      case ScsiOp.synchronizeCache10:
      case ScsiOp.synchronizeCache16:
        this.synchronize(c, slot, cdb);
        return 0;
      case ScsiOp.preFetch10:
      case ScsiOp.preFetch16:
        if (cdbLba(cdb) + cdbBlocks(cdb) > unit.blocks) path.fail(c, slot, Sense.lbaOutOfRange);
        else path.respond(c, slot);
        return 0;
      case ScsiOp.verify10:
      case ScsiOp.verify12:
      case ScsiOp.verify16:
        return this.verify(c, slot, cdb);
      case ScsiOp.writeSame10:
      case ScsiOp.writeSame16:
        return this.blocks.writeSame(c, slot, cdb);
      case ScsiOp.unmap:
        return this.blocks.unmap(c, slot, cdb);
      case ScsiOp.compareAndWrite:
        return this.blocks.compareAndWrite(c, slot, cdb);
      case ScsiOp.orWrite:
        return this.blocks.orWrite(c, slot, cdb);
      case ScsiOp.persistentReserveIn:
        this.reserve.read(c, slot, cdb);
        return 0;
      case ScsiOp.persistentReserveOut:
        return this.reserve.write(c, slot, cdb);
      default:
        path.fail(c, slot, Sense.invalidOpcode);
        return 0;
    }
  }

  /** A WRITE whose initiator offers `bytes`, which end within a block. The range was checked. */
  writePart(c: Connection, slot: number, lba: number, bytes: number, durable: boolean): void {
    this.blocks.writePart(c, slot, lba, bytes, durable);
  }

  inquiry(c: Connection, slot: number, cdb: Uint8Array, peripheral: number): void {
    const vital = (cdb[1] & 0x01) !== 0;
    if ((!vital && cdb[2] !== 0) || (cdb[1] & 0x02) !== 0) {
      this.path.fail(c, slot, Sense.invalidFieldInCdb);
      return;
    }
    const { identity } = c.unit!;
    const data = vital
      ? vpdPage(cdb[2], identity, blockLimits, peripheral)
      : standardInquiry(identity, peripheral);
    if (data === undefined) this.path.fail(c, slot, Sense.invalidFieldInCdb);
    else this.path.answer(c, slot, data.subarray(0, readU16(cdb, 3)));
  }

  requestSense(c: Connection, slot: number, cdb: Uint8Array, sense: number): void {
    const data = (cdb[1] & 0x01) !== 0 ? descriptorSense(sense) : fixedSense(sense);
    this.path.answer(c, slot, data.subarray(0, cdb[4]));
  }

  private reportLuns(c: Connection, slot: number, cdb: Uint8Array): void {
    const length = readU32(cdb, 6);
    // SELECT REPORT: 1 asks for well-known units only, of which there is none.
    if (cdb[2] > 2 || length < 16) {
      this.path.fail(c, slot, Sense.invalidFieldInCdb);
      return;
    }
    const data = new Uint8Array(cdb[2] === 1 ? 8 : 16);
    writeU32(data, 0, data.length - 8);
    this.path.answer(c, slot, data.subarray(0, length));
  }

  private modeSense(c: Connection, slot: number, cdb: Uint8Array): void {
    const unit = c.unit!;
    const ten = cdb[0] === ScsiOp.modeSense10;
    const control = cdb[2] >> 6;
    if (control === 3) {
      this.path.fail(c, slot, 0x5_3900); // saving is not supported
      return;
    }
    const data = modeSense(
      {
        ten,
        pageCode: cdb[2] & 0x3f,
        subpage: cdb[3],
        control,
        disableBlockDescriptors: (cdb[1] & 0x08) !== 0,
        longLba: (cdb[1] & 0x10) !== 0,
      },
      unit.mode,
      unit.writeProtected,
      unit.blocks,
      sectorBytes,
    );
    if (data === undefined) this.path.fail(c, slot, Sense.invalidFieldInCdb);
    else this.path.answer(c, slot, data.subarray(0, ten ? readU16(cdb, 7) : cdb[4]));
  }

  private modeSelect(c: Connection, slot: number, cdb: Uint8Array): number {
    const ten = cdb[0] === ScsiOp.modeSelect10;
    const length = ten ? readU16(cdb, 7) : cdb[4];
    // SP: nothing is saved.
    if ((cdb[1] & 0x01) !== 0) {
      this.path.fail(c, slot, Sense.invalidFieldInCdb);
      return 0;
    }
    if (length === 0) {
      this.path.respond(c, slot);
      return 0;
    }
    this.path.table.steps[slot] = () => {
      const unit = c.unit!;
      const result = modeSelect(this.path.parameters(slot), ten, unit.mode);
      if (!result.ok) {
        const sense =
          result.fault === "length" ? Sense.parameterListLength : Sense.invalidFieldInParameterList;
        this.path.fail(c, slot, sense);
        return;
      }
      unit.mode = result.next;
      if (result.changed) {
        for (const other of this.sessionsOf(unit)) {
          if (other !== c) other.attend(Sense.modeParametersChanged);
        }
      }
      this.path.finish(c, slot);
    };
    return length;
  }

  private readCapacity10(c: Connection, slot: number, cdb: Uint8Array): void {
    if ((cdb[8] & 0x01) === 0 && readU32(cdb, 2) !== 0) {
      this.path.fail(c, slot, Sense.invalidFieldInCdb);
      return;
    }
    const data = new Uint8Array(8);
    writeU32(data, 0, Math.min(c.unit!.lastLba, 0xffffffff));
    writeU32(data, 4, sectorBytes);
    this.path.answer(c, slot, data);
  }

  private serviceActionIn(c: Connection, slot: number, cdb: Uint8Array): void {
    if ((cdb[1] & 0x1f) !== ServiceAction.readCapacity16) {
      this.path.fail(c, slot, Sense.invalidFieldInCdb);
      return;
    }
    const unit = c.unit!;
    const data = new Uint8Array(32);
    writeU32(data, 0, Math.floor(unit.lastLba / 2 ** 32));
    writeU32(data, 4, unit.lastLba % 2 ** 32);
    writeU32(data, 8, sectorBytes);
    data[13] = physicalExponent;
    data[14] = 0xc0; // LBPME, LBPRZ: thin, and what is unmapped reads as zeros
    this.path.answer(c, slot, data.subarray(0, readU32(cdb, 10)));
  }

  private maintenanceIn(c: Connection, slot: number, cdb: Uint8Array): void {
    const length = readU32(cdb, 6);
    switch (cdb[1] & 0x1f) {
      case ServiceAction.reportSupportedOpcodes: {
        const data = supportedOpcodes(cdb);
        if (data === undefined) this.path.fail(c, slot, Sense.invalidFieldInCdb);
        else this.path.answer(c, slot, data.subarray(0, length));
        return;
      }
      case ServiceAction.reportSupportedTaskManagement: {
        // ABORT TASK, ABORT TASK SET, CLEAR TASK SET, LUN RESET, TARGET RESET.
        const data = new Uint8Array((cdb[2] & 0x80) !== 0 ? 16 : 4);
        data[0] = 0x80 | 0x40 | 0x10 | 0x08 | 0x02;
        if (data.length === 16) data[3] = 12;
        this.path.answer(c, slot, data.subarray(0, length));
        return;
      }
      default:
        this.path.fail(c, slot, Sense.invalidFieldInCdb);
    }
  }

  private synchronize(c: Connection, slot: number, cdb: Uint8Array): void {
    if (cdbLba(cdb) + cdbBlocks(cdb) > c.unit!.blocks) {
      this.path.fail(c, slot, Sense.lbaOutOfRange);
      return;
    }
    this.path.table.kind[slot] = TaskKind.flush;
    this.path.start(slot);
  }

  /** BYTCHK 0 reads, so that every checksum is looked at; 1 and 3 compare with what is sent. */
  private verify(c: Connection, slot: number, cdb: Uint8Array): number {
    const path = this.path;
    const table = path.table;
    const lba = cdbLba(cdb);
    const blocks = cdbBlocks(cdb);
    const check = (cdb[1] & CdbFlag.byteCheck) >> 1;
    let sense = 0;
    if ((cdb[1] & CdbFlag.protect) !== 0 || check === 2) sense = Sense.invalidFieldInCdb;
    else if (lba + blocks > c.unit!.blocks) sense = Sense.lbaOutOfRange;
    else if (blocks > maxTransferBlocks) sense = Sense.invalidFieldInCdb;
    if (sense !== 0) {
      path.fail(c, slot, sense);
      return 0;
    }
    if (blocks === 0) {
      path.respond(c, slot);
      return 0;
    }
    if (check !== 0) return this.blocks.verifyBytes(c, slot, lba, blocks, check === 3);
    table.kind[slot] = TaskKind.verify;
    table.sector[slot] = lba;
    table.moveBytes[slot] = blocks * sectorBytes;
    path.start(slot);
    return 0;
  }
}

export function notReadySense(unit: LogicalUnit): number {
  switch (unit.state) {
    case "storeFailed":
      return Sense.internalTargetFailure;
    case "notFound":
      return Sense.notAccessible;
    default:
      return Sense.becomingReady;
  }
}

/** REPORT SUPPORTED OPERATION CODES (SPC-4 section 6.35); undefined for a wrong question. */
function supportedOpcodes(cdb: Uint8Array): Uint8Array | undefined {
  const options = cdb[2] & 0x07;
  const timeouts = (cdb[2] & 0x80) !== 0;
  const opcode = cdb[3];
  const action = readU16(cdb, 4);
  if (options === 0) {
    const width = timeouts ? 20 : 8;
    const data = new Uint8Array(4 + supportedCommands.length * width);
    writeU32(data, 0, data.length - 4);
    supportedCommands.forEach((command, index) => {
      const at = 4 + index * width;
      data[at] = command.opcode;
      writeU16(data, at + 2, command.serviceAction ?? 0);
      data[at + 5] = (timeouts ? 0x02 : 0) | (command.serviceAction === undefined ? 0 : 0x01);
      writeU16(data, at + 6, command.usage.length);
      if (timeouts) writeU16(data, at + 8, 0x0a);
    });
    return data;
  }
  if (options > 3) return undefined;
  const known = supportedCommands.filter((command) => command.opcode === opcode);
  const hasActions = known.some((command) => command.serviceAction !== undefined);
  if (options === 1 && hasActions) return undefined;
  if (options === 2 && known.length > 0 && !hasActions) return undefined;
  const found = known.find((command) => options === 1 || (command.serviceAction ?? 0) === action);
  const usage = found?.usage ?? [];
  const data = new Uint8Array(4 + usage.length + (timeouts ? 12 : 0));
  data[1] = (found === undefined ? 0x01 : 0x03) | (timeouts && found !== undefined ? 0x80 : 0);
  writeU16(data, 2, usage.length);
  data.set(usage, 4);
  if (timeouts) writeU16(data, 4 + usage.length, 0x0a);
  return found === undefined ? data.subarray(0, 4) : data;
}
