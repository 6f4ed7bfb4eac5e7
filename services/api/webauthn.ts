/**
 * Security keys and passkeys (WebAuthn level 3), as @simplewebauthn/server checks them. What this
 * adds: whose they are, challenges that are taken once and only by whom they were given to, and
 * what happens when a key answers with an older counter.
 *
 *   register     a user with a password of their own, in a session, under the console's host name
 *   log in       without a name: the key is found by itself and verifies its holder (PIN, finger)
 *   second step  after the password: any key of that user; being there is enough
 *
 * Origin and name come from the console's address as it was set, never from the request.
 */
import { createHash, timingSafeEqual } from "node:crypto";
import type { z } from "zod";
import { KeelsonError } from "#lib/model/errors.ts";
import type { Log } from "#lib/service/log.ts";
import { Ceremonies } from "./ceremonies.ts";
import type { Clock } from "./clock.ts";
import type { ConsoleAddresses } from "./console-address.ts";
import type {
  authenticationResponseSchema,
  registrationResponseSchema,
  SecurityKey,
  SecurityKeyRecord,
} from "./identity-schema.ts";
import { networkOf } from "./log-in-limiter.ts";
import { shown } from "./oidc-client.ts";
import type { Draft, Policy } from "./policy.ts";

type RegistrationResponse = z.output<typeof registrationResponseSchema>;
type AuthenticationResponse = z.output<typeof authenticationResponseSchema>;

const mostKeysPerUser = 20;
const challengeLifeMs = 300_000;
/** Loaded when first needed: with the certificates that it can read it is a third of api's start. */
async function library() {
  // First: its certificate package refuses to load without it.
  await import("reflect-metadata");
  return await import("@simplewebauthn/server");
}

const transportNames = ["ble", "cable", "hybrid", "internal", "nfc", "smart-card", "usb"];

/** The challenge is the ceremony's id; it is good only for whom it was given to. */
type Ceremony =
  | { readonly kind: "register"; readonly user: string; readonly sessionId: string }
  | {
      readonly kind: "log-in";
      /** Of the browser's cookie. */
      readonly binding: string;
      /** Null: whoever the key says. */
      readonly user: string | null;
    };

/** Who was recognised by which key; the session is somebody else's to open. */
export interface RecognisedUser {
  readonly user: string;
  readonly keyName: string;
}

export interface SecurityKeyOptions {
  readonly policy: Policy;
  readonly console: ConsoleAddresses;
  readonly clock: Clock;
  readonly log: Log;
}

export class SecurityKeys {
  readonly #from: SecurityKeyOptions;
  readonly #ceremonies: Ceremonies<Ceremony>;

  constructor(options: SecurityKeyOptions) {
    this.#from = options;
    this.#ceremonies = new Ceremonies(options.clock, { lifeMs: challengeLifeMs });
  }

  get challengeLifeSeconds(): number {
    return this.#ceremonies.lifeSeconds;
  }

  /** Oldest first. */
  listOf(user: string): SecurityKey[] {
    return this.#recordsOf(user)
      .map((record) => this.document(record))
      .sort((a, b) => (a.createdAt < b.createdAt ? -1 : 1));
  }

  document(record: SecurityKeyRecord): SecurityKey {
    const { publicKey: _, counter: __, user: ___, ...rest } = record;
    const { securityKeyName } = this.#from.console;
    return { ...rest, usableHere: rest.rpId === securityKeyName && rest.suspectedAt === null };
  }

  // ---- registering

  /** What `navigator.credentials.create` is asked. UNSUPPORTED where the console has no host name. */
  async beginRegistration(user: string, sessionId: string, address: string): Promise<object> {
    const rpID = this.#name();
    const account = this.#from.policy.get("user", user);
    if (account.passwordHash === null) {
      throw new KeelsonError("UNSUPPORTED", `${user} logs in by the identity provider.`, {
        operation: "register a security key",
        object: user,
        remedy: "Register the key there: it then guards this node too.",
      });
    }
    const known = this.#recordsOf(user);
    if (known.length >= mostKeysPerUser) {
      throw new KeelsonError("NO_SPACE", `${user} has ${mostKeysPerUser} security keys.`, {
        operation: "register a security key",
        remedy: "Remove one first.",
      });
    }
    const challenge = this.#ceremonies.begin(networkOf(address), {
      ...{ kind: "register", user, sessionId },
    });
    const { generateRegistrationOptions } = await library();
    return await generateRegistrationOptions({
      rpName: "Keelson",
      rpID,
      userName: user,
      userDisplayName: account.displayName || user,
      userID: userHandle(user),
      challenge: bytes(challenge),
      timeout: challengeLifeMs,
      attestationType: "none",
      excludeCredentials: known.map(({ id, transports }) => ({ id, transports })),
      authenticatorSelection: { residentKey: "preferred", userVerification: "preferred" },
    });
  }

  /** INVALID_ARGUMENT for an answer that isn't to this session's challenge, or doesn't verify. */
  async finishRegistration(
    user: string,
    sessionId: string,
    name: string,
    response: RegistrationResponse,
  ): Promise<SecurityKey> {
    const rpId = this.#name();
    const challenge = challengeOf(response.response.clientDataJSON);
    const ceremony = this.#ceremonies.take(challenge);
    const mine =
      ceremony?.kind === "register" && ceremony.user === user && ceremony.sessionId === sessionId;
    if (challenge === undefined || !mine) throw notAsked("register a security key");
    const verified = await verify("register a security key", async () =>
      (await library()).verifyRegistrationResponse({
        response: response as never,
        expectedChallenge: challenge,
        expectedOrigin: this.#from.console.url,
        expectedRPID: rpId,
        requireUserPresence: true,
        requireUserVerification: false,
      }),
    );
    const { credential, credentialBackedUp, userVerified } = verified.registrationInfo!;
    const properties = response.clientExtensionResults.credProps as { rk?: unknown } | undefined;
    const record: SecurityKeyRecord = {
      ...{ id: credential.id, user, name, rpId },
      publicKey: Buffer.from(credential.publicKey).toString("base64url"),
      counter: credential.counter,
      transports: (credential.transports ?? []).filter((each) => transportNames.includes(each)),
      discoverable: properties?.rk === true,
      backedUp: credentialBackedUp,
      createdAt: this.#from.clock.now(),
      lastUsedAt: null,
      suspectedAt: null,
    };
    await this.#from.policy.change((draft) => {
      if (draft.get("security-key", record.id) !== undefined) {
        throw new KeelsonError("ALREADY_EXISTS", "This security key is registered already.", {
          operation: "register a security key",
          remedy: "Use another one, or remove it where it is registered.",
        });
      }
      draft.put("security-key", record);
    });
    this.#from.log.info("security key registered", { user, key: name, userVerified });
    return this.#document(user, record.id);
  }

  // ---- logging in

  /**
   * What `navigator.credentials.get` is asked. With a user it is the second step after that user's
   * password; without, the key says who it is and must verify its holder. `binding` is a random
   * text that only the asking browser has.
   */
  async beginLogIn(binding: string, address: string, user: string | null): Promise<object> {
    const rpID = this.#name();
    const challenge = this.#ceremonies.begin(networkOf(address), { kind: "log-in", binding, user });
    const keys = user === null ? [] : this.#recordsOf(user).filter((key) => key.rpId === rpID);
    const { generateAuthenticationOptions } = await library();
    return await generateAuthenticationOptions({
      rpID,
      challenge: bytes(challenge),
      timeout: challengeLifeMs,
      userVerification: user === null ? "required" : "discouraged",
      allowCredentials: keys.map(({ id, transports }) => ({ id, transports })),
    });
  }

  /** UNAUTHENTICATED, in the same words whatever is wrong: the log says what. */
  async finishLogIn(
    binding: string | undefined,
    address: string,
    user: string | null,
    response: AuthenticationResponse,
  ): Promise<RecognisedUser> {
    try {
      return await this.#recognise(binding, user, response);
    } catch (error) {
      const why = shown(error instanceof Error ? error.message : error);
      const key = this.#from.policy.find("security-key", response.id);
      this.#from.log.warn("log-in by security key refused", {
        ...{ why, address, user: key?.user, key: key?.name },
      });
      if (error instanceof SuspectedKey) {
        throw new KeelsonError("UNAUTHENTICATED", "This security key may have been copied.", {
          operation: "log in",
          remedy: "It is refused from now on. Use another one, and tell an administrator.",
        });
      }
      throw new KeelsonError("UNAUTHENTICATED", "The security key was not accepted.", {
        operation: "log in",
        remedy: "Try again; if it was never registered here, log in with your password.",
      });
    }
  }

  async #recognise(
    binding: string | undefined,
    user: string | null,
    response: AuthenticationResponse,
  ): Promise<RecognisedUser> {
    const rpId = this.#name();
    const challenge = challengeOf(response.response.clientDataJSON);
    const ceremony = this.#ceremonies.take(challenge);
    if (challenge === undefined || ceremony?.kind !== "log-in") throw notAsked("log in");
    if (binding === undefined || !equal(binding, ceremony.binding) || ceremony.user !== user) {
      throw new Error("the challenge was given to another browser or user");
    }
    const record = this.#from.policy.find("security-key", response.id);
    if (record === undefined) throw new Error("no such key is registered");
    if (user !== null && record.user !== user) throw new Error("the key is another user's");
    if (record.rpId !== rpId) throw new Error(`the key is for ${record.rpId}`);
    if (record.suspectedAt !== null) throw new SuspectedKey("the key is under suspicion");
    const { userHandle: handle } = response.response;
    const own = Buffer.from(userHandle(record.user)).toString("base64url");
    if (handle === undefined ? user === null : handle !== "" && handle !== own) {
      throw new Error("the key names another user than the one it is registered for");
    }
    if (this.#from.policy.find("user", record.user)?.passwordHash === null) {
      throw new Error("the user logs in by the identity provider only");
    }
    const { authenticationInfo } = await verify("log in", async () =>
      (await library()).verifyAuthenticationResponse({
        response: response as never,
        expectedChallenge: challenge,
        expectedOrigin: this.#from.console.url,
        expectedRPID: rpId,
        requireUserVerification: user === null,
        // Zero: the counter is judged below, where a regression can be written down.
        credential: {
          id: record.id,
          publicKey: new Uint8Array(Buffer.from(record.publicKey, "base64url")),
          counter: 0,
        },
      }),
    );
    await this.#use(record.id, authenticationInfo.newCounter);
    return { user: record.user, keyName: record.name };
  }

  /**
   * WebAuthn section 6.1.1: a counter that doesn't grow is a sign of a copy. Keys that always say
   * zero have none. Judged and written in one transaction: of two answers at once one loses.
   */
  async #use(id: string, counter: number): Promise<void> {
    const { policy, clock } = this.#from;
    const suspected = await policy.change((draft) => {
      const record = draft.get("security-key", id);
      if (record === undefined) throw new Error("the key was removed meanwhile");
      const regressed = (counter > 0 || record.counter > 0) && counter <= record.counter;
      const now = clock.now();
      draft.put("security-key", {
        ...record,
        ...(regressed ? { suspectedAt: now } : { counter, lastUsedAt: now }),
      });
      return regressed ? record : undefined;
    });
    if (suspected === undefined) return;
    this.#from.log.error("security key may have been copied: its counter went back", {
      ...{ user: suspected.user, key: suspected.name, counter, before: suspected.counter },
    });
    throw new SuspectedKey(`counter ${counter} after ${suspected.counter}`);
  }

  // ---- keeping

  async rename(user: string, id: string, name: string): Promise<SecurityKey> {
    await this.#from.policy.change((draft) => {
      draft.put("security-key", { ...this.#own(draft, user, id), name });
    });
    return this.#document(user, id);
  }

  async remove(user: string, id: string): Promise<void> {
    const name = await this.#from.policy.change((draft) => {
      const record = this.#own(draft, user, id);
      draft.delete("security-key", id);
      return record.name;
    });
    this.#from.log.info("security key removed", { user, key: name });
  }

  #own(draft: Draft, user: string, id: string): SecurityKeyRecord {
    const record = draft.get("security-key", id);
    if (record !== undefined && record.user === user) return record;
    throw new KeelsonError("NOT_FOUND", `${user} has no such security key.`, { object: id });
  }

  #document(user: string, id: string): SecurityKey {
    return this.listOf(user).find((key) => key.id === id)!;
  }

  #recordsOf(user: string): SecurityKeyRecord[] {
    return this.#from.policy.list("security-key").filter((key) => key.user === user);
  }

  #name(): string {
    const { securityKeyName, securityKeyProblem } = this.#from.console.view();
    if (securityKeyName !== null) return securityKeyName;
    throw new KeelsonError("UNSUPPORTED", "Security keys can't be used under this address.", {
      operation: "use a security key",
      remedy: securityKeyProblem ?? "Set the console's address.",
    });
  }
}

class SuspectedKey extends Error {}

/** The same for all of a user's keys, and no name: keys may show it to anyone (section 14.6.1). */
function userHandle(user: string): Uint8Array<ArrayBuffer> {
  return new Uint8Array(createHash("sha256").update(`keelson user handle\0${user}`).digest());
}

function bytes(base64url: string): Uint8Array<ArrayBuffer> {
  return new Uint8Array(Buffer.from(base64url, "base64url"));
}

/**
 * The challenge that an answer says it is to; undefined for what isn't client data, or was made in
 * a frame of another site's page: ours is never framed.
 */
function challengeOf(clientDataJson: string): string | undefined {
  try {
    const data: unknown = JSON.parse(Buffer.from(clientDataJson, "base64url").toString("utf8"));
    const { challenge, crossOrigin } = data as { challenge?: unknown; crossOrigin?: unknown };
    return typeof challenge === "string" && crossOrigin !== true ? challenge : undefined;
  } catch {
    return undefined;
  }
}

async function verify<Result extends { readonly verified: boolean }>(
  operation: string,
  work: () => Promise<Result>,
): Promise<Result> {
  let result: Result;
  try {
    result = await work();
  } catch (cause) {
    const why = shown(cause instanceof Error ? cause.message : cause);
    throw new KeelsonError("INVALID_ARGUMENT", `The security key's answer is wrong: ${why}`, {
      ...{ operation, cause, remedy: "Try again; the console must be open by its own address." },
    });
  }
  if (result.verified) return result;
  throw new KeelsonError("INVALID_ARGUMENT", "The security key's signature is wrong.", {
    operation,
    remedy: "Try again, with the key that was asked for.",
  });
}

function notAsked(operation: string): KeelsonError {
  return new KeelsonError("INVALID_ARGUMENT", "This was not asked for, or too long ago.", {
    operation,
    remedy: "Begin again; a key must answer within five minutes, and once.",
  });
}

function equal(a: string, b: string): boolean {
  const [left, right] = [a, b].map((text) => createHash("sha256").update(text).digest());
  return timingSafeEqual(left, right);
}
