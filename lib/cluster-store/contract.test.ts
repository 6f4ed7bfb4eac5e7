import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { EmbeddedStore } from "./embedded.ts";
import { EtcdCluster, freePorts } from "./etcd/cluster.fixture.ts";
import { EtcdStore } from "./etcd/etcd.ts";
import { openClusterStore } from "./open.ts";
import type { ClusterStore, WatchStep } from "./store.ts";

/**
 * One contract, both engines; etcd is a real process, of one member. What three members add, the
 * death of their leader, is in `etcd/leader-death.test.ts`.
 */
interface Engine {
  readonly name: string;
  start(): Promise<void>;
  open(): ClusterStore;
  /** The engine's process or file goes away and comes back with what was acknowledged. */
  crash(store: ClusterStore): Promise<ClusterStore>;
  /** Forgets history up to now. */
  compact(store: ClusterStore): Promise<void>;
  stop(): Promise<void>;
}

class Embedded implements Engine {
  readonly name = "embedded";
  readonly #directory = mkdtempSync(join(tmpdir(), "keelson-store-"));
  async start() {}
  open() {
    return new EmbeddedStore(join(this.#directory, "store.sqlite"), { keptRevisions: 50 });
  }
  async crash(store: ClusterStore) {
    await store.close();
    return this.open();
  }
  async compact(store: ClusterStore) {
    for (let i = 0; i < 60; i++)
      await store.transact([], [{ put: "compact/filler", value: `${i}` }]);
  }
  async stop() {
    rmSync(this.#directory, { recursive: true });
  }
}

class Etcd implements Engine {
  readonly name = "etcd";
  #cluster: EtcdCluster | undefined;

  get #member() {
    if (this.#cluster === undefined) throw new Error("etcd was not started");
    return this.#cluster.members[0];
  }
  async start() {
    this.#cluster = await EtcdCluster.start(1);
  }
  open() {
    return openClusterStore(`etcd:${this.#member.endpoint}`);
  }
  async crash(store: ClusterStore) {
    await this.#member.kill();
    await this.#cluster?.mend();
    return store;
  }
  async compact(store: ClusterStore) {
    const { revision } = await store.list("compact/");
    expect(await this.#member.post("/v3/kv/compaction", { revision: `${revision}` })).toBeDefined();
  }
  async stop() {
    await this.#cluster?.stop();
  }
}

/** Reads `count` steps, then ends the watch. */
async function take(
  store: ClusterStore,
  prefix: string,
  from: number,
  count: number,
): Promise<WatchStep[]> {
  const steps: WatchStep[] = [];
  const ended = new AbortController();
  for await (const step of store.watch(prefix, from, ended.signal)) {
    steps.push(step);
    if (steps.length === count || step.kind === "compacted") break;
  }
  ended.abort();
  return steps;
}

describe.each([new Embedded(), new Etcd()])("cluster store: $name", (engine) => {
  let store: ClusterStore;
  let prefix = "";
  let round = 0;

  beforeAll(async () => {
    await engine.start();
    store = engine.open();
  });
  afterAll(async () => {
    await store?.close();
    await engine.stop();
  });
  beforeEach(() => {
    prefix = `test${++round}/`;
  });

  const put = async (name: string, value: string) => {
    const result = await store.transact([], [{ put: prefix + name, value }]);
    expect(result.done).toBe(true);
    return result.revision;
  };

  test("an absent key is undefined; a put key reads back with its revision", async () => {
    expect(await store.get(`${prefix}a`)).toBeUndefined();
    const revision = await put("a", "värde ☃");
    expect(await store.get(`${prefix}a`)).toEqual({
      key: `${prefix}a`,
      value: "värde ☃",
      modRevision: revision,
    });
  });

  test("a listing holds the prefix and nothing beside it, in order", async () => {
    await put("b", "2");
    await put("a", "1");
    await store.transact([], [{ put: `${prefix.slice(0, -1)}0`, value: "outside" }]);
    const { entries, revision } = await store.list(prefix);
    expect(entries.map(({ key }) => key)).toEqual([`${prefix}a`, `${prefix}b`]);
    expect(revision).toBeGreaterThanOrEqual(entries[1].modRevision);
  });

  test("create only: the second put of an absent key is refused and changes nothing", async () => {
    const key = `${prefix}once`;
    const create = (value: string) =>
      store.transact([{ key, modRevision: 0 }], [{ put: key, value }]);
    expect((await create("first")).done).toBe(true);
    expect((await create("second")).done).toBe(false);
    expect((await store.get(key))?.value).toBe("first");
  });

  test("compare and swap: a stale revision is refused", async () => {
    const key = `${prefix}cas`;
    const first = await put("cas", "1");
    const swapped = await store.transact([{ key, modRevision: first }], [{ put: key, value: "2" }]);
    expect(swapped.done).toBe(true);
    const stale = await store.transact([{ key, modRevision: first }], [{ put: key, value: "3" }]);
    expect(stale.done).toBe(false);
    expect((await store.get(key))?.value).toBe("2");
  });

  test("a transaction is one revision, whole or not at all", async () => {
    const revision = await put("old", "x");
    const both = await store.transact(
      [{ key: `${prefix}old`, modRevision: revision }],
      [{ put: `${prefix}new`, value: "y" }, { delete: `${prefix}old` }],
    );
    expect(both.done).toBe(true);
    expect((await store.list(prefix)).entries.map(({ key }) => key)).toEqual([`${prefix}new`]);
    const none = await store.transact(
      [
        { key: `${prefix}new`, modRevision: both.revision },
        { key: `${prefix}old`, modRevision: revision },
      ],
      [{ delete: `${prefix}new` }],
    );
    expect(none.done).toBe(false);
    expect(await store.get(`${prefix}new`)).toBeDefined();
  });

  test("of concurrent swaps from one revision exactly one is done", async () => {
    const key = `${prefix}race`;
    const modRevision = await put("race", "start");
    const results = await Promise.all(
      Array.from({ length: 8 }, (_, i) =>
        store.transact([{ key, modRevision }], [{ put: key, value: `${i}` }]),
      ),
    );
    expect(results.filter(({ done }) => done)).toHaveLength(1);
  });

  test("what one engine can't do, both refuse", async () => {
    const key = `${prefix}k`;
    const wrong = [
      [{ put: key, value: "" }, { delete: key }],
      [{ put: "", value: "" }],
      [{ put: "with space", value: "" }],
      [{ put: key, value: "x".repeat(600_000) }],
      Array.from({ length: 129 }, (_, i) => ({ put: `${key}${i}`, value: "" })),
    ];
    for (const writes of wrong) {
      await expect(store.transact([], writes)).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
    }
    expect((await store.list(prefix)).entries).toEqual([]);
  });

  test("a watch gives each revision once, in order, whole, puts and deletes", async () => {
    const first = await put("a", "1");
    const second = await store
      .transact([], [{ put: `${prefix}b`, value: "2" }, { delete: `${prefix}a` }])
      .then(({ revision }) => revision);
    await store.transact([], [{ put: "elsewhere", value: "x" }]);
    const steps = take(store, prefix, first, 3);
    const third = await put("c", "3");
    const [one, two, three] = await steps;
    expect(one).toEqual({
      kind: "changes",
      revision: first,
      changes: [{ kind: "put", key: `${prefix}a`, value: "1" }],
    });
    expect(two).toMatchObject({ kind: "changes", revision: second });
    expect(two.kind === "changes" && new Set(two.changes)).toEqual(
      new Set([
        { kind: "put", key: `${prefix}b`, value: "2" },
        { kind: "delete", key: `${prefix}a` },
      ]),
    );
    expect(three).toMatchObject({ revision: third });
  });

  test("a watch from the last delivered revision + 1 repeats and misses nothing", async () => {
    const { revision } = await store.list(prefix);
    const seen: string[] = [];
    let next = revision + 1;
    const written: string[] = [];
    for (let i = 0; i < 30; i++) {
      await put("n", `${i}`);
      written.push(`${i}`);
      if (i % 7 !== 6) continue;
      for (const step of await take(store, prefix, next, written.length - seen.length)) {
        if (step.kind !== "changes") throw new Error("compacted");
        for (const change of step.changes) if (change.kind === "put") seen.push(change.value);
        next = step.revision + 1;
      }
    }
    expect(seen).toEqual(written.slice(0, seen.length));
    expect(seen.length).toBe(28);
  });

  test("the engine dies while a watch is behind: what was acknowledged is delivered, once", async () => {
    const { revision } = await store.list(prefix);
    for (let i = 0; i < 5; i++) await put("n", `before ${i}`);
    const seen: string[] = [];
    const ended = new AbortController();
    const consume = (async () => {
      for await (const step of store.watch(prefix, revision + 1, ended.signal)) {
        if (step.kind !== "changes") continue;
        for (const change of step.changes) if (change.kind === "put") seen.push(change.value);
        if (seen.length === (engine.name === "etcd" ? 10 : 5)) break;
      }
    })();
    await expect.poll(() => seen.length).toBe(5);
    const again = await engine.crash(store);
    expect((await again.get(`${prefix}n`))?.value).toBe("before 4");
    store = again;
    for (let i = 0; i < 5; i++) await put("n", `after ${i}`);
    if (engine.name === "embedded") {
      // Its watches end with the process; the new one resumes from what it had delivered.
      await consume;
      const { entries } = await store.list(prefix);
      const rest = await take(store, prefix, entries[0].modRevision - 4, 5);
      expect(rest).toHaveLength(5);
      return;
    }
    await consume;
    ended.abort();
    expect(seen).toEqual([
      ...Array.from({ length: 5 }, (_, i) => `before ${i}`),
      ...Array.from({ length: 5 }, (_, i) => `after ${i}`),
    ]);
  });

  test("a watch from a revision no longer kept says so instead of skipping", async () => {
    const revision = await put("a", "1");
    await put("a", "2");
    await engine.compact(store);
    expect(await take(store, prefix, revision, 1)).toEqual([{ kind: "compacted" }]);
  });

  test("an aborted watch ends", async () => {
    const ended = new AbortController();
    const { revision } = await store.list(prefix);
    const steps = (async () => {
      for await (const _ of store.watch(prefix, revision + 1, ended.signal)) return "step";
      return "ended";
    })();
    await delay(50);
    ended.abort();
    expect(await steps).toBe("ended");
  });

  test("a revoked lease takes its keys along, in one revision", async () => {
    const lease = await store.grantLease(5000);
    await store.transact(
      [],
      [
        { put: `${prefix}a`, value: "1", lease: lease.id },
        { put: `${prefix}b`, value: "2", lease: lease.id },
      ],
    );
    await put("c", "stays");
    await lease.revoke();
    const { entries } = await store.list(prefix);
    expect(entries.map(({ key }) => key)).toEqual([`${prefix}c`]);
    await expect(
      store.transact([], [{ put: `${prefix}d`, value: "", lease: lease.id }]),
    ).rejects.toMatchObject({ code: "NOT_FOUND" });
  });

  test("a lease is kept alive past its time by its process, and ends without it", async () => {
    const other = engine.name === "etcd" ? engine.open() : store;
    const lease = await other.grantLease(3000);
    await store.transact([], [{ put: `${prefix}alive`, value: "", lease: lease.id }]);
    await delay(6000);
    expect(await store.get(`${prefix}alive`)).toBeDefined();
    if (engine.name === "etcd") await other.close();
    else store = await engine.crash(store);
    await expect.poll(() => store.get(`${prefix}alive`), { interval: 250 }).toBeUndefined();
  });
});

describe("cluster store", () => {
  test("an engine that doesn't answer is UNAVAILABLE, by name", async () => {
    const [port] = await freePorts(1);
    const store = new EtcdStore([`http://127.0.0.1:${port}`], { timeoutMs: 1000 });
    await expect(store.get("a")).rejects.toMatchObject({ code: "UNAVAILABLE", operation: "get" });
    await expect(store.transact([], [])).rejects.toMatchObject({ code: "UNAVAILABLE" });
    await store.close();
    await expect(store.get("a")).rejects.toMatchObject({ code: "UNAVAILABLE" });
  });

  test("a URL that names no engine is refused", () => {
    for (const url of ["", "sqlite:", "etcd:", "etcd:ftp://x", "redis://localhost"]) {
      expect(() => openClusterStore(url)).toThrow(/names no cluster store/);
    }
  });

  test.each([
    ["http://a:1,,http://b:1", '"" is no endpoint'],
    ["http://a:1,", '"" is no endpoint'],
    ["http://a:1, http://b:1", '" http://b:1" is no endpoint'],
    ["http://a:1;http://b:1", '"http://a:1;http://b:1" is no endpoint'],
    ["http://a:1,b:1", '"b:1" is no endpoint'],
    ["http://a:1,http://b", '"http://b" is no endpoint'],
    ["http://a:1,http://b:0", '"http://b:0" is no endpoint'],
    ["http://a:1,http://b:65536", '"http://b:65536" is no endpoint'],
    ["http://a:1,http://b:1/", '"http://b:1/" is no endpoint'],
    ["http://user:word@a:1", '"http://user:word@a:1" is no endpoint'],
    ["http://[::1:1", '"http://[::1:1" is no endpoint'],
    ["unix:/run/etcd.sock,unix:etcd.sock", '"unix:etcd.sock" is no endpoint'],
    ["http://a:1,http://b:1,http://a:1", "http://a:1 is there twice"],
  ])("the malformed endpoints %s are refused: %s", (endpoints, why) => {
    let refusal: unknown;
    try {
      openClusterStore(`etcd:${endpoints}`);
    } catch (error) {
      refusal = error;
    }
    expect(refusal).toMatchObject({
      name: "KeelsonError",
      code: "INVALID_ARGUMENT",
      message: `"etcd:${endpoints}" names no cluster store: ${why}.`,
    });
  });

  test("endpoints in every form are taken", async () => {
    for (const endpoints of [
      "http://127.0.0.1:2379,http://node-b.example:2379,http://[::1]:2379",
      "unix:/run/keelson/cluster-store/etcd.sock",
      "unix:/tmp/localhost:2379,http://b:2379",
    ]) {
      await openClusterStore(`etcd:${endpoints}`).close();
    }
  });

  test("a file that isn't SQLite is refused by its path", () => {
    expect(() => new EmbeddedStore(import.meta.filename)).toThrow(/contract\.test\.ts/);
  });
});
