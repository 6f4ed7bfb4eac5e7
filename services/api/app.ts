/** The public application: /api/v1 and the console's files. */
import { OpenAPIHono } from "@hono/zod-openapi";
import { bodyLimit } from "hono/body-limit";
import { secureHeaders } from "hono/secure-headers";
import { KeelsonError } from "#lib/model/errors.ts";
import { problemHandler } from "#lib/rpc/problem.ts";
import { consoleFiles } from "./console-files.ts";
import { addAccountRoutes } from "./routes/accounts.ts";
import { addAuditRoutes } from "./routes/audit.ts";
import { addAuditTargetRoutes } from "./routes/audit-target.ts";
import { addBootEntryRoutes } from "./routes/boot-entries.ts";
import { addDiskDataRoutes } from "./routes/disk-data.ts";
import { addEventRoutes } from "./routes/events.ts";
import { addNetworkRoutes } from "./routes/network.ts";
import { addNodeRoutes } from "./routes/node.ts";
import { addOidcRoutes } from "./routes/oidc.ts";
import { allowedMethods, openApiDescription, registerComponents } from "./routes/operation.ts";
import { Router, type RouteSources } from "./routes/route.ts";
import { addScrubRoutes } from "./routes/scrub.ts";
import { addSessionRoutes } from "./routes/session.ts";
import { addSnapshotRoutes } from "./routes/snapshots.ts";
import { addStorageRoutes } from "./routes/storage.ts";
import { addSupportRoutes } from "./routes/support.ts";
import { addTaskRoutes } from "./routes/tasks.ts";
import { addTlsRoutes } from "./routes/tls.ts";
import { addUpgradeRoutes } from "./routes/upgrade.ts";
import { addSecurityKeyRoutes } from "./routes/webauthn.ts";

export interface AppOptions extends RouteSources {
  /** Directory of the built console; it may be missing. */
  readonly ui: string | null;
  readonly version: string;
}

/** Of a JSON body; an image's data has its own bound, the spool's room. */
const maxBodyBytes = 1 << 20;

export function createRouter(options: Omit<AppOptions, "ui">): Router {
  const router = new Router(options);
  const { app } = router;
  const limit = bodyLimit({
    maxSize: maxBodyBytes,
    onError: () => {
      throw new KeelsonError("PAYLOAD_TOO_LARGE", "The body is larger than 1 MiB.");
    },
  });
  app.use("*", (context, next) =>
    /^(\/api\/v1)?(\/images\/[^/]+\/data|\/upgrade\/bundles)$/.test(context.req.path)
      ? next()
      : limit(context, next),
  );
  addSessionRoutes(router, options);
  addAccountRoutes(router, options);
  addOidcRoutes(router, options);
  addSecurityKeyRoutes(router, options);
  addAuditRoutes(router, options);
  addAuditTargetRoutes(router, options);
  addNodeRoutes(router, options);
  addNetworkRoutes(router, options);
  addStorageRoutes(router, options);
  addDiskDataRoutes(router, options);
  addScrubRoutes(router, options);
  addSnapshotRoutes(router, options);
  addSupportRoutes(router, options);
  addBootEntryRoutes(router, options);
  addTaskRoutes(router, options);
  addTlsRoutes(router, options);
  addUpgradeRoutes(router, options);
  addEventRoutes(router, options);
  registerComponents(app.openAPIRegistry);
  const description = openApiDescription(options.version);
  let described: string | undefined;
  app.openapi(
    router.route("anyone", {
      method: "get",
      path: "/openapi.json",
      responses: { 200: { description: "This document." } },
    }),
    (context) => {
      // Made once: it is large, and the same for everybody.
      described ??= JSON.stringify(app.getOpenAPI31Document(description));
      return context.body(described, 200, { "content-type": "application/json" }) as never;
    },
  );
  return router;
}

export function createApp(options: AppOptions) {
  const app = new OpenAPIHono();
  app.use(
    "*",
    secureHeaders({
      contentSecurityPolicy: {
        defaultSrc: ["'none'"],
        scriptSrc: ["'self'"],
        styleSrc: ["'self'"],
        imgSrc: ["'self'", "data:"],
        fontSrc: ["'self'"],
        connectSrc: ["'self'"],
        manifestSrc: ["'self'"],
        formAction: ["'self'"],
        baseUri: ["'none'"],
        frameAncestors: ["'none'"],
      },
      xFrameOptions: "DENY",
      referrerPolicy: "no-referrer",
      crossOriginOpenerPolicy: "same-origin",
      crossOriginResourcePolicy: "same-origin",
      // With the node's own certificate a browser that was told this could never be let through.
      strictTransportSecurity: false,
    }),
  );
  app.use("/api/*", async (context, next) => {
    await next();
    context.header("cache-control", "no-store");
  });
  const { app: api } = createRouter(options);
  app.route("/api/v1", api);
  app.all("/api/*", (context) => {
    const { path, method } = context.req;
    const allowed = allowedMethods(api.routes, path.replace(/^\/api\/v1/, ""));
    if (allowed.length > 0) {
      const allow = allowed.join(", ");
      context.header("allow", allow);
      throw new KeelsonError("METHOD_NOT_ALLOWED", `${path} takes ${allow}, not ${method}.`, {
        object: path,
        remedy: "See /api/v1/openapi.json.",
      });
    }
    throw new KeelsonError("NOT_FOUND", `There is no ${path}.`, {
      remedy: "See /api/v1/openapi.json.",
    });
  });
  app.get("*", consoleFiles(options.ui));
  app.onError(problemHandler(options.unexpected));
  return app;
}
