/**
 * Reads, writes and discards of a batch, between a payload and the store. No allocation a request:
 * everything is staged in columns, then done together.
 *
 *   writes   staged: fresh block, data offset, log entry; then checksums, one gathered write for
 *            each contiguous run of blocks, one log record, and the map
 *   reads    staged: runs contiguous on disk and in the payload; then read and verified
 *
 * A request that meets a block staged for writing commits what is staged first, so a later request
 * of a batch sees the earlier ones; and a commit does the staged reads before it writes anything.
 */
import { BlockOp, BlockStatus } from "#lib/volume/block.ts";
import type { BlockBatch } from "#lib/volume/executor.ts";
import { blockBytes, chunkBlocks, sectorBytes } from "../limits.ts";
import { EntryFlag, EntryType, OperationFlag } from "./layout.ts";
import type { Lineage, Snapshot } from "./lineages.ts";
import { newest, resolve, zeroes } from "./resolve.ts";
import { StagedBlocks } from "./staged-blocks.ts";
import type { Store } from "./store.ts";

/** An open volume, or one of its snapshots. */
export interface View {
  readonly lineage: Lineage;
  readonly snapshot: Snapshot | null;
}

const scratchBlocks = 64;
const readRuns = 1024;
const readBlocks = 4096;

export class Transfer {
  private readonly store: Store;
  private readonly scratch = new Uint8Array(scratchBlocks * blockBytes);
  private scratchUsed = 0;
  private readonly single = new Uint8Array(blockBytes);
  private readonly zeroes = new Uint8Array(blockBytes);

  // Staged writes, a column each; `stageEntry` is its place in the log record being built.
  private staged = 0;
  private readonly stageLimit: number;
  private readonly stageOffset: Int32Array;
  private readonly stageInScratch: Uint8Array;
  private readonly stageRow: Int32Array;
  private readonly stageEntry: Int32Array;
  private readonly stageSums: Uint32Array;
  private readonly writeOffset: Int32Array;
  private readonly writeLength: Int32Array;
  private readonly writePosition: Float64Array;
  private stagedChunks = 0;
  private lastLineage = 0;
  private lastChunk = -1;
  private readonly chunkLimit: number;
  private readonly blocks: StagedBlocks;

  // Staged reads: runs, and the blocks in them to verify.
  private runs = 0;
  private readonly runOffset = new Int32Array(readRuns);
  private readonly runLength = new Int32Array(readRuns);
  private readonly runPosition = new Float64Array(readRuns);
  private readonly runRow = new Int32Array(readRuns);
  private readonly runResult = new Uint8Array(readRuns);
  private checks = 0;
  private readonly checkOffset = new Int32Array(readBlocks);
  private readonly checkSum = new Uint32Array(readBlocks);
  private readonly checkFound = new Uint32Array(readBlocks);
  private readonly checkRow = new Int32Array(readBlocks);
  private readonly checkBlock = new Uint32Array(readBlocks);

  /** Row of a group's operation that is being staged, or -1; and if a part of it is. */
  private current = -1;
  private begun = false;
  private foundSum = 0;
  private batch!: BlockBatch;
  private volumes: readonly (View | undefined)[] = [];

  constructor(store: Store) {
    this.store = store;
    // One more may be added: of an operation that goes over several records.
    this.stageLimit = store.log.recordEntries - 1;
    this.blocks = new StagedBlocks(store.log);
    this.chunkLimit = store.superblock.checkpointPages >> 1;
    this.stageOffset = new Int32Array(this.stageLimit);
    this.stageInScratch = new Uint8Array(this.stageLimit);
    this.stageRow = new Int32Array(this.stageLimit);
    this.stageEntry = new Int32Array(this.stageLimit);
    this.stageSums = new Uint32Array(this.stageLimit);
    this.writeOffset = new Int32Array(this.stageLimit);
    this.writeLength = new Int32Array(this.stageLimit);
    this.writePosition = new Float64Array(this.stageLimit);
  }

  /** Does the batch; `volumes[batch.volume[i]]` is what request i is of, undefined if closed. */
  execute(batch: BlockBatch, volumes: readonly (View | undefined)[]): void {
    const { status } = batch;
    if (this.store.failure !== null) {
      status.fill(BlockStatus.storeFailed, 0, batch.count);
      return;
    }
    this.batch = batch;
    this.volumes = volumes;
    for (let row = 0; row < batch.count; row++) {
      const view = volumes[batch.volume[row]];
      status[row] = BlockStatus.ok;
      if (view === undefined || (view.snapshot ?? view.lineage).deleted) {
        status[row] = BlockStatus.badHandle;
        continue;
      }
      const { lineage, snapshot } = view;
      if (!inRange(batch, row, snapshot ?? lineage)) status[row] = BlockStatus.outOfRange;
      else if (batch.op[row] === BlockOp.read) this.read(row, lineage, snapshot?.epoch ?? newest);
      else if (snapshot !== null || lineage.sealed) status[row] = BlockStatus.readOnly;
      else if (batch.writer[row] < lineage.writer.generation) status[row] = BlockStatus.fenced;
      else if (!this.isDone(row, lineage)) {
        this.current = batch.sequence[row] === 0 ? -1 : row;
        this.begun = false;
        if (batch.op[row] === BlockOp.write) this.write(row, lineage);
        else this.discard(row, lineage);
        this.endOperation(row, lineage);
      }
    }
    this.commit();
    if (this.store.failure !== null) status.fill(BlockStatus.storeFailed, 0, batch.count);
  }

  // ---- operations of groups ----------------------------------------------------------------

  /** Sent again by a writer that does not know how much of it was here already. */
  private isDone(row: number, { version }: Lineage): boolean {
    const { generation, sequence } = this.batch;
    if (sequence[row] === 0) return false;
    return (
      generation[row] < version.generation ||
      (generation[row] === version.generation && sequence[row] <= version.sequence)
    );
  }

  /** After all that the request wrote: what a power cut leaves of it without this is done again. */
  private endOperation(row: number, lineage: Lineage): void {
    if (this.current < 0) return;
    if (this.batch.status[row] === BlockStatus.ok) {
      if (this.store.log.count >= this.stageLimit) this.commit();
      this.addOperation(row, lineage, 0);
    }
    this.current = -1;
  }

  private addOperation(row: number, { number }: Lineage, flags: number): void {
    const { batch } = this;
    const sector = batch.sector[row];
    this.store.log.add(
      EntryType.operation,
      flags | (batch.op[row] === BlockOp.write ? 0 : OperationFlag.discards),
      Math.floor(sector / 2 ** 32),
      number,
      sector % 2 ** 32,
      batch.lengthBytes[row] / sectorBytes,
      batch.generation[row],
      0,
      batch.sequence[row] % 2 ** 32,
      Math.floor(batch.sequence[row] / 2 ** 32),
    );
  }

  // ---- reads -------------------------------------------------------------------------------

  private read(row: number, lineage: Lineage, asOf: number): void {
    const { batch } = this;
    let position = batch.sector[row] * sectorBytes;
    const end = position + batch.lengthBytes[row];
    let into = batch.payloadOffset[row];
    while (position < end) {
      const number = Math.floor(position / blockBytes);
      const within = position % blockBytes;
      const length = Math.min(blockBytes - within, end - position);
      const chunk = Math.floor(number / chunkBlocks);
      const block = number % chunkBlocks;
      if (this.blocks.has(lineage.number, chunk, block)) this.commit();
      const pointer = this.resolve(lineage, asOf, chunk, block);
      if (pointer < 0) {
        batch.status[row] = BlockStatus.mediaError;
        return;
      }
      if (pointer === 0) batch.payload.fill(0, into, into + length);
      else if (length === blockBytes) this.stageRead(row, into, pointer);
      else if (this.readBlock(lineage, number, pointer)) {
        batch.payload.set(this.single.subarray(within, within + length), into);
      } else {
        batch.status[row] = BlockStatus.mediaError;
        return;
      }
      position += length;
      into += length;
    }
  }

  /** Block on disk, 0 where it reads zero, -1 if the map is unreadable; `foundSum` is its checksum. */
  private resolve(lineage: Lineage, asOf: number, chunk: number, block: number): number {
    const cell = resolve(this.store, lineage, asOf, chunk, block);
    if (cell < 0) return cell === zeroes ? 0 : -1;
    const { words } = this.store.cache;
    this.foundSum = words[cell + chunkBlocks];
    return words[cell];
  }

  private stageRead(row: number, offset: number, pointer: number): void {
    if (this.checks === readBlocks || this.runs === readRuns) this.finishReads();
    const position = pointer * blockBytes;
    const last = this.runs - 1;
    if (
      last >= 0 &&
      this.runRow[last] === row &&
      this.runPosition[last] + this.runLength[last] === position &&
      this.runOffset[last] + this.runLength[last] === offset
    ) {
      this.runLength[last] += blockBytes;
    } else {
      this.runOffset[this.runs] = offset;
      this.runLength[this.runs] = blockBytes;
      this.runPosition[this.runs] = position;
      this.runRow[this.runs++] = row;
    }
    this.checkOffset[this.checks] = offset;
    this.checkSum[this.checks] = this.foundSum;
    this.checkBlock[this.checks] = pointer;
    this.checkRow[this.checks++] = row;
  }

  private finishReads(): void {
    if (this.runs === 0) return;
    const { disk } = this.store;
    const { payload, status } = this.batch;
    disk.readRows(
      payload,
      this.runOffset,
      this.runLength,
      this.runPosition,
      this.runResult,
      this.runs,
    );
    for (let run = 0; run < this.runs; run++) {
      if (this.runResult[run] === 0) status[this.runRow[run]] = BlockStatus.mediaError;
    }
    disk.checksumRows(payload, this.checkOffset, this.checkFound, this.checks);
    for (let i = 0; i < this.checks; i++) {
      const row = this.checkRow[i];
      if (this.checkFound[i] === this.checkSum[i] || status[row] !== BlockStatus.ok) continue;
      status[row] = BlockStatus.mediaError;
      const within = this.checkOffset[i] - this.batch.payloadOffset[row];
      const { lineage } = this.volumes[this.batch.volume[row]]!;
      this.reportBad(lineage, this.batch.sector[row] * sectorBytes + within, this.checkBlock[i]);
    }
    this.runs = 0;
    this.checks = 0;
  }

  /** Reads and verifies one block into `single`. */
  private readBlock(lineage: Lineage, number: number, pointer: number): boolean {
    const { disk, checksum } = this.store;
    const expected = this.foundSum;
    const good =
      disk.read(this.single, 0, blockBytes, pointer * blockBytes) &&
      checksum(this.single, 0, blockBytes) === expected;
    if (!good) this.reportBad(lineage, number * blockBytes, pointer);
    return good;
  }

  private reportBad(lineage: Lineage, offsetBytes: number, block: number): void {
    this.store.checksumErrors++;
    this.store.onMediaError?.(lineage.uuid, offsetBytes, block);
  }

  // ---- writes ------------------------------------------------------------------------------

  private write(row: number, lineage: Lineage): void {
    const { batch } = this;
    let position = batch.sector[row] * sectorBytes;
    const end = position + batch.lengthBytes[row];
    let from = batch.payloadOffset[row];
    const blocks = Math.ceil(end / blockBytes) - Math.floor(position / blockBytes);
    if (!this.haveRoom(blocks)) {
      batch.status[row] = BlockStatus.noSpace;
      return;
    }
    while (position < end && batch.status[row] === BlockStatus.ok) {
      const number = Math.floor(position / blockBytes);
      const within = position % blockBytes;
      const length = Math.min(blockBytes - within, end - position);
      if (length === blockBytes) this.stage(row, lineage, number, from, false);
      else this.merge(row, lineage, number, within, length, batch.payload, from);
      position += length;
      from += length;
    }
  }

  /** Writes a part of a block: the rest of it is read, and all goes to a fresh block. */
  private merge(
    row: number,
    lineage: Lineage,
    number: number,
    within: number,
    length: number,
    source: Uint8Array,
    from: number,
  ): void {
    const chunk = Math.floor(number / chunkBlocks);
    const block = number % chunkBlocks;
    // What is staged for this block must be readable; and the scratch blocks may all be in use.
    const full = this.scratchUsed === scratchBlocks;
    if (full || this.blocks.has(lineage.number, chunk, block)) this.commit();
    const pointer = this.resolve(lineage, newest, chunk, block);
    if (pointer < 0 || (pointer > 0 && !this.readBlock(lineage, number, pointer))) {
      this.batch.status[row] = BlockStatus.mediaError;
      return;
    }
    if (pointer === 0) this.single.fill(0);
    const offset = this.scratchUsed * blockBytes;
    this.scratch.set(this.single, offset);
    this.scratch.set(source.subarray(from, from + length), offset + within);
    this.scratchUsed++;
    this.stage(row, lineage, number, offset, true);
  }

  private stage(
    row: number,
    lineage: Lineage,
    number: number,
    offset: number,
    inScratch: boolean,
  ): void {
    const { store } = this;
    const chunk = Math.floor(number / chunkBlocks);
    const block = number % chunkBlocks;
    if (store.log.count === this.stageLimit || this.blocks.has(lineage.number, chunk, block)) {
      this.commitKeepingScratch(inScratch, offset);
      if (inScratch) offset = 0;
      if (this.batch.status[row] !== BlockStatus.ok) return;
    }
    if (lineage.number !== this.lastLineage || chunk !== this.lastChunk) {
      if (this.stagedChunks === this.chunkLimit) {
        this.commitKeepingScratch(inScratch, offset);
        if (inScratch) offset = 0;
      }
      const record = store.index.find(lineage.number, chunk);
      if (record >= 0 && store.index.frame[record] < 0 && store.cache.load(record) < 0) {
        this.batch.status[row] = BlockStatus.mediaError;
        return;
      }
      this.stagedChunks++;
      this.lastLineage = lineage.number;
      this.lastChunk = chunk;
    }
    const pointer = store.allocator.allocateData();
    if (pointer < 0) {
      this.batch.status[row] = BlockStatus.noSpace;
      return;
    }
    this.begun = true;
    const at = this.staged++;
    store.stagedPointers[at] = pointer;
    store.stagedCount = this.staged;
    this.stageOffset[at] = offset;
    this.stageInScratch[at] = inScratch ? 1 : 0;
    this.stageRow[at] = row;
    this.stageEntry[at] = store.log.count;
    this.blocks.add(lineage.number, chunk, block, store.log.count);
    store.log.add(
      EntryType.write,
      0,
      block,
      lineage.number,
      chunk,
      pointer,
      0,
      lineage.epoch,
      0,
      0,
    );
  }

  /** Commits; a scratch block just merged, not yet staged, moves to the first place. */
  private commitKeepingScratch(keep: boolean, offset: number): void {
    if (keep) this.single.set(this.scratch.subarray(offset, offset + blockBytes));
    this.commit();
    if (!keep) return;
    this.scratch.set(this.single, 0);
    this.scratchUsed = 1;
  }

  private haveRoom(blocks: number): boolean {
    if (this.store.availableBlocks >= blocks) return true;
    this.commit();
    return this.store.makeRoom(blocks);
  }

  /** Data, log record, map: after this, what was staged may be acknowledged. */
  private commit(): void {
    const { store } = this;
    const count = this.staged;
    // First: a commit may have to checkpoint, and then what this batch freed is written again.
    this.finishReads();
    if (store.log.count === 0) {
      this.forgetStage();
      return;
    }
    if (this.current >= 0 && this.begun) {
      const { lineage } = this.volumes[this.batch.volume[this.current]]!;
      this.addOperation(this.current, lineage, OperationFlag.partly);
      this.begun = false;
    }
    const good = store.prepare(0, this.stagedChunks) && (count === 0 || this.writeData(count));
    if (good) store.commit();
    else {
      store.log.count = 0;
      for (let i = 0; i < count; i++) {
        store.allocator.release(store.stagedPointers[i]);
        this.batch.status[this.stageRow[i]] = BlockStatus.mediaError;
      }
    }
    this.forgetStage();
  }

  private forgetStage(): void {
    this.staged = 0;
    this.store.stagedCount = 0;
    this.stagedChunks = 0;
    this.lastLineage = 0;
    this.scratchUsed = 0;
    this.blocks.clear();
  }

  /** Checksums into the log entries, and the data to its blocks, a gathered write for each run. */
  private writeData(count: number): boolean {
    const { store, stageInScratch, stageOffset } = this;
    const { words } = store.log;
    for (let first = 0; first < count; ) {
      let end = first + 1;
      while (end < count && stageInScratch[end] === stageInScratch[first]) end++;
      const buffer = stageInScratch[first] === 1 ? this.scratch : this.batch.payload;
      const offsets = first === 0 ? stageOffset : stageOffset.subarray(first, end);
      store.disk.checksumRows(buffer, offsets, this.stageSums, end - first);
      for (let i = first; i < end; i++) {
        words[store.log.entryWord(this.stageEntry[i]) + 4] = this.stageSums[i - first];
      }
      if (!this.writeRuns(buffer, first, end)) return false;
      first = end;
    }
    store.noteWritten(count * blockBytes);
    return true;
  }

  private writeRuns(buffer: Uint8Array, first: number, end: number): boolean {
    const { store, stageOffset, writeOffset, writeLength, writePosition } = this;
    let count = 0;
    let endOffset = -1;
    let endPosition = -1;
    for (let i = first; i < end; i++) {
      const offset = stageOffset[i];
      const position = store.stagedPointers[i] * blockBytes;
      if (offset === endOffset && position === endPosition) writeLength[count - 1] += blockBytes;
      else {
        writeOffset[count] = offset;
        writePosition[count] = position;
        writeLength[count++] = blockBytes;
      }
      endOffset = offset + blockBytes;
      endPosition = position + blockBytes;
    }
    return store.disk.writeRows(buffer, writeOffset, writeLength, writePosition, count);
  }

  // ---- discards ----------------------------------------------------------------------------

  /** Discard and write zeroes: both read zero afterwards, whole blocks give their space back. */
  private discard(row: number, lineage: Lineage): void {
    this.commit();
    const { batch } = this;
    const start = batch.sector[row] * sectorBytes;
    const end = start + batch.lengthBytes[row];
    const firstWhole = Math.ceil(start / blockBytes);
    const endWhole = Math.floor(end / blockBytes);
    if (firstWhole > endWhole) {
      this.zeroPart(row, lineage, start, end);
    } else {
      this.discardBlocks(row, lineage, firstWhole, endWhole);
      this.zeroPart(row, lineage, start, firstWhole * blockBytes);
      this.zeroPart(row, lineage, endWhole * blockBytes, end);
    }
    this.commit();
  }

  /** Zeroes a part of one block, if there is anything in it. */
  private zeroPart(row: number, lineage: Lineage, start: number, end: number): void {
    if (start >= end || this.batch.status[row] !== BlockStatus.ok) return;
    const number = Math.floor(start / blockBytes);
    const chunk = Math.floor(number / chunkBlocks);
    if (this.resolve(lineage, newest, chunk, number % chunkBlocks) === 0) return;
    if (!this.haveRoom(1)) this.batch.status[row] = BlockStatus.noSpace;
    else {
      const within = start - number * blockBytes;
      this.merge(row, lineage, number, within, end - start, this.zeroes, 0);
    }
  }

  private discardBlocks(row: number, lineage: Lineage, first: number, end: number): void {
    const { store } = this;
    for (let at = first; at < end && this.batch.status[row] === BlockStatus.ok; ) {
      const chunk = Math.floor(at / chunkBlocks);
      const from = at % chunkBlocks;
      const count = Math.min(chunkBlocks - from, end - at);
      at += count;
      const record = store.index.find(lineage.number, chunk);
      const inherits = parentHas(store, lineage, chunk);
      if (record < 0 && !inherits) continue;
      const drop =
        !inherits && count === chunkBlocks && record >= 0 && isOnly(store, lineage, record);
      // A hole in a chunk of its own needs a map page: a full store has none to give.
      if (record < 0 && !this.haveRoom(1)) {
        this.batch.status[row] = BlockStatus.noSpace;
        return;
      }
      if (record >= 0 && store.cache.load(record) < 0) {
        this.batch.status[row] = BlockStatus.mediaError;
        return;
      }
      if (store.log.count === this.stageLimit || this.stagedChunks === this.chunkLimit) {
        this.commit();
      }
      this.stagedChunks++;
      this.begun = true;
      const flags = (inherits ? EntryFlag.hole : 0) | (drop ? EntryFlag.drop : 0);
      store.log.add(
        EntryType.discard,
        flags,
        from,
        lineage.number,
        chunk,
        count,
        0,
        lineage.epoch,
        0,
        0,
      );
    }
    this.commit();
  }
}

function inRange(batch: BlockBatch, row: number, { sizeBytes }: { sizeBytes: number }): boolean {
  const start = batch.sector[row] * sectorBytes;
  return start >= 0 && start + batch.lengthBytes[row] <= sizeBytes;
}

function parentHas(store: Store, lineage: Lineage, chunk: number): boolean {
  for (let line = lineage; line.parent !== null; line = line.parent) {
    if (store.index.findAsOf(line.parent.number, chunk, line.forkEpoch) >= 0) return true;
  }
  return false;
}

/** No snapshot has the chunk: it may go as a whole. */
function isOnly({ index }: Store, lineage: Lineage, record: number): boolean {
  return index.older[record] < 0 && index.epoch[record] > lineage.barrier;
}
