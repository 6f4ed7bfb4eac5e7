/** Made-up accounts and an audit log as long as one likes, typed by api's own schemas. */
import type {
  AccountSession,
  RoleDocument,
  Token,
  Totp,
  User,
} from "#services/api/accounts-schema.ts";
import type { AuditEntry, AuditHeads, AuditPage } from "#services/api/audit-schema.ts";
import { builtInRoles, permissions } from "#services/api/permissions.ts";

const dayMs = 86_400_000;
const ago = (ageMs: number) => new Date(Date.now() - ageMs).toISOString();

function user(id: string, fields: Partial<User> = {}): User {
  return {
    id,
    displayName: "",
    roles: ["operator"],
    permissions: [],
    disabled: false,
    isFirst: false,
    hasPassword: true,
    mustChangePassword: false,
    hasTotp: false,
    sessionCount: 0,
    tokenCount: 0,
    createdAt: ago(90 * dayMs),
    passwordChangedAt: null,
    lastLogInAt: ago(3 * dayMs),
    ...fields,
  };
}

const users: readonly User[] = [
  user("admin", { roles: ["admin"], isFirst: true, hasTotp: true, sessionCount: 2, tokenCount: 1 }),
  user("ann", { displayName: "Ann Okafor", roles: ["operator", "audit"], sessionCount: 1 }),
  user("backup-robot", { roles: ["backup"], hasPassword: false, tokenCount: 2, lastLogInAt: null }),
  user("jo@example.org", { displayName: "Jo", roles: ["read-only"], mustChangePassword: true }),
  user("left-last-year", { roles: [], disabled: true, lastLogInAt: ago(400 * dayMs) }),
];

const roles: readonly RoleDocument[] = [
  ...builtInRoles.map((role) => ({
    id: role.id,
    description: role.description,
    permissions: [...role.permissions],
    builtIn: true,
    users: users.filter((item) => item.roles.includes(role.id)).map(({ id }) => id),
  })),
  {
    id: "night-shift",
    description: "Looks after the lab at night.",
    permissions: ["storage:read", "netboot:read", "netboot:write", "node:read"],
    builtIn: false,
    users: [],
  },
];

const sessions: readonly AccountSession[] = [
  {
    id: "s1",
    user: "admin",
    how: "totp",
    address: "192.0.2.77",
    createdAt: ago(3_600_000),
    expiresAt: ago(-11 * 3_600_000),
    current: true,
  },
  {
    id: "s2",
    user: "admin",
    how: "webauthn",
    address: "2001:db8:10::aa17",
    createdAt: ago(7_200_000),
    expiresAt: ago(-10 * 3_600_000),
    current: false,
  },
];

const tokens: readonly Token[] = [
  {
    id: "t1",
    name: "monitoring",
    user: "admin",
    permissions: ["node:read", "storage:read"],
    effectivePermissions: ["node:read", "storage:read"],
    createdAt: ago(20 * dayMs),
    expiresAt: ago(-60 * dayMs),
    expired: false,
    lastUsedAt: ago(60_000),
    lastUsedFrom: "192.0.2.9",
  },
  {
    id: "t2",
    name: "last year's script",
    user: "admin",
    permissions: [...permissions],
    effectivePermissions: [],
    createdAt: ago(400 * dayMs),
    expiresAt: ago(30 * dayMs),
    expired: true,
    lastUsedAt: null,
    lastUsedFrom: null,
  },
];

const totp: Totp = { state: "on", recoveryCodesLeft: 2 };

export const accountDocuments: Readonly<Record<string, unknown>> = {
  users,
  roles,
  sessions,
  tokens,
  "session/totp": totp,
};

const actions = [
  "POST /session",
  "POST /volumes",
  "DELETE /volumes/{id}",
  "PUT /netboot",
  "PATCH /users/{id}",
];
const outcomes = ["done", "done", "done", "refused", "failed"] as const;

function auditEntry(sequence: number): AuditEntry {
  const outcome = outcomes[(sequence * 7) % outcomes.length];
  return {
    sequence,
    time: ago((20_000 - sequence) * 60_000),
    user: sequence % 11 === 0 ? null : users[sequence % users.length].id,
    via: sequence % 3 === 0 ? "token:t1" : "session",
    address: `192.0.2.${sequence % 250}`,
    action: actions[sequence % actions.length],
    permission: "storage:write",
    target: sequence % 2 === 0 ? `volume-${sequence}` : null,
    outcome,
    status: { done: 200, refused: 403, failed: 500 }[outcome],
    detail: outcome === "done" ? null : "It was not allowed, or did not work.",
    previous: "0".repeat(64),
    hash: String(sequence).padStart(64, "0"),
  };
}

/** The log of `count` entries, as GET /audit gives it. */
export function auditPage(count: number, query: URLSearchParams): AuditPage {
  const limit = Number(query.get("limit") ?? 100);
  let sequence = Number(query.get("before") ?? count + 1) - 1;
  const entries: AuditEntry[] = [];
  for (; sequence >= 1 && entries.length < limit; sequence--) {
    const entry = auditEntry(sequence);
    const matches = (name: "user" | "action" | "outcome") =>
      (entry[name] ?? "").includes(query.get(name) ?? "");
    if (matches("user") && matches("action") && matches("outcome")) entries.push(entry);
  }
  return { entries, next: sequence === 0 ? null : (entries.at(-1)?.sequence ?? null) };
}

export function auditHeads(count: number): AuditHeads {
  const head = { sequence: count, hash: String(count).padStart(64, "0"), time: ago(0) };
  return { head, files: [head], firstSequence: 1 };
}
