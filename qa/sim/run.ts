import { type CutKind, PowerCut, SimDisk } from "#lib/sim/disk.ts";
import { Random } from "#lib/sim/random.ts";
import { BlockOp, BlockStatus } from "#lib/volume/block.ts";
import { type BlockBatch, batchCapacity, createBatch } from "#lib/volume/executor.ts";
import { auditStore } from "#services/chunk-store/engine/audit.ts";
import { formatStore, mountStore } from "#services/chunk-store/engine/mount.ts";
import type { Store } from "#services/chunk-store/engine/store.ts";
import { Transfer } from "#services/chunk-store/engine/transfer.ts";
import { checksum } from "#services/chunk-store/file-disk.ts";
import { blockBytes, sectorsPerBlock } from "#services/chunk-store/limits.ts";
import { Cut, type VolumeModel } from "./model.ts";
import { type Life, Population, volumeBytes } from "./population.ts";
import { readStamp, writeStamp } from "./stamps.ts";

export interface SimOptions {
  readonly seed: number;
  readonly operations: number;
  /** Only these steps, in their order: each has random numbers of its own, whatever came before. */
  readonly steps?: readonly number[];
  /** Told what each step does. */
  readonly trace?: (step: number, what: string) => void;
}

export interface SimCounts {
  requests: number;
  reads: number;
  flushes: number;
  crashes: number;
  powerCuts: number;
  failedFlushes: number;
  crashesInMount: number;
  checkpoints: number;
  /** Crashes while a checkpoint's pages were being written. */
  crashesInCheckpoint: number;
  /** Crashes while changes of map pages were kept as deltas. */
  crashesWithDeltas: number;
  noSpace: number;
  clones: number;
  deletions: number;
  snapshots: number;
  reverts: number;
  comparisons: number;
}

/** The store broke its promise: what, and where in the run. */
export class SimFailure extends Error {
  override readonly name = "SimFailure";
  /** That was being done; past the last one when all was deleted in the end. */
  readonly step: number;

  constructor(message: string, step: number) {
    super(message);
    this.step = step;
  }
}

interface Request {
  readonly op: number;
  readonly model: VolumeModel;
  readonly sector: number;
  readonly sectors: number;
  /** Offset in the payload. */
  readonly at: number;
  readonly operation: number;
  readonly stamp: number;
}

const pool = "11111111-2222-3333-4444-555555555555";
const storeId = "66666666-7777-8888-9999-aaaaaaaaaaaa";
const payloadBytes = 4 * 2 ** 20;
/** After a crash every sector is read once in so many times. */
const wholeCheckOnceIn = 6;

export function simulate(options: SimOptions): SimCounts {
  const simulation = new Simulation(options);
  try {
    simulation.run();
  } catch (error) {
    if (error instanceof SimFailure) throw error;
    const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
    throw new SimFailure(`seed ${options.seed}: the store threw: ${text}`, simulation.step.at);
  }
  return simulation.counts;
}

class Simulation implements Life {
  readonly counts: SimCounts = {
    requests: 0,
    reads: 0,
    flushes: 0,
    crashes: 0,
    powerCuts: 0,
    failedFlushes: 0,
    crashesInMount: 0,
    checkpoints: 0,
    crashesInCheckpoint: 0,
    crashesWithDeltas: 0,
    noSpace: 0,
    clones: 0,
    deletions: 0,
    snapshots: 0,
    reverts: 0,
    comparisons: 0,
  };
  private readonly options: SimOptions;
  readonly random: Random;
  private readonly disk: SimDisk;
  private readonly batch: BlockBatch = createBatch();
  private readonly checks: BlockBatch = createBatch();
  store!: Store;
  private transfer!: Transfer;
  private readonly population = new Population(this);
  private operation = 0;
  private flushedOperation = 0;
  private acknowledged = 0;
  /** The batch that is being executed. */
  private running: readonly Request[] = [];
  private stamp = 0;
  private readonly chunks: number;
  /** Long writes fill the disk: in some lives only. */
  private readonly largeOnceIn: number;
  readonly step: { at: number } = { at: 0 };

  constructor(options: SimOptions) {
    this.options = options;
    this.random = new Random(options.seed);
    const sizes = [4, 6, 8, 16].map((mebibytes) => mebibytes * 2 ** 20);
    this.disk = new SimDisk(this.random.pick(sizes), this.random, (bytes) =>
      checksum(bytes, 0, bytes.length),
    );
    this.chunks = 1 + this.random.below(40);
    this.largeOnceIn = this.random.oneIn(6) ? 6 : 24;
    this.batch.payload = new Uint8Array(payloadBytes);
    this.checks.payload = new Uint8Array(batchCapacity * blockBytes);
  }

  run(): void {
    formatStore(this.disk, { device: "sim", pool, store: storeId, nowMs: 0, checksum });
    this.mount();
    const { seed, operations, steps } = this.options;
    for (const step of steps ?? stepsUpTo(operations)) {
      this.step.at = step;
      this.random.reseed(seed, step);
      if (this.random.oneIn(60)) {
        this.disk.crashAt = this.disk.calls + 1 + this.random.below(40);
      }
      try {
        this.act();
      } catch (error) {
        if (!(error instanceof PowerCut)) throw error;
        this.say("the power goes, or the process is killed, in the middle of it");
        this.crash();
      }
    }
    this.step.at = operations + 1;
    this.random.reseed(seed, operations + 1);
    this.disk.crashAt = Number.POSITIVE_INFINITY;
    this.say("everything is deleted");
    this.end();
  }

  private say(what: string): void {
    this.options.trace?.(this.step.at, what);
  }

  private act(): void {
    if (this.random.oneIn(400)) this.disk.failNextFlush = true;
    if (this.store.failure !== null) {
      this.counts.failedFlushes++;
      this.crash();
      return;
    }
    const choice = this.random.below(100);
    this.say(this.nameOf(choice));
    if (this.population.models.length === 0 || choice < 2) this.population.createVolume();
    else if (choice < 4) this.population.cloneVolume();
    else if (choice < 5) this.population.deleteOne();
    else if (choice < 7) this.population.snapshot();
    else if (choice < 8 && this.random.oneIn(2)) this.population.revert();
    else if (choice < 9) this.population.compare();
    else if (choice < 15) this.flush();
    else if (choice < 18) this.crash();
    else this.request();
    while (this.random.oneIn(3) && this.disk.finishFlush());
    if (this.random.oneIn(2)) this.store.turn();
  }

  private nameOf(choice: number): string {
    if (this.population.models.length === 0) return "create a volume";
    const names: [below: number, name: string][] = [
      [2, "create a volume"],
      [4, "clone a volume or snapshot"],
      [5, "delete a volume or snapshot"],
      [7, "take snapshots"],
      [8, "go back to a snapshot"],
      [9, "compare two states"],
      [15, "flush"],
      [18, "crash"],
    ];
    return names.find(([below]) => choice < below)?.[1] ?? "requests";
  }

  // ---- requests ----------------------------------------------------------------------------

  private request(): void {
    const { batch, random } = this;
    const count = 1 + random.below(random.oneIn(4) ? 24 : 6);
    const before = this.operation;
    const requests: Request[] = [];
    batch.count = 0;
    let at = 0;
    for (let row = 0; row < count; row++) {
      const number = random.below(this.population.models.length);
      const op = random.pick([
        BlockOp.read,
        BlockOp.write,
        BlockOp.write,
        BlockOp.write,
        random.oneIn(2) ? BlockOp.discard : BlockOp.writeZeroes,
      ]);
      const { sector, sectors } = this.place(op);
      const carries = op === BlockOp.read || op === BlockOp.write;
      if (carries && at + sectors * 512 > payloadBytes) break;
      batch.op[row] = op;
      batch.volume[row] = number;
      batch.sector[row] = sector;
      batch.lengthBytes[row] = sectors * 512;
      batch.payloadOffset[row] = at;
      batch.count++;
      const operation = ++this.operation;
      const stamp = op === BlockOp.write ? ++this.stamp : 0;
      const request = {
        op,
        model: this.population.models[number],
        sector,
        sectors,
        at,
        operation,
        stamp,
      };
      requests.push(request);
      if (carries) at += sectors * 512;
      if (op === BlockOp.write) {
        for (let i = 0; i < sectors; i++) {
          writeStamp(batch.payload, request.at + i * 512, sector + i, stamp);
        }
      }
      // The power may go while it runs: the model must know of it before.
      this.record(request);
    }
    this.counts.requests += requests.length;
    this.running = requests;
    if (this.options.trace !== undefined) this.say(requests.map(describeRequest).join("; "));
    batch.status.fill(BlockStatus.ok);
    this.transfer.execute(batch, this.population.views);
    if (this.store.failure !== null) return;
    this.running = [];
    this.verify(requests, before);
  }

  private record({ op, model, sector, sectors, stamp, operation }: Request): void {
    if (op === BlockOp.read || model.sealed) return;
    for (let i = 0; i < sectors; i++) {
      if (stamp !== 0 || model.has(sector + i)) model.write(sector + i, stamp, operation);
    }
  }

  /** Compares the answers of a batch with the model; what was refused did not happen. */
  private verify(requests: readonly Request[], before: number): void {
    const { batch } = this;
    const refused = requests.some(
      ({ op, model }, row) =>
        op !== BlockOp.read && !model.sealed && batch.status[row] === BlockStatus.noSpace,
    );
    if (refused) this.redo(requests, before);
    else for (const [row, request] of requests.entries()) this.verifyOne(request, row);
    this.acknowledged = this.operation;
  }

  /** Of a request that was not refused: a read sees what was done before it, in the same batch too. */
  private verifyOne(request: Request, row: number): void {
    const { op, model, sector, sectors, at, operation } = request;
    if (op !== BlockOp.read && model.sealed) {
      const status = this.batch.status[row];
      if (status !== BlockStatus.readOnly) this.fail("a sealed volume was written");
      return;
    }
    this.requireStatus(row, model);
    if (op !== BlockOp.read) return;
    this.counts.reads++;
    for (let i = 0; i < sectors; i++) {
      const found = readStamp(this.batch.payload, at + i * 512, sector + i);
      const stamp = model.expectedAt(sector + i, operation);
      if (found !== stamp) {
        this.fail(`sector ${sector + i} of ${model.uuid} reads ${found}, not ${stamp}`);
      }
    }
  }

  /** Takes the batch back, and does again what of it was not refused. */
  private redo(requests: readonly Request[], before: number): void {
    const { batch } = this;
    for (const { model, sector, sectors } of requests) {
      for (let i = 0; i < sectors; i++) model.undo(sector + i, before);
    }
    const unsure: Request[] = [];
    requests.forEach((request, row) => {
      const { op, model } = request;
      if (op !== BlockOp.read && !model.sealed && batch.status[row] === BlockStatus.noSpace) {
        this.counts.noSpace++;
        if (op !== BlockOp.write) unsure.push(request);
      } else if (op !== BlockOp.read || unsure.length === 0) {
        this.verifyOne(request, row);
        this.record(request);
      } else {
        this.requireStatus(row, model);
        this.counts.reads++;
      }
    });
    // A discard on a full store may be done in part.
    for (const { model, sector, sectors, operation } of unsure) {
      for (let i = 0; i < sectors; i++) {
        if (!model.has(sector + i)) continue;
        const found = this.readNow(model, sector + i);
        const expected = model.expected(sector + i);
        if (found !== expected && found !== 0) this.fail(`a discard left ${found}`);
        if (found !== expected) model.write(sector + i, found, operation);
      }
    }
  }

  private place(op: number): { sector: number; sectors: number } {
    const { random } = this;
    const chunk = random.below(this.chunks);
    const block = random.oneIn(4) ? random.below(256) : random.below(6);
    let sector = (chunk * 256 + block) * sectorsPerBlock;
    let sectors = sectorsPerBlock * (random.oneIn(this.largeOnceIn) ? 1 + random.below(120) : 1);
    if (random.oneIn(4)) {
      sector += random.below(sectorsPerBlock);
      sectors = 1 + random.below(20);
    }
    if ((op === BlockOp.discard || op === BlockOp.writeZeroes) && random.oneIn(3)) {
      sector = chunk * 256 * sectorsPerBlock;
      sectors = 256 * sectorsPerBlock * (1 + random.below(2));
    }
    return { sector, sectors: Math.min(sectors, volumeBytes / 512 - sector) };
  }

  private requireStatus(row: number, model: VolumeModel): void {
    const status = this.batch.status[row];
    if (status !== BlockStatus.ok) this.fail(`a request on ${model.uuid} ended with ${status}`);
  }

  private readNow(model: VolumeModel, sector: number): number {
    return this.readSectors(model, [sector])[0];
  }

  /** Stamps of single sectors, in order; each must be readable. A block is read once for all of its own. */
  private readSectors(model: VolumeModel, sectors: readonly number[]): number[] {
    const { checks } = this;
    const stamps: number[] = [];
    for (let first = 0; first < sectors.length; ) {
      let end = first;
      checks.count = 0;
      for (; end < sectors.length; end++) {
        const block = Math.floor(sectors[end] / sectorsPerBlock);
        const row = checks.count - 1;
        if (row >= 0 && checks.sector[row] === block * sectorsPerBlock) continue;
        if (checks.count === batchCapacity) break;
        checks.sector[checks.count] = block * sectorsPerBlock;
        checks.payloadOffset[checks.count] = checks.count * blockBytes;
        checks.count++;
      }
      checks.op.fill(BlockOp.read);
      checks.volume.fill(this.population.models.indexOf(model));
      checks.lengthBytes.fill(blockBytes);
      this.transfer.execute(checks, this.population.views);
      for (let row = 0; row < checks.count; row++) {
        const block = checks.sector[row];
        if (checks.status[row] !== BlockStatus.ok) {
          this.fail(
            `the block of sector ${block} of ${model.uuid} does not read: status ${checks.status[row]}`,
          );
        }
        for (; first < end && sectors[first] < block + sectorsPerBlock; first++) {
          const at = row * blockBytes + (sectors[first] - block) * 512;
          stamps.push(readStamp(checks.payload, at, sectors[first]));
        }
      }
    }
    return stamps;
  }

  /** Starts a flush; what it covers counts as flushed once it has called back. */
  private flush(): void {
    const covered = this.operation;
    this.counts.flushes++;
    this.store.flush((ok) => {
      if (!ok || covered <= this.flushedOperation) return;
      this.flushedOperation = covered;
      for (const model of this.population.models) model.flushed(covered);
    });
  }

  /** Flushes, and waits; false if the store retired. */
  flushNow(): boolean {
    let answer: boolean | undefined;
    const covered = this.operation;
    this.store.flush((ok) => {
      answer = ok;
      if (!ok || covered <= this.flushedOperation) return;
      this.flushedOperation = covered;
      for (const model of this.population.models) model.flushed(covered);
    });
    for (let i = 0; i < 100 && answer === undefined; i++) {
      this.disk.finishFlush();
      this.store.turn();
    }
    if (answer === undefined) this.fail("a flush never finished");
    return answer === true;
  }

  // ---- crashes -----------------------------------------------------------------------------

  private crash(): void {
    const { random } = this;
    this.counts.crashes++;
    this.counts.checkpoints += this.store.checkpoints;
    if (this.store.checkpoint?.stage === "pages") this.counts.crashesInCheckpoint++;
    if (this.store.cache.deltas.count > 0) this.counts.crashesWithDeltas++;
    const failed = this.store.failure !== null;
    this.forgetRefused();
    let power = failed || random.oneIn(2);
    if (power) {
      this.counts.powerCuts++;
      this.disk.cutPower(random.pick<CutKind>(["nothing", "everything", "any", "any", "any"]));
    } else this.disk.killProcess();
    // A killed process loses nothing acknowledged; only the request it was in may be in part.
    this.disk.failNextFlush = false;
    for (;;) {
      if (random.oneIn(4)) this.disk.crashAt = this.disk.calls + 1 + random.below(6);
      try {
        this.mount();
        break;
      } catch (error) {
        if (!(error instanceof PowerCut)) throw error;
        this.counts.crashesInMount++;
        if (random.oneIn(2)) {
          this.disk.cutPower("any");
          power = true;
        } else this.disk.killProcess();
      }
    }
    this.disk.crashAt = Number.POSITIVE_INFINITY;
    this.population.match();
    this.check(power, random.oneIn(wholeCheckOnceIn));
  }

  /** What the interrupted batch had refused did not happen; a discard may have, in part. */
  private forgetRefused(): void {
    // A store that retired has answered so to all: which of them it had refused is not known.
    const retired = this.store.failure !== null;
    this.running.forEach(({ op, model, sector, sectors, operation }, row) => {
      if (op === BlockOp.read) return;
      if (!retired && this.batch.status[row] !== BlockStatus.noSpace) return;
      for (let i = 0; i < sectors; i++) {
        if (op === BlockOp.write && !retired) model.drop(sector + i, operation);
        else model.doubt(sector + i, operation);
      }
    });
    this.running = [];
  }

  private mount(): void {
    this.store = mountStore(this.disk, {
      device: "sim",
      checksum,
      memoryBytes: 0,
      pool,
    });
    // So that requests and crashes come between.
    this.store.idlePages = 1 + this.random.below(8);
    this.transfer = new Transfer(this.store);
    this.audit();
  }

  private audit(): void {
    const problems = auditStore(this.store);
    if (problems.length > 0) this.fail(`after a mount: ${problems.slice(0, 3).join("; ")}`);
  }

  /**
   * What the crash had to decide, always; what no crash takes away, now and then and at the end: it
   * is most of what there is, and what is lost stays lost.
   */
  private check(power: boolean, whole: boolean): void {
    // After a mere kill everything acknowledged is there.
    const cut = new Cut(power ? this.flushedOperation : this.acknowledged);
    for (const model of this.population.models) {
      const sectors = whole ? model.sectors : model.undecided();
      const stamps = this.readSectors(model, sectors);
      for (let i = 0; i < stamps.length; i++) {
        const wrong = cut.observe(model, sectors[i], stamps[i]);
        if (wrong === undefined) continue;
        const kind = power ? "power cut" : "kill";
        this.fail(`after a ${kind}, sector ${sectors[i]} of ${model.uuid} ${wrong}`);
      }
    }
    this.flushedOperation = this.operation;
    this.acknowledged = this.operation;
  }

  /** Everything deleted: every block is free again, but for what the format itself takes. */
  private end(): void {
    this.disk.failNextFlush = false;
    if (this.store.failure !== null) this.crash();
    this.disk.crashAt = Number.POSITIVE_INFINITY;
    for (const model of this.population.models) {
      const { sectors } = model;
      this.readSectors(model, sectors).forEach((stamp, i) => {
        if (stamp !== model.expected(sectors[i])) {
          this.fail(`at the end, sector ${sectors[i]} of ${model.uuid} is wrong`);
        }
      });
    }
    this.population.removeAll();
    for (let i = 0; i < 5000 && (this.store.turn() === 0 || this.disk.finishFlush()); i++);
    this.store.shutdown();
    this.counts.checkpoints += this.store.checkpoints;
    this.mount();
    const space = this.store.space();
    if (space.used !== 0 || this.store.lineages.byNumber.size !== 0) {
      this.fail(`everything is deleted, and ${space.used} blocks are in use`);
    }
    const metadata = space.metadata - this.store.superblock.logBlocks - 2;
    if (metadata > 8) this.fail(`an empty store keeps ${metadata} blocks of metadata`);
  }

  fail(what: string): never {
    const { at } = this.step;
    throw new SimFailure(`seed ${this.options.seed}, step ${at}: ${what}`, at);
  }
}

function* stepsUpTo(last: number): Generator<number> {
  for (let step = 1; step <= last; step++) yield step;
}

function describeRequest({ op, model, sector, sectors, stamp }: Request): string {
  const name = Object.entries(BlockOp).find(([, value]) => value === op)?.[0] ?? String(op);
  const written = stamp === 0 ? "" : ` as ${stamp}`;
  return `${name} ${sectors} at ${sector} of ${model.uuid.slice(-4)}${written}`;
}
