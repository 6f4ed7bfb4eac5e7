/** The support bundle that was made at the node's own screen. */
import { z } from "@hono/zod-openapi";
import type { Router, RouteSources } from "./route.ts";

export function addSupportRoutes(router: Router, { downloads }: RouteSources): void {
  router.app.openapi(
    router.route("anyone", {
      method: "get",
      path: "/support-bundle/{token}",
      request: { params: z.object({ token: z.string().max(64) }) },
      responses: {
        200: {
          description: "The bundle, once; the token is shown at the node's own screen.",
          content: { "application/gzip": { schema: z.string().meta({ format: "binary" }) } },
        },
      },
    }),
    (context) => {
      const { file, sizeBytes, body } = downloads.take(context.req.valid("param").token);
      context.header("content-type", "application/gzip");
      context.header("content-length", String(sizeBytes));
      context.header("content-disposition", `attachment; filename="${file}"`);
      return context.body(body) as never;
    },
  );
}
