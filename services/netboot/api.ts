/** Control API on `<run>/api.sock`: api puts policy here and reads what was observed. */
import { Hono } from "hono";
import { HTTPException } from "hono/http-exception";
import { validator } from "hono/validator";
import { z } from "zod";
import { KeelsonError } from "#lib/model/errors.ts";
import { problemHandler } from "#lib/rpc/problem.ts";
import type { Netboot } from "./netboot.ts";
import { type NetbootConfig, netbootConfig } from "./schema.ts";

/** INVALID_ARGUMENT with every fault of the body, by its path. */
export function parseConfig(body: unknown): NetbootConfig {
  const parsed = netbootConfig.safeParse(body);
  if (parsed.success) return parsed.data;
  throw new KeelsonError("INVALID_ARGUMENT", `Netboot policy: ${z.prettifyError(parsed.error)}`, {
    operation: "put netboot policy",
    remedy: "Correct these fields and put it again.",
  });
}

export function createApi(netboot: Netboot, unexpected: (error: Error) => void) {
  const app = new Hono()
    .get("/v1/status", (context) => context.json(netboot.status()))
    .get("/v1/config", (context) => context.json(netboot.config()))
    .put("/v1/config", validator("json", parseConfig), async (context) => {
      await netboot.configure(context.req.valid("json"));
      return context.json(netboot.status());
    })
    .get("/v1/leases", (context) => context.json(netboot.leases()))
    .delete("/v1/leases/:ip", async (context) => {
      await netboot.deleteLease(context.req.param("ip"));
      return context.body(null, 204);
    })
    .get("/v1/clients", (context) => context.json(netboot.clients()));
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

export type NetbootApi = ReturnType<typeof createApi>;
