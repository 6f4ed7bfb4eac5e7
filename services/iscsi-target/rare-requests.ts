/** Store requests of rare commands, each with what follows it. They may allocate. */
import { BlockOp, type BlockPort, type BlockStatus } from "#lib/volume/block.ts";
import type { LogicalUnit } from "./logical-unit.ts";

const lastTag = 0x7fffffff;

export class RareRequests {
  private readonly port: BlockPort;
  private readonly firstTag: number;
  private nextTag: number;
  private readonly outstanding = new Map<number, (status: BlockStatus) => void>();

  /** Tags below `firstTag` are others'. */
  constructor(port: BlockPort, firstTag: number) {
    this.port = port;
    this.firstTag = firstTag;
    this.nextTag = firstTag;
  }

  /** Submits past the unit's `hold`. False: no room now; answer BUSY. */
  submit(
    unit: LogicalUnit,
    op: BlockOp,
    sector: number,
    bytes: number,
    payloadOffset: number,
    flags: number,
    done: (status: BlockStatus) => void,
  ): boolean {
    const tag = this.nextTag;
    if (!this.port.submit(op, unit.handle, sector, bytes, payloadOffset, flags, tag)) return false;
    this.nextTag = tag === lastTag ? this.firstTag : tag + 1;
    unit.requestsInFlight++;
    if (op !== BlockOp.read) unit.writesInFlight++;
    this.outstanding.set(tag, (status) => {
      unit.requestsInFlight--;
      if (op !== BlockOp.read) unit.writesInFlight--;
      done(status);
      if (unit.wantsExclusive) unit.advanceExclusive();
    });
    return true;
  }

  completed(tag: number, status: BlockStatus): void {
    const done = this.outstanding.get(tag);
    this.outstanding.delete(tag);
    done?.(status);
  }
}
