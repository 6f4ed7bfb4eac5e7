/**
 * The Idempotency-Key header (draft-ietf-httpapi-idempotency-key-header): a POST that is sent again
 * with the same key is carried out once.
 *
 *   key is new                     carried out; its answer is kept for 24 hours
 *   same request, answered         the same answer, with `idempotent-replayed: true`
 *   same request, not yet          waits for the first one's answer
 *   same request, api ended        CONFLICT: whether it happened must be looked at
 *   another request                IDEMPOTENCY_KEY_REUSED
 *
 * A key belongs to an account. Answers may hold what is shown once (a CHAP secret), so they are kept
 * sealed. A refused log-in, a missing permission, a limit and a fault of the node aren't kept:
 * nothing was done, and the next try may do better.
 */
import type { Context } from "hono";
import { KeelsonError } from "#lib/model/errors.ts";
import type { SecretBox } from "#lib/seal/secret-box.ts";
import type { Clock } from "./clock.ts";
import type { Journal } from "./journal.ts";

const keptMs = 24 * 3_600_000;
const mostPerAccount = 10_000;
const unkept = new Set([401, 403, 429]);

interface Answer {
  readonly status: number;
  readonly headers: Record<string, string>;
  readonly body: string;
}

export interface IdempotencyOptions {
  readonly journal: Journal;
  readonly box: SecretBox;
  readonly clock: Clock;
}

export class Idempotency {
  readonly #options: IdempotencyOptions;
  readonly #running = new Map<string, { fingerprint: string; ended: Promise<void> }>();

  constructor(options: IdempotencyOptions) {
    this.#options = options;
  }

  /** Runs `next` or answers instead of it; undefined: the answer is the one `next` made. */
  async around(
    context: Context,
    account: string,
    next: () => Promise<void>,
  ): Promise<Response | undefined> {
    const header = context.req.header("idempotency-key");
    if (header === undefined) {
      await next();
      return undefined;
    }
    const key = parseKey(header);
    const fingerprint = await fingerprintOf(context, this.#options.box);
    const place = `${account} ${key}`;
    for (;;) {
      const other = this.#running.get(place);
      if (other === undefined) break;
      if (other.fingerprint !== fingerprint) throw reused(key);
      await other.ended;
    }
    const kept = this.#options.journal.findAnswer(account, key);
    if (kept !== undefined) {
      const answer = this.#open(account, key, kept.value);
      if (kept.fingerprint !== fingerprint) throw reused(key);
      if (answer === undefined) throw unknownOutcome(key);
      return new Response(answer.body === "" ? null : answer.body, {
        status: answer.status,
        headers: { ...answer.headers, "idempotent-replayed": "true" },
      });
    }
    const { promise: ended, resolve: end } = Promise.withResolvers<void>();
    this.#running.set(place, { fingerprint, ended });
    try {
      await this.#carryOut(context, account, key, fingerprint, next);
    } finally {
      this.#running.delete(place);
      end();
    }
    return undefined;
  }

  async #carryOut(
    context: Context,
    account: string,
    key: string,
    fingerprint: string,
    next: () => Promise<void>,
  ): Promise<void> {
    const { journal, box, clock } = this.#options;
    const nowMs = Date.parse(clock.now());
    journal.pruneAnswers(nowMs - keptMs, account, mostPerAccount - 1);
    journal.beginAnswer(account, key, fingerprint, nowMs);
    try {
      await next();
    } catch (error) {
      journal.dropAnswer(account, key);
      throw error;
    }
    // Hono has made a problem document of what a handler threw by now.
    const response = context.res.clone();
    if (response.status >= 500 || unkept.has(response.status)) {
      journal.dropAnswer(account, key);
      return;
    }
    const headers: Record<string, string> = {};
    for (const name of ["content-type", "location", "etag"]) {
      const value = response.headers.get(name);
      if (value !== null) headers[name] = value;
    }
    const answer: Answer = { status: response.status, headers, body: await response.text() };
    journal.keepAnswer(account, key, box.seal(JSON.stringify(answer), answerPlace(account, key)));
  }

  /** Undefined: not there, or sealed with a key that this node no longer has. */
  #open(account: string, key: string, value: string | null): Answer | undefined {
    if (value === null) return undefined;
    try {
      return JSON.parse(this.#options.box.open(value, answerPlace(account, key))) as Answer;
    } catch {
      return undefined;
    }
  }
}

function answerPlace(account: string, key: string): string {
  return `answer/${account}/${key}`;
}

/** A string of RFC 8941, in quotes; without them it is taken as it stands. */
function parseKey(header: string): string {
  const key = /^"(.*)"$/.exec(header)?.[1] ?? header;
  if (/^[\x21\x23-\x7e]{1,255}$/.test(key)) return key;
  throw new KeelsonError("INVALID_ARGUMENT", "The Idempotency-Key can't be used.", {
    remedy: "Give 1 to 255 printable ASCII characters without spaces and quotes, such as a UUID.",
  });
}

/** Of everything that decides what the request does; keyed, since a password may be in its body. */
async function fingerprintOf(context: Context, box: SecretBox): Promise<string> {
  const { pathname, search } = new URL(context.req.url);
  return box.fingerprint(
    `${context.req.method} ${pathname}${search}`,
    context.req.header("content-type") ?? "",
    context.req.header("if-match") ?? "",
    new Uint8Array(await context.req.arrayBuffer()),
  );
}

function reused(key: string): KeelsonError {
  return new KeelsonError(
    "IDEMPOTENCY_KEY_REUSED",
    `The Idempotency-Key ${key} was used for another request.`,
    {
      object: key,
      remedy: "Use a new key for each new request; the old one only to send it again.",
    },
  );
}

function unknownOutcome(key: string): KeelsonError {
  return new KeelsonError("CONFLICT", "The node's api ended while it carried out this request.", {
    object: key,
    remedy: "Look whether it happened. If it did not, send it again with a new Idempotency-Key.",
  });
}
