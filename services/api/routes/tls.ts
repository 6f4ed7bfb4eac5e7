import { KeelsonError } from "#lib/model/errors.ts";
import type { TlsCertificates } from "../tls.ts";
import { tlsSchema, tlsUploadSchema } from "../tls-schema.ts";
import { body, json, type Router, type RouteSources } from "./route.ts";

export function addTlsRoutes(router: Router, { tls }: RouteSources): void {
  const { app } = router;
  const now = { 200: json(tlsSchema, "What is served now.") };
  const needed = (): TlsCertificates => {
    if (tls !== null) return tls;
    throw new KeelsonError("UNSUPPORTED", "This API is served without TLS.", {
      remedy: "Start it with --https HOST:PORT.",
    });
  };
  app.openapi(
    router.route("settings:read", {
      method: "get",
      path: "/settings/tls",
      operationId: "getTls",
      summary: "Show the certificate",
      responses: now,
    }),
    (context) => context.json(needed().view(), 200),
  );
  app.openapi(
    router.route("settings:write", {
      method: "put",
      path: "/settings/tls",
      operationId: "setTls",
      summary: "Serve an own certificate",
      request: body(tlsUploadSchema),
      responses: now,
    }),
    (context) => context.json(needed().upload(context.req.valid("json")), 200),
  );
  app.openapi(
    router.route("settings:write", {
      method: "delete",
      path: "/settings/tls",
      operationId: "resetTls",
      summary: "Go back to the node's own CA",
      responses: now,
    }),
    (context) => context.json(needed().reset(), 200),
  );
}
