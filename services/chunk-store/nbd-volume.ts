/** One volume as promises, over the ring socket: what an NBD connection needs. */
import type { VolumeId } from "#lib/model/ids.ts";
import {
  BlockFlag,
  BlockOp,
  BlockStatus,
  maxRequestBytes,
  type OpenVolume,
  sectorBytes,
} from "#lib/volume/block.ts";
import { InlinePort } from "#lib/volume/inline-port.ts";

const payloadBytes = 16 << 20;

export class NbdVolume {
  private readonly port: InlinePort;
  private readonly done = new Map<number, (status: BlockStatus) => void>();
  private nextTag = 0;
  /** Those who wait for payload or for a free row. */
  private waiting: (() => void)[] = [];
  private volume: OpenVolume | undefined;
  private closed = false;

  private constructor(ringPath: string) {
    this.port = new InlinePort({ path: ringPath, payloadBytes, onReady: () => this.reap() });
  }

  /** The open volume, or why the store refuses. */
  static async open(ringPath: string, id: VolumeId): Promise<NbdVolume | BlockStatus> {
    const volume = new NbdVolume(ringPath);
    const result = await new Promise<OpenVolume | BlockStatus>((resolve) => {
      volume.port.open(id, resolve);
      volume.port.kick();
    });
    if (typeof result === "object") {
      volume.volume = result;
      return volume;
    }
    volume.port.end();
    return result;
  }

  get sizeBytes(): number {
    return this.volume!.sizeBytes;
  }

  get readOnly(): boolean {
    return this.volume!.readOnly;
  }

  /** What is under way, or comes later, ends with `storeFailed`. */
  close(): void {
    this.closed = true;
    this.port.close(this.volume!.handle);
    this.port.end();
    for (const done of this.done.values()) done(BlockStatus.storeFailed);
    this.done.clear();
    for (const wake of this.waiting.splice(0)) wake();
  }

  async read(offset: number, into: Uint8Array): Promise<BlockStatus> {
    for (let at = 0; at < into.length; ) {
      const length = Math.min(maxRequestBytes, into.length - at);
      const payload = await this.allocate(length);
      const status = await this.submit(BlockOp.read, offset + at, length, payload, 0);
      if (status === BlockStatus.ok) {
        into.set(this.port.payload.subarray(payload, payload + length), at);
      }
      this.release(payload, length);
      if (status !== BlockStatus.ok) return status;
      at += length;
    }
    return BlockStatus.ok;
  }

  async write(offset: number, from: Uint8Array, durable: boolean): Promise<BlockStatus> {
    const flags = durable ? BlockFlag.forceUnitAccess : 0;
    for (let at = 0; at < from.length; ) {
      const length = Math.min(maxRequestBytes, from.length - at);
      const payload = await this.allocate(length);
      this.port.payload.set(from.subarray(at, at + length), payload);
      const status = await this.submit(BlockOp.write, offset + at, length, payload, flags);
      this.release(payload, length);
      if (status !== BlockStatus.ok) return status;
      at += length;
    }
    return BlockStatus.ok;
  }

  flush(): Promise<BlockStatus> {
    return this.submit(BlockOp.flush, 0, 0, 0, 0);
  }

  async zero(op: 4 | 5, offset: number, length: number, durable: boolean): Promise<BlockStatus> {
    const status = await this.submit(op, offset, length, 0, 0);
    return durable && status === BlockStatus.ok ? this.flush() : status;
  }

  private async allocate(length: number): Promise<number> {
    for (;;) {
      const offset = this.closed ? 0 : this.port.allocate(length);
      if (offset >= 0) return offset;
      await new Promise<void>((resolve) => this.waiting.push(resolve));
    }
  }

  private release(offset: number, length: number): void {
    if (this.closed) return;
    this.port.release(offset, length);
    for (const wake of this.waiting.splice(0)) wake();
  }

  private async submit(
    op: (typeof BlockOp)[keyof typeof BlockOp],
    offset: number,
    length: number,
    payload: number,
    flags: number,
  ): Promise<BlockStatus> {
    const tag = this.nextTag;
    this.nextTag = (this.nextTag + 1) & 0x3fffffff;
    const { handle } = this.volume!;
    const sector = offset / sectorBytes;
    while (!this.closed && !this.port.submit(op, handle, sector, length, payload, flags, tag)) {
      await new Promise<void>((resolve) => this.waiting.push(resolve));
    }
    if (this.closed) return BlockStatus.storeFailed;
    return new Promise((resolve) => {
      this.done.set(tag, resolve);
      this.port.kick();
    });
  }

  private reap(): void {
    this.port.poll((tag, status) => {
      const done = this.done.get(tag);
      this.done.delete(tag);
      done?.(status);
    });
    for (const wake of this.waiting.splice(0)) wake();
  }
}
