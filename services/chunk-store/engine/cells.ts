/**
 * What of a lineage was born in one interval and died in another. An interval is the time between
 * two snapshots; it has the epoch of the snapshot that ends it, the running one the live epoch.
 *
 *   intervals        s1        s2        s3      live (epoch 9)
 *   cell (s1, s3)    born in s1, written over in s3: snapshots s1 and s2 see it
 *   cell (s2, alive) born in s2, and the newest state still has it
 *
 * So the sum of all cells is what the lineage takes, and cell (s, the interval after s) is what
 * snapshot s alone keeps: deleting s frees that cell, and adds its row and its column to the next
 * interval's. This is ZFS's birth-time rule with dead lists split by birth, kept as counts: which
 * blocks they are is found in the map records of the same cell.
 */

/** The death of what has not died. */
export const alive = 0xffffffff;

export interface Cell {
  readonly birth: number;
  readonly death: number;
  /** Data blocks. */
  blocks: number;
  /** First of its map records in the index's list, or -1. */
  head: number;
  records: number;
}

/** Cells of all lineages together. */
export interface CellCounter {
  count: number;
}

export class Cells {
  private readonly counter: CellCounter;
  private readonly rows = new Map<number, Map<number, Cell>>();
  private readonly births = new Map<number, Set<number>>();

  constructor(counter: CellCounter) {
    this.counter = counter;
  }

  /** The cell, made if need be. */
  at(birth: number, death: number): Cell {
    let row = this.rows.get(birth);
    if (row === undefined) {
      row = new Map();
      this.rows.set(birth, row);
    }
    let cell = row.get(death);
    if (cell === undefined) {
      cell = { birth, death, blocks: 0, head: -1, records: 0 };
      row.set(death, cell);
      this.counter.count++;
      let births = this.births.get(death);
      if (births === undefined) {
        births = new Set();
        this.births.set(death, births);
      }
      births.add(birth);
    }
    return cell;
  }

  find(birth: number, death: number): Cell | undefined {
    return this.rows.get(birth)?.get(death);
  }

  *[Symbol.iterator](): IterableIterator<Cell> {
    for (const row of this.rows.values()) yield* row.values();
  }

  /** Cells of what was born in an interval. */
  bornIn(birth: number): Iterable<Cell> {
    return this.rows.get(birth)?.values() ?? [];
  }

  /** Cells of what died in an interval. */
  diedIn(death: number): Cell[] {
    return [...(this.births.get(death) ?? [])].map((birth) => this.rows.get(birth)!.get(death)!);
  }

  /** Cells of what is alive. */
  newest(): Cell[] {
    return this.diedIn(alive);
  }

  delete({ birth, death }: Cell): void {
    const row = this.rows.get(birth);
    if (row?.delete(death) !== true) return;
    this.counter.count--;
    if (row.size === 0) this.rows.delete(birth);
    const births = this.births.get(death)!;
    births.delete(birth);
    if (births.size === 0) this.births.delete(death);
  }
}
