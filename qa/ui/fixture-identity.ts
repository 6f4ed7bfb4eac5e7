/** Made-up log-in by others than a password, typed by api's own schemas. */
import type {
  ConsoleAddress,
  Identity,
  IdentityProvider,
  LogInMethods,
  SecurityKey,
} from "#services/api/identity-schema.ts";

const dayMs = 86_400_000;
const ago = (ageMs: number) => new Date(Date.now() - ageMs).toISOString();

const consoleAddress: ConsoleAddress = {
  url: "https://node-1.example",
  set: true,
  securityKeyName: "node-1.example",
  securityKeyProblem: null,
};

const provider: IdentityProvider = {
  name: "Office",
  issuer: "https://login.example.org/realms/office",
  clientId: "keelson",
  scopes: ["openid", "profile", "email"],
  userClaim: "preferred_username",
  groupsClaim: "realm_access.roles",
  groupRoles: [
    { group: "it", role: "admin" },
    { group: "lab", role: "operator" },
  ],
  allowedDomains: ["example.org"],
  allowedGroups: [],
  createUsers: true,
  logOutThere: true,
  caCertificate: null,
  clientSecretSet: true,
  redirectUri: "https://node-1.example/api/v1/login/oidc/callback",
  logOutRedirectUri: "https://node-1.example/",
  changedAt: ago(30 * dayMs),
};

const methods: LogInMethods = {
  identityProvider: { name: provider.name },
  securityKeyUrl: consoleAddress.url,
  securityKeyProblem: null,
};

const identities: readonly Identity[] = [
  {
    id: "i1",
    issuer: provider.issuer,
    subject: "8f14e45f-ceea-467f-a0e6-c9d1a5c2b7d1",
    user: "ann",
    created: true,
    createdAt: ago(60 * dayMs),
    lastLogInAt: ago(dayMs),
  },
];

const keys: readonly SecurityKey[] = [
  {
    id: "a2V5LTE",
    name: "Blue one on the key ring",
    rpId: "node-1.example",
    transports: ["usb"],
    discoverable: true,
    backedUp: false,
    createdAt: ago(40 * dayMs),
    lastUsedAt: ago(dayMs),
    suspectedAt: null,
    usableHere: true,
  },
  {
    id: "a2V5LTI",
    name: "Spare",
    rpId: "old-name.example",
    transports: ["nfc"],
    discoverable: false,
    backedUp: false,
    createdAt: ago(90 * dayMs),
    lastUsedAt: null,
    suspectedAt: ago(2 * dayMs),
    usableHere: false,
  },
];

export const identityDocuments: Readonly<Record<string, unknown>> = {
  "console-address": consoleAddress,
  "identity-provider": provider,
  "session/identities": [],
  "session/security-keys": keys,
  "users/admin/identities": [],
  "users/admin/security-keys": keys,
  "users/ann/identities": identities,
  "users/ann/security-keys": [],
};

/** Asked for before the log-in too. */
export const logInDocuments: Readonly<Record<string, unknown>> = { "login/methods": methods };
