/** Other people's accounts, and roles. */
import { z } from "@hono/zod-openapi";
import {
  accountSessionSchema,
  passwordSetSchema,
  roleChangeSchema,
  roleCreateSchema,
  roleSchema,
  tokenSchema,
  userChangeSchema,
  userCreateSchema,
  userSchema,
} from "../accounts-schema.ts";
import { body, idParameter, json, noContent, type Router, type RouteSources } from "./route.ts";

export function addAccountRoutes(router: Router, from: RouteSources): void {
  addUserRoutes(router, from);
  addUserAccessRoutes(router, from);
  addRoleRoutes(router, from);
}

function addUserRoutes(router: Router, { accounts }: RouteSources): void {
  const { app } = router;
  const one = { 200: json(userSchema, "The user.") };
  app.openapi(
    router.route("users:read", {
      method: "get",
      path: "/users",
      responses: { 200: json(z.array(userSchema), "All users.") },
    }),
    (context) => context.json(accounts.listUsers(), 200),
  );
  app.openapi(
    router.route("users:write", {
      method: "post",
      path: "/users",
      request: body(userCreateSchema),
      responses: { 201: json(userSchema, "The user.") },
    }),
    async (context) => {
      const given = context.req.valid("json");
      context.set("auditDetail", `roles ${given.roles.join(" ")}`);
      return context.json(await accounts.createUser(context.get("session"), given), 201);
    },
  );
  app.openapi(
    router.route("users:read", {
      method: "get",
      path: "/users/{id}",
      request: { params: idParameter },
      responses: one,
    }),
    (context) => context.json(accounts.user(context.req.valid("param").id), 200),
  );
  app.openapi(
    router.route("users:write", {
      method: "patch",
      path: "/users/{id}",
      request: { params: idParameter, ...body(userChangeSchema) },
      responses: one,
    }),
    async (context) => {
      const { id } = context.req.valid("param");
      const change = context.req.valid("json");
      const said = [
        ...(change.roles === undefined ? [] : [`roles ${change.roles.join(" ")}`]),
        ...(change.disabled === undefined ? [] : [change.disabled ? "disabled" : "enabled"]),
        ...(change.displayName === undefined ? [] : ["name shown"]),
      ];
      context.set("auditDetail", said.join(", "));
      return context.json(await accounts.changeUser(context.get("session"), id, change), 200);
    },
  );
  app.openapi(
    router.route("users:write", {
      method: "delete",
      path: "/users/{id}",
      request: { params: idParameter },
      responses: noContent,
    }),
    async (context) => {
      await accounts.deleteUser(context.get("session"), context.req.valid("param").id);
      return context.body(null, 204);
    },
  );
  app.openapi(
    router.route("users:write", {
      method: "put",
      path: "/users/{id}/password",
      request: { params: idParameter, ...body(passwordSetSchema) },
      responses: noContent,
    }),
    async (context) => {
      const { id } = context.req.valid("param");
      const { password } = context.req.valid("json");
      await accounts.setPassword(context.get("session"), id, password);
      return context.body(null, 204);
    },
  );
  app.openapi(
    router.route("users:write", {
      method: "delete",
      path: "/users/{id}/totp",
      request: { params: idParameter },
      responses: noContent,
    }),
    async (context) => {
      await accounts.removeTotp(context.get("session"), context.req.valid("param").id);
      return context.body(null, 204);
    },
  );
}

function addUserAccessRoutes(router: Router, from: RouteSources): void {
  const { app } = router;
  const { accounts, sessions, tokens } = from;
  const sessionParameters = z.object({ id: z.string().max(200), sessionId: z.string().max(200) });
  const tokenParameters = z.object({ id: z.string().max(200), tokenId: z.string().max(200) });
  app.openapi(
    router.route("users:read", {
      method: "get",
      path: "/users/{id}/sessions",
      request: { params: idParameter },
      responses: { 200: json(z.array(accountSessionSchema), "The user's, newest first.") },
    }),
    (context) => {
      const { id } = accounts.user(context.req.valid("param").id);
      return context.json(sessions.list(id, context.get("token")), 200);
    },
  );
  app.openapi(
    router.route("users:write", {
      method: "delete",
      path: "/users/{id}/sessions",
      request: { params: idParameter },
      responses: noContent,
    }),
    async (context) => {
      await accounts.endSessions(context.get("session"), context.req.valid("param").id);
      return context.body(null, 204);
    },
  );
  app.openapi(
    router.route("users:write", {
      method: "delete",
      path: "/users/{id}/sessions/{sessionId}",
      request: { params: sessionParameters },
      responses: noContent,
    }),
    async (context) => {
      const { id, sessionId } = context.req.valid("param");
      accounts.requireTouchable(context.get("session"), id);
      await sessions.end(id, sessionId);
      return context.body(null, 204);
    },
  );
  app.openapi(
    router.route("users:read", {
      method: "get",
      path: "/users/{id}/tokens",
      request: { params: idParameter },
      responses: { 200: json(z.array(tokenSchema), "The user's API tokens, newest first.") },
    }),
    (context) => context.json(tokens.list(accounts.user(context.req.valid("param").id).id), 200),
  );
  app.openapi(
    router.route("users:write", {
      method: "delete",
      path: "/users/{id}/tokens/{tokenId}",
      request: { params: tokenParameters },
      responses: noContent,
    }),
    async (context) => {
      const { id, tokenId } = context.req.valid("param");
      accounts.requireTouchable(context.get("session"), id);
      await tokens.revoke(id, tokenId);
      return context.body(null, 204);
    },
  );
}

function addRoleRoutes(router: Router, { accounts }: RouteSources): void {
  const { app } = router;
  const one = { 200: json(roleSchema, "The role.") };
  app.openapi(
    router.route("users:read", {
      method: "get",
      path: "/roles",
      responses: { 200: json(z.array(roleSchema), "All roles, those built in first.") },
    }),
    (context) => context.json(accounts.listRoles(), 200),
  );
  app.openapi(
    router.route("users:write", {
      method: "post",
      path: "/roles",
      request: body(roleCreateSchema),
      responses: { 201: json(roleSchema, "The role.") },
    }),
    async (context) => {
      const given = context.req.valid("json");
      context.set("auditDetail", given.permissions.join(" "));
      return context.json(await accounts.createRole(context.get("session"), given), 201);
    },
  );
  app.openapi(
    router.route("users:read", {
      method: "get",
      path: "/roles/{id}",
      request: { params: idParameter },
      responses: one,
    }),
    (context) => context.json(accounts.role(context.req.valid("param").id), 200),
  );
  app.openapi(
    router.route("users:write", {
      method: "patch",
      path: "/roles/{id}",
      request: { params: idParameter, ...body(roleChangeSchema) },
      responses: one,
    }),
    async (context) => {
      const { id } = context.req.valid("param");
      const change = context.req.valid("json");
      if (change.permissions) context.set("auditDetail", change.permissions.join(" "));
      return context.json(await accounts.changeRole(context.get("session"), id, change), 200);
    },
  );
  app.openapi(
    router.route("users:write", {
      method: "delete",
      path: "/roles/{id}",
      request: { params: idParameter },
      responses: noContent,
    }),
    async (context) => {
      await accounts.deleteRole(context.get("session"), context.req.valid("param").id);
      return context.body(null, 204);
    },
  );
}
