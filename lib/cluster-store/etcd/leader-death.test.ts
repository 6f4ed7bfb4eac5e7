/**
 * Three real members, of which the leader dies by SIGKILL, or hangs, while the store is in use.
 * What was acknowledged is there afterwards; a watch has each revision once, in order, whole.
 */
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { connect, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { isKeelsonError } from "#lib/model/errors.ts";
import type { ClusterStore, WatchStep } from "../store.ts";
import { EtcdCluster, type EtcdMember, freePorts, until } from "./cluster.fixture.ts";
import { type EtcdOptions, EtcdStore } from "./etcd.ts";

const range = (count: number) => Array.from({ length: count }, (_, i) => i);
const never = new AbortController().signal;
/** Emulators beside the tests may leave them a hundredth of a core: these bound a hang only. */
const hangMs = 240_000;
const slowMs = 15_000;

let cluster: EtcdCluster;
let prefix = "";
let round = 0;
const cleanUps: (() => unknown)[] = [];

beforeAll(async () => {
  // Lets clients ping more often than every 5 s.
  cluster = await EtcdCluster.start(3, ["--grpc-keepalive-min-time", "100ms"]);
}, hangMs);
afterAll(() => cluster?.stop());
beforeEach(() => {
  prefix = `round${++round}/`;
});
afterEach(async () => {
  for (const cleanUp of cleanUps.splice(0)) await cleanUp();
  await cluster.mend();
}, hangMs);

/** A client that begins at the first of `members`. */
function open(members: readonly { endpoint: string }[], options?: EtcdOptions): EtcdStore {
  const endpoints = members.map(({ endpoint }) => endpoint);
  const store = new EtcdStore(endpoints, { timeoutMs: slowMs, ...options });
  cleanUps.push(() => store.close());
  return store;
}

async function down(count: number): Promise<{ endpoint: string }[]> {
  return (await freePorts(count)).map((port) => ({ endpoint: `http://127.0.0.1:${port}` }));
}

describe("etcd, three members", { timeout: hangMs }, () => {
  test("the leader dies while a watch is behind by many revisions: it goes on at another member", async () => {
    const { leader, term } = await cluster.leader();
    const others = cluster.without(leader);
    const writer = open(others);
    const from = (await writer.list(prefix)).revision + 1;
    const ledger = new Ledger();
    await ledger.writeMany(writer, 1200, "before");
    // etcd sends what is behind in lots of 1000 revisions: the rest is still with the leader.
    const reader = new Reader(open([leader, ...others]), from, 600);
    await reader.held;
    await leader.kill();
    reader.resume();
    await cluster.leader(term);
    await ledger.writeMany(writer, 50, "after");
    await reader.sees(await ledger.writeUntilDone(writer, "end"));
    expect(ledger.acknowledged.size).toBeGreaterThan(1200);
    ledger.check(reader.steps);
  });

  test("the leader dies during swaps of a counter by six clients: none is lost, none is done twice", async () => {
    const { leader, term } = await cluster.leader();
    const witness = open(cluster.without(leader));
    const counter = `${prefix}counter`;
    const from = (await witness.list(prefix)).revision + 1;
    const acknowledged = new Set<string>();
    const refused = new Set<string>();
    const unknown = new Set<string>();
    let stopped = false;

    const swap = async (client: number) => {
      // Half of them begin at the leader.
      const others = cluster.without(leader);
      const members = client % 2 === 0 ? [leader, ...others] : [...others, leader];
      const reading = open(members);
      // A swap that the dead leader took along is given up soon.
      const writing = open(members, { timeoutMs: 3000 });
      for (let n = 0; !stopped; n++) {
        const marker = `${prefix}swap/${client}.${n}`;
        const entry = await reading.get(counter);
        const value = `${Number(entry?.value ?? 0) + 1}`;
        try {
          const { done } = await writing.transact(
            [{ key: counter, modRevision: entry?.modRevision ?? 0 }],
            [counter, marker].map((put) => ({ put, value })),
          );
          (done ? acknowledged : refused).add(marker);
        } catch (error) {
          if (!isKeelsonError(error, "UNAVAILABLE")) throw error;
          unknown.add(marker);
        }
      }
    };
    const swapping = Promise.all(range(6).map(swap));
    // A read that fails ends this at once, and not at the last await.
    const reach = (count: number) =>
      Promise.race([
        swapping,
        until(
          () => `${count} swaps, of which there are ${acknowledged.size}`,
          () => acknowledged.size >= count,
        ),
      ]);
    await reach(50);
    await leader.kill();
    await Promise.race([swapping, cluster.leader(term)]);
    await reach(acknowledged.size + 50);
    stopped = true;
    await swapping;

    const { entries, revision } = await witness.list(prefix);
    const markers = new Set(entries.map(({ key }) => key).filter((key) => key !== counter));
    expect([...acknowledged].filter((marker) => !markers.has(marker))).toEqual([]);
    expect([...refused].filter((marker) => markers.has(marker))).toEqual([]);
    const doneUnknown = [...unknown].filter((marker) => markers.has(marker)).length;
    expect(entries.find(({ key }) => key === counter)?.value).toBe(
      `${acknowledged.size + doneUnknown}`,
    );
    const history: string[] = [];
    for await (const step of witness.watch(counter, from, never)) {
      if (step.kind === "compacted") throw new Error("compacted");
      for (const change of step.changes) if (change.kind === "put") history.push(change.value);
      if (step.revision === revision) break;
    }
    expect(history).toEqual(range(markers.size).map((i) => `${i + 1}`));
  });

  test("the answer to a swap is lost on its way: unknown, done once, not sent to another member", async () => {
    const [first, ...others] = cluster.members;
    const line = await Line.to(first);
    const store = open([line, ...others]);
    const witness = open(others);
    const key = `${prefix}counter`;
    expect(await store.get(key)).toBeUndefined();
    line.mute();
    const swap = store.transact([{ key, modRevision: 0 }], [{ put: key, value: "1" }]);
    swap.catch(() => {});
    const done = await until(
      () => "the swap to be done",
      () => witness.get(key),
    );
    line.cut();
    await expect(swap).rejects.toMatchObject({
      code: "UNAVAILABLE",
      operation: "transact",
      message: expect.stringContaining("Whether the change was made is unknown."),
    });
    expect(await store.get(key)).toEqual(done);
  });

  test("the leader dies while a lease is kept alive: it lives on, and ends when its process does", async () => {
    // Not a multiple of three: renewals are due at a third of it.
    const ttlMs = 5000;
    const { leader, term } = await cluster.leader();
    const others = cluster.without(leader);
    const witness = open(others);
    const key = `${prefix}held`;
    // The member that is next is down too: renewing passes over both in time.
    const holder = new LeaseHolder([leader, ...(await down(1)), ...others], key, ttlMs);
    await holder.says("held");
    await leader.kill();
    await cluster.leader(term);
    // A new leader gives each lease its time anew, and an election's: past that only renewal keeps it.
    const endAt = performance.now() + ttlMs + 2000;
    while (performance.now() < endAt) {
      expect(await witness.get(key)).toMatchObject({ value: "held" });
      expect(holder.said).toBe("held\n");
      await delay(100);
    }
    holder.kill();
    const stoppedAt = performance.now();
    await until(
      () => "the lease to end",
      async () => (await witness.get(key)) === undefined,
    );
    // etcd looks for ended leases twice a second; the rest is for a busy machine.
    expect(performance.now() - stoppedAt).toBeLessThan(ttlMs + slowMs);
  });

  test("the killed leader returns with its data while writing goes on: a watch moved onto it misses nothing", async () => {
    const { leader: killed, term } = await cluster.leader();
    const [survivor, other] = cluster.without(killed);
    // Writes that a dead leader takes along are given up soon.
    const writer = open([other, survivor], { timeoutMs: 3000 });
    const from = (await writer.list(prefix)).revision + 1;
    const ledger = new Ledger();
    await ledger.writeMany(writer, 20, "before");
    await killed.kill();
    await cluster.leader(term);
    await ledger.writeMany(writer, 300, "without it");
    const moved = new Reader(open([survivor, killed]), from, 100);
    await moved.held;
    cluster.restart(killed);
    const onlyOnReturned = new Reader(open([killed]), from);
    await ledger.writeMany(writer, 50, "while it catches up");
    await onlyOnReturned.sees(await ledger.writeUntilDone(writer, "caught up"));
    ledger.check(onlyOnReturned.steps);

    await survivor.kill();
    moved.resume();
    const end = await ledger.writeUntilDone(writer, "end");
    for (const reader of [moved, onlyOnReturned]) {
      await reader.sees(end);
      ledger.check(reader.steps);
    }
  });

  test("the leader hangs with its connections open: watches and requests leave it", async () => {
    const { leader } = await cluster.leader();
    const others = cluster.without(leader);
    const timeoutMs = 1500;
    const store = open([leader, ...others], { timeoutMs, pings: { intervalMs: 500, timeoutMs } });
    const ledger = new Ledger();
    const from = (await open(others).list(prefix)).revision + 1;
    const reader = new Reader(store, from);
    await reader.sees(await ledger.writeUntilDone(store, "before"));
    await leader.freeze();
    // Without pings in time it has to notice that its watch isn't there.
    const slowPings = { intervalMs: 60_000, timeoutMs: 60_000 };
    const lateStore = open([leader, ...others], { timeoutMs, pings: slowPings });
    const late = new Reader(lateStore, from);
    const end = await ledger.writeUntilDone(store, "end");
    for (const each of [reader, late]) {
      await each.sees(end);
      ledger.check(each.steps);
    }
  });

  test("a member has lost all others: a watch leaves it instead of going silent", async () => {
    const [cutOff, ...others] = cluster.members;
    const line = await Line.to(cutOff);
    const spare = await Line.to(others[0]);
    const store = open([line, spare]);
    const ledger = new Ledger();
    const from = (await store.list(prefix)).revision + 1;
    const reader = new Reader(store, from);
    await reader.sees(await ledger.writeUntilDone(store, "before"));
    for (const member of others) await member.freeze();
    await until(
      () => "the watch to ask another member",
      () => spare.connections > 0,
    );
    for (const member of others) member.thaw();
    await reader.sees(await ledger.writeUntilDone(open(others), "after"));
    ledger.check(reader.steps);
  });

  test("the whole cluster dies and returns: requests name its members, a watch goes on", async () => {
    const pings = { intervalMs: 200, timeoutMs: 5000 };
    const store = open(cluster.members, { pings });
    const ledger = new Ledger();
    const from = (await store.list(prefix)).revision + 1;
    const reader = new Reader(store, from);
    const before = await ledger.writeUntilDone(store, "before");
    await reader.sees(before);
    await Promise.all(cluster.members.map((member) => member.kill()));
    const requests: [operation: string, () => Promise<unknown>][] = [
      ["get", () => store.get(`${prefix}x`)],
      ["list", () => store.list(prefix)],
      ["transact", () => store.transact([], [{ put: `${prefix}x`, value: "" }])],
      ["grant lease", () => store.grantLease(1000)],
    ];
    for (const [operation, request] of requests) {
      const error = await request().catch((reason: unknown) => reason);
      expect(isKeelsonError(error, "UNAVAILABLE") && error.operation).toBe(operation);
      for (const endpoint of cluster.endpoints) expect(String(error)).toContain(endpoint);
    }
    await cluster.mend();
    expect((await store.get(`${prefix}x`))?.value.trim()).toBe(before);
    await reader.sees(await ledger.writeUntilDone(store, "after"));
    ledger.check(reader.steps);
  });

  test("two of three endpoints are down: of many requests at once each is done, by the third", async () => {
    const [member] = cluster.members;
    const store = open([...(await down(1)), { endpoint: "unix:/nowhere/etcd.sock" }, member]);
    await Promise.all(
      range(30).map(async (i) => {
        await store.transact([], [{ put: `${prefix}${i}`, value: "" }]);
        expect(await store.get(`${prefix}${i}`)).toBeDefined();
      }),
    );
    expect((await store.list(prefix)).entries).toHaveLength(30);
  });

  test("an idle connection isn't pinged: etcd doesn't end it; an aborted watch doesn't leave it", async () => {
    const folder = mkdtempSync(join(tmpdir(), "keelson-line-"));
    cleanUps.push(() => rmSync(folder, { recursive: true }));
    const [first, ...others] = cluster.members;
    const line = await Line.to(first, join(folder, "etcd.sock"));
    const spare = await Line.to(others[0]);
    const store = open([line, spare], { pings: { intervalMs: 100, timeoutMs: 5000 } });
    const ended = new AbortController();
    const { revision } = await store.list(prefix);
    const steps = store.watch(prefix, revision + 1, ended.signal)[Symbol.asyncIterator]();
    const step = steps.next();
    const put = await store.transact([], [{ put: `${prefix}a`, value: "" }]);
    expect(await step).toMatchObject({ value: { revision: put.revision } });
    const next = steps.next();
    ended.abort();
    expect(await next).toMatchObject({ done: true });
    // etcd bears with two pings too many.
    await delay(1000);
    expect(await store.get(`${prefix}a`)).toBeDefined();
    expect([line.connections, spare.connections]).toEqual([1, 0]);
  });
});

/** Transactions of three keys with one text, and what their writer knows of them. */
class Ledger {
  readonly acknowledged = new Map<number, string>();
  readonly unknown = new Set<string>();

  /** Whether it was acknowledged. */
  async write(store: ClusterStore, text: string): Promise<boolean> {
    // Long, so that a watch nobody reads from holds up etcd's sending.
    const value = text.padEnd(500);
    const writes = ["x", "y", "z"].map((name) => ({ put: prefix + name, value }));
    try {
      const { revision } = await store.transact([], writes);
      this.acknowledged.set(revision, text);
      return true;
    } catch (error) {
      if (!isKeelsonError(error, "UNAVAILABLE")) throw error;
      this.unknown.add(text);
      return false;
    }
  }

  async writeMany(store: ClusterStore, count: number, text: string): Promise<void> {
    const queue = range(count).values();
    const write = async () => {
      for (const i of queue) await this.write(store, `${text} ${i}`);
    };
    await Promise.all(range(50).map(write));
  }

  /** The text that was acknowledged in the end. */
  async writeUntilDone(store: ClusterStore, text: string): Promise<string> {
    let tries = 0;
    return await until(
      () => `"${text}" to be written`,
      async () => {
        const numbered = `${text} ${++tries}`;
        return (await this.write(store, numbered)) ? numbered : undefined;
      },
    );
  }

  /** What a watch of all revisions up to now has to have delivered. */
  check(steps: readonly Changes[]): void {
    const revisions = steps.map(({ revision }) => revision);
    expect(revisions).toEqual([...new Set(revisions)].sort((a, b) => a - b));
    const torn = steps.filter(
      ({ changes }) => changes.length !== 3 || new Set(changes.map(textOf)).size !== 1,
    );
    expect(torn).toEqual([]);
    const delivered = new Map(steps.map(({ revision, changes }) => [revision, textOf(changes[0])]));
    const missed = [...this.acknowledged].filter(
      ([revision, text]) => delivered.get(revision) !== text,
    );
    expect(missed).toEqual([]);
    const invented = [...delivered].filter(
      ([revision, text]) => !this.acknowledged.has(revision) && !this.unknown.has(text),
    );
    expect(invented).toEqual([]);
    expect(new Set(delivered.values()).size).toBe(delivered.size);
  }
}

type Changes = WatchStep & { kind: "changes" };

function textOf(change: Changes["changes"][number]): string {
  return change.kind === "put" ? change.value.trimEnd() : "deleted";
}

/** Reads a watch; stops reading at step `holdAt`, which keeps the watch behind, until `resume`. */
class Reader {
  readonly steps: Changes[] = [];
  readonly held: Promise<void>;
  readonly resume: () => void;

  constructor(store: ClusterStore, from: number, holdAt?: number) {
    const held = Promise.withResolvers<void>();
    const resumed = Promise.withResolvers<void>();
    this.held = held.promise;
    this.resume = resumed.resolve;
    void (async () => {
      for await (const step of store.watch(prefix, from, never)) {
        if (step.kind === "compacted") throw new Error("compacted");
        this.steps.push(step);
        if (this.steps.length !== holdAt) continue;
        held.resolve();
        await resumed.promise;
      }
    })();
  }

  async sees(text: string): Promise<void> {
    const last = () => this.steps.at(-1)?.changes.map(textOf);
    await until(
      () => `the watch to deliver "${text}"; after ${this.steps.length} steps it is at ${last()}`,
      () => last()?.includes(text),
    );
  }
}

/** Stands between a client and a member; can lose what the member answers. */
class Line {
  readonly endpoint: string;
  connections = 0;
  readonly #sockets = new Set<Socket>();
  #muted = false;

  static async to(member: EtcdMember, path?: string): Promise<Line> {
    const [port] = await freePorts(1);
    const endpoint = path === undefined ? `http://127.0.0.1:${port}` : `unix:${path}`;
    const line = new Line(endpoint);
    const server = createServer((client) => line.#pipe(client, new URL(member.endpoint)));
    await new Promise<void>((resolve) =>
      path === undefined ? server.listen(port, "127.0.0.1", resolve) : server.listen(path, resolve),
    );
    cleanUps.push(() => {
      server.close();
      line.cut();
    });
    return line;
  }

  private constructor(endpoint: string) {
    this.endpoint = endpoint;
  }

  #pipe(client: Socket, { hostname, port }: URL): void {
    this.connections++;
    const member = connect(Number(port), hostname);
    for (const socket of [client, member]) this.#sockets.add(socket.on("error", () => {}));
    client.pipe(member);
    member.on("data", (bytes) => {
      if (!this.#muted) client.write(bytes);
    });
    member.on("close", () => client.destroy());
  }

  mute(): void {
    this.#muted = true;
  }

  cut(): void {
    for (const socket of this.#sockets) socket.destroy();
  }
}

/** A process of its own that holds a lease with one key. */
class LeaseHolder {
  said = "";
  readonly kill: () => void;

  constructor(members: readonly { endpoint: string }[], key: string, ttlMs: number) {
    const program = join(import.meta.dirname, "lease-holder.fixture.ts");
    const url = `etcd:${members.map(({ endpoint }) => endpoint).join(",")}`;
    const child = spawn(process.execPath, [program, url, key, `${ttlMs}`], {
      stdio: ["pipe", "pipe", "inherit"],
    });
    child.stdout.on("data", (bytes) => {
      this.said += bytes;
    });
    this.kill = () => child.kill("SIGKILL");
    cleanUps.push(this.kill);
  }

  async says(word: string): Promise<void> {
    await until(
      () => `the lease's holder to say "${word}"`,
      () => this.said.includes(word),
    );
  }
}
