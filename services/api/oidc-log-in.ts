/**
 * Log-in by the identity provider, from the first redirect to the session:
 *
 *   browser                         api                                provider
 *   GET /login/oidc/start   ----->  begins an attempt, its id in a cookie
 *           <----- 303 to the provider: state, nonce, code challenge
 *   log-in there, with whatever it asks  ---------------------------->
 *           <----- 303 back: code, state
 *   GET /login/oidc/callback ---->  takes the attempt (once), redeems the code ---> tokens
 *                                   checks them, finds or makes the user, sets the roles
 *           <----- 303 to the console, with the session's cookie
 *
 *   POST /session/log-out  ------>  ends the session, says where the provider's log-out page is
 *
 * Whatever goes wrong, nobody is in, the browser is told a code (oidc-failures.ts), the log has one
 * line with the same reference, and local log-in never waits for any of it.
 */
import { createHash, randomBytes } from "node:crypto";
import { isKeelsonError } from "#lib/model/errors.ts";
import type { Log } from "#lib/service/log.ts";
import { digestOf, type OpenedSession, type Sessions } from "./access.ts";
import { customRoles, newUser } from "./account-records.ts";
import { Ceremonies } from "./ceremonies.ts";
import type { Clock } from "./clock.ts";
import type { ConsoleAddresses } from "./console-address.ts";
import { unlinkIn } from "./identity-records.ts";
import type { Identity, IdentityProviderRecord, IdentityRecord } from "./identity-schema.ts";
import { networkOf } from "./log-in-limiter.ts";
import {
  type AuthorizationChecks,
  type OidcClient,
  OidcError,
  type Redeemed,
  shown,
} from "./oidc-client.ts";
import type { LogInFailureCode } from "./oidc-failures.ts";
import { admit, type ExternalIdentity, localAdmin } from "./oidc-mapping.ts";
import { builtInRoles } from "./permissions.ts";
import type { Policy } from "./policy.ts";

export const startPath = "/login/oidc/start";
export const callbackPath = "/login/oidc/callback";
const apiBase = "/api/v1";

/** Exchanges with the provider at once: each holds a connection and may take seconds. */
const mostExchanges = 8;
/** Logging out never waits longer for the provider; then it is here only. */
const logOutPatienceMs = 2_000;
/** Longer ones would not fit in an address; the provider asks who it is instead. */
const mostHintLength = 4096;
const mostHints = 512;
/** OIDC Core section 8: at most 255 ASCII characters. */
const subjectPattern = /^[\x20-\x7e]{1,255}$/;

interface Attempt {
  readonly checks: AuthorizationChecks;
  readonly issuer: string;
  /** Of the settings: after a change of them an answer to the old ones counts for nothing. */
  readonly changedAt: string;
  readonly redirectUri: string;
  readonly returnTo: string;
  readonly link: LinkRequest | null;
}

/** A user who is logged in here and wants to be known there. */
export interface LinkRequest {
  readonly user: string;
  readonly sessionId: string;
}

export interface StartedLogIn {
  readonly url: string;
  /** For the cookie. */
  readonly attemptId: string;
  readonly lifeSeconds: number;
}

export type FinishedLogIn =
  | { readonly kind: "session"; readonly session: OpenedSession; readonly returnTo: string }
  | { readonly kind: "linked"; readonly returnTo: string }
  | {
      readonly kind: "failed";
      readonly why: LogInFailureCode;
      readonly reference: string;
      /** Of the console: where it is shown. */
      readonly page: string;
    };

export type FailedLogIn = Extract<FinishedLogIn, { kind: "failed" }>;

export interface ProviderLogInOptions {
  readonly policy: Policy;
  readonly sessions: Sessions;
  readonly client: OidcClient;
  readonly console: ConsoleAddresses;
  readonly clock: Clock;
  readonly log: Log;
}

export class ProviderLogIns {
  readonly #from: ProviderLogInOptions;
  readonly #attempts: Ceremonies<Attempt>;
  /** ID tokens by session, oldest first. In memory: what they say of people is kept nowhere. */
  readonly #hints = new Map<string, { readonly issuer: string; readonly idToken: string }>();
  #exchanges = 0;

  constructor(options: ProviderLogInOptions) {
    this.#from = options;
    this.#attempts = new Ceremonies<Attempt>(options.clock);
  }

  /** To be registered at the provider. */
  get redirectUri(): string {
    return `${this.#from.console.url}${apiBase}${callbackPath}`;
  }

  /** To be registered at the provider: where to come back to after logging out there. */
  get logOutRedirectUri(): string {
    return `${this.#from.console.url}/`;
  }

  /** Where a browser that opened the console by another name is sent to begin. */
  get startUrl(): string {
    return `${this.#from.console.url}${apiBase}${startPath}`;
  }

  async start(
    address: string,
    returnTo: string,
    link: LinkRequest | null = null,
  ): Promise<StartedLogIn | FailedLogIn> {
    try {
      const settings = this.#settings();
      const checks = await this.#from.client.newChecks();
      const { redirectUri } = this;
      const url = await this.#exchange(() =>
        this.#from.client.authorizationUrl(settings, redirectUri, checks),
      );
      const { issuer, changedAt } = settings;
      const attemptId = this.#attempts.begin(networkOf(address), {
        ...{ checks, issuer, changedAt, redirectUri, link },
        returnTo: safeReturnTo(returnTo),
      });
      return { url, attemptId, lifeSeconds: this.#attempts.lifeSeconds };
    } catch (error) {
      return this.#fail(error, address);
    }
  }

  /** `search` is the callback's, with the question mark; `attemptId` the cookie's. */
  async finish(
    search: string,
    attemptId: string | undefined,
    address: string,
  ): Promise<FinishedLogIn> {
    const attempt = this.#attempts.take(attemptId);
    try {
      const settings = this.#settings();
      if (attempt === undefined) {
        throw new OidcError(
          "attempt-unknown",
          "no such attempt: ended, used, or another browser's",
        );
      }
      if (attempt.issuer !== settings.issuer || attempt.changedAt !== settings.changedAt) {
        throw new OidcError("attempt-unknown", "the settings were changed since it began");
      }
      const callback = new URL(attempt.redirectUri);
      callback.search = search;
      if (callback.searchParams.get("state") !== attempt.checks.state) {
        throw new OidcError("attempt-unknown", "the state is not that of the attempt");
      }
      const identity = await this.#exchange(() =>
        this.#from.client.redeem(settings, callback, attempt.checks),
      );
      if (!subjectPattern.test(identity.subject)) {
        throw new OidcError("answer-untrusted", "the subject is not 1 to 255 ASCII characters");
      }
      const { returnTo, link } = attempt;
      if (link !== null) {
        await this.#link(identity, link);
        return { kind: "linked", returnTo };
      }
      const user = await this.#admit(settings, identity);
      const session = await this.#from.sessions.open(user, "oidc", address);
      this.#keepHint(digestOf(session.token), identity);
      this.#from.log.info("logged in by the identity provider", {
        ...{ user, address, issuer: identity.issuer, subject: identity.subject },
        roles: session.info.roles.join(","),
      });
      return { kind: "session", session, returnTo };
    } catch (error) {
      const page = attempt?.link ? attempt.returnTo : "/";
      return { ...this.#fail(error, address), page };
    }
  }

  /**
   * For a session that is being ended: where to send its browser to log out at the provider too. Null
   * if it wasn't opened by the provider that is set, or that has no such page or doesn't answer.
   */
  async logOutUrl(token: string): Promise<string | null> {
    const { policy, client, log } = this.#from;
    const sessionId = digestOf(token);
    const hint = this.#hints.get(sessionId);
    this.#hints.delete(sessionId);
    const settings = policy.find("identity-provider", "provider");
    const session = policy.find("session", sessionId);
    if (settings === undefined || !settings.logOutThere || session?.how !== "oidc") return null;
    if (hint !== undefined && hint.issuer !== settings.issuer) return null;
    const { promise: late, resolve } = Promise.withResolvers<null>();
    const timer = setTimeout(() => resolve(null), logOutPatienceMs);
    try {
      const url = this.#exchange(() =>
        client.endSessionUrl(settings, this.logOutRedirectUri, hint?.idToken),
      );
      return await Promise.race([url, late]);
    } catch (error) {
      log.warn("no log-out at the identity provider", { why: asOidcError(error).detail });
      return null;
    } finally {
      clearTimeout(timer);
    }
  }

  #keepHint(sessionId: string, { issuer, idToken }: Redeemed): void {
    if (idToken === undefined || idToken.length > mostHintLength) return;
    for (const oldest of this.#hints.keys()) {
      if (this.#hints.size < mostHints) break;
      this.#hints.delete(oldest);
    }
    this.#hints.set(sessionId, { issuer, idToken });
  }

  identitiesOf(user: string): Identity[] {
    return this.#from.policy.list("identity").filter((identity) => identity.user === user);
  }

  /** NOT_FOUND unless it is that user's. IN_USE if nothing else would let the user in. */
  async unlink(user: string, id: string): Promise<void> {
    await this.#from.policy.change((draft) => unlinkIn(draft, user, id));
    this.#from.log.info("identity unlinked", { user });
  }

  #settings(): IdentityProviderRecord {
    const settings = this.#from.policy.find("identity-provider", "provider");
    if (settings === undefined) throw new OidcError("provider-off", "none is set up");
    return settings;
  }

  async #exchange<Result>(work: () => Promise<Result>): Promise<Result> {
    if (this.#exchanges >= mostExchanges) {
      throw new OidcError("busy", `${mostExchanges} log-ins wait for the provider already`);
    }
    this.#exchanges++;
    try {
      return await work();
    } finally {
      this.#exchanges--;
    }
  }

  /** Finds or makes the user and sets its roles, in one transaction. */
  async #admit(settings: IdentityProviderRecord, identity: ExternalIdentity): Promise<string> {
    const { policy, clock } = this.#from;
    const known = knownRoles(policy);
    const id = identityId(identity);
    return await policy.change((draft) => {
      const record = draft.get("identity", id);
      const admission = admit(settings, identity, {
        linked: record,
        findUser: (name) => draft.get("user", name),
      });
      if (admission.kind === "refused") throw new OidcError(admission.why, shown(admission.detail));
      const roles = admission.roles.filter((role) => known.has(role));
      if (roles.length === 0) throw new OidcError("no-role", "the mapped roles don't exist");
      const now = clock.now();
      const { user } = admission;
      if (admission.kind === "create") {
        const { displayName } = admission;
        draft.put("user", newUser(user, null, now, { displayName, roles }));
      } else {
        draft.put("user", { ...draft.get("user", user)!, roles });
      }
      draft.put("identity", {
        ...(record ?? identityOf(identity, now, admission.kind === "create")),
        user,
        lastLogInAt: now,
      });
      return user;
    });
  }

  async #link(identity: ExternalIdentity, { user, sessionId }: LinkRequest): Promise<void> {
    const { policy, clock, log } = this.#from;
    const now = clock.now();
    await policy.change((draft) => {
      const session = draft.get("session", sessionId);
      const alive = session?.user === user && session.expiresAt > now;
      if (!alive || user === localAdmin || draft.get("user", user) === undefined) {
        throw new OidcError(
          "link-refused",
          `${user} is not logged in any more, or can't be linked`,
        );
      }
      const record = draft.get("identity", identityId(identity));
      if (record !== undefined && record.user !== user) {
        throw new OidcError("link-refused", `that identity is ${record.user}'s`);
      }
      draft.put("identity", record ?? { ...identityOf(identity, now, false), user });
    });
    log.info("identity linked", { user, issuer: identity.issuer, subject: identity.subject });
  }

  #fail(error: unknown, address: string): FailedLogIn {
    const reference = newReference();
    const { why, detail } = asOidcError(error);
    const fields = { why, detail, address, reference };
    if (why === "internal") this.#from.log.error("log-in by the identity provider failed", fields);
    else this.#from.log.warn("log-in by the identity provider refused", fields);
    return { kind: "failed", why, reference, page: "/" };
  }
}

function asOidcError(error: unknown): OidcError {
  if (error instanceof OidcError) return error;
  if (isKeelsonError(error, "UNAUTHENTICATED"))
    return new OidcError("user-disabled", error.message);
  const detail = error instanceof Error ? error.message : String(error);
  return new OidcError("internal", shown(detail), error);
}

function knownRoles(policy: Policy): Set<string> {
  return new Set([...builtInRoles, ...customRoles(policy)].map(({ id }) => id));
}

export function identityId({
  issuer,
  subject,
}: Pick<IdentityRecord, "issuer" | "subject">): string {
  return createHash("sha256").update(`${issuer}\0${subject}`).digest("hex");
}

function identityOf(identity: ExternalIdentity, now: string, created: boolean): IdentityRecord {
  const { issuer, subject } = identity;
  const id = identityId(identity);
  return { id, issuer, subject, user: "", created, createdAt: now, lastLogInAt: null };
}

/**
 * A page of our own console, and nothing else: it stands after `#`, so that not even a text that
 * gets through here could name another site.
 */
export function safeReturnTo(text: string): string {
  return /^\/(?!\/)[\w./?=&%-]{0,200}$/.test(text) ? text : "/";
}

function newReference(): string {
  const letters = "abcdefghijklmnopqrstuvwxyz234567";
  return [...randomBytes(8)].map((byte) => letters[byte % 32]).join("");
}
