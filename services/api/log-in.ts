/** Passwords: log-in by one, and changing one's own. */
import { randomBytes } from "node:crypto";
import { hashPasswordAsync, isOutdated, verifyPassword } from "#lib/password/password.ts";
import type { OpenedSession, Sessions } from "./access.ts";
import type { LogIn } from "./accounts-schema.ts";
import type { Clock } from "./clock.ts";
import { LogInLimiter } from "./log-in-limiter.ts";
import type { Policy } from "./policy.ts";

export class LogIns {
  readonly #policy: Policy;
  readonly #sessions: Sessions;
  readonly #clock: Clock;
  readonly #limiter: LogInLimiter;

  constructor(policy: Policy, sessions: Sessions, clock: Clock, limiter = new LogInLimiter(clock)) {
    this.#policy = policy;
    this.#sessions = sessions;
    this.#clock = clock;
    this.#limiter = limiter;
  }

  /** UNAUTHENTICATED for a wrong name or password, in the same time; RATE_LIMITED. */
  async logIn(
    { user: given, password, lifetimeSeconds }: LogIn,
    address: string,
  ): Promise<OpenedSession> {
    const user = given.toLowerCase();
    const record = this.#policy.find("user", user);
    const passwordHash = record?.passwordHash ?? null;
    await this.#limiter.attempt(address, async () => {
      const good = await verifyPassword(password, passwordHash ?? decoyHash);
      return good && passwordHash !== null && record?.disabled === false;
    });
    if (isOutdated(passwordHash!)) await this.#upgradeHash(user, passwordHash!, password);
    return await this.#sessions.open(user, "password", address, lifetimeSeconds);
  }

  async #upgradeHash(user: string, outdated: string, password: string): Promise<void> {
    const passwordHash = await hashPasswordAsync(password);
    await this.#policy.change((draft) => {
      const now = draft.get("user", user);
      if (now?.passwordHash === outdated) draft.put("user", { ...now, passwordHash });
    });
  }

  /** Ends all of the user's other sessions. */
  async changePassword(
    token: string,
    user: string,
    current: string,
    next: string,
    address: string,
  ): Promise<void> {
    const { passwordHash: known } = this.#policy.get("user", user);
    await this.#limiter.attempt(
      address,
      async () => (await verifyPassword(current, known ?? decoyHash)) && known !== null,
    );
    const passwordHash = await hashPasswordAsync(next);
    await this.#policy.change((draft) => {
      const record = draft.get("user", user) ?? this.#policy.get("user", user);
      const passwordChangedAt = this.#clock.now();
      draft.put("user", { ...record, passwordHash, passwordChangedAt, mustChangePassword: false });
      this.#sessions.endAllIn(draft, user, token);
    });
  }
}

/** Of no password: an unknown name takes as long as a known one. */
const decoyHash = await hashPasswordAsync(randomBytes(32).toString("base64url"));
