import { deleteCookie, setCookie } from "hono/cookie";
import {
  logInSchema,
  passwordChangeSchema,
  sessionInfoSchema,
  sessionSchema,
} from "../accounts-schema.ts";
import { pingSchema } from "../schema.ts";
import {
  body,
  callerAddress,
  checkOrigin,
  cookieName,
  json,
  noContent,
  type Router,
  type RouteSources,
} from "./route.ts";

export function addSessionRoutes(router: Router, { sessions, logIns, secure }: RouteSources): void {
  const { app } = router;
  const name = cookieName(secure);

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
      responses: { 200: json(sessionSchema, "Logged in; a browser also gets a cookie.") },
    }),
    async (context) => {
      checkOrigin(context, false);
      const { token, info } = await logIns.logIn(context.req.valid("json"), callerAddress(context));
      setCookie(context, name, token, {
        path: "/",
        httpOnly: true,
        secure,
        sameSite: "Strict",
        expires: new Date(info.expiresAt),
      });
      return context.json({ ...info, token }, 200);
    },
  );

  app.openapi(
    router.route("account", {
      method: "get",
      path: "/session",
      responses: { 200: json(sessionInfoSchema, "Who is logged in.") },
    }),
    (context) => context.json(context.get("session"), 200),
  );

  app.openapi(
    router.route("account", { method: "delete", path: "/session", responses: noContent }),
    async (context) => {
      await sessions.logOut(context.get("token"));
      deleteCookie(context, name, { path: "/", secure });
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
      const { current, next } = context.req.valid("json");
      const { user } = context.get("session");
      const address = callerAddress(context);
      await logIns.changePassword(context.get("token"), user, current, next, address);
      return context.body(null, 204);
    },
  );
}
