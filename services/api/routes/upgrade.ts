import { z } from "@hono/zod-openapi";
import type { Context } from "hono";
import { KeelsonError } from "#lib/model/errors.ts";
import {
  offeredBundleSchema,
  planStartSchema,
  sharedIndexSchema,
  sourceSettingsSchema,
  upgradePlanSchema,
  upgradeStateSchema,
} from "../upgrade-schema.ts";
import {
  body,
  idParameter,
  incomingStream,
  json,
  noContent,
  type Router,
  type RouteSources,
} from "./route.ts";
import { watched } from "./watched.ts";

/** Releases, slots, and the way back: passed on to keelson-firmware-updater. */
export function addUpgradeRoutes(router: Router, from: RouteSources): void {
  addBundleRoutes(router, from);
  addPlanRoutes(router, from);
  addNeighbourRoutes(router, from);
}

/** At once, of all neighbours: a bundle is read from the disk that guests' data may be on too. */
const mostNeighbours = 4;

/**
 * For nodes that copy from this one: they have no account here, and what they get is signed and
 * released to everybody.
 */
function addNeighbourRoutes(router: Router, { upgrades }: RouteSources): void {
  const { app } = router;
  let sending = 0;
  app.openapi(
    router.route("anyone", {
      method: "get",
      path: "/upgrade/index.json",
      operationId: "getSharedIndex",
      summary: "List this node's bundles, as a channel's index",
      responses: { 200: json(sharedIndexSchema, "What it has, verified.") },
    }),
    async (context) => context.json(await upgrades.shared(), 200),
  );
  app.openapi(
    router.route("anyone", {
      method: "get",
      path: "/upgrade/shared/{id}",
      operationId: "getSharedBundle",
      summary: "Download a bundle that the index lists",
      request: { params: idParameter },
      responses: {
        200: {
          description: "The bundle; 206 and the rest of it with `Range: bytes=N-`.",
          content: { "application/octet-stream": { schema: z.any() } },
        },
      },
    }),
    (async (context: Context) => {
      if (sending >= mostNeighbours) {
        throw new KeelsonError("RATE_LIMITED", `${mostNeighbours} nodes copy from this one now.`, {
          operation: "download bundle",
          remedy: "Try again in some minutes.",
        });
      }
      sending++;
      try {
        const range = context.req.header("range");
        const answer = await upgrades.bundleFile(context.req.param("id") ?? "", range);
        return fileAnswer(context, answer, () => {
          sending--;
        });
      } catch (error) {
        sending--;
        throw error;
      }
    }) as never,
  );
}

function fileAnswer(context: Context, answer: Response, ended?: () => void) {
  const names = ["content-type", "content-length", "content-range", "content-disposition"];
  return context.body(
    (ended === undefined ? answer.body : watched(answer.body!, ended)) as never,
    answer.status as 200,
    Object.fromEntries(
      names.flatMap((name) => {
        const value = answer.headers.get(name);
        return value === null ? [] : [[name, value]];
      }),
    ),
  );
}

function addBundleRoutes(router: Router, { upgrades }: RouteSources): void {
  const { app } = router;
  app.openapi(
    router.route("upgrade:write", {
      method: "post",
      path: "/upgrade/bundles",
      operationId: "uploadBundle",
      summary: "Upload a bundle",
      request: {
        query: z.object({ name: z.string().max(200).optional() }),
        body: { required: true, content: { "application/octet-stream": { schema: z.any() } } },
      },
      responses: { 201: json(offeredBundleSchema, "All of it has come, and is as signed.") },
    }),
    async (context) => {
      const length = context.req.header("content-length");
      const bundle = await upgrades.upload(
        incomingStream(context as unknown as Context),
        length === undefined ? null : Number(length),
        context.req.valid("query").name ?? "",
      );
      return context.json(bundle, 201);
    },
  );
  app.openapi(
    router.route("upgrade:write", {
      method: "post",
      path: "/upgrade/bundles/{id}/fetch",
      operationId: "fetchBundle",
      summary: "Copy a bundle that is elsewhere to this node",
      request: { params: idParameter },
      responses: { 202: json(offeredBundleSchema, "It is being copied.") },
    }),
    async (context) => context.json(await upgrades.fetchBundle(context.req.valid("param").id), 202),
  );
  app.openapi(
    router.route("upgrade:read", {
      method: "get",
      path: "/upgrade/bundles/{id}/file",
      operationId: "getBundleFile",
      summary: "Download a bundle",
      request: { params: idParameter },
      responses: {
        200: {
          description: "The bundle.",
          content: { "application/octet-stream": { schema: z.any() } },
        },
      },
    }),
    (async (context: Context) => {
      const range = context.req.header("range");
      const answer = await upgrades.bundleFile(context.req.param("id") ?? "", range);
      return fileAnswer(context, answer);
    }) as never,
  );
  app.openapi(
    router.route("upgrade:read", {
      method: "get",
      path: "/upgrade/bundles/{id}/plan",
      operationId: "previewUpgrade",
      summary: "Show what an upgrade would do",
      request: { params: idParameter },
      responses: { 200: json(upgradePlanSchema, "The steps; nothing is done.") },
    }),
    async (context) => context.json(await upgrades.preview(context.req.valid("param").id), 200),
  );
  app.openapi(
    router.route("upgrade:write", {
      method: "delete",
      path: "/upgrade/bundles/{id}",
      operationId: "deleteBundle",
      summary: "Delete a bundle from this node",
      request: { params: idParameter },
      responses: noContent,
    }),
    async (context) => {
      await upgrades.removeBundle(context.req.valid("param").id);
      return context.body(null, 204);
    },
  );
}

function addPlanRoutes(router: Router, { upgrades, tasks }: RouteSources): void {
  const { app } = router;
  const state = { 200: json(upgradeStateSchema, "All about upgrades.") };
  const plan = { 202: json(upgradePlanSchema, "The plan; its steps follow as events.") };
  const refuseWhileBusy = () => {
    const busy = tasks.list().find((task) => task.state === "running");
    if (busy === undefined) return;
    throw new KeelsonError("IN_USE", `"${busy.title}" is still running.`, {
      operation: "start upgrade",
      object: busy.id,
      remedy: "Wait until it ends, or cancel it.",
    });
  };
  app.openapi(
    router.route("upgrade:read", {
      method: "get",
      path: "/upgrade",
      operationId: "getUpgrade",
      summary: "Show versions, bundles, the plan and its history",
      responses: state,
    }),
    async (context) => context.json(await upgrades.state(), 200),
  );
  app.openapi(
    router.route("upgrade:write", {
      method: "post",
      path: "/upgrade/start",
      operationId: "startUpgrade",
      summary: "Start an upgrade",
      request: body(planStartSchema),
      responses: plan,
    }),
    async (context) => {
      refuseWhileBusy();
      return context.json(await upgrades.start(context.req.valid("json")), 202);
    },
  );
  app.openapi(
    router.route("upgrade:write", {
      method: "post",
      path: "/upgrade/cancel",
      operationId: "cancelUpgrade",
      summary: "Cancel an upgrade that is not armed yet",
      responses: plan,
    }),
    async (context) => context.json(await upgrades.cancel(), 202),
  );
  app.openapi(
    router.route("upgrade:write", {
      method: "post",
      path: "/upgrade/rollback",
      operationId: "rollBackUpgrade",
      summary: "Boot the other slot, if its version has worked",
      responses: plan,
    }),
    async (context) => {
      refuseWhileBusy();
      return context.json(await upgrades.rollBack(), 202);
    },
  );
  app.openapi(
    router.route("upgrade:write", {
      method: "put",
      path: "/upgrade/sources",
      operationId: "setUpgradeSources",
      summary: "Set where new versions are looked for",
      request: body(sourceSettingsSchema),
      responses: state,
    }),
    async (context) => context.json(await upgrades.setSources(context.req.valid("json")), 200),
  );
  app.openapi(
    router.route("upgrade:write", {
      method: "post",
      path: "/upgrade/sources/check",
      operationId: "checkUpgradeSources",
      summary: "Look for new versions now",
      responses: state,
    }),
    async (context) => context.json(await upgrades.checkSources(), 200),
  );
  app.openapi(
    router.route("upgrade:write", {
      method: "delete",
      path: "/upgrade/failure",
      operationId: "clearUpgradeFailure",
      summary: "Put away the report of the last failure",
      responses: noContent,
    }),
    async (context) => {
      await upgrades.clearFailure();
      return context.body(null, 204);
    },
  );
}
