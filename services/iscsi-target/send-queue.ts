/**
 * What each connection has to send: rows (area, offset, length) and a ring of header bytes.
 *
 *   rows    ... [head: headers 0x40 48][payload 0x9000 4096][headers 0x70 48] tail ...
 *   headers   |----freed----|ringHead ###### ringTail|----free----|
 *
 * Rows leave in order, so header bytes are freed in order; payload is released when the row that
 * names its task has left.
 */
import {
  maxConnections,
  SendArea,
  type SendQueues,
  sendRowIndex,
  sendRowInts,
  sendRows,
} from "./driver.ts";

/** Header bytes a connection may have queued. */
export const headerRingBytes = 32 * 1024;

export class SendQueue implements SendQueues {
  readonly rows = new Int32Array(maxConnections * sendRows * sendRowInts);
  readonly heads = new Int32Array(maxConnections);
  readonly tails = new Int32Array(maxConnections);
  readonly headers = new Uint8Array(maxConnections * headerRingBytes);
  /** Task whose payload is free once the row has left; -1 for none. */
  private readonly rowTasks = new Int32Array(maxConnections * sendRows).fill(-1);
  private readonly ringHeads = new Int32Array(maxConnections);
  private readonly ringTails = new Int32Array(maxConnections);
  private readonly taskSent: (slot: number) => void;

  constructor(taskSent: (slot: number) => void) {
    this.taskSent = taskSent;
  }

  reset(id: number): void {
    this.heads[id] = 0;
    this.tails[id] = 0;
    this.ringHeads[id] = 0;
    this.ringTails[id] = 0;
  }

  pending(id: number): boolean {
    return this.heads[id] !== this.tails[id];
  }

  /** True if `rows` more rows and a run of `headerBytes` fit. */
  room(id: number, rows: number, headerBytes: number): boolean {
    if (((this.tails[id] - this.heads[id]) | 0) + rows > sendRows) return false;
    const head = this.ringHeads[id];
    const tail = this.ringTails[id];
    if (tail < head) return tail + headerBytes < head;
    return tail + headerBytes <= headerRingBytes || headerBytes < head;
  }

  /** Queues `bytes` header bytes and returns where in `headers` to write them; check `room` first. */
  header(id: number, bytes: number): number {
    let tail = this.ringTails[id];
    if (tail >= this.ringHeads[id] && tail + bytes > headerRingBytes) tail = 0;
    const offset = id * headerRingBytes + tail;
    this.ringTails[id] = tail + bytes;
    if (this.tails[id] !== this.heads[id]) {
      const at = sendRowIndex(id, this.tails[id] - 1);
      if (this.rows[at] === SendArea.headers && this.rows[at + 1] + this.rows[at + 2] === offset) {
        this.rows[at + 2] += bytes;
        return offset;
      }
    }
    this.push(id, SendArea.headers, offset, bytes, -1);
    return offset;
  }

  /** Queues a run of the payload; `task` >= 0: it is done with once this row has left. */
  payload(id: number, offset: number, bytes: number, task: number): void {
    this.push(id, SendArea.payload, offset, bytes, task);
  }

  private push(id: number, area: number, offset: number, bytes: number, task: number): void {
    const tail = this.tails[id];
    const at = sendRowIndex(id, tail);
    this.rows[at] = area;
    this.rows[at + 1] = offset;
    this.rows[at + 2] = bytes;
    this.rowTasks[id * sendRows + (tail & (sendRows - 1))] = task;
    this.tails[id] = tail + 1;
  }

  /** The first `bytes` pending bytes have left. More than was pending is a driver's fault. */
  sent(id: number, bytes: number): void {
    let rest = bytes;
    let head = this.heads[id];
    const tail = this.tails[id];
    while (rest > 0 && head !== tail) {
      const at = sendRowIndex(id, head);
      const length = this.rows[at + 2];
      if (rest < length) {
        this.rows[at + 1] += rest;
        this.rows[at + 2] = length - rest;
        rest = 0;
        break;
      }
      rest -= length;
      if (this.rows[at] === SendArea.headers) {
        this.ringHeads[id] = this.rows[at + 1] + length - id * headerRingBytes;
      }
      head = (head + 1) | 0;
      this.heads[id] = head;
      const task = this.rowTasks[id * sendRows + ((head - 1) & (sendRows - 1))];
      if (task >= 0) this.taskSent(task);
    }
    if (rest > 0) throw new RangeError(`connection ${id}: ${rest} bytes more sent than queued`);
    if (head === tail) this.reset(id);
  }

  /** The connection is gone: tasks of rows that never left are done with too. */
  drop(id: number): void {
    for (let row = this.heads[id]; row !== this.tails[id]; row = (row + 1) | 0) {
      const task = this.rowTasks[id * sendRows + (row & (sendRows - 1))];
      if (task >= 0) this.taskSent(task);
    }
    this.reset(id);
  }
}
