/** A simulated gateway of a group: the real group port, over ways to the members that may be cut. */
import type { BlockStatus } from "#lib/volume/block.ts";
import { GroupPort } from "#lib/volume/group-port.ts";
import { InlinePort } from "#lib/volume/inline-port.ts";
import type { SimMember } from "./group-member.ts";

/** Of a writer, until it is answered. */
export interface Request {
  readonly op: number;
  readonly sector: number;
  readonly sectors: number;
  readonly payloadOffset: number;
  readonly operation: number;
  /** What a read finds that is done in its turn. */
  readonly expected: readonly number[];
  /** Written since: a read that is sent again, to another member, may find it. */
  readonly since: Set<number>;
  /** Of each member, when it was made. */
  readonly powerCuts: readonly number[];
}

/** A gateway: its port, its ways to the members, what it has asked. */
export class Writer {
  readonly port: GroupPort;
  handle = -1;
  /** Why it could not open the volume. */
  refused: BlockStatus | undefined;
  readonly timers: (() => void)[] = [];
  readonly requests = new Map<number, Request>();
  private readonly ports: readonly InlinePort[];
  readonly numbers: readonly number[];

  constructor(
    volume: string,
    members: readonly SimMember[],
    numbers: readonly number[],
    options: { readonly payloadBytes: number; readonly keepBytes: number },
    recordStale: (number: number, done: (recorded: boolean) => void) => void,
  ) {
    this.numbers = numbers;
    this.ports = numbers.map(
      (number) =>
        new InlinePort({
          ...{ path: "", failsWhenLost: true, onReady: () => {} },
          payloadBytes: options.payloadBytes,
          surroundings: members[number].surroundings(this.timers),
        }),
    );
    this.port = new GroupPort({
      ports: this.ports,
      ...options,
      recordStale: (index, done) => recordStale(numbers[index], done),
    });
    this.port.open(volume as never, (result) => {
      if (typeof result === "number") this.refused = result;
      else this.handle = result.handle;
    });
  }

  end(): void {
    for (const port of this.ports) port.end();
  }
}
