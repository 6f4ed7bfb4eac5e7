/**
 * A volume on the stores of a group, as its one writer keeps it: changes are numbered, go to every
 * member in their order, and are complete when all have done them.
 *
 *   opening   claims the volume on every member, with one generation
 *   alike     members that lack what another has are given it, before anything is read: what a
 *             former writer did from the member that has the latest, by its history
 *   ready     a member that was lost is opened again and given what it lacks from memory, where
 *             changes are kept until a flush of all; changes and flushes wait for it
 *   fenced    another writer has it, or the cluster store does not listen: nothing is acknowledged
 *
 * A member is given up when it fails, or when somebody decides so: that it is stale is recorded
 * first, then changes that it lacks are acknowledged.
 */
import { isAfter, noVersion, type Operation, type Version } from "#lib/model/writer.ts";
import { decodeDone, doneBytes } from "#lib/wire/chunk/record.ts";
import { BlockOp, BlockStatus, maxRequestBytes, type OpenVolume, sectorBytes } from "./block.ts";

/** Something for one member to do; a member does its items in their order. */
export interface MemberItem {
  readonly op: BlockOp;
  readonly sector: number;
  readonly lengthBytes: number;
  readonly flags: number;
  readonly version: Version;
  /** To be written. */
  readonly bytes: Uint8Array | null;
  /** `found`: what was read, until it returns. */
  readonly done: (status: BlockStatus, found: Uint8Array) => void;
}

/** A member's port, as this volume uses it. */
export interface MemberLink {
  open(generation: number, done: (result: OpenVolume | BlockStatus) => void): void;
  close(handle: number): void;
  /** In the order of the calls; `lost` for all that the connection takes with it. */
  send(handle: number, item: MemberItem): void;
}

export interface GroupVolumeParts {
  readonly links: readonly MemberLink[];
  /** Bytes of changes that are kept before the volume flushes by itself. */
  readonly keepBytes: number;
  readonly recordStale: (member: number, done: (recorded: boolean) => void) => void;
  readonly opened: (result: OpenVolume | BlockStatus) => void;
}

interface Member {
  readonly index: number;
  readonly bit: number;
  readonly link: MemberLink;
  /** -1 while it is not open. */
  handle: number;
  /** It has been sent all that it lacked: what is sent now finds it in order. */
  ready: boolean;
  generation: number;
  /** It has done everything up to this. */
  version: Version;
  flushed: Version;
  /** It has a part of the operation after that. */
  partly: boolean;
  /** Why its store did not open the volume. */
  refused: BlockStatus;
  /** Nothing is asked of it any more. */
  givenUp: boolean;
  /** That is recorded: nothing waits for it any more. */
  stale: boolean;
}

type Answer = (status: BlockStatus) => void;

interface Change {
  readonly version: Version;
  readonly op: BlockOp;
  readonly sector: number;
  readonly lengthBytes: number;
  readonly flags: number;
  readonly bytes: Uint8Array | null;
  /** Bits of members that have not done it, and of those that failed to. */
  waiting: number;
  failed: number;
  status: BlockStatus;
  /** Null once called. */
  answer: Answer | null;
}

interface Flush {
  readonly covers: Version;
  waiting: number;
  readonly answer: Answer;
}

interface Read {
  readonly sector: number;
  readonly lengthBytes: number;
  /** Bits of members that could not read it. */
  failed: number;
  status: BlockStatus;
  readonly into: (bytes: Uint8Array) => void;
  readonly answer: Answer;
}

const historyBytes = 65_536;

export class GroupVolume {
  private phase: "opening" | "alike" | "ready" | "fenced" | "closed" = "opening";
  private readonly parts: GroupVolumeParts;
  private readonly members: readonly Member[];
  private generation = 0;
  private sequence = 0;
  /** All members have this durable; and all have done this. */
  private flushed = noVersion;
  private done = noVersion;
  private changes: Change[] = [];
  private changeBytes = 0;
  private flushes: Flush[] = [];
  /** Reads that wait for a member to come back. */
  private orphans: Read[] = [];
  /** Requests that came before it was ready. */
  private held: (() => void)[] = [];
  private told = false;
  /** What is answered once it is fenced or closed. */
  private ended: BlockStatus = BlockStatus.ok;
  /** As a member opened it. */
  private size: OpenVolume | undefined;
  /** Grows with each new try to make members alike: an older one ends. */
  private round = 0;

  constructor(parts: GroupVolumeParts) {
    this.parts = parts;
    this.members = parts.links.map((link, index) => ({
      ...{ index, bit: 1 << index, link, handle: -1, ready: false, generation: 0 },
      ...{ version: noVersion, flushed: noVersion, partly: false, refused: BlockStatus.ok },
      ...{ givenUp: false, stale: false },
    }));
    for (const member of this.members) this.open(member, 0);
  }

  // ---- opening -----------------------------------------------------------------------------

  private get live(): Member[] {
    return this.members.filter(({ givenUp }) => !givenUp);
  }

  private get liveBits(): number {
    return this.live.reduce((bits, { bit }) => bits | bit, 0);
  }

  /** Of those that a change or flush waits for: also one given up, until that is recorded. */
  private get owedBits(): number {
    return this.members.reduce((bits, { bit, stale }) => (stale ? bits : bits | bit), 0);
  }

  private open(member: Member, generation: number): void {
    member.link.open(generation, (result) => this.memberOpened(member, result));
  }

  private memberOpened(member: Member, result: OpenVolume | BlockStatus): void {
    if (typeof result === "number") {
      if (member.givenUp || this.phase === "closed") return;
      member.refused = result;
      if (result === BlockStatus.fenced) this.fence();
      else this.advance();
      return;
    }
    if (member.givenUp || this.over) {
      member.link.close(result.handle);
      return;
    }
    member.handle = result.handle;
    member.generation = result.generation;
    member.version = result.version;
    member.flushed = result.flushed;
    member.partly = result.partly;
    this.size = result;
    this.advance();
  }

  private closeMember(member: Member): void {
    const { handle } = member;
    // First: what ends as lost with it looks for another member.
    member.handle = -1;
    member.ready = false;
    if (handle >= 0) member.link.close(handle);
  }

  /** The connection of a member is gone; its items end as `lost`, before this or after. */
  memberLost(index: number): void {
    const member = this.members[index];
    if (member.givenUp || this.over) return;
    if (member.handle < 0 && member.refused === BlockStatus.ok) return;
    member.handle = -1;
    member.ready = false;
    member.refused = BlockStatus.ok;
    if (this.phase === "alike") this.phase = "opening";
    this.open(member, this.generation);
  }

  private advance(): void {
    const { live } = this;
    const refused = live.filter((member) => member.refused !== BlockStatus.ok);
    if (refused.length === live.length) {
      // The last one of a volume in use may be mounted again: its connection ends then.
      if (!this.told) this.refuse(refused[0].refused);
      return;
    }
    // Only once another one has it: the volume may be one that does not exist.
    if (live.some(({ handle }) => handle >= 0)) {
      for (const { index } of refused) this.giveUp(index);
    }
    if (this.phase === "ready") {
      for (const member of this.live) {
        if (member.handle >= 0 && !member.ready) this.catchUp(member);
      }
      return;
    }
    if (this.phase !== "opening" || this.live.some(({ handle }) => handle < 0)) return;
    const generation = Math.max(...this.live.map((member) => member.generation));
    const older = this.live.filter((member) => member.generation < generation);
    for (const member of older) {
      this.closeMember(member);
      this.open(member, generation);
    }
    if (older.length > 0) return;
    this.generation = generation;
    this.phase = "alike";
    this.makeAlike(++this.round);
  }

  // ---- alike -------------------------------------------------------------------------------

  private makeAlike(round: number): void {
    const ahead = this.live.reduce((a, b) => (isAfter(b.version, a.version) ? b : a));
    const behind = this.live.find(({ version }) => isAfter(ahead.version, version));
    if (behind === undefined) {
      const torn = this.live.find(({ partly }) => partly);
      if (torn === undefined || this.live.length === 1) this.flushAll(round, ahead.version);
      else this.mend(round, torn);
    } else if (isAfter(ahead.flushed, behind.version)) {
      // It said that it was durable there, and is not.
      this.giveUp(behind.index, () => this.makeAlike(round));
    } else {
      this.readHistory(round, ahead, 0, [], (history) => {
        const lacking = history.filter((each) => isAfter(each, behind.version));
        this.copyAll(round, ahead, behind, lacking);
      });
    }
  }

  /** A part of its last operation is there and not elsewhere: whatever it is, all get it. */
  private mend(round: number, torn: Member): void {
    const other = this.live.find((member) => member !== torn)!;
    this.readHistory(round, torn, 0, [], (history) => {
      // The other one is then ahead, with what the torn one has: that closes the circle.
      torn.partly = false;
      this.copyAll(round, torn, other, history.slice(-1));
    });
  }

  private readHistory(
    round: number,
    ahead: Member,
    first: number,
    before: readonly Operation[],
    done: (history: readonly Operation[]) => void,
  ): void {
    this.ask(ahead, BlockOp.history, first, historyBytes, noVersion, null, (status, found) => {
      if (round !== this.round || status === BlockStatus.lost) return;
      if (status !== BlockStatus.ok) {
        this.memberFailed(ahead, status, round);
        return;
      }
      const page: Operation[] = [];
      for (let at = 0; at < found.length; at += doneBytes) {
        const operation = decodeDone(found, at);
        if (operation === undefined) break;
        page.push(operation);
      }
      const history = [...before, ...page];
      if (page.length < historyBytes / doneBytes) done(history);
      else this.readHistory(round, ahead, first + page.length, history, done);
    });
  }

  /** One after the other, each with its own version: a crash in between leaves less to do. */
  private copyAll(
    round: number,
    ahead: Member,
    behind: Member,
    lacking: readonly Operation[],
    at = 0,
  ): void {
    if (at === lacking.length) {
      this.makeAlike(round);
      return;
    }
    const next = lacking[at];
    const put = (op: BlockOp, bytes: Uint8Array | null) =>
      this.ask(behind, op, next.sector, next.sectors * sectorBytes, next, bytes, (status) => {
        if (round !== this.round || status === BlockStatus.lost) return;
        if (status !== BlockStatus.ok) {
          this.memberFailed(behind, status, round);
          return;
        }
        behind.version = next;
        behind.partly = false;
        this.copyAll(round, ahead, behind, lacking, at + 1);
      });
    if (next.discards) {
      put(BlockOp.writeZeroes, null);
      return;
    }
    const { sector } = next;
    const lengthBytes = Math.min(next.sectors * sectorBytes, maxRequestBytes);
    this.ask(ahead, BlockOp.read, sector, lengthBytes, noVersion, null, (status, found) => {
      if (round !== this.round || status === BlockStatus.lost) return;
      if (status === BlockStatus.ok) put(BlockOp.write, found.slice());
      else this.memberFailed(ahead, status, round);
    });
  }

  private flushAll(round: number, covers: Version): void {
    let waiting = this.live.length;
    for (const member of this.live) {
      this.ask(member, BlockOp.flush, 0, 0, noVersion, null, (status) => {
        if (round !== this.round || status === BlockStatus.lost) return;
        if (status !== BlockStatus.ok) this.memberFailed(member, status, round);
        else if (--waiting === 0) {
          this.flushed = covers;
          this.done = covers;
          this.becomeReady();
        }
      });
    }
  }

  private memberFailed(member: Member, status: BlockStatus, round: number): void {
    if (status === BlockStatus.fenced) this.fence();
    else if (this.live.length === 1) this.refuse(status);
    else this.giveUp(member.index, () => this.makeAlike(round));
  }

  private becomeReady(): void {
    this.phase = "ready";
    for (const member of this.live) this.catchUp(member);
    this.told = true;
    this.parts.opened({ ...this.size!, generation: this.generation });
    for (const request of this.held.splice(0)) request();
  }

  /** It was opened anew: what it lacks is sent again, and what waits for it. */
  private catchUp(member: Member): void {
    // It said that it was durable there, and is not. The last one is better than none.
    if (isAfter(this.flushed, member.version) && this.live.length > 1) {
      this.giveUp(member.index);
      return;
    }
    const { version } = member;
    const known = this.changes.filter((change) => !isAfter(change.version, version));
    for (const change of this.changes) {
      if (isAfter(change.version, version)) this.sendChange(member, change);
    }
    for (const flush of this.flushes) {
      if ((flush.waiting & member.bit) !== 0) this.sendFlush(member, flush);
    }
    // Only now: what the answers below lead to is sent after all that.
    member.ready = true;
    for (const change of known) this.changeDone(member, change, BlockStatus.ok);
    for (const read of this.orphans.splice(0)) this.dispatch(read);
  }

  // ---- requests ----------------------------------------------------------------------------

  /** `into` gets what a read found, before its answer. `bytes` of a write are the volume's from now on. */
  submit(
    op: BlockOp,
    sector: number,
    lengthBytes: number,
    flags: number,
    bytes: Uint8Array | null,
    into: (found: Uint8Array) => void,
    answer: Answer,
  ): void {
    if (this.over) answer(this.ended);
    else if (this.phase !== "ready") {
      this.held.push(() => this.submit(op, sector, lengthBytes, flags, bytes, into, answer));
    } else if (op === BlockOp.read) {
      this.dispatch({ sector, lengthBytes, failed: 0, status: BlockStatus.ok, into, answer });
    } else if (op === BlockOp.flush) this.flush(answer);
    else {
      const version = { generation: this.generation, sequence: ++this.sequence };
      this.change({
        ...{ version, op, sector, lengthBytes, flags, bytes, answer },
        ...{ waiting: this.owedBits, failed: 0, status: BlockStatus.ok },
      });
    }
  }

  private change(change: Change): void {
    this.changes.push(change);
    this.changeBytes += change.bytes?.length ?? 0;
    for (const member of this.live) if (member.ready) this.sendChange(member, change);
    if (this.changeBytes > this.parts.keepBytes) this.flush(() => {});
  }

  private sendChange(member: Member, change: Change): void {
    const { op, sector, lengthBytes, flags, version, bytes } = change;
    member.link.send(member.handle, {
      ...{ op, sector, lengthBytes, flags, version, bytes },
      done: (status) => this.changeDone(member, change, status),
    });
  }

  private changeDone(member: Member, change: Change, status: BlockStatus): void {
    if (status === BlockStatus.lost || (change.waiting & member.bit) === 0) return;
    if (status === BlockStatus.fenced) {
      this.fence();
      return;
    }
    change.waiting &= ~member.bit;
    if (status !== BlockStatus.ok) {
      change.failed |= member.bit;
      change.status = status;
    }
    this.settle(change);
  }

  private settle(change: Change): void {
    const { answer } = change;
    if (change.waiting !== 0 || answer === null || this.over) return;
    if (change.failed !== 0 && change.failed !== this.liveBits) {
      for (const { bit, index } of this.live) if ((change.failed & bit) !== 0) this.giveUp(index);
      return;
    }
    change.answer = null;
    // All of them refused it alike: then none is to have it.
    if (change.failed !== 0) this.changes = this.changes.filter((each) => each !== change);
    else if (isAfter(change.version, this.done)) this.done = change.version;
    answer(change.failed === 0 ? BlockStatus.ok : change.status);
  }

  private flush(answer: Answer): void {
    const { generation, sequence } = this;
    const covers = sequence === 0 ? this.flushed : { generation, sequence };
    const flush: Flush = { covers, waiting: this.owedBits, answer };
    this.flushes.push(flush);
    for (const member of this.live) if (member.ready) this.sendFlush(member, flush);
  }

  private sendFlush(member: Member, flush: Flush): void {
    member.link.send(member.handle, {
      ...{ op: BlockOp.flush, sector: 0, lengthBytes: 0, flags: 0, version: this.flushed },
      bytes: null,
      done: (status) => this.flushDone(member, flush, status),
    });
  }

  private flushDone(member: Member, flush: Flush, status: BlockStatus): void {
    if (status === BlockStatus.lost || (flush.waiting & member.bit) === 0 || this.over) return;
    if (status === BlockStatus.fenced) this.fence();
    else if (status === BlockStatus.ok) {
      flush.waiting &= ~member.bit;
      this.settleFlush(flush);
    } else if (this.live.length === 1) {
      this.flushes = this.flushes.filter((each) => each !== flush);
      flush.answer(status);
    } else this.giveUp(member.index);
  }

  private settleFlush(flush: Flush): void {
    if (flush.waiting !== 0 || this.over) return;
    this.flushes = this.flushes.filter((each) => each !== flush);
    if (isAfter(flush.covers, this.flushed)) {
      // Not what all refused: no member has that, and none has lost it.
      this.flushed = isAfter(flush.covers, this.done) ? this.done : flush.covers;
      this.changes = this.changes.filter(({ version }) => isAfter(version, flush.covers));
      this.changeBytes = this.changes.reduce((sum, { bytes }) => sum + (bytes?.length ?? 0), 0);
    }
    flush.answer(BlockStatus.ok);
  }

  /** To the first member that is there: always the same one, so that no read goes back in time. */
  private dispatch(read: Read): void {
    const able = this.live.filter(({ bit }) => (read.failed & bit) === 0);
    const member = able.find(({ ready }) => ready);
    if (this.over) read.answer(this.ended);
    else if (able.length === 0) read.answer(read.status);
    else if (member === undefined) this.orphans.push(read);
    else {
      const { sector, lengthBytes } = read;
      this.ask(member, BlockOp.read, sector, lengthBytes, noVersion, null, (status, found) => {
        if (status === BlockStatus.lost) this.dispatch(read);
        else if (status === BlockStatus.mediaError || status === BlockStatus.storeFailed) {
          read.failed |= member.bit;
          read.status = status;
          this.dispatch(read);
        } else {
          if (status === BlockStatus.ok) read.into(found);
          read.answer(status);
        }
      });
    }
  }

  private ask(
    member: Member,
    op: BlockOp,
    sector: number,
    lengthBytes: number,
    version: Version,
    bytes: Uint8Array | null,
    done: (status: BlockStatus, found: Uint8Array) => void,
  ): void {
    member.link.send(member.handle, { op, sector, lengthBytes, flags: 0, version, bytes, done });
  }

  // ---- the end of a member, and of all -----------------------------------------------------

  /** Leaves a member behind, unless it is the last: changes no longer wait for it once that is recorded. */
  giveUp(index: number, then: () => void = () => {}): void {
    const member = this.members[index];
    if (member.givenUp || this.live.length === 1 || this.phase === "closed") return;
    member.givenUp = true;
    this.closeMember(member);
    this.parts.recordStale(index, (recorded) => {
      if (this.over) return;
      if (!recorded) {
        this.fence();
        return;
      }
      member.stale = true;
      for (const change of [...this.changes]) {
        change.waiting &= ~member.bit;
        change.failed &= ~member.bit;
        this.settle(change);
      }
      for (const flush of [...this.flushes]) {
        flush.waiting &= ~member.bit;
        this.settleFlush(flush);
      }
      this.advance();
      for (const read of this.orphans.splice(0)) this.dispatch(read);
      then();
    });
  }

  private fence(): void {
    if (this.over) return;
    this.phase = "fenced";
    this.end(BlockStatus.fenced);
  }

  private get over(): boolean {
    return this.phase === "fenced" || this.phase === "closed";
  }

  /** It can't be opened. */
  private refuse(status: BlockStatus): void {
    this.phase = "closed";
    this.end(status);
  }

  close(): void {
    if (this.phase === "closed") return;
    this.phase = "closed";
    this.end(BlockStatus.badHandle);
  }

  private end(status: BlockStatus): void {
    this.round++;
    this.ended = status;
    for (const member of this.members) this.closeMember(member);
    if (!this.told) {
      this.told = true;
      this.parts.opened(status);
    }
    for (const change of this.changes.splice(0)) change.answer?.(status);
    for (const flush of this.flushes.splice(0)) flush.answer(status);
    for (const read of this.orphans.splice(0)) read.answer(status);
    for (const request of this.held.splice(0)) request();
  }
}
