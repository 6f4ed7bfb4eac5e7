import { KeelsonError } from "#lib/model/errors.ts";

const pageBytes = 4096;
/** Runs of 2^0 .. 2^8 pages: 4 KiB to 1 MiB. */
const orders = 9;
const none = -1;

/**
 * Buddy allocator over the payload area. No allocation of JavaScript memory after construction;
 * a run is aligned to its size, so it never crosses a 1 MiB boundary.
 */
export class PayloadArea {
  /** Free runs of each order, as doubly linked lists over page numbers. */
  private readonly head = new Int32Array(orders).fill(none);
  private readonly next: Int32Array;
  private readonly previous: Int32Array;
  /** Order of the run that begins at a page: free 0..8, taken 16..24, -1 elsewhere. */
  private readonly run: Int8Array;
  freeBytes: number;

  constructor(sizeBytes: number) {
    const pages = Math.floor(sizeBytes / pageBytes);
    this.next = new Int32Array(pages);
    this.previous = new Int32Array(pages);
    this.run = new Int8Array(pages).fill(none);
    const whole = 1 << (orders - 1);
    for (let page = pages - (pages % whole) - whole; page >= 0; page -= whole) {
      this.insert(page, orders - 1);
    }
    this.freeBytes = (pages - (pages % whole)) * pageBytes;
  }

  /** Offset of a free run of at least `lengthBytes` (1 .. 1 MiB), or -1. */
  allocate(lengthBytes: number): number {
    const wanted = orderOf(lengthBytes);
    let order = wanted;
    while (order < orders && this.head[order] === none) order++;
    if (order >= orders) return none;
    const page = this.head[order];
    this.remove(page, order);
    while (order > wanted) {
      order--;
      this.insert(page + (1 << order), order);
    }
    this.run[page] = 16 + wanted;
    this.freeBytes -= pageBytes << wanted;
    return page * pageBytes;
  }

  /** Gives back what `allocate(lengthBytes)` gave; INTERNAL if it wasn't taken like that. */
  release(offset: number, lengthBytes: number): void {
    let page = offset / pageBytes;
    let order = orderOf(lengthBytes);
    if (this.run[page] !== 16 + order) {
      throw new KeelsonError("INTERNAL", `Payload run ${offset}+${lengthBytes} was not taken.`);
    }
    this.run[page] = none;
    this.freeBytes += pageBytes << order;
    for (; order < orders - 1; order++) {
      const buddy = page ^ (1 << order);
      if (this.run[buddy] !== order) break;
      this.remove(buddy, order);
      page = Math.min(page, buddy);
    }
    this.insert(page, order);
  }

  private insert(page: number, order: number): void {
    const first = this.head[order];
    this.next[page] = first;
    this.previous[page] = none;
    if (first !== none) this.previous[first] = page;
    this.head[order] = page;
    this.run[page] = order;
  }

  private remove(page: number, order: number): void {
    const before = this.previous[page];
    const after = this.next[page];
    if (before === none) this.head[order] = after;
    else this.next[before] = after;
    if (after !== none) this.previous[after] = before;
    this.run[page] = none;
  }
}

/** Smallest order whose run holds `lengthBytes`; past the largest when none does. */
function orderOf(lengthBytes: number): number {
  if (!(lengthBytes > 0)) return orders;
  const pages = Math.ceil(lengthBytes / pageBytes);
  return pages === 1 ? 0 : 32 - Math.clz32(pages - 1);
}
