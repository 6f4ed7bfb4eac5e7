import { z } from "@hono/zod-openapi";
import type { Context } from "hono";
import { streamSSE } from "hono/streaming";
import type { NumberedEvent } from "../events.ts";
import type { Router, RouteSources } from "./route.ts";

const keepAliveMs = 15_000;
/** A reader that falls this far behind is cut off: it resumes, or fetches everything. */
const mostQueued = 4096;

export function addEventRoutes(router: Router, { hub, sessions }: RouteSources): void {
  router.app.openapi(
    router.route("admin", {
      method: "get",
      path: "/events",
      request: { headers: z.object({ "last-event-id": z.string().max(100).optional() }) },
      responses: {
        200: {
          description: "Changes as they happen, for as long as the session lasts.",
          content: { "text/event-stream": { schema: z.string() } },
        },
      },
    }),
    ((context: Context) => {
      const token = context.get("token") as string;
      const response = streamSSE(context, async (stream) => {
        const queue: NumberedEvent[] = [];
        let wake = () => {};
        const { resumed, stop } = hub.listen(context.req.header("last-event-id"), (event) => {
          queue.push(event);
          if (queue.length > mostQueued) stream.abort();
          wake();
        });
        stream.onAbort(() => {
          stop();
          wake();
        });
        try {
          // At once, so that the reader knows it is connected, and from where it may resume.
          if (resumed) await stream.write(": resumed\n\n");
          else await stream.writeSSE({ event: "reset", data: "{}", id: hub.lastId });
          while (!stream.aborted) {
            const event = queue.shift();
            if (event !== undefined) {
              const data = JSON.stringify(event.event);
              await stream.writeSSE({ event: "change", data, id: event.id });
              continue;
            }
            const idle = await new Promise<boolean>((resolve) => {
              const timer = setTimeout(() => resolve(true), keepAliveMs);
              wake = () => {
                clearTimeout(timer);
                resolve(false);
              };
            });
            if (!idle) continue;
            // Who logged out, or whose session ended, hears no more.
            if (sessions.find(token) === undefined) return;
            await stream.write(": alive\n\n");
          }
        } finally {
          stop();
        }
      });
      // HTTP/2 forbids these (RFC 9113 section 8.2.2), HTTP/1.1 sets its own.
      for (const name of ["transfer-encoding", "connection"]) response.headers.delete(name);
      return response;
    }) as never,
  );
}
