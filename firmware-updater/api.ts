/** Control socket `<run>/api.sock`: what schema.ts says. */
import { createReadStream } from "node:fs";
import { Readable } from "node:stream";
import type { HttpBindings } from "@hono/node-server";
import { Hono } from "hono";
import { validator } from "hono/validator";
import { z } from "zod";
import { KeelsonError } from "#lib/model/errors.ts";
import { problemHandler } from "#lib/rpc/problem.ts";
import type { Updater } from "./updater.ts";

const startSchema = z.object({
  bundleId: z.string().min(1).max(100),
  gate: z
    .object({
      holdSeconds: z.int().min(10).max(3600).optional(),
      deadlineSeconds: z.int().min(60).max(7200).optional(),
    })
    .optional(),
});

const webAddress = z.url({ protocol: /^https$/, error: "is not an https:// address" }).max(2000);
const sourcesSchema = z.object({
  channel: webAddress.nullable(),
  neighbour: webAddress.nullable(),
  neighbourFingerprint: z
    .string()
    .regex(
      /^([0-9a-f]{2}:?){31}[0-9a-f]{2}$/i,
      "is not a SHA-256 fingerprint: 64 hexadecimal digits",
    )
    .nullable()
    .default(null),
});

const stateQuery = z.object({
  after: z.coerce.number().int().min(-1).default(-1),
  wait: z.coerce.number().min(0).max(60).default(0),
});

export function createApi(updater: Updater, unexpected: (error: Error) => void) {
  const app = new Hono()
    .get("/v1/state", validator("query", parse(stateQuery)), async (context) => {
      const { after, wait } = context.req.valid("query");
      return context.json(await updater.stateAfter(after, wait * 1000, context.req.raw.signal));
    })
    .post("/v1/bundles", async (context) => {
      const length = context.req.header("content-length");
      const { incoming } = context.env as HttpBindings;
      const bundle = await updater.receive({
        // Not destroyed with the loop: the refusal must still go out on the same socket.
        source: incoming.iterator({ destroyOnReturn: false }),
        from: { kind: "upload", where: context.req.header("x-upload-name")?.slice(0, 200) ?? "" },
        lengthBytes: length === undefined ? null : Number(length),
      });
      return context.json(bundle, 201);
    })
    .post("/v1/bundles/:id/fetch", (context) =>
      context.json(updater.fetch(context.req.param("id")), 202),
    )
    .get("/v1/bundles/:id/file", (context) => {
      const { path, sizeBytes, manifest } = updater.bundleFile(context.req.param("id"));
      const range = /^bytes=(\d{1,15})-$/.exec(context.req.header("range") ?? "");
      const start = range === null ? 0 : Math.min(Number(range[1]), sizeBytes);
      const stream = Readable.toWeb(createReadStream(path, { start })) as ReadableStream;
      return context.body(stream, range === null ? 200 : 206, {
        "content-type": "application/octet-stream",
        "content-length": String(sizeBytes - start),
        "content-disposition": `attachment; filename="keelson-${manifest.version}.kbundle"`,
        ...(range === null
          ? {}
          : { "content-range": `bytes ${start}-${sizeBytes - 1}/${sizeBytes}` }),
      });
    })
    .delete("/v1/bundles/:id", (context) => {
      updater.removeBundle(context.req.param("id"));
      return context.body(null, 204);
    })
    .get("/v1/bundles/:id/plan", (context) =>
      context.json(updater.preview(context.req.param("id"))),
    )
    .post("/v1/plan/start", validator("json", parse(startSchema)), (context) => {
      const { bundleId, gate } = context.req.valid("json");
      const { holdSeconds, deadlineSeconds } = gate ?? {};
      return context.json(
        updater.startPlan({
          bundleId,
          gate: {
            ...(holdSeconds === undefined ? {} : { holdSeconds }),
            ...(deadlineSeconds === undefined ? {} : { deadlineSeconds }),
          },
        }),
        202,
      );
    })
    .post("/v1/plan/cancel", (context) => context.json(updater.cancel(), 202))
    .post("/v1/rollback", (context) => context.json(updater.rollBack(), 202))
    .put("/v1/sources", validator("json", parse(sourcesSchema)), async (context) =>
      context.json(await updater.setSources(context.req.valid("json"), context.req.raw.signal)),
    )
    .post("/v1/sources/check", async (context) => context.json(await updater.checkSources()))
    .delete("/v1/failure", (context) => {
      updater.clearFailure();
      return context.body(null, 204);
    });
  app.onError(problemHandler(unexpected));
  return app;
}

export type FirmwareUpdaterApi = ReturnType<typeof createApi>;

function parse<Schema extends z.ZodType>(schema: Schema) {
  return (body: unknown): z.infer<Schema> => {
    const parsed = schema.safeParse(body);
    if (parsed.success) return parsed.data;
    throw new KeelsonError("INVALID_ARGUMENT", z.prettifyError(parsed.error), {
      remedy: "Correct these fields.",
    });
  };
}
