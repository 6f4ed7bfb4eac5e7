import type { ScrubInfo } from "#services/chunk-store/schema.ts";
import { type Scrub, scrubSchema, scrubSettingsSchema } from "../scrub-schema.ts";
import { body, json, type Router, type RouteSources } from "./route.ts";

/** All of the store read again, now and then, to find bad blocks before their data is needed. */
export function addScrubRoutes(router: Router, { scrubs, policy }: RouteSources): void {
  const { app } = router;
  const view = ({ settings, nextAt, run }: ScrubInfo): Scrub => ({
    settings,
    nextAt,
    run: run && {
      ...run,
      bad: run.bad.map(({ volume, snapshot, ...where }) => ({
        ...where,
        volumeId: volume,
        volumeName: policy.find("volume", volume)?.name ?? null,
        snapshotId: snapshot,
      })),
    },
  });
  app.openapi(
    router.route("storage:read", {
      method: "get",
      path: "/store/scrub",
      responses: { 200: json(scrubSchema, "Settings, and the last scrub.") },
    }),
    async (context) => context.json(view(await scrubs.scrub()), 200),
  );
  app.openapi(
    router.route("storage:write", {
      method: "post",
      path: "/store/scrub",
      operationId: "startScrub",
      responses: { 202: json(scrubSchema, "It runs.") },
    }),
    async (context) => context.json(view(await scrubs.startScrub()), 202),
  );
  app.openapi(
    router.route("storage:write", {
      method: "delete",
      path: "/store/scrub",
      operationId: "stopScrub",
      responses: { 200: json(scrubSchema, "None runs.") },
    }),
    async (context) => context.json(view(await scrubs.stopScrub()), 200),
  );
  app.openapi(
    router.route("storage:write", {
      method: "put",
      path: "/store/scrub/settings",
      operationId: "setScrub",
      request: body(scrubSettingsSchema),
      responses: { 200: json(scrubSchema, "As it is now.") },
    }),
    async (context) => context.json(view(await scrubs.setScrub(context.req.valid("json"))), 200),
  );
}
