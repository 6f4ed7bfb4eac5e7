/**
 * What api says and accepts about accounts. Log-in, and one's own:
 *
 *   POST   /session                   LogIn -> Session, or 202 LogInChallenge  [anyone]
 *   POST   /session/second-factor     SecondFactor -> Session                  [anyone]
 *   GET    /session                   -> SessionInfo                           [account]
 *   DELETE /session                   -> 204
 *   PUT    /session/password          PasswordChange -> 204       ends one's other sessions
 *   GET    /session/totp              -> Totp
 *   POST   /session/totp              PasswordProof -> TotpEnrolment
 *   POST   /session/totp/confirm      TotpCode -> RecoveryCodes   shown this once
 *   POST   /session/totp/recovery-codes  PasswordProof -> RecoveryCodes  the old ones end
 *   POST   /session/totp/disable      PasswordProof -> 204
 *   GET    /sessions                  -> AccountSession[]
 *   DELETE /sessions                  -> 204                      all but this one
 *   DELETE /sessions/{id}             -> 204
 *   GET    /tokens                    -> Token[]
 *   POST   /tokens                    TokenCreate -> TokenCreated the only answer with the token
 *   DELETE /tokens/{id}               -> 204
 *   GET    /permissions               -> Permission[]
 *
 * Other people's [users:read, users:write]. Nobody can give, or take over, more than they have.
 *
 *   GET    /users                     -> User[]
 *   POST   /users                     UserCreate -> User
 *   GET    /users/{id}                -> User
 *   PATCH  /users/{id}                UserChange -> User
 *   DELETE /users/{id}                -> 204
 *   PUT    /users/{id}/password       PasswordSet -> 204          to be changed at next log-in
 *   DELETE /users/{id}/totp           -> 204
 *   GET    /users/{id}/sessions       -> AccountSession[]
 *   DELETE /users/{id}/sessions       -> 204
 *   DELETE /users/{id}/sessions/{sessionId} -> 204
 *   GET    /users/{id}/tokens         -> Token[]
 *   DELETE /users/{id}/tokens/{tokenId} -> 204
 *   GET    /roles                     -> Role[]
 *   POST   /roles                     RoleCreate -> Role
 *   PATCH  /roles/{id}                RoleChange -> Role
 *   DELETE /roles/{id}                -> 204                      refused while somebody has it
 */
import { z } from "zod";
import { type Permission, permissions } from "./permissions.ts";

const time = z.string().meta({ format: "date-time" });

export const permissionSchema = z.enum(permissions as [Permission, ...Permission[]]);
const permissionsSchema = z.array(permissionSchema).max(permissions.length);

/** Of a person or a role. Federated names may be e-mail addresses. */
export const userIdSchema = z
  .string()
  .toLowerCase()
  .regex(
    /^[a-z0-9][a-z0-9._@+-]{0,63}$/,
    "A user name is 1 to 64 letters, digits, . _ @ + or -, and begins with a letter or digit.",
  );
export const roleIdSchema = z
  .string()
  .toLowerCase()
  .regex(
    /^[a-z0-9][a-z0-9._-]{0,31}$/,
    "A role's name is 1 to 32 letters, digits, . _ or -, and begins with a letter or digit.",
  );
const plainText = (most: number) =>
  z
    .string()
    .trim()
    .max(most, `At most ${most} characters.`)
    .regex(/^\P{Cc}*$/u, "No control characters.");

const secret = z.string().min(1).max(1024);
export const newPasswordSchema = z
  .string()
  .min(8, "A password has at least 8 characters.")
  .max(1024);

// ---- log-in

export const logInSchema = z
  .strictObject({
    user: z.string().min(1).max(64),
    password: secret,
    /** 5 minutes to 30 days; 12 hours without it. */
    lifetimeSeconds: z.int().min(300).max(2_592_000).optional(),
  })
  .meta({ id: "LogIn" });

export const logInChallengeSchema = z
  .object({
    /** Good for five minutes and one log-in. */
    challenge: z.string(),
    /** `security-key`: POST /login/security-key/options, then /login/security-key. */
    methods: z.array(z.enum(["totp", "recovery-code", "security-key"])),
    expiresAt: time,
  })
  .meta({ id: "LogInChallenge" });

export const secondFactorSchema = z
  .strictObject({
    challenge: z.string().min(1).max(200),
    /** Six digits of the authenticator, or a recovery code. */
    code: z.string().min(6).max(40),
  })
  .meta({ id: "SecondFactor" });

export const sessionInfoSchema = z
  .object({
    user: z.string(),
    /** The name to show; the user's own where none was given. */
    displayName: z.string(),
    roles: z.array(z.string()),
    /** What the roles (and a token's scope) allow now; a change of them changes it at once. */
    permissions: permissionsSchema,
    /** Nothing but a new password can be set until it is. */
    mustChangePassword: z.boolean(),
    expiresAt: time,
  })
  .meta({ id: "SessionInfo" });

export const sessionSchema = sessionInfoSchema
  .extend({ token: z.string().meta({ description: "For Authorization: Bearer." }) })
  .meta({ id: "Session" });

export const passwordChangeSchema = z
  .strictObject({ current: secret, next: newPasswordSchema })
  .meta({ id: "PasswordChange" });

/** A session left open is not enough for what outlasts it. */
export const passwordProofSchema = z
  .strictObject({ password: secret })
  .meta({ id: "PasswordProof" });

// ---- TOTP (RFC 6238)

export const totpSchema = z
  .object({
    /** `pending`: enrolled, but no code has been shown yet; log-in doesn't ask for one. */
    state: z.enum(["off", "pending", "on"]),
    recoveryCodesLeft: z.number().int(),
  })
  .meta({ id: "Totp" });

export const totpEnrolmentSchema = z
  .object({
    /** `otpauth://totp/...`, for a QR code. */
    url: z.string(),
    /** Base32, to type in. */
    secret: z.string(),
  })
  .meta({ id: "TotpEnrolment" });

export const totpCodeSchema = z
  .strictObject({ code: z.string().regex(/^\d{6}$/, "A code is six digits.") })
  .meta({ id: "TotpCode" });

export const recoveryCodesSchema = z
  .object({ codes: z.array(z.string()).meta({ description: "Each is good for one log-in." }) })
  .meta({ id: "RecoveryCodes" });

// ---- sessions and tokens

export const accountSessionSchema = z
  .object({
    id: z.string(),
    user: z.string(),
    /** password, totp, recovery-code, webauthn, oidc */
    how: z.string(),
    /** Where it was opened from. */
    address: z.string(),
    createdAt: time,
    expiresAt: time,
    /** The one that asks. */
    current: z.boolean(),
  })
  .meta({ id: "AccountSession" });

export const tokenSchema = z
  .object({
    id: z.string(),
    name: z.string(),
    user: z.string(),
    /** Its scope: what it was given. */
    permissions: permissionsSchema,
    /** What it may do now: no more than its user. */
    effectivePermissions: permissionsSchema,
    createdAt: time,
    expiresAt: time,
    expired: z.boolean(),
    /** To a minute. */
    lastUsedAt: time.nullable(),
    lastUsedFrom: z.string().nullable(),
  })
  .meta({ id: "Token" });

export const tokenCreateSchema = z
  .strictObject({
    name: plainText(63).min(1, "Give it a name."),
    permissions: permissionsSchema.min(1, "Give it a permission at least."),
    /** At most a year from now. */
    expiresAt: z.iso.datetime({ offset: true, error: "Give a time like 2027-01-31T00:00:00Z." }),
  })
  .meta({ id: "TokenCreate" });

export const tokenCreatedSchema = tokenSchema
  .extend({ token: z.string().meta({ description: "Shown this once: keelson_..." }) })
  .meta({ id: "TokenCreated" });

// ---- users and roles

export const userSchema = z
  .object({
    id: z.string(),
    displayName: z.string(),
    roles: z.array(z.string()),
    permissions: permissionsSchema,
    disabled: z.boolean(),
    /** The first user: always local; can't be deleted, disabled or lose the role admin. */
    isFirst: z.boolean(),
    hasPassword: z.boolean(),
    mustChangePassword: z.boolean(),
    hasTotp: z.boolean(),
    sessionCount: z.number().int(),
    tokenCount: z.number().int(),
    createdAt: time.nullable(),
    passwordChangedAt: time.nullable(),
    lastLogInAt: time.nullable(),
  })
  .meta({ id: "User" });

const rolesGiven = z.array(roleIdSchema).max(32);

export const userCreateSchema = z
  .strictObject({
    id: userIdSchema,
    displayName: plainText(100).default(""),
    roles: rolesGiven,
    /** Null: no log-in by password. */
    password: newPasswordSchema.nullable(),
    mustChangePassword: z.boolean().default(true),
  })
  .meta({ id: "UserCreate" });

export const userChangeSchema = z
  .strictObject({
    displayName: plainText(100).optional(),
    roles: rolesGiven.optional(),
    disabled: z.boolean().optional(),
  })
  .meta({ id: "UserChange" });

export const passwordSetSchema = z
  .strictObject({ password: newPasswordSchema })
  .meta({ id: "PasswordSet" });

export const roleSchema = z
  .object({
    id: z.string(),
    description: z.string(),
    permissions: permissionsSchema,
    builtIn: z.boolean(),
    /** Users who have it. */
    users: z.array(z.string()),
  })
  .meta({ id: "Role" });

export const roleCreateSchema = z
  .strictObject({
    id: roleIdSchema,
    description: plainText(200).default(""),
    permissions: permissionsSchema,
  })
  .meta({ id: "RoleCreate" });

export const roleChangeSchema = z
  .strictObject({
    description: plainText(200).optional(),
    permissions: permissionsSchema.optional(),
  })
  .meta({ id: "RoleChange" });

export type LogIn = z.infer<typeof logInSchema>;
export type LogInChallenge = z.infer<typeof logInChallengeSchema>;
export type SecondFactor = z.infer<typeof secondFactorSchema>;
export type SessionInfo = z.infer<typeof sessionInfoSchema>;
export type Session = z.infer<typeof sessionSchema>;
export type Totp = z.infer<typeof totpSchema>;
export type TotpEnrolment = z.infer<typeof totpEnrolmentSchema>;
export type RecoveryCodes = z.infer<typeof recoveryCodesSchema>;
export type AccountSession = z.infer<typeof accountSessionSchema>;
export type Token = z.infer<typeof tokenSchema>;
export type TokenCreate = z.infer<typeof tokenCreateSchema>;
export type TokenCreated = z.infer<typeof tokenCreatedSchema>;
export type User = z.infer<typeof userSchema>;
export type UserCreate = z.infer<typeof userCreateSchema>;
export type UserChange = z.infer<typeof userChangeSchema>;
export type RoleDocument = z.infer<typeof roleSchema>;
export type RoleCreate = z.infer<typeof roleCreateSchema>;
export type RoleChange = z.infer<typeof roleChangeSchema>;
