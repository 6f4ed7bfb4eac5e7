import { z } from "@hono/zod-openapi";
import type { Context } from "hono";
import { auditHeadsSchema, auditPageSchema, auditQuerySchema } from "../audit-schema.ts";
import { json, type Router, type RouteSources } from "./route.ts";

export function addAuditRoutes(router: Router, { audit }: RouteSources): void {
  const { app } = router;
  app.openapi(
    router.route("audit:read", {
      method: "get",
      path: "/audit",
      request: { query: auditQuerySchema },
      responses: { 200: json(auditPageSchema, "Newest first; give `next` as `before`.") },
    }),
    async (context) => context.json(await audit.page(context.req.valid("query")), 200),
  );
  app.openapi(
    router.route("audit:read", {
      method: "get",
      path: "/audit/heads",
      responses: { 200: json(auditHeadsSchema, "To be kept elsewhere.") },
    }),
    (context) => {
      const { head, fileHeads, firstSequence } = audit.log;
      return context.json({ head, files: fileHeads, firstSequence }, 200);
    },
  );
  app.openapi(
    router.route("audit:read", {
      method: "get",
      path: "/audit/export",
      request: { query: z.object({ from: z.coerce.number().int().min(1).default(1) }) },
      responses: {
        200: {
          description: "Each entry on a line, as it stands in the log, oldest first.",
          content: { "application/x-ndjson": { schema: z.string() } },
        },
      },
    }),
    ((context: Context) => {
      const from = Number(context.req.query("from") ?? 1);
      const lines = audit.log.lines(from);
      const encoder = new TextEncoder();
      const stream = new ReadableStream<Uint8Array>({
        async pull(controller) {
          const { done, value } = await lines.next();
          if (done) controller.close();
          else controller.enqueue(encoder.encode(`${value}\n`));
        },
        async cancel() {
          await lines.return(undefined);
        },
      });
      return new Response(stream, {
        headers: {
          "content-type": "application/x-ndjson",
          "content-disposition": 'attachment; filename="audit.ndjson"',
        },
      });
    }) as never,
  );
}
