/**
 * A BlockPort over the stores of a group: its volumes stand on all of them (group-volume.ts). One
 * store alone needs none of this: a gateway uses its port as it is.
 *
 *   gateway -- submit, poll --> GroupPort --> GroupVolume -- items --> a link for each member:
 *                                             a queue, and its port to the store
 */
import type { VolumeId } from "#lib/model/ids.ts";
import { BlockOp, type BlockPort, BlockStatus, type Claim, type OpenVolume } from "./block.ts";
import { GroupVolume, type MemberItem, type MemberLink } from "./group-volume.ts";
import { PayloadArea } from "./payload.ts";

export interface GroupPortOptions {
  /** Of the healthy members, each opened with `failsWhenLost`. */
  readonly ports: readonly BlockPort[];
  /** Bytes of payload, whole MiB. */
  readonly payloadBytes: number;
  /** Of each volume: bytes of changes kept before it flushes by itself. */
  readonly keepBytes: number;
  /**
   * Records in the cluster store that a member is stale, before anything is acknowledged that it
   * lacks. `done(false)`: it can't be, or another writer was quicker: nothing more is acknowledged.
   */
  readonly recordStale: (member: number, done: (recorded: boolean) => void) => void;
}

interface Answer {
  readonly tag: number;
  readonly status: BlockStatus;
}

export class GroupPort implements BlockPort {
  readonly payload: Uint8Array;
  private readonly area: PayloadArea;
  private readonly options: GroupPortOptions;
  private readonly members: readonly MemberQueue[];
  private readonly volumes: (GroupVolume | undefined)[] = [];
  private answers: Answer[] = [];
  private readonly opened: (() => void)[] = [];

  constructor(options: GroupPortOptions) {
    this.options = options;
    this.payload = new Uint8Array(options.payloadBytes);
    this.area = new PayloadArea(options.payloadBytes);
    this.members = options.ports.map((port) => new MemberQueue(port));
  }

  get connected(): boolean {
    return this.options.ports.some(({ connected }) => connected);
  }

  allocate(lengthBytes: number): number {
    return this.area.allocate(lengthBytes);
  }

  release(payloadOffset: number, lengthBytes: number): void {
    this.area.release(payloadOffset, lengthBytes);
  }

  open(volumeId: VolumeId, done: (result: OpenVolume | BlockStatus) => void, claim?: Claim): void {
    const handle = this.volumes.length;
    const groupEpoch = claim?.groupEpoch ?? 0;
    this.volumes.push(
      new GroupVolume({
        links: this.members.map((member) => member.link(volumeId, groupEpoch)),
        keepBytes: this.options.keepBytes,
        recordStale: this.options.recordStale,
        opened: (result) =>
          this.opened.push(() => done(typeof result === "number" ? result : { ...result, handle })),
      }),
    );
  }

  close(handle: number): void {
    this.volumes[handle]?.close();
    this.volumes[handle] = undefined;
  }

  /** Leaves a member behind, for all volumes: it was away too long. */
  giveUp(member: number): void {
    for (const volume of this.volumes) volume?.giveUp(member);
  }

  submit(
    op: BlockOp,
    handle: number,
    sector: number,
    lengthBytes: number,
    payloadOffset: number,
    flags: number,
    tag: number,
  ): boolean {
    const volume = this.volumes[handle];
    const answer = (status: BlockStatus) => this.answers.push({ tag, status });
    if (volume === undefined) answer(BlockStatus.badHandle);
    else {
      const end = payloadOffset + lengthBytes;
      const bytes = op === BlockOp.write ? this.payload.slice(payloadOffset, end) : null;
      const into = (found: Uint8Array) => this.payload.set(found, payloadOffset);
      volume.submit(op, sector, lengthBytes, flags, bytes, into, answer);
    }
    return true;
  }

  kick(): void {
    for (const member of this.members) member.pump();
  }

  poll(complete: (tag: number, status: BlockStatus) => void): number {
    this.members.forEach((member, index) => {
      this.noticeLoss(member, index);
      member.poll();
      this.noticeLoss(member, index);
    });
    this.kick();
    for (const opened of this.opened.splice(0)) opened();
    const { answers } = this;
    this.answers = [];
    for (const { tag, status } of answers) complete(tag, status);
    return answers.length;
  }

  private noticeLoss(member: MemberQueue, index: number): void {
    if (!member.wasLost()) return;
    for (const volume of this.volumes) volume?.memberLost(index);
    member.dropQueue();
  }

  get losses(): number {
    return this.options.ports.reduce((sum, { losses }) => sum + losses, 0);
  }
}

interface Sent {
  readonly item: MemberItem;
  readonly payloadOffset: number;
}

/** What goes to one member: items of all volumes in their order, as far as its port takes them. */
class MemberQueue {
  private readonly port: BlockPort;
  private queue: { readonly handle: number; readonly item: MemberItem }[] = [];
  private readonly sent = new Map<number, Sent>();
  private nextTag = 0;
  private seenLosses: number;

  constructor(port: BlockPort) {
    this.port = port;
    this.seenLosses = port.losses;
  }

  link(volumeId: VolumeId, groupEpoch: number): MemberLink {
    return {
      open: (generation, done) => this.port.open(volumeId, done, { generation, groupEpoch }),
      close: (handle) => this.close(handle),
      send: (handle, item) => this.queue.push({ handle, item }),
    };
  }

  private close(handle: number): void {
    const gone = this.queue.filter((each) => each.handle === handle);
    this.queue = this.queue.filter((each) => each.handle !== handle);
    // What its port has taken already goes before this.
    this.port.close(handle);
    this.lose(gone);
  }

  pump(): void {
    const { port } = this;
    while (this.queue.length > 0) {
      const { handle, item } = this.queue[0];
      const { op, sector, lengthBytes, flags, version, bytes } = item;
      const carries = bytes !== null || op === BlockOp.read || op === BlockOp.history;
      const payloadOffset = carries ? port.allocate(lengthBytes) : 0;
      if (payloadOffset < 0) break;
      if (bytes !== null) port.payload.set(bytes, payloadOffset);
      const tag = this.nextTag;
      if (!port.submit(op, handle, sector, lengthBytes, payloadOffset, flags, tag, version)) {
        if (carries) port.release(payloadOffset, lengthBytes);
        break;
      }
      this.nextTag = (tag + 1) & 0x7fffffff;
      this.sent.set(tag, { item, payloadOffset: carries ? payloadOffset : -1 });
      this.queue.shift();
    }
    port.kick();
  }

  poll(): void {
    const { port } = this;
    port.poll((tag, status) => {
      const { item, payloadOffset } = this.sent.get(tag)!;
      this.sent.delete(tag);
      const end = payloadOffset + (payloadOffset < 0 ? 0 : item.lengthBytes);
      item.done(status, port.payload.subarray(Math.max(0, payloadOffset), Math.max(0, end)));
      if (payloadOffset >= 0) port.release(payloadOffset, item.lengthBytes);
    });
  }

  /** True once after the connection was lost. */
  wasLost(): boolean {
    const { losses } = this.port;
    const lost = losses !== this.seenLosses;
    this.seenLosses = losses;
    return lost;
  }

  /** What was to go to volumes that are no longer open. */
  dropQueue(): void {
    const gone = this.queue;
    this.queue = [];
    this.lose(gone);
  }

  private lose(gone: readonly { readonly item: MemberItem }[]): void {
    for (const { item } of gone) item.done(BlockStatus.lost, new Uint8Array(0));
  }
}
