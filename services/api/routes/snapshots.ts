import { z } from "@hono/zod-openapi";
import { exportCreatedSchema } from "../schema.ts";
import {
  differencesQuerySchema,
  differencesSchema,
  scheduleChangeSchema,
  scheduleCreateSchema,
  scheduleSchema,
  snapshotAttachSchema,
  snapshotChangeSchema,
  snapshotCreateSchema,
  snapshotSchema,
  volumeRevertedSchema,
  volumeRevertSchema,
} from "../snapshot-schema.ts";
import { body, idParameter, json, noContent, type Router, type RouteSources } from "./route.ts";

export function addSnapshotRoutes(router: Router, from: RouteSources): void {
  addRecordRoutes(router, from);
  addUseRoutes(router, from);
  addScheduleRoutes(router, from);
}

function addRecordRoutes(router: Router, { policy, snapshots, snapshotViews }: RouteSources): void {
  const { app } = router;
  const one = { 200: json(snapshotSchema, "The snapshot.") };
  app.openapi(
    router.route("storage:read", {
      method: "get",
      path: "/snapshots",
      responses: { 200: json(z.array(snapshotSchema), "All snapshots.") },
    }),
    (context) => context.json(snapshotViews.list(), 200),
  );
  app.openapi(
    router.route("storage:write", {
      method: "post",
      path: "/snapshots",
      request: body(snapshotCreateSchema),
      responses: { 201: json(z.array(snapshotSchema), "One of each volume, all of one instant.") },
    }),
    async (context) => {
      const made = await snapshots.create(context.req.valid("json"));
      // The answer is a list, which has no id for the audit log.
      context.set("auditDetail", made.map(({ id }) => id).join(" "));
      return context.json(snapshotViews.those(made), 201);
    },
  );
  app.openapi(
    router.route("storage:read", {
      method: "get",
      path: "/snapshots/{id}",
      request: { params: idParameter },
      responses: one,
    }),
    (context) =>
      context.json(snapshotViews.one(policy.get("snapshot", context.req.valid("param").id)), 200),
  );
  app.openapi(
    router.route("storage:write", {
      method: "patch",
      path: "/snapshots/{id}",
      request: { params: idParameter, ...body(snapshotChangeSchema) },
      responses: one,
    }),
    async (context) => {
      const { id } = context.req.valid("param");
      const record = await snapshots.change(id, context.req.valid("json"));
      return context.json(snapshotViews.one(record), 200);
    },
  );
  app.openapi(
    router.route("storage:write", {
      method: "delete",
      path: "/snapshots/{id}",
      request: { params: idParameter },
      responses: noContent,
    }),
    async (context) => {
      await snapshots.delete(context.req.valid("param").id);
      return context.body(null, 204);
    },
  );
}

/** What is done with one: files are got from it, its volume goes back to it, it is compared. */
function addUseRoutes(
  router: Router,
  { policy, snapshots, snapshotViews, views }: RouteSources,
): void {
  const { app } = router;
  app.openapi(
    router.route("storage:write", {
      method: "post",
      path: "/snapshots/{id}/attach",
      request: { params: idParameter, ...body(snapshotAttachSchema) },
      responses: {
        201: json(
          exportCreatedSchema,
          "A clone of it, exported to the initiator. The only answer that shows the CHAP secret.",
        ),
      },
    }),
    async (context) => {
      const { id } = context.req.valid("param");
      const record = await snapshots.attach(id, context.req.valid("json"));
      return context.json({ ...views.export(record), chapSecret: record.chapSecret }, 201);
    },
  );
  app.openapi(
    router.route("storage:write", {
      method: "post",
      path: "/volumes/{id}/revert",
      request: { params: idParameter, ...body(volumeRevertSchema) },
      responses: { 200: json(volumeRevertedSchema, "The volume is what the snapshot is.") },
    }),
    async (context) => {
      const { id } = context.req.valid("param");
      const wanted = context.req.valid("json");
      const kept = await snapshots.revert(id, wanted);
      context.set("auditDetail", `to ${wanted.snapshotId}`);
      const shown =
        kept === null ? null : snapshotViews.one(policy.find("snapshot", kept.id) ?? kept);
      return context.json({ volumeId: id, snapshotId: wanted.snapshotId, kept: shown }, 200);
    },
  );
  app.openapi(
    router.route("storage:read", {
      method: "get",
      path: "/volumes/{id}/differences",
      request: { params: idParameter, query: differencesQuerySchema },
      responses: { 200: json(differencesSchema, "What changed since a snapshot.") },
    }),
    async (context) => {
      const { id } = context.req.valid("param");
      const { from, to, after } = context.req.valid("query");
      return context.json(await snapshots.differences(id, from, to, after), 200);
    },
  );
}

function addScheduleRoutes(
  router: Router,
  { policy, schedules, snapshotViews }: RouteSources,
): void {
  const { app } = router;
  const one = { 200: json(scheduleSchema, "The schedule.") };
  app.openapi(
    router.route("storage:read", {
      method: "get",
      path: "/snapshot-schedules",
      responses: { 200: json(z.array(scheduleSchema), "All schedules.") },
    }),
    (context) => context.json(snapshotViews.schedules(), 200),
  );
  app.openapi(
    router.route("storage:write", {
      method: "post",
      path: "/snapshot-schedules",
      request: body(scheduleCreateSchema),
      responses: { 201: json(scheduleSchema, "It runs at the next of its times.") },
    }),
    async (context) =>
      context.json(snapshotViews.schedule(await schedules.create(context.req.valid("json"))), 201),
  );
  app.openapi(
    router.route("storage:read", {
      method: "get",
      path: "/snapshot-schedules/{id}",
      request: { params: idParameter },
      responses: one,
    }),
    (context) =>
      context.json(
        snapshotViews.schedule(policy.get("snapshot-schedule", context.req.valid("param").id)),
        200,
      ),
  );
  app.openapi(
    router.route("storage:write", {
      method: "patch",
      path: "/snapshot-schedules/{id}",
      request: { params: idParameter, ...body(scheduleChangeSchema) },
      responses: one,
    }),
    async (context) => {
      const { id } = context.req.valid("param");
      const record = await schedules.change(id, context.req.valid("json"));
      return context.json(snapshotViews.schedule(record), 200);
    },
  );
  app.openapi(
    router.route("storage:write", {
      method: "delete",
      path: "/snapshot-schedules/{id}",
      request: { params: idParameter },
      responses: noContent,
    }),
    async (context) => {
      await schedules.delete(context.req.valid("param").id);
      return context.body(null, 204);
    },
  );
}
