/**
 * Every route x every built-in role x no role x no log-in x an API token of narrow scope, against
 * the real service. The rows are the routes of the application itself: a new one is in it, and one
 * without a guard fails here.
 */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createRouter } from "./app.ts";
import {
  type Access,
  areas,
  builtInRoles,
  isPermission,
  type Permission,
  permissions,
  rolesWith,
} from "./permissions.ts";
import { TestNode } from "./platform.fixture.ts";
import { isGuard, type RouteSources } from "./routes/route.ts";

const node = new TestNode();
/** Name of the principal -> its bearer token; null: none. */
const tokens = new Map<string, string | null>();

const router = createRouter({
  secure: false,
  unexpected: () => {},
  version: "test",
} as unknown as RouteSources & { version: string });
const routes = router.app.routes
  .filter(({ handler }) => isGuard(handler))
  .map(({ method, path, handler }) => ({
    method,
    path,
    access: (handler as unknown as { access: Access }).access,
  }));

/** Written by hand: a role that may more or less tomorrow is a decision, not an accident. */
const expected: Record<string, readonly Permission[]> = {
  admin: permissions,
  operator: [
    ...both("storage", "netboot", "node"),
    ...["network:read", "upgrade:read", "settings:read"],
    ...both("backup"),
  ] as Permission[],
  "read-only": [
    ...["storage:read", "netboot:read", "node:read", "network:read", "upgrade:read"],
    ...["settings:read", "backup:read"],
  ] as Permission[],
  backup: ["storage:read", "node:read", "backup:read", "backup:write"],
  storage: ["storage:read", "storage:write", "node:read"],
  netboot: ["netboot:read", "netboot:write", "node:read"],
  node: ["node:read", "node:write"],
  network: ["node:read", "network:read", "network:write"],
  upgrade: ["node:read", "upgrade:read", "upgrade:write"],
  users: ["node:read", "users:read", "users:write"],
  audit: ["node:read", "audit:read", "audit:write"],
  settings: ["node:read", "settings:read", "settings:write"],
  "no role": [],
  "token for storage:read": ["storage:read"],
};

function both(...of: string[]): Permission[] {
  return of.flatMap((area) => [`${area}:read`, `${area}:write`] as Permission[]);
}

async function request(method: string, path: string, token: string | null) {
  const ended = new AbortController();
  const answer = await fetch(`${node.http}/api/v1${path.replaceAll(/:\w+/g, "x")}`, {
    method,
    redirect: "manual",
    signal: ended.signal,
    headers: {
      ...(token === null ? {} : { authorization: `Bearer ${token}` }),
      ...(method === "GET" ? {} : { "content-type": "application/json" }),
    },
    ...(method === "GET" ? {} : { body: "{}" }),
  });
  const problem = answer.headers.get("content-type")?.includes("problem+json")
    ? ((await answer.json()) as { code: string; title: string; object?: string; detail?: string })
    : undefined;
  // A stream would go on.
  ended.abort();
  return { status: answer.status, problem };
}

const secret = "a password of the matrix";
async function logIn(user: string): Promise<string> {
  const answer = await node.call("POST", "/session", { user, password: secret });
  expect(answer.status, user).toBe(200);
  return answer.body.token;
}
const userOf = (principal: string) => `user-of-${principal.replaceAll(" ", "-")}`;

beforeAll(async () => {
  await node.start();
  tokens.set("nobody", null);
  for (const role of [...builtInRoles.map(({ id }) => id), "no role"]) {
    const user = {
      ...{ id: userOf(role), roles: role === "no role" ? [] : [role] },
      ...{ password: secret, mustChangePassword: false },
    };
    expect((await node.call("POST", "/users", user)).status).toBe(201);
    tokens.set(role, await logIn(user.id));
  }
  const created = await node.call("POST", "/tokens", {
    name: "narrow",
    permissions: ["storage:read"],
    expiresAt: new Date(Date.now() + 3_600_000).toISOString(),
  });
  tokens.set("token for storage:read", created.body.token);
});
afterAll(() => node.remove());

test("the application has no route without a guard", () => {
  const guarded = new Set(routes.map(({ method, path }) => `${method} ${path}`));
  const all = router.app.routes
    .filter(({ method }) => method !== "ALL")
    .map(({ method, path }) => `${method} ${path}`);
  expect(guarded.size).toBeGreaterThan(80);
  expect([...new Set(all)].filter((route) => !guarded.has(route))).toEqual([]);
  // Two guards at one route would be two answers to one question.
  expect(routes.length).toBe(guarded.size);
});

test("what changes something needs more than reading, and reading no more than that", () => {
  const odd = routes.filter(
    ({ method, access }) =>
      isPermission(access) && access.endsWith(":read") !== (method === "GET" || method === "HEAD"),
  );
  // But for what gives away whole disks: who sees all figures need not have all data.
  expect(odd.map(({ method, path, access }) => `${method} ${path} ${access}`).sort()).toEqual([
    "GET /images/:id/data backup:write",
    "GET /snapshots/:id/data backup:write",
  ]);
  for (const { access } of routes) {
    expect(access === "anyone" || access === "account" || isPermission(access)).toBe(true);
  }
});

test("the matrix covers every role, and each is what was decided", () => {
  const roles = builtInRoles.map(({ id }) => id);
  expect(Object.keys(expected).slice(0, roles.length).sort()).toEqual([...roles].sort());
  for (const area of areas) expect(roles).toContain(area);
  expect([...tokens.keys()].sort()).toEqual([...Object.keys(expected), "nobody"].sort());
});

describe.each([...Object.keys(expected), "nobody"])("%s", (principal) => {
  test.each(routes)("$method $path ($access)", async ({ method, path, access }) => {
    const { status, problem } = await request(method, path, tokens.get(principal) ?? null);
    const has = expected[principal];
    if (access === "anyone") {
      // It may refuse what it was given, but not because of who asks.
      expect(problem?.title ?? "").not.toMatch(/Log in first|no permission/);
    } else if (has === undefined) {
      expect(status).toBe(401);
    } else if (isPermission(access) && !has.includes(access)) {
      expect(status).toBe(403);
      expect(problem).toMatchObject({ code: "PERMISSION_DENIED", object: access });
      expect(problem!.title).toContain(`no permission ${access}`);
      for (const role of rolesWith(access)) expect(problem!.detail).toContain(role);
    } else if (status === 403) {
      // Only a person may do that, whatever the token's scope.
      expect(principal).toMatch(/^token/);
      expect(access).toBe("account");
      expect(problem!.title).toBe("An API token can't do that.");
    } else {
      expect(status).not.toBe(401);
    }
    const endsItself = ["DELETE /session", "POST /session/log-out"].includes(`${method} ${path}`);
    if (endsItself && status < 300) tokens.set(principal, await logIn(userOf(principal)));
  });
});
