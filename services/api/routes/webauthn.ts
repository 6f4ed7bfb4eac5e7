/** Security keys: log-in by them, and one's own. */
import { randomBytes } from "node:crypto";
import { z } from "@hono/zod-openapi";
import { deleteCookie, getCookie, setCookie } from "hono/cookie";
import { sessionSchema } from "../accounts-schema.ts";
import {
  keyOptionsSchema,
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
  json,
  noContent,
  type Router,
  type RouteSources,
} from "./route.ts";
import { setSessionCookie } from "./session.ts";

export function addSecurityKeyRoutes(router: Router, sources: RouteSources): void {
  addLogInRoutes(router, sources);
  addOwnKeyRoutes(router, sources);
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
      responses: { 200: json(keyOptionsSchema, "For navigator.credentials.get.") },
    }),
    async (context) => {
      checkOrigin(context, false);
      const { securityKeys } = sources.identityLogIn;
      const binding = randomBytes(32).toString("base64url");
      const options = await securityKeys.beginLogIn(binding, callerAddress(context), null);
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
      const { response } = context.req.valid("json");
      const { user } = await securityKeys.finishLogIn(binding, address, null, response);
      const session = await sources.sessions.open(user, "webauthn", address);
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
      responses: { 200: json(keyOptionsSchema, "For navigator.credentials.create.") },
    }),
    async (context) => {
      const { user, sessionId } = ownSession(context);
      const { securityKeys } = sources.identityLogIn;
      const address = callerAddress(context);
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
      method: "delete",
      path: "/session/security-keys/{id}",
      request: { params: z.object({ id: z.string().max(2000) }) },
      responses: noContent,
    }),
    async (context) => {
      const { user } = ownSession(context);
      await sources.identityLogIn.securityKeys.remove(user, context.req.valid("param").id);
      return context.body(null, 204);
    },
  );
}
