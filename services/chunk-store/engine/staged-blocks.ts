/** Which blocks the log record that is being built writes: a hash of its entries, made anew for each. */
import { chunkBlocks } from "../limits.ts";
import type { Log } from "./log.ts";

/** Four times as many as a record has entries. */
const tableSize = 16384;

export class StagedBlocks {
  private readonly log: Log;
  private readonly table = new Int32Array(tableSize);
  /** A place is taken if it was in this round: nothing is cleared. */
  private readonly takenIn = new Int32Array(tableSize);
  private round = 1;
  private count = 0;
  /** The volume that all of them are of, 0 if they are of several; and the last of its blocks. */
  private lineage = 0;
  private top = 0;

  constructor(log: Log) {
    this.log = log;
  }

  clear(): void {
    this.round++;
    this.count = 0;
  }

  has(lineage: number, chunk: number, block: number): boolean {
    // In order, as most are that are not alone.
    if (this.count === 0 || (lineage === this.lineage && chunk * chunkBlocks + block > this.top)) {
      return false;
    }
    const { words } = this.log;
    let place = hash(lineage, chunk, block);
    while (this.takenIn[place] === this.round) {
      const at = this.log.entryWord(this.table[place]);
      if (words[at + 2] === chunk && words[at] >>> 16 === block && words[at + 1] === lineage) {
        return true;
      }
      place = (place + 1) & (tableSize - 1);
    }
    return false;
  }

  /** The block of log entry `entry`, which is about to be added. */
  add(lineage: number, chunk: number, block: number, entry: number): void {
    const number = chunk * chunkBlocks + block;
    if (this.count === 0) {
      this.lineage = lineage;
      this.top = number;
    } else if (lineage !== this.lineage) this.lineage = 0;
    else if (number > this.top) this.top = number;
    this.count++;
    let place = hash(lineage, chunk, block);
    while (this.takenIn[place] === this.round) place = (place + 1) & (tableSize - 1);
    this.takenIn[place] = this.round;
    this.table[place] = entry;
  }
}

function hash(lineage: number, chunk: number, block: number): number {
  const mixed = Math.imul(chunk * chunkBlocks + block, 0x9e3779b1) ^ Math.imul(lineage, 0x85ebca6b);
  return (mixed >>> 16) & (tableSize - 1);
}
