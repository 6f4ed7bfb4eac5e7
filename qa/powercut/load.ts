/**
 * A verified load on one volume. Each worker owns blocks of its own and writes them one request at a
 * time, so that their versions have an order; flushes run beside them. After a power cut every
 * sector must read a version not older than the last one that a finished flush covers.
 */
import { Random } from "#lib/sim/random.ts";
import { BlockOp, BlockStatus } from "#lib/volume/block.ts";
import type { NbdVolume } from "#services/chunk-store/nbd-volume.ts";

const blockBytes = 4096;
const sectorBytes = 512;
const sectorsPerBlock = 8;
/** Blocks of a worker; the last quarter of them is written in sectors, the rest in whole blocks. */
const workerBlocks = 256;

interface SectorHistory {
  /** Stamps, oldest first; the last may not have been acknowledged. */
  versions: number[];
  acknowledged: number;
  flushed: number;
}

export interface LoadCounts {
  writes: number;
  flushes: number;
  lost: number;
  torn: number;
  foreign: number;
}

export class Load {
  readonly counts: LoadCounts = { writes: 0, flushes: 0, lost: 0, torn: 0, foreign: 0 };
  private readonly sectors: SectorHistory[];
  private readonly workers: number;
  private stamp = 0;
  private stopping = false;
  private firstProblem: string | undefined;

  constructor(workers: number) {
    this.workers = workers;
    const count = workers * workerBlocks * sectorsPerBlock;
    this.sectors = Array.from({ length: count }, () => ({
      versions: [0],
      acknowledged: 0,
      flushed: 0,
    }));
  }

  get sizeBytes(): number {
    return this.sectors.length * sectorBytes;
  }

  get problem(): string | undefined {
    return this.firstProblem;
  }

  /** Writes until `stop`; ends quietly when the store goes away. */
  async run(volume: NbdVolume, random: Random): Promise<void> {
    this.stopping = false;
    const seeds = Array.from({ length: this.workers + 1 }, () => random.next());
    const flusher = this.flushLoop(volume, new Random(seeds[this.workers]));
    const workers = Array.from({ length: this.workers }, (_, worker) =>
      this.writeLoop(volume, worker, new Random(seeds[worker])),
    );
    await Promise.all([flusher, ...workers]);
  }

  stop(): void {
    this.stopping = true;
  }

  private async writeLoop(volume: NbdVolume, worker: number, random: Random): Promise<void> {
    const first = worker * workerBlocks;
    const split = Math.floor(workerBlocks * 0.75);
    while (!this.stopping) {
      const inSectors = random.oneIn(4);
      const block = inSectors
        ? first + split + random.below(workerBlocks - split)
        : first + random.below(split);
      let sector = block * sectorsPerBlock;
      let count = sectorsPerBlock;
      if (inSectors) {
        sector += random.below(sectorsPerBlock);
        count = 1 + random.below(sectorsPerBlock - (sector % sectorsPerBlock));
      } else if (random.oneIn(4)) {
        count *= 1 + random.below(Math.min(16, first + split - block));
      }
      const zeroes = !inSectors && random.oneIn(8);
      const stamp = zeroes ? 0 : ++this.stamp;
      const versions: number[] = [];
      for (let i = 0; i < count; i++) {
        versions.push(this.sectors[sector + i].versions.push(stamp) - 1);
      }
      const status = zeroes
        ? await volume.zero(
            BlockOp.discard,
            sector * sectorBytes,
            count * sectorBytes,
            random.oneIn(8),
          )
        : await volume.write(
            sector * sectorBytes,
            stampedBytes(sector, count, stamp),
            random.oneIn(16),
          );
      if (status !== BlockStatus.ok) return;
      this.counts.writes++;
      versions.forEach((version, i) => {
        this.sectors[sector + i].acknowledged = version;
      });
    }
  }

  private async flushLoop(volume: NbdVolume, random: Random): Promise<void> {
    while (!this.stopping) {
      await new Promise((resolve) => setTimeout(resolve, 1 + random.below(30)));
      const covered = this.sectors.map(({ acknowledged }) => acknowledged);
      if ((await volume.flush()) !== BlockStatus.ok) return;
      this.counts.flushes++;
      this.sectors.forEach((history, i) => {
        history.flushed = Math.max(history.flushed, covered[i]);
      });
    }
  }

  /** Reads everything back; what is read becomes the only version. */
  async verify(volume: NbdVolume): Promise<void> {
    const chunk = new Uint8Array(workerBlocks * blockBytes);
    for (let worker = 0; worker < this.workers; worker++) {
      const status = await volume.read(worker * chunk.length, chunk);
      if (status !== BlockStatus.ok) {
        this.counts.torn++;
        this.firstProblem ??= `the blocks of worker ${worker} do not read: status ${status}`;
        return;
      }
      for (let block = 0; block < workerBlocks; block++) {
        this.verifyBlock(chunk, block * blockBytes, (worker * workerBlocks + block) * 8);
        const whole = block < workerBlocks * 0.75;
        if (whole) this.verifyWhole(chunk, block * blockBytes, worker * workerBlocks + block);
      }
    }
  }

  private verifyBlock(bytes: Uint8Array, at: number, firstSector: number): void {
    for (let i = 0; i < sectorsPerBlock; i++) {
      const history = this.sectors[firstSector + i];
      const stamp = readStamp(bytes, at + i * sectorBytes, firstSector + i);
      const allowed = history.versions.slice(history.flushed);
      if (!allowed.includes(stamp)) {
        if (stamp < 0) this.counts.torn++;
        else if (history.versions.includes(stamp)) this.counts.lost++;
        else this.counts.foreign++;
        this.firstProblem ??= `sector ${firstSector + i} reads ${stamp}, and may read ${allowed.join(", ")}`;
      }
      this.sectors[firstSector + i] = { versions: [stamp], acknowledged: 0, flushed: 0 };
    }
  }

  /** A block that is only ever written whole is never of two writes. */
  private verifyWhole(bytes: Uint8Array, at: number, block: number): void {
    const stamps = Array.from({ length: sectorsPerBlock }, (_, i) =>
      readStamp(bytes, at + i * sectorBytes, block * sectorsPerBlock + i),
    );
    if (stamps.every((stamp) => stamp === stamps[0])) return;
    this.counts.torn++;
    this.firstProblem ??= `block ${block} is torn: ${stamps.join(", ")}`;
  }
}

function stampedBytes(sector: number, count: number, stamp: number): Uint8Array {
  const words = new Uint32Array((count * sectorBytes) / 4);
  for (let i = 0; i < words.length; i += 2) {
    words[i] = stamp;
    words[i + 1] = sector + Math.floor(i / 128);
  }
  return new Uint8Array(words.buffer);
}

/** The stamp that fills the sector, or -1 if it isn't one whole write of this very sector. */
function readStamp(bytes: Uint8Array, at: number, sector: number): number {
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset + at, sectorBytes / 4);
  const [stamp] = words;
  for (let i = 0; i < words.length; i += 2) {
    if (words[i] !== stamp || words[i + 1] !== (stamp === 0 ? 0 : sector)) return -1;
  }
  return stamp;
}
