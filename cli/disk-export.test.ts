/** Snapshots and images as files: by the CLI, by curl-like requests, and over broken connections. */
import { type ChildProcess, spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import {
  existsSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { NbdClient } from "#lib/nbd/client.ts";
import { breakingProxy } from "#lib/rpc/breaking-proxy.fixture.ts";
import { TestNode } from "#services/api/platform.fixture.ts";
import type { Image, Task, Volume } from "#services/api/schema.ts";
import type { Snapshot } from "#services/api/snapshot-schema.ts";
import { startStore, stopStore } from "#services/api/store.fixture.ts";
import { runKeelson, spawnKeelson } from "./run.fixture.ts";

const node = new TestNode();
const folder = mkdtempSync(join(tmpdir(), "keelson-export-"));
const diskBytes = 48 << 20;
/** As the snapshot has it. */
const disk = Buffer.alloc(diskBytes);
let store: ChildProcess;
let snapshot: Snapshot;
let clone: Snapshot;

async function write(volumeId: string, position: number, bytes: Buffer): Promise<void> {
  const answer = await fetchStore(`/v1/volumes/${volumeId}/nbd-grants`, { readOnly: false });
  const client = await NbdClient.connect(answer.socket, answer.token);
  const piece = 1 << 20;
  for (let at = 0; at < bytes.length; at += piece) {
    await client.write([position + at], bytes.subarray(at, at + piece));
  }
  await client.flush();
  client.close();
}

async function fetchStore(path: string, body: object): Promise<{ token: string; socket: string }> {
  const { unixFetch } = await import("#lib/rpc/client.ts");
  const answer = await unixFetch(join(node.storeRun, "api.sock"))(`http://unix${path}`, {
    method: "POST",
    body: JSON.stringify(body),
    headers: { "content-type": "application/json" },
  });
  return (await answer.json()) as { token: string; socket: string };
}

const take = async (volumeId: string, name: string): Promise<Snapshot> => {
  const { body, status } = await node.call("POST", "/snapshots", { volumes: [volumeId], name });
  expect(status, JSON.stringify(body)).toBe(201);
  return (body as Snapshot[])[0];
};

beforeAll(async () => {
  store = await startStore(node, "--create", "256M");
  await node.start();
  const made = (await node.call("POST", "/volumes", { name: "db", sizeBytes: diskBytes }))
    .body as Volume;
  for (const [position, length] of [
    [0, 4096],
    [5 << 20, 3 << 20],
    [diskBytes - 8192, 8192],
  ]) {
    const bytes = randomBytes(length);
    bytes.copy(disk, position);
    await write(made.id, position, bytes);
  }
  snapshot = await take(made.id, "monday");
  // What comes later is not in it.
  await write(made.id, 6 << 20, Buffer.alloc(1 << 20, 0xee));
  const cloned = (
    await node.call("POST", "/volumes", { name: "copy", origin: { snapshotId: snapshot.id } })
  ).body as Volume;
  await write(cloned.id, 40 << 20, Buffer.alloc(4096, 0xcc));
  clone = await take(cloned.id, "later");
});
afterAll(async () => {
  await node.stop();
  await stopStore(store);
  await node.remove();
  rmSync(folder, { recursive: true, force: true });
});

const keelson = (...args: string[]) => runKeelson(node, args);

/** Fails unless the file's disk is `expected`. */
function expectDisk(path: string, format: "raw" | "qcow2", expected: Buffer): void {
  const raw = `${path}.expected`;
  writeFileSync(raw, expected);
  const { status, stdout } = spawnSync(
    "qemu-img",
    ["compare", "-f", format, "-F", "raw", path, raw],
    {
      encoding: "utf8",
    },
  );
  expect(status, stdout).toBe(0);
  rmSync(raw);
}

test("keelson snapshot tree: clones stand below what they came from", async () => {
  const { stdout, status } = await keelson("snapshot", "tree");
  expect(status).toBe(0);
  const names = stdout.split("\n").map((line) => /^ *\S+/.exec(line)?.[0]);
  const at = names.indexOf("db");
  expect(names.slice(at, at + 4)).toEqual(["db", "  @monday", "    copy", "      @later"]);
});

describe("keelson snapshot export", () => {
  test("qcow2: sound, the same disk, no larger than what was written", async () => {
    const path = join(folder, "monday.qcow2");
    const { stderr, status } = await keelson("snapshot", "export", "db@monday", path);
    expect(status, stderr).toBe(0);
    expectDisk(path, "qcow2", disk);
    expect(spawnSync("qemu-img", ["check", path], { encoding: "utf8" }).stdout).toContain(
      "No errors",
    );
    expect(statSync(path).size).toBeLessThan(4 << 20);
    expect(existsSync(`${path}.part`)).toBe(false);
  });

  test("raw: byte for byte, with holes where nothing was written", async () => {
    const path = join(folder, "monday.img");
    const { status } = await keelson("snapshot", "export", "db@monday", path, "--format", "raw");
    expect(status).toBe(0);
    expect(readFileSync(path).equals(disk)).toBe(true);
    expect(statSync(path).blocks * 512).toBeLessThan(8 << 20);
  });

  test("of a clone: what its origin had, and its own", async () => {
    const path = join(folder, "clone.qcow2");
    expect((await keelson("snapshot", "export", "copy@later", path)).status).toBe(0);
    expectDisk(path, "qcow2", Buffer.from(disk).fill(0xcc, 40 << 20, (40 << 20) + 4096));
  });

  test("what is there is not written over; a wrong format is told", async () => {
    const path = join(folder, "there");
    writeFileSync(path, "mine");
    const refused = await keelson("snapshot", "export", "db@monday", path);
    expect(refused.stderr).toContain("is there already");
    expect(readFileSync(path, "utf8")).toBe("mine");
    const wrong = await keelson("snapshot", "export", "db@monday", "--format", "vmdk");
    expect(wrong).toMatchObject({ status: 2 });
    expect(wrong.stderr).toContain("--format vmdk is not qcow2 or raw");
  });

  test("a part that an earlier try left is gone on with; one of another disk is refused", async () => {
    const path = join(folder, "again.img");
    const whole = join(folder, "monday.img");
    writeFileSync(`${path}.part`, readFileSync(whole).subarray(0, 6_000_001));
    writeFileSync(`${path}.part.tag`, `"${snapshot.id}-raw"`);
    const { stdout, status } = await keelson(
      "snapshot",
      "export",
      "db@monday",
      path,
      "--format",
      "raw",
    );
    expect(status).toBe(0);
    expect(stdout).toContain("from 5.7 MiB on");
    expect(readFileSync(path).equals(disk)).toBe(true);

    const other = join(folder, "other.img");
    writeFileSync(`${other}.part`, "x");
    writeFileSync(`${other}.part.tag`, `"${clone.id}-raw"`);
    const refused = await keelson("snapshot", "export", "db@monday", other, "--format", "raw");
    expect(refused.stderr).toContain("is of another disk or format");
    expect(existsSync(`${other}.part`)).toBe(true);
  });

  test("a connection that breaks again and again costs only what was under way", async () => {
    const path = join(folder, "broken.img");
    const proxy = await breakingProxy(Number(new URL(node.http).port), 9 << 20, "answers");
    try {
      const { stderr, status, stdout } = await spawnKeelson(
        ["snapshot", "export", "db@monday", path, "--format", "raw"],
        "",
        {
          XDG_CONFIG_HOME: join(node.state, "config"),
          KEELSON_SERVER: `http://127.0.0.1:${proxy.port}`,
          KEELSON_TOKEN: node.token,
        },
      );
      expect(status, stderr + stdout).toBe(0);
      expect(proxy.broken()).toBeGreaterThan(3);
      expect(readFileSync(path).equals(disk)).toBe(true);
    } finally {
      proxy.server.close();
    }
  });
});

describe("GET data", () => {
  const get = (path: string, headers: Record<string, string> = {}) =>
    fetch(`${node.http}/api/v1${path}`, {
      headers: { authorization: `Bearer ${node.token}`, ...headers },
    });

  test("ranges, and conditions on them", async () => {
    const path = `/snapshots/${snapshot.id}/data?format=raw`;
    const from = (5 << 20) + 77;
    const part = await get(path, { range: `bytes=${from}-${from + 99_999}` });
    expect(part.status).toBe(206);
    expect(part.headers.get("content-range")).toBe(`bytes ${from}-${from + 99_999}/${diskBytes}`);
    const bytes = Buffer.from(await part.arrayBuffer());
    expect(bytes.equals(disk.subarray(from, from + 100_000))).toBe(true);
    const tail = await get(path, {
      range: `bytes=${diskBytes - 10}-`,
      "if-range": part.headers.get("etag")!,
    });
    expect(Buffer.from(await tail.arrayBuffer()).equals(disk.subarray(-10))).toBe(true);
    const changed = await get(path, { range: "bytes=5-", "if-range": '"another"' });
    expect(changed.status).toBe(200);
    await changed.body!.cancel();
    const past = await get(path, { range: `bytes=${diskBytes}-` });
    expect(past.status).toBe(416);
    expect(past.headers.get("content-range")).toBe(`bytes */${diskBytes}`);
    const head = await get(path);
    expect(head.headers.get("content-disposition")).toBe('attachment; filename="db-monday.img"');
    await head.body!.cancel();
  });

  test("what goes away leaves nothing open; too many at once are told to wait", async () => {
    const path = `/snapshots/${snapshot.id}/data?format=raw`;
    const open = await Promise.all(Array.from({ length: 8 }, () => get(path)));
    expect(open.map(({ status }) => status)).toEqual(Array.from({ length: 8 }, () => 200));
    const refused = await get(path);
    expect(refused.status).toBe(409);
    expect(((await refused.json()) as { code: string }).code).toBe("IN_USE");
    await Promise.all(open.map(({ body }) => body!.cancel()));
    await expect
      .poll(async () => {
        const again = await get(path);
        await again.body?.cancel();
        return again.status;
      })
      .toBe(200);
  });

  test("an image is the disk it was made of; none is had of what isn't there or ready", async () => {
    const source = join(folder, "small.img");
    writeFileSync(source, randomBytes(200_000));
    truncateSync(source, 1 << 20);
    const imported = await keelson("images", "import", source, "--name", "small");
    expect(imported.status, imported.stderr).toBe(0);
    const path = join(folder, "small.qcow2");
    expect((await keelson("images", "export", "small", path)).status).toBe(0);
    expectDisk(path, "qcow2", readFileSync(source));
    expect((await get(`/snapshots/${volumeOfNobody}/data`)).status).toBe(404);
    const { body } = await node.call("POST", "/images", { name: "empty" });
    const early = await get(`/images/${(body as Image).id}/data`);
    expect(early.status).toBe(409);
    expect((await get(`/snapshots/${snapshot.id}/data?format=vhd`)).status).toBe(400);
    const tasks = (await node.call("GET", "/tasks")).body as Task[];
    expect(tasks.every(({ state }) => state !== "running")).toBe(true);
  });
});

const volumeOfNobody = "00000000-0000-4000-8000-00000000dead";
