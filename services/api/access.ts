/** Who calls: sessions, and what their accounts may do now. */
import { createHash, randomBytes } from "node:crypto";
import { KeelsonError } from "#lib/model/errors.ts";
import { customRoles, type SessionRecord } from "./account-records.ts";
import type { AccountSession, SessionInfo } from "./accounts-schema.ts";
import type { Clock } from "./clock.ts";
import { permissionsOf } from "./permissions.ts";
import { type Draft, notFound, type Policy } from "./policy.ts";
import { Tokens } from "./tokens.ts";

/** How somebody showed who they are. */
export type LogInMethod = "password" | "totp" | "recovery-code" | "webauthn" | "oidc";

export const defaultLifetimeSeconds = 12 * 3600;
/** Of one user: nobody's log-ins can end another one's sessions. */
const mostSessions = 60;

export interface OpenedSession {
  readonly token: string;
  readonly info: SessionInfo;
}

/** Of the digest: enough to tell sessions apart. */
const shownDigits = 16;

export interface Caller {
  readonly info: SessionInfo;
  /** Of the API token that was used; null for a person's session. */
  readonly tokenId: string | null;
}

export class Sessions {
  readonly #policy: Policy;
  readonly #clock: Clock;

  readonly #tokens: Tokens;

  constructor(policy: Policy, clock: Clock, tokens = new Tokens(policy, clock)) {
    this.#policy = policy;
    this.#clock = clock;
    this.#tokens = tokens;
  }

  /**
   * Opens a session for a user who has shown by `how` who they are. `lifetimeSeconds`: 300 to
   * 2 592 000. UNAUTHENTICATED if there is no such user, or it is disabled.
   */
  async open(
    user: string,
    how: LogInMethod,
    address: string,
    lifetimeSeconds = defaultLifetimeSeconds,
  ): Promise<OpenedSession> {
    const token = randomBytes(32).toString("base64url");
    const createdAt = this.#clock.now();
    const expiresAt = new Date(Date.parse(createdAt) + lifetimeSeconds * 1000).toISOString();
    const record: SessionRecord = { id: digestOf(token), user, createdAt, expiresAt, how, address };
    await this.#policy.change((draft) => {
      const account = draft.get("user", user);
      if (account === undefined || account.disabled) {
        throw new KeelsonError("UNAUTHENTICATED", "The account is disabled.", {
          operation: "log in",
          object: user,
          remedy: "Ask an administrator.",
        });
      }
      for (const id of this.#surplus(user)) draft.delete("session", id);
      draft.put("session", record);
      draft.put("user", { ...account, lastLogInAt: createdAt });
    });
    return { token, info: this.#info(record)! };
  }

  /** What the bearer of a session's or an API token may do now; undefined if nothing. */
  find(token: string): SessionInfo | undefined {
    return this.identify(token)?.info;
  }

  identify(token: string): Caller | undefined {
    const api = this.#tokens.find(token);
    if (api !== undefined) return { info: api.info, tokenId: api.id };
    const record = this.#policy.find("session", digestOf(token));
    if (record === undefined || record.expiresAt <= this.#clock.now()) return undefined;
    const info = this.#info(record);
    return info === undefined ? undefined : { info, tokenId: null };
  }

  /** Of one user, or of all, newest first; `currentToken` is the one that asks. */
  list(user?: string, currentToken?: string): AccountSession[] {
    const own = currentToken === undefined ? undefined : digestOf(currentToken);
    const now = this.#clock.now();
    return this.#policy
      .list("session")
      .filter((session) => (user ?? session.user) === session.user && session.expiresAt > now)
      .sort((a, b) => (a.createdAt < b.createdAt ? 1 : -1))
      .map(({ id, ...shown }) => ({ ...shown, id: id.slice(0, shownDigits), current: id === own }));
  }

  /** One of `list`, with whether it is the token's own. */
  asSeenBy(token: string, session: AccountSession): AccountSession {
    return { ...session, current: session.id === digestOf(token).slice(0, shownDigits) };
  }

  /** Ends one by the id that `list` shows; NOT_FOUND also for another user's. */
  async end(user: string, shownId: string): Promise<void> {
    const found = this.#policy
      .list("session")
      .find(({ id, user: owner }) => owner === user && id.slice(0, shownDigits) === shownId);
    if (found === undefined) throw notFound("session", shownId);
    await this.#policy.change((draft) => draft.delete("session", found.id));
  }

  async endOthers(user: string, token: string): Promise<void> {
    await this.#policy.change((draft) => this.endAllIn(draft, user, token));
  }

  async logOut(token: string): Promise<void> {
    await this.#policy.change((draft) => draft.delete("session", digestOf(token)));
  }

  /** Within another change: all of a user's sessions, but the one of `exceptToken`. */
  endAllIn(draft: Draft, user: string, exceptToken?: string): void {
    const own = exceptToken === undefined ? undefined : digestOf(exceptToken);
    for (const session of this.#policy.list("session")) {
      if (session.user === user && session.id !== own) draft.delete("session", session.id);
    }
  }

  #info({ user, expiresAt }: SessionRecord): SessionInfo | undefined {
    const account = this.#policy.find("user", user);
    if (account === undefined || account.disabled) return undefined;
    return {
      user,
      displayName: account.displayName || user,
      roles: account.roles,
      permissions: permissionsOf(account.roles, customRoles(this.#policy)),
      mustChangePassword: account.mustChangePassword,
      expiresAt,
    };
  }

  /** Ended ones, and the user's oldest beyond what is kept. At most 100, for one transaction. */
  #surplus(user: string): string[] {
    const now = this.#clock.now();
    const sessions = this.#policy.list("session");
    const ended = sessions.filter(({ expiresAt }) => expiresAt <= now);
    const own = sessions
      .filter((session) => session.user === user && session.expiresAt > now)
      .sort((a, b) => (a.createdAt < b.createdAt ? -1 : 1));
    const tooMany = own.slice(0, Math.max(0, own.length - mostSessions + 1));
    return [...tooMany, ...ended].slice(0, 100).map(({ id }) => id);
  }
}

export function digestOf(token: string): string {
  return createHash("sha256").update(token).digest("hex");
}
