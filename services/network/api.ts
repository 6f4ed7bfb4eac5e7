/** Control API on `<run>/api.sock`, for api and the console. */
import { Hono } from "hono";
import { HTTPException } from "hono/http-exception";
import { validator } from "hono/validator";
import { z } from "zod";
import { KeelsonError } from "#lib/model/errors.ts";
import { problemHandler } from "#lib/rpc/problem.ts";
import type { NodeNetwork } from "./network.ts";
import { applyRequest, changeRequest } from "./schema.ts";

function parse<Schema extends z.ZodType>(schema: Schema) {
  return (body: unknown): z.output<Schema> => {
    const parsed = schema.safeParse(body);
    if (parsed.success) return parsed.data;
    throw new KeelsonError("INVALID_ARGUMENT", `Request: ${z.prettifyError(parsed.error)}`, {
      operation: "change network",
      remedy: "Nothing was changed.",
    });
  };
}

export function createApi(network: NodeNetwork, unexpected: (error: Error) => void) {
  const app = new Hono()
    .get("/v1/network", async (context) => context.json(await network.view()))
    .get("/v1/firewall", async (context) => context.json(await network.firewall()))
    .post("/v1/apply", validator("json", parse(applyRequest)), async (context) => {
      const { config, confirmWithinSeconds } = context.req.valid("json");
      return context.json(await network.apply(config, confirmWithinSeconds), 202);
    })
    .post("/v1/confirm", validator("json", parse(changeRequest)), (context) => {
      network.confirm(context.req.valid("json").id);
      return context.body(null, 204);
    })
    .post("/v1/revert", validator("json", parse(changeRequest)), async (context) => {
      await network.revert(context.req.valid("json").id);
      return context.body(null, 204);
    });
  const problems = problemHandler(unexpected);
  app.onError((error, context) =>
    problems(
      error instanceof HTTPException && error.status === 400
        ? new KeelsonError("INVALID_ARGUMENT", "The request's body is not JSON.", { cause: error })
        : error,
      context,
    ),
  );
  return app;
}

export type NetworkApi = ReturnType<typeof createApi>;
