import { z } from "@hono/zod-openapi";
import { bootEntryChangeSchema, bootEntryCreateSchema, bootEntrySchema } from "../schema.ts";
import { body, idParameter, json, noContent, type Router, type RouteSources } from "./route.ts";

export function addBootEntryRoutes(
  router: Router,
  { policy, changes, views, hub }: RouteSources,
): void {
  const { app } = router;
  const one = { 200: json(bootEntrySchema, "The boot entry.") };
  app.openapi(
    router.route("netboot:read", {
      method: "get",
      path: "/boot-entries",
      responses: { 200: json(z.array(bootEntrySchema), "All boot entries.") },
    }),
    (context) =>
      context.json(
        policy.list("boot").map((record) => views.bootEntry(record)),
        200,
      ),
  );
  app.openapi(
    router.route("netboot:write", {
      method: "post",
      path: "/boot-entries",
      request: body(bootEntryCreateSchema),
      responses: { 201: json(bootEntrySchema, "Its clone is made at the first boot.") },
    }),
    async (context) => {
      const record = await changes.createBootEntry(context.req.valid("json"));
      hub.touch("clients");
      return context.json(views.bootEntry(record), 201);
    },
  );
  app.openapi(
    router.route("netboot:read", {
      method: "get",
      path: "/boot-entries/{id}",
      request: { params: idParameter },
      responses: one,
    }),
    (context) =>
      context.json(views.bootEntry(policy.get("boot", context.req.valid("param").id)), 200),
  );
  app.openapi(
    router.route("netboot:write", {
      method: "patch",
      path: "/boot-entries/{id}",
      request: { params: idParameter, ...body(bootEntryChangeSchema) },
      responses: one,
    }),
    async (context) => {
      const { id } = context.req.valid("param");
      const record = await changes.changeBootEntry(id, context.req.valid("json"));
      return context.json(views.bootEntry(record), 200);
    },
  );
  app.openapi(
    router.route("netboot:write", {
      method: "post",
      path: "/boot-entries/{id}/reset",
      request: { params: idParameter },
      responses: { 200: json(bootEntrySchema, "The next boot starts from a new clone.") },
    }),
    async (context) => {
      const record = await changes.resetBootEntry(context.req.valid("param").id);
      return context.json(views.bootEntry(record), 200);
    },
  );
  app.openapi(
    router.route("netboot:write", {
      method: "delete",
      path: "/boot-entries/{id}",
      request: { params: idParameter },
      responses: noContent,
    }),
    async (context) => {
      await changes.deleteBootEntry(context.req.valid("param").id);
      return context.body(null, 204);
    },
  );
}
