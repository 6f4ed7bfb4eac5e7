/**
 * `<run>/console.sock`, mode 0600: for root alone, which is who stands at this node's own screen.
 * netboot may talk to internal.sock; nobody but the console may set a password without knowing one.
 *
 *     GET  /v1/overview                Overview
 *     POST /v1/admin-password          {password, removeSecondFactor}   all sessions of admin end
 *     POST /v1/admin-password/check    {password}: 204, UNAUTHENTICATED, RATE_LIMITED
 *     POST /v1/audit                   LocalAction: 204 when it is on the disk
 *     POST /v1/support-bundle          {file}: {token}   GET /api/v1/support-bundle/{token}, once
 */
import { Hono } from "hono";
import { validator } from "hono/validator";
import { z } from "zod";
import { KeelsonError } from "#lib/model/errors.ts";
import { hashPasswordAsync, verifyPassword } from "#lib/password/password.ts";
import { problemHandler } from "#lib/rpc/problem.ts";
import type { Sessions } from "./access.ts";
import { firstUser } from "./accounts.ts";
import type { Audit } from "./audit.ts";
import { localActionSchema } from "./audit-schema.ts";
import type { Clock } from "./clock.ts";
import type { ConditionBoard } from "./conditions.ts";
import type { Downloads } from "./downloads.ts";
import { forgetKeysIn } from "./identity-records.ts";
import { LogInLimiter } from "./log-in-limiter.ts";
import type { Policy } from "./policy.ts";
import type { Condition, Node } from "./schema.ts";
import type { Views } from "./views.ts";

export interface ConsoleDoorOptions {
  readonly policy: Policy;
  readonly sessions: Sessions;
  readonly views: Views;
  readonly conditions: ConditionBoard;
  readonly downloads: Downloads;
  readonly audit: Pick<Audit, "record">;
  readonly clock: Clock;
  readonly leafFingerprint: () => string | null;
}

/** What the status screen shows of api. */
export interface Overview {
  readonly node: Node;
  /** SHA-256 of the certificate that browsers are shown; `node` has its CA's. Null without TLS. */
  readonly leafFingerprint: string | null;
  /** Those that are there, and not muted. */
  readonly conditions: readonly Condition[];
}

const newPassword = z.strictObject({
  password: z.string().min(8, "A password has at least 8 characters.").max(1024),
  removeSecondFactor: z.boolean().default(false),
});
const givenPassword = z.strictObject({ password: z.string().max(1024) });
const supportBundle = z.strictObject({ file: z.string().regex(/^[\w.-]{1,100}$/) });

function parse<Schema extends z.ZodType>(schema: Schema) {
  return (body: unknown): z.output<Schema> => {
    const parsed = schema.safeParse(body);
    if (parsed.success) return parsed.data;
    throw new KeelsonError("INVALID_ARGUMENT", z.prettifyError(parsed.error).replaceAll("\n", " "));
  };
}

export function createConsoleApp(options: ConsoleDoorOptions, unexpected: (error: Error) => void) {
  const { policy, sessions, views, conditions, downloads, audit, clock, leafFingerprint } = options;
  const limiter = new LogInLimiter(clock);
  const app = new Hono()
    .get("/v1/overview", (context) => {
      const there = conditions
        .list()
        .filter(({ status, mutedUntil }) => status === "true" && mutedUntil === null);
      return context.json<Overview>({
        node: views.node(),
        leafFingerprint: leafFingerprint(),
        conditions: there,
      });
    })
    .post("/v1/admin-password", validator("json", parse(newPassword)), async (context) => {
      const { password, removeSecondFactor } = context.req.valid("json");
      const passwordHash = await hashPasswordAsync(password);
      const passwordChangedAt = clock.now();
      await policy.change((draft) => {
        const before = policy.get("user", firstUser);
        draft.put("user", {
          ...before,
          ...{ passwordHash, passwordChangedAt, mustChangePassword: false, disabled: false },
          ...(removeSecondFactor ? { totp: null } : {}),
        });
        if (removeSecondFactor) forgetKeysIn(draft, policy, firstUser);
        sessions.endAllIn(draft, firstUser);
      });
      return context.body(null, 204);
    })
    .post("/v1/admin-password/check", validator("json", parse(givenPassword)), async (context) => {
      const { password } = context.req.valid("json");
      const record = policy.get("user", firstUser);
      await limiter.attempt(
        { address: "console", account: firstUser },
        async () =>
          record.passwordHash !== null && (await verifyPassword(password, record.passwordHash)),
      );
      return context.body(null, 204);
    })
    .post("/v1/support-bundle", validator("json", parse(supportBundle)), (context) =>
      context.json({ token: downloads.offer(context.req.valid("json").file) }),
    )
    .post("/v1/audit", validator("json", parse(localActionSchema)), async (context) => {
      const local = { user: null, address: "local", permission: "anyone", status: 0 };
      await audit.record({ ...local, ...context.req.valid("json") });
      return context.body(null, 204);
    });
  app.onError(problemHandler(unexpected));
  return app;
}

export type ConsoleApi = ReturnType<typeof createConsoleApp>;
