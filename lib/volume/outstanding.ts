/**
 * Requests a port has accepted and not completed, a row each: what is sent again when the store
 * comes back. The row's number is the tag on the wire.
 */
const none = -1;

/** `answered`: known how it ends, not yet told to the caller; a lost connection changes nothing. */
export const SentState = { waiting: 0, sent: 1, answered: 2 } as const;

export class Outstanding {
  readonly capacity: number;
  readonly operation: Uint8Array;
  readonly handle: Int32Array;
  readonly sector: Float64Array;
  readonly lengthBytes: Float64Array;
  readonly payloadOffset: Int32Array;
  readonly flags: Int32Array;
  /** Version of the change; 0, 0: it has none. */
  readonly generation: Uint32Array;
  readonly sequence: Float64Array;
  /** The caller's tag. */
  readonly tag: Int32Array;
  /** A `SentState`. */
  readonly sent: Uint8Array;
  count = 0;
  /** In order of submission: sending again keeps it. */
  first = none;
  private last = none;
  readonly next: Int32Array;
  private readonly previous: Int32Array;
  private readonly taken: Uint8Array;
  private readonly free: Int32Array;

  constructor(capacity: number) {
    this.capacity = capacity;
    this.operation = new Uint8Array(capacity);
    this.handle = new Int32Array(capacity);
    this.sector = new Float64Array(capacity);
    this.lengthBytes = new Float64Array(capacity);
    this.payloadOffset = new Int32Array(capacity);
    this.flags = new Int32Array(capacity);
    this.generation = new Uint32Array(capacity);
    this.sequence = new Float64Array(capacity);
    this.tag = new Int32Array(capacity);
    this.sent = new Uint8Array(capacity);
    this.next = new Int32Array(capacity).fill(none);
    this.previous = new Int32Array(capacity).fill(none);
    this.taken = new Uint8Array(capacity);
    this.free = Int32Array.from({ length: capacity }, (_, row) => capacity - 1 - row);
  }

  /** A row's number, or -1 when all are taken. */
  add(): number {
    if (this.count === this.capacity) return none;
    const row = this.free[this.capacity - 1 - this.count];
    this.count++;
    this.taken[row] = 1;
    this.sent[row] = 0;
    this.previous[row] = this.last;
    this.next[row] = none;
    if (this.last === none) this.first = row;
    else this.next[this.last] = row;
    this.last = row;
    return row;
  }

  /** False for a row that isn't taken: a store may answer anything. */
  has(row: number): boolean {
    return row >= 0 && row < this.capacity && this.taken[row] === 1;
  }

  remove(row: number): void {
    this.taken[row] = 0;
    const before = this.previous[row];
    const after = this.next[row];
    if (before === none) this.first = after;
    else this.next[before] = after;
    if (after === none) this.last = before;
    else this.previous[after] = before;
    this.count--;
    this.free[this.capacity - 1 - this.count] = row;
  }
}
