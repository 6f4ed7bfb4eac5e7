/**
 * Who somebody at the identity provider is on this node. Pure: a decision over what the provider
 * said (checked by then), what is set, and who is known here.
 *
 *   identity known  user          result
 *   yes             gone          as if the identity were unknown
 *   yes             disabled      refused: user-disabled
 *   yes             there         that user, whatever name the provider gives now
 *   no              same name     refused: name-taken (the user here was made by somebody else)
 *   no              none          made, if users are made; else refused: user-unknown
 *
 * before any of it: allowed domains and groups (not-allowed), then at least one role (no-role).
 * `admin` is nobody's at a provider: even a record that says so is refused.
 */
import { userIdSchema } from "./accounts-schema.ts";
import type { IdentityProviderRecord } from "./identity-schema.ts";
import type { LogInFailureCode } from "./oidc-failures.ts";

/** What the provider said of somebody, after all checks of the token. */
export interface ExternalIdentity {
  readonly issuer: string;
  readonly subject: string;
  readonly claims: Readonly<Record<string, unknown>>;
}

export interface KnownHere {
  /** Who is linked to this issuer and subject. */
  readonly linked: { readonly user: string } | undefined;
  findUser(name: string): { readonly disabled: boolean } | undefined;
}

export type Admission =
  | { readonly kind: "user"; readonly user: string; readonly roles: readonly string[] }
  | {
      readonly kind: "create";
      readonly user: string;
      readonly displayName: string;
      readonly roles: readonly string[];
    }
  | { readonly kind: "refused"; readonly why: LogInFailureCode; readonly detail: string };

export const localAdmin = "admin";

export function admit(
  settings: IdentityProviderRecord,
  identity: ExternalIdentity,
  known: KnownHere,
): Admission {
  const groups = groupsOf(identity.claims, settings.groupsClaim);
  if (groups.kind === "wrong") return refused("answer-untrusted", groups.detail);
  const outside = notAllowed(settings, identity.claims, groups.names);
  if (outside !== undefined) return refused("not-allowed", outside);
  const roles = rolesOf(settings, groups.names);
  if (roles.length === 0) {
    return refused("no-role", `of ${groups.names.length} groups none is mapped to a role`);
  }
  const linked = known.linked?.user;
  const user = linked === undefined ? undefined : known.findUser(linked);
  if (linked !== undefined && user !== undefined) {
    if (linked === localAdmin) return refused("not-allowed", "admin is always local");
    if (user.disabled) return refused("user-disabled", linked);
    return { kind: "user", user: linked, roles };
  }
  const name = userNameOf(identity.claims, settings.userClaim);
  if (name === undefined) {
    return refused("answer-untrusted", `claim ${settings.userClaim} is not a usable name`);
  }
  if (name === localAdmin || known.findUser(name) !== undefined) {
    return refused("name-taken", name);
  }
  if (!settings.createUsers) return refused("user-unknown", name);
  return { kind: "create", user: name, displayName: displayNameOf(identity.claims, name), roles };
}

function refused(why: LogInFailureCode, detail: string): Admission {
  return { kind: "refused", why, detail };
}

/** The claim of exactly this name, else the path: `realm_access.roles`. Own properties only. */
export function claimAt(claims: Readonly<Record<string, unknown>>, name: string): unknown {
  if (Object.hasOwn(claims, name)) return claims[name];
  let value: unknown = claims;
  for (const part of name.split(".")) {
    if (typeof value !== "object" || value === null || !Object.hasOwn(value, part)) {
      return undefined;
    }
    value = (value as Record<string, unknown>)[part];
  }
  return value;
}

const mostGroups = 2000;

type Groups =
  | { readonly kind: "names"; readonly names: readonly string[] }
  | { readonly kind: "wrong"; readonly detail: string };

/** One text is one group; an absent claim is none. Anything else isn't guessed at. */
function groupsOf(claims: Readonly<Record<string, unknown>>, claim: string): Groups {
  const value = claimAt(claims, claim);
  if (value === undefined || value === null) return { kind: "names", names: [] };
  const list = typeof value === "string" ? [value] : value;
  const texts = Array.isArray(list) && list.every((item) => typeof item === "string");
  if (!texts || list.length > mostGroups) {
    return { kind: "wrong", detail: `claim ${claim} is not a list of texts` };
  }
  return { kind: "names", names: list };
}

function notAllowed(
  settings: IdentityProviderRecord,
  claims: Readonly<Record<string, unknown>>,
  groups: readonly string[],
): string | undefined {
  const { allowedDomains, allowedGroups } = settings;
  if (allowedGroups.length > 0 && !groups.some((group) => allowedGroups.includes(group))) {
    return "in none of the allowed groups";
  }
  if (allowedDomains.length === 0) return undefined;
  const { email } = claims;
  // Providers let people write any address; only one that was verified says where they belong.
  if (typeof email !== "string" || claims.email_verified !== true) {
    return "no verified mail address, and only some mail domains are allowed";
  }
  const domain = email.slice(email.lastIndexOf("@") + 1).toLowerCase();
  return allowedDomains.includes(domain) ? undefined : "mail domain not allowed";
}

function rolesOf(settings: IdentityProviderRecord, groups: readonly string[]): string[] {
  const roles = settings.groupRoles
    .filter(({ group }) => groups.includes(group))
    .map(({ role }) => role);
  return [...new Set(roles)];
}

/** As names of users are (accounts-schema.ts). A mail address stays whole: domains differ. */
export function userNameOf(
  claims: Readonly<Record<string, unknown>>,
  claim: string,
): string | undefined {
  const value = claimAt(claims, claim);
  const parsed = typeof value === "string" ? userIdSchema.safeParse(value.trim()) : undefined;
  return parsed?.success ? parsed.data : undefined;
}

function displayNameOf(claims: Readonly<Record<string, unknown>>, name: string): string {
  const given = claims.name;
  if (typeof given !== "string") return name;
  const clean = given.replaceAll(/\p{Cc}/gu, " ").trim();
  return clean === "" ? name : clean.slice(0, 100);
}
