/** Accounts as they stand in policy. A field that is newer than a record has a default. */
import { z } from "zod";
import { closure, type Role } from "./permissions.ts";
import type { Policy } from "./policy.ts";

const id = z.string();
const time = z.string();

const totpRecord = z.object({
  /** Base32 (RFC 4648). */
  secret: z.string(),
  /** Null until a code has shown that the person has it: it asks for nothing until then. */
  confirmedAt: time.nullable(),
  /** RFC 6238's T of the last code taken: it and older ones are refused. */
  lastStep: z.number().int(),
  /** SHA-256 of codes that are left; each has 80 random bits, so that nothing slower is needed. */
  recoveryDigests: z.array(z.string()),
});

/** `id` is the name to log in with, in lower case. */
export const userRecord = z
  .object({
    id,
    displayName: z.string().default(""),
    /** Null: no log-in by password. */
    passwordHash: z.string().nullable(),
    roles: z.array(z.string()).nullable().default(null),
    disabled: z.boolean().default(false),
    mustChangePassword: z.boolean().default(false),
    createdAt: time.nullable().default(null),
    passwordChangedAt: time.nullable().default(null),
    lastLogInAt: time.nullable().default(null),
    totp: totpRecord.nullable().default(null),
  })
  // Before there were roles there was one user, and that one could do everything.
  .transform(({ roles, ...rest }) => ({
    ...rest,
    roles: roles ?? (rest.id === "admin" ? ["admin"] : []),
  }));

export const roleRecord = z.object({
  id,
  description: z.string(),
  /** Those that this release doesn't know give nothing. */
  permissions: z.array(z.string()),
  createdAt: time,
});

/** `id` is the SHA-256 of the token: who reads the store can't log in with it. */
export const sessionRecord = z.object({
  id,
  user: z.string(),
  createdAt: time,
  expiresAt: time,
  /** How it was opened. */
  how: z.string().default("password"),
  address: z.string().default("unknown"),
});

/** `id` is the public part of the token. */
export const tokenRecord = z.object({
  id,
  name: z.string(),
  user: z.string(),
  /** SHA-256 of the whole token, hexadecimal. */
  digest: z.string(),
  permissions: z.array(z.string()),
  createdAt: time,
  expiresAt: time,
  lastUsedAt: time.nullable(),
  lastUsedFrom: z.string().nullable(),
});

export type TotpRecord = z.infer<typeof totpRecord>;
export type UserRecord = z.infer<typeof userRecord>;
export type RoleRecord = z.infer<typeof roleRecord>;
export type SessionRecord = z.infer<typeof sessionRecord>;
export type TokenRecord = z.infer<typeof tokenRecord>;

/** A user as it begins; `createdAt` is now. */
export function newUser(
  userId: string,
  passwordHash: string | null,
  createdAt: string,
  more: Partial<UserRecord> = {},
): UserRecord {
  const defaults = userRecord.parse({ id: userId, passwordHash, createdAt });
  return { ...defaults, passwordChangedAt: passwordHash === null ? null : createdAt, ...more };
}

/** The roles that people made, with what this release knows of their permissions. */
export function customRoles(policy: Policy): Role[] {
  return policy.list("role").map(({ id, description, permissions }) => ({
    id,
    description,
    permissions: closure(permissions),
  }));
}
