/**
 * API tokens, for programs. A token is shown once and stored as its SHA-256; it never may more than
 * its user may now.
 *
 *   keelson_ | id, 12 | secret, 30 | checksum, 6      letters and digits
 *
 * The checksum is the CRC-32 of what stands before it: a scanner that looks for leaked secrets can
 * tell a token from a look-alike without asking anybody. 30 characters of 62 are 178 bits.
 */
import { createHash, randomBytes, timingSafeEqual } from "node:crypto";
import { crc32 } from "node:zlib";
import { KeelsonError } from "#lib/model/errors.ts";
import { customRoles, type TokenRecord } from "./account-records.ts";
import type { Actor } from "./accounts.ts";
import type { SessionInfo, Token, TokenCreate, TokenCreated } from "./accounts-schema.ts";
import type { Clock } from "./clock.ts";
import { closure, type Permission, permissionsOf } from "./permissions.ts";
import { notFound, type Policy } from "./policy.ts";

const prefix = "keelson_";
const idLength = 12;
const secretLength = 30;
const checksumLength = 6;
const alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const shape = new RegExp(`^${prefix}[0-9A-Za-z]{${idLength + secretLength + checksumLength}}$`);

const longestLifeMs = 366 * 86_400_000;
const mostTokens = 50;
/** A use is written to the cluster store this often at most. */
const writeUseEachMs = 10 * 60_000;

export class Tokens {
  readonly #policy: Policy;
  readonly #clock: Clock;
  readonly #uses = new Map<string, { at: string; from: string; writtenMs: number }>();

  constructor(policy: Policy, clock: Clock) {
    this.#policy = policy;
    this.#clock = clock;
  }

  /** Who a token stands for; undefined if it is none, has expired, or its user may not log in. */
  find(token: string): { readonly id: string; readonly info: SessionInfo } | undefined {
    if (!isTokenShaped(token)) return undefined;
    const id = token.slice(prefix.length, prefix.length + idLength);
    const record = this.#policy.find("token", id);
    // An unknown id is compared too: the time taken doesn't tell which ids there are.
    const wanted = Buffer.from(record?.digest ?? "0".repeat(64), "hex");
    const right = timingSafeEqual(createHash("sha256").update(token).digest(), wanted);
    if (record === undefined || !right || record.expiresAt <= this.#clock.now()) return undefined;
    const account = this.#policy.find("user", record.user);
    if (account === undefined || account.disabled) return undefined;
    return {
      id,
      info: {
        user: record.user,
        displayName: account.displayName || record.user,
        roles: account.roles,
        permissions: this.#effective(record),
        mustChangePassword: false,
        expiresAt: record.expiresAt,
      },
    };
  }

  /** Remembers that it was used; what is written is at most ten minutes old. */
  async used(id: string, from: string): Promise<void> {
    const nowMs = this.#clock.bootMs();
    const at = this.#clock.now();
    const known = this.#uses.get(id);
    const due = known === undefined || nowMs - known.writtenMs >= writeUseEachMs;
    this.#uses.set(id, { at, from, writtenMs: due ? nowMs : known.writtenMs });
    if (!due) return;
    await this.#policy.change((draft) => {
      const record = draft.get("token", id);
      if (record === undefined) return;
      draft.put("token", { ...record, lastUsedAt: at, lastUsedFrom: from });
    });
  }

  /** Of one user, or of all, newest first. */
  list(user?: string): Token[] {
    return this.#policy
      .list("token")
      .filter((record) => (user ?? record.user) === record.user)
      .sort((a, b) => (a.createdAt < b.createdAt ? 1 : -1))
      .map((record) => this.#document(record));
  }

  /** PERMISSION_DENIED for a scope beyond the user's own; INVALID_ARGUMENT for the expiry. */
  async create(actor: Actor, { name, permissions, expiresAt }: TokenCreate): Promise<TokenCreated> {
    const scope = closure(permissions);
    const beyond = scope.filter((permission) => !actor.permissions.includes(permission));
    if (beyond.length > 0) {
      throw new KeelsonError("PERMISSION_DENIED", `You lack ${beyond.join(", ")} yourself.`, {
        operation: "create a token",
        remedy: "A token can do no more than its user.",
      });
    }
    const createdAt = this.#clock.now();
    const lifeMs = Date.parse(expiresAt) - Date.parse(createdAt);
    if (lifeMs <= 0 || lifeMs > longestLifeMs) {
      throw new KeelsonError("INVALID_ARGUMENT", `A token can't expire at ${expiresAt}.`, {
        object: expiresAt,
        remedy: "Choose a time from now to a year from now.",
      });
    }
    if (this.list(actor.user).length >= mostTokens) {
      throw new KeelsonError("INVALID_ARGUMENT", `You have ${mostTokens} tokens already.`, {
        remedy: "Revoke one that isn't used.",
      });
    }
    const id = randomText(idLength);
    const body = prefix + id + randomText(secretLength);
    const token = body + checksumOf(body);
    const record: TokenRecord = {
      id,
      name,
      user: actor.user,
      digest: createHash("sha256").update(token).digest("hex"),
      permissions: scope,
      createdAt,
      expiresAt: new Date(expiresAt).toISOString(),
      lastUsedAt: null,
      lastUsedFrom: null,
    };
    await this.#policy.change((draft) => draft.put("token", record));
    return { ...this.#document(record), token };
  }

  /** NOT_FOUND also for another user's. */
  async revoke(user: string, id: string): Promise<void> {
    await this.#policy.change((draft) => {
      if (draft.get("token", id)?.user !== user) throw notFound("token", id);
      draft.delete("token", id);
    });
    this.#uses.delete(id);
  }

  #effective(record: TokenRecord): Permission[] {
    const roles = this.#policy.find("user", record.user)?.roles ?? [];
    const own = permissionsOf(roles, customRoles(this.#policy));
    return closure(record.permissions).filter((permission) => own.includes(permission));
  }

  #document(record: TokenRecord): Token {
    const { digest: _digest, ...shown } = record;
    const use = this.#uses.get(record.id);
    return {
      ...shown,
      permissions: closure(record.permissions),
      effectivePermissions: this.#effective(record),
      expired: record.expiresAt <= this.#clock.now(),
      lastUsedAt: use?.at ?? record.lastUsedAt,
      lastUsedFrom: use?.from ?? record.lastUsedFrom,
    };
  }
}

/** True for text of a token's form with the right checksum; says nothing about whether it is one. */
export function isTokenShaped(text: string): boolean {
  return (
    shape.test(text) && checksumOf(text.slice(0, -checksumLength)) === text.slice(-checksumLength)
  );
}

function checksumOf(body: string): string {
  let rest = crc32(body);
  let text = "";
  for (let i = 0; i < checksumLength; i++) {
    text = alphabet[rest % alphabet.length] + text;
    rest = Math.floor(rest / alphabet.length);
  }
  return text;
}

/** Each character equally likely: bytes past the last whole multiple of 62 are thrown away. */
function randomText(length: number): string {
  const fair = 256 - (256 % alphabet.length);
  let text = "";
  while (text.length < length) {
    for (const byte of randomBytes(length)) {
      if (byte < fair && text.length < length) text += alphabet[byte % alphabet.length];
    }
  }
  return text;
}
