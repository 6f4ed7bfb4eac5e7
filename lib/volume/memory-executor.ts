/**
 * An executor whose volumes are plain memory: the reference for contract tests and for measuring a
 * transport alone. Flushes answer on the next turn.
 */
import type { VolumeId } from "#lib/model/ids.ts";
import { nobody, noVersion, type Operation, type Writer } from "#lib/model/writer.ts";
import { BlockOp, BlockStatus, sectorBytes } from "./block.ts";
import type { BlockBatch, BlockExecutor, GroupView, OpenedVolume } from "./executor.ts";

export class MemoryExecutor implements BlockExecutor {
  readonly wakeFd = -1;
  onFinished?: () => void;
  readonly volumes = new Map<VolumeId, Uint8Array>();
  readonly readOnly = new Set<VolumeId>();
  /** Status of the next flushes. */
  flushStatus: BlockStatus = BlockStatus.ok;
  openCount = 0;
  flushCount = 0;
  private readonly writers = new Map<Uint8Array, Writer>();
  private readonly opened: (Uint8Array | undefined)[] = [];
  private readonly due: (() => void)[] = [];

  open(volumeId: VolumeId): OpenedVolume | BlockStatus {
    const bytes = this.volumes.get(volumeId);
    if (bytes === undefined) return BlockStatus.badHandle;
    this.openCount++;
    let volume = this.opened.indexOf(undefined);
    if (volume < 0) volume = this.opened.length;
    this.opened[volume] = bytes;
    return { volume, sizeBytes: bytes.length, readOnly: this.readOnly.has(volumeId) };
  }

  close(volume: number): void {
    this.openCount--;
    this.opened[volume] = undefined;
  }

  group(volume: number): GroupView {
    const writer = this.writers.get(this.opened[volume]!) ?? nobody;
    return { writer, version: noVersion, flushed: noVersion };
  }

  claim(volume: number, wanted: Writer, done: (granted: Writer | BlockStatus) => void): void {
    const bytes = this.opened[volume]!;
    const { generation, id } = this.group(volume).writer;
    const same = id[0] === wanted.id[0] && id[1] === wanted.id[1];
    const granted = { ...wanted, generation: same ? generation : generation + 1 };
    this.writers.set(bytes, granted);
    this.due.push(() => done(granted));
    this.onFinished?.();
  }

  history(): readonly Operation[] {
    return [];
  }

  groupFlushed(): void {}

  execute(batch: BlockBatch): void {
    for (let row = 0; row < batch.count; row++) {
      const bytes = this.opened[batch.volume[row]]!;
      const start = batch.sector[row] * sectorBytes;
      const end = start + batch.lengthBytes[row];
      const at = batch.payloadOffset[row];
      batch.status[row] = BlockStatus.ok;
      if (batch.op[row] === BlockOp.read) batch.payload.set(bytes.subarray(start, end), at);
      else if (batch.writer[row] < this.group(batch.volume[row]).writer.generation) {
        batch.status[row] = BlockStatus.fenced;
      } else if (batch.op[row] === BlockOp.write) {
        bytes.set(batch.payload.subarray(at, at + batch.lengthBytes[row]), start);
      } else bytes.fill(0, start, end);
    }
  }

  flush(_volume: number, done: (status: BlockStatus) => void): void {
    this.flushCount++;
    const status = this.flushStatus;
    this.due.push(() => done(status));
    this.onFinished?.();
  }

  turn(): number {
    for (const done of this.due.splice(0)) done();
    return -1;
  }

  control(_message: unknown, answer: (reply: unknown) => void): void {
    answer(null);
  }

  shutdown(): void {}
}
