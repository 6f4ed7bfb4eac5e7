import { z } from "@hono/zod-openapi";
import { KeelsonError } from "#lib/model/errors.ts";
import { taskSchema } from "../schema.ts";
import { idParameter, json, noContent, type Router, type RouteSources } from "./route.ts";

export function addTaskRoutes(router: Router, { tasks }: RouteSources): void {
  const { app } = router;
  app.openapi(
    router.route("node:read", {
      method: "get",
      path: "/tasks",
      responses: { 200: json(z.array(taskSchema), "The newest 100, newest first.") },
    }),
    (context) => context.json(tasks.list(), 200),
  );
  app.openapi(
    router.route("node:read", {
      method: "get",
      path: "/tasks/{id}",
      request: { params: idParameter },
      responses: { 200: json(taskSchema, "The task.") },
    }),
    (context) => {
      const { id } = context.req.valid("param");
      const task = tasks.find(id);
      if (task !== undefined) return context.json(task, 200);
      throw new KeelsonError("NOT_FOUND", `There is no task ${id}.`, {
        object: id,
        remedy: "The newest 100 are kept.",
      });
    },
  );
  app.openapi(
    router.route("storage:write", {
      method: "post",
      path: "/tasks/{id}/cancel",
      request: { params: idParameter },
      responses: { 202: json(taskSchema, "It was told to stop; its state says when it has.") },
    }),
    (context) => context.json(tasks.cancel(context.req.valid("param").id), 202),
  );
  app.openapi(
    router.route("storage:write", {
      method: "delete",
      path: "/tasks/{id}",
      deprecated: true,
      description: "The older name of `POST /tasks/{id}/cancel`.",
      operationId: "deleteTask",
      summary: "Cancel task",
      request: { params: idParameter },
      responses: noContent,
    }),
    (context) => {
      tasks.cancel(context.req.valid("param").id);
      return context.body(null, 204);
    },
  );
}
