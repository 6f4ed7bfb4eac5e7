import { z } from "@hono/zod-openapi";
import { KeelsonError } from "#lib/model/errors.ts";
import {
  clientSchema,
  conditionMuteSchema,
  conditionSchema,
  macSchema,
  netbootChangeSchema,
  netbootSchema,
  nodeSchema,
  storeSchema,
} from "../schema.ts";
import { body, idParameter, json, noContent, type Router, type RouteSources } from "./route.ts";

/** What is observed of the node, and the little that can be done about it. */
export function addNodeRoutes(router: Router, from: RouteSources): void {
  const { app } = router;
  const { views, changes, conditions, clients, hub } = from;

  app.openapi(
    router.route("node:read", {
      method: "get",
      path: "/node",
      responses: { 200: json(nodeSchema, "This node.") },
    }),
    (context) => context.json(views.node(), 200),
  );
  app.openapi(
    router.route("storage:read", {
      method: "get",
      path: "/store",
      responses: { 200: json(storeSchema, "The chunk store.") },
    }),
    (context) => context.json(views.store(), 200),
  );

  app.openapi(
    router.route("netboot:read", {
      method: "get",
      path: "/netboot",
      responses: { 200: json(netbootSchema, "Network boot, by interface.") },
    }),
    (context) => context.json(views.netboot(), 200),
  );
  app.openapi(
    router.route("netboot:write", {
      method: "put",
      path: "/netboot",
      request: body(netbootChangeSchema),
      responses: { 200: json(netbootSchema, "As it is now.") },
    }),
    async (context) => {
      await changes.changeNetboot(context.req.valid("json"));
      return context.json(views.netboot(), 200);
    },
  );

  app.openapi(
    router.route("netboot:read", {
      method: "get",
      path: "/clients",
      responses: { 200: json(z.array(clientSchema), "Clients seen since api started.") },
    }),
    (context) => context.json(views.clients(), 200),
  );
  app.openapi(
    router.route("netboot:write", {
      method: "delete",
      path: "/clients/{mac}",
      request: { params: z.object({ mac: macSchema }) },
      responses: noContent,
    }),
    (context) => {
      const { mac } = context.req.valid("param");
      if (clients.forget(mac)) return context.body(null, 204);
      throw new KeelsonError("NOT_FOUND", `No client ${mac} was seen.`, { object: mac });
    },
  );

  app.openapi(
    router.route("node:read", {
      method: "get",
      path: "/conditions",
      responses: { 200: json(z.array(conditionSchema), "Faults that are there, or aren't.") },
    }),
    (context) => context.json(conditions.list(), 200),
  );
  app.openapi(
    router.route("node:write", {
      method: "put",
      path: "/conditions/{id}/mute",
      request: { params: idParameter, ...body(conditionMuteSchema) },
      responses: { 200: json(conditionSchema, "As it is now.") },
    }),
    (context) => {
      const { id } = context.req.valid("param");
      const muted = conditions.mute(id, context.req.valid("json").seconds * 1000);
      const found = conditions.list().find((condition) => condition.id === id);
      if (!muted || found === undefined) {
        throw new KeelsonError("NOT_FOUND", `There is no condition ${id}.`, { object: id });
      }
      hub.touch("conditions");
      return context.json(found, 200);
    },
  );
}
