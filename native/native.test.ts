import { spawnSync } from "node:child_process";
import { createSocket } from "node:dgram";
import {
  closeSync,
  existsSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Worker } from "node:worker_threads";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Errno, native as maybe, Poll, Row, udpSocket } from "./index.ts";

const folder = mkdtempSync(join(tmpdir(), "keelson-native-"));
afterAll(() => rmSync(folder, { recursive: true }));
const node = process.execPath;
const index = join(import.meta.dirname, "index.ts");

/** Output of a module run in a process of its own. */
function run(code: string, environment: NodeJS.ProcessEnv = {}): string {
  const result = spawnSync(node, ["--input-type=module", "-e", code], {
    encoding: "utf8",
    env: { ...process.env, ...environment },
  });
  return `${result.stdout}${result.stderr}`.trim();
}

describe("loading", () => {
  const show = `const { native, notify, udpSocket } = await import(${JSON.stringify(index)});
    notify("READY=1"); console.log(native === undefined, udpSocket({ port: 0 }));`;
  test("KEELSON_NO_NATIVE=1 turns it off", () => {
    expect(run(show, { KEELSON_NO_NATIVE: "1" })).toBe("true undefined");
  });
  test("a file that is no addon is as good as none", () => {
    const path = join(folder, "broken.node");
    writeFileSync(path, "not an addon");
    expect(run(show, { KEELSON_NATIVE: path })).toBe("true undefined");
  });
});

describe.skipIf(maybe === undefined)("the addon", () => {
  const native = maybe!;

  describe("arguments", () => {
    const junk = [
      undefined,
      null,
      -1,
      1.5,
      Number.NaN,
      1e20,
      "x",
      {},
      [],
      new Uint8Array(3),
      2 ** 31,
    ];
    const skip = new Set(["close", "eventDrain"]);
    test("junk throws or gives an errno, and never ends the process", () => {
      for (const name of Object.keys(native) as (keyof typeof native)[]) {
        // Small integers are valid descriptors of this very process: not to be closed or read.
        if (skip.has(name)) continue;
        const call = native[name] as (...values: unknown[]) => unknown;
        for (const first of junk) {
          for (const second of junk) {
            for (const rest of junk) {
              try {
                call(first, second, rest, rest, rest);
              } catch (error) {
                expect(error).toBeInstanceOf(Error);
              }
            }
          }
        }
      }
    });
    test("what was wrong is said", () => {
      expect(() => native.close(-1)).toThrow("fd must be an integer from 0 to 2147483647");
      expect(() => native.tcpListen("10.0.0", 0, 1)).toThrow(
        "address must be an IPv4 or IPv6 address",
      );
      expect(() => native.unixConnect(join(folder, "nobody"))).toThrow("ENOENT");
      expect(() => (native.crc32c as unknown as () => void)()).toThrow("too few arguments");
    });
  });

  describe("checksums", () => {
    const data = Uint8Array.from({ length: 6000 }, (_, i) => (i * 167 + (i >> 3) * 31) & 255);
    test("are the table's, of every length, from anywhere, continued or not", () => {
      for (let length = 0; length <= 5000; length += length < 1100 ? 1 : 97) {
        for (const from of [0, 1, 13, 64]) {
          const bytes = data.subarray(from, from + length);
          for (const initial of [0, 0xdeadbeef]) {
            expect(native.crc32c(bytes, initial)).toBe(native.crc32cTable(bytes, initial));
          }
        }
      }
      expect(native.crc32c(new TextEncoder().encode("123456789"), 0)).toBe(0xe3069283);
    });
    test("of blocks: each its own; none past the end", () => {
      const sums = new Uint32Array(3);
      native.crc32cBlocks(data, Int32Array.of(0, 1904, 7), sums, 2);
      expect([...sums]).toEqual([
        native.crc32cTable(data.subarray(0, 4096), 0),
        native.crc32cTable(data.subarray(1904, 6000), 0),
        0,
      ]);
      expect(() => native.crc32cBlocks(data, Int32Array.of(1905), sums, 1)).toThrow("offsets");
      expect(() => native.crc32cBlocks(data, Int32Array.of(-1), sums, 1)).toThrow("offsets");
      expect(() => native.crc32cBlocks(data, Int32Array.of(0), sums, 2)).toThrow("count");
    });
  });

  describe("rows", () => {
    const bytes = 1 << 20;
    let slot: number;
    let data: Uint8Array;
    let fd: number;
    const rows = new Int32Array(16 * Row.words);
    const set = (row: number, ...values: number[]) => rows.set(values, row * Row.words);
    const result = (row: number) => rows[row * Row.words + 7];
    beforeAll(() => {
      const memory = native.memoryCreate(bytes, false);
      slot = memory.slot;
      data = new Uint8Array(memory.buffer);
      fd = openSync(join(folder, "rows"), "w+");
    });
    afterAll(() => {
      closeSync(fd);
      native.memoryRelease(slot);
    });

    test("vectored write, reads", () => {
      data.fill(1, 0, 4096).fill(2, 8192, 12288);
      set(0, Row.write | Row.more, fd, slot, 0, 4096, 512);
      set(1, Row.write, fd, slot, 8192, 4096, 0);
      set(2, Row.read, fd, slot, 65536, 8192, 512);
      native.rowsRun(rows, 3);
      expect([result(0), result(2)]).toEqual([8192, 8192]);
      expect(data[65536]).toBe(1);
      expect(data[65536 + 8191]).toBe(2);
    });

    test("file offsets past 4 GiB", () => {
      set(0, Row.write, fd, slot, 0, 512, 4096, 3);
      set(1, Row.read, fd, slot, 512, 512, 4096, 3);
      set(2, Row.punchHole, fd, 0, 0, 4096, 4096, 3);
      native.rowsRun(rows, 3);
      expect([result(0), result(1), result(2)]).toEqual([512, 512, 0]);
    });

    test("memory outside of a slot is never touched", () => {
      const bad: number[][] = [
        [slot, bytes - 100, 101],
        [slot, -1, 1],
        [slot, 0, -1],
        [slot, 1, bytes],
        [999_999, 0, 1],
        [-2, 0, 1],
        [-1, 0, 1],
      ];
      for (const [of, offset, length] of bad) {
        set(0, Row.read, fd, of, offset, length, 0);
        native.rowsRun(rows, 1);
        expect(result(0)).toBe(Errno.invalid);
      }
      set(0, 77, fd, slot, 0, 1);
      set(1, Row.read, 9999, slot, 0, 1);
      native.rowsRun(rows, 2);
      expect([result(0), result(1)]).toEqual([Errno.invalid, Errno.badDescriptor]);
      expect(() => native.rowsRun(rows, 17)).toThrow("count");
    });

    test("slot -1 is the call's own memory", () => {
      const extra = new Uint8Array(100).fill(5);
      set(0, Row.write, fd, -1, 0, 100, 0);
      set(1, Row.read, fd, slot, 0, 100, 0);
      set(2, Row.read, fd, -1, 1, 100, 0);
      native.rowsRun(rows, 3, extra);
      expect([result(0), result(1), result(2)]).toEqual([100, 100, Errno.invalid]);
      expect(data[99]).toBe(5);
    });

    test.each([
      ["in the page cache or not", Row.noWait],
      ["of which none is in it", 0],
    ])("reads together, %s: each in its place, more than go at once, bad ones too", (_, noWait) => {
      const count = 600;
      const many = new Int32Array(count * Row.words);
      data.fill(0);
      for (let i = 0; i < count; i++) data.fill(i % 251, i * 512, (i + 1) * 512);
      set(0, Row.write, fd, slot, 0, count * 512, 0, 0);
      set(1, Row.forget, fd, slot, 0, count * 512, 0, 0);
      native.rowsRun(rows, 2);
      data.fill(255);
      for (let i = 0; i < count; i++) {
        const row = [
          Row.read | Row.together | noWait,
          fd,
          slot,
          (count - 1 - i) * 512,
          512,
          i * 512,
        ];
        many.set(row, i * Row.words);
      }
      many[10 * Row.words + 1] = 9999;
      many[11 * Row.words + 4] = -1;
      many[12 * Row.words + 6] = 16;
      native.rowsRun(many, count);
      for (let i = 0; i < count; i++) {
        const wanted = { 10: Errno.badDescriptor, 11: Errno.invalid, 12: 0 }[i] ?? 512;
        expect(many[i * Row.words + 7], `row ${i}`).toBe(wanted);
        if (wanted === 512) expect(data[(count - 1 - i) * 512]).toBe(i % 251);
      }
    });

    test("a detached ArrayBuffer leaves the slot good", () => {
      const memory = native.memoryCreate(4096, false);
      memory.buffer.transfer();
      set(0, Row.read, fd, memory.slot, 0, 100, 0);
      native.rowsRun(rows, 1);
      expect(result(0)).toBe(100);
      native.memoryRelease(memory.slot);
      native.rowsRun(rows, 1);
      expect(result(0)).toBe(Errno.invalid);
      expect(() => native.memoryRelease(memory.slot)).toThrow("slot");
    });
  });

  test("a socket's end, and a full one, are results", () => {
    const path = join(folder, "stream.sock");
    const listener = native.unixListen(path, 0o600);
    expect(native.accept(listener)).toBe(Errno.again);
    const client = native.unixConnect(path);
    const server = native.accept(listener);
    const extra = new Uint8Array(1 << 20);
    const rows = new Int32Array(Row.words);
    const send = (operation: number, fd: number) => {
      rows.set([operation, fd, -1, 0, extra.length]);
      native.rowsRun(rows, 1, extra);
      return rows[7];
    };
    expect(send(Row.receive, server)).toBe(Errno.again);
    let sent = 0;
    for (let part = 0; part >= 0; part = send(Row.send, client)) sent += part;
    expect(sent).toBeGreaterThan(1000);
    expect(rows[7]).toBe(Errno.again);
    native.close(server);
    expect(send(Row.send, client)).toBe(-32);
    for (const fd of [client, listener]) native.close(fd);
  });

  test("descriptors pass to a peer, with memory that both see and nobody can shrink", () => {
    const path = join(folder, "pass.sock");
    const listener = native.unixListen(path, 0o600);
    const client = native.unixConnect(path);
    const server = native.accept(listener);
    const memory = native.memoryCreate(8192, true);
    expect(
      native.sendMessage(client, new Uint8Array([7]), Int32Array.of(memory.fd, memory.fd)),
    ).toBe(1);
    const fds = new Int32Array(1);
    const inbox = new Uint8Array(10);
    expect(native.receiveMessage(server, inbox, fds)).toBe(1);
    expect(inbox[0]).toBe(7);
    const view = native.memoryMap(fds[0], 8192);
    new Uint8Array(memory.buffer)[100] = 42;
    expect(new Uint8Array(view.buffer)[100]).toBe(42);
    expect(() => native.memoryMap(fds[0], 16384)).toThrow("of that size");
    const file = openSync(join(folder, "plain"), "w+");
    expect(() => native.memoryMap(file, 4096)).toThrow();
    closeSync(file);
    for (const fd of [client, server, listener, memory.fd, fds[0]]) native.close(fd);
    native.memoryRelease(memory.slot);
    native.memoryRelease(view.slot);
  });

  test("a wait ends by eventfd, by a ring's word, or in time", () => {
    const loop = native.loopCreate();
    const event = native.eventCreate();
    const events = new Int32Array(8);
    native.loopSet(loop, event, 5, Poll.in);
    expect(native.loopWait(loop, events, 0, 0)).toBe(0);
    native.eventSignal(event);
    expect(native.loopWait(loop, events, 1000, 0)).toBe(1);
    expect([...events.subarray(0, 2)]).toEqual([5, Poll.in]);
    expect(native.eventDrain(event)).toBe(0);
    expect(native.eventDrain(event)).toBe(Errno.again);
    const memory = native.memoryCreate(4096, true);
    const words = new Int32Array(memory.buffer);
    native.ringWatch(memory.slot, 0, 64, 128);
    expect(() => native.ringWatch(memory.slot, 4096, 0, 0)).toThrow("producerOffset");
    expect(() => native.ringWatch(memory.slot, 2, 0, 0)).toThrow("multiple of 4");
    let startMs = performance.now();
    native.loopWait(loop, events, 30, 50);
    expect(performance.now() - startMs).toBeGreaterThan(25);
    expect(words[32]).toBe(0);
    words[0] = 1;
    startMs = performance.now();
    native.loopWait(loop, events, 1000, 0);
    expect(performance.now() - startMs).toBeLessThan(500);
    native.close(memory.fd);
    native.memoryRelease(memory.slot);
    startMs = performance.now();
    native.loopWait(loop, events, 20, 0);
    expect(performance.now() - startMs).toBeGreaterThan(15);
    for (const fd of [loop, event]) native.close(fd);
  });

  test("flushes finish on their thread, errors come back", () => {
    const loop = native.loopCreate();
    const event = native.flushStart();
    expect(native.flushStart()).toBe(event);
    native.loopSet(loop, event, 1, Poll.in);
    const fd = openSync(join(folder, "flush"), "w");
    // What only begins is told of by nobody, whatever becomes of it.
    native.flushBegin(fd);
    expect(native.flushSubmit(fd, 11)).toBe(true);
    expect(native.flushSubmit(9999, 12)).toBe(true);
    native.flushBegin(9999);
    const out = new Int32Array(128);
    const results = new Map<number, number>();
    while (results.size < 2) {
      expect(native.loopWait(loop, new Int32Array(2), 1000, 0)).toBe(1);
      const count = native.flushReap(out);
      for (let row = 0; row < count; row++) results.set(out[2 * row], out[2 * row + 1]);
    }
    expect(results.get(11)).toBe(0);
    expect(results.get(12)).toBe(9);
    closeSync(fd);
    native.close(loop);
  });

  test("what is read ahead is in the page cache then; of a file that is not there nobody hears", async () => {
    const event = native.flushStart();
    expect(event).toBeGreaterThanOrEqual(0);
    const path = join(folder, "ahead");
    writeFileSync(path, new Uint8Array(131_072).fill(7), { flush: true });
    const fd = openSync(path, "r");
    const memory = native.memoryCreate(131_072, false);
    const rows = new Int32Array(Row.words);
    const run = (operation: number) => {
      rows.set([operation, fd, memory.slot, 0, 131_072, 0, 0, 0]);
      native.rowsRun(rows, 1);
      return rows[7];
    };
    expect(run(Row.forget)).toBe(0);
    native.readAhead(9999, 0, 131_072);
    native.readAhead(fd, 0, 131_072);
    await expect.poll(() => run(Row.read | Row.noWait), { timeout: 10_000 }).toBe(131_072);
    expect(new Uint8Array(memory.buffer).every((byte) => byte === 7)).toBe(true);
    expect(() => native.readAhead(fd, -1, 1)).toThrow(/position/);
    native.memoryRelease(memory.slot);
    closeSync(fd);
  });

  test("each worker has its own; one that blocks can be ended", async () => {
    const code = `const { parentPort } = require("node:worker_threads");
      import(${JSON.stringify(index)}).then(({ native }) => {
        const memory = native.memoryCreate(4096, true);
        native.flushStart();
        const loop = native.loopCreate();
        parentPort.postMessage(memory.slot);
        for (;;) native.loopWait(loop, new Int32Array(2), 1000, 0);
      });`;
    const slots = await Promise.all(
      [1, 2].map(async () => {
        const worker = new Worker(code, { eval: true });
        const slot = await new Promise((resolve) => worker.once("message", resolve));
        await worker.terminate();
        return slot;
      }),
    );
    expect(slots).toEqual([0, 0]);
  });

  test("a UDP socket on one interface, for dgram", async () => {
    const fd = udpSocket({ interface: "lo", address: "127.0.0.1", port: 0, reuse: true })!;
    const socket = createSocket("udp4");
    const received = new Promise((resolve) =>
      socket.once("message", (bytes) => resolve(String(bytes))),
    );
    await new Promise<void>((resolve) => socket.bind({ fd }, resolve));
    socket.send("hello", socket.address().port, "127.0.0.1");
    expect(await received).toBe("hello");
    socket.close();
    expect(() => udpSocket({ interface: "nosuchdevice0", port: 0 })).toThrow("SO_BINDTODEVICE");
  });

  test.each(["path", "abstract"])("sd_notify to a socket: %s", (kind) => {
    const address = kind === "path" ? join(folder, "notify") : `@keelson-${process.pid}`;
    // Node has no datagram sockets of this family; perl-base is on every Debian.
    const code = `use Socket;
my $address = shift;
socket(my $socket, AF_UNIX, SOCK_DGRAM, 0) or die $!;
my $path = $address =~ s/^@/\\0/r;
bind($socket, pack("S a*", AF_UNIX, $path)) or die $!;
$ENV{NOTIFY_SOCKET} = $address;
system(@ARGV);
alarm 10;
recv($socket, my $text, 100, 0);
print $text;`;
    const call = `(await import(${JSON.stringify(index)})).notify("READY=1\\nSTATUS=x")`;
    const result = spawnSync(
      "perl",
      ["-e", code, address, node, "--input-type=module", "-e", call],
      {
        encoding: "utf8",
      },
    );
    expect(result.stdout.trim()).toBe("READY=1\nSTATUS=x");
  });
});

test("a second build does nothing", () => {
  const build = join(import.meta.dirname, "build.ts");
  const addon = join(import.meta.dirname, "../build/keelson.node");
  spawnSync(node, [build]);
  if (!existsSync(addon)) return;
  const before = readFileSync(`${addon}.stamp`, "utf8");
  const result = spawnSync(node, [build], { env: { ...process.env, PATH: "/nonexistent" } });
  expect(result.status).toBe(0);
  expect(String(result.stderr)).toBe("");
  expect(readFileSync(`${addon}.stamp`, "utf8")).toBe(before);
});
