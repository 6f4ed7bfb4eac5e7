import { z } from "@hono/zod-openapi";
import type { Context } from "hono";
import { KeelsonError } from "#lib/model/errors.ts";
import {
  exportChangeSchema,
  exportCreatedSchema,
  exportCreateSchema,
  exportSchema,
  imageCreateSchema,
  imageSchema,
  taskSchema,
  volumeChangeSchema,
  volumeCreateSchema,
  volumeSchema,
} from "../schema.ts";
import type { Part } from "../upload-spool.ts";
import {
  body,
  idParameter,
  incomingBody,
  json,
  noContent,
  type Router,
  type RouteSources,
} from "./route.ts";

/** Volumes, images and exports. */
export function addStorageRoutes(router: Router, from: RouteSources): void {
  addVolumeRoutes(router, from);
  addImageRoutes(router, from);
  addExportRoutes(router, from);
}

function addVolumeRoutes(router: Router, { policy, changes, views }: RouteSources): void {
  const { app } = router;
  const one = { 200: json(volumeSchema, "The volume.") };
  app.openapi(
    router.route("storage:read", {
      method: "get",
      path: "/volumes",
      responses: { 200: json(z.array(volumeSchema), "All volumes.") },
    }),
    (context) => context.json(views.volumes(), 200),
  );
  app.openapi(
    router.route("storage:write", {
      method: "post",
      path: "/volumes",
      request: body(volumeCreateSchema),
      responses: { 201: json(volumeSchema, "Its state says when it can be used.") },
    }),
    async (context) =>
      context.json(views.volume(await changes.createVolume(context.req.valid("json"))), 201),
  );
  app.openapi(
    router.route("storage:read", {
      method: "get",
      path: "/volumes/{id}",
      request: { params: idParameter },
      responses: one,
    }),
    (context) =>
      context.json(views.volume(policy.get("volume", context.req.valid("param").id)), 200),
  );
  app.openapi(
    router.route("storage:write", {
      method: "patch",
      path: "/volumes/{id}",
      request: { params: idParameter, ...body(volumeChangeSchema) },
      responses: one,
    }),
    async (context) => {
      const { id } = context.req.valid("param");
      const record = await changes.changeVolume(id, context.req.valid("json"));
      return context.json(views.volume(record), 200);
    },
  );
  app.openapi(
    router.route("storage:write", {
      method: "delete",
      path: "/volumes/{id}",
      request: {
        params: idParameter,
        query: z.object({ snapshots: z.enum(["delete"]).optional() }),
      },
      responses: noContent,
    }),
    async (context) => {
      const { snapshots } = context.req.valid("query");
      await changes.deleteVolume(context.req.valid("param").id, snapshots === "delete");
      return context.body(null, 204);
    },
  );
}

/**
 * Which part of a file a request brings: all of it, or by Content-Range (RFC 9110, sections 14.4 and
 * 14.5) all from a byte on. INVALID_ARGUMENT for anything else.
 */
export function partOf(range: string | undefined, length: string | undefined): Part {
  const lengthBytes = length === undefined ? null : Number(length);
  if (range === undefined) return { fromByte: 0, totalBytes: lengthBytes };
  const match = /^bytes (\d{1,15})-(\d{1,15})\/(\d{1,15})$/.exec(range);
  const [from, last, total] = (match ?? []).slice(1).map(Number);
  const sent = last - from + 1;
  const whole = last === total - 1 && sent > 0 && (lengthBytes === null || lengthBytes === sent);
  if (match !== null && whole) return { fromByte: from, totalBytes: total };
  throw new KeelsonError(
    "INVALID_ARGUMENT",
    `Content-Range: ${range.slice(0, 100)} is not taken.`,
    {
      operation: "upload image",
      remedy: "Send all from a byte on: bytes FIRST-LAST/TOTAL, where LAST is TOTAL - 1.",
    },
  );
}

function addImageRoutes(router: Router, { policy, imports, views }: RouteSources): void {
  const { app } = router;
  app.openapi(
    router.route("storage:read", {
      method: "get",
      path: "/images",
      responses: { 200: json(z.array(imageSchema), "All images.") },
    }),
    (context) => context.json(views.images(), 200),
  );
  app.openapi(
    router.route("storage:write", {
      method: "post",
      path: "/images",
      request: body(imageCreateSchema),
      responses: { 201: json(imageSchema, "Now put its data.") },
    }),
    async (context) => {
      const { name, format } = context.req.valid("json");
      return context.json(views.image(await imports.create(name, format)), 201);
    },
  );
  app.openapi(
    router.route("storage:write", {
      method: "put",
      path: "/images/{id}/data",
      request: {
        params: idParameter,
        body: { required: true, content: { "application/octet-stream": { schema: z.any() } } },
      },
      responses: { 202: json(taskSchema, "The upload is complete, its import goes on.") },
    }),
    async (context) => {
      const { id } = context.req.valid("param");
      const part = partOf(
        context.req.header("content-range"),
        context.req.header("content-length"),
      );
      const stream = incomingBody(context as unknown as Context);
      const task = await imports.receive(id, stream, part);
      return context.json(task, 202);
    },
  );
  app.openapi(
    router.route("storage:read", {
      method: "get",
      path: "/images/{id}",
      request: { params: idParameter },
      responses: { 200: json(imageSchema, "The image.") },
    }),
    (context) => context.json(views.image(policy.get("image", context.req.valid("param").id)), 200),
  );
  app.openapi(
    router.route("storage:write", {
      method: "delete",
      path: "/images/{id}",
      request: { params: idParameter },
      responses: noContent,
    }),
    async (context) => {
      await imports.remove(context.req.valid("param").id);
      return context.body(null, 204);
    },
  );
}

function addExportRoutes(router: Router, { policy, changes, views }: RouteSources): void {
  const { app } = router;
  const one = { 200: json(exportSchema, "The export.") };
  app.openapi(
    router.route("storage:read", {
      method: "get",
      path: "/exports",
      responses: { 200: json(z.array(exportSchema), "All exports.") },
    }),
    (context) => context.json(views.exports(), 200),
  );
  app.openapi(
    router.route("storage:write", {
      method: "post",
      path: "/exports",
      request: body(exportCreateSchema),
      responses: { 201: json(exportCreatedSchema, "The only answer that shows the CHAP secret.") },
    }),
    async (context) => {
      const record = await changes.createExport(context.req.valid("json"));
      return context.json({ ...views.export(record), chapSecret: record.chapSecret }, 201);
    },
  );
  app.openapi(
    router.route("storage:read", {
      method: "get",
      path: "/exports/{id}",
      request: { params: idParameter },
      responses: one,
    }),
    (context) =>
      context.json(views.export(policy.get("export", context.req.valid("param").id)), 200),
  );
  app.openapi(
    router.route("storage:write", {
      method: "patch",
      path: "/exports/{id}",
      request: { params: idParameter, ...body(exportChangeSchema) },
      responses: one,
    }),
    async (context) => {
      const { id } = context.req.valid("param");
      const record = await changes.changeExport(id, context.req.valid("json"));
      return context.json(views.export(record), 200);
    },
  );
  app.openapi(
    router.route("storage:write", {
      method: "delete",
      path: "/exports/{id}",
      request: { params: idParameter },
      responses: noContent,
    }),
    async (context) => {
      await changes.deleteExport(context.req.valid("param").id);
      return context.body(null, 204);
    },
  );
}
