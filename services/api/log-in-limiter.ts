/**
 * How fast somebody may guess, without a way to lock anybody out. Nothing is ever locked: who
 * guesses is slowed down, by three measures:
 *
 *   by address      5 failures are free, then 1, 2, 4 ... 60 s
 *   by account      20 failures from strangers together are free, then 1, 2, 4, 8, 10 s, shared by
 *                   all strangers: thousands of addresses guess no faster than one
 *   by one account's second factor   10 are free, then 30 s ... 15 min; only who knows the
 *                   password comes this far, and recovery codes are let through
 *
 * Known ones are spared the first two: a browser that has logged in before bears a device cookie
 * (log-in-device.ts) and is counted by that alone; an address that has an open session of the
 * account is counted by itself in place of the second. So guessers can't keep out who has been
 * there before.
 *
 * Hashes are dear (32 MiB and a core each): two run at once, known ones go first, few wait, the
 * rest is refused at once. Each map is bounded.
 */
import { createHash, randomBytes } from "node:crypto";
import { isKeelsonError, KeelsonError } from "#lib/model/errors.ts";
import type { Clock } from "./clock.ts";

export interface Guess {
  readonly address: string;
  readonly account: string;
  /** Of a valid device cookie for this account. */
  readonly device?: string | undefined;
  /** Has the account a session from this address? Asked only where it counts. */
  readonly knownAddress?: () => boolean;
}

const forgetMs = 15 * 60_000;
const mostKeys = 10_000;
/** Hashes at once, and waiting: each takes 32 MiB. */
const atOnce = 2;
const mostWaiting = 8;

interface Pace {
  readonly free: number;
  readonly firstMs: number;
  readonly longestMs: number;
}

const addressPace: Pace = { free: 5, firstMs: 1000, longestMs: 60_000 };
const accountPace: Pace = { free: 20, firstMs: 1000, longestMs: 10_000 };
const codePace: Pace = { free: 10, firstMs: 30_000, longestMs: 15 * 60_000 };

interface Guesser {
  failures: number;
  /** Boot-time clock. */
  notBeforeMs: number;
  lastMs: number;
  busy: number;
}

/** Failures by key, and how long each has to wait. */
class Slowdown {
  readonly #clock: Clock;
  readonly #pace: Pace;
  readonly #guessers = new Map<string, Guesser>();

  constructor(clock: Clock, pace: Pace) {
    this.#clock = clock;
    this.#pace = pace;
  }

  /** RATE_LIMITED without running `verify` if it is too early; what `wrong` makes if that says no. */
  async counted(
    key: string,
    verify: () => Promise<boolean>,
    wrong: () => KeelsonError,
  ): Promise<void> {
    const guesser = this.#begin(key);
    let result: "good" | "wrong" | "none" = "none";
    try {
      result = (await verify()) ? "good" : "wrong";
    } catch (error) {
      // Wrong, as an inner count has said already; anything else says nothing about the guess.
      if (isKeelsonError(error, "UNAUTHENTICATED")) result = "wrong";
      throw error;
    } finally {
      this.#end(guesser, result);
    }
    if (result === "wrong") throw wrong();
  }

  /** Towards the end of what is free, as many attempts at once as are left; then one by one. */
  #begin(key: string): Guesser {
    const nowMs = this.#clock.bootMs();
    let guesser = this.#guessers.get(key);
    if (guesser !== undefined && guesser.busy === 0 && nowMs - guesser.lastMs > this.#forgetMs) {
      this.#guessers.delete(key);
      guesser = undefined;
    }
    if (guesser === undefined) {
      this.#makeRoom();
      guesser = { failures: 0, notBeforeMs: 0, lastMs: nowMs, busy: 0 };
      this.#guessers.set(key, guesser);
    }
    const left = Math.max(1, this.#pace.free - guesser.failures);
    if (guesser.busy >= left) throw limited(1);
    if (guesser.notBeforeMs > nowMs) throw limited((guesser.notBeforeMs - nowMs) / 1000);
    guesser.busy++;
    return guesser;
  }

  #end(guesser: Guesser, result: "good" | "wrong" | "none"): void {
    guesser.busy--;
    if (result === "none") return;
    if (result === "good") {
      guesser.failures = 0;
      guesser.notBeforeMs = 0;
      return;
    }
    const { free, firstMs, longestMs } = this.#pace;
    guesser.failures++;
    guesser.lastMs = this.#clock.bootMs();
    if (guesser.failures < free) return;
    const waitMs = Math.min(longestMs, firstMs * 2 ** (guesser.failures - free));
    guesser.notBeforeMs = guesser.lastMs + waitMs;
  }

  get #forgetMs(): number {
    return Math.max(forgetMs, this.#pace.longestMs * 2);
  }

  /** The one that came first goes: a map keeps its order. At most one look per attempt. */
  #makeRoom(): void {
    if (this.#guessers.size < mostKeys) return;
    for (const [key, { busy }] of this.#guessers) {
      if (busy > 0) continue;
      this.#guessers.delete(key);
      return;
    }
  }
}

export class LogInLimiter {
  readonly #addresses: Slowdown;
  readonly #devices: Slowdown;
  readonly #accounts: Slowdown;
  readonly #knownAddresses: Slowdown;
  readonly #codes: Slowdown;
  readonly #salt = randomBytes(16);
  #running = 0;
  readonly #waiting: { readonly known: boolean; readonly go: () => void }[] = [];

  constructor(clock: Clock) {
    this.#addresses = new Slowdown(clock, addressPace);
    this.#devices = new Slowdown(clock, addressPace);
    this.#accounts = new Slowdown(clock, accountPace);
    this.#knownAddresses = new Slowdown(clock, addressPace);
    this.#codes = new Slowdown(clock, codePace);
  }

  /** Runs `verify`; throws `wrong` if it says no, RATE_LIMITED without running it. */
  async attempt(
    { address, account, device, knownAddress }: Guess,
    verify: () => Promise<boolean>,
    wrong = wrongPassword,
  ): Promise<void> {
    if (device !== undefined) {
      const inTurn = () => this.#inTurn(true, verify);
      return await this.#devices.counted(`${account} ${device}`, inTurn, wrong);
    }
    const network = networkOf(address);
    const byAccount = async () => {
      let good = false;
      const known = knownAddress?.() ?? false;
      const slowdown = known ? this.#knownAddresses : this.#accounts;
      const key = known ? `${account} ${network}` : this.#bucketOf(account);
      const inTurn = async () => {
        good = await this.#inTurn(known, verify);
        return good;
      };
      await slowdown.counted(key, inTurn, wrong);
      return good;
    };
    await this.#addresses.counted(network, byAccount, wrong);
  }

  /** For a second factor's code: cheap to check, so only the number of guesses counts. */
  async attemptCode({ account, device }: Guess, verify: () => Promise<boolean>): Promise<void> {
    const key = device === undefined ? account : `${account} ${device}`;
    await this.#codes.counted(key, verify, wrongCode);
  }

  /** Of a bounded number, by a salt: guessing at names nobody has pushes no account's count out. */
  #bucketOf(account: string): string {
    const digest = createHash("sha256").update(this.#salt).update(account).digest();
    return String(digest.readUInt16BE() & 0xfff);
  }

  async #inTurn<Result>(known: boolean, work: () => Promise<Result>): Promise<Result> {
    if (this.#running >= atOnce) {
      // Strangers can't fill the queue for known ones.
      const ahead = this.#waiting.filter((each) => each.known === known).length;
      if (ahead >= mostWaiting) throw limited(2);
      await new Promise<void>((go) => this.#waiting.push({ known, go }));
    } else this.#running++;
    try {
      return await work();
    } finally {
      const index = Math.max(
        0,
        this.#waiting.findIndex(({ known: first }) => first),
      );
      const [next] = this.#waiting.splice(index, 1);
      // The place is handed over, so that nobody slips in between.
      if (next === undefined) this.#running--;
      else next.go();
    }
  }
}

function wrongPassword(): KeelsonError {
  return new KeelsonError("UNAUTHENTICATED", "Wrong user name or password.", {
    operation: "log in",
  });
}

export function wrongCode(): KeelsonError {
  return new KeelsonError("UNAUTHENTICATED", "The code is wrong, or was used already.", {
    operation: "log in",
    remedy: "Wait for the authenticator's next code, or take a recovery code.",
  });
}

/** One guesser has a whole IPv6 /64. */
export function networkOf(address: string): string {
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
