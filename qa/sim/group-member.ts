/**
 * One member of a simulated group: a real store on a simulated disk, and the connections to it,
 * which carry the real protocol byte by byte and may be cut at any moment.
 */
import { type CutKind, PowerCut, SimDisk } from "#lib/sim/disk.ts";
import type { Random } from "#lib/sim/random.ts";
import { BlockOp, BlockStatus } from "#lib/volume/block.ts";
import { batchCapacity, createBatch } from "#lib/volume/executor.ts";
import type { InlineSocket, Surroundings } from "#lib/volume/inline-port.ts";
import { InlineConnection } from "#lib/volume/inline-session.ts";
import { formatStore, mountStore } from "#services/chunk-store/engine/mount.ts";
import type { Store } from "#services/chunk-store/engine/store.ts";
import { StoreExecutor } from "#services/chunk-store/executor.ts";
import { checksum } from "#services/chunk-store/file-disk.ts";
import { blockBytes, sectorsPerBlock } from "#services/chunk-store/limits.ts";
import { readStamp } from "./stamps.ts";

const pool = "11111111-2222-3333-4444-555555555555";
const storeId = "66666666-7777-8888-9999-aaaaaaaaaaaa";

/** Of blocks, for what checks both members: of all groups of a lane, since they take turns. */
const reads = createBatch();
reads.payload = new Uint8Array(batchCapacity * blockBytes);
reads.op.fill(BlockOp.read);
reads.lengthBytes.fill(blockBytes);

export class SimMember {
  readonly disk: SimDisk;
  store!: Store;
  /** Undefined while the process is down. */
  executor: StoreExecutor | undefined;
  readonly links = new Set<SimLink>();
  private readonly random: Random;

  constructor(random: Random, sizeBytes: number, volume: string, volumeBytes: number) {
    this.random = random;
    this.disk = new SimDisk(sizeBytes, random, (bytes) => checksum(bytes, 0, bytes.length));
    formatStore(this.disk, { device: "sim", pool, store: storeId, nowMs: 0, checksum });
    this.start();
    this.store.createVolume(volume, volumeBytes, null);
    this.store.flushSync();
  }

  start(): void {
    this.store = mountStore(this.disk, { device: "sim", checksum, memoryBytes: 0, pool });
    this.store.idlePages = 1 + this.random.below(8);
    const files = { wakeFd: -1, bind() {}, reap() {} };
    this.executor = new StoreExecutor(this.store, files);
  }

  /** The process dies, or the power goes; with it all connections. */
  crash(power: CutKind | undefined): void {
    this.executor = undefined;
    if (power === undefined) this.disk.killProcess();
    else this.disk.cutPower(power);
    this.disk.failNextFlush = false;
    this.disk.crashAt = Number.POSITIVE_INFINITY;
    for (const link of [...this.links]) link.cut();
  }

  /** A turn of its loop, or a flush that ends. True if the process died of it. */
  turn(): boolean {
    return this.dies(() => {
      if (this.random.oneIn(2)) this.disk.finishFlush();
      this.executor?.turn();
    });
  }

  /** What the store does; true if its process died in the middle. */
  dies(run: () => void): boolean {
    try {
      run();
      return false;
    } catch (error) {
      if (error instanceof PowerCut) return true;
      throw error;
    }
  }

  /** Stamps of all sectors below `end`, past all protocols. */
  stamps(end: number): Int32Array {
    const executor = this.executor!;
    const opened = executor.open([...this.store.lineages.byUuid.keys()][0] as never);
    if (typeof opened === "number") throw new Error(`it does not open: ${opened}`);
    const stamps = new Int32Array(end);
    const batch = reads;
    batch.volume.fill(opened.volume);
    for (let first = 0; first < end; first += batchCapacity * sectorsPerBlock) {
      batch.count = Math.min(batchCapacity, Math.ceil((end - first) / sectorsPerBlock));
      for (let row = 0; row < batch.count; row++) {
        batch.sector[row] = first + row * sectorsPerBlock;
        batch.payloadOffset[row] = row * blockBytes;
      }
      executor.execute(batch);
      for (let sector = first; sector < Math.min(end, first + batch.count * 8); sector++) {
        const row = Math.floor((sector - first) / sectorsPerBlock);
        const good = batch.status[row] === BlockStatus.ok;
        stamps[sector] = good ? readStamp(batch.payload, (sector - first) * 512, sector) : -2;
      }
    }
    executor.close(opened.volume);
    return stamps;
  }

  /** A gateway's way to this member. */
  surroundings(timers: (() => void)[]): Surroundings {
    return {
      connect: () => new SimLink(this),
      later(run) {
        timers.push(run);
        return () => {
          const at = timers.indexOf(run);
          if (at >= 0) timers.splice(at, 1);
        };
      },
    };
  }
}

interface Listeners {
  connect: () => void;
  close: () => void;
  data: (chunk: Uint8Array) => void;
  error: (error: Error) => void;
}

/** One connection: chunks on their way, in both directions, each in its order. */
export class SimLink implements InlineSocket {
  private readonly member: SimMember;
  private readonly listeners: Partial<Listeners> = {};
  private state: "connecting" | "open" | "cut" | "ended" = "connecting";
  private toStore: Uint8Array[] = [];
  private toGateway: Uint8Array[] = [];
  private connection: InlineConnection | undefined;

  constructor(member: SimMember) {
    this.member = member;
    member.links.add(this);
  }

  on(event: keyof Listeners, listener: Listeners[keyof Listeners]): void {
    Object.assign(this.listeners, { [event]: listener });
  }

  write(bytes: Uint8Array): void {
    // A socket copies: the caller's buffer is its own again.
    if (this.state === "open") this.toStore.push(bytes.slice());
  }

  destroy(): void {
    this.cut();
  }

  /** What is on its way in either direction is lost. */
  cut(): void {
    if (this.state === "cut" || this.state === "ended") return;
    this.state = "cut";
    this.toStore = [];
    this.toGateway = [];
    this.connection?.end();
    this.connection = undefined;
  }

  get quiet(): boolean {
    return this.state === "ended" || (this.state === "open" && this.pending === 0);
  }

  private get pending(): number {
    return this.toStore.length + this.toGateway.length;
  }

  /** One thing that happens on it; `part`: a chunk comes in two pieces. */
  step(towardsStore: boolean, part: number): void {
    if (this.state === "connecting") {
      if (this.member.executor === undefined) this.cut();
      else {
        this.state = "open";
        this.listeners.connect?.();
      }
    } else if (this.state === "cut") {
      this.state = "ended";
      this.member.links.delete(this);
      this.listeners.close?.();
    } else if (this.state === "open" && towardsStore) {
      const chunk = take(this.toStore, part);
      if (chunk !== undefined) this.received(chunk);
    } else if (this.state === "open") {
      const chunk = take(this.toGateway, part);
      if (chunk !== undefined) this.listeners.data?.(chunk);
    }
  }

  private received(chunk: Uint8Array): void {
    this.connection ??= new InlineConnection(
      this.member.executor!,
      (bytes) => this.send(bytes),
      () => this.cut(),
    );
    this.connection.received(chunk);
  }

  private send(bytes: Uint8Array): void {
    if (this.state === "open") this.toGateway.push(bytes.slice());
  }
}

function take(queue: Uint8Array[], part: number): Uint8Array | undefined {
  const chunk = queue.shift();
  if (chunk === undefined || part <= 0 || part >= chunk.length) return chunk;
  queue.unshift(chunk.subarray(part));
  return chunk.subarray(0, part);
}
