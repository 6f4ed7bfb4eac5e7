/** The identity provider: log-in by it, what links users to it, its settings. */
import { z } from "@hono/zod-openapi";
import { deleteCookie, getCookie, setCookie } from "hono/cookie";
import { KeelsonError } from "#lib/model/errors.ts";
import { digestOf } from "../access.ts";
import {
  consoleAddressChangeSchema,
  consoleAddressSchema,
  identityLinkSchema,
  identityProviderChangeSchema,
  identityProviderSchema,
  identityProviderTestSchema,
  identitySchema,
  logInMethodsSchema,
  logOutSchema,
} from "../identity-schema.ts";
import { logInFailures } from "../oidc-failures.ts";
import { callbackPath, type FailedLogIn, type LinkRequest, startPath } from "../oidc-log-in.ts";
import { localAdmin } from "../oidc-mapping.ts";
import {
  type ApiContext,
  body,
  callerAddress,
  cookieName,
  idParameter,
  json,
  noContent,
  type Router,
  type RouteSources,
  requirePerson,
} from "./route.ts";
import { setSessionCookie } from "./session.ts";

/** Where the console shows the user's own links. */
const accountPage = "/account";
const seeOther = { 303: { description: "Where the browser goes on." } };

export function addOidcRoutes(router: Router, sources: RouteSources): void {
  addLogInRoutes(router, sources);
  addIdentityRoutes(router, sources);
  addUserIdentityRoutes(router, sources);
  addLogOutRoute(router, sources);
  addSettingsRoutes(router, sources);
}

/** Lax: the provider's redirect back is a visit from another site, and must bring it. */
function attemptCookie(secure: boolean): string {
  return secure ? "__Host-keelson-login" : "keelson-login";
}

function rememberAttempt(
  context: ApiContext,
  secure: boolean,
  attemptId: string,
  lifeSeconds: number,
): void {
  setCookie(context, attemptCookie(secure), attemptId, {
    ...{ path: "/", httpOnly: true, secure, sameSite: "Lax", maxAge: lifeSeconds },
  });
}

function failedUrl({ why, reference, page }: FailedLogIn): string {
  return `/#${page}?login=${why}&reference=${reference}`;
}

function addLogInRoutes(router: Router, sources: RouteSources): void {
  const { app } = router;
  const { secure } = sources;
  const cookie = attemptCookie(secure);

  app.openapi(
    router.route("anyone", {
      method: "get",
      path: "/login/methods",
      responses: { 200: json(logInMethodsSchema, "What the log-in page offers.") },
    }),
    (context) => {
      const { providerSettings, console } = sources.identityLogIn;
      const name = providerSettings.find()?.name;
      const { url, securityKeyProblem } = console.view();
      return context.json(
        {
          identityProvider: name === undefined ? null : { name },
          securityKeyUrl: securityKeyProblem === null ? url : null,
          securityKeyProblem,
        },
        200,
      );
    },
  );

  app.openapi(
    router.route("anyone", {
      method: "get",
      path: startPath,
      request: {
        query: z.object({
          returnTo: z.string().max(1000).default("/"),
          hop: z.literal("1").optional(),
        }),
      },
      responses: seeOther,
    }),
    async (context) => {
      const { providerLogIns, console } = sources.identityLogIn;
      const { returnTo, hop } = context.req.valid("query");
      // The provider sends the browser to the console's address; the cookie must be there by then.
      const elsewhere = new URL(context.req.url).host !== new URL(console.url).host;
      if (elsewhere && hop === undefined) {
        const query = new URLSearchParams({ returnTo, hop: "1" });
        return context.redirect(`${providerLogIns.startUrl}?${query}`, 303);
      }
      const started = await providerLogIns.start(callerAddress(context), returnTo);
      if ("kind" in started) return context.redirect(failedUrl(started), 303);
      rememberAttempt(context, secure, started.attemptId, started.lifeSeconds);
      return context.redirect(started.url, 303);
    },
  );

  app.openapi(
    router.route("anyone", { method: "get", path: callbackPath, responses: seeOther }),
    async (context) => {
      const attemptId = getCookie(context, cookie);
      deleteCookie(context, cookie, { path: "/", secure });
      const { search } = new URL(context.req.url);
      const { providerLogIns } = sources.identityLogIn;
      const finished = await providerLogIns.finish(search, attemptId, callerAddress(context));
      if (finished.kind === "failed") {
        context.set("auditOutcome", "refused");
        context.set("auditDetail", `${finished.why} ${finished.reference}`);
        return context.redirect(failedUrl(finished), 303);
      }
      if (finished.kind === "session") {
        context.set("auditOutcome", "done");
        context.set("auditUser", finished.session.info.user);
        setSessionCookie(context, secure, finished.session);
      }
      return context.redirect(`/#${finished.returnTo}`, 303);
    },
  );
}

function addIdentityRoutes(router: Router, sources: RouteSources): void {
  const { app } = router;
  const { secure } = sources;

  app.openapi(
    router.route("account", {
      method: "get",
      path: "/session/identities",
      responses: { 200: json(z.array(identitySchema), "By whom the provider knows this user.") },
    }),
    (context) => {
      const { user } = context.get("session");
      return context.json(sources.identityLogIn.providerLogIns.identitiesOf(user), 200);
    },
  );

  app.openapi(
    router.route("account", {
      method: "post",
      path: "/session/identities",
      responses: { 200: json(identityLinkSchema, "Go there to be linked.") },
    }),
    async (context) => {
      const link = ownSession(context);
      if (link.user === localAdmin) {
        throw new KeelsonError("PERMISSION_DENIED", "admin is always local and can't be linked.", {
          remedy: "Make a user of your own, and link that one.",
        });
      }
      const { providerLogIns } = sources.identityLogIn;
      const started = await providerLogIns.start(callerAddress(context), accountPage, link);
      if ("kind" in started) throw failure(started);
      rememberAttempt(context, secure, started.attemptId, started.lifeSeconds);
      return context.json({ url: started.url }, 200);
    },
  );

  app.openapi(
    router.route("account", {
      method: "delete",
      path: "/session/identities/{id}",
      request: { params: idParameter },
      responses: noContent,
    }),
    async (context) => {
      const { user } = ownSession(context);
      await sources.identityLogIn.providerLogIns.unlink(user, context.req.valid("param").id);
      return context.body(null, 204);
    },
  );
}

function addLogOutRoute(router: Router, sources: RouteSources): void {
  const { secure } = sources;
  router.app.openapi(
    router.route("account", {
      method: "post",
      path: "/session/log-out",
      operationId: "logOut",
      summary: "Log out, and where to log out at the identity provider",
      responses: { 200: json(logOutSchema, "Logged out here.") },
    }),
    async (context) => {
      requirePerson(context);
      const token = context.get("token");
      const url = await sources.identityLogIn.providerLogIns.logOutUrl(token);
      await sources.sessions.logOut(token);
      deleteCookie(context, cookieName(secure), { path: "/", secure });
      return context.json({ url }, 200);
    },
  );
}

function addUserIdentityRoutes(router: Router, sources: RouteSources): void {
  const { app } = router;

  app.openapi(
    router.route("users:read", {
      method: "get",
      path: "/users/{id}/identities",
      request: { params: idParameter },
      responses: { 200: json(z.array(identitySchema), "By whom the provider knows a user.") },
    }),
    (context) => {
      const { id } = sources.accounts.user(context.req.valid("param").id);
      return context.json(sources.identityLogIn.providerLogIns.identitiesOf(id), 200);
    },
  );

  app.openapi(
    router.route("users:write", {
      method: "delete",
      path: "/users/{id}/identities/{identityId}",
      request: { params: idParameter.extend({ identityId: z.string().max(200) }) },
      responses: noContent,
    }),
    async (context) => {
      const { id, identityId } = context.req.valid("param");
      await sources.accounts.unlinkIdentity(context.get("session"), id, identityId);
      return context.body(null, 204);
    },
  );
}

/** The session that asks: what outlasts it is not changed by a program with a token. */
export function ownSession(context: ApiContext): LinkRequest {
  requirePerson(context);
  const { user } = context.get("session");
  return { user, sessionId: digestOf(context.get("token")) };
}

function failure({ why, reference }: FailedLogIn): KeelsonError {
  const { title, detail } = logInFailures[why];
  const code = why === "provider-off" ? "NOT_FOUND" : "UNAVAILABLE";
  return new KeelsonError(code, title, { object: reference, remedy: detail });
}

function addSettingsRoutes(router: Router, sources: RouteSources): void {
  const { app } = router;

  app.openapi(
    router.route("settings:read", {
      method: "get",
      path: "/identity-provider",
      responses: { 200: json(identityProviderSchema, "The settings, without the secret.") },
    }),
    (context) => context.json(sources.identityLogIn.providerSettings.view(), 200),
  );

  app.openapi(
    router.route("settings:write", {
      method: "put",
      path: "/identity-provider",
      request: body(identityProviderChangeSchema),
      responses: { 200: json(identityProviderSchema, "As they are now.") },
    }),
    async (context) => {
      const { permissions } = context.get("session");
      const { providerSettings } = sources.identityLogIn;
      return context.json(await providerSettings.set(context.req.valid("json"), permissions), 200);
    },
  );

  app.openapi(
    router.route("settings:write", {
      method: "delete",
      path: "/identity-provider",
      responses: noContent,
    }),
    async (context) => {
      await sources.identityLogIn.providerSettings.remove();
      return context.body(null, 204);
    },
  );

  app.openapi(
    router.route("settings:write", {
      method: "post",
      path: "/identity-provider/test",
      responses: { 200: json(identityProviderTestSchema, "What works, and what doesn't.") },
    }),
    async (context) => context.json(await sources.identityLogIn.providerSettings.test(), 200),
  );

  app.openapi(
    router.route("settings:read", {
      method: "get",
      path: "/console-address",
      responses: { 200: json(consoleAddressSchema, "By which address the console is opened.") },
    }),
    (context) => context.json(sources.identityLogIn.console.view(), 200),
  );

  app.openapi(
    router.route("settings:write", {
      method: "put",
      path: "/console-address",
      request: body(consoleAddressChangeSchema),
      responses: { 200: json(consoleAddressSchema, "As it is now.") },
    }),
    async (context) => {
      const { url, removeKeys } = context.req.valid("json");
      const { permissions } = context.get("session");
      const { console } = sources.identityLogIn;
      return context.json(await console.set(url, removeKeys, permissions), 200);
    },
  );
}
