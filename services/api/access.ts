/** Who may call: log-in, sessions, and how fast somebody may guess. */
import { createHash, randomBytes } from "node:crypto";
import { KeelsonError } from "#lib/model/errors.ts";
import { hashPasswordAsync, isOutdated, verifyPassword } from "#lib/password/password.ts";
import type { Clock } from "./clock.ts";
import type { Policy } from "./policy.ts";
import type { LogIn, SessionInfo } from "./schema.ts";

/** Every route says one of these; `anyone` is for what must work before a log-in. */
export type Access = "anyone" | "admin";

const defaultLifetimeSeconds = 12 * 3600;
const mostSessions = 200;

export class Sessions {
  readonly #policy: Policy;
  readonly #clock: Clock;
  readonly #limiter: LogInLimiter;

  constructor(policy: Policy, clock: Clock, limiter = new LogInLimiter(clock)) {
    this.#policy = policy;
    this.#clock = clock;
    this.#limiter = limiter;
  }

  /** UNAUTHENTICATED for a wrong name or password, in the same time; RATE_LIMITED. */
  async logIn(
    { user, password, lifetimeSeconds }: LogIn,
    address: string,
  ): Promise<{ token: string; info: SessionInfo }> {
    const record = this.#policy.find("user", user);
    await this.#limiter.attempt(address, async () => {
      const good = await verifyPassword(password, record?.passwordHash ?? decoyHash);
      return good && record !== undefined;
    });
    const token = randomBytes(32).toString("base64url");
    const createdAt = this.#clock.now();
    const lifeMs = (lifetimeSeconds ?? defaultLifetimeSeconds) * 1000;
    const expiresAt = new Date(Date.parse(createdAt) + lifeMs).toISOString();
    const upgraded = isOutdated(record!.passwordHash) ? await hashPasswordAsync(password) : null;
    await this.#policy.change((draft) => {
      for (const id of this.#surplus()) draft.delete("session", id);
      draft.put("session", { id: digestOf(token), user, createdAt, expiresAt });
      const now = draft.get("user", user);
      if (upgraded !== null && now?.passwordHash === record!.passwordHash) {
        draft.put("user", { ...now, passwordHash: upgraded });
      }
    });
    return { token, info: { user, role: "admin", expiresAt } };
  }

  /** The session that a token stands for; undefined if none or it has ended. */
  find(token: string): SessionInfo | undefined {
    const record = this.#policy.find("session", digestOf(token));
    if (record === undefined || record.expiresAt <= this.#clock.now()) return undefined;
    return { user: record.user, role: "admin", expiresAt: record.expiresAt };
  }

  async logOut(token: string): Promise<void> {
    await this.#policy.change((draft) => draft.delete("session", digestOf(token)));
  }

  /** Ends all of the user's other sessions. */
  async changePassword(
    token: string,
    user: string,
    current: string,
    next: string,
    address: string,
  ): Promise<void> {
    const record = this.#policy.get("user", user);
    await this.#limiter.attempt(address, () => verifyPassword(current, record.passwordHash));
    const passwordHash = await hashPasswordAsync(next);
    const own = digestOf(token);
    await this.#policy.change((draft) => {
      draft.put("user", { ...record, passwordHash });
      for (const session of this.#policy.list("session")) {
        if (session.user === user && session.id !== own) draft.delete("session", session.id);
      }
    });
  }

  /** Ended ones, and the oldest beyond what is kept. At most 100, for one transaction. */
  #surplus(): string[] {
    const now = this.#clock.now();
    const sessions = this.#policy
      .list("session")
      .sort((a, b) => (a.createdAt < b.createdAt ? -1 : 1));
    const ended = sessions.filter(({ expiresAt }) => expiresAt <= now);
    const rest = sessions.filter(({ expiresAt }) => expiresAt > now);
    const tooMany = rest.slice(0, Math.max(0, rest.length - mostSessions + 1));
    return [...ended, ...tooMany].slice(0, 100).map(({ id }) => id);
  }
}

/** Of no password: an unknown name takes as long as a known one. */
const decoyHash = await hashPasswordAsync(randomBytes(32).toString("base64url"));

function digestOf(token: string): string {
  return createHash("sha256").update(token).digest("hex");
}

const freeFailures = 5;
const longestWaitMs = 60_000;
const forgetMs = 15 * 60_000;
/** Hashes at once, and waiting: each takes 32 MiB. */
const atOnce = 2;
const mostWaiting = 8;
const mostAddresses = 10_000;

interface Guesser {
  failures: number;
  /** Boot-time clock. */
  notBeforeMs: number;
  lastMs: number;
  busy: boolean;
}

/**
 * Slows one address down after five failures (1, 2, 4 ... 60 s), never the others: nobody can lock
 * the admin out by guessing. What all addresses together may cost is bounded too.
 */
export class LogInLimiter {
  readonly #clock: Clock;
  readonly #guessers = new Map<string, Guesser>();
  #running = 0;
  readonly #waiting: (() => void)[] = [];

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Runs `verify`; UNAUTHENTICATED if it says no, RATE_LIMITED without running it. */
  async attempt(address: string, verify: () => Promise<boolean>): Promise<void> {
    const guesser = this.#guesser(networkOf(address));
    const nowMs = this.#clock.bootMs();
    if (guesser.busy && guesser.failures > 0) throw limited(1);
    if (guesser.notBeforeMs > nowMs) throw limited((guesser.notBeforeMs - nowMs) / 1000);
    if (this.#waiting.length >= mostWaiting) throw limited(2);
    guesser.busy = true;
    try {
      if (await this.#inTurn(verify)) {
        guesser.failures = 0;
        guesser.notBeforeMs = 0;
        return;
      }
    } finally {
      guesser.busy = false;
    }
    guesser.failures++;
    guesser.lastMs = this.#clock.bootMs();
    if (guesser.failures >= freeFailures) {
      const waitMs = Math.min(longestWaitMs, 1000 * 2 ** (guesser.failures - freeFailures));
      guesser.notBeforeMs = guesser.lastMs + waitMs;
    }
    throw new KeelsonError("UNAUTHENTICATED", "Wrong user name or password.", {
      operation: "log in",
    });
  }

  async #inTurn<Result>(work: () => Promise<Result>): Promise<Result> {
    while (this.#running >= atOnce) await new Promise<void>((go) => this.#waiting.push(go));
    this.#running++;
    try {
      return await work();
    } finally {
      this.#running--;
      this.#waiting.shift()?.();
    }
  }

  #guesser(network: string): Guesser {
    const nowMs = this.#clock.bootMs();
    for (const [key, { lastMs, busy }] of this.#guessers) {
      if (busy) continue;
      if (nowMs - lastMs > forgetMs || this.#guessers.size > mostAddresses) {
        this.#guessers.delete(key);
      }
    }
    let guesser = this.#guessers.get(network);
    if (guesser === undefined) {
      guesser = { failures: 0, notBeforeMs: 0, lastMs: nowMs, busy: false };
      this.#guessers.set(network, guesser);
    }
    return guesser;
  }
}

/** One guesser has a whole IPv6 /64. */
function networkOf(address: string): string {
  const bare = address.replace(/^::ffff:(?=\d+\.)/, "");
  if (!bare.includes(":")) return bare;
  const [head, tail] = bare.split("::");
  const left = head === "" ? [] : head.split(":");
  const right = tail === undefined || tail === "" ? [] : tail.split(":");
  const zeroes = tail === undefined ? 0 : 8 - left.length - right.length;
  return [...left, ...new Array<string>(zeroes).fill("0"), ...right].slice(0, 4).join(":");
}

function limited(seconds: number): KeelsonError {
  const whole = Math.max(1, Math.ceil(seconds));
  return new KeelsonError("RATE_LIMITED", `Too many log-ins. Wait ${whole} s, then try again.`, {
    operation: "log in",
  });
}
