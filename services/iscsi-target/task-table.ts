/**
 * Tasks as rows of typed arrays: a request in flight allocates nothing. A slot's index is also the
 * tag of its block request and the target transfer tag of its R2T.
 *
 *   free -> receiving (data out) -> waiting (room, unit) -> submitted -> sending -> free
 */
import type { LogicalUnit } from "./logical-unit.ts";

export const TaskKind = {
  read: 1,
  write: 2,
  /** Reads without sending: VERIFY, PRE-FETCH. */
  verify: 3,
  flush: 4,
  /** Anything rare: `steps[slot]` is called with the data-out received. */
  rare: 5,
} as const;

export const TaskState = {
  free: 0,
  receiving: 1,
  waiting: 2,
  submitted: 3,
  sending: 4,
} as const;

export class TaskTable {
  readonly capacity: number;
  readonly state: Uint8Array;
  readonly kind: Uint8Array;
  /** 1: aborted, or its connection is gone: ends without an answer. */
  readonly aborted: Uint8Array;
  /** 1: more unsolicited data follows. */
  readonly unsolicited: Uint8Array;
  /** 1: an R2T is to be sent once there is room in the queue. */
  readonly r2tDue: Uint8Array;
  /** Bits of BlockFlag. */
  readonly flags: Uint8Array;
  readonly status: Uint8Array;
  /** Connection id. */
  readonly connection: Int32Array;
  readonly initiatorTag: Uint32Array;
  /** What the initiator said it sends or takes, bytes. */
  readonly expectedBytes: Float64Array;
  /** What the CDB says, bytes; the residual is the difference. */
  readonly commandBytes: Float64Array;
  /** Really moved: the least of both, whole sectors for data of blocks. */
  readonly moveBytes: Int32Array;
  readonly sector: Float64Array;
  readonly payloadOffset: Int32Array;
  readonly payloadBytes: Int32Array;
  readonly receivedBytes: Int32Array;
  /** End of the burst being received: from the R2T, or FirstBurstLength. */
  readonly burstEnd: Int32Array;
  readonly dataSN: Int32Array;
  readonly r2tSN: Int32Array;
  readonly sentBytes: Int32Array;
  readonly sense: Int32Array;
  readonly information: Int32Array;
  /** Doubly linked: tasks of one connection. */
  readonly next: Int32Array;
  readonly previous: Int32Array;
  /** Singly linked: the queue the task stands in. */
  readonly queueNext: Int32Array;
  readonly units: (LogicalUnit | undefined)[];
  /** What follows for a rare command. */
  readonly steps: (((slot: number) => void) | undefined)[];
  /** Data-in of a rare command. */
  readonly answers: (Uint8Array | undefined)[];
  freeCount: number;
  private freeHead: number;

  constructor(capacity: number) {
    this.capacity = capacity;
    this.state = new Uint8Array(capacity);
    this.kind = new Uint8Array(capacity);
    this.aborted = new Uint8Array(capacity);
    this.unsolicited = new Uint8Array(capacity);
    this.r2tDue = new Uint8Array(capacity);
    this.flags = new Uint8Array(capacity);
    this.status = new Uint8Array(capacity);
    this.connection = new Int32Array(capacity).fill(-1);
    this.initiatorTag = new Uint32Array(capacity);
    this.expectedBytes = new Float64Array(capacity);
    this.commandBytes = new Float64Array(capacity);
    this.moveBytes = new Int32Array(capacity);
    this.sector = new Float64Array(capacity);
    this.payloadOffset = new Int32Array(capacity).fill(-1);
    this.payloadBytes = new Int32Array(capacity);
    this.receivedBytes = new Int32Array(capacity);
    this.burstEnd = new Int32Array(capacity);
    this.dataSN = new Int32Array(capacity);
    this.r2tSN = new Int32Array(capacity);
    this.sentBytes = new Int32Array(capacity);
    this.sense = new Int32Array(capacity);
    this.information = new Int32Array(capacity);
    this.next = new Int32Array(capacity).fill(-1);
    this.previous = new Int32Array(capacity).fill(-1);
    this.queueNext = new Int32Array(capacity);
    this.units = new Array(capacity).fill(undefined);
    this.steps = new Array(capacity).fill(undefined);
    this.answers = new Array(capacity).fill(undefined);
    for (let slot = 0; slot < capacity; slot++) {
      this.queueNext[slot] = slot + 1 < capacity ? slot + 1 : -1;
    }
    this.freeHead = 0;
    this.freeCount = capacity;
  }

  /** A slot with its counters zeroed, or -1 when all are in use. */
  take(): number {
    const slot = this.freeHead;
    if (slot < 0) return -1;
    this.freeHead = this.queueNext[slot];
    this.freeCount--;
    this.queueNext[slot] = -1;
    this.aborted[slot] = 0;
    this.unsolicited[slot] = 0;
    this.r2tDue[slot] = 0;
    this.flags[slot] = 0;
    this.status[slot] = 0;
    this.moveBytes[slot] = 0;
    this.payloadOffset[slot] = -1;
    this.payloadBytes[slot] = 0;
    this.receivedBytes[slot] = 0;
    this.burstEnd[slot] = 0;
    this.dataSN[slot] = 0;
    this.r2tSN[slot] = 0;
    this.sentBytes[slot] = 0;
    this.sense[slot] = 0;
    this.information[slot] = -1;
    return slot;
  }

  free(slot: number): void {
    this.state[slot] = TaskState.free;
    this.connection[slot] = -1;
    this.units[slot] = undefined;
    this.steps[slot] = undefined;
    this.answers[slot] = undefined;
    this.queueNext[slot] = this.freeHead;
    this.freeHead = slot;
    this.freeCount++;
  }
}

/** First in, first out, through `queueNext`: a task stands in one queue at a time. */
export class TaskQueue {
  head = -1;
  private tail = -1;
  private readonly next: Int32Array;

  constructor(table: TaskTable) {
    this.next = table.queueNext;
  }

  push(slot: number): void {
    this.next[slot] = -1;
    if (this.head < 0) this.head = slot;
    else this.next[this.tail] = slot;
    this.tail = slot;
  }

  /** Puts back what `shift` gave. */
  unshift(slot: number): void {
    this.next[slot] = this.head;
    if (this.head < 0) this.tail = slot;
    this.head = slot;
  }

  shift(): number {
    const slot = this.head;
    if (slot >= 0) {
      this.head = this.next[slot];
      this.next[slot] = -1;
    }
    return slot;
  }

  /** Takes `slot` out from anywhere; false if it isn't here. Linear, for aborts. */
  remove(slot: number): boolean {
    let before = -1;
    for (let at = this.head; at >= 0; at = this.next[at]) {
      if (at === slot) {
        if (before < 0) this.head = this.next[at];
        else this.next[before] = this.next[at];
        if (this.tail === slot) this.tail = before;
        this.next[slot] = -1;
        return true;
      }
      before = at;
    }
    return false;
  }
}
