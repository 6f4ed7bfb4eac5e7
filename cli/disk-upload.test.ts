/** Uploads over connections that break, against a real store; and what a person sees of that. */
import type { ChildProcess } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { breakingProxy } from "#lib/rpc/breaking-proxy.fixture.ts";
import { TestNode } from "#services/api/platform.fixture.ts";
import type { Image, Task } from "#services/api/schema.ts";
import { startStore, stopStore } from "#services/api/store.fixture.ts";
import { keelsonOf, runKeelson } from "./run.fixture.ts";

const node = new TestNode();
const folder = mkdtempSync(join(tmpdir(), "keelson-upload-"));
const disk = randomBytes(24 << 20);
const file = join(folder, "disk.img");
let store: ChildProcess;

beforeAll(async () => {
  store = await startStore(node, "--create", "512M");
  await node.start();
  writeFileSync(file, disk);
});
afterAll(async () => {
  await node.stop();
  await stopStore(store);
  await node.remove();
  rmSync(folder, { recursive: true, force: true });
});

const imageNamed = async (name: string) =>
  ((await node.call("GET", `/images?name=${name}`)).body as Image[])[0];
const taskOf = async ({ id }: Image) =>
  ((await node.call("GET", `/tasks?subject=${id}`)).body as Task[])[0];

async function expectReady(name: string): Promise<void> {
  await expect.poll(async () => (await imageNamed(name)).state).toBe("ready");
  const copy = join(folder, `${name}.copy`);
  await keelsonOf(node, "images", "export", name, copy, "--format", "raw");
  expect(readFileSync(copy).equals(disk)).toBe(true);
  expect((await imageNamed(name)).receivedBytes).toBeNull();
}

/** Sends `disk` up to a byte, then breaks the connection, or leaves it silent. */
async function sendUpTo(image: Image, upTo: number, silent = false): Promise<() => void> {
  const sending = request(`${node.http}/api/v1/images/${image.id}/data`, {
    method: "PUT",
    headers: {
      authorization: `Bearer ${node.token}`,
      "content-type": "application/octet-stream",
      "content-length": disk.length,
    },
  });
  sending.on("error", () => {});
  sending.write(disk.subarray(0, upTo));
  await expect.poll(async () => (await imageNamed(image.name)).receivedBytes).toBe(upTo);
  if (!silent) sending.destroy();
  return () => sending.destroy();
}

const create = async (name: string) =>
  (await node.call("POST", "/images", { name, format: "raw" })).body as Image;

test("a connection that breaks again and again costs only what was under way", async () => {
  const proxy = await breakingProxy(Number(new URL(node.http).port), 7 << 20, "requests");
  try {
    const { status, stdout, stderr } = await runKeelson(
      node,
      ["images", "import", file, "--name", "broken", "--format", "raw"],
      "",
      { KEELSON_SERVER: `http://127.0.0.1:${proxy.port}` },
    );
    expect(status, stderr + stdout).toBe(0);
    expect(proxy.broken()).toBeGreaterThan(2);
    expect(proxy.broken()).toBeLessThan(12);
  } finally {
    proxy.server.close();
  }
  await expectReady("broken");
});

describe("one that was given up", () => {
  test("says so, keeps what came, over a restart too, and goes on by --resume", async () => {
    const image = await create("later");
    await sendUpTo(image, 10_000_001);
    await expect.poll(async () => (await taskOf(image)).state).toBe("failed");
    expect((await taskOf(image)).failure).toBe(
      "The upload broke off after 10000001 of 25165824 bytes. What came is kept for a day: continue it, or delete the image.",
    );
    await node.restart();
    expect(await imageNamed("later")).toMatchObject({
      ...{ state: "uploading", receivedBytes: 10_000_001, failure: null },
    });
    const small = join(folder, "small.img");
    writeFileSync(small, randomBytes(10_000_002));
    const wrong = await runKeelson(node, ["images", "import", small, "--resume", "later"]);
    expect(wrong).toMatchObject({ status: 1 });
    expect(wrong.stderr).toContain("The upload began with a file of 25165824 bytes");
    const said = await keelsonOf(node, "images", "import", file, "--resume", "later");
    expect(said).toContain("Image later: 24 MiB, ready.");
    await expectReady("later");
    const again = await runKeelson(node, ["images", "import", file, "--resume", "later"]);
    expect(again.stderr).toContain("The image later is ready, not uploading");
  });

  test("a restart in its midst only breaks it off", async () => {
    const image = await create("restarted");
    const end = await sendUpTo(image, 5_000_000, true);
    await node.restart();
    end();
    expect(await imageNamed("restarted")).toMatchObject({
      ...{ state: "uploading", receivedBytes: 5_000_000 },
    });
    await keelsonOf(node, "images", "import", file, "--resume", image.id);
    await expectReady("restarted");
  });

  test("what goes on takes the place of a sender that is silent", async () => {
    const image = await create("silent");
    const end = await sendUpTo(image, 5_000_000, true);
    await keelsonOf(node, "images", "import", file, "--resume", "silent");
    end();
    await expectReady("silent");
  });

  test("deleted, nothing of it is left; a wrong part or range changes nothing", async () => {
    const image = await create("deleted");
    await sendUpTo(image, 5_000_000);
    await expect.poll(async () => (await taskOf(image)).state).toBe("failed");
    const put = (range: string, length: number) =>
      fetch(`${node.http}/api/v1/images/${image.id}/data`, {
        method: "PUT",
        headers: {
          authorization: `Bearer ${node.token}`,
          "content-type": "application/octet-stream",
          "content-range": range,
        },
        body: Buffer.alloc(length),
      });
    expect((await put("bytes 4999999-25165823/25165824", 20_165_825)).status).toBe(409);
    expect((await put("bytes 5000000-5000009/25165824", 10)).status).toBe(400);
    expect((await imageNamed("deleted")).receivedBytes).toBe(5_000_000);
    await keelsonOf(node, "images", "delete", "deleted");
    expect(await imageNamed("deleted")).toBeUndefined();
    expect(readdirSync(join(node.state, "spool"))).toEqual([]);
  });
});
