/**
 * The bytes of one connection into PDUs:
 *
 *   header (48 [+ AHS] [+ digest]) --> data to payload | discarded --> pad, digest --> header ...
 *
 * Commands and their data are taken as they come, in part if need be; text, log-in and NOP PDUs once
 * they are whole.
 */
import type { BlockPort } from "#lib/volume/block.ts";
import { crc32c } from "#lib/volume/checksum.ts";
import { readU24, readU32 } from "#lib/wire/iscsi/layout.ts";
import { maxReceiveDataSegmentBytes } from "#lib/wire/iscsi/negotiation.ts";
import {
  Bhs,
  bhsBytes,
  finalBit,
  InitiatorOpcode,
  immediateBit,
  opcodeMask,
  padding,
  RejectReason,
  reservedTag,
} from "#lib/wire/iscsi/pdu.ts";
import { Sense } from "#lib/wire/scsi/sense.ts";
import { type Connection, DataMode, Phase } from "./connection.ts";
import type { DataPath } from "./data-path.ts";
import type { FullFeature } from "./full-feature.ts";
import type { ScsiDispatch } from "./scsi-dispatch.ts";
import { TaskState } from "./task-table.ts";

/** Data of text, log-in and NOP PDUs, which must be whole in the driver's buffer. */
const maxWholePduBytes = 16 * 1024;

const incomplete = -1;

export interface ReceiverParts {
  readonly path: DataPath;
  readonly port: BlockPort;
  readonly dispatch: ScsiDispatch;
  readonly fullFeature: FullFeature;
  login(c: Connection, header: Uint8Array, text: Uint8Array): void;
  /** Ends the connection: bad input. */
  drop(c: Connection, why: string): void;
}

export class Receiver {
  private readonly path: DataPath;
  private readonly port: BlockPort;
  private readonly dispatch: ScsiDispatch;
  private readonly fullFeature: FullFeature;
  private readonly login: ReceiverParts["login"];
  private readonly drop: ReceiverParts["drop"];

  constructor(parts: ReceiverParts) {
    this.path = parts.path;
    this.port = parts.port;
    this.dispatch = parts.dispatch;
    this.fullFeature = parts.fullFeature;
    this.login = parts.login;
    this.drop = parts.drop;
  }

  received(c: Connection, b: Uint8Array, start: number, end: number): number {
    let p = start;
    for (;;) {
      if (c.phase === Phase.closing) return end;
      if (c.dataMode !== DataMode.none) {
        p = this.takeSegment(c, b, p, end);
        if (c.dataMode !== DataMode.none) return p;
        continue;
      }
      if (c.stalled || end - p < bhsBytes) return p;
      const next = this.pdu(c, b, p, end);
      if (next === incomplete) return p;
      p = next;
    }
  }

  /** One PDU at `p`; index after its header (data follows) or after all of it; or `incomplete`. */
  private pdu(c: Connection, b: Uint8Array, p: number, end: number): number {
    const covered = bhsBytes + 4 * b[p + Bhs.totalAhsWords];
    const body = p + covered + (c.headerDigest ? 4 : 0);
    if (body > end) return incomplete;
    if (c.headerDigest && !digestMatches(b, p + covered, crc32c(b.subarray(p, p + covered)))) {
      // Section 7.7: at error recovery level 0 the connection ends.
      this.drop(c, "header digest error");
      return end;
    }
    const opcode = b[p] & opcodeMask;
    const dataLength = readU24(b, p + Bhs.dataSegmentLength);
    if (dataLength > maxReceiveDataSegmentBytes) {
      this.drop(c, `a data segment of ${dataLength} bytes is more than was agreed`);
      return end;
    }
    if (c.phase === Phase.login) {
      return this.whole(c, b, p, body, end, dataLength, opcode);
    }
    if (opcode === InitiatorOpcode.scsiCommand && c.unit !== undefined) {
      if (!this.path.queues.room(c.id, 2, 128)) {
        this.path.stallForSend(c);
        return incomplete;
      }
      if (!this.dispatch.command(c, b, p, dataLength)) return incomplete;
    } else if (opcode === InitiatorOpcode.dataOut) this.dataOut(c, b, p, dataLength);
    else return this.whole(c, b, p, body, end, dataLength, opcode);
    if (c.dataMode !== DataMode.none) this.beginSegment(c, dataLength);
    return body;
  }

  private beginSegment(c: Connection, dataLength: number): void {
    if (c.dataMode === DataMode.discard) {
      c.dataTask = -1;
      c.dataRemaining = 0;
      c.dataExcess = dataLength;
    }
    c.trailerRemaining = padding(dataLength) + (c.dataDigest ? 4 : 0);
    c.trailerBytes = 0;
  }

  private dataOut(c: Connection, b: Uint8Array, p: number, dataLength: number): void {
    const { table } = this.path;
    const tag = readU32(b, p + Bhs.targetTransferTag);
    const initiatorTag = readU32(b, p + Bhs.initiatorTaskTag);
    const unsolicited = tag === reservedTag;
    const slot = unsolicited ? this.path.findReceiving(c, initiatorTag) : tag;
    c.dataMode = dataLength > 0 ? DataMode.discard : DataMode.none;
    // Data of a task that failed, was aborted, or never was: there is nobody to tell.
    if (slot < 0 || slot >= table.capacity) return;
    if (
      table.connection[slot] !== c.id ||
      table.aborted[slot] !== 0 ||
      table.state[slot] !== TaskState.receiving ||
      table.initiatorTag[slot] !== initiatorTag ||
      (table.unsolicited[slot] === 1) !== unsolicited
    ) {
      return;
    }
    const offset = readU32(b, p + Bhs.bufferOffset);
    const inOrder =
      offset === table.receivedBytes[slot] && readU32(b, p + Bhs.dataSN) === table.dataSN[slot];
    if (!inOrder || offset + dataLength > table.burstEnd[slot] || table.payloadOffset[slot] < 0) {
      this.path.failReceiving(c, slot, inOrder ? Sense.incorrectDataAmount : Sense.dataSequence);
      return;
    }
    table.dataSN[slot]++;
    const final = (b[p + 1] & finalBit) !== 0;
    if (dataLength > 0) this.dispatch.acceptData(c, slot, dataLength, final);
    else this.burstPart(c, slot, 0, final);
  }

  /** `bytes` of `slot`'s data are in; `final` ends the burst. */
  private burstPart(c: Connection, slot: number, bytes: number, final: boolean): void {
    const { table } = this.path;
    table.receivedBytes[slot] += bytes;
    if (!final) return;
    table.unsolicited[slot] = 0;
    this.path.askForData(c, slot);
  }

  // ---- data segments ----

  private takeSegment(c: Connection, b: Uint8Array, start: number, end: number): number {
    let p = start;
    if (c.dataRemaining > 0) {
      const bytes = Math.min(c.dataRemaining, end - p);
      if (c.dataTask >= 0) this.port.payload.set(b.subarray(p, p + bytes), c.dataAt);
      p += bytes;
      c.dataAt += bytes;
      c.dataRemaining -= bytes;
      if (c.dataRemaining > 0) return p;
    }
    if (c.dataExcess > 0) {
      const bytes = Math.min(c.dataExcess, end - p);
      p += bytes;
      c.dataExcess -= bytes;
      if (c.dataExcess > 0) return p;
    }
    while (c.trailerRemaining > 0) {
      if (p === end) return p;
      c.trailer[c.trailerBytes++] = b[p++];
      c.trailerRemaining--;
    }
    this.segmentDone(c);
    return p;
  }

  /** Bytes a driver may receive straight into the payload. */
  directBytes(c: Connection): number {
    return c.dataMode === DataMode.payload && c.dataTask >= 0 ? c.dataRemaining : 0;
  }

  receivedDirect(c: Connection, bytes: number): void {
    c.dataAt += bytes;
    c.dataRemaining -= bytes;
    if (c.dataRemaining === 0 && c.dataExcess === 0 && c.trailerRemaining === 0) {
      this.segmentDone(c);
    }
  }

  private segmentDone(c: Connection): void {
    const slot = c.dataTask;
    const mode = c.dataMode;
    c.dataMode = DataMode.none;
    c.dataTask = -1;
    // -1: discarded, or its task was aborted while the data came in.
    if (mode === DataMode.discard || slot < 0) return;
    if (c.dataDigest && c.dataAt - c.dataStart === c.dataLength) {
      const pad = padding(c.dataLength);
      let crc = crc32c(this.port.payload.subarray(c.dataStart, c.dataAt));
      if (pad > 0) crc = crc32c(c.trailer.subarray(0, pad), crc);
      if (!digestMatches(c.trailer, pad, crc)) {
        this.path.failReceiving(c, slot, Sense.protocolServiceCrc);
        return;
      }
    }
    this.burstPart(c, slot, c.dataLength, c.dataFinal);
  }

  // ---- PDUs that are taken whole ----

  private whole(
    c: Connection,
    b: Uint8Array,
    p: number,
    body: number,
    end: number,
    dataLength: number,
    opcode: number,
  ): number {
    if (dataLength > maxWholePduBytes) {
      this.drop(c, `a PDU of kind ${opcode} with ${dataLength} bytes is too long`);
      return end;
    }
    const pad = padding(dataLength);
    const digest = c.dataDigest && dataLength > 0 ? 4 : 0;
    const next = body + dataLength + pad + digest;
    if (next > end) return incomplete;
    if (!this.path.queues.room(c.id, 8, 20 * 1024)) {
      this.path.stallForSend(c);
      return incomplete;
    }
    const header = b.slice(p, p + bhsBytes);
    const data = b.slice(body, body + dataLength);
    if (digest > 0) {
      const crc = crc32c(b.subarray(body, body + dataLength + pad));
      if (!digestMatches(b, body + dataLength + pad, crc)) {
        this.fullFeature.reject(c, RejectReason.dataDigestError, header);
        return next;
      }
    }
    if (c.phase === Phase.login) {
      if (opcode === InitiatorOpcode.login) this.login(c, header, data);
      else this.drop(c, `a PDU of kind ${opcode} came before log-in`);
      return next;
    }
    this.fullFeaturePdu(c, opcode, header, data);
    return next;
  }

  private fullFeaturePdu(
    c: Connection,
    opcode: number,
    header: Uint8Array,
    data: Uint8Array,
  ): void {
    const numbered =
      opcode === InitiatorOpcode.nopOut ||
      opcode === InitiatorOpcode.text ||
      opcode === InitiatorOpcode.taskManagement ||
      opcode === InitiatorOpcode.logout ||
      opcode === InitiatorOpcode.scsiCommand;
    if (numbered && (header[0] & immediateBit) === 0) {
      if (readU32(header, Bhs.cmdSN) !== c.expCmdSN) return;
      c.expCmdSN = (c.expCmdSN + 1) >>> 0;
    }
    switch (opcode) {
      case InitiatorOpcode.nopOut:
        this.fullFeature.nopOut(c, header, data);
        return;
      case InitiatorOpcode.text:
        this.fullFeature.text(c, header, data);
        return;
      case InitiatorOpcode.taskManagement:
        this.fullFeature.taskManagement(c, header);
        return;
      case InitiatorOpcode.logout:
        this.fullFeature.logout(c, header);
        return;
      case InitiatorOpcode.login:
        this.drop(c, "a log-in came in full feature phase");
        return;
      case InitiatorOpcode.scsiCommand:
        // A discovery session has no unit.
        this.fullFeature.reject(c, RejectReason.protocolError, header);
        return;
      default:
        this.fullFeature.reject(c, RejectReason.commandNotSupported, header);
    }
  }
}

/** Digests come least significant byte first (RFC 7143 section 13.1, RFC 3385). */
function digestMatches(b: Uint8Array, at: number, crc: number): boolean {
  return (
    b[at] === (crc & 0xff) &&
    b[at + 1] === ((crc >>> 8) & 0xff) &&
    b[at + 2] === ((crc >>> 16) & 0xff) &&
    b[at + 3] === crc >>> 24
  );
}
