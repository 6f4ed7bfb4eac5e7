/** Log-in and log-out, and what people do with their own account. */
import { z } from "@hono/zod-openapi";
import { deleteCookie, getCookie, setCookie } from "hono/cookie";
import type { OpenedSession } from "../access.ts";
import {
  accountSessionSchema,
  logInChallengeSchema,
  logInSchema,
  passwordChangeSchema,
  passwordProofSchema,
  permissionSchema,
  recoveryCodesSchema,
  secondFactorSchema,
  sessionInfoSchema,
  sessionSchema,
  tokenCreatedSchema,
  tokenCreateSchema,
  tokenSchema,
  totpCodeSchema,
  totpEnrolmentSchema,
  totpSchema,
} from "../accounts-schema.ts";
import { isChallenge, type Origin } from "../log-in.ts";
import { deviceLifetimeSeconds } from "../log-in-device.ts";
import { permissions } from "../permissions.ts";
import { pingSchema } from "../schema.ts";
import {
  type ApiContext,
  body,
  callerAddress,
  checkOrigin,
  cookieName,
  idParameter,
  json,
  noContent,
  type Router,
  type RouteSources,
  requirePerson,
} from "./route.ts";

export function addSessionRoutes(router: Router, from: RouteSources): void {
  addLogInRoutes(router, from);
  addOwnSessionRoutes(router, from);
  addOwnTokenRoutes(router, from);
  addTotpRoutes(router, from);
}

const deviceCookie = (secure: boolean) => `${cookieName(secure)}-device`;

export function originOf(context: ApiContext, secure: boolean): Origin {
  return {
    address: callerAddress(context),
    deviceCookie: getCookie(context, deviceCookie(secure)),
  };
}

/** Gives a browser its session; for every way to log in. */
export function setSessionCookie(
  context: ApiContext,
  secure: boolean,
  { token, info }: OpenedSession,
): void {
  setCookie(context, cookieName(secure), token, {
    path: "/",
    httpOnly: true,
    secure,
    sameSite: "Strict",
    expires: new Date(info.expiresAt),
  });
}

function addLogInRoutes(router: Router, { logIns, policy, secure }: RouteSources): void {
  const { app } = router;
  const welcome = (context: ApiContext, session: OpenedSession) => {
    setSessionCookie(context, secure, session);
    setCookie(context, deviceCookie(secure), logIns.issueDevice(session.info.user), {
      path: "/",
      httpOnly: true,
      secure,
      sameSite: "Strict",
      maxAge: deviceLifetimeSeconds,
    });
    return { ...session.info, token: session.token };
  };

  app.openapi(
    router.route("anyone", {
      method: "get",
      path: "/ping",
      responses: { 200: json(pingSchema, "The service answers.") },
    }),
    (context) => context.json({ status: "ok" as const }, 200),
  );

  app.openapi(
    router.route("anyone", {
      method: "post",
      path: "/session",
      request: body(logInSchema),
      responses: {
        200: json(sessionSchema, "Logged in; a browser also gets a cookie."),
        202: json(logInChallengeSchema, "The password is right; now POST /session/second-factor."),
      },
    }),
    async (context) => {
      checkOrigin(context, false);
      const given = context.req.valid("json");
      const user = given.user.toLowerCase();
      // A name that no account has may be a password typed in the wrong field.
      if (policy.find("user", user) !== undefined) context.set("auditUser", user);
      else context.set("auditDetail", "no such user");
      const answer = await logIns.logIn(given, originOf(context, secure));
      if (isChallenge(answer)) return context.json(answer, 202);
      return context.json(welcome(context, answer), 200);
    },
  );

  app.openapi(
    router.route("anyone", {
      method: "post",
      path: "/session/second-factor",
      request: body(secondFactorSchema),
      responses: { 200: json(sessionSchema, "Logged in; a browser also gets a cookie.") },
    }),
    async (context) => {
      checkOrigin(context, false);
      const given = context.req.valid("json");
      const user = logIns.challenged(given.challenge);
      if (user !== undefined) context.set("auditUser", user);
      const session = await logIns.secondFactor(given, originOf(context, secure));
      return context.json(welcome(context, session), 200);
    },
  );
}

function addOwnSessionRoutes(router: Router, { sessions, logIns, secure }: RouteSources): void {
  const { app } = router;
  app.openapi(
    router.route("account", {
      method: "get",
      path: "/session",
      responses: { 200: json(sessionInfoSchema, "Who is logged in, and what they may do.") },
    }),
    (context) => context.json(context.get("session"), 200),
  );

  app.openapi(
    router.route("account", { method: "delete", path: "/session", responses: noContent }),
    async (context) => {
      requirePerson(context);
      await sessions.logOut(context.get("token"));
      deleteCookie(context, cookieName(secure), { path: "/", secure });
      return context.body(null, 204);
    },
  );

  app.openapi(
    router.route("account", {
      method: "put",
      path: "/session/password",
      request: body(passwordChangeSchema),
      responses: noContent,
    }),
    async (context) => {
      requirePerson(context);
      const change = context.req.valid("json");
      const { user } = context.get("session");
      await logIns.changePassword(context.get("token"), user, change, originOf(context, secure));
      return context.body(null, 204);
    },
  );

  app.openapi(
    router.route("account", {
      method: "get",
      path: "/sessions",
      responses: { 200: json(z.array(accountSessionSchema), "One's own, newest first.") },
    }),
    (context) =>
      context.json(sessions.list(context.get("session").user, context.get("token")), 200),
  );

  app.openapi(
    router.route("account", { method: "delete", path: "/sessions", responses: noContent }),
    async (context) => {
      requirePerson(context);
      await sessions.endOthers(context.get("session").user, context.get("token"));
      return context.body(null, 204);
    },
  );

  app.openapi(
    router.route("account", {
      method: "delete",
      path: "/sessions/{id}",
      request: { params: idParameter },
      responses: noContent,
    }),
    async (context) => {
      requirePerson(context);
      await sessions.end(context.get("session").user, context.req.valid("param").id);
      return context.body(null, 204);
    },
  );
}

function addOwnTokenRoutes(router: Router, { tokens }: RouteSources): void {
  const { app } = router;
  app.openapi(
    router.route("account", {
      method: "get",
      path: "/permissions",
      responses: { 200: json(z.array(permissionSchema), "All there are.") },
    }),
    (context) => context.json([...permissions], 200),
  );
  app.openapi(
    router.route("account", {
      method: "get",
      path: "/tokens",
      responses: { 200: json(z.array(tokenSchema), "One's own API tokens, newest first.") },
    }),
    (context) => context.json(tokens.list(context.get("session").user), 200),
  );
  app.openapi(
    router.route("account", {
      method: "post",
      path: "/tokens",
      request: body(tokenCreateSchema),
      responses: { 201: json(tokenCreatedSchema, "The only answer that shows the token.") },
    }),
    async (context) => {
      requirePerson(context);
      const created = await tokens.create(context.get("session"), context.req.valid("json"));
      return context.json(created, 201);
    },
  );
  app.openapi(
    router.route("account", {
      method: "delete",
      path: "/tokens/{id}",
      request: { params: idParameter },
      responses: noContent,
    }),
    async (context) => {
      const { id } = context.req.valid("param");
      // A program may give up its own token, and only that.
      if (context.get("tokenId") !== id) requirePerson(context);
      await tokens.revoke(context.get("session").user, id);
      return context.body(null, 204);
    },
  );
}

function addTotpRoutes(router: Router, { totp, logIns, secure }: RouteSources): void {
  const { app } = router;
  /** A session left open is not enough: what is done here outlasts it. */
  const prove = async (context: ApiContext, { password }: { password: string }) => {
    requirePerson(context);
    const { user } = context.get("session");
    await logIns.requirePassword(user, password, originOf(context, secure));
    return user;
  };

  app.openapi(
    router.route("account", {
      method: "get",
      path: "/session/totp",
      responses: { 200: json(totpSchema, "Whether log-in asks for a code.") },
    }),
    (context) => context.json(totp.state(context.get("session").user), 200),
  );
  app.openapi(
    router.route("account", {
      method: "post",
      path: "/session/totp",
      request: body(passwordProofSchema),
      responses: { 200: json(totpEnrolmentSchema, "Asks for nothing until it is confirmed.") },
    }),
    async (context) => {
      const user = await prove(context, context.req.valid("json"));
      return context.json(await totp.enrol(user), 200);
    },
  );
  app.openapi(
    router.route("account", {
      method: "post",
      path: "/session/totp/confirm",
      request: body(totpCodeSchema),
      responses: { 200: json(recoveryCodesSchema, "On from now; the codes are shown this once.") },
    }),
    async (context) => {
      requirePerson(context);
      const { user } = context.get("session");
      const { code } = context.req.valid("json");
      return context.json(await totp.confirm(user, code), 200);
    },
  );
  app.openapi(
    router.route("account", {
      method: "post",
      path: "/session/totp/recovery-codes",
      request: body(passwordProofSchema),
      responses: { 200: json(recoveryCodesSchema, "The old ones are no longer good.") },
    }),
    async (context) => {
      const user = await prove(context, context.req.valid("json"));
      return context.json(await totp.renewRecoveryCodes(user), 200);
    },
  );
  app.openapi(
    router.route("account", {
      method: "post",
      path: "/session/totp/disable",
      request: body(passwordProofSchema),
      responses: noContent,
    }),
    async (context) => {
      await totp.disable(await prove(context, context.req.valid("json")));
      return context.body(null, 204);
    },
  );
}
