/**
 * Log-in by others than a password: an identity provider (OpenID Connect) and security keys
 * (WebAuthn). Public, under /api/v1 (who may call in brackets):
 *
 *   GET    /login/methods                       -> LogInMethods                 [anyone]
 *   GET    /login/oidc/start?returnTo=          -> 303 to the provider          [anyone]
 *   GET    /login/oidc/callback                 -> 303 to the console           [anyone]
 *   POST   /login/security-key/options          -> what the browser asks a key  [anyone]
 *   POST   /login/security-key                  the key's answer -> Session     [anyone]
 *   POST   /session/log-out                     -> LogOut: go to its URL        [account]
 *   GET    /session/identities                  -> Identity[]                   [account]
 *   POST   /session/identities                  -> IdentityLink: go to its URL  [account]
 *   DELETE /session/identities/{id}             -> 204                          [account]
 *   GET    /session/security-keys               -> SecurityKey[]                [account]
 *   POST   /session/security-keys/options       -> what the browser asks a key  [account]
 *   POST   /session/security-keys               SecurityKeyCreate -> SecurityKey [account]
 *   PATCH  /session/security-keys/{id}          SecurityKeyChange -> SecurityKey [account]
 *   POST   /session/security-keys/{id}/remove   PasswordProof -> 204            [account]
 *   GET    /users/{id}/security-keys            -> SecurityKey[]                [users:read]
 *   DELETE /users/{id}/security-keys            -> 204                          [users:write]
 *   DELETE /users/{id}/security-keys/{keyId}    -> 204                          [users:write]
 *   GET    /users/{id}/identities               -> Identity[]                   [users:read]
 *   DELETE /users/{id}/identities/{identityId}  -> 204                          [users:write]
 *   GET    /identity-provider                   -> IdentityProvider             [settings:read]
 *   PUT    /identity-provider                   IdentityProviderChange -> IdentityProvider
 *   DELETE /identity-provider                   -> 204
 *   POST   /identity-provider/test              -> IdentityProviderTest
 *   GET    /console-address                     -> ConsoleAddress               [settings:read]
 *   PUT    /console-address                     ConsoleAddressChange -> ConsoleAddress
 */
import { X509Certificate } from "node:crypto";
import { isIP } from "node:net";
import { z } from "zod";

const time = z.string().meta({ format: "date-time" });
const line = (most: number) =>
  z
    .string()
    .trim()
    .min(1, "Give at least one character.")
    .max(most, `At most ${most} characters.`)
    .refine((text) => !/\p{Cc}/u.test(text), "Control characters are not taken.");

// ---- where the console is

/** `https://name[:port]`, without path; `http://localhost[:port]` for development. */
const consoleUrlSchema = z
  .string()
  .max(300)
  .transform((text, context): string => {
    const issue = (message: string) => {
      context.addIssue({ code: "custom", message });
      return z.NEVER;
    };
    const example = "give it like https://keelson.example.org.";
    if (!URL.canParse(text)) return issue(`"${text}" is not a URL; ${example}`);
    const url = new URL(text);
    const development = url.protocol === "http:" && url.hostname === "localhost";
    if (url.protocol !== "https:" && !development) {
      return issue(`"${text}" is not an https URL; ${example}`);
    }
    if (url.username !== "" || url.pathname !== "/" || url.search !== "" || url.hash !== "") {
      return issue(`"${text}" has more than a host name and a port; ${example}`);
    }
    return url.origin;
  })
  .meta({ type: "string", example: "https://keelson.example.org" });

export const consoleAddressSchema = z
  .object({
    /** By which people open the console; providers send browsers back to it. */
    url: z.string(),
    /** False: nobody set it, it is made of the node's name. */
    set: z.boolean(),
    /** The name that security keys are bound to; null where there is none. */
    securityKeyName: z.string().nullable(),
    /** Why security keys can't be used under this address. */
    securityKeyProblem: z.string().nullable(),
  })
  .meta({ id: "ConsoleAddress" });

export const consoleAddressChangeSchema = z
  .strictObject({
    /** Null: back to the node's own name. */
    url: consoleUrlSchema.nullable(),
    /** Security keys are bound to the host name: under another one they are of no use. */
    removeKeys: z.boolean().default(false),
  })
  .meta({ id: "ConsoleAddressChange" });

export const consoleAddressRecord = z.object({ id: z.literal("console"), url: z.string() });

// ---- the identity provider

const issuerSchema = z
  .string()
  .trim()
  .max(500)
  .transform((text, context): string => {
    const issue = (message: string) => {
      context.addIssue({ code: "custom", message });
      return z.NEVER;
    };
    const example = "give it like https://login.example.org/realms/office.";
    if (!URL.canParse(text)) return issue(`"${text}" is not a URL; ${example}`);
    const url = new URL(text);
    if (url.protocol !== "https:") return issue(`"${text}" is not an https URL; ${example}`);
    if (url.username !== "" || url.search !== "" || url.hash !== "") {
      return issue("An issuer has no user, query or fragment.");
    }
    if (url.pathname.includes("/.well-known/")) {
      return issue("Give the issuer without /.well-known/...: the node adds that itself.");
    }
    // As written: what the provider calls itself may end in a slash or not.
    return text;
  })
  .meta({ type: "string", example: "https://login.example.org/realms/office" });

const claimSchema = line(200);
const groupSchema = line(300);
const domainSchema = z
  .string()
  .trim()
  .toLowerCase()
  .regex(/^[a-z0-9-]+(\.[a-z0-9-]+)+$/, "A mail domain is like example.org.")
  .max(253);

export const caCertificateSchema = z
  .string()
  .max(100_000)
  .refine(
    (text) => pemCertificates(text).length > 0 && pemCertificates(text).every(isCertificate),
    "That is no certificate in PEM form (-----BEGIN CERTIFICATE-----).",
  );

export function pemCertificates(text: string): string[] {
  return text.match(/-----BEGIN CERTIFICATE-----[\s\S]*?-----END CERTIFICATE-----/g) ?? [];
}

function isCertificate(pem: string): boolean {
  try {
    return new X509Certificate(pem).raw.length > 0;
  } catch {
    return false;
  }
}

export const groupRoleSchema = z.strictObject({ group: groupSchema, role: line(64) });

const providerShape = {
  /** Shown on the log-in page: "Log in with NAME". */
  name: line(60),
  issuer: issuerSchema,
  clientId: line(300),
  scopes: z
    .array(
      z
        .string()
        .max(100)
        .regex(/^[\x21\x23-\x5b\x5d-\x7e]+$/, "A scope is one word (RFC 6749)."),
    )
    .max(20)
    .refine((scopes) => scopes.includes("openid"), "The scopes must include openid.")
    .default(["openid", "profile", "email"]),
  /** The claim that the user's name here is taken from, at the first log-in. */
  userClaim: claimSchema.default("preferred_username"),
  /** The claim with the groups; `realm_access.roles` looks inside. */
  groupsClaim: claimSchema.default("groups"),
  /** Who is in several groups has all their roles. */
  groupRoles: z.array(groupRoleSchema).max(200).default([]),
  /** If not empty: only who has a verified mail address in one of them. */
  allowedDomains: z.array(domainSchema).max(50).default([]),
  /** If not empty: only who is in one of them. */
  allowedGroups: z.array(groupSchema).max(200).default([]),
  /** Whether a user is made here at the first log-in; otherwise only linked users get in. */
  createUsers: z.boolean().default(true),
  /** Whether logging out here leads to logging out there, where the provider has a page for that. */
  logOutThere: z.boolean().default(true),
  /** What the provider's own certificate is signed by, where no public authority did. */
  caCertificate: caCertificateSchema.nullable().default(null),
};

/** The secret is written and never read: left out, the present one stays. */
export const identityProviderChangeSchema = z
  .strictObject({ ...providerShape, clientSecret: z.string().min(1).max(1000).optional() })
  .meta({ id: "IdentityProviderChange" });

export const identityProviderSchema = z
  .object({
    ...providerShape,
    clientSecretSet: z.boolean(),
    /** To be registered at the provider. */
    redirectUri: z.string(),
    /** To be registered there too, as where to come back to after logging out. */
    logOutRedirectUri: z.string(),
    changedAt: time,
  })
  .meta({ id: "IdentityProvider" });

export const identityProviderRecord = z.object({
  id: z.literal("provider"),
  ...providerShape,
  clientSecret: z.string(),
  changedAt: time,
});

export const identityProviderTestSchema = z
  .object({
    ok: z.boolean(),
    /** In the order they were made; the first that failed ends them. */
    steps: z.array(z.object({ name: z.string(), ok: z.boolean(), message: z.string() })),
  })
  .meta({ id: "IdentityProviderTest" });

// ---- identities: users here, known by somebody there

/** `id` is of issuer and subject, so that one account there is never two users here. */
export const identityRecord = z.object({
  id: z.string(),
  issuer: z.string(),
  subject: z.string(),
  user: z.string(),
  /** Made by a log-in, rather than linked by the user. */
  created: z.boolean(),
  createdAt: time,
  lastLogInAt: time.nullable(),
});

export const identitySchema = identityRecord.meta({ id: "Identity" });

export const identityLinkSchema = z
  .object({ url: z.string() })
  .meta({ id: "IdentityLink", description: "Where to send the browser." });

export const logOutSchema = z
  .object({
    /** At the provider, to log out there too; null: that was all. */
    url: z.string().nullable(),
  })
  .meta({ id: "LogOut" });

// ---- security keys

/** `id` is the credential's, base64url. */
export const securityKeyRecord = z.object({
  id: z.string(),
  user: z.string(),
  name: z.string(),
  /** The host name that it was registered under. */
  rpId: z.string(),
  /** COSE, base64url. */
  publicKey: z.string(),
  counter: z.number(),
  transports: z.array(z.string()),
  /** Can be found by the key itself: log-in without a user name. */
  discoverable: z.boolean(),
  /** Copied to other devices by its vendor. */
  backedUp: z.boolean(),
  createdAt: time,
  lastUsedAt: time.nullable(),
  /** Set when it answered with an older counter: it may have been copied. Refused from then on. */
  suspectedAt: time.nullable(),
});

export const securityKeySchema = securityKeyRecord
  .omit({ publicKey: true, counter: true, user: true })
  .extend({ usableHere: z.boolean().meta({ description: "Registered for the present name." }) })
  .meta({ id: "SecurityKey" });

const keyNameSchema = line(60);
/** The browser's answer; @simplewebauthn/server reads what is inside. */
const base64url = (most: number) =>
  z
    .string()
    .max(most)
    .regex(/^[A-Za-z0-9_-]*$/, "That is not base64url.");

const credentialShape = {
  id: base64url(2000),
  rawId: base64url(2000),
  type: z.literal("public-key"),
  authenticatorAttachment: z.enum(["platform", "cross-platform"]).optional(),
  clientExtensionResults: z.record(z.string(), z.unknown()).default({}),
};

export const registrationResponseSchema = z.object({
  ...credentialShape,
  response: z.object({
    clientDataJSON: base64url(10_000),
    attestationObject: base64url(100_000),
    authenticatorData: base64url(100_000).optional(),
    transports: z.array(z.string().max(30)).max(10).optional(),
    publicKeyAlgorithm: z.number().optional(),
    publicKey: base64url(10_000).optional(),
  }),
});

export const authenticationResponseSchema = z.object({
  ...credentialShape,
  response: z.object({
    clientDataJSON: base64url(10_000),
    authenticatorData: base64url(10_000),
    signature: base64url(10_000),
    userHandle: base64url(200).optional(),
  }),
});

export const securityKeyCreateSchema = z
  .strictObject({ name: keyNameSchema, response: registrationResponseSchema })
  .meta({ id: "SecurityKeyCreate" });

export const securityKeyChangeSchema = z
  .strictObject({ name: keyNameSchema })
  .meta({ id: "SecurityKeyChange" });

/** Of a LogInChallenge: the key is then the second step after that password. */
const challenge = z.string().min(1).max(200).optional();

export const securityKeyAskSchema = z.strictObject({ challenge }).meta({ id: "SecurityKeyAsk" });

export const securityKeyLogInSchema = z
  .strictObject({ challenge, response: authenticationResponseSchema })
  .meta({ id: "SecurityKeyLogIn" });

/** PublicKeyCredentialCreationOptionsJSON and ...RequestOptionsJSON (WebAuthn level 3). */
export const keyOptionsSchema = z
  .record(z.string(), z.unknown())
  .meta({ id: "SecurityKeyOptions" });

// ---- what the log-in page offers

export const logInMethodsSchema = z
  .object({
    /** Null: none is set up. */
    identityProvider: z.object({ name: z.string() }).nullable(),
    /** Where security keys work: the page compares it with its own address. Null: nowhere. */
    securityKeyUrl: z.string().nullable(),
    /** Why they don't, in a sentence. */
    securityKeyProblem: z.string().nullable(),
  })
  .meta({ id: "LogInMethods" });

export type ConsoleAddress = z.infer<typeof consoleAddressSchema>;
export type IdentityProvider = z.infer<typeof identityProviderSchema>;
export type IdentityProviderChange = z.input<typeof identityProviderChangeSchema>;
export type IdentityProviderTest = z.infer<typeof identityProviderTestSchema>;
export type Identity = z.infer<typeof identitySchema>;
export type SecurityKey = z.infer<typeof securityKeySchema>;
export type LogInMethods = z.infer<typeof logInMethodsSchema>;
export type IdentityProviderRecord = z.infer<typeof identityProviderRecord>;
export type IdentityRecord = z.infer<typeof identityRecord>;
export type SecurityKeyRecord = z.infer<typeof securityKeyRecord>;

/** WebAuthn section 5.1.2: a relying party's id is a domain, not an address. */
export function securityKeyHost(consoleUrl: string): string | null {
  const { hostname } = new URL(consoleUrl);
  const bare = hostname.replace(/^\[|\]$/g, "");
  return isIP(bare) === 0 ? hostname : null;
}
