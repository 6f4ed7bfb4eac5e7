/** What a session in full feature phase says beside SCSI: NOP, text, log-out, task management. */
import { readU32 } from "#lib/wire/iscsi/layout.ts";
import { negotiate } from "#lib/wire/iscsi/negotiation.ts";
import {
  logoutResponseLayout,
  nopInLayout,
  RejectReason,
  rejectLayout,
  reservedTag,
  TargetOpcode,
  TaskFunction,
  TaskResponse,
  taskManagementResponseLayout,
  textResponseLayout,
} from "#lib/wire/iscsi/pdu.ts";
import { formatText, parseText } from "#lib/wire/iscsi/text.ts";
import { Sense } from "#lib/wire/scsi/sense.ts";
import type { Connection } from "./connection.ts";
import type { DataPath } from "./data-path.ts";
import type { DriverHost } from "./driver.ts";
import type { LogicalUnit } from "./logical-unit.ts";
import { TaskState } from "./task-table.ts";

/** Echo of a NOP-Out: so much at most (section 11.18 lets the target cut it). */
const maxEchoBytes = 4096;
const maxTextPartialBytes = 16 * 1024;

/** A task management request that waits for the store to be done with what it aborted. */
interface PendingAbort {
  readonly c: Connection;
  readonly initiatorTag: number;
  readonly waitsFor: Set<number>;
  /** What happens before the answer. */
  readonly finish: () => void;
}

export class FullFeature {
  private readonly path: DataPath;
  private readonly host: DriverHost;
  private readonly sendTargets: (c: Connection, which: string) => Uint8Array;
  private readonly sessionsOf: (unit: LogicalUnit) => Iterable<Connection>;
  private readonly endSession: (c: Connection, why: string) => void;
  private readonly pending: PendingAbort[] = [];
  /** Rest of a text answer longer than one PDU, by connection. */
  private readonly textRests = new Map<Connection, Uint8Array>();

  constructor(parts: {
    readonly path: DataPath;
    readonly host: DriverHost;
    sendTargets(c: Connection, which: string): Uint8Array;
    sessionsOf(unit: LogicalUnit): Iterable<Connection>;
    endSession(c: Connection, why: string): void;
  }) {
    this.path = parts.path;
    this.host = parts.host;
    this.sendTargets = parts.sendTargets;
    this.sessionsOf = parts.sessionsOf;
    this.endSession = parts.endSession;
    this.path.onTaskEnded = (slot) => this.taskEnded(slot);
  }

  private nextStatSN(c: Connection): number {
    const statSN = c.statSN;
    c.statSN = (statSN + 1) >>> 0;
    return statSN;
  }

  reject(c: Connection, reason: number, header: Uint8Array): void {
    const bhs = rejectLayout.encode({
      opcode: TargetOpcode.reject,
      flags: 0x80,
      reason,
      initiatorTaskTag: reservedTag,
      statSN: this.nextStatSN(c),
    });
    this.path.writer.send(c, bhs, header.subarray(0, 48));
  }

  nopOut(c: Connection, header: Uint8Array, data: Uint8Array): void {
    const initiatorTaskTag = readU32(header, 16);
    if (readU32(header, 20) !== reservedTag) c.pingTag = 0;
    if (initiatorTaskTag === reservedTag) return;
    const bhs = nopInLayout.encode({
      opcode: TargetOpcode.nopIn,
      flags: 0x80,
      initiatorTaskTag,
      targetTransferTag: reservedTag,
      statSN: this.nextStatSN(c),
    });
    const most = Math.min(maxEchoBytes, c.parameters.maxSendDataSegmentBytes);
    this.path.writer.send(c, bhs, data.subarray(0, most));
  }

  /** Asks a silent initiator whether it is there. */
  ping(c: Connection, nowMs: number): void {
    if (!this.path.queues.room(c.id, 2, 64)) return;
    c.pingTag = 1 + (c.pingTag & 0xffff);
    c.pingSentMs = nowMs;
    const bhs = nopInLayout.encode({
      opcode: TargetOpcode.nopIn,
      flags: 0x80,
      initiatorTaskTag: reservedTag,
      targetTransferTag: c.pingTag,
      statSN: c.statSN,
    });
    this.path.writer.send(c, bhs, undefined);
  }

  text(c: Connection, header: Uint8Array, data: Uint8Array): void {
    const initiatorTaskTag = readU32(header, 16);
    const more = (header[1] & 0x40) !== 0;
    const continued = readU32(header, 20) !== reservedTag;
    const rest = this.textRests.get(c);
    if (continued && rest !== undefined) {
      this.answerText(c, initiatorTaskTag, rest);
      return;
    }
    const partial = Buffer.concat([c.textPartial, data]);
    c.textPartial = new Uint8Array(0);
    if (partial.length > maxTextPartialBytes) {
      this.reject(c, RejectReason.protocolError, header);
      return;
    }
    if (more) {
      c.textPartial = partial;
      const bhs = textResponseLayout.encode({
        opcode: TargetOpcode.textResponse,
        initiatorTaskTag,
        targetTransferTag: 1,
        statSN: this.nextStatSN(c),
      });
      this.path.writer.send(c, bhs, undefined);
      return;
    }
    const parsed = parseText(partial);
    if (!parsed.ok) {
      this.reject(c, RejectReason.protocolError, header);
      return;
    }
    const answers: Uint8Array[] = [];
    for (const [key, value] of parsed.pairs) {
      if (key === "SendTargets" && isSendTargetsValue(value)) {
        answers.push(this.sendTargets(c, value));
      } else if (key === "MaxRecvDataSegmentLength") {
        negotiate(key, value, c.parameters);
      } else if (/^X[-#]/.test(key)) {
        answers.push(formatText([[key, "NotUnderstood"]]));
      } else {
        // Not a key of this phase, nor an extension's: Linux' target rejects these, and initiators
        // are written against it.
        this.reject(c, RejectReason.protocolError, header);
        return;
      }
    }
    this.answerText(c, initiatorTaskTag, Buffer.concat(answers));
  }

  private answerText(c: Connection, initiatorTaskTag: number, text: Uint8Array): void {
    const most = Math.min(8192, c.parameters.maxSendDataSegmentBytes);
    const last = text.length <= most;
    if (last) this.textRests.delete(c);
    else this.textRests.set(c, text.subarray(most));
    const bhs = textResponseLayout.encode({
      opcode: TargetOpcode.textResponse,
      flags: last ? 0x80 : 0x40,
      initiatorTaskTag,
      targetTransferTag: last ? reservedTag : 2,
      statSN: this.nextStatSN(c),
    });
    this.path.writer.send(c, bhs, text.subarray(0, most));
  }

  logout(c: Connection, header: Uint8Array): void {
    const reason = header[1] & 0x7f;
    // 0 closes the session, 1 the connection: here the same. 2 is recovery: not at ERL 0.
    const bhs = logoutResponseLayout.encode({
      opcode: TargetOpcode.logoutResponse,
      flags: 0x80,
      response: reason === 2 ? 2 : 0,
      initiatorTaskTag: readU32(header, 16),
      statSN: this.nextStatSN(c),
    });
    this.path.writer.send(c, bhs, undefined);
    if (reason !== 2) this.endSession(c, "log-out");
  }

  // ---- task management (section 11.5) ----

  taskManagement(c: Connection, header: Uint8Array): void {
    const initiatorTag = readU32(header, 16);
    const unit = c.unit;
    if (unit === undefined) {
      this.respond(c, initiatorTag, TaskResponse.notSupported);
      return;
    }
    const wrongLun = header[9] !== 0 || (header[8] & 0xbf) !== 0;
    switch (header[1] & 0x7f) {
      case TaskFunction.abortTask:
        this.abortTask(c, header, initiatorTag);
        return;
      case TaskFunction.abortTaskSet:
        this.abortAll(c, initiatorTag, [c], wrongLun, () => {});
        return;
      case TaskFunction.clearTaskSet:
        this.abortAll(c, initiatorTag, [...this.sessionsOf(unit)], wrongLun, () => {
          for (const other of this.sessionsOf(unit)) if (other !== c) other.attend(0x6_2f00);
        });
        return;
      case TaskFunction.logicalUnitReset:
        this.abortAll(c, initiatorTag, [...this.sessionsOf(unit)], wrongLun, () =>
          this.reset(unit),
        );
        return;
      case TaskFunction.targetWarmReset:
        this.abortAll(c, initiatorTag, [...this.sessionsOf(unit)], false, () => this.reset(unit));
        return;
      case TaskFunction.targetColdReset:
        this.abortAll(c, initiatorTag, [...this.sessionsOf(unit)], false, () => {
          this.reset(unit);
          for (const other of this.sessionsOf(unit)) this.host.close(other.id, true);
        });
        return;
      default:
        this.respond(c, initiatorTag, TaskResponse.notSupported);
    }
  }

  /** SAM-5 section 6.3.3: the unit forgets what initiators had set, and says so to each. */
  private reset(unit: LogicalUnit): void {
    unit.mode = { softwareWriteProtect: false, descriptorSense: false };
    for (const session of this.sessionsOf(unit)) session.attend(Sense.powerOnOrReset);
  }

  private abortTask(c: Connection, header: Uint8Array, initiatorTag: number): void {
    const referenced = readU32(header, 20);
    const { table } = this.path;
    for (let slot = c.taskHead; slot >= 0; slot = table.next[slot]) {
      if (table.initiatorTag[slot] !== referenced) continue;
      if (table.state[slot] === TaskState.sending) break;
      this.wait(c, initiatorTag, [slot], () => {});
      return;
    }
    // Answered already: the initiator sees that answer before this one.
    this.respond(c, initiatorTag, TaskResponse.taskDoesNotExist);
  }

  private abortAll(
    c: Connection,
    initiatorTag: number,
    sessions: readonly Connection[],
    wrongLun: boolean,
    finish: () => void,
  ): void {
    if (wrongLun) {
      this.respond(c, initiatorTag, TaskResponse.lunDoesNotExist);
      return;
    }
    const { table } = this.path;
    const slots: number[] = [];
    for (const session of sessions) {
      for (let slot = session.taskHead; slot >= 0; slot = table.next[slot]) {
        if (table.state[slot] !== TaskState.sending) slots.push(slot);
      }
    }
    this.wait(c, initiatorTag, slots, finish);
  }

  /** Aborts `slots`; answers once all of them are gone: a write in the store can't be called back. */
  private wait(
    c: Connection,
    initiatorTag: number,
    slots: readonly number[],
    finish: () => void,
  ): void {
    const entry: PendingAbort = { c, initiatorTag, waitsFor: new Set(slots), finish };
    this.pending.push(entry);
    for (const slot of slots) {
      const owner = this.path.connections[this.path.table.connection[slot]];
      if (owner !== undefined) this.path.abort(owner, slot, false);
    }
    this.settle(entry);
  }

  private taskEnded(slot: number): void {
    for (const entry of [...this.pending]) {
      if (entry.waitsFor.delete(slot)) this.settle(entry);
    }
  }

  private settle(entry: PendingAbort): void {
    if (entry.waitsFor.size > 0) return;
    const index = this.pending.indexOf(entry);
    if (index < 0) return;
    this.pending.splice(index, 1);
    this.respond(entry.c, entry.initiatorTag, TaskResponse.complete);
    entry.finish();
  }

  private respond(c: Connection, initiatorTaskTag: number, response: number): void {
    if (!this.path.queues.room(c.id, 1, 64)) {
      // The initiator doesn't read what it asked for: it will be gone soon.
      this.host.close(c.id, false);
      return;
    }
    const bhs = taskManagementResponseLayout.encode({
      opcode: TargetOpcode.taskManagementResponse,
      flags: 0x80,
      response,
      initiatorTaskTag,
      statSN: this.nextStatSN(c),
    });
    this.path.writer.send(c, bhs, undefined);
  }

  /** The connection is gone. */
  forget(c: Connection): void {
    this.textRests.delete(c);
    for (let index = this.pending.length - 1; index >= 0; index--) {
      if (this.pending[index].c === c) this.pending.splice(index, 1);
    }
  }
}

/** RFC 7143 appendix C: all, one target by its name, or the session's own. */
function isSendTargetsValue(value: string): boolean {
  return value === "" || value === "All" || /^(?:iqn|eui|naa)\./i.test(value);
}
