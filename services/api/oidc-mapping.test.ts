import { describe, expect, test } from "vitest";
import { identityProviderRecord } from "./identity-schema.ts";
import { admit, claimAt, userNameOf } from "./oidc-mapping.ts";

const settings = identityProviderRecord.parse({
  ...{ id: "provider", name: "Office", issuer: "https://login.example.org", clientId: "keelson" },
  ...{ clientSecret: "secret", changedAt: "2026-11-21T00:00:00.000Z" },
  groupRoles: [
    { group: "it", role: "admin" },
    { group: "it", role: "operator" },
    { group: "desk", role: "operator" },
  ],
});
const identity = (claims: Record<string, unknown>) => ({
  ...{ issuer: settings.issuer, subject: "s-1" },
  claims: { preferred_username: "vera", groups: ["it"], ...claims },
});

describe("the whole table: identity known, user here, users are made", () => {
  const there = { disabled: false };
  const disabled = { disabled: true };
  type Row = [
    linked: string | undefined,
    users: Record<string, { disabled: boolean }>,
    createUsers: boolean,
    outcome: object,
  ];
  const rows: Row[] = [
    [undefined, {}, true, { kind: "create", user: "vera" }],
    [undefined, {}, false, { kind: "refused", why: "user-unknown" }],
    [undefined, { vera: there }, true, { kind: "refused", why: "name-taken" }],
    [undefined, { vera: there }, false, { kind: "refused", why: "name-taken" }],
    [undefined, { vera: disabled }, true, { kind: "refused", why: "name-taken" }],
    ["vera", { vera: there }, true, { kind: "user", user: "vera" }],
    ["other", { other: there, vera: there }, false, { kind: "user", user: "other" }],
    ["vera", { vera: disabled }, true, { kind: "refused", why: "user-disabled" }],
    ["gone", {}, true, { kind: "create", user: "vera" }],
    ["gone", { vera: there }, true, { kind: "refused", why: "name-taken" }],
    ["gone", {}, false, { kind: "refused", why: "user-unknown" }],
    ["admin", { admin: there }, true, { kind: "refused", why: "not-allowed" }],
  ];
  test.each(rows)("linked to %s, here %j, made %s", (linked, users, createUsers, outcome) => {
    const known = {
      linked: linked === undefined ? undefined : { user: linked },
      findUser: (name: string) => users[name],
    };
    expect(admit({ ...settings, createUsers }, identity({}), known)).toMatchObject(outcome);
  });
});

test("all roles of all groups, once each", () => {
  const known = { linked: undefined, findUser: () => undefined };
  expect(admit(settings, identity({ groups: ["desk", "it", "x"] }), known)).toMatchObject({
    roles: ["admin", "operator"],
  });
});

test("claims: exactly named first, then by path, own properties only", () => {
  const claims = { "a.b": 1, a: { b: 2, c: { d: 3 } }, "https://x.example/groups": ["g"] };
  expect(claimAt(claims, "a.b")).toBe(1);
  expect(claimAt(claims, "a.c.d")).toBe(3);
  expect(claimAt(claims, "https://x.example/groups")).toEqual(["g"]);
  for (const name of ["constructor", "__proto__", "a.constructor.name", "a.b.c", "toString"]) {
    expect(claimAt(claims, name)).toBeUndefined();
  }
});

test.each([
  ["Vera.Voss", "vera.voss"],
  [" vera ", "vera"],
  ["vera@example.org", "vera@example.org"],
  ["", undefined],
  ["-x", undefined],
  ["a b", undefined],
  ["ädmin", undefined],
  ["\u0131t", undefined],
  ["a".repeat(65), undefined],
])("%j as a name here is %j", (given, name) => {
  expect(userNameOf({ preferred_username: given }, "preferred_username")).toBe(name);
});
