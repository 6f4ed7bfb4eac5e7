/**
 * The etcd engine: gRPC by connect-node. What etcd's own Go client does for its users is done here:
 * a watch that lost its connection resumes at the last delivered revision + 1, keep-alives restart,
 * endpoints rotate, a dead connection is found by pings.
 */
import { connect } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { KeelsonError } from "#lib/model/errors.ts";
import { checkTtl } from "../embedded.ts";
import {
  type Change,
  type ClusterStore,
  type Compare,
  checkKey,
  checkTransaction,
  type Entry,
  type Lease,
  type Listing,
  prefixEnd,
  type Transaction,
  type WatchStep,
  type Write,
} from "../store.ts";
import {
  Compare_CompareResult,
  Compare_CompareTarget,
  Event_EventType,
  type KeyValue,
  KV,
  Lease as LeaseService,
  Watch,
  type WatchResponse,
} from "./gen/rpc_pb.js";

export interface EtcdOptions {
  /** How long one request may take before it counts as UNAVAILABLE. */
  readonly timeoutMs?: number;
}

/** etcd's default `--grpc-keepalive-min-time` is 5 s: more pings than that end the connection. */
const pingIntervalMs = 10_000;
const pingTimeoutMs = 5_000;
const retryDelayMs = { first: 100, most: 3_000 };

const encoder = new TextEncoder();
const decoder = new TextDecoder();

function clientsOf(endpoint: string, timeoutMs: number) {
  const unixPath = endpoint.startsWith("unix:") ? endpoint.slice("unix:".length) : undefined;
  const baseUrl = unixPath === undefined ? endpoint : "http://localhost";
  const sessions = new Http2SessionManager(
    baseUrl,
    { pingIntervalMs, pingTimeoutMs, pingIdleConnection: true },
    unixPath === undefined ? undefined : { createConnection: () => connect(unixPath) },
  );
  const transport = createGrpcTransport({
    baseUrl,
    sessionManager: sessions,
    defaultTimeoutMs: timeoutMs,
  });
  return {
    endpoint,
    kv: createClient(KV, transport),
    watch: createClient(Watch, transport),
    lease: createClient(LeaseService, transport),
    close: () => sessions.abort(),
  };
}
type Clients = ReturnType<typeof clientsOf>;

export class EtcdStore implements ClusterStore {
  readonly engine = "etcd";
  readonly #members: readonly Clients[];
  #current = 0;
  readonly #closing = new AbortController();

  /** `endpoints`: `http://HOST:PORT` or `unix:/PATH`, members of one cluster. */
  constructor(endpoints: readonly string[], options: EtcdOptions = {}) {
    this.#members = endpoints.map((endpoint) => clientsOf(endpoint, options.timeoutMs ?? 5_000));
  }

  async get(key: string): Promise<Entry | undefined> {
    checkKey(key);
    const answer = await this.#read("get", key, ({ kv }) => kv.range({ key: encoder.encode(key) }));
    return answer.kvs.map(entryOf)[0];
  }

  async list(prefix: string): Promise<Listing> {
    const answer = await this.#read("list", prefix, ({ kv }) =>
      kv.range({ key: encoder.encode(prefix), rangeEnd: encoder.encode(prefixEnd(prefix)) }),
    );
    return { revision: Number(answer.header?.revision), entries: answer.kvs.map(entryOf) };
  }

  async transact(compares: readonly Compare[], writes: readonly Write[]): Promise<Transaction> {
    checkTransaction(compares, writes);
    this.#checkOpen();
    const object = writes.map((write) => ("put" in write ? write.put : write.delete)).join(" ");
    try {
      const answer = await this.#members[this.#current].kv.txn({
        compare: compares.map(({ key, modRevision }) => ({
          key: encoder.encode(key),
          result: Compare_CompareResult.EQUAL,
          target: Compare_CompareTarget.MOD,
          targetUnion: { case: "modRevision", value: BigInt(modRevision) },
        })),
        success: writes.map((write) => ({
          request:
            "put" in write
              ? {
                  case: "requestPut",
                  value: {
                    key: encoder.encode(write.put),
                    value: encoder.encode(write.value),
                    lease: BigInt(write.lease ?? 0),
                  },
                }
              : { case: "requestDeleteRange", value: { key: encoder.encode(write.delete) } },
        })),
      });
      return { done: answer.succeeded, revision: Number(answer.header?.revision) };
    } catch (error) {
      // Never sent again from here: whether it happened is unknown.
      this.#rotate();
      throw explain(error, "transact", object);
    }
  }

  async grantLease(ttlMs: number): Promise<Lease> {
    checkTtl(ttlMs);
    const granted = await this.#read("grant lease", "", ({ lease }) =>
      lease.leaseGrant({ TTL: BigInt(ttlMs / 1000) }),
    );
    const id = granted.ID;
    const ended = new AbortController();
    const { promise: lost, resolve: lose } = Promise.withResolvers<void>();
    void this.#keepAlive(id, ttlMs, AbortSignal.any([ended.signal, this.#closing.signal]), lose);
    return {
      id: String(id),
      lost,
      revoke: async () => {
        ended.abort();
        await this.#read("revoke lease", String(id), ({ lease }) =>
          lease.leaseRevoke({ ID: id }),
        ).catch((error) => {
          if (!(error instanceof KeelsonError) || error.code !== "NOT_FOUND") throw error;
        });
      },
    };
  }

  /** One renewal a third of the time, each on its own stream, so that a lost one costs nothing. */
  async #keepAlive(id: bigint, ttlMs: number, signal: AbortSignal, lose: () => void) {
    let renewedAt = performance.now();
    while (!signal.aborted) {
      await delay(ttlMs / 3, undefined, { signal, ref: false }).catch(() => {});
      if (signal.aborted) return;
      try {
        const requests = (async function* () {
          yield { ID: id };
        })();
        const { lease } = this.#members[this.#current];
        for await (const answer of lease.leaseKeepAlive(requests, {
          signal,
          timeoutMs: Math.max(1000, ttlMs / 3),
        })) {
          if (answer.TTL <= 0n) {
            lose();
            return;
          }
          renewedAt = performance.now();
          break;
        }
      } catch {
        this.#rotate();
      }
      if (performance.now() - renewedAt > ttlMs + 1000) {
        lose();
        return;
      }
    }
  }

  async *watch(
    prefix: string,
    fromRevision: number,
    signal: AbortSignal,
  ): AsyncGenerator<WatchStep> {
    const ended = AbortSignal.any([signal, this.#closing.signal]);
    let next = fromRevision;
    let retryMs = retryDelayMs.first;
    while (!ended.aborted) {
      const stream = new AbortController();
      try {
        for await (const answer of this.#watchStream(
          prefix,
          next,
          AbortSignal.any([ended, stream.signal]),
        )) {
          retryMs = retryDelayMs.first;
          if (answer.compactRevision > 0n) {
            yield { kind: "compacted" };
            return;
          }
          if (answer.canceled) break;
          for (const step of stepsOf(answer)) {
            if (ended.aborted) return;
            yield step;
            next = step.revision + 1;
          }
        }
      } catch {
        // Every error is followed by a new stream from `next`: a watch outlives its connections.
        this.#rotate();
      } finally {
        stream.abort();
      }
      await delay(retryMs, undefined, { signal: ended, ref: false }).catch(() => {});
      retryMs = Math.min(retryMs * 2, retryDelayMs.most);
    }
  }

  #watchStream(prefix: string, from: number, signal: AbortSignal) {
    const requests = (async function* () {
      yield {
        requestUnion: {
          case: "createRequest" as const,
          value: {
            key: encoder.encode(prefix),
            rangeEnd: encoder.encode(prefixEnd(prefix)),
            startRevision: BigInt(from),
          },
        },
      };
      // The request side stays open, else etcd ends the stream.
      await new Promise<void>((resolve) =>
        signal.addEventListener("abort", () => resolve(), { once: true }),
      );
    })();
    // 0: no time limit.
    return this.#members[this.#current].watch.watch(requests, { signal, timeoutMs: 0 });
  }

  async close(): Promise<void> {
    this.#closing.abort();
    for (const member of this.#members) member.close();
  }

  /** A request that may be repeated: each member is tried once. */
  async #read<Answer>(
    operation: string,
    object: string,
    ask: (clients: Clients) => Promise<Answer>,
  ): Promise<Answer> {
    this.#checkOpen();
    let last: unknown;
    for (let attempt = 0; attempt < this.#members.length + 1; attempt++) {
      try {
        return await ask(this.#members[this.#current]);
      } catch (error) {
        last = error;
        if (!isTransient(error) || this.#closing.signal.aborted) break;
        this.#rotate();
      }
    }
    throw explain(last, operation, object);
  }

  #rotate(): void {
    this.#current = (this.#current + 1) % this.#members.length;
  }

  #checkOpen(): void {
    if (!this.#closing.signal.aborted) return;
    throw new KeelsonError("UNAVAILABLE", "The cluster store is closed.");
  }
}

/** A response may hold several revisions, never a part of one (fragments aren't asked for). */
function stepsOf(answer: WatchResponse) {
  const steps: { kind: "changes"; revision: number; changes: Change[] }[] = [];
  for (const { type, kv } of answer.events) {
    if (kv === undefined) continue;
    const key = decoder.decode(kv.key);
    const revision = Number(kv.modRevision);
    const change: Change =
      type === Event_EventType.DELETE
        ? { kind: "delete", key }
        : { kind: "put", key, value: decoder.decode(kv.value) };
    const last = steps.at(-1);
    if (last?.revision === revision) last.changes.push(change);
    else steps.push({ kind: "changes", revision, changes: [change] });
  }
  return steps;
}

function entryOf(kv: KeyValue): Entry {
  return {
    key: decoder.decode(kv.key),
    value: decoder.decode(kv.value),
    modRevision: Number(kv.modRevision),
  };
}

/** `canceled` too: it is what a call gets whose connection another call found dead. */
function isTransient(error: unknown): boolean {
  const code = ConnectError.from(error).code;
  return code === Code.Unavailable || code === Code.Canceled || code === Code.DeadlineExceeded;
}

function explain(error: unknown, operation: string, object: string): KeelsonError {
  if (error instanceof KeelsonError) return error;
  const { code, rawMessage } = ConnectError.from(error);
  const details = { operation, object, cause: error };
  if (code === Code.NotFound) return new KeelsonError("NOT_FOUND", `${rawMessage}.`, details);
  if (code === Code.ResourceExhausted) {
    return new KeelsonError("NO_SPACE", `The cluster store is full (${rawMessage}).`, {
      ...details,
      remedy: "Delete what isn't needed, or raise etcd's --quota-backend-bytes.",
    });
  }
  if (code === Code.InvalidArgument) {
    return new KeelsonError(
      "INVALID_ARGUMENT",
      `The cluster store refused: ${rawMessage}.`,
      details,
    );
  }
  return new KeelsonError("UNAVAILABLE", `The cluster store did not answer (${rawMessage}).`, {
    ...details,
    remedy: "Is keelson-cluster-store (etcd) running?",
  });
}
