/** One node copies a bundle from another: two real services and their updaters, over TLS. */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { type FixtureUpdater, startUpdater } from "#firmware-updater/node.fixture.ts";
import { fixtureBundle, fixtureManifest, fixtureParts } from "#lib/bundle/bundle.fixture.ts";
import { dataFormats } from "#lib/data-format/formats.ts";
import { fetchServerCa } from "#lib/rpc/server-ca.ts";
import { TestNode } from "./platform.fixture.ts";
import { watched } from "./routes/watched.ts";

function bundle(version: string): Buffer {
  const parts = { ...fixtureParts(), root: Buffer.alloc(3 << 20, `the root of ${version} `) };
  return fixtureBundle({ parts, manifest: fixtureManifest(parts, { version, dataFormats }) });
}

class Node {
  readonly api = new TestNode();
  readonly folder = mkdtempSync(join(tmpdir(), "keelson-neighbour-"));
  updater!: FixtureUpdater;

  async start(): Promise<void> {
    this.updater = await startUpdater(this.folder, this.api.updaterRun);
    await this.api.start();
  }

  async stop(): Promise<void> {
    await this.api.remove();
    await this.updater.stop();
    rmSync(this.folder, { recursive: true, force: true });
  }

  async upload(bytes: Buffer): Promise<string> {
    const answer = await fetch(`${this.api.http}/api/v1/upgrade/bundles`, {
      method: "POST",
      body: new Uint8Array(bytes),
      headers: {
        authorization: `Bearer ${this.api.token}`,
        "content-type": "application/octet-stream",
      },
    });
    expect(answer.status).toBe(201);
    return ((await answer.json()) as { id: string }).id;
  }

  setNeighbour(neighbour: string | null, neighbourFingerprint: string | null) {
    const sources = { channel: null, neighbour, neighbourFingerprint };
    return this.api.call("PUT", "/upgrade/sources", sources);
  }

  async check() {
    const { body } = await this.api.call("POST", "/upgrade/sources/check");
    return body as {
      bundles: { id: string; state: string; version: string; message: string | null }[];
      sources: { message: string | null };
    };
  }

  /** Fetches, and waits for how it ended. */
  async fetch(id: string) {
    expect((await this.api.call("POST", `/upgrade/bundles/${id}/fetch`)).status).toBe(202);
    return await vi.waitFor(
      async () => {
        const { body } = await this.api.call("GET", "/upgrade");
        const busy = body.bundles.some(({ state }: { state: string }) => state === "fetching");
        expect(busy).toBe(false);
        return body.bundles as { id: string; state: string; message: string | null }[];
      },
      { interval: 50 },
    );
  }
}

let giver: Node;
let taker: Node;
const servers: Server[] = [];
beforeEach(async () => {
  giver = new Node();
  taker = new Node();
  await Promise.all([giver.start(), taker.start()]);
});
afterEach(async () => {
  for (const server of servers.splice(0)) server.close();
  await Promise.all([giver.stop(), taker.stop()]);
});

/** Passes bytes on; each connection ends after so many bytes from `target()`. */
class Wire {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  /** Of the connections to come, in their order; those after them last. */
  readonly limits: number[] = [];
  target: string;

  constructor(target: string) {
    this.target = target;
    this.#server = createServer((near) => this.#join(near));
    servers.push(this.#server);
  }

  #join(near: Socket): void {
    const far = connect({ host: "127.0.0.1", port: Number(new URL(this.target).port) });
    let left = this.limits.shift() ?? Number.POSITIVE_INFINITY;
    const end = () => {
      near.destroy();
      far.destroy();
    };
    for (const socket of [near, far]) {
      this.#sockets.add(socket);
      socket.on("error", end).once("close", end);
    }
    near.pipe(far);
    far.on("data", (bytes: Buffer) => {
      near.write(bytes.subarray(0, left));
      left -= bytes.length;
      if (left <= 0) end();
    });
  }

  async listen(): Promise<string> {
    await new Promise<void>((resolve) => this.#server.listen(0, "127.0.0.1", resolve));
    return `https://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** Connections that are kept open between requests. */
  cut(): void {
    for (const socket of this.#sockets) socket.destroy();
  }
}

test("a bundle is offered by its neighbour, copied, verified, and the same", async () => {
  const bytes = bundle("2026.12.0");
  const id = await giver.upload(bytes);
  await giver.upload(bundle("2027.1.0"));
  const { fingerprint } = await fetchServerCa(giver.api.https);

  const unknown = await taker.setNeighbour(giver.api.https, null);
  expect(unknown.status).toBe(400);
  expect(unknown.body.title).toContain(fingerprint);
  const wrong = await taker.setNeighbour(giver.api.https, "AB".repeat(32));
  expect(wrong.status).toBe(403);
  expect(wrong.body.title).toContain("is not the one that was trusted");
  expect((await taker.api.call("GET", "/upgrade")).body.sources.neighbour).toBeNull();

  const lower = fingerprint.replaceAll(":", "").toLowerCase();
  expect((await taker.setNeighbour(giver.api.https, lower)).status).toBe(200);
  const { bundles } = await taker.check();
  expect(bundles.map(({ version, state }) => [version, state]).sort()).toEqual([
    ["2026.12.0", "remote"],
    ["2027.1.0", "remote"],
  ]);
  const offer = bundles.find(({ version }) => version === "2026.12.0")!;
  const after = await taker.fetch(offer.id);
  expect(after.find((each) => each.id === id)).toMatchObject({
    ...{ state: "here", message: null, source: { kind: "node" } },
  });
  const spool = join(taker.folder, "state/spool");
  expect(readFileSync(join(spool, `${id}.kbundle`)).equals(bytes)).toBe(true);
});

test("a connection that breaks again and again costs only what was under way", async () => {
  const bytes = bundle("2026.12.0");
  const id = await giver.upload(bytes);
  const { fingerprint } = await fetchServerCa(giver.api.https);
  const wire = new Wire(giver.api.https);
  await taker.setNeighbour(await wire.listen(), fingerprint);
  const [offer] = (await taker.check()).bundles;
  wire.cut();
  wire.limits.push(1_200_000, 900_000);
  const after = await taker.fetch(offer.id);
  expect(after.find((each) => each.id === id)).toMatchObject({ state: "here", message: null });
  expect(wire.limits, "it was cut twice").toEqual([]);
  wire.cut();
});

test("another node at the neighbour's address is not asked for anything", async () => {
  await giver.upload(bundle("2026.12.0"));
  const { fingerprint } = await fetchServerCa(giver.api.https);
  const wire = new Wire(giver.api.https);
  await taker.setNeighbour(await wire.listen(), fingerprint);
  expect((await taker.check()).bundles).toHaveLength(1);
  // The neighbour is installed anew: the same address, another CA.
  wire.target = taker.api.https;
  wire.cut();
  const { sources, bundles } = await taker.check();
  expect(sources.message).toContain("is not the one that was trusted");
  const [refused] = await taker.fetch(bundles[0].id);
  expect(refused).toMatchObject({ state: "refused" });
  expect(refused.message).toContain("is not the one that was trusted");
  expect(readdirSync(join(taker.folder, "state/spool"))).toEqual([]);
});

test("without a log-in: the index, and what it lists, by range; nothing else", async () => {
  const bytes = bundle("2026.12.0");
  const id = await giver.upload(bytes);
  const at = (path: string, headers = {}) => fetch(`${giver.api.http}/api/v1${path}`, { headers });
  const index = await at("/upgrade/index.json");
  expect(await index.json()).toEqual({
    format: 1,
    bundles: [
      {
        ...{ url: `shared/${id}`, version: "2026.12.0", sizeBytes: bytes.length },
        notes: "What is new: nothing.\n",
      },
    ],
  });
  const whole = await at(`/upgrade/shared/${id}`);
  expect(Buffer.from(await whole.arrayBuffer()).equals(bytes)).toBe(true);
  const rest = await at(`/upgrade/shared/${id}`, { range: "bytes=1000000-" });
  expect(rest.status).toBe(206);
  expect(rest.headers.get("content-range")).toBe(
    `bytes 1000000-${bytes.length - 1}/${bytes.length}`,
  );
  expect(Buffer.from(await rest.arrayBuffer()).equals(bytes.subarray(1_000_000))).toBe(true);
  expect((await at(`/upgrade/shared/${"0".repeat(32)}`)).status).toBe(404);
  expect((await at("/upgrade/shared/..%2f..%2fstate.json")).status).toBe(404);
  expect((await at("/upgrade")).status).toBe(401);
  expect((await at(`/upgrade/bundles/${id}/file`)).status).toBe(401);
});

test("a place is free again when its reader stands still, and only then", async () => {
  const endless = () =>
    new ReadableStream<Uint8Array>({
      pull: (controller) => controller.enqueue(new Uint8Array(10)),
    });
  let ended = 0;
  const stuck = watched(endless(), () => ended++, 200).getReader();
  await stuck.read();
  for (let count = 0; count < 8; count++) {
    await new Promise((resolve) => setTimeout(resolve, 100));
    await stuck.read();
  }
  expect(ended, "it reads slowly, but it reads").toBe(0);
  await vi.waitFor(() => expect(ended).toBe(1));
  await expect(stuck.read()).rejects.toThrow("The other side stopped reading.");
  const left = watched(endless(), () => ended++, 200);
  await left.cancel();
  await new Promise((resolve) => setTimeout(resolve, 400));
  expect(ended, "once each").toBe(2);
});

test("four copy at once; the fifth is told to wait, and those who go away make room", async () => {
  const id = await giver.upload(bundle("2026.12.0"));
  const open = () => {
    const ended = new AbortController();
    const answer = fetch(`${giver.api.http}/api/v1/upgrade/shared/${id}`, { signal: ended.signal });
    return { answer, ended };
  };
  const four = [open(), open(), open(), open()];
  for (const { answer } of four) expect((await answer).status).toBe(200);
  expect((await open().answer).status).toBe(429);
  for (const { ended } of four) ended.abort();
  await vi.waitFor(async () => expect((await open().answer).status).toBe(200));
});
