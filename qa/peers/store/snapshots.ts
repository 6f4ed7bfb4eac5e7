/** `snapshots`: what one costs to take, to clone and to delete, by what is written and what it frees. */
import { randomUUID } from "node:crypto";
import { join } from "node:path";
import { Random } from "#lib/sim/random.ts";
import type { Lineage, Snapshot } from "#services/chunk-store/engine/lineages.ts";
import { blockBytes } from "#services/chunk-store/limits.ts";
import { median } from "../measure.ts";
import {
  alone,
  type Comparison,
  type ComparisonOptions,
  type Figure,
  inTurn,
  versus,
} from "./comparison.ts";
import type { ScaledDisk } from "./disks.ts";
import { Engine } from "./engine.ts";
import { loadPattern, scaledDisk, writeBlocks } from "./scaled.ts";

const volumeBytes = 64 * 2 ** 30;
const deviceBytes = 80 * 2 ** 30;
const volumeBlocks = volumeBytes / blockBytes;
const depth = 32;
const written = [10_000, 100_000, 1_000_000] as const;
/** Of one round: the device's flushes differ by more than what is looked for. */
const repetitions = 24;
const snapshots = 1000;
/** Blocks that the deletion of one frees. */
const freed = [10, 100, 1000, 10_000, 100_000] as const;
/** Of each other of the 1,000. */
const usuallyFreed = 64;

export const snapshotCosts: Comparison = {
  name: "snapshots",
  needBytes: () => 4 * 2 ** 30,
  method: [
    "A volume of 64 GiB with 10,000, 100,000 and 1,000,000 blocks written at random places; data is one bit a block in the benchmark's memory, log, map and device flushes are real.",
    `take, clone: 32 overwrites, then a snapshot, or a clone of one, and the flush that makes it durable; less the same without either. over 10,000: the snapshot alone. A round is the median of ${repetitions}.`,
    `delete: of ${snapshots} snapshots of the volume with 1,000,000 blocks, between two of which some blocks were overwritten, one that alone keeps 10 to 100,000: processor time of all threads until its blocks are free.`,
  ],
  run: measureSnapshots,
};

async function measureSnapshots(options: ComparisonOptions): Promise<Figure[]> {
  const figures: Figure[] = [];
  const takes: number[][] = [];
  const deletions: Figure[] = [];
  for (const blocks of written) {
    const disk = scaledDisk(join(options.directory, `store-${blocks}`), deviceBytes);
    try {
      const bench = new Bench(disk, options);
      bench.write(blocks);
      const { flush, take, clone } = await bench.takes(blocks);
      takes.push(bench.takesAlone());
      const less = (values: number[]) => values.map((value, round) => value - flush[round]);
      const name = `${blocks.toLocaleString("en")} blocks`;
      figures.push(alone(`take with ${name}, over a flush`, "ms", less(take), { atMost: 3 }));
      figures.push(alone(`clone with ${name}, over a flush`, "ms", less(clone), { atMost: 3 }));
      if (blocks === written[2]) deletions.push(...bench.deletions());
      bench.end();
    } finally {
      disk.end();
    }
  }
  const more = takes[2].map((value, round) => value - takes[0][round]);
  const flat = "take with 1,000,000 blocks, over 10,000, no flush";
  return [...figures, alone(flat, "ms", more, { atMost: 0.1 }), ...deletions];
}

class Bench {
  private readonly disk: ScaledDisk;
  private readonly options: ComparisonOptions;
  private readonly engine: Engine;
  private readonly lineage: Lineage;
  private readonly random = new Random(6);

  constructor(disk: ScaledDisk, options: ComparisonOptions) {
    this.disk = disk;
    this.options = options;
    this.engine = Engine.create({ file: disk.file, disk }, volumeBytes);
    loadPattern(this.engine, disk);
    [this.lineage] = this.engine.store.lineages.byUuid.values();
  }

  write(blocks: number): void {
    this.options.progress(`writing ${blocks} blocks`);
    writeBlocks(this.engine, depth, blocks, this.anywhere);
  }

  /** Milliseconds, by round, of 32 overwrites with what follows them. */
  async takes(blocks: number): Promise<Record<"flush" | "take" | "clone", number[]>> {
    const { store } = this.engine;
    const origin = this.take();
    // What was written before is not this measurement's to write back.
    this.disk.file.flushSync();
    this.disk.skipFlushes = false;
    const values = await inTurn(this.options, `ms at ${blocks} blocks`, {
      flush: () => this.timeAfterWrites(() => undefined),
      take: () => this.timeAfterWrites(() => this.take()),
      clone: () =>
        this.timeAfterWrites(() => store.createVolume(randomUUID(), volumeBytes, origin)),
    });
    this.engine.settle();
    this.disk.skipFlushes = true;
    return values;
  }

  /** Milliseconds, by round, of a snapshot that nobody waits for to be durable. */
  takesAlone(): number[] {
    return Array.from({ length: this.options.rounds }, () =>
      this.medianAfterWrites(() => {
        const started = performance.now();
        this.take();
        return performance.now() - started;
      }),
    );
  }

  /** One for each of `freed`, a round each; and what a block costs. */
  deletions(): Figure[] {
    const { progress } = this.options;
    progress(`taking ${snapshots} snapshots`);
    const kept = this.takeMany();
    const costs = freed.map((blocks) => {
      const ms = kept.get(blocks)!.map((snapshot) => this.delete(snapshot, blocks));
      progress(`delete, ${blocks} freed: ${ms.map((each) => each.toFixed(3)).join(", ")} ms`);
      return ms;
    });
    const each = freed.map((blocks, i) => alone(`delete, ${blocks} blocks freed`, "ms", costs[i]));
    const perBlock = (i: number) => costs[i].map((ms) => (ms / freed[i]) * 1000);
    const last = freed.length - 1;
    const name = `delete, a block of ${freed[last]} freed to one of ${freed[last - 2]}`;
    return [...each, versus(name, "us", perBlock(last), perBlock(last - 2), { atMost: 1.5 })];
  }

  end(): void {
    this.engine.drop();
  }

  /** By what each frees, `rounds` of each of `freed`, among others. */
  private takeMany(): Map<number, Snapshot[]> {
    const kept = new Map<number, Snapshot[]>(freed.map((blocks) => [blocks, []]));
    const special = freed.flatMap((blocks) => Array<number>(this.options.rounds).fill(blocks));
    const every = Math.floor(snapshots / special.length);
    let before: number[] = [];
    for (let i = 0; i < snapshots; i++) {
      const blocks = i % every === 0 ? (special[i / every] ?? usuallyFreed) : usuallyFreed;
      // Written before it and again after it, and in no other: these blocks it keeps alone.
      const own = this.places(blocks);
      this.overwrite([...before, ...own]);
      const snapshot = this.take();
      if (blocks !== usuallyFreed) kept.get(blocks)!.push(snapshot);
      before = own;
    }
    this.overwrite(before);
    return kept;
  }

  /** Milliseconds of processor time. */
  private delete(snapshot: Snapshot, blocks: number): number {
    const { engine } = this;
    engine.flush();
    const used = engine.store.space().used;
    const before = process.cpuUsage();
    engine.store.deleteSnapshot(snapshot);
    engine.freeDeleted();
    const { user, system } = process.cpuUsage(before);
    const gone = used - engine.store.space().used;
    if (gone !== blocks) throw new Error(`A snapshot that keeps ${blocks} blocks freed ${gone}.`);
    return (user + system) / 1000;
  }

  private take(): Snapshot {
    const wanted = [{ lineage: this.lineage, uuid: randomUUID() }];
    return this.engine.store.createSnapshots(wanted, Date.now())[0];
  }

  private timeAfterWrites(then: () => unknown): number {
    return this.medianAfterWrites(() => {
      const started = performance.now();
      then();
      this.engine.flush();
      return performance.now() - started;
    });
  }

  private medianAfterWrites(time: () => number): number {
    const times = Array.from({ length: repetitions }, () => {
      this.overwrite(this.places(depth));
      return time();
    });
    return median(times);
  }

  private overwrite(places: readonly number[]): void {
    this.engine.shape("write", blockBytes, 1);
    for (const place of places) {
      this.engine.aim(0, place);
      this.engine.execute();
    }
  }

  private readonly anywhere = () => this.random.below(volumeBlocks) * blockBytes;

  /** All different. */
  private places(count: number): number[] {
    const places = new Set<number>();
    while (places.size < count) places.add(this.anywhere());
    return [...places];
  }
}
