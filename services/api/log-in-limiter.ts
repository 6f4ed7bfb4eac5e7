/** How fast somebody may guess. */
import { KeelsonError } from "#lib/model/errors.ts";
import type { Clock } from "./clock.ts";

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
