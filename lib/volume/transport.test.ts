import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { VolumeId } from "#lib/model/ids.ts";
import { native } from "#native";
import {
  BlockFlag,
  BlockOp,
  BlockStatus,
  type Claim,
  maxRequestBytes,
  nextWriter,
  type OpenVolume,
} from "./block.ts";
import type { GatewayPort } from "./gateway-port.ts";
import { InlinePort } from "./inline-port.ts";
import { MemoryExecutor } from "./memory-executor.ts";
import { RingPort } from "./ring-port.ts";
import { StoreNetServer } from "./store-net-server.ts";
import { StoreRingServer } from "./store-ring-server.ts";

const disk = "11111111-2222-3333-4444-555555555555" as VolumeId;
const sealed = "99999999-2222-3333-4444-555555555555" as VolumeId;
const diskBytes = 4 << 20;
const payloadBytes = 4 << 20;

/** One way of joining a gateway to a store; `step` lets both sides go on. */
interface Join {
  start(path: string, executor: MemoryExecutor): Promise<void>;
  stop(): Promise<void>;
  step(): void;
}

class RingJoin implements Join {
  private server: StoreRingServer | undefined;
  async start(path: string, executor: MemoryExecutor) {
    this.server = new StoreRingServer(native!, executor, path);
  }
  async stop() {
    this.server?.stop();
    this.server = undefined;
  }
  step() {
    this.server?.turn(0);
  }
}

class NetJoin implements Join {
  private server: StoreNetServer | undefined;
  async start(path: string, executor: MemoryExecutor) {
    this.server = new StoreNetServer(executor);
    await this.server.listen(path);
  }
  async stop() {
    await this.server?.stop();
    this.server = undefined;
  }
  step() {}
}

const ring = (path: string, entries: number) =>
  new RingPort(native!, { path, entries, payloadBytes });
const inline = (path: string, entries: number) =>
  new InlinePort({ path, entries, payloadBytes, onReady: () => {} });

const transports: [string, () => Join, (path: string, entries: number) => GatewayPort, boolean][] =
  [
    ["ring", () => new RingJoin(), ring, true],
    ["inline to a store with the addon", () => new RingJoin(), inline, true],
    ["inline to a store without the addon", () => new NetJoin(), inline, false],
  ];

describe.each(transports)("%s", (_name, makeJoin, makePort, needsAddon) => {
  const runIf = test.skipIf(needsAddon && native === undefined);
  let folder: string;
  let path: string;
  let join_: Join;
  let executor: MemoryExecutor;
  let port: GatewayPort;
  let completions: Map<number, BlockStatus>;

  beforeEach(async () => {
    if (needsAddon && native === undefined) return;
    folder = mkdtempSync(join(tmpdir(), "keelson-transport-"));
    path = join(folder, "ring.sock");
    executor = new MemoryExecutor();
    executor.volumes.set(disk, new Uint8Array(diskBytes));
    executor.volumes.set(sealed, new Uint8Array(1 << 20));
    executor.readOnly.add(sealed);
    join_ = makeJoin();
    await join_.start(path, executor);
    completions = new Map();
    port = makePort(path, 64);
  });

  afterEach(async () => {
    port?.end();
    await join_?.stop();
    if (folder !== undefined) rmSync(folder, { recursive: true });
  });

  const poll = () => {
    port.kick();
    port.poll((tag, status) => {
      expect(completions.has(tag)).toBe(false);
      completions.set(tag, status);
    });
  };

  async function until(condition: () => boolean): Promise<void> {
    const endMs = performance.now() + 5000;
    while (!condition()) {
      if (performance.now() > endMs) throw new Error("nothing happened for five seconds");
      join_.step();
      poll();
      await new Promise((resolve) => setImmediate(resolve));
    }
  }

  async function open(volumeId: VolumeId, claim?: Claim): Promise<OpenVolume | BlockStatus> {
    let answer: OpenVolume | BlockStatus | undefined;
    const done = (result: OpenVolume | BlockStatus) => {
      answer = result;
    };
    port.open(volumeId, done, claim);
    await until(() => answer !== undefined);
    return answer!;
  }

  async function openDisk(volumeId = disk): Promise<number> {
    const opened = await open(volumeId);
    if (typeof opened === "number") throw new Error(`open: status ${opened}`);
    return opened.handle;
  }

  let nextTag = 1;
  async function request(
    op: BlockOp,
    handle: number,
    sector: number,
    lengthBytes: number,
    payloadOffset = 0,
    flags = 0,
  ): Promise<BlockStatus> {
    const tag = nextTag++;
    expect(port.submit(op, handle, sector, lengthBytes, payloadOffset, flags, tag)).toBe(true);
    await until(() => completions.has(tag));
    return completions.get(tag)!;
  }

  runIf("open tells size and read-only, and refuses what is not there", async () => {
    expect(await open(disk)).toMatchObject({ sizeBytes: diskBytes, readOnly: false });
    expect(await open(sealed)).toMatchObject({ sizeBytes: 1 << 20, readOnly: true });
    const missing = "00000000-0000-0000-0000-000000000000" as VolumeId;
    expect(await open(missing)).toBe(BlockStatus.badHandle);
  });

  runIf("who claims a volume shuts out who had it", async () => {
    const first = port;
    const opened = (await open(disk, nextWriter)) as OpenVolume;
    expect(opened.generation).toBe(1);
    // Once more, as the same writer: to see its size.
    expect(await open(disk, nextWriter)).toMatchObject({ generation: 1 });
    expect(await request(BlockOp.write, opened.handle, 0, 512)).toBe(BlockStatus.ok);
    port = makePort(path, 64);
    try {
      const later = (await open(disk, nextWriter)) as OpenVolume;
      expect(later.generation).toBe(2);
      expect(await request(BlockOp.write, later.handle, 0, 512)).toBe(BlockStatus.ok);
      // Without a claim a volume is looked at, and not written once somebody has it.
      const looked = await openDisk();
      expect(await request(BlockOp.read, looked, 0, 512)).toBe(BlockStatus.ok);
      expect(await request(BlockOp.write, looked, 0, 512)).toBe(BlockStatus.fenced);
      expect(await open(sealed, nextWriter)).toMatchObject({ readOnly: true, generation: 0 });
    } finally {
      port.end();
      port = first;
    }
    expect(await request(BlockOp.write, opened.handle, 0, 512)).toBe(BlockStatus.fenced);
    expect(await request(BlockOp.read, opened.handle, 0, 512)).toBe(BlockStatus.ok);
  });

  runIf("what is written is read back, at every length", async () => {
    const handle = await openDisk();
    for (const lengthBytes of [512, 4096, 8192 + 512, maxRequestBytes]) {
      const from = port.allocate(lengthBytes);
      const into = port.allocate(lengthBytes);
      const data = port.payload.subarray(from, from + lengthBytes);
      for (let index = 0; index < lengthBytes; index++)
        data[index] = (index * 31 + lengthBytes) & 255;
      expect(await request(BlockOp.write, handle, 3, lengthBytes, from)).toBe(BlockStatus.ok);
      expect(await request(BlockOp.read, handle, 3, lengthBytes, into)).toBe(BlockStatus.ok);
      expect(Buffer.compare(port.payload.subarray(into, into + lengthBytes), data)).toBe(0);
      port.release(from, lengthBytes);
      port.release(into, lengthBytes);
    }
  });

  runIf("discard, zeroes, flush and FUA", async () => {
    const handle = await openDisk();
    const at = port.allocate(4096);
    port.payload.fill(7, at, at + 4096);
    expect(await request(BlockOp.write, handle, 8, 4096, at, BlockFlag.forceUnitAccess)).toBe(0);
    expect(executor.flushCount).toBe(1);
    expect(await request(BlockOp.discard, handle, 8, 512)).toBe(BlockStatus.ok);
    expect(await request(BlockOp.writeZeroes, handle, 10, 512)).toBe(BlockStatus.ok);
    const written = executor.volumes.get(disk)!;
    expect([written[4096], written[4608], written[5120], written[5632]]).toEqual([0, 7, 0, 7]);
    expect(await request(BlockOp.flush, handle, 0, 0)).toBe(BlockStatus.ok);
    executor.flushStatus = BlockStatus.storeFailed;
    expect(await request(BlockOp.flush, handle, 0, 0)).toBe(BlockStatus.storeFailed);
    const forced = await request(BlockOp.write, handle, 8, 4096, at, BlockFlag.forceUnitAccess);
    expect(forced).toBe(BlockStatus.storeFailed);
  });

  runIf("a handle, run or length that is not the gateway's is refused", async () => {
    const handle = await openDisk();
    const readOnly = await openDisk(sealed);
    const sectors = diskBytes / 512;
    expect(await request(BlockOp.read, handle, sectors, 512)).toBe(BlockStatus.outOfRange);
    expect(await request(BlockOp.read, handle, sectors - 1, 1024)).toBe(BlockStatus.outOfRange);
    expect(await request(BlockOp.read, handle, 2 ** 45, 512)).toBe(BlockStatus.outOfRange);
    expect(await request(BlockOp.read, handle, 0, 0)).toBe(BlockStatus.invalid);
    expect(await request(BlockOp.read, handle, 0, 100)).toBe(BlockStatus.invalid);
    expect(await request(BlockOp.write, readOnly, 0, 512)).toBe(BlockStatus.readOnly);
    expect(await request(99 as BlockOp, handle, 0, 512)).toBe(BlockStatus.invalid);
    expect(await request(BlockOp.write, handle, 0, 512, 0, 0x40)).toBe(BlockStatus.invalid);
    expect(await request(BlockOp.read, handle + 70, 0, 512)).toBe(BlockStatus.badHandle);
    expect(await request(BlockOp.read, handle, 0, 512)).toBe(BlockStatus.ok);
  });

  runIf("a closed volume is no longer reached, and is closed at the store", async () => {
    const handle = await openDisk();
    port.close(handle);
    expect(await request(BlockOp.read, handle, 0, 512)).toBe(BlockStatus.badHandle);
    await until(() => executor.openCount === 0);
  });

  runIf("no more requests than entries; room again after a completion", async () => {
    const handle = await openDisk();
    for (let tag = 1000; tag < 1064; tag++) {
      expect(port.submit(BlockOp.read, handle, 0, 512, 0, 0, tag)).toBe(true);
    }
    expect(port.submit(BlockOp.read, handle, 0, 512, 0, 0, 1)).toBe(false);
    await until(() => completions.has(1063));
    expect(completions.size).toBe(64);
    expect(await request(BlockOp.read, handle, 0, 512)).toBe(BlockStatus.ok);
  });

  runIf("store gone with requests outstanding: they are done when it is back", async () => {
    const handle = await openDisk();
    const at = port.allocate(4096);
    port.payload.fill(9, at, at + 4096);
    await join_.stop();
    if (existsSync(path)) rmSync(path);
    for (let tag = 500; tag < 520; tag++) {
      expect(port.submit(BlockOp.write, handle, (tag - 500) * 8, 4096, at, 0, tag)).toBe(true);
    }
    port.kick();
    for (let turn = 0; turn < 5; turn++) {
      poll();
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    expect(completions.size).toBe(0);
    expect(port.connected).toBe(false);
    join_ = makeJoin();
    await join_.start(path, executor);
    await until(() => completions.size === 20);
    expect([...completions.values()]).toEqual(Array(20).fill(BlockStatus.ok));
    expect(
      executor.volumes
        .get(disk)!
        .subarray(0, 20 * 4096)
        .every((byte) => byte === 9),
    ).toBe(true);
    expect(await request(BlockOp.read, handle, 0, 512)).toBe(BlockStatus.ok);
  });

  runIf("a volume gone when the store is back: its requests end, others go on", async () => {
    const handle = await openDisk();
    const other = await openDisk(sealed);
    await join_.stop();
    if (existsSync(path)) rmSync(path);
    executor.volumes.delete(disk);
    port.submit(BlockOp.read, handle, 0, 512, 0, 0, 600);
    port.submit(BlockOp.read, other, 0, 512, 0, 0, 601);
    join_ = makeJoin();
    await join_.start(path, executor);
    await until(() => completions.has(600) && completions.has(601));
    expect(completions.get(600)).toBe(BlockStatus.badHandle);
    expect(completions.get(601)).toBe(BlockStatus.ok);
  });

  runIf("any mix of requests gives what plain memory gives", async () => {
    const handle = await openDisk();
    const model = new Uint8Array(diskBytes);
    const step = fc.record({
      op: fc.constantFrom(BlockOp.read, BlockOp.write, BlockOp.discard, BlockOp.flush),
      sector: fc.nat(200),
      sectors: fc.integer({ min: 1, max: 40 }),
      fill: fc.nat(255),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 30 }), async (steps) => {
        for (const { op, sector, sectors, fill } of steps) {
          const lengthBytes = op === BlockOp.flush ? 0 : sectors * 512;
          const at = lengthBytes > 0 ? port.allocate(lengthBytes) : 0;
          if (op === BlockOp.write) port.payload.fill(fill, at, at + lengthBytes);
          expect(await request(op, handle, sector, lengthBytes, at)).toBe(BlockStatus.ok);
          const part = model.subarray(sector * 512, sector * 512 + lengthBytes);
          if (op === BlockOp.write) part.fill(fill);
          if (op === BlockOp.discard) part.fill(0);
          if (op === BlockOp.read) {
            expect(Buffer.compare(port.payload.subarray(at, at + lengthBytes), part)).toBe(0);
          }
          if (lengthBytes > 0) port.release(at, lengthBytes);
        }
      }),
      { numRuns: 30 },
    );
  });
});
