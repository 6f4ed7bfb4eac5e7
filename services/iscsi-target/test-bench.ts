/**
 * For unit tests of the core alone: a BlockPort in memory whose completions a test may hold back, a
 * driver that delivers bytes in pieces, and an initiator that speaks PDUs.
 */
import { noVersion } from "#lib/model/writer.ts";
import {
  BlockFlag,
  BlockOp,
  type BlockPort,
  BlockStatus,
  type OpenVolume,
  sectorBytes,
} from "#lib/volume/block.ts";
import { crc32c } from "#lib/volume/checksum.ts";
import { PayloadArea } from "#lib/volume/payload.ts";
import { readU24, readU32 } from "#lib/wire/iscsi/layout.ts";
import {
  bhsBytes,
  dataOutLayout,
  InitiatorOpcode,
  loginLayout,
  padding,
  reservedTag,
  scsiCommandLayout,
} from "#lib/wire/iscsi/pdu.ts";
import { formatText, parseText } from "#lib/wire/iscsi/text.ts";
import { type DriverHost, SendArea, sendRowIndex } from "./driver.ts";
import { type Export, type ExportsPutInput, exportSchema, exportsPutSchema } from "./schema.ts";
import { type CoreEvent, TargetCore } from "./target-core.ts";

export const volumeId = "00000000-0000-4000-8000-000000000001";
export const targetName = "iqn.2026-11.org.example:disk";
export const initiatorName = "iqn.2026-11.org.example:client";

interface Request {
  readonly op: BlockOp;
  readonly handle: number;
  readonly sector: number;
  readonly bytes: number;
  readonly offset: number;
  readonly flags: number;
  readonly tag: number;
}

export class MemoryPort implements BlockPort {
  readonly payload: Uint8Array;
  readonly area: PayloadArea;
  readonly volumes = new Map<string, Uint8Array>();
  readonly requests: Request[] = [];
  readonly done: Request[] = [];
  connected = true;
  readonly losses = 0;
  /** While true, requests stay outstanding. */
  held = false;
  /** Room in the ring. */
  entries = 1024;
  /** What the next requests of an operation end with, instead of being done. */
  readonly faults = new Map<BlockOp, BlockStatus>();
  private readonly handles: (Uint8Array | undefined)[] = [];
  private readonly opens: (() => void)[] = [];

  constructor(payloadBytes = 8 << 20) {
    this.payload = new Uint8Array(payloadBytes);
    this.area = new PayloadArea(payloadBytes);
  }

  allocate(bytes: number): number {
    return this.area.allocate(bytes);
  }

  release(offset: number, bytes: number): void {
    // What is released may be anybody's next: a late reader would see this.
    this.payload.fill(0xdb, offset, offset + bytes);
    this.area.release(offset, bytes);
  }

  submit(
    op: BlockOp,
    handle: number,
    sector: number,
    bytes: number,
    offset: number,
    flags: number,
    tag: number,
  ): boolean {
    if (this.requests.length >= this.entries) return false;
    this.requests.push({ op, handle, sector, bytes, offset, flags, tag });
    return true;
  }

  kick(): void {}

  poll(complete: (tag: number, status: BlockStatus) => void): number {
    for (const open of this.opens.splice(0)) open();
    if (this.held || !this.connected) return 0;
    const batch = this.requests.splice(0);
    for (const request of batch) {
      this.done.push(request);
      complete(request.tag, this.execute(request));
    }
    return batch.length;
  }

  private execute({ op, handle, sector, bytes, offset }: Request): BlockStatus {
    const fault = this.faults.get(op);
    if (fault !== undefined) return fault;
    const volume = this.handles[handle];
    if (volume === undefined) return BlockStatus.badHandle;
    const start = sector * sectorBytes;
    if (start + bytes > volume.length) return BlockStatus.outOfRange;
    if (op === BlockOp.read) this.payload.set(volume.subarray(start, start + bytes), offset);
    else if (op === BlockOp.write) volume.set(this.payload.subarray(offset, offset + bytes), start);
    else if (op !== BlockOp.flush) volume.fill(0, start, start + bytes);
    return BlockStatus.ok;
  }

  open(id: string, done: (result: OpenVolume | BlockStatus) => void): void {
    this.opens.push(() => {
      const volume = this.volumes.get(id);
      if (volume === undefined) {
        done(BlockStatus.badHandle);
        return;
      }
      const handle = this.handles.push(volume) - 1;
      done({
        ...{ volumeId: id as never, handle, sizeBytes: volume.length, readOnly: false },
        ...{ generation: 1, version: noVersion, flushed: noVersion, partly: false },
      });
    });
  }

  close(handle: number): void {
    this.handles[handle] = undefined;
  }

  /** Forced units among what was written. */
  get forcedWrites(): number {
    return this.done.filter(
      ({ op, flags }) => op === BlockOp.write && (flags & BlockFlag.forceUnitAccess) !== 0,
    ).length;
  }
}

export interface Pdu {
  readonly opcode: number;
  readonly flags: number;
  readonly header: Uint8Array;
  readonly data: Uint8Array;
}

/** The core with its port, driven by hand. */
export class Bench implements DriverHost {
  readonly port: MemoryPort;
  readonly core: TargetCore;
  readonly events: CoreEvent[] = [];
  readonly closing = new Map<number, boolean>();
  readonly ready = new Set<number>();
  readonly resumed = new Set<number>();
  readonly initiators = new Map<number, TestInitiator>();
  nowMs = 1000;

  constructor(
    options: {
      sizeBytes?: number;
      payloadBytes?: number;
      taskCapacity?: number;
      entry?: Partial<Export>;
    } = {},
  ) {
    this.port = new MemoryPort(options.payloadBytes);
    this.port.volumes.set(volumeId, new Uint8Array(options.sizeBytes ?? 4 << 20));
    this.core = new TargetCore({
      port: this.port,
      host: this,
      wallMs: () => 1_700_000_000_000 + this.nowMs,
      onEvent: (event) => this.events.push(event),
      onSessions: () => {},
      ...(options.taskCapacity === undefined ? {} : { taskCapacity: options.taskCapacity }),
    });
    this.put({ generation: 1, exports: [entryOf(options.entry)] });
  }

  put(input: ExportsPutInput): number {
    const { sessionsEnded } = this.core.apply(exportsPutSchema.parse(input));
    this.settle();
    return sessionsEnded;
  }

  sendReady(id: number): void {
    this.ready.add(id);
  }

  resume(id: number): void {
    this.resumed.add(id);
  }

  close(id: number, drain: boolean): void {
    this.closing.set(id, drain);
  }

  /** Runs batches until nothing more happens. */
  settle(): void {
    for (let round = 0; round < 64; round++) {
      this.core.tick(this.nowMs);
      this.core.pollStore();
      this.core.endBatch();
      for (const id of [...this.resumed]) {
        this.resumed.delete(id);
        this.initiators.get(id)?.push(new Uint8Array(0));
      }
      for (const initiator of [...this.initiators.values()]) initiator.pull();
      for (const [id] of [...this.closing]) {
        this.closing.delete(id);
        const initiator = this.initiators.get(id);
        initiator?.pull();
        this.hangUp(id);
      }
    }
  }

  hangUp(id: number): void {
    const initiator = this.initiators.get(id);
    if (initiator !== undefined) initiator.open = false;
    this.initiators.delete(id);
    this.core.closed(id);
  }

  advance(ms: number): void {
    for (let step = 0; step < ms; step += 250) {
      this.nowMs += 250;
      this.settle();
    }
  }

  connect(remote = "10.0.0.7:40000"): TestInitiator {
    const id = this.core.accepted(remote, "10.0.0.1:3260");
    if (id < 0) throw new Error("refused");
    const initiator = new TestInitiator(this, id);
    this.initiators.set(id, initiator);
    return initiator;
  }
}

export function entryOf(entry: Partial<Export> = {}): Export {
  return {
    ...exportSchema.parse({ id: "disk", iqn: targetName, volumeId, initiators: [initiatorName] }),
    ...entry,
  };
}

export class TestInitiator {
  readonly id: number;
  open = true;
  /** Bytes of a delivery; the rest follows in the next. */
  pieceBytes = Number.POSITIVE_INFINITY;
  /** While true nothing is taken from the target's send queue. */
  deaf = false;
  readonly received: Pdu[] = [];
  cmdSN = 1;
  expStatSN = 0;
  headerDigest = false;
  dataDigest = false;
  private readonly bench: Bench;
  private left = new Uint8Array(0);
  private incoming = new Uint8Array(0);
  private nextTag = 0x100;

  constructor(bench: Bench, id: number) {
    this.bench = bench;
    this.id = id;
  }

  /** Sends bytes as they are. */
  push(bytes: Uint8Array): void {
    const all = Buffer.concat([this.left, bytes]);
    this.left = new Uint8Array(0);
    let at = 0;
    let kept = 0;
    do {
      if (!this.open) return;
      const end = Math.min(all.length, at + this.pieceBytes);
      at = end;
      const taken = this.bench.core.received(this.id, all, kept, end);
      if (taken < kept || taken > end) throw new Error(`took ${taken} of ${kept}..${end}`);
      kept = taken;
    } while (at < all.length);
    this.left = Uint8Array.from(all.subarray(kept));
  }

  /** Takes what is queued, in pieces too. */
  pull(): void {
    if (this.deaf) return;
    const { core, port } = this.bench;
    const { rows, heads, tails } = core.queues;
    const parts: Uint8Array[] = [];
    while (heads[this.id] !== tails[this.id] && this.open) {
      const at = sendRowIndex(this.id, heads[this.id]);
      const memory = rows[at] === SendArea.payload ? port.payload : core.headers;
      const bytes = Math.min(rows[at + 2], this.pieceBytes);
      parts.push(memory.slice(rows[at + 1], rows[at + 1] + bytes));
      core.sent(this.id, bytes);
    }
    this.incoming = Buffer.concat([this.incoming, ...parts]);
    this.parse();
  }

  private parse(): void {
    for (;;) {
      const b = this.incoming;
      const header = bhsBytes + (this.headerDigest ? 4 : 0);
      if (b.length < header) return;
      const length = readU24(b, 5);
      const pad = padding(length);
      const digest = this.dataDigest && length > 0 ? 4 : 0;
      const total = header + length + pad + digest;
      if (b.length < total) return;
      if (this.headerDigest) check(b, bhsBytes, crc32c(b.subarray(0, bhsBytes)));
      if (digest > 0) {
        check(b, header + length + pad, crc32c(b.subarray(header, header + length + pad)));
      }
      const pdu: Pdu = {
        opcode: b[0],
        flags: b[1],
        header: b.slice(0, bhsBytes),
        data: b.slice(header, header + length),
      };
      this.incoming = b.slice(total);
      this.received.push(pdu);
      if (pdu.opcode !== 0x31 && !(pdu.opcode === 0x25 && (pdu.flags & 1) === 0)) {
        this.expStatSN = (readU32(pdu.header, 24) + 1) >>> 0;
      }
    }
  }

  /** One PDU with its segment, pads and digests. */
  send(bhs: Uint8Array, data: Uint8Array = new Uint8Array(0)): void {
    bhs[5] = data.length >> 16;
    bhs[6] = data.length >> 8;
    bhs[7] = data.length;
    const parts: Uint8Array[] = [bhs];
    if (this.headerDigest) parts.push(digestOf(bhs));
    const padded = Buffer.concat([data, new Uint8Array(padding(data.length))]);
    if (data.length > 0) parts.push(padded);
    if (this.dataDigest && data.length > 0) parts.push(digestOf(padded));
    this.push(Buffer.concat(parts));
  }

  tag(): number {
    return this.nextTag++;
  }

  /** One log-in request; its answer's status, flags and text. */
  login(
    stage: number,
    next: number,
    pairs: readonly [string, string][],
    more: { tsih?: number; isid?: Uint8Array; transit?: boolean } = {},
  ): { status: number; flags: number; pairs: ReadonlyMap<string, string> } {
    const transit = more.transit === false ? 0 : 0x80;
    this.send(
      loginLayout.encode({
        opcode: 0x40 | InitiatorOpcode.login,
        flags: transit | (stage << 2) | (transit === 0 ? 0 : next),
        isid: more.isid ?? Uint8Array.of(0x80, 1, 2, 3, 4, 5),
        tsih: more.tsih ?? 0,
        initiatorTaskTag: 1,
        cmdSN: this.cmdSN,
        expStatSN: this.expStatSN,
      }),
      formatText(pairs),
    );
    this.bench.settle();
    const pdu = this.received.shift();
    if (pdu === undefined) return { status: -1, flags: 0, pairs: new Map() };
    const parsed = parseText(pdu.data);
    return {
      status: (pdu.header[36] << 8) | pdu.header[37],
      flags: pdu.flags,
      pairs: parsed.ok ? parsed.pairs : new Map(),
    };
  }

  /** Straight into full feature, with `pairs` beside the names; takes the first unit attention. */
  enter(pairs: readonly [string, string][] = [], name = initiatorName): this {
    const { status } = this.login(1, 3, [
      ["InitiatorName", name],
      ["TargetName", targetName],
      ...pairs,
    ]);
    if (status !== 0) throw new Error(`log-in failed with ${status.toString(16)}`);
    this.headerDigest = pairs.some(([key, value]) => key === "HeaderDigest" && value === "CRC32C");
    this.dataDigest = pairs.some(([key, value]) => key === "DataDigest" && value === "CRC32C");
    this.command([0, 0, 0, 0, 0, 0], 0, "none");
    this.bench.settle();
    this.received.length = 0;
    return this;
  }

  /** Queues a command; returns its tag. */
  command(
    cdb: readonly number[],
    expected: number,
    direction: "none" | "read" | "write",
    data?: Uint8Array,
    more: { final?: boolean; lun?: number; cmdSN?: number } = {},
  ): number {
    const full = new Uint8Array(16);
    full.set(cdb);
    const tag = this.tag();
    const way = { none: 0, read: 0x40, write: 0x20 }[direction];
    const lun = new Uint8Array(8);
    lun[1] = more.lun ?? 0;
    const cmdSN = more.cmdSN ?? this.cmdSN;
    if (more.cmdSN === undefined) this.cmdSN = (this.cmdSN + 1) >>> 0;
    this.send(
      scsiCommandLayout.encode({
        opcode: InitiatorOpcode.scsiCommand,
        flags: (more.final === false ? 0 : 0x80) | way | 1,
        lun,
        initiatorTaskTag: tag,
        expectedDataTransferLength: expected,
        cmdSN,
        expStatSN: this.expStatSN,
        cdb: full,
      }),
      data,
    );
    return tag;
  }

  dataOut(
    tag: number,
    ttt: number,
    offset: number,
    dataSN: number,
    data: Uint8Array,
    final = true,
  ): void {
    this.send(
      dataOutLayout.encode({
        opcode: InitiatorOpcode.dataOut,
        flags: final ? 0x80 : 0,
        initiatorTaskTag: tag,
        targetTransferTag: ttt,
        expStatSN: this.expStatSN,
        dataSN,
        bufferOffset: offset,
      }),
      data,
    );
  }

  /** Runs a command to its end: status, sense, data-in, residual. Answers R2Ts from `data`. */
  run(
    cdb: readonly number[],
    expected = 0,
    direction: "none" | "read" | "write" = "none",
    data: Uint8Array = new Uint8Array(0),
    immediateBytes = 0,
  ) {
    const first = data.subarray(0, immediateBytes);
    const tag = this.command(cdb, expected, direction, first.length > 0 ? first : undefined);
    const parts: Uint8Array[] = [];
    let r2ts = 0;
    for (let round = 0; round < 4096; round++) {
      this.bench.settle();
      const pdu = this.received.shift();
      if (pdu === undefined) throw new Error("no answer");
      if (readU32(pdu.header, 16) !== tag) throw new Error(`answer to another task`);
      if (pdu.opcode === 0x31) {
        r2ts++;
        const offset = readU32(pdu.header, 40);
        const length = readU32(pdu.header, 44);
        this.dataOut(
          tag,
          readU32(pdu.header, 20),
          offset,
          0,
          data.subarray(offset, offset + length),
        );
        continue;
      }
      if (pdu.opcode === 0x25) parts.push(pdu.data);
      const ended = pdu.opcode === 0x21 || (pdu.flags & 1) !== 0;
      if (!ended) continue;
      const sense =
        pdu.opcode === 0x21 && pdu.data.length >= 20
          ? (pdu.data[4] << 16) | (pdu.data[14] << 8) | pdu.data[15]
          : 0;
      return {
        status: pdu.header[3],
        sense,
        data: Buffer.concat(parts),
        flags: pdu.flags,
        residual: readU32(pdu.header, 44),
        r2ts,
        pdu,
      };
    }
    throw new Error("no end");
  }
}

function digestOf(bytes: Uint8Array): Uint8Array {
  const digest = Buffer.alloc(4);
  digest.writeUInt32LE(crc32c(bytes));
  return digest;
}

function check(bytes: Uint8Array, at: number, crc: number): void {
  const digest = Buffer.from(bytes.subarray(at, at + 4)).readUInt32LE();
  if (digest !== crc) throw new Error(`digest ${digest.toString(16)} is not ${crc.toString(16)}`);
}

/** READ(10) and WRITE(10) of 512-byte blocks. */
export function read10(lba: number, blocks: number, flags = 0): number[] {
  return [0x28, flags, ...be32(lba), 0, blocks >> 8, blocks & 0xff, 0];
}

export function write10(lba: number, blocks: number, flags = 0): number[] {
  return [0x2a, flags, ...be32(lba), 0, blocks >> 8, blocks & 0xff, 0];
}

export function be32(value: number): number[] {
  return [value >>> 24, (value >>> 16) & 0xff, (value >>> 8) & 0xff, value & 0xff];
}

export function pattern(bytes: number, seed = 1): Uint8Array {
  const out = new Uint8Array(bytes);
  let state = seed * 2654435761;
  for (let at = 0; at < bytes; at++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    out[at] = state >>> 24;
  }
  return out;
}

export { reservedTag };
