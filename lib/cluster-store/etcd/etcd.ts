/**
 * The etcd engine: gRPC by connect-node. What etcd's own Go client does for its users is done here:
 * a watch that lost its connection resumes at the last delivered revision + 1, keep-alives restart,
 * a member that fails is left for the next, a dead connection is found by pings.
 */
import { setTimeout as delay } from "node:timers/promises";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { type ErrorDetails, KeelsonError } from "#lib/model/errors.ts";
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
import { Connection, NotConnected, type Pings } from "./connection.ts";
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
  /** How long one member may take to answer before the next is asked, or UNAVAILABLE thrown. */
  readonly timeoutMs?: number;
  readonly pings?: Pings;
}

const defaultTimeoutMs = 5_000;
/** etcd's default `--grpc-keepalive-min-time` is 5 s: more pings than that end the connection. */
const defaultPings: Pings = { intervalMs: 10_000, timeoutMs: 5_000 };
const retryDelayMs = { first: 100, most: 3_000 };

const encoder = new TextEncoder();
const decoder = new TextDecoder();

function memberAt(endpoint: string, timeoutMs: number, pings: Pings) {
  const connection = new Connection(endpoint, pings);
  const transport = createGrpcTransport({
    baseUrl: connection.authority,
    sessionManager: connection,
    defaultTimeoutMs: timeoutMs,
  });
  return {
    endpoint,
    kv: createClient(KV, transport),
    watch: createClient(Watch, transport),
    lease: createClient(LeaseService, transport),
    close: () => connection.close(),
  };
}
type Member = ReturnType<typeof memberAt>;

export class EtcdStore implements ClusterStore {
  readonly engine = "etcd";
  readonly #members: readonly Member[];
  /** Every request goes to this one until it fails. */
  #member: Member;
  readonly #timeoutMs: number;
  readonly #closing = new AbortController();

  /** `endpoints`: `http://HOST:PORT` or `unix:/PATH`, members of one cluster; at least one. */
  constructor(endpoints: readonly string[], options: EtcdOptions = {}) {
    const { timeoutMs = defaultTimeoutMs, pings = defaultPings } = options;
    this.#timeoutMs = timeoutMs;
    this.#members = endpoints.map((endpoint) => memberAt(endpoint, timeoutMs, pings));
    this.#member = this.#members[0];
  }

  async get(key: string): Promise<Entry | undefined> {
    checkKey(key);
    const answer = await this.#ask("get", key, "again", ({ kv }) =>
      kv.range({ key: encoder.encode(key) }),
    );
    return answer.kvs.map(entryOf)[0];
  }

  async list(prefix: string): Promise<Listing> {
    const answer = await this.#ask("list", prefix, "again", ({ kv }) =>
      kv.range({ key: encoder.encode(prefix), rangeEnd: encoder.encode(prefixEnd(prefix)) }),
    );
    return { revision: Number(answer.header?.revision), entries: answer.kvs.map(entryOf) };
  }

  async transact(compares: readonly Compare[], writes: readonly Write[]): Promise<Transaction> {
    checkTransaction(compares, writes);
    const request = {
      compare: compares.map(({ key, modRevision }) => ({
        key: encoder.encode(key),
        result: Compare_CompareResult.EQUAL,
        target: Compare_CompareTarget.MOD,
        targetUnion: { case: "modRevision" as const, value: BigInt(modRevision) },
      })),
      success: writes.map((write) => ({ request: requestOf(write) })),
    };
    const object = writes.map((write) => ("put" in write ? write.put : write.delete)).join(" ");
    const answer = await this.#ask("transact", object, "once", ({ kv }) => kv.txn(request));
    return { done: answer.succeeded, revision: Number(answer.header?.revision) };
  }

  async grantLease(ttlMs: number): Promise<Lease> {
    checkTtl(ttlMs);
    const granted = await this.#ask("grant lease", "", "again", ({ lease }) =>
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
        await this.#ask("revoke lease", String(id), "again", ({ lease }) =>
          lease.leaseRevoke({ ID: id }),
        ).catch((error) => {
          if (!(error instanceof KeelsonError) || error.code !== "NOT_FOUND") throw error;
        });
      },
    };
  }

  /**
   * A renewal each third of the time, each on its own stream, so that a lost one costs nothing: it
   * is tried again at the next member at once.
   */
  async #keepAlive(id: bigint, ttlMs: number, signal: AbortSignal, lose: () => void) {
    // Whole milliseconds: etcd ends a stream whose time limit has a fraction.
    const thirdMs = Math.round(ttlMs / 3);
    let renewedAt = performance.now();
    let waitMs = thirdMs;
    while (performance.now() - renewedAt <= ttlMs + 1000) {
      await delay(waitMs, undefined, { signal, ref: false }).catch(() => {});
      if (signal.aborted) return;
      const member = this.#member;
      try {
        const left = await renew(member, id, Math.max(1000, thirdMs), signal);
        if (left <= 0n) break;
        renewedAt = performance.now();
        waitMs = thirdMs;
      } catch {
        if (signal.aborted) return;
        this.#leave(member);
        waitMs = retryDelayMs.first;
      }
    }
    if (!signal.aborted) lose();
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
      const member = this.#member;
      const stream = new AbortController();
      // etcd answers at once that the watch is there; a member that doesn't may never do.
      const overdue = setTimeout(() => stream.abort(), this.#timeoutMs).unref();
      try {
        for await (const answer of watchStream(
          member,
          prefix,
          next,
          AbortSignal.any([ended, stream.signal]),
        )) {
          clearTimeout(overdue);
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
        if (!ended.aborted) this.#leave(member);
      } finally {
        clearTimeout(overdue);
        stream.abort();
      }
      await delay(retryMs, undefined, { signal: ended, ref: false }).catch(() => {});
      retryMs = Math.min(retryMs * 2, retryDelayMs.most);
    }
  }

  async close(): Promise<void> {
    this.#closing.abort();
    for (const member of this.#members) member.close();
  }

  /**
   * Asks one member after the other until one answers. Where a member took the request and its
   * answer was lost, it may have been done: then it is asked again only if that does no harm, for as
   * long as every member would have had its time. An election takes less.
   */
  async #ask<Answer>(
    operation: string,
    object: string,
    sent: "once" | "again",
    ask: (member: Member) => Promise<Answer>,
  ): Promise<Answer> {
    const endAt = performance.now() + this.#timeoutMs * this.#members.length;
    for (let unreached = 0; ; await delay(retryDelayMs.first)) {
      this.#checkOpen();
      const member = this.#member;
      try {
        return await ask(member);
      } catch (cause) {
        const error = ConnectError.from(cause);
        const details = { operation, object, cause };
        if (answers.has(error.code)) throw explain(error, details);
        this.#leave(member);
        const reached = !(error.cause instanceof NotConnected);
        unreached = reached ? 0 : unreached + 1;
        const unknown = reached && sent === "once";
        if (unknown || unreached === this.#members.length || performance.now() > endAt) {
          throw this.#unavailable(error.rawMessage, unknown, details);
        }
      }
    }
  }

  #unavailable(why: string, unknown: boolean, details: ErrorDetails): KeelsonError {
    const members = this.#members.map(({ endpoint }) => endpoint).join(", ");
    const outcome = unknown ? " Whether the change was made is unknown." : "";
    return new KeelsonError(
      "UNAVAILABLE",
      `The cluster store (${members}) did not answer: ${why}.${outcome}`,
      { ...details, remedy: "Is keelson-cluster-store (etcd) running?" },
    );
  }

  /** Others may have left it before: only the first of them moves on. */
  #leave(member: Member): void {
    if (this.#member !== member) return;
    const next = this.#members.indexOf(member) + 1;
    this.#member = this.#members[next % this.#members.length];
  }

  #checkOpen(): void {
    if (!this.#closing.signal.aborted) return;
    throw new KeelsonError("UNAVAILABLE", "The cluster store is closed.");
  }
}

function requestOf(write: Write) {
  if ("delete" in write) {
    return { case: "requestDeleteRange" as const, value: { key: encoder.encode(write.delete) } };
  }
  return {
    case: "requestPut" as const,
    value: {
      key: encoder.encode(write.put),
      value: encoder.encode(write.value),
      lease: BigInt(write.lease ?? 0),
    },
  };
}

/** Seconds that the lease now has; 0: it has ended. */
async function renew(member: Member, id: bigint, timeoutMs: number, signal: AbortSignal) {
  const requests = (async function* () {
    yield { ID: id };
  })();
  for await (const { TTL } of member.lease.leaseKeepAlive(requests, { signal, timeoutMs })) {
    return TTL;
  }
  throw new ConnectError("no answer", Code.Unavailable);
}

function watchStream(member: Member, prefix: string, from: number, signal: AbortSignal) {
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
  // etcd ends the watch once the member has been without a leader for a few seconds. Else one that
  // is cut from the others would keep it open and tell nothing.
  const headers = { hasleader: "true" };
  // 0: no time limit.
  return member.watch.watch(requests, { signal, timeoutMs: 0, headers });
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

/** What etcd itself says of a request; all other codes tell of its connections and elections. */
const answers = new Set([
  Code.InvalidArgument,
  Code.NotFound,
  Code.AlreadyExists,
  Code.PermissionDenied,
  Code.ResourceExhausted,
  Code.FailedPrecondition,
  Code.OutOfRange,
  Code.Unimplemented,
  Code.Unauthenticated,
]);

function explain({ code, rawMessage }: ConnectError, details: ErrorDetails): KeelsonError {
  if (code === Code.NotFound) return new KeelsonError("NOT_FOUND", `${rawMessage}.`, details);
  if (code === Code.ResourceExhausted) {
    return new KeelsonError("NO_SPACE", `The cluster store is full (${rawMessage}).`, {
      ...details,
      remedy: "Delete what isn't needed, or raise etcd's --quota-backend-bytes.",
    });
  }
  const message = `The cluster store refused: ${rawMessage}.`;
  if (code === Code.InvalidArgument) return new KeelsonError("INVALID_ARGUMENT", message, details);
  return new KeelsonError("UNAVAILABLE", message, details);
}
