/** Security keys: log-in by them, and one's own. */
import { randomBytes } from "node:crypto";
import { z } from "@hono/zod-openapi";
import { deleteCookie, getCookie, setCookie } from "hono/cookie";
import { passwordProofSchema, sessionSchema } from "../accounts-schema.ts";
import {
  keyOptionsSchema,
  securityKeyAskSchema,
  securityKeyChangeSchema,
  securityKeyCreateSchema,
  securityKeyLogInSchema,
  securityKeySchema,
} from "../identity-schema.ts";
import { ownSession } from "./oidc.ts";
import {
  body,
  callerAddress,
  checkOrigin,
  idParameter,
  json,
  noContent,
  type Router,
  type RouteSources,
} from "./route.ts";
import { originOf, setSessionCookie } from "./session.ts";

export function addSecurityKeyRoutes(router: Router, sources: RouteSources): void {
  addLogInRoutes(router, sources);
  addOwnKeyRoutes(router, sources);
  addUserRoutes(router, sources);
}

/** Holds what binds a challenge to the browser that asked for it. */
function bindingCookie(secure: boolean): string {
  return secure ? "__Host-keelson-key" : "keelson-key";
}

function addLogInRoutes(router: Router, sources: RouteSources): void {
  const { app } = router;
  const { secure } = sources;
  const cookie = bindingCookie(secure);
  const attributes = { path: "/", httpOnly: true, secure, sameSite: "Strict" } as const;

  app.openapi(
    router.route("anyone", {
      method: "post",
      path: "/login/security-key/options",
      request: body(securityKeyAskSchema),
      responses: { 200: json(keyOptionsSchema, "For navigator.credentials.get.") },
    }),
    async (context) => {
      checkOrigin(context, false);
      const { securityKeys } = sources.identityLogIn;
      const binding = randomBytes(32).toString("base64url");
      const { challenge } = context.req.valid("json");
      const user = challenge === undefined ? null : sources.logIns.challengedUser(challenge);
      const options = await securityKeys.beginLogIn(binding, callerAddress(context), user);
      const maxAge = securityKeys.challengeLifeSeconds;
      setCookie(context, cookie, binding, { ...attributes, maxAge });
      return context.json(options as Record<string, unknown>, 200);
    },
  );

  app.openapi(
    router.route("anyone", {
      method: "post",
      path: "/login/security-key",
      request: body(securityKeyLogInSchema),
      responses: { 200: json(sessionSchema, "Logged in; a browser also gets a cookie.") },
    }),
    async (context) => {
      checkOrigin(context, false);
      const { securityKeys } = sources.identityLogIn;
      const binding = getCookie(context, cookie);
      deleteCookie(context, cookie, { path: "/", secure });
      const address = callerAddress(context);
      const { challenge, response } = context.req.valid("json");
      const known = challenge === undefined ? null : sources.logIns.challengedUser(challenge);
      const { user } = await securityKeys.finishLogIn(binding, address, known, response);
      context.set("auditUser", user);
      const session =
        challenge === undefined
          ? await sources.sessions.open(user, "webauthn", address)
          : await sources.logIns.complete(challenge, "webauthn", { address });
      setSessionCookie(context, secure, session);
      return context.json({ ...session.info, token: session.token }, 200);
    },
  );
}

function addOwnKeyRoutes(router: Router, sources: RouteSources): void {
  const { app } = router;

  app.openapi(
    router.route("account", {
      method: "get",
      path: "/session/security-keys",
      responses: { 200: json(z.array(securityKeySchema), "One's own, oldest first.") },
    }),
    (context) => {
      const { securityKeys } = sources.identityLogIn;
      return context.json(securityKeys.listOf(context.get("session").user), 200);
    },
  );

  app.openapi(
    router.route("account", {
      method: "post",
      path: "/session/security-keys/options",
      request: body(passwordProofSchema),
      responses: { 200: json(keyOptionsSchema, "For navigator.credentials.create.") },
    }),
    async (context) => {
      const { user, sessionId } = ownSession(context);
      const { securityKeys } = sources.identityLogIn;
      const address = callerAddress(context);
      // A session left open is not enough: a key outlasts it.
      const { password } = context.req.valid("json");
      await sources.logIns.requirePassword(user, password, originOf(context, sources.secure));
      const options = await securityKeys.beginRegistration(user, sessionId, address);
      return context.json(options as Record<string, unknown>, 200);
    },
  );

  app.openapi(
    router.route("account", {
      method: "post",
      path: "/session/security-keys",
      request: body(securityKeyCreateSchema),
      responses: { 201: json(securityKeySchema, "Registered.") },
    }),
    async (context) => {
      const { user, sessionId } = ownSession(context);
      const { name, response } = context.req.valid("json");
      const { securityKeys } = sources.identityLogIn;
      const key = await securityKeys.finishRegistration(user, sessionId, name, response);
      return context.json(key, 201);
    },
  );

  app.openapi(
    router.route("account", {
      method: "patch",
      path: "/session/security-keys/{id}",
      request: { params: z.object({ id: z.string().max(2000) }), ...body(securityKeyChangeSchema) },
      responses: { 200: json(securityKeySchema, "As it is now.") },
    }),
    async (context) => {
      const { user } = ownSession(context);
      const { id } = context.req.valid("param");
      const { name } = context.req.valid("json");
      return context.json(await sources.identityLogIn.securityKeys.rename(user, id, name), 200);
    },
  );

  app.openapi(
    router.route("account", {
      method: "post",
      path: "/session/security-keys/{id}/remove",
      request: { params: z.object({ id: z.string().max(2000) }), ...body(passwordProofSchema) },
      responses: noContent,
    }),
    async (context) => {
      const { user } = ownSession(context);
      const { password } = context.req.valid("json");
      await sources.logIns.requirePassword(user, password, originOf(context, sources.secure));
      await sources.identityLogIn.securityKeys.remove(user, context.req.valid("param").id);
      return context.body(null, 204);
    },
  );
}

function addUserRoutes(router: Router, sources: RouteSources): void {
  const { app } = router;

  app.openapi(
    router.route("users:read", {
      method: "get",
      path: "/users/{id}/security-keys",
      request: { params: idParameter },
      responses: { 200: json(z.array(securityKeySchema), "A user's, oldest first.") },
    }),
    (context) => {
      const { id } = sources.accounts.user(context.req.valid("param").id);
      return context.json(sources.identityLogIn.securityKeys.listOf(id), 200);
    },
  );

  app.openapi(
    router.route("users:write", {
      method: "delete",
      path: "/users/{id}/security-keys",
      request: { params: idParameter },
      responses: noContent,
    }),
    async (context) => {
      await sources.accounts.removeSecurityKeys(
        context.get("session"),
        context.req.valid("param").id,
      );
      return context.body(null, 204);
    },
  );

  app.openapi(
    router.route("users:write", {
      method: "delete",
      path: "/users/{id}/security-keys/{keyId}",
      request: { params: idParameter.extend({ keyId: z.string().max(2000) }) },
      responses: noContent,
    }),
    async (context) => {
      const { id, keyId } = context.req.valid("param");
      await sources.accounts.removeSecurityKey(context.get("session"), id, keyId);
      return context.body(null, 204);
    },
  );
}
