import {
  auditTargetChangeSchema,
  auditTargetSchema,
  auditTargetTestSchema,
} from "../audit-target-schema.ts";
import { body, json, noContent, type Router, type RouteSources } from "./route.ts";

export function addAuditTargetRoutes(router: Router, { headDelivery }: RouteSources): void {
  const { app } = router;
  const path = "/settings/audit-target" as const;
  const now = { 200: json(auditTargetSchema, "Where heads are sent, and how that goes.") };
  app.openapi(
    router.route("settings:read", {
      method: "get",
      path,
      operationId: "getAuditTarget",
      summary: "Show where audit heads are sent",
      responses: now,
    }),
    (context) => context.json(headDelivery.view(), 200),
  );
  app.openapi(
    router.route("settings:write", {
      method: "put",
      path,
      operationId: "setAuditTarget",
      summary: "Send audit heads somewhere",
      request: body(auditTargetChangeSchema),
      responses: now,
    }),
    async (context) => {
      const change = context.req.valid("json");
      const view = await headDelivery.set(change);
      context.set("auditDetail", `heads go to ${change.url}`);
      return context.json(view, 200);
    },
  );
  app.openapi(
    router.route("settings:write", {
      method: "delete",
      path,
      operationId: "deleteAuditTarget",
      summary: "Stop sending audit heads",
      responses: noContent,
    }),
    async (context) => {
      await headDelivery.remove();
      return context.body(null, 204);
    },
  );
  app.openapi(
    router.route("settings:write", {
      method: "post",
      path: "/settings/audit-target/test",
      operationId: "testAuditTarget",
      summary: "Send the newest head now",
      responses: { 200: json(auditTargetTestSchema, "Whether it was taken.") },
    }),
    async (context) => context.json(await headDelivery.test(), 200),
  );
}
