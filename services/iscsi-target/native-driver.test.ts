/** The driver with a core that echoes: what matters here is that no byte is lost or sent twice. */
import { connect, createServer, type Socket } from "node:net";
import { Worker } from "node:worker_threads";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { RingPort } from "#lib/volume/ring-port.ts";
import { native } from "#native";
import {
  type DrivenCore,
  type Driver,
  type DriverHost,
  maxConnections,
  SendArea,
  sendRowIndex,
  sendRowInts,
  sendRows,
  type Wake,
} from "./driver.ts";
import { createNativeDriver, createNativeWake } from "./native-driver.ts";

const windowBytes = 16 * 1024;

/** Echoes 4-byte words; takes no more than a window of them before it has sent some. */
class EchoCore implements DrivenCore {
  readonly headers = new Uint8Array(maxConnections * windowBytes);
  readonly queues = {
    rows: new Int32Array(maxConnections * sendRows * sendRowInts),
    heads: new Int32Array(maxConnections),
    tails: new Int32Array(maxConnections),
  };
  readonly host: DriverHost;
  readonly ended: number[] = [];
  readonly portals: string[] = [];
  stalls = 0;
  private readonly filled = new Int32Array(maxConnections);
  private readonly held = new Uint8Array(maxConnections);
  private next = 0;

  constructor(host: DriverHost) {
    this.host = host;
  }

  accepted(_remote: string, portal: string): number {
    this.portals.push(portal);
    if (this.next === 8) return -1;
    const id = this.next++;
    this.queues.heads[id] = this.queues.tails[id] = 0;
    this.filled[id] = 0;
    return id;
  }

  received(id: number, buffer: Uint8Array, start: number, end: number): number {
    const whole = start + ((end - start) & ~3);
    const take = Math.min(whole - start, windowBytes - this.filled[id]);
    if (take === 0) {
      this.held[id] = whole > start ? 1 : 0;
      this.stalls += this.held[id];
      return start;
    }
    this.held[id] = take < whole - start ? 1 : 0;
    this.stalls += this.held[id];
    const bytes = buffer.subarray(start, start + take);
    const offset = id * windowBytes + this.filled[id];
    this.headers.set(bytes, offset);
    this.filled[id] += take;
    const { rows, heads, tails } = this.queues;
    const wasEmpty = heads[id] === tails[id];
    // Small rows, so that a send has many parts.
    for (let at = 0; at < take; at += 64) {
      rows.set(
        [SendArea.headers, offset + at, Math.min(64, take - at)],
        sendRowIndex(id, tails[id]),
      );
      tails[id]++;
    }
    if (wasEmpty) this.host.sendReady(id);
    if (bytes.includes(0xee)) this.host.close(id, true);
    if (bytes.includes(0xdd)) this.host.close(id, false);
    return start + take;
  }

  sent(id: number, bytes: number): void {
    const { rows, heads, tails } = this.queues;
    for (let rest = bytes; rest > 0; ) {
      const at = sendRowIndex(id, heads[id]);
      const part = Math.min(rest, rows[at + 2]);
      rows[at + 1] += part;
      rows[at + 2] -= part;
      rest -= part;
      if (rows[at + 2] === 0) heads[id]++;
    }
    if (heads[id] === tails[id]) {
      heads[id] = tails[id] = 0;
      this.filled[id] = 0;
      if (this.held[id] === 1) this.host.resume(id);
      this.held[id] = 0;
    }
  }

  stalled = (id: number) => this.held[id] === 1;
  directBytes = () => 0;
  directOffset = () => 0;
  receivedDirect(): void {}
  closed(id: number): void {
    this.ended.push(id);
  }
  pollStore = () => 0;
  endBatch(): void {}
  tick(): void {}
}

describe.skipIf(native === undefined)("native driver", () => {
  let core: EchoCore;
  let port: RingPort;
  let driver: Driver;
  let address: number;
  let wake: Wake;
  let waker: Worker;

  // The clients live on the thread that the driver blocks: another one keeps waking it.
  beforeAll(() => {
    wake = createNativeWake()!;
    const index = new URL("../../native/index.ts", import.meta.url).href;
    waker = new Worker(
      `import(${JSON.stringify(index)}).then(({ native }) =>
        setInterval(() => native.eventSignal(${wake.handle}), 2));`,
      { eval: true },
    );
  });
  afterAll(async () => {
    await waker.terminate();
    wake.close();
  });

  beforeEach(async () => {
    port = new RingPort(native!, {
      path: "/nonexistent/ring.sock",
      entries: 16,
      payloadBytes: 1 << 20,
    });
    driver = createNativeDriver({
      createCore: (host) => {
        core = new EchoCore(host);
        return core;
      },
      port,
      payload: port.payload,
      storeHandle: undefined,
      wakeHandle: wake.handle,
    });
    [{ port: address }] = await driver.listen([{ host: "127.0.0.1", port: 0 }]);
  });
  afterEach(async () => {
    await driver.stop();
    port.end();
  });

  const open = () =>
    new Promise<Socket>((resolve) => {
      const socket = connect(address, "127.0.0.1", () => resolve(socket));
      socket.on("error", () => {});
    });
  const read = async (socket: Socket, bytes: number) => {
    const parts: Buffer[] = [];
    for (let got = 0; got < bytes; ) {
      const part = socket.read() as Buffer | null;
      if (part === null) await new Promise((resolve) => setTimeout(resolve, 1));
      else {
        parts.push(part);
        got += part.length;
      }
    }
    return Buffer.concat(parts);
  };
  const ended = (socket: Socket) =>
    new Promise<void>((resolve) => {
      socket.on("close", () => resolve());
      socket.resume();
    });
  const pattern = (length: number) => {
    const bytes = Buffer.alloc(length);
    for (let at = 0; at < length; at += 4) bytes.writeUInt32LE((at / 4) & 0x7f7f7f, at);
    return bytes;
  };

  test("bytes come back whole from several connections, through stalls and a slow reader", async () => {
    const sockets = await Promise.all([open(), open(), open()]);
    const data = pattern(3 << 20);
    for (const socket of sockets) socket.write(data);
    // Nobody reads for a while: the driver's sends meet full sockets.
    await new Promise((resolve) => setTimeout(resolve, 300));
    for (const socket of sockets) {
      expect(Buffer.compare(await read(socket, data.length), data)).toBe(0);
    }
    expect(core.stalls).toBeGreaterThan(0);
    for (const socket of sockets) socket.destroy();
  });

  test("words cut anywhere are put together", async () => {
    const socket = await open();
    socket.setNoDelay(true);
    const data = pattern(64);
    for (const byte of data) {
      socket.write(Buffer.of(byte));
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect(Buffer.compare(await read(socket, 64), data)).toBe(0);
    socket.destroy();
  });

  test("a close that drains sends what is queued first; one that doesn't, closes", async () => {
    const draining = await open();
    draining.write(Buffer.from([1, 2, 3, 0xee]));
    expect([...(await read(draining, 4))]).toEqual([1, 2, 3, 0xee]);
    await ended(draining);
    const cut = await open();
    cut.write(Buffer.from([1, 2, 3, 0xdd]));
    await ended(cut);
    expect(core.ended).toEqual([0, 1]);
  });

  test("a peer that goes away is told to the core once", async () => {
    const socket = await open();
    socket.write(pattern(1 << 20));
    await new Promise((resolve) => setTimeout(resolve, 50));
    socket.resetAndDestroy();
    const endMs = performance.now() + 5000;
    while (core.ended.length === 0 && performance.now() < endMs) {
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    expect(core.ended).toEqual([0]);
  });

  test("a connection too many is closed at once", async () => {
    const sockets = await Promise.all(Array.from({ length: 8 }, open));
    await ended(await open());
    expect(new Set(core.portals)).toEqual(new Set([`127.0.0.1:${address}`]));
    for (const socket of sockets) socket.destroy();
  });

  test("a port in use is said with its name", async () => {
    const other = createServer();
    await new Promise<void>((resolve) => other.listen(0, "127.0.0.1", resolve));
    const { port: taken } = other.address() as { port: number };
    await expect(driver.listen([{ host: "127.0.0.1", port: taken }])).rejects.toMatchObject({
      code: "PORT_IN_USE",
      message: expect.stringContaining(`127.0.0.1:${taken}`),
    });
    other.close();
  });
});
