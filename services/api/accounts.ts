/**
 * Users and roles. Whoever changes them can give no more than they have, and touch nobody who has
 * more: with `users:write` alone nobody becomes an administrator.
 */
import { KeelsonError } from "#lib/model/errors.ts";
import { hashPasswordAsync } from "#lib/password/password.ts";
import type { Sessions } from "./access.ts";
import { customRoles, newUser, type UserRecord } from "./account-records.ts";
import type {
  RoleChange,
  RoleCreate,
  RoleDocument,
  User,
  UserChange,
  UserCreate,
} from "./accounts-schema.ts";
import type { Clock } from "./clock.ts";
import { forgetIdentitiesIn, forgetKeysIn, unlinkIn } from "./identity-records.ts";
import {
  adminRole,
  builtInRoles,
  closure,
  isBuiltInRole,
  type Permission,
  permissionsOf,
  type Role,
} from "./permissions.ts";
import { type Draft, notFound, type Policy } from "./policy.ts";

/** Always local, always an administrator: whatever happens to identity providers, it gets in. */
export const firstUser = "admin";

const mostUsers = 1000;
const mostRoles = 200;

/** Who makes a change, and with what permissions. */
export interface Actor {
  readonly user: string;
  readonly permissions: readonly Permission[];
}

export class Accounts {
  readonly #policy: Policy;
  readonly #sessions: Sessions;
  readonly #clock: Clock;
  /** One change at a time: a role isn't deleted while it is being given. api is the only writer. */
  #last: Promise<unknown> = Promise.resolve();

  constructor(policy: Policy, sessions: Sessions, clock: Clock) {
    this.#policy = policy;
    this.#sessions = sessions;
    this.#clock = clock;
  }

  // ---- users

  listUsers(): User[] {
    const surroundings = this.#surroundings();
    return this.#policy
      .list("user")
      .map((record) => this.#document(record, surroundings))
      .sort((a, b) => (a.id < b.id ? -1 : 1));
  }

  user(id: string): User {
    return this.#document(this.#policy.get("user", id));
  }

  /** ALREADY_EXISTS; INVALID_ARGUMENT for an unknown role; PERMISSION_DENIED for too mighty ones. */
  async createUser(actor: Actor, given: UserCreate): Promise<User> {
    const passwordHash = given.password === null ? null : await hashPasswordAsync(given.password);
    return await this.#inTurn(async () => {
      if (this.#policy.list("user").length >= mostUsers) throw tooMany(mostUsers, "users");
      await this.#policy.change((draft) => {
        if (draft.get("user", given.id) !== undefined) throw exists("user", given.id);
        const roles = this.#rolesToGive(actor, given.roles);
        const { displayName } = given;
        const mustChangePassword = passwordHash !== null && given.mustChangePassword;
        const more = { displayName, roles, mustChangePassword };
        draft.put("user", newUser(given.id, passwordHash, this.#clock.now(), more));
      });
      return this.user(given.id);
    });
  }

  async changeUser(actor: Actor, id: string, change: UserChange): Promise<User> {
    return await this.#inTurn(async () => {
      await this.#policy.change((draft) => {
        const before = this.#touchable(actor, draft, id);
        const roles =
          change.roles === undefined
            ? before.roles
            : this.#rolesToGive(actor, change.roles, before.roles);
        if (id === firstUser && (change.disabled || !roles.includes(adminRole))) throw firstStays();
        if (id === actor.user && change.disabled) throw notOneself("disable");
        draft.put("user", {
          ...before,
          roles,
          displayName: change.displayName ?? before.displayName,
          disabled: change.disabled ?? before.disabled,
        });
        // Roles are looked up with each request; what was disabled shall not come back later.
        if (change.disabled) this.#sessions.endAllIn(draft, id);
      });
      return this.user(id);
    });
  }

  /** Their sessions and tokens go with them. */
  async deleteUser(actor: Actor, id: string): Promise<void> {
    await this.#inTurn(() =>
      this.#policy.change((draft) => {
        this.#touchable(actor, draft, id);
        if (id === firstUser) throw firstStays();
        if (id === actor.user) throw notOneself("delete");
        this.#sessions.endAllIn(draft, id);
        for (const token of this.#policy.list("token")) {
          if (token.user === id) draft.delete("token", token.id);
        }
        forgetIdentitiesIn(draft, this.#policy, id);
        draft.delete("user", id);
      }),
    );
  }

  /** To be changed by the user at the next log-in. All of the user's sessions end. */
  async setPassword(actor: Actor, id: string, password: string): Promise<void> {
    if (id === actor.user) {
      throw new KeelsonError("INVALID_ARGUMENT", "This is for other people's passwords.", {
        remedy: "Change your own with PUT /session/password, which asks for the old one.",
      });
    }
    this.#policy.get("user", id);
    const passwordHash = await hashPasswordAsync(password);
    const passwordChangedAt = this.#clock.now();
    await this.#policy.change((draft) => {
      const before = this.#touchable(actor, draft, id);
      draft.put("user", { ...before, passwordHash, passwordChangedAt, mustChangePassword: true });
      this.#sessions.endAllIn(draft, id);
    });
  }

  /** For somebody who has lost both authenticator and recovery codes. */
  async removeTotp(actor: Actor, id: string): Promise<void> {
    await this.#policy.change((draft) => {
      draft.put("user", { ...this.#touchable(actor, draft, id), totp: null });
    });
  }

  /** For somebody who has lost them; log-in asks for the password alone then. */
  async removeSecurityKeys(actor: Actor, id: string): Promise<void> {
    await this.#policy.change((draft) => {
      this.#touchable(actor, draft, id);
      forgetKeysIn(draft, this.#policy, id);
    });
  }

  /** NOT_FOUND unless it is that user's. */
  async removeSecurityKey(actor: Actor, id: string, keyId: string): Promise<void> {
    await this.#policy.change((draft) => {
      this.#touchable(actor, draft, id);
      if (draft.get("security-key", keyId)?.user !== id) throw notFound("security-key", keyId);
      draft.delete("security-key", keyId);
    });
  }

  /**
   * That account at the provider opens nothing here any more, and what it has opened ends. NOT_FOUND
   * unless it is that user's; IN_USE where nothing else would let the user in.
   */
  async unlinkIdentity(actor: Actor, id: string, identityId: string): Promise<void> {
    await this.#policy.change((draft) => {
      this.#touchable(actor, draft, id);
      unlinkIn(draft, id, identityId);
      for (const session of this.#policy.list("session")) {
        if (session.user === id && session.how === "oidc") draft.delete("session", session.id);
      }
    });
  }

  async endSessions(actor: Actor, id: string): Promise<void> {
    await this.#policy.change((draft) => {
      this.#touchable(actor, draft, id);
      this.#sessions.endAllIn(draft, id);
    });
  }

  /** Throws what it has against `actor` changing this user, or what is theirs. */
  requireTouchable(actor: Actor, id: string): void {
    const { permissions } = this.user(id);
    const beyond = permissions.filter((permission) => !actor.permissions.includes(permission));
    if (beyond.length > 0) {
      throw new KeelsonError("PERMISSION_DENIED", `${id} may do more than you: ${list(beyond)}.`, {
        object: id,
        remedy: "Only somebody who may do all of it can change this account.",
      });
    }
  }

  #touchable(actor: Actor, draft: Draft, id: string): UserRecord {
    const record = draft.get("user", id);
    if (record === undefined) throw notFound("user", id);
    this.requireTouchable(actor, id);
    return record;
  }

  /** Sorted, each once. Those that are `kept` aren't given by the actor. */
  #rolesToGive(actor: Actor, wanted: readonly string[], kept: readonly string[] = []): string[] {
    const custom = customRoles(this.#policy);
    for (const id of wanted.filter((role) => !kept.includes(role))) {
      if (!isBuiltInRole(id) && !custom.some((role) => role.id === id)) {
        const known = [...builtInRoles, ...custom].map((role) => role.id);
        throw new KeelsonError("INVALID_ARGUMENT", `There is no role ${id}.`, {
          object: id,
          remedy: `Roles are ${list(known)}.`,
        });
      }
      requireHad(actor, permissionsOf([id], custom), `the role ${id}`);
    }
    return [...new Set(wanted)].sort();
  }

  /** What users' documents are made of beside their records: looked up once for a whole list. */
  #surroundings() {
    const now = this.#clock.now();
    const count = (owners: readonly { readonly user: string }[]) => {
      const counts = new Map<string, number>();
      for (const { user } of owners) counts.set(user, (counts.get(user) ?? 0) + 1);
      return counts;
    };
    return {
      roles: customRoles(this.#policy),
      sessions: count(this.#policy.list("session").filter(({ expiresAt }) => expiresAt > now)),
      tokens: count(this.#policy.list("token")),
    };
  }

  #document(record: UserRecord, surroundings = this.#surroundings()): User {
    const { id, passwordHash, totp } = record;
    return {
      id,
      displayName: record.displayName,
      roles: record.roles,
      permissions: permissionsOf(record.roles, surroundings.roles),
      disabled: record.disabled,
      isFirst: id === firstUser,
      hasPassword: passwordHash !== null,
      mustChangePassword: record.mustChangePassword,
      hasTotp: totp !== null && totp.confirmedAt !== null,
      sessionCount: surroundings.sessions.get(id) ?? 0,
      tokenCount: surroundings.tokens.get(id) ?? 0,
      createdAt: record.createdAt,
      passwordChangedAt: record.passwordChangedAt,
      lastLogInAt: record.lastLogInAt,
    };
  }

  // ---- roles

  listRoles(): RoleDocument[] {
    const custom = customRoles(this.#policy).sort((a, b) => (a.id < b.id ? -1 : 1));
    return [...builtInRoles, ...custom].map((role) => this.#roleDocument(role));
  }

  role(id: string): RoleDocument {
    const found = this.listRoles().find((role) => role.id === id);
    if (found === undefined) throw notFound("role", id);
    return found;
  }

  async createRole(
    actor: Actor,
    { id, description, permissions }: RoleCreate,
  ): Promise<RoleDocument> {
    return await this.#inTurn(async () => {
      if (this.#policy.list("role").length >= mostRoles) throw tooMany(mostRoles, "roles");
      await this.#policy.change((draft) => {
        if (isBuiltInRole(id) || draft.get("role", id) !== undefined) throw exists("role", id);
        requireHad(actor, closure(permissions), `the role ${id}`);
        draft.put("role", {
          id,
          description,
          permissions: closure(permissions),
          createdAt: this.#clock.now(),
        });
      });
      return this.role(id);
    });
  }

  /** Whoever has the role has what it gives now, at once. */
  async changeRole(actor: Actor, id: string, change: RoleChange): Promise<RoleDocument> {
    return await this.#inTurn(async () => {
      await this.#policy.change((draft) => {
        const before = this.#ownRole(actor, draft, id);
        const permissions =
          change.permissions === undefined ? before.permissions : closure(change.permissions);
        requireHad(actor, closure(permissions), `the role ${id}`);
        const description = change.description ?? before.description;
        draft.put("role", { ...before, description, permissions });
      });
      return this.role(id);
    });
  }

  async deleteRole(actor: Actor, id: string): Promise<void> {
    await this.#inTurn(() =>
      this.#policy.change((draft) => {
        this.#ownRole(actor, draft, id);
        const users = this.#usersOf(id);
        if (users.length > 0) {
          throw new KeelsonError("IN_USE", `These users have the role ${id}: ${list(users)}.`, {
            object: id,
            remedy: "Give them another one first.",
          });
        }
        draft.delete("role", id);
      }),
    );
  }

  #ownRole(actor: Actor, draft: Draft, id: string) {
    if (isBuiltInRole(id)) {
      throw new KeelsonError("INVALID_ARGUMENT", `The role ${id} is built in and stays as it is.`, {
        object: id,
        remedy: "Make one of your own with the permissions you want.",
      });
    }
    const record = draft.get("role", id);
    if (record === undefined) throw notFound("role", id);
    requireHad(actor, closure(record.permissions), `the role ${id}`);
    return record;
  }

  #roleDocument({ id, description, permissions }: Role): RoleDocument {
    const builtIn = isBuiltInRole(id);
    return { id, description, permissions: [...permissions], builtIn, users: this.#usersOf(id) };
  }

  #usersOf(role: string): string[] {
    return this.#policy
      .list("user")
      .filter(({ roles }) => roles.includes(role))
      .map(({ id }) => id)
      .sort();
  }

  #inTurn<Result>(work: () => Promise<Result>): Promise<Result> {
    const turn = this.#last.then(work, work);
    this.#last = turn.catch(() => {});
    return turn;
  }
}

function requireHad(actor: Actor, wanted: readonly Permission[], what: string): void {
  const beyond = wanted.filter((permission) => !actor.permissions.includes(permission));
  if (beyond.length === 0) return;
  throw new KeelsonError("PERMISSION_DENIED", `You can't give ${what}: you lack ${list(beyond)}.`, {
    remedy: "Nobody can give more than they have.",
  });
}

function list(texts: readonly string[]): string {
  return texts.join(", ");
}

function exists(kind: string, id: string): KeelsonError {
  return new KeelsonError("ALREADY_EXISTS", `A ${kind} ${id} exists already.`, {
    object: id,
    remedy: "Choose another name, or change the one that exists.",
  });
}

function firstStays(): KeelsonError {
  return new KeelsonError(
    "INVALID_ARGUMENT",
    `The first user, ${firstUser}, can't be deleted, disabled or lose the role ${adminRole}.`,
    { object: firstUser, remedy: "It is the way in when nothing else works." },
  );
}

function notOneself(verb: string): KeelsonError {
  return new KeelsonError("INVALID_ARGUMENT", `You can't ${verb} yourself.`, {
    remedy: "Ask another administrator.",
  });
}

function tooMany(most: number, what: string): KeelsonError {
  return new KeelsonError("INVALID_ARGUMENT", `There are ${most} ${what} already.`, {
    remedy: "Delete some first.",
  });
}
