/** A gateway that was taken over: whatever it says, the store goes on and gives nothing away. */
import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { VolumeId } from "#lib/model/ids.ts";
import {
  decodeHello,
  decodeOpened,
  encodeHello,
  encodeOpen,
  encodeRequest,
  Mode,
  openedBytes,
  protocolVersion,
  Refusal,
} from "#lib/wire/chunk/record.ts";
import { RingWord, ringLayout } from "#lib/wire/chunk/ring.ts";
import { native as maybe, type NativeMemory } from "#native";
import { BlockOp, BlockStatus } from "./block.ts";
import { MemoryExecutor } from "./memory-executor.ts";
import { StoreRingServer } from "./store-ring-server.ts";

const disk = "11111111-2222-3333-4444-555555555555" as VolumeId;
const secret = "22222222-2222-3333-4444-555555555555" as VolumeId;
const layout = ringLayout(16, 1 << 20);
const none = new Int32Array(0);

describe.skipIf(maybe === undefined)("hostile gateway", () => {
  const native = maybe!;
  let folder: string;
  let path: string;
  let executor: MemoryExecutor;
  let server: StoreRingServer;
  let opened: number[];
  let slots: number[];

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "keelson-hostile-"));
    path = join(folder, "ring.sock");
    executor = new MemoryExecutor();
    executor.volumes.set(disk, new Uint8Array(1 << 20).fill(1));
    executor.volumes.set(secret, new Uint8Array(1 << 20).fill(0x5e));
    server = new StoreRingServer(native, executor, path);
    opened = [];
    slots = [];
  });

  afterEach(() => {
    server.stop();
    for (const fd of opened) native.close(fd);
    for (const slot of slots) native.memoryRelease(slot);
    rmSync(folder, { recursive: true });
  });

  function connect(): number {
    const socket = native.unixConnect(path);
    opened.push(socket);
    return socket;
  }

  function receive(socket: number): Uint8Array {
    const bytes = new Uint8Array(256);
    const fds = new Int32Array(4);
    for (let turn = 0; turn < 4; turn++) server.turn(0);
    const length = native.receiveMessage(socket, bytes, fds);
    for (const fd of fds) if (fd >= 0) opened.push(fd);
    return bytes.subarray(0, Math.max(0, length));
  }

  const isCut = (socket: number) => {
    for (let turn = 0; turn < 4; turn++) server.turn(0);
    const bytes = new Uint8Array(256);
    let length = 1;
    while (length > 0) length = native.receiveMessage(socket, bytes, none);
    return length === 0 || length === -104;
  };

  const hello = (change: object) =>
    encodeHello({
      version: protocolVersion,
      mode: Mode.ring,
      entries: layout.entries,
      payloadBytes: layout.payloadBytes,
      refusal: 0,
      ...change,
    });

  interface Ring {
    readonly socket: number;
    readonly words: Int32Array;
    readonly memory: NativeMemory;
  }

  function join_(): Ring {
    const socket = connect();
    const memory = native.memoryCreate(layout.totalBytes, true);
    opened.push(memory.fd);
    slots.push(memory.slot);
    native.sendMessage(socket, hello({}), Int32Array.of(memory.fd));
    expect(decodeHello(receive(socket))?.refusal).toBe(Refusal.none);
    const words = new Int32Array(memory.buffer, layout.controlOffset, layout.controlBytes / 4);
    return { socket, words, memory };
  }

  function openDisk(ring: Ring, volumeId = disk): number {
    native.sendMessage(ring.socket, encodeOpen(volumeId, 0), none);
    const answer = receive(ring.socket);
    expect(answer.length).toBe(openedBytes);
    return decodeOpened(answer).handle;
  }

  const put = (
    ring: Ring,
    at: number,
    ...request: Parameters<typeof encodeRequest> extends [Int32Array, number, ...infer Rest]
      ? Rest
      : never
  ) => encodeRequest(ring.words, layout.requestsOffset / 4 + at * 16, ...request);

  const publish = (ring: Ring, position: number) => {
    Atomics.store(ring.words, RingWord.requestProducer / 4, position);
    for (let turn = 0; turn < 3; turn++) server.turn(0);
  };
  /** Status of the completion with that tag among the 16 that stand in the ring. */
  const statusOf = (ring: Ring, tag: number) => {
    const base = layout.completionsOffset / 4;
    for (let at = base; at < base + 64; at += 4)
      if (ring.words[at] === tag) return ring.words[at + 1];
    return undefined;
  };

  test.each([
    ["another version", { version: protocolVersion + 1 }, Refusal.version],
    ["an unknown mode", { mode: 9 }, Refusal.mode],
    ["entries past all bounds", { entries: 1 << 30 }, Refusal.sizes],
    ["payload past all bounds", { payloadBytes: 0xfff00000 }, Refusal.sizes],
    ["a ring without memory", {}, Refusal.mode],
  ])("%s is refused with the reason", (_, change, refusal) => {
    const socket = connect();
    native.sendMessage(socket, hello(change), none);
    expect(decodeHello(receive(socket))?.refusal).toBe(refusal);
    expect(isCut(socket)).toBe(true);
  });

  test("garbage, or half a hello, is cut off", () => {
    for (const bytes of [new Uint8Array(64).fill(255), hello({}).subarray(0, 63)]) {
      const socket = connect();
      native.sendMessage(socket, bytes, none);
      expect(decodeHello(receive(socket))?.refusal).toBe(Refusal.magic);
      expect(isCut(socket)).toBe(true);
    }
    expect(server.connectionCount).toBe(0);
  });

  test("memory that is too small, or that could be shrunk, is not mapped", () => {
    const small = native.memoryCreate(4096, true);
    const file = openSync(join(folder, "file"), "w+");
    ftruncateSync(file, layout.totalBytes);
    for (const fd of [small.fd, file]) {
      const socket = connect();
      native.sendMessage(socket, hello({}), Int32Array.of(fd));
      expect(isCut(socket)).toBe(true);
    }
    native.close(small.fd);
    native.memoryRelease(small.slot);
    closeSync(file);
  });

  test("more requests than the ring holds: cut off, its volumes closed", () => {
    const ring = join_();
    openDisk(ring);
    expect(executor.openCount).toBe(1);
    publish(ring, 17);
    expect(isCut(ring.socket)).toBe(true);
    expect(executor.openCount).toBe(0);
  });

  test("completions it never takes: cut off", () => {
    const ring = join_();
    const handle = openDisk(ring);
    for (let at = 0; at < 16; at++) put(ring, at, BlockOp.read, handle, 0, 512, 0, 0, at);
    publish(ring, 16);
    expect(executor.openCount).toBe(1);
    publish(ring, 32);
    expect(isCut(ring.socket)).toBe(true);
  });

  test("data requests on the socket of a ring are not served", () => {
    const ring = join_();
    const handle = openDisk(ring);
    const words = new Int32Array(16);
    encodeRequest(words, 0, BlockOp.write, handle, 0, 512, 0, 0, 1);
    native.sendMessage(ring.socket, new Uint8Array(words.buffer), none);
    expect(receive(ring.socket).length).toBe(0);
    expect(executor.volumes.get(disk)![0]).toBe(1);
  });

  test("runs around the payload's and the volume's ends", () => {
    const ring = join_();
    const handle = openDisk(ring);
    const bytes = layout.payloadBytes;
    const cases: [sector: number, length: number, payload: number, status: BlockStatus][] = [
      [0, 4096, bytes - 4096, BlockStatus.ok],
      [0, 4096, bytes - 4095, BlockStatus.invalid],
      [0, 4096, bytes, BlockStatus.invalid],
      [0, 4096, -4096, BlockStatus.invalid],
      [0, 4096, 0x7fffffff, BlockStatus.invalid],
      [0, bytes + 512, 0, BlockStatus.outOfRange],
      [2047, 512, 0, BlockStatus.ok],
      [2047, 1024, 0, BlockStatus.outOfRange],
      [2 ** 44 - 1, 512, 0, BlockStatus.outOfRange],
    ];
    cases.forEach(([sector, length, payload], at) => {
      put(ring, at, BlockOp.read, handle, sector, length, payload, 0, 100 + at);
    });
    publish(ring, cases.length);
    expect(cases.map((_, at) => statusOf(ring, 100 + at))).toEqual(cases.map((entry) => entry[3]));
  });

  test("a volume opened by another connection is not reached by its handle", () => {
    const other = join_();
    openDisk(other, secret);
    const ring = join_();
    put(ring, 0, BlockOp.read, 0, 0, 512, 0, 0, 100);
    put(ring, 1, BlockOp.read, -1, 0, 512, 0, 0, 101);
    put(ring, 2, BlockOp.flush, 1, 0, 0, 0, 0, 102);
    publish(ring, 3);
    expect([100, 101, 102].map((tag) => statusOf(ring, tag))).toEqual(
      Array(3).fill(BlockStatus.badHandle),
    );
    expect(new Uint8Array(ring.memory.buffer, 0, 512).every((byte) => byte === 0)).toBe(true);
  });

  test("any words in the ring: no other volume's data, and an honest gateway goes on", () => {
    const honest = join_();
    const good = openDisk(honest, secret);
    let position = 0;
    fc.assert(
      fc.property(fc.array(fc.integer(), { minLength: 64, maxLength: 64 }), (noise) => {
        const ring = join_();
        openDisk(ring);
        ring.words.set(noise, layout.requestsOffset / 4);
        publish(ring, 4);
        const payload = new Uint8Array(ring.memory.buffer, 0, layout.payloadBytes);
        expect(payload.includes(0x5e)).toBe(false);
        native.close(ring.socket);
        opened.splice(opened.indexOf(ring.socket), 1);
        put(honest, position % 16, BlockOp.read, good, 0, 512, 0, 0, 1000 + position);
        Atomics.store(honest.words, RingWord.completionConsumer / 4, position);
        publish(honest, ++position);
        expect(statusOf(honest, 999 + position)).toBe(BlockStatus.ok);
        for (const slot of slots.splice(1)) native.memoryRelease(slot);
      }),
      { numRuns: 50 },
    );
  });
});
