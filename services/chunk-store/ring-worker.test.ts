import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { KeelsonError } from "#lib/model/errors.ts";
import type { VolumeId } from "#lib/model/ids.ts";
import { BlockOp, BlockStatus, type OpenVolume } from "#lib/volume/block.ts";
import { RingPort } from "#lib/volume/ring-port.ts";
import { native } from "#native";
import { RingWorkerClient } from "./ring-worker-client.ts";

const volume = "11111111-2222-3333-4444-555555555555" as VolumeId;
const entry = new URL("./ring-worker.fixture.ts", import.meta.url);

describe("the store's thread", () => {
  let folder: string;
  let path: string;
  let client: RingWorkerClient | undefined;

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "keelson-worker-"));
    path = join(folder, "ring.sock");
  });
  afterEach(async () => {
    await client?.stop();
    client = undefined;
    rmSync(folder, { recursive: true });
  });

  const start = async () => {
    client = await RingWorkerClient.start(entry, { path, volume });
    return client;
  };

  test("answers control messages at once, though it blocks in its loop", async () => {
    const worker = await start();
    await worker.call("warm");
    const startMs = performance.now();
    const answers = await Promise.all([1, 2, 3].map((number) => worker.call(number)));
    expect(answers).toEqual([{ echo: 1 }, { echo: 2 }, { echo: 3 }]);
    expect(performance.now() - startMs).toBeLessThan(150);
  });

  test("a socket that can't be bound is told as PORT_IN_USE", async () => {
    writeFileSync(path, "");
    await expect(start()).rejects.toMatchObject({ code: "PORT_IN_USE" });
  });

  test.each(["die", "throw"])(
    "a thread that ends (%s) is told, and calls are refused",
    async (how) => {
      const worker = await start();
      const failure = new Promise<KeelsonError>((resolve) => {
        worker.onFailure = resolve;
      });
      await expect(worker.call(how)).rejects.toThrow();
      expect((await failure).message).not.toBe("");
      await expect(worker.call("more")).rejects.toThrow();
    },
  );

  test.skipIf(native === undefined)("serves requests of another thread over the ring", async () => {
    await start();
    const port = new RingPort(native!, { path, entries: 16, payloadBytes: 1 << 20 });
    const loop = native!.loopCreate();
    port.attach(loop, 1);
    const done = new Map<number, BlockStatus>();
    let opened: OpenVolume | BlockStatus | undefined;
    let lost = 0;
    const until = (condition: () => boolean) => {
      const endMs = performance.now() + 30_000;
      while (!condition()) {
        if (performance.now() > endMs) throw new Error("nothing happened for half a minute");
        port.kick();
        port.poll((tag, status) => done.set(tag, status));
        if (condition()) continue;
        const beganMs = performance.now();
        native!.loopWait(loop, new Int32Array(8), 1000, 0);
        if (performance.now() - beganMs > 900) lost++;
      }
    };
    port.open(volume, (result) => {
      opened = result;
    });
    until(() => opened !== undefined);
    const { handle } = opened as OpenVolume;
    for (let tag = 0; tag < 1000; tag++) {
      expect(port.submit(BlockOp.write, handle, tag, 512, 0, 0, tag)).toBe(true);
      until(() => done.has(tag));
    }
    // A lost wake-up costs the whole timeout of a wait; a machine that stands still a second, too.
    expect(lost).toBeLessThan(3);
    expect([...done.values()].every((status) => status === BlockStatus.ok)).toBe(true);
    port.end();
    native!.close(loop);
  });
});
