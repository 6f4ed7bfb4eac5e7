import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { NbdClient } from "#lib/nbd/client.ts";
import { Random } from "#lib/sim/random.ts";
import {
  encodeExportInfo,
  encodeGreeting,
  encodeOptionReply,
  encodeReply,
  NbdError,
  Option,
  OptionReply,
} from "#lib/wire/nbd/nbd.ts";
import { inTurn, meets, versus } from "./comparison.ts";
import { Engine } from "./engine.ts";
import { loadPattern, scaledDisk, shuffled, writeBlocks } from "./scaled.ts";

const blockBytes = 4096;
let directory = "";

beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), "keelson-peers-test-"));
});
afterAll(() => {
  rmSync(directory, { recursive: true, force: true });
});

describe("figures", () => {
  test("a ratio is of one round's two sides, not of two medians", () => {
    const { value } = versus("x", "us", [1, 10, 2], [1, 20, 1]);
    expect(value).toEqual({ min: 0.5, median: 1, max: 2 });
  });

  test("a bar is for the median, an exact one for every round", () => {
    const value = { min: 0, median: 1, max: 9 };
    expect(meets({ value, bar: null })).toBe(null);
    expect(meets({ value, bar: { atMost: 1 } })).toBe(true);
    expect(meets({ value, bar: { atMost: 0.9 } })).toBe(false);
    expect(meets({ value, bar: { atLeast: 1 } })).toBe(true);
    expect(meets({ value, bar: { atLeast: 1.1 } })).toBe(false);
    expect(meets({ value, bar: { exactly: 1 } })).toBe(false);
    expect(meets({ value: { min: 1, median: 1, max: 1 }, bar: { exactly: 1 } })).toBe(true);
  });

  test("each side goes first every other round, and the first round does not count", async () => {
    const order: string[] = [];
    const note = (name: string) => () => order.push(name);
    const options = { rounds: 2, progress: () => {} };
    const values = await inTurn(options, "", { a: note("a"), b: note("b") });
    expect(order.join("")).toBe("ababba");
    expect(values).toEqual({ a: [3, 6], b: [4, 5] });
  });
});

test("shuffled numbers are the same numbers", () => {
  for (const bits of [2, 8, 14, 17]) {
    const places = new Set(Array.from({ length: 2 ** bits }, (_, i) => shuffled(i, bits)));
    expect(places.size).toBe(2 ** bits);
    expect([...places].every((place) => place >= 0 && place < 2 ** bits)).toBe(true);
  }
});

describe("a scaled disk", () => {
  test("reads back what was written, pattern or not, whole blocks or parts", () => {
    const sizeBytes = 64 * blockBytes;
    const disk = scaledDisk(join(directory, "model"), sizeBytes);
    const model = new Uint8Array(sizeBytes);
    const random = new Random(1);
    for (let step = 0; step < 2000; step++) {
      const sectors = 1 + random.below(24);
      const position = random.below(sizeBytes / 512 - sectors) * 512;
      const whole = random.oneIn(2);
      const at = whole ? position - (position % blockBytes) : position;
      const from = new Uint8Array(whole ? blockBytes * (1 + random.below(2)) : sectors * 512);
      const bytes = from.subarray(0, Math.min(from.length, sizeBytes - at));
      for (let i = 0; i < bytes.length; i += blockBytes) {
        if (random.oneIn(3)) bytes.fill(random.below(256), i);
        else bytes.set(disk.pattern.subarray(0, bytes.length - i), i);
      }
      disk.keepAll = random.oneIn(4);
      const cut = random.below(bytes.length / 512) * 512;
      const lengths = Int32Array.of(cut, bytes.length - cut);
      const positions = Float64Array.of(at, at + cut);
      const good = random.oneIn(2)
        ? disk.write(bytes, 0, bytes.length, at)
        : disk.writeRows(bytes, Int32Array.of(0, cut), lengths, positions, 2);
      expect(good).toBe(true);
      model.set(bytes, at);
    }
    const found = new Uint8Array(sizeBytes - 512);
    expect(disk.read(found, 0, found.length, 512)).toBe(true);
    expect(Buffer.compare(found, model.subarray(512))).toBe(0);
    disk.end();
    expect(existsSync(join(directory, "model"))).toBe(false);
  });

  test("keeps a store over a kill -9, which reads as it was written", () => {
    const disk = scaledDisk(join(directory, "store"), 4 * 2 ** 30);
    const { file } = disk;
    const first = Engine.create({ file, disk }, 2 ** 30);
    loadPattern(first, disk);
    writeBlocks(first, 32, 2 ** 14, (i) => shuffled(i, 14) * 16 * blockBytes, 4);
    first.drop();
    const second = Engine.mount({ file, disk });
    second.shape("read", blockBytes, 1);
    for (let i = 0; i < 100; i++) {
      second.payload.fill(0);
      second.aim(0, i * 16 * blockBytes);
      second.execute();
      expect(Buffer.compare(second.payload.subarray(0, blockBytes), disk.pattern)).toBe(0);
    }
    second.stop();
    disk.end();
  });
});

test("the NBD client says that the server refused a write", async () => {
  const path = join(directory, "nbd.sock");
  const server = createServer((socket) => {
    socket.write(encodeGreeting());
    // Flags and OPT_GO come in one or two pieces; the requests only after its answer.
    socket.once("data", () => {
      socket.write(encodeOptionReply(Option.go, OptionReply.info, encodeExportInfo(2 ** 20, 1)));
      socket.write(encodeOptionReply(Option.go, OptionReply.acknowledged));
      setTimeout(() => {
        socket.write(encodeReply(0n, NbdError.none));
        socket.write(encodeReply(1n, NbdError.noSpace));
      }, 50);
    });
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  const client = await NbdClient.connect(path, "disk");
  expect(client.sizeBytes).toBe(2 ** 20);
  await expect(client.write([0, blockBytes], new Uint8Array(blockBytes))).rejects.toThrow(
    "NBD write: error 28.",
  );
  client.close();
  server.close();
});
