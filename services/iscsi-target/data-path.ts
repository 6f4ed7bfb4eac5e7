/**
 * Tasks from command to answer: data out into the payload, requests to the store, data in from the
 * payload. The hot path; nothing in it allocates.
 */
import { BlockOp, type BlockPort, BlockStatus, maxRequestBytes } from "#lib/volume/block.ts";
import { writeU24, writeU32 } from "#lib/wire/iscsi/layout.ts";
import { bhsBytes, padding, ResponseFlag, reservedTag, TargetOpcode } from "#lib/wire/iscsi/pdu.ts";
import { ScsiStatus } from "#lib/wire/scsi/cdb.ts";
import { fixedSenseBytes, writeFixedSense } from "#lib/wire/scsi/sense.ts";
import { senseOf } from "./block-sense.ts";
import { type Connection, Phase } from "./connection.ts";
import type { DriverHost } from "./driver.ts";
import type { LogicalUnit } from "./logical-unit.ts";
import { PduWriter } from "./pdu-writer.ts";
import { RareRequests } from "./rare-requests.ts";
import { residual, residualFlags } from "./residual.ts";
import { SendQueue } from "./send-queue.ts";
import { TaskKind, TaskQueue, TaskState, TaskTable } from "./task-table.ts";

/** Tasks of all connections of a thread. */
export const taskCapacity = 8192;

/** Header, digest, sense segment, digest: the most an answer without data takes of the ring. */
const responseBytes = bhsBytes + 4 + 20 + 4;

/** Answers made here go out through the ring of headers, in segments of at most this. */
const answerSegmentBytes = 8192;

export class DataPath {
  readonly table: TaskTable;
  readonly queues: SendQueue;
  readonly writer: PduWriter;
  readonly port: BlockPort;
  readonly connections: readonly (Connection | undefined)[];
  private readonly host: DriverHost;
  /**
   * Two queues, since a write that has its data must not stand behind one that waits for payload:
   * the first gives back what the second wants.
   */
  private readonly forPayload: TaskQueue;
  private readonly forRing: TaskQueue;
  readonly rareRequests: RareRequests;
  /** Connections that stopped receiving for want of payload or tasks. */
  private readonly stalled = new Set<Connection>();
  /** Called when a task that a TMF waits for has ended. */
  onTaskEnded: ((slot: number) => void) | undefined;
  private readonly complete: (tag: number, status: BlockStatus) => void;

  constructor(
    port: BlockPort,
    host: DriverHost,
    connections: readonly (Connection | undefined)[],
    capacity = taskCapacity,
  ) {
    this.port = port;
    this.host = host;
    this.connections = connections;
    this.table = new TaskTable(capacity);
    this.rareRequests = new RareRequests(port, taskCapacity);
    this.forPayload = new TaskQueue(this.table);
    this.forRing = new TaskQueue(this.table);
    this.queues = new SendQueue((slot) => this.taskSent(slot));
    this.writer = new PduWriter(this.queues, host);
    this.complete = (tag, status) => {
      if (tag < taskCapacity) this.taskCompleted(tag, status);
      else this.rareRequests.completed(tag, status);
    };
  }

  // ---- the life of a task ----

  /** A task of `c`, linked, counted in its window; -1 when the table is full. */
  begin(c: Connection, initiatorTag: number, expectedBytes: number): number {
    const table = this.table;
    const slot = table.take();
    if (slot < 0) return -1;
    table.connection[slot] = c.id;
    table.initiatorTag[slot] = initiatorTag;
    table.expectedBytes[slot] = expectedBytes;
    table.commandBytes[slot] = 0;
    table.next[slot] = c.taskHead;
    table.previous[slot] = -1;
    if (c.taskHead >= 0) table.previous[c.taskHead] = slot;
    c.taskHead = slot;
    c.outstanding++;
    return slot;
  }

  /** Takes the task out of its connection's list: its answer is queued, or never will be. */
  private unlink(c: Connection, slot: number): void {
    const table = this.table;
    const next = table.next[slot];
    const previous = table.previous[slot];
    if (next >= 0) table.previous[next] = previous;
    if (previous >= 0) table.next[previous] = next;
    else c.taskHead = next;
    c.outstanding--;
  }

  private releasePayload(slot: number): void {
    const offset = this.table.payloadOffset[slot];
    if (offset < 0) return;
    this.port.release(offset, this.table.payloadBytes[slot]);
    this.table.payloadOffset[slot] = -1;
  }

  /** Payload for the task's data; false when there is none now. */
  allocate(slot: number, bytes: number): boolean {
    const offset = this.port.allocate(bytes);
    if (offset < 0) return false;
    this.table.payloadOffset[slot] = offset;
    this.table.payloadBytes[slot] = bytes;
    return true;
  }

  /** All rows of a read have left (or its connection has gone). */
  private taskSent(slot: number): void {
    this.releasePayload(slot);
    this.table.free(slot);
  }

  /** Frees a task that ends without an answer. */
  private vanish(slot: number): void {
    const c = this.connections[this.table.connection[slot]];
    this.releasePayload(slot);
    if (c !== undefined && this.table.aborted[slot] !== 2) this.unlink(c, slot);
    this.table.free(slot);
    this.onTaskEnded?.(slot);
  }

  /**
   * Aborts a task: it is freed at once, or when the store is done with it (a write can't be called
   * back). `orphan`: its connection goes, so that its id may mean another one soon.
   */
  abort(c: Connection, slot: number, orphan: boolean): void {
    const table = this.table;
    if (table.state[slot] === TaskState.receiving) c.awaitingDataOut--;
    if (c.dataTask === slot) c.dataTask = -1;
    const inStore = table.state[slot] === TaskState.submitted;
    if (orphan) {
      this.unlink(c, slot);
      table.aborted[slot] = 2;
    } else {
      table.aborted[slot] = 1;
    }
    if (inStore) return;
    this.forRing.remove(slot) ||
      this.forPayload.remove(slot) ||
      table.units[slot]?.held.remove(slot) ||
      c.sendWaiting.remove(slot);
    this.vanish(slot);
  }

  /** Takes back a `begin` whose command couldn't be taken in: it will be given again. */
  undo(c: Connection, slot: number): void {
    this.unlink(c, slot);
    this.table.free(slot);
  }

  /** A task in the middle of its data out fails; what still comes of it is discarded. */
  failReceiving(c: Connection, slot: number, sense: number): void {
    c.awaitingDataOut--;
    this.forPayload.remove(slot) || c.sendWaiting.remove(slot);
    this.table.r2tDue[slot] = 0;
    this.fail(c, slot, sense);
  }

  /** The task of the unsolicited Data-Out with this tag, or -1. */
  findReceiving(c: Connection, initiatorTag: number): number {
    const table = this.table;
    for (let slot = c.taskHead; slot >= 0; slot = table.next[slot]) {
      if (table.initiatorTag[slot] === initiatorTag && table.state[slot] === TaskState.receiving) {
        return slot;
      }
    }
    return -1;
  }

  /** For rare commands after each wait: true when the task was aborted meanwhile, and now is gone. */
  ended(slot: number): boolean {
    if (this.table.aborted[slot] === 0) return false;
    this.vanish(slot);
    return true;
  }

  // ---- requests to the store ----

  /** Sends the task's request on, now or as soon as there is room. */
  start(slot: number): void {
    const table = this.table;
    if (table.units[slot]!.hold) {
      table.state[slot] = TaskState.waiting;
      table.units[slot]!.held.push(slot);
      return;
    }
    if (table.kind[slot] === TaskKind.rare) {
      table.state[slot] = TaskState.submitted;
      table.steps[slot]!(slot);
      return;
    }
    table.state[slot] = TaskState.waiting;
    if (this.wantsPayload(slot) && (this.forPayload.head >= 0 || !this.allocateRead(slot))) {
      this.forPayload.push(slot);
      return;
    }
    this.submitOrWait(slot);
  }

  private wantsPayload(slot: number): boolean {
    const kind = this.table.kind[slot];
    return (
      (kind === TaskKind.read || kind === TaskKind.verify) && this.table.payloadOffset[slot] < 0
    );
  }

  private allocateRead(slot: number): boolean {
    return this.allocate(slot, wholeSectors(this.table.moveBytes[slot]));
  }

  private submitOrWait(slot: number): void {
    if (this.forRing.head >= 0 || !this.trySubmit(slot)) this.forRing.push(slot);
  }

  /** Runs a rare command's step once the unit may be used; then it can't be aborted midway. */
  runWhenReady(slot: number, step: (slot: number) => void): void {
    this.table.steps[slot] = step;
    this.start(slot);
  }

  /** The parameters that came with a rare command, in the payload: valid until it is answered. */
  parameters(slot: number): Uint8Array {
    const table = this.table;
    const bytes = Math.min(table.receivedBytes[slot], table.moveBytes[slot]);
    const offset = Math.max(table.payloadOffset[slot], 0);
    return this.port.payload.subarray(offset, offset + bytes);
  }

  /** Ends a rare command with GOOD. */
  finish(c: Connection, slot: number): void {
    this.releasePayload(slot);
    this.respond(c, slot);
  }

  private trySubmit(slot: number): boolean {
    const table = this.table;
    const kind = table.kind[slot];
    const unit = table.units[slot]!;
    const flush = kind === TaskKind.flush;
    const op = kind === TaskKind.write ? BlockOp.write : flush ? BlockOp.flush : BlockOp.read;
    const submitted = this.port.submit(
      op,
      unit.handle,
      table.sector[slot],
      flush ? 0 : wholeSectors(table.moveBytes[slot]),
      flush ? 0 : table.payloadOffset[slot],
      table.flags[slot],
      slot,
    );
    if (!submitted) return false;
    table.state[slot] = TaskState.submitted;
    unit.requestsInFlight++;
    if (op === BlockOp.write) unit.writesInFlight++;
    return true;
  }

  /** Reaps completions, then lets those that waited go on. */
  pollStore(): number {
    const count = this.port.poll(this.complete);
    if (this.forRing.head >= 0 || this.forPayload.head >= 0) this.drainWaiting();
    if (this.stalled.size > 0) this.resumeStalled();
    return count;
  }

  private drainWaiting(): void {
    const { table, forRing, forPayload } = this;
    while (forRing.head >= 0) {
      const slot = forRing.head;
      const unit = table.units[slot]!;
      if (!unit.hold && !this.trySubmit(slot)) return;
      forRing.shift();
      if (table.state[slot] === TaskState.waiting) unit.held.push(slot);
    }
    while (forPayload.head >= 0) {
      const slot = forPayload.head;
      const receiving = table.state[slot] === TaskState.receiving;
      const held = !receiving && table.units[slot]!.hold;
      if (receiving && !this.allocate(slot, table.payloadBytes[slot])) return;
      if (!receiving && !held && !this.allocateRead(slot)) return;
      forPayload.shift();
      if (receiving) this.askForData(this.connections[table.connection[slot]]!, slot);
      else if (held) table.units[slot]!.held.push(slot);
      else this.submitOrWait(slot);
    }
  }

  /** The unit's `hold` was lifted. */
  releaseHeld(unit: LogicalUnit): void {
    while (!unit.hold) {
      const slot = unit.held.shift();
      if (slot < 0) return;
      this.start(slot);
    }
  }

  private taskCompleted(slot: number, status: BlockStatus): void {
    const table = this.table;
    const unit = table.units[slot]!;
    const kind = table.kind[slot];
    unit.requestsInFlight--;
    if (kind === TaskKind.write) {
      unit.writesInFlight--;
      if (unit.wantsExclusive) unit.advanceExclusive();
    }
    if (table.aborted[slot] !== 0) {
      this.vanish(slot);
      return;
    }
    const c = this.connections[table.connection[slot]]!;
    if (status !== BlockStatus.ok) {
      if (status === BlockStatus.badHandle || status === BlockStatus.storeFailed) unit.lose(status);
      this.fail(c, slot, senseOf(status));
      return;
    }
    if (kind === TaskKind.read) {
      c.bytesRead += table.moveBytes[slot];
      this.dataIn(c, slot);
      return;
    }
    if (kind === TaskKind.write) c.bytesWritten += table.moveBytes[slot];
    this.releasePayload(slot);
    this.respond(c, slot);
  }

  // ---- data out ----

  /**
   * Readies `slot` for `moveBytes` of data out. `payloadBytes` of payload are wanted. False: no room
   * now, nothing changed.
   */
  expectData(c: Connection, slot: number, payloadBytes: number, immediateBytes: number): boolean {
    const table = this.table;
    table.state[slot] = TaskState.receiving;
    table.payloadBytes[slot] = payloadBytes;
    if (immediateBytes > 0 || table.unsolicited[slot] === 1) {
      if (!this.allocate(slot, payloadBytes)) return false;
    }
    c.awaitingDataOut++;
    return true;
  }

  /** All of the burst is in: ask for more, or go on. `payload` is allocated here if it wasn't. */
  askForData(c: Connection, slot: number): void {
    const table = this.table;
    if (table.unsolicited[slot] === 1) return;
    const received = table.receivedBytes[slot];
    if (received >= table.moveBytes[slot]) {
      c.awaitingDataOut--;
      this.dataOutDone(slot);
      return;
    }
    if (table.payloadOffset[slot] < 0) {
      // Solicited: it may wait, since nothing of it is on the wire yet.
      if (this.forPayload.head >= 0 || !this.allocate(slot, table.payloadBytes[slot])) {
        this.forPayload.push(slot);
        return;
      }
    }
    table.dataSN[slot] = 0;
    table.burstEnd[slot] = Math.min(table.moveBytes[slot], received + c.parameters.maxBurstBytes);
    if (c.sendWaiting.head >= 0 || !this.queues.room(c.id, 1, bhsBytes + 4)) {
      table.r2tDue[slot] = 1;
      c.sendWaiting.push(slot);
      return;
    }
    this.sendR2T(c, slot);
  }

  private dataOutDone(slot: number): void {
    const step = this.table.steps[slot];
    if (step !== undefined) {
      this.table.state[slot] = TaskState.waiting;
      step(slot);
    } else this.start(slot);
  }

  private sendR2T(c: Connection, slot: number): void {
    const table = this.table;
    table.r2tDue[slot] = 0;
    const at = this.writer.header(c, TargetOpcode.readyToTransfer, 0x80, table.initiatorTag[slot]);
    const bytes = this.queues.headers;
    const received = table.receivedBytes[slot];
    writeU32(bytes, at + 20, slot);
    writeU32(bytes, at + 24, c.statSN);
    writeU32(bytes, at + 36, table.r2tSN[slot]++);
    writeU32(bytes, at + 40, received);
    writeU32(bytes, at + 44, table.burstEnd[slot] - received);
    this.writer.finishHeader(c, at);
  }

  // ---- data in and answers ----

  /** Queues as many Data-In PDUs as there is room for; the rest when some have left. */
  dataIn(c: Connection, slot: number): void {
    const table = this.table;
    table.state[slot] = TaskState.sending;
    if (c.sendWaiting.head >= 0 || !this.queueDataIn(c, slot)) c.sendWaiting.push(slot);
  }

  /** True when all of it is queued. */
  private queueDataIn(c: Connection, slot: number): boolean {
    const table = this.table;
    const queues = this.queues;
    const total = table.moveBytes[slot];
    const payload = table.payloadOffset[slot];
    const maxSegment = c.parameters.maxSendDataSegmentBytes;
    const maxBurst = c.parameters.maxBurstBytes;
    let offset = table.sentBytes[slot];
    while (offset < total) {
      const answer = table.answers[slot];
      const inRing = answer === undefined ? bhsBytes + 12 : bhsBytes + 12 + answerSegmentBytes;
      if (!queues.room(c.id, 3, inRing)) {
        table.sentBytes[slot] = offset;
        return false;
      }
      const burstRest = maxBurst - (offset % maxBurst);
      let length = total - offset;
      if (length > maxSegment) length = maxSegment;
      if (length > burstRest) length = burstRest;
      if (answer !== undefined && length > answerSegmentBytes) length = answerSegmentBytes;
      const last = offset + length === total;
      let flags = last || length === burstRest ? ResponseFlag.final : 0;
      if (last) {
        this.unlink(c, slot);
        flags |= ResponseFlag.status | residualFlags(table, slot);
      }
      const at = this.writer.header(c, TargetOpcode.dataIn, flags, table.initiatorTag[slot]);
      const bytes = queues.headers;
      writeU24(bytes, at + 5, length);
      writeU32(bytes, at + 20, reservedTag);
      if (last) {
        writeU32(bytes, at + 24, c.statSN);
        c.statSN = (c.statSN + 1) >>> 0;
        writeU32(bytes, at + 44, residual(table, slot));
      }
      writeU32(bytes, at + 36, table.dataSN[slot]++);
      writeU32(bytes, at + 40, offset);
      this.writer.finishHeader(c, at);
      const pad = padding(length);
      if (answer === undefined) {
        queues.payload(c.id, payload + offset, length, last ? slot : -1);
        if (c.dataDigest || pad > 0) {
          this.writer.finishSegment(c, this.port.payload, payload + offset, length, pad);
        }
      } else {
        const into = queues.header(c.id, length);
        queues.headers.set(answer.subarray(offset, offset + length), into);
        if (c.dataDigest || pad > 0)
          this.writer.finishSegment(c, queues.headers, into, length, pad);
      }
      offset += length;
    }
    if (table.answers[slot] !== undefined) this.taskSent(slot);
    return true;
  }

  /** Status GOOD or what stands in `status` and `sense`, without data. */
  respond(c: Connection, slot: number): void {
    this.table.state[slot] = TaskState.sending;
    this.table.moveBytes[slot] = 0;
    if (c.sendWaiting.head >= 0 || !this.queueResponse(c, slot)) c.sendWaiting.push(slot);
  }

  /** Ends the task with CHECK CONDITION. Its residual says that nothing was moved. */
  fail(c: Connection, slot: number, sense: number, information = -1): void {
    this.table.status[slot] = ScsiStatus.checkCondition;
    this.table.sense[slot] = sense;
    this.table.information[slot] = information;
    this.releasePayload(slot);
    this.respond(c, slot);
  }

  /** Ends the task with another status, such as BUSY or RESERVATION CONFLICT. */
  refuse(c: Connection, slot: number, status: number): void {
    this.table.status[slot] = status;
    this.releasePayload(slot);
    this.respond(c, slot);
  }

  /**
   * Answers with data made here; cut to what the initiator takes. A Data-In without data hangs
   * libiscsi, so none gives a SCSI Response.
   */
  answer(c: Connection, slot: number, data: Uint8Array): void {
    const table = this.table;
    const bytes = Math.min(data.length, table.expectedBytes[slot], this.largestAnswer);
    table.commandBytes[slot] = data.length;
    if (bytes === 0) {
      this.respond(c, slot);
      return;
    }
    table.answers[slot] = data;
    table.moveBytes[slot] = bytes;
    this.dataIn(c, slot);
  }

  private readonly largestAnswer = maxRequestBytes;

  private queueResponse(c: Connection, slot: number): boolean {
    const table = this.table;
    const queues = this.queues;
    if (!queues.room(c.id, 1, responseBytes)) return false;
    this.unlink(c, slot);
    const status = table.status[slot];
    const flags = ResponseFlag.final | residualFlags(table, slot);
    const at = this.writer.header(c, TargetOpcode.scsiResponse, flags, table.initiatorTag[slot]);
    const bytes = queues.headers;
    bytes[at + 3] = status;
    writeU32(bytes, at + 24, c.statSN);
    c.statSN = (c.statSN + 1) >>> 0;
    writeU32(bytes, at + 36, table.r2tSN[slot]);
    writeU32(bytes, at + 44, residual(table, slot));
    const sensed = status === ScsiStatus.checkCondition;
    if (sensed) writeU24(bytes, at + 5, 2 + fixedSenseBytes);
    this.writer.finishHeader(c, at);
    if (sensed) {
      const into = queues.header(c.id, 2 + fixedSenseBytes);
      bytes[into] = 0;
      bytes[into + 1] = fixedSenseBytes;
      writeFixedSense(bytes, into + 2, table.sense[slot], table.information[slot]);
      if (c.dataDigest) this.writer.finishSegment(c, bytes, into, 2 + fixedSenseBytes, 0);
    }
    this.taskSent(slot);
    return true;
  }

  // ---- room ----

  sent(c: Connection, bytes: number): void {
    this.queues.sent(c.id, bytes);
    c.sendAnnounced = this.queues.pending(c.id);
    while (c.sendWaiting.head >= 0) {
      const slot = c.sendWaiting.head;
      const table = this.table;
      if (table.r2tDue[slot] === 1) {
        if (!this.queues.room(c.id, 1, bhsBytes + 4)) break;
        c.sendWaiting.shift();
        this.sendR2T(c, slot);
        continue;
      }
      // Shifted first: what frees the slot links it into the free list by the same field.
      c.sendWaiting.shift();
      const done =
        table.moveBytes[slot] > 0 ? this.queueDataIn(c, slot) : this.queueResponse(c, slot);
      if (!done) {
        c.sendWaiting.unshift(slot);
        break;
      }
    }
    if (this.forRing.head >= 0 || this.forPayload.head >= 0) this.drainWaiting();
    if (this.stalled.size > 0) this.resumeStalled();
    if (c.stalledForSend && this.queues.room(c.id, 8, 20 * 1024)) {
      c.stalledForSend = false;
      c.stalled = false;
      this.host.resume(c.id);
    }
  }

  /** `c` can't be read from until there is payload or a task. */
  stall(c: Connection): void {
    c.stalled = true;
    this.stalled.add(c);
  }

  stallForSend(c: Connection): void {
    c.stalled = true;
    c.stalledForSend = true;
  }

  forget(c: Connection): void {
    this.stalled.delete(c);
  }

  private resumeStalled(): void {
    for (const c of this.stalled) {
      this.stalled.delete(c);
      c.stalled = false;
      if (c.phase !== Phase.closing) this.host.resume(c.id);
    }
  }
}

/** A read that the initiator cuts within a sector still reads the whole of it. */
function wholeSectors(bytes: number): number {
  return (bytes + 511) & ~511;
}
