/**
 * Changed cells of map pages that had to leave memory before a checkpoint wrote them: 17 bytes each
 * instead of a whole page. A list for each map record; no block twice in one.
 */

export class Deltas {
  /** In all lists. */
  count = 0;
  private next: Int32Array<ArrayBuffer>;
  private block: Uint8Array<ArrayBuffer>;
  private pointer: Uint32Array<ArrayBuffer>;
  private crc: Uint32Array<ArrayBuffer>;
  private epoch: Uint32Array<ArrayBuffer>;
  /** Nodes below this were used once; those that are not now are in the list from `free`. */
  private used = 0;
  private free = -1;

  /** More than `expected` are taken, too. Memory that is never used costs nothing. */
  constructor(expected: number) {
    this.next = new Int32Array(expected);
    this.block = new Uint8Array(expected);
    this.pointer = new Uint32Array(expected);
    this.crc = new Uint32Array(expected);
    this.epoch = new Uint32Array(expected);
  }

  /** Puts a cell before `list`, -1 an empty one; the new list. */
  add(list: number, block: number, pointer: number, crc: number, epoch: number): number {
    let node = this.free;
    if (node >= 0) this.free = this.next[node];
    else {
      node = this.used++;
      if (node === this.next.length) this.grow();
    }
    this.next[node] = list;
    this.block[node] = block;
    this.pointer[node] = pointer;
    this.crc[node] = crc;
    this.epoch[node] = epoch;
    this.count++;
    return node;
  }

  /** Gives each cell of a list, which is gone then. */
  take(
    list: number,
    each: (block: number, pointer: number, crc: number, epoch: number) => void,
  ): void {
    for (let node = list; node >= 0; ) {
      each(this.block[node], this.pointer[node], this.crc[node], this.epoch[node]);
      const next = this.next[node];
      this.next[node] = this.free;
      this.free = node;
      this.count--;
      node = next;
    }
  }

  private grow(): void {
    const size = Math.max(1024, this.next.length * 2);
    this.next = grown(this.next, new Int32Array(size));
    this.block = grown(this.block, new Uint8Array(size));
    this.pointer = grown(this.pointer, new Uint32Array(size));
    this.crc = grown(this.crc, new Uint32Array(size));
    this.epoch = grown(this.epoch, new Uint32Array(size));
  }
}

function grown<Column extends Int32Array | Uint32Array | Uint8Array>(
  column: Column,
  into: Column,
): Column {
  into.set(column);
  return into;
}
