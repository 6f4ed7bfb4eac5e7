/** The internal socket: netboot asks what a machine boots, and reports what it saw of it. */
import { Hono } from "hono";
import { HTTPException } from "hono/http-exception";
import { validator } from "hono/validator";
import { z } from "zod";
import { KeelsonError } from "#lib/model/errors.ts";
import { problemHandler } from "#lib/rpc/problem.ts";
import { answerBoot, type BootOptions } from "./boot.ts";
import { bootRequestSchema, stageReportSchema } from "./boot-schema.ts";

function parse<Schema extends z.ZodType>(schema: Schema) {
  return (body: unknown): z.output<Schema> => {
    const parsed = schema.safeParse(body);
    if (parsed.success) return parsed.data;
    throw new KeelsonError("INVALID_ARGUMENT", z.prettifyError(parsed.error).replaceAll("\n", " "));
  };
}

export function createInternalApp(options: BootOptions, unexpected: (error: Error) => void) {
  const app = new Hono()
    .post("/v1/boot", validator("json", parse(bootRequestSchema)), async (context) =>
      context.json(await answerBoot(options, context.req.valid("json"))),
    )
    .post("/v1/clients/stages", validator("json", parse(stageReportSchema)), (context) => {
      options.clients.report(context.req.valid("json"));
      return context.body(null, 204);
    });
  app.onError((error, context) => {
    const notJson = error instanceof HTTPException && error.status === 400;
    const known = notJson ? new KeelsonError("INVALID_ARGUMENT", "The body is not JSON.") : error;
    return problemHandler(unexpected)(known, context);
  });
  return app;
}

export type InternalApi = ReturnType<typeof createInternalApp>;
