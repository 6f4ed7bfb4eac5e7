/** Log-in by password, with a second step where the account has one; changing one's own password. */
import { randomBytes } from "node:crypto";
import { KeelsonError } from "#lib/model/errors.ts";
import {
  hashOfNothing,
  hashPasswordAsync,
  isOutdated,
  verifyPassword,
} from "#lib/password/password.ts";
import type { LogInMethod, OpenedSession, Sessions } from "./access.ts";
import type { LogIn, LogInChallenge, SecondFactor } from "./accounts-schema.ts";
import type { Clock } from "./clock.ts";
import { hasSecurityKey } from "./identity-records.ts";
import type { LogInDevices } from "./log-in-device.ts";
import { type Guess, LogInLimiter, networkOf, wrongCode } from "./log-in-limiter.ts";
import type { Policy } from "./policy.ts";
import type { TotpFactors } from "./totp.ts";

/** From where, and what it showed to be known by. */
export interface Origin {
  readonly address: string;
  readonly deviceCookie?: string | undefined;
}

interface Challenge {
  readonly user: string;
  readonly passwordHash: string;
  readonly lifetimeSeconds: number | undefined;
  /** Boot-time clock. */
  readonly endsMs: number;
  attempts: number;
}

const challengeMs = 5 * 60_000;
const mostChallenges = 1000;
const mostCodesPerChallenge = 5;

export class LogIns {
  readonly #policy: Policy;
  readonly #sessions: Sessions;
  readonly #totp: TotpFactors;
  readonly #devices: LogInDevices;
  readonly #clock: Clock;
  readonly #limiter: LogInLimiter;
  readonly #challenges = new Map<string, Challenge>();

  constructor(from: {
    readonly policy: Policy;
    readonly sessions: Sessions;
    readonly totp: TotpFactors;
    readonly devices: LogInDevices;
    readonly clock: Clock;
  }) {
    this.#policy = from.policy;
    this.#sessions = from.sessions;
    this.#totp = from.totp;
    this.#devices = from.devices;
    this.#clock = from.clock;
    this.#limiter = new LogInLimiter(from.clock);
  }

  /**
   * A session, or a challenge where a code is asked for too. UNAUTHENTICATED for a wrong name or
   * password or a disabled user, in the same words and time; RATE_LIMITED.
   */
  async logIn(given: LogIn, origin: Origin): Promise<OpenedSession | LogInChallenge> {
    const user = given.user.toLowerCase();
    const record = this.#policy.find("user", user);
    const passwordHash = record?.passwordHash ?? null;
    await this.#limiter.attempt(this.#guess(user, origin), async () => {
      const good = await verifyPassword(given.password, passwordHash ?? decoyHash);
      return good && passwordHash !== null && record?.disabled === false;
    });
    if (isOutdated(passwordHash!)) await this.#upgradeHash(user, passwordHash!, given.password);
    const methods = this.#secondSteps(user);
    if (methods.length > 0) return this.#challenge(user, methods, given.lifetimeSeconds);
    return await this.#sessions.open(user, "password", origin.address, given.lifetimeSeconds);
  }

  /** Whose log-in a challenge is of, as long as it is known. */
  challenged(challenge: string): string | undefined {
    return this.#challenges.get(challenge)?.user;
  }

  /** UNAUTHENTICATED for a wrong or used code, or a challenge that has ended. */
  async secondFactor(
    { challenge: id, code }: SecondFactor,
    origin: Origin,
  ): Promise<OpenedSession> {
    const challenge = this.#begun(id);
    const { user, lifetimeSeconds } = challenge;
    if (++challenge.attempts >= mostCodesPerChallenge) this.#challenges.delete(id);
    let how: LogInMethod | undefined;
    const take = async () => {
      how = await this.#totp.take(user, code.trim());
      return how !== undefined;
    };
    // A recovery code can't be guessed: it gets in while somebody else is slowed down.
    const guess = this.#guess(user, origin);
    if (/^\d{6}$/.test(code.trim())) await this.#limiter.attemptCode(guess, take);
    else await this.#limiter.attempt(guess, take, wrongCode);
    this.#challenges.delete(id);
    return await this.#sessions.open(user, how!, origin.address, lifetimeSeconds);
  }

  /** Whose password a challenge followed; UNAUTHENTICATED for one that has ended. */
  challengedUser(id: string): string {
    return this.#begun(id).user;
  }

  /** For a second step that was taken elsewhere, by the challenge's own user. */
  async complete(id: string, how: LogInMethod, { address }: Origin): Promise<OpenedSession> {
    const { user, lifetimeSeconds } = this.#begun(id);
    this.#challenges.delete(id);
    return await this.#sessions.open(user, how, address, lifetimeSeconds);
  }

  /** UNAUTHENTICATED unless `password` is the user's own, now. Guesses are counted as log-ins are. */
  async requirePassword(user: string, password: string, origin: Origin): Promise<void> {
    const known = this.#policy.get("user", user).passwordHash;
    await this.#limiter.attempt(
      this.#guess(user, origin),
      async () => (await verifyPassword(password, known ?? decoyHash)) && known !== null,
    );
  }

  /** Ends all of the user's other sessions. INVALID_ARGUMENT for the old password again. */
  async changePassword(
    token: string,
    user: string,
    { current, next }: { readonly current: string; readonly next: string },
    origin: Origin,
  ): Promise<void> {
    await this.requirePassword(user, current, origin);
    if (next === current) {
      throw new KeelsonError("INVALID_ARGUMENT", "The new password is the old one.", {
        remedy: "Choose another.",
      });
    }
    const passwordHash = await hashPasswordAsync(next);
    await this.#policy.change((draft) => {
      const record = draft.get("user", user);
      if (record === undefined) return;
      const passwordChangedAt = this.#clock.now();
      draft.put("user", { ...record, passwordHash, passwordChangedAt, mustChangePassword: false });
      this.#sessions.endAllIn(draft, user, token);
    });
  }

  /** For whoever has just logged in: the cookie by which this browser is known next time. */
  issueDevice(user: string): string {
    return this.#devices.issue(user, Date.parse(this.#clock.now()));
  }

  /** What is asked for after the password; any one of them is enough. */
  #secondSteps(user: string): LogInChallenge["methods"] {
    const methods: LogInChallenge["methods"] = [];
    if (this.#totp.state(user).state === "on") methods.push("totp", "recovery-code");
    if (hasSecurityKey(this.#policy, user)) methods.push("security-key");
    return methods;
  }

  #begun(id: string): Challenge {
    const challenge = this.#challenges.get(id);
    // A password that was changed meanwhile ends what the old one had begun.
    const good =
      challenge !== undefined &&
      challenge.endsMs > this.#clock.bootMs() &&
      this.#policy.find("user", challenge.user)?.passwordHash === challenge.passwordHash;
    if (good) return challenge;
    throw new KeelsonError("UNAUTHENTICATED", "The log-in took too long, or has ended.", {
      operation: "log in",
      remedy: "Begin again with the password.",
    });
  }

  #challenge(
    user: string,
    methods: LogInChallenge["methods"],
    lifetimeSeconds: number | undefined,
  ): LogInChallenge {
    const nowMs = this.#clock.bootMs();
    for (const [id, { endsMs }] of this.#challenges) {
      if (endsMs > nowMs && this.#challenges.size < mostChallenges) break;
      this.#challenges.delete(id);
    }
    const challenge = randomBytes(32).toString("base64url");
    const passwordHash = this.#policy.get("user", user).passwordHash!;
    const endsMs = nowMs + challengeMs;
    this.#challenges.set(challenge, { user, passwordHash, lifetimeSeconds, endsMs, attempts: 0 });
    const expiresAt = new Date(Date.parse(this.#clock.now()) + challengeMs).toISOString();
    return { challenge, methods, expiresAt };
  }

  #guess(account: string, { address, deviceCookie }: Origin): Guess {
    const nowMs = Date.parse(this.#clock.now());
    const device = this.#devices.verify(account, deviceCookie, nowMs);
    const network = networkOf(address);
    const knownAddress = () =>
      this.#policy
        .list("session")
        .some((session) => session.user === account && networkOf(session.address) === network);
    return { address, account, device, knownAddress };
  }

  async #upgradeHash(user: string, outdated: string, password: string): Promise<void> {
    const passwordHash = await hashPasswordAsync(password);
    await this.#policy.change((draft) => {
      const now = draft.get("user", user);
      if (now?.passwordHash === outdated) draft.put("user", { ...now, passwordHash });
    });
  }
}

export function isChallenge(answer: OpenedSession | LogInChallenge): answer is LogInChallenge {
  return "challenge" in answer;
}

/** Of no password: an unknown name takes as long as a known one. */
const decoyHash = hashOfNothing();
