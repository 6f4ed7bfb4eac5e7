import { z } from "@hono/zod-openapi";
import type { Context } from "hono";
import { streamSSE } from "hono/streaming";
import type { AccountSession } from "../accounts-schema.ts";
import { eventReaders } from "../event-access.ts";
import type { NumberedEvent } from "../events.ts";
import type { ApiEvent } from "../schema.ts";
import type { Router, RouteSources } from "./route.ts";

const keepAliveMs = 15_000;
/** A reader that falls this far behind is cut off: it resumes, or fetches everything. */
const mostQueued = 4096;

export function addEventRoutes(router: Router, { hub, sessions, policy }: RouteSources): void {
  router.app.openapi(
    router.route("account", {
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
        const may = ({ event, owner }: NumberedEvent) => {
          const listener = sessions.find(token);
          const reader = eventReaders[event.resource];
          if (listener === undefined) return false;
          return reader === "own" ? listener.user === owner : listener.permissions.includes(reader);
        };
        const seen = (event: ApiEvent) =>
          event.resource === "sessions" && event.value !== null
            ? { ...event, value: sessions.asSeenBy(token, event.value as AccountSession) }
            : event;
        // Who logged out, whose session ended, who was disabled hears no more, at once.
        const stopWatching = policy.onChange(() => {
          if (sessions.find(token) === undefined) stream.abort();
        });
        const { resumed, stop } = hub.listen(context.req.header("last-event-id"), (event) => {
          if (!may(event)) return;
          queue.push(event);
          if (queue.length > mostQueued) stream.abort();
          wake();
        });
        stream.onAbort(() => {
          stop();
          stopWatching();
          wake();
        });
        try {
          // At once, so that the reader knows it is connected, and from where it may resume.
          if (resumed) await stream.write(": resumed\n\n");
          else await stream.writeSSE({ event: "reset", data: "{}", id: hub.lastId });
          while (!stream.aborted) {
            const event = queue.shift();
            if (event !== undefined) {
              const data = JSON.stringify(seen(event.event));
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
            if (sessions.find(token) === undefined) return;
            await stream.write(": alive\n\n");
          }
        } finally {
          stop();
          stopWatching();
        }
      });
      // HTTP/2 forbids these (RFC 9113 section 8.2.2), HTTP/1.1 sets its own.
      for (const name of ["transfer-encoding", "connection"]) response.headers.delete(name);
      return response;
    }) as never,
  );
}
