/** The service as a process, through its sockets, with the real qemu-img. */
import { type ChildProcess, execFile, spawn, spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import {
  existsSync,
  ftruncateSync,
  mkdtempSync,
  openSync,
  readSync,
  rmSync,
  statSync,
  writeSync,
} from "node:fs";
import { createConnection } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { dataFormats, raised } from "#lib/data-format/formats.ts";
import { HeldFormatsFile } from "#lib/data-format/held.ts";
import { unixFetch } from "#lib/rpc/client.ts";
import type { DifferencesPage, NbdGrant, SnapshotInfo, StoreInfo, VolumeInfo } from "./schema.ts";

const directory = mkdtempSync(join(tmpdir(), "keelson-store-"));
const main = join(import.meta.dirname, "main.ts");
const run = promisify(execFile);
const id = (n: number) => `00000000-0000-4000-8000-${String(n).padStart(12, "0")}`;
const started: ChildProcess[] = [];
/** As on a node whose version is kept: everything in its newest format. */
const formats = new HeldFormatsFile(join(directory, "formats.json"));
formats.write(raised(formats.read(), dataFormats));

async function start(name: string, ...options: string[]): Promise<ChildProcess> {
  const child = spawn(
    process.execPath,
    [main, "--state", join(directory, name), "--run", join(directory, name, "run"), ...options],
    {
      stdio: ["ignore", "ignore", "pipe"],
      env: { ...process.env, KEELSON_FORMATS: formats.path },
    },
  );
  started.push(child);
  let log = "";
  await new Promise<void>((resolve, reject) => {
    child.stderr!.on("data", (text) => {
      log += text;
      if (log.includes("serving")) resolve();
    });
    child.on("exit", (code) => reject(new Error(`exit ${code}: ${log}`)));
  });
  return child;
}

async function stop(child: ChildProcess, signal: NodeJS.Signals = "SIGTERM"): Promise<void> {
  const exited = new Promise((resolve) => child.once("exit", resolve));
  child.kill(signal);
  await exited;
}

async function call<Answer>(name: string, method: string, path: string, body?: unknown) {
  const answer = await unixFetch(join(directory, name, "run/api.sock"))(`http://x/v1${path}`, {
    method,
    ...(body === undefined
      ? {}
      : { body: JSON.stringify(body), headers: { "content-type": "application/json" } }),
  });
  const value = (answer.status === 204 ? null : await answer.json()) as Answer;
  return { status: answer.status, value };
}

const grant = async (name: string, volume: string, readOnly = false) =>
  (await call<NbdGrant>(name, "POST", `/volumes/${volume}/nbd-grants`, { readOnly })).value;

beforeAll(() => start("main", "--create", "512M"));

afterAll(async () => {
  for (const child of started) {
    if (child.exitCode === null && child.signalCode === null) await stop(child, "SIGKILL");
  }
  rmSync(directory, { recursive: true, force: true });
});

describe("volumes", () => {
  test("made, made again, grown, sealed, cloned, deleted", async () => {
    const put = (n: number, body: object) =>
      call<VolumeInfo>("main", "PUT", `/volumes/${id(n)}`, body);
    expect((await put(1, { sizeBytes: 2 ** 40 })).value.usedBytes).toBe(0);
    expect((await put(1, { sizeBytes: 2 ** 40 })).status).toBe(200);
    expect((await put(1, { sizeBytes: 2 ** 30 })).value).toMatchObject({ code: "CONFLICT" });
    expect((await put(2, { parent: id(1) })).value).toMatchObject({ code: "CONFLICT" });
    const size = { sizeBytes: 2 ** 40 + 512 };
    expect((await call("main", "PATCH", `/volumes/${id(1)}`, size)).value).toMatchObject(size);
    const smaller = await call("main", "PATCH", `/volumes/${id(1)}`, { sizeBytes: 512 });
    expect(smaller.value).toMatchObject({ code: "INVALID_ARGUMENT" });
    await call("main", "POST", `/volumes/${id(1)}/seal`);
    expect((await put(2, { parent: id(1) })).value).toMatchObject({ parent: id(1), ...size });
    for (const n of [2, 1, 1]) {
      expect((await call("main", "DELETE", `/volumes/${id(n)}`)).status).toBe(204);
    }
    expect((await call<VolumeInfo[]>("main", "GET", "/volumes")).value).toEqual([]);
  });

  test("bad input is named", async () => {
    const bad: [string, unknown][] = [
      [`/volumes/${id(9)}`, { sizeBytes: 1000 }],
      [`/volumes/${id(9)}`, { sizeBytes: 2 ** 60 }],
      [`/volumes/${id(9)}`, { sizeBytes: 512, extra: 1 }],
      ["/volumes/no-uuid", { sizeBytes: 512 }],
    ];
    for (const [path, body] of bad) {
      expect((await call("main", "PUT", path, body)).status, JSON.stringify(body)).toBe(400);
    }
    expect((await call("main", "GET", `/volumes/${id(9)}`)).status).toBe(404);
  });

  test("the store's parts add up", async () => {
    const { value } = await call<StoreInfo>("main", "GET", "/store");
    const { usedBytes, metadataBytes, reclaimingBytes, reservedBytes, freeBytes } = value;
    expect(usedBytes + metadataBytes + reclaimingBytes + reservedBytes + freeBytes).toBe(
      value.sizeBytes,
    );
    expect(value).toMatchObject({ state: "mounted", formatVersion: 1, experimental: true });
  });
});

describe("snapshots", () => {
  const mebibyte = 2 ** 20;
  const list = async () => (await call<SnapshotInfo[]>("main", "GET", "/snapshots")).value;
  const create = (...pairs: [number, number][]) =>
    call<SnapshotInfo[] & { code: string }>("main", "POST", "/snapshots", {
      snapshots: pairs.map(([snapshot, volume]) => ({ id: id(snapshot), volume: id(volume) })),
    });

  /** Writes with the real qemu-io, which reads and checks with `read -P` too. */
  async function io(uri: string, ...commands: string[]): Promise<void> {
    const options = commands.flatMap((command) => ["-c", command]);
    const { stdout } = await run("qemu-io", ["-f", "raw", ...options, uri]);
    expect(stdout).not.toMatch(/failed|error/i);
  }

  async function write(n: number, ...commands: string[]): Promise<void> {
    const { uri } = await grant("main", id(n));
    await io(uri, ...commands, "flush");
  }

  async function check(path: string, ...commands: string[]): Promise<void> {
    const { value } = await call<NbdGrant>("main", "POST", `${path}/nbd-grants`, {
      readOnly: true,
    });
    const { stdout } = await run("qemu-io", [
      ...["-r", "-f", "raw"],
      ...commands.flatMap((command) => ["-c", command]),
      value.uri,
    ]);
    expect(stdout).not.toMatch(/failed|error/i);
  }

  test("of two volumes at once, cloned, compared, reverted to, deleted", async () => {
    for (const n of [41, 42]) {
      await call("main", "PUT", `/volumes/${id(n)}`, { sizeBytes: 8 * mebibyte });
    }
    await write(41, "write -P 1 0 1M", "write -P 2 4M 64k");
    const made = await create([51, 41], [52, 42]);
    expect(made.status, JSON.stringify(made.value)).toBe(200);
    expect((await create([51, 41], [52, 42])).value).toEqual(made.value);
    expect((await create([51, 42])).value).toMatchObject({ code: "CONFLICT" });
    expect((await create([53, 49])).status).toBe(404);
    await write(41, "write -P 3 512k 4k", "discard 4M 64k");
    await check(`/snapshots/${id(51)}`, "read -P 1 0 1M", "read -P 2 4M 64k");
    await check(`/volumes/${id(41)}`, "read -P 3 512k 4k", "read -P 0 4M 64k");
    const [first] = await list();
    expect(first).toMatchObject({
      ...{ id: id(51), volume: id(41), sizeBytes: 8 * mebibyte, clones: 0 },
      ...{ referencedBytes: mebibyte + 65_536, exclusiveBytes: 4096 + 65_536 },
    });
    expect(Date.now() - Date.parse(first.createdAt)).toBeLessThan(600_000);

    const path = `/differences?from=${id(51)}&to=${id(41)}`;
    expect((await call<DifferencesPage>("main", "GET", path)).value).toEqual({
      ranges: [
        { offsetBytes: 512 * 1024, lengthBytes: 4096, zero: false },
        { offsetBytes: 4 * mebibyte, lengthBytes: 65_536, zero: true },
      ],
      next: null,
    });
    expect((await call("main", "GET", `/differences?from=${id(52)}&to=${id(41)}`)).status).toBe(
      409,
    );
    expect((await call("main", "GET", "/differences?to=nothing")).status).toBe(400);

    const clone = await call<VolumeInfo>("main", "PUT", `/volumes/${id(43)}`, {
      snapshot: id(51),
      sizeBytes: 16 * mebibyte,
    });
    expect(clone.value).toMatchObject({ parent: id(41), snapshot: id(51), usedBytes: 0 });
    await check(`/volumes/${id(43)}`, "read -P 1 0 1M", "read -P 2 4M 64k", "read -P 0 8M 64k");

    const revert = (snapshot: number) =>
      call<VolumeInfo>("main", "POST", `/volumes/${id(41)}/revert`, { snapshot: id(snapshot) });
    expect((await revert(52)).value).toMatchObject({ code: "CONFLICT" });
    const back = { id: id(41), snapshots: 1, parent: null, snapshot: null };
    expect((await revert(51)).value).toMatchObject(back);
    // Still the volume that was asked for.
    const again = await call("main", "PUT", `/volumes/${id(41)}`, { sizeBytes: 8 * mebibyte });
    expect(again).toMatchObject({ status: 200, value: back });
    await check(`/volumes/${id(41)}`, "read -P 1 0 1M", "read -P 2 4M 64k");

    for (const n of [41, 42, 43]) await call("main", "DELETE", `/volumes/${id(n)}`);
    expect(await list()).toHaveLength(2);
    for (const n of [51, 52, 52]) {
      expect((await call("main", "DELETE", `/snapshots/${id(n)}`)).status).toBe(204);
    }
    await vi.waitFor(async () => {
      const { value } = await call<StoreInfo>("main", "GET", "/store");
      expect([value.usedBytes, value.hiddenBytes]).toEqual([0, 0]);
    });
  });

  test("while a client writes, each is of one instant: a counter in two places is equal", async () => {
    await call("main", "PUT", `/volumes/${id(44)}`, { sizeBytes: 4 * mebibyte });
    const { uri } = await grant("main", id(44));
    const script = Array.from({ length: 60 }, (_, i) => [
      ...["-c", `writev -P ${i + 1} 0 4k`, "-c", `writev -P ${i + 1} 2M 4k`],
    ]).flat();
    const writing = run("qemu-io", ["-f", "raw", ...script, uri]);
    const taken: number[] = [];
    for (let n = 60; n < 66; n++) {
      expect((await create([n, 44])).status).toBe(200);
      taken.push(n);
    }
    await writing;
    for (const n of taken) {
      const { value } = await call<NbdGrant>("main", "POST", `/snapshots/${id(n)}/nbd-grants`);
      const { stdout } = await run("qemu-io", [
        ...["-r", "-f", "raw", "-c", "read -v 0 1", "-c", "read -v 2M 1", value.uri],
      ]);
      const [first, second] = [...stdout.matchAll(/^\S+: {2}([0-9a-f]{2})/gm)].map(([, hex]) =>
        Number.parseInt(hex, 16),
      );
      // The second place is written after the first.
      expect([first, first - 1]).toContain(second);
      await call("main", "DELETE", `/snapshots/${id(n)}`);
    }
    await call("main", "DELETE", `/volumes/${id(44)}`);
  });

  test("a kill -9 right after the answer loses none", async () => {
    const child = await start("killed", "--create", "64M");
    await call("killed", "PUT", `/volumes/${id(1)}`, { sizeBytes: mebibyte });
    const snapshots = [{ id: id(2), volume: id(1) }];
    expect((await call("killed", "POST", "/snapshots", { snapshots })).status).toBe(200);
    await stop(child, "SIGKILL");
    const again = await start("killed");
    expect((await call("killed", "GET", `/snapshots/${id(2)}`)).value).toMatchObject({
      volume: id(1),
    });
    await stop(again);
  });
});

describe("import and export with qemu-img", () => {
  const raw = join(directory, "image.raw");
  const qcow2 = join(directory, "image.qcow2");

  beforeAll(async () => {
    const file = openSync(raw, "w+");
    ftruncateSync(file, 200 * 2 ** 20);
    for (const at of [0, 5, 100, 199])
      writeSync(file, randomBytes(2 ** 20), 0, 2 ** 20, at * 2 ** 20);
    await run("qemu-img", ["convert", "-f", "raw", "-O", "qcow2", raw, qcow2]);
  });

  test.for([
    ["raw", raw, 11],
    ["qcow2", qcow2, 12],
  ] as const)("%s in, compared out, zeroes take no space", async ([format, path, n]) => {
    await call("main", "PUT", `/volumes/${id(n)}`, { sizeBytes: 200 * 2 ** 20 });
    const { uri } = await grant("main", id(n));
    await run("qemu-img", ["convert", "-n", "-f", format, "-O", "raw", path, uri]);
    const { value } = await call<VolumeInfo>("main", "GET", `/volumes/${id(n)}`);
    expect(value.usedBytes).toBe(4 * 2 ** 20);
    const out = await grant("main", id(n), true);
    const { stdout } = await run("qemu-img", [
      "compare",
      ...["-f", format, "-F", "raw", path, out.uri],
    ]);
    expect(stdout).toContain("identical");
  });

  test("a broken qcow2 leaves nothing behind", async () => {
    const broken = join(directory, "broken.qcow2");
    await run("cp", [qcow2, broken]);
    // The L2 entry of the cluster at 100 MiB points to nowhere: what lies before is written first.
    const file = openSync(broken, "r+");
    const word = (at: number) => {
      const bytes = new Uint8Array(8);
      readSync(file, bytes, 0, 8, at);
      return Number(new DataView(bytes.buffer).getBigUint64(0) & 0x00fffffffffffe00n);
    };
    const l2Table = word(word(40));
    const entry = Uint8Array.of(0x80, 0, 0, 0, 0, 0, 2, 1);
    writeSync(file, entry, 0, 8, l2Table + ((100 * 2 ** 20) / 65536) * 8);
    const before = (await call<StoreInfo>("main", "GET", "/store")).value.usedBytes;
    await call("main", "PUT", `/volumes/${id(13)}`, { sizeBytes: 200 * 2 ** 20 });
    const { uri } = await grant("main", id(13));
    const convert = ["convert", "-n", "-f", "qcow2", "-O", "raw", broken, uri];
    expect(spawnSync("qemu-img", convert).status).not.toBe(0);
    await call("main", "DELETE", `/volumes/${id(13)}?force=true`);
    await expect
      .poll(async () => (await call<StoreInfo>("main", "GET", "/store")).value.usedBytes)
      .toBe(before);
  });

  test("a token is good once, an unknown one never, a read-only one for reading", async () => {
    const { uri } = await grant("main", id(11), true);
    const write = ["-f", "raw", "-c", "write 0 4096", uri];
    expect(spawnSync("qemu-io", write).status).not.toBe(0);
    expect(spawnSync("qemu-io", ["-r", ...write]).status).not.toBe(0);
    const unknown = uri.replace(/[0-9a-f]{32}/, "0".repeat(32));
    expect(spawnSync("qemu-io", ["-f", "raw", "-c", "read 0 512", unknown]).status).not.toBe(0);
  });

  test("garbage on the socket ends that connection only", async () => {
    const socket = createConnection(join(directory, "main/run/nbd.sock"));
    await new Promise<void>((resolve) => {
      socket.on("close", () => resolve());
      socket.on("error", () => {});
      socket.resume();
      socket.write(randomBytes(4096));
    });
    const { uri } = await grant("main", id(11), true);
    await run("qemu-io", ["-r", "-f", "raw", "-c", "read 0 4096", uri]);
  });
});

describe("the device", () => {
  test("a second process is refused, and kill -9 loses nothing acknowledged", async () => {
    const child = await start("crash", "--create", "64M");
    const device = join(directory, "crash/store.img");
    await expect(start("second", "--device", device)).rejects.toThrow(/another process/);
    await call("crash", "PUT", `/volumes/${id(1)}`, { sizeBytes: 8 * 2 ** 20 });
    const { uri } = await grant("crash", id(1));
    // No flush before the kill: qemu-io ends with one, so it is killed too.
    const io = spawn("qemu-io", ["-t", "none", "-f", "raw", uri], {
      stdio: ["pipe", "pipe", "pipe"],
    });
    io.stdin.write("write -P 7 4096 65536\n");
    await new Promise<void>((resolve) => {
      io.stdout.on("data", (text) => {
        if (String(text).includes("wrote")) resolve();
      });
    });
    await stop(child, "SIGKILL");
    io.kill("SIGKILL");
    const again = await start("crash");
    const reader = await grant("crash", id(1), true);
    await run("qemu-io", ["-r", "-f", "raw", "-c", "read -P 7 4096 65536", reader.uri]);
    await stop(again);
  });

  test("what is no store is never overwritten, and a missing one is named", async () => {
    const foreign = join(directory, "foreign.img");
    const file = openSync(foreign, "w+");
    ftruncateSync(file, 16 * 2 ** 20);
    writeSync(file, "precious");
    await expect(start("foreign", "--device", foreign, "--create", "1G")).rejects.toThrow(
      /does not hold a Keelson store/,
    );
    expect(statSync(foreign).size).toBe(16 * 2 ** 20);
    await expect(start("none", "--device", join(directory, "none.img"))).rejects.toThrow(
      /--create/,
    );
    await expect(start("tiny", "--create", "1M")).rejects.toThrow(/needs 4 MiB/);
    expect(existsSync(join(directory, "tiny/store.img"))).toBe(false);
  });

  test("without the addon it serves the same", async () => {
    const child = await start("plain", "--create", "64M", "--no-native");
    await call("plain", "PUT", `/volumes/${id(1)}`, { sizeBytes: 2 ** 20 });
    const { uri } = await grant("plain", id(1));
    const commands = ["-c", "write -P 3 512 1024", "-c", "read -P 3 512 1024", "-c", "flush"];
    await run("qemu-io", ["-f", "raw", ...commands, uri]);
    await stop(child);
  });
});
