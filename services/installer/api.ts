/**
 * The installer's unix socket: the console shows the view and gives answers.
 *
 *     GET  /v1/view?after=N     InstallerView     waits until it is another than N
 *     PUT  /v1/attended         {attended}        a person answers: media are not looked at
 *     POST /v1/plan             {text} -> PlanView
 *     POST /v1/network-test     {text} -> Probe[]
 *     GET  /v1/media            MediumView[]
 *     POST /v1/answers          {device, text} -> {place}
 *     POST /v1/install          {text} -> 202     the view tells what becomes of it
 *     POST /v1/power            {action}
 */
import { Hono } from "hono";
import { validator } from "hono/validator";
import { z } from "zod";
import { KeelsonError } from "#lib/model/errors.ts";
import { problemHandler } from "#lib/rpc/problem.ts";
import type { Board } from "./board.ts";
import type { Installer } from "./installer.ts";
import { answersBody, attendedBody, powerBody, saveBody, viewQuery } from "./schema.ts";

function parse<Schema extends z.ZodType>(schema: Schema) {
  return (body: unknown): z.output<Schema> => {
    const parsed = schema.safeParse(body);
    if (parsed.success) return parsed.data;
    throw new KeelsonError("INVALID_ARGUMENT", z.prettifyError(parsed.error).replaceAll("\n", " "));
  };
}

export function createInstallerApp(installer: Installer, unexpected: (error: Error) => void) {
  const app = new Hono()
    .get("/v1/view", validator("query", parse(viewQuery)), async (context) =>
      context.json(await installer.board.next(context.req.valid("query").after)),
    )
    .put("/v1/attended", validator("json", parse(attendedBody)), (context) => {
      installer.attend(context.req.valid("json").attended);
      return context.json({});
    })
    .post("/v1/plan", validator("json", parse(answersBody)), async (context) =>
      context.json(await installer.plan(context.req.valid("json").text)),
    )
    .post("/v1/network-test", validator("json", parse(answersBody)), async (context) =>
      context.json(await installer.testNetwork(context.req.valid("json").text)),
    )
    .get("/v1/media", async (context) => context.json(await installer.media()))
    .post("/v1/answers", validator("json", parse(saveBody)), async (context) =>
      context.json({ place: await installer.save(context.req.valid("json")) }),
    )
    .post("/v1/install", validator("json", parse(answersBody)), (context) => {
      installer.give(context.req.valid("json").text);
      return context.json({}, 202);
    })
    .post("/v1/power", validator("json", parse(powerBody)), async (context) => {
      await installer.power(context.req.valid("json").action);
      return context.json({}, 202);
    });
  app.onError(problemHandler(unexpected));
  return app;
}

/** Where nothing can be installed: the view with the reason, and nothing else. */
export function createFaultApp(board: Board, unexpected: (error: Error) => void) {
  const app = new Hono().get("/v1/view", validator("query", parse(viewQuery)), async (context) =>
    context.json(await board.next(context.req.valid("query").after)),
  );
  app.onError(problemHandler(unexpected));
  return app;
}

export type InstallerApi = ReturnType<typeof createInstallerApp>;
