/**
 * Two members a group: the real group port writes one volume on two real stores, over connections
 * that are cut and stores that are killed or lose power; writers die, and some go on writing after
 * another has taken the volume. Whatever was flushed, and whatever one member kept, is there; both
 * members are alike whenever nothing is under way; what an old writer sends later is nowhere.
 */
import type { CutKind } from "#lib/sim/disk.ts";
import { Random } from "#lib/sim/random.ts";
import { BlockOp, BlockStatus } from "#lib/volume/block.ts";
import { auditStore } from "#services/chunk-store/engine/audit.ts";
import { beginCheckpoint } from "#services/chunk-store/engine/checkpoint.ts";
import { sectorsPerBlock } from "#services/chunk-store/limits.ts";
import { SimMember } from "./group-member.ts";
import { type Request, Writer } from "./group-writer.ts";
import { Cut, VolumeModel } from "./model.ts";
import { SimFailure, type SimOptions } from "./run.ts";
import { readStamp, writeStamp } from "./stamps.ts";

export interface GroupCounts {
  groupRequests: number;
  groupFlushes: number;
  linksCut: number;
  membersCrashed: number;
  membersGivenUp: number;
  writersCrashed: number;
  groupsWithoutPower: number;
  oldWritersRefused: number;
  comparedAlike: number;
}

const volume = "00000000-0000-4000-8000-000000000001";
const volumeBytes = 4 * 2 ** 20;
const volumeSectors = volumeBytes / 512;
const diskBytes = 12 * 2 ** 20;
const payloadBytes = 2 ** 20;
const mostRounds = 4000;

/** A group of its own for each so many steps: one that has lost a member has little left to tell. */
const stepsOfGroup = 234;

export function simulateGroup(options: SimOptions): GroupCounts {
  const { seed, operations, steps } = options;
  const counts = noCounts();
  for (let first = 1; first <= operations; first += stepsOfGroup) {
    const end = Math.min(first + stepsOfGroup, operations + 1);
    const all = steps ?? Array.from({ length: operations }, (_, at) => at + 1);
    const own = all.filter((step) => step >= first && step < end);
    if (own.length === 0) continue;
    const simulation = new GroupSimulation(options, own, end, counts);
    try {
      simulation.run();
    } catch (error) {
      if (error instanceof SimFailure) throw error;
      const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
      throw new SimFailure(`seed ${seed}: the group threw: ${text}`, simulation.step);
    }
  }
  return counts;
}

const noCounts = (): GroupCounts => ({
  groupRequests: 0,
  groupFlushes: 0,
  linksCut: 0,
  membersCrashed: 0,
  membersGivenUp: 0,
  writersCrashed: 0,
  groupsWithoutPower: 0,
  oldWritersRefused: 0,
  comparedAlike: 0,
});

class GroupSimulation {
  private readonly counts: GroupCounts;
  step = 0;
  private readonly steps: readonly number[];
  /** Past its last step. */
  private readonly endStep: number;
  private readonly options: SimOptions;
  private readonly random: Random;
  private readonly members: readonly SimMember[];
  private readonly model = new VolumeModel(volume, volumeBytes, null);
  /** As the cluster store has it: members that a write was acknowledged without. */
  private readonly stale = new Set<number>();
  private recording: { readonly number: number; done(recorded: boolean): void }[] = [];
  /** Members that surely have all that was acknowledged: no power cut since all were alike. */
  private readonly intact = new Set([0, 1]);
  private writer: Writer;
  /** Died for everybody but itself: it goes on. */
  private ghost: Writer | undefined;
  private readonly powerCuts = [0, 0];
  private hasBroken = false;
  private unsure = false;
  /** Last operation before the ghost was replaced. */
  private replacedAt = 0;
  private operation = 0;
  private acknowledged = 0;
  private flushed = 0;
  private stamp = 0;
  private tag = 0;
  private readonly lossy: boolean;

  constructor(options: SimOptions, steps: readonly number[], endStep: number, counts: GroupCounts) {
    this.options = options;
    this.steps = steps;
    this.endStep = endStep;
    this.counts = counts;
    this.random = new Random(options.seed);
    // Not the stream of a step.
    this.random.reseed(options.seed, -endStep);
    this.members = [0, 1].map(() => new SimMember(this.random, diskBytes, volume, volumeBytes));
    // In some lives a member that stays away is given up, and flushes fail.
    this.lossy = this.random.oneIn(3);
    this.writer = this.newWriter();
  }

  private newWriter(): Writer {
    const numbers = [0, 1].filter((number) => !this.stale.has(number));
    const keepBytes = this.random.pick([2 ** 14, 2 ** 18, 2 ** 22]);
    const sizes = { payloadBytes, keepBytes };
    const writer: Writer = new Writer(volume, this.members, numbers, sizes, (number, done) => {
      // Compare and swap: another writer was quicker.
      if (writer === this.writer) this.recording.push({ number, done });
      else done(false);
    });
    return writer;
  }

  private record(number: number): void {
    this.say(`member ${number} is recorded as stale`);
    this.stale.add(number);
    this.intact.delete(number);
    this.counts.membersGivenUp++;
  }

  /** The cluster store takes its time. */
  private recordAll(): boolean {
    const some = this.recording.splice(0);
    for (const { number, done } of some) {
      this.record(number);
      done(true);
    }
    return some.length > 0;
  }

  run(): void {
    this.open();
    const { seed } = this.options;
    for (const step of this.steps) {
      this.step = step;
      this.random.reseed(seed, step);
      this.act();
    }
    this.step = this.endStep;
    this.random.reseed(seed, this.endStep);
    this.say("the end");
    this.settle();
    if (this.unsure || this.broken || this.writer.handle < 0) this.recover(false);
    this.compare();
    for (const member of this.live) {
      const problems = auditStore(member.store);
      if (problems.length > 0) this.fail(`at the end: ${problems.slice(0, 3).join("; ")}`);
    }
  }

  private get live(): SimMember[] {
    return this.members.filter((_, number) => !this.stale.has(number));
  }

  private say(what: string): void {
    this.options.trace?.(this.step, what);
  }

  private act(): void {
    const { random } = this;
    const choice = random.below(100);
    if (this.unsure) this.recover(false);
    if (choice < 52) this.ask();
    else if (choice < 62) this.flush();
    else if (choice < 66) this.cutLink();
    else if (choice < 73) this.crashMember();
    else if (choice < 76) this.crashWriter();
    else if (choice < 78) this.cutAllPower();
    else if (choice < 80 && this.lossy) this.loseMember();
    else if (choice < 83) this.settle();
    else if (choice < 88) this.checkpoint();
    this.happen(random.below(24));
  }

  // ---- what happens by itself --------------------------------------------------------------

  private happen(times: number): void {
    for (let i = 0; i < times; i++) this.tick();
  }

  private tick(): void {
    const { random } = this;
    const number = random.below(2);
    const member = this.members[number];
    const links = [...member.links];
    const kind = random.below(5);
    if (kind < 3 && links.length > 0) {
      const link = random.pick(links);
      const part = random.oneIn(8) ? 1 + random.below(600) : 0;
      const towardsStore = random.oneIn(2);
      this.runOn(number, () => link.step(towardsStore, part));
    } else if (kind === 3) this.runOn(number, () => void (member.turn() && this.dies(number)));
    else this.poll();
    if (random.oneIn(6)) this.elapse();
    if (random.oneIn(8)) this.recordAll();
    if (member.executor === undefined && random.oneIn(12)) member.start();
  }

  private runOn(number: number, run: () => void): void {
    if (this.members[number].dies(run)) this.dies(number);
  }

  /** A disk call was its last one. */
  private dies(number: number): void {
    this.crash(number, this.random.oneIn(2));
  }

  private elapse(): void {
    for (const writer of this.writers) for (const run of writer.timers.splice(0)) run();
  }

  private get writers(): Writer[] {
    return this.ghost === undefined ? [this.writer] : [this.writer, this.ghost];
  }

  private poll(): void {
    for (const writer of this.writers) {
      writer.port.poll((tag, status) => this.answered(writer, tag, status));
    }
  }

  /** Until nothing is under way any more. */
  private settle(): void {
    for (const [number, member] of this.members.entries()) {
      member.disk.crashAt = Number.POSITIVE_INFINITY;
      if (member.store.failure !== null) this.crash(number, true);
      if (member.executor === undefined) member.start();
    }
    let quietRounds = 0;
    for (let round = 0; quietRounds < 3; round++) {
      if (round > mostRounds) this.fail("it does not come to rest");
      let busy = false;
      for (const [number, member] of this.members.entries()) {
        for (const link of [...member.links]) {
          if (!link.quiet) busy = true;
          this.runOn(number, () => {
            link.step(true, 0);
            link.step(false, 0);
          });
        }
        while (member.disk.finishFlush()) busy = true;
        if (member.executor !== undefined) this.runOn(number, () => void member.executor?.turn());
      }
      if (this.writers.some(({ timers }) => timers.length > 0)) busy = true;
      this.elapse();
      if (this.recordAll()) busy = true;
      this.poll();
      quietRounds = busy ? 0 : quietRounds + 1;
    }
    if (this.writer.handle >= 0 && this.writer.requests.size > 0 && !this.broken) {
      this.fail(`${this.writer.requests.size} requests are never answered`);
    }
  }

  /** A store of a live member has retired: only a restart helps. */
  private get broken(): boolean {
    return this.live.some(({ store }) => store.failure !== null);
  }

  // ---- requests ----------------------------------------------------------------------------

  private ask(): void {
    const { writer } = this;
    if (writer.handle < 0) return;
    for (let count = 1 + this.random.below(6); count > 0; count--) {
      const op = this.random.pick([
        ...[BlockOp.read, BlockOp.write, BlockOp.write, BlockOp.write],
        this.random.oneIn(2) ? BlockOp.discard : BlockOp.writeZeroes,
      ]);
      this.askOne(writer, op, this.place(op));
    }
    writer.port.kick();
  }

  private place(op: number): { sector: number; sectors: number } {
    const { random } = this;
    const whole = random.oneIn(3);
    const sector = random.oneIn(3) ? random.below(volumeSectors) : random.below(160);
    const wanted = random.oneIn(10) ? 1 + random.below(600) : 1 + random.below(20);
    const most = op === BlockOp.read || op === BlockOp.write ? 2048 : volumeSectors;
    const sectors = Math.min(wanted, most, volumeSectors - sector);
    if (!whole) return { sector, sectors };
    const first = sector - (sector % sectorsPerBlock);
    return { sector: first, sectors: Math.min(sectorsPerBlock, volumeSectors - first) };
  }

  private askOne(
    writer: Writer,
    op: BlockOp,
    { sector, sectors }: { sector: number; sectors: number },
  ): void {
    const { port } = writer;
    const payloadOffset = port.allocate(sectors * 512);
    if (payloadOffset < 0) return;
    const operation = ++this.operation;
    const stamp = op === BlockOp.write ? ++this.stamp : 0;
    const expected: number[] = [];
    const own = writer === this.writer;
    for (let i = 0; i < sectors; i++) {
      if (op === BlockOp.write) {
        writeStamp(port.payload, payloadOffset + i * 512, sector + i, stamp);
      }
      if (op === BlockOp.read) expected.push(this.model.expected(sector + i));
      else if (own && (stamp !== 0 || this.model.has(sector + i))) {
        this.model.write(sector + i, stamp, operation);
      }
    }
    const tag = ++this.tag;
    if (op !== BlockOp.read) for (const { since } of writer.requests.values()) since.add(stamp);
    const since = new Set<number>();
    const powerCuts = [...this.powerCuts];
    const made = { op, sector, sectors, payloadOffset, operation, expected, since, powerCuts };
    writer.requests.set(tag, made);
    port.submit(op, writer.handle, sector, sectors * 512, payloadOffset, 0, tag);
    this.counts.groupRequests++;
    const name = Object.entries(BlockOp).find(([, value]) => value === op)?.[0];
    this.say(`${own ? "" : "old writer: "}${name} ${sectors} at ${sector} as ${stamp}`);
  }

  private flush(): void {
    const { writer } = this;
    if (writer.handle < 0) return;
    const tag = ++this.tag;
    const { operation } = this;
    const request = { op: BlockOp.flush, sector: 0, sectors: 0, payloadOffset: 0, operation };
    const powerCuts = [...this.powerCuts];
    writer.requests.set(tag, { ...request, expected: [], since: new Set(), powerCuts });
    writer.port.submit(BlockOp.flush, writer.handle, 0, 0, 0, 0, tag);
    writer.port.kick();
    this.counts.groupFlushes++;
    this.say("flush");
  }

  private answered(writer: Writer, tag: number, status: BlockStatus): void {
    const request = writer.requests.get(tag)!;
    writer.requests.delete(tag);
    const { op, sector, sectors, payloadOffset, operation, expected, since } = request;
    if (writer !== this.writer) {
      // What it asked before it was replaced may have been done.
      if (operation > this.replacedAt) {
        if (status === BlockStatus.ok) this.fail("an old writer is believed");
        this.counts.oldWritersRefused++;
      }
    } else if (this.unsure) {
      // As of a writer that is about to be replaced.
      if (status !== BlockStatus.ok) this.doubt(request);
    } else if (status === BlockStatus.storeFailed && (this.broken || this.hasBroken)) {
      // The last member's store retired: what became of its requests is found out anew.
      this.unsure = true;
      this.doubt(request);
    } else if (status !== BlockStatus.ok) {
      this.fail(`operation ${operation} ended with status ${status}`);
    } else if (op === BlockOp.flush) {
      this.flushed = Math.max(this.flushed, operation);
      this.acknowledged = Math.max(this.acknowledged, operation);
      this.model.flushed(this.flushed);
      for (const number of this.numbersOfLive) {
        if (request.powerCuts[number] === this.powerCuts[number]) this.intact.add(number);
      }
    } else if (op !== BlockOp.read) this.acknowledged = Math.max(this.acknowledged, operation);
    else {
      for (let i = 0; i < sectors; i++) {
        const found = readStamp(writer.port.payload, payloadOffset + i * 512, sector + i);
        if (found !== expected[i] && !since.has(found)) {
          this.fail(`sector ${sector + i} reads ${found}, not ${expected[i]}`);
        }
      }
    }
    if (sectors > 0) writer.port.release(payloadOffset, sectors * 512);
  }

  private doubt({ op, sector, sectors, operation }: Request): void {
    if (op === BlockOp.read || op === BlockOp.flush) return;
    for (let i = 0; i < sectors; i++) this.model.doubt(sector + i, operation);
  }

  // ---- faults ------------------------------------------------------------------------------

  private cutLink(): void {
    const links = this.members.flatMap((member) => [...member.links]);
    if (links.length === 0) return;
    this.counts.linksCut++;
    this.say("a connection is cut");
    this.random.pick(links).cut();
  }

  private crashMember(): void {
    const number = this.random.below(2);
    const { disk, executor } = this.members[number];
    if (executor === undefined) return;
    if (this.lossy && this.random.oneIn(6)) disk.failNextFlush = true;
    else if (this.random.oneIn(2)) disk.crashAt = disk.calls + 1 + this.random.below(12);
    else this.crash(number, this.random.oneIn(2));
  }

  private crash(number: number, power: boolean): void {
    const member = this.members[number];
    if (member.executor === undefined) return;
    this.counts.membersCrashed++;
    this.say(`member ${number} ${power ? "loses power" : "is killed"}`);
    if (power || member.store.failure !== null) {
      this.intact.delete(number);
      this.powerCuts[number]++;
    }
    this.hasBroken ||= member.store.failure !== null;
    const kind = this.random.pick<CutKind>(["nothing", "everything", "any", "any"]);
    member.crash(power || member.store.failure !== null ? kind : undefined);
  }

  /** It stays away until it is recorded as stale. */
  private loseMember(): void {
    if (this.live.length < 2 || this.writer.handle < 0) return;
    const index = this.random.below(2);
    this.say(`member ${index} is given up`);
    this.writer.port.giveUp(this.writer.numbers.indexOf(index));
    if (this.random.oneIn(2)) return;
    // The last that the other one does is seen by nobody, unless its end was recorded before.
    this.ask();
    for (let i = 0; i < 40; i++) this.serve(1 - index);
    this.crash(1 - index, true);
    this.crashWriter();
  }

  /** One member does what it is asked, and nothing else happens. */
  private serve(number: number): void {
    const member = this.members[number];
    for (const link of [...member.links]) {
      this.runOn(number, () => {
        link.step(true, 0);
        link.step(false, 0);
      });
    }
    this.runOn(number, () => void member.executor?.turn());
    this.poll();
  }

  private checkpoint(): void {
    const number = this.random.below(2);
    const { store, executor } = this.members[number];
    if (executor === undefined || store.checkpoint !== null) return;
    this.say(`member ${number} begins a checkpoint`);
    this.runOn(number, () => beginCheckpoint(store));
  }

  private crashWriter(): void {
    if (this.writer.handle < 0) return;
    this.say("the writer dies");
    this.recover(this.random.oneIn(3));
  }

  private cutAllPower(): void {
    this.counts.groupsWithoutPower++;
    this.say("all power goes");
    for (const [number] of this.members.entries()) this.crash(number, true);
    this.recover(false);
  }

  /** A new writer takes the volume; the old one perhaps does not know that it is dead. */
  private recover(ghost: boolean): void {
    this.counts.writersCrashed++;
    const before = this.writer;
    this.replacedAt = this.operation;
    // What the cluster store was asked for is recorded or not: nobody hears the answer.
    for (const { number } of this.recording.splice(0))
      if (this.random.oneIn(2)) this.record(number);
    if (ghost) this.ghost = before;
    else before.end();
    // A store that retired is mounted anew; only then it can be claimed.
    for (const [number, member] of this.members.entries()) {
      if (member.store.failure !== null) this.crash(number, true);
    }
    this.unsure = false;
    this.writer = this.newWriter();
    this.open();
    this.check();
    if (!ghost) return;
    this.replacedAt = this.operation;
    for (let i = 0; i < 3; i++) {
      this.askOne(before, BlockOp.write, { sector: this.random.below(160), sectors: 8 });
    }
    before.port.kick();
    this.settle();
    this.ghost = undefined;
    before.end();
  }

  private open(): void {
    this.settle();
    for (let tries = 0; this.writer.handle < 0; tries++) {
      const { refused } = this.writer;
      const failed = refused === BlockStatus.storeFailed && (this.broken || this.hasBroken);
      if (tries > 3 || (refused !== undefined && !failed)) {
        this.fail(`the volume can't be opened: ${refused}`);
      }
      if (refused !== undefined) {
        this.writer.end();
        this.writer = this.newWriter();
      }
      this.settle();
    }
  }

  /** What survived: a state that was there at one instant, not before what had to. */
  private check(): void {
    const kept = this.live.some((_, at) => this.intact.has(this.numbersOfLive[at]));
    const cut = new Cut(kept ? this.acknowledged : this.flushed);
    const stamps = this.compare();
    for (const sector of this.model.sectors) {
      const wrong = cut.observe(this.model, sector, stamps[sector]);
      if (wrong !== undefined) this.fail(`after the writer's end, sector ${sector} ${wrong}`);
    }
    this.flushed = this.operation;
    this.acknowledged = this.operation;
    for (const number of this.numbersOfLive) this.intact.add(number);
  }

  private get numbersOfLive(): number[] {
    return [0, 1].filter((number) => !this.stale.has(number));
  }

  /** All live members read alike; what they read. */
  private compare(): Int32Array {
    const [first, ...others] = this.live.map((member) => member.stamps(volumeSectors));
    this.counts.comparedAlike += others.length;
    for (const other of others) {
      for (let sector = 0; sector < volumeSectors; sector++) {
        if (first[sector] !== other[sector]) {
          this.fail(
            `sector ${sector} reads ${first[sector]} on one member and ${other[sector]} on another`,
          );
        }
      }
    }
    return first;
  }

  private fail(what: string): never {
    const text = `seed ${this.options.seed}, group, step ${this.step}: ${what}`;
    throw new SimFailure(text, this.step);
  }
}
