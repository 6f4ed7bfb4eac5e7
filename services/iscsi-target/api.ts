/** The control API on the service's unix socket; its documents are in schema.ts. */
import { Hono } from "hono";
import { streamSSE } from "hono/streaming";
import { validator } from "hono/validator";
import { KeelsonError } from "#lib/model/errors.ts";
import { problemHandler } from "#lib/rpc/problem.ts";
import { type ExportsPutInput, exportsPutSchema } from "./schema.ts";
import type { IscsiTarget } from "./target.ts";

export function createApi(target: IscsiTarget, unexpected: (error: Error) => void) {
  return new Hono()
    .onError(problemHandler(unexpected))
    .get("/v1/status", async (context) => context.json(await target.status()))
    .get("/v1/exports", async (context) => context.json(await target.exports()))
    .put(
      "/v1/exports",
      validator("json", (body: unknown): ExportsPutInput => {
        const parsed = exportsPutSchema.safeParse(body);
        if (parsed.success) return parsed.data;
        const { message, path } = parsed.error.issues[0];
        throw new KeelsonError("INVALID_ARGUMENT", `${path.join(".") || "body"}: ${message}`);
      }),
      async (context) => {
        const put = exportsPutSchema.parse(context.req.valid("json"));
        return context.json(await target.apply(put));
      },
    )
    .get("/v1/sessions", async (context) => context.json(await target.sessions()))
    .get("/v1/events", (context) =>
      streamSSE(context, async (stream) => {
        let wake = () => {};
        let changed = true;
        const unwatch = target.watch(() => {
          changed = true;
          wake();
        });
        let open = true;
        stream.onAbort(() => {
          open = false;
          unwatch();
          wake();
        });
        while (open) {
          if (changed) {
            changed = false;
            const data = JSON.stringify(await target.sessions());
            await stream.writeSSE({ event: "sessions", data });
            continue;
          }
          await new Promise<void>((resolve) => {
            wake = resolve;
          });
        }
      }),
    );
}

export type IscsiTargetApi = ReturnType<typeof createApi>;
