/** What every route shares: who may call it, where it came from, how it refuses. */
import { Readable } from "node:stream";
import type { HttpBindings } from "@hono/node-server";
import { getConnInfo } from "@hono/node-server/conninfo";
import { createRoute, OpenAPIHono, type RouteConfig, z } from "@hono/zod-openapi";
import type { Context, MiddlewareHandler } from "hono";
import { getCookie } from "hono/cookie";
import { HTTPException } from "hono/http-exception";
import type { AuditEvent } from "#lib/audit/chain.ts";
import { type Issue, KeelsonError } from "#lib/model/errors.ts";
import { problemHandler, problemOf } from "#lib/rpc/problem.ts";
import type { Sessions } from "../access.ts";
import { customRoles } from "../account-records.ts";
import type { Accounts } from "../accounts.ts";
import type { SessionInfo } from "../accounts-schema.ts";
import type { Audit } from "../audit.ts";
import type { Changes } from "../changes.ts";
import type { ClientRegistry } from "../clients.ts";
import type { ConditionBoard } from "../conditions.ts";
import type { DiskExports } from "../disk-exports.ts";
import type { Downloads } from "../downloads.ts";
import type { EventHub } from "../events.ts";
import type { HeadDelivery } from "../head-delivery.ts";
import type { Idempotency } from "../idempotency.ts";
import type { IdentityLogIn } from "../identity-log-in.ts";
import type { ImageImports } from "../image-import.ts";
import type { LogIns } from "../log-in.ts";
import type { NodeNetworkPeer } from "../node-network.ts";
import type { StorePeer } from "../peers.ts";
import { type Access, isPermission, type Permission, rolesWith } from "../permissions.ts";
import type { Policy } from "../policy.ts";
import type { Schedules } from "../schedules.ts";
import type { SnapshotViews } from "../snapshot-views.ts";
import type { Snapshots } from "../snapshots.ts";
import type { TaskList } from "../tasks.ts";
import type { TlsCertificates } from "../tls.ts";
import type { Tokens } from "../tokens.ts";
import type { TotpFactors } from "../totp.ts";
import type { Upgrades } from "../upgrades.ts";
import type { Views } from "../views.ts";
import { listOf, listParameters } from "./list.ts";
import { describeOperation, takesJson } from "./operation.ts";

export interface RouteSources {
  readonly policy: Policy;
  readonly sessions: Sessions;
  readonly logIns: LogIns;
  readonly accounts: Accounts;
  readonly tokens: Tokens;
  readonly totp: TotpFactors;
  readonly identityLogIn: IdentityLogIn;
  readonly audit: Audit;
  readonly headDelivery: HeadDelivery;
  readonly changes: Changes;
  readonly snapshots: Snapshots;
  readonly schedules: Schedules;
  readonly snapshotViews: SnapshotViews;
  readonly views: Views;
  readonly imports: ImageImports;
  readonly tasks: TaskList;
  readonly upgrades: Upgrades;
  readonly clients: ClientRegistry;
  readonly diskExports: DiskExports;
  readonly scrubs: Pick<StorePeer, "scrub" | "startScrub" | "stopScrub" | "setScrub">;
  readonly conditions: ConditionBoard;
  readonly downloads: Downloads;
  readonly nodeNetwork: NodeNetworkPeer;
  readonly hub: EventHub;
  readonly idempotency: Idempotency;
  /** Null: served without TLS. */
  readonly tls: TlsCertificates | null;
  /** True over TLS: the cookie is then bound to it. */
  readonly secure: boolean;
  readonly unexpected: (error: Error) => void;
}

export interface RouteVariables {
  session: SessionInfo;
  token: string;
  /** Of the API token used; null for a person's session. */
  tokenId: string | null;
  /** For the audit log: who it is about before there is a session, and more than the route says. */
  auditUser: string;
  auditDetail: string;
  /** Where the status doesn't say it: a log-in by redirection. */
  auditOutcome: "done" | "refused";
}
export type ApiContext = Context<{ Variables: RouteVariables }>;
export type ApiApp = OpenAPIHono<{ Variables: RouteVariables }>;

/** `__Host-`: only over TLS, for this host alone, and no sub-domain can set it. */
export function cookieName(secure: boolean): string {
  return secure ? "__Host-keelson" : "keelson";
}

/** A guard says whom it lets through, so that a test can find the route that has none. */
export interface Guard extends MiddlewareHandler<{ Variables: RouteVariables }> {
  readonly access: Access;
}

export function isGuard(handler: unknown): handler is Guard {
  return typeof handler === "function" && "access" in handler;
}

const safeMethods = new Set(["GET", "HEAD", "OPTIONS"]);

type RouterSources = Pick<
  RouteSources,
  "policy" | "sessions" | "tokens" | "audit" | "secure" | "unexpected" | "idempotency"
>;

export class Router {
  readonly app: ApiApp;
  readonly #operationIds = new Set<string>();
  readonly #from: Omit<RouterSources, "unexpected">;

  constructor(from: RouterSources) {
    this.#from = from;
    this.app = new OpenAPIHono<{ Variables: RouteVariables }>({
      defaultHook: (result) => {
        if (!result.success) throw explainIssues(result.error);
      },
    });
    this.app.onError((error, context) => {
      endUnreadConnection(context);
      return problemHandler(from.unexpected)(translate(error), context);
    });
  }

  /** `access` stands first, so that no route can be written without deciding it. */
  route<Config extends RouteConfig>(access: Access, config: Config) {
    const chain: MiddlewareHandler[] = [
      this.#guard(access, `${config.method.toUpperCase()} ${config.path}`),
    ];
    if (takesJson(config)) chain.push(jsonOnly);
    // Without an account there is nobody a key could belong to; a stream can't be remembered.
    const stream = config.request?.body !== undefined && !takesJson(config);
    if (config.method === "post" && access !== "anyone" && !stream) chain.push(this.#once());
    const list = listOf(config);
    if (list !== undefined) chain.push(listParameters(list));
    return createRoute({
      ...describeOperation(config, access, this.#operationIds),
      middleware: chain as never,
      security: access === "anyone" ? [] : [{ bearer: [] }, { cookie: [] }],
    } as unknown as Config);
  }

  /** Lets through whom `access` lets through, and has recorded what they do, or tried. */
  #guard(access: Access, route: string): Guard {
    const { audit } = this.#from;
    const check: MiddlewareHandler<{ Variables: RouteVariables }> = async (context, next) => {
      const { method } = context.req;
      const changes = !safeMethods.has(method);
      try {
        if (access !== "anyone") this.#authenticate(context);
        if (isPermission(access)) this.#authorise(context, access);
        // Deleting must be possible: it is how room is made for the log.
        if (changes && access !== "anyone" && method !== "DELETE") await audit.requireWritable();
      } catch (error) {
        // A browser that comes without a session is no event.
        const told = changes || context.req.header("authorization") !== undefined;
        const { status, code } = problemOf(error);
        if (told || status !== 401)
          void audit.record(auditEvent(context, access, route, status, code));
        throw error;
      }
      await next();
      const { status } = context.res;
      // A log-in may end with a GET: the identity provider sends the browser back with one.
      const logIn = context.get("auditOutcome") !== undefined;
      if (!changes && !logIn && status !== 403) return;
      const { error } = context;
      const code = error === undefined ? null : problemOf(error).code;
      const event = auditEvent(context, access, route, status, code, await createdId(context.res));
      // Without a user nothing was done yet: the first step of a log-in. Anybody could fill the log.
      if (access === "anyone" && event.outcome === "done" && event.user === null) return;
      const recorded = audit.record(event);
      // What was done is on the disk before it is answered; guesses aren't waited for.
      if (event.outcome === "done") await recorded;
    };
    return Object.assign(check, { access });
  }

  #once(): MiddlewareHandler<{ Variables: RouteVariables }> {
    return (context, next) =>
      this.#from.idempotency.around(context, context.get("session").user, next) as never;
  }

  #authenticate(context: ApiContext): void {
    const header = context.req.header("authorization");
    const bearer = header === undefined ? undefined : /^Bearer ([\w-]{16,})$/.exec(header)?.[1];
    const cookie =
      header === undefined ? getCookie(context, cookieName(this.#from.secure)) : undefined;
    const token = bearer ?? cookie;
    const caller = token === undefined ? undefined : this.#from.sessions.identify(token);
    if (token === undefined || caller === undefined) {
      throw new KeelsonError("UNAUTHENTICATED", "Log in first.", {
        remedy: "The session has ended, the token has expired or was revoked, or there was none.",
      });
    }
    if (cookie !== undefined) checkOrigin(context, true);
    const { info: session, tokenId } = caller;
    context.set("session", session);
    context.set("token", token);
    context.set("tokenId", tokenId);
    if (tokenId !== null) {
      // Not waited for: a request is answered also while the cluster store can't be written to.
      void this.#from.tokens.used(tokenId, callerAddress(context)).catch(() => {});
    }
    if (session.mustChangePassword && !mayWithOldPassword.test(context.req.path)) {
      throw new KeelsonError("PERMISSION_DENIED", "Your password must be changed first.", {
        object: session.user,
        remedy: "Set a new one: in the console, with `keelson password`, or PUT /session/password.",
      });
    }
  }

  #authorise(context: ApiContext, permission: Permission): void {
    const { user, permissions } = context.get("session");
    if (permissions.includes(permission)) return;
    const roles = rolesWith(permission, customRoles(this.#from.policy));
    throw new KeelsonError("PERMISSION_DENIED", `${user} has no permission ${permission}.`, {
      object: permission,
      remedy: `These roles have it: ${roles.join(", ")}. Ask an administrator for one.`,
    });
  }
}

/** Never from a body: what stands there may be secret. */
function auditEvent(
  context: ApiContext,
  access: Access,
  route: string,
  status: number,
  code: string | null,
  created: string | null = null,
): AuditEvent {
  const session = context.get("session") as SessionInfo | undefined;
  const tokenId = context.get("tokenId") as string | null | undefined;
  const named = Object.values(context.req.param()).join("/");
  const refused = status === 401 || status === 403 || status === 429;
  const detail = [code, context.get("auditDetail")].filter((each) => each != null).join(": ");
  return {
    user: session?.user ?? context.get("auditUser") ?? null,
    via: session === undefined ? "none" : tokenId ? `token:${tokenId}` : "session",
    address: callerAddress(context),
    action: route,
    permission: access,
    target: (named === "" ? created : named)?.slice(0, 300) ?? null,
    outcome: context.get("auditOutcome")
      ? context.get("auditOutcome")
      : refused
        ? "refused"
        : status >= 400
          ? "failed"
          : "done",
    status,
    detail: detail === "" ? null : detail.slice(0, 500),
  };
}

/** The id in the answer to a creation. */
async function createdId(response: Response): Promise<string | null> {
  if (response.status !== 201) return null;
  const document = (await response
    .clone()
    .json()
    .catch(() => null)) as { id?: unknown } | null;
  return typeof document?.id === "string" ? document.id : null;
}

/** The little that a session can do whose password must be changed first. */
const mayWithOldPassword = /\/session(\/password)?$/;

/**
 * A change with a cookie must come from our own pages. Browsers send Origin with each such request;
 * one without it is no browser's and has no business with a cookie.
 */
export function checkOrigin(context: ApiContext, required: boolean): void {
  if (safeMethods.has(context.req.method)) return;
  const origin = context.req.header("origin");
  if (origin === undefined && !required) return;
  if (origin !== undefined && hostOf(origin) === new URL(context.req.url).host) return;
  throw new KeelsonError("PERMISSION_DENIED", "The request did not come from this site.", {
    remedy: "Open the console by this node's own address.",
  });
}

function hostOf(origin: string): string | undefined {
  return URL.canParse(origin) ? new URL(origin).host : undefined;
}

/** For what a person does with their own account: an API token, once leaked, must not last. */
export function requirePerson(context: ApiContext): void {
  if (context.get("tokenId") === null) return;
  throw new KeelsonError("PERMISSION_DENIED", "An API token can't do that.", {
    remedy: "Log in as a person.",
  });
}

export function callerAddress(context: Context): string {
  return getConnInfo(context).remote.address ?? "unknown";
}

function invalid(message: string): KeelsonError {
  return new KeelsonError("INVALID_ARGUMENT", message, {
    remedy: "See /api/v1/openapi.json for what is taken.",
  });
}

/** A body that was refused half-read: no further request can follow it on this connection. */
function endUnreadConnection(context: Context): void {
  const incoming = (context.env as Partial<HttpBindings> | undefined)?.incoming;
  if (incoming === undefined || incoming.readableEnded || incoming.httpVersionMajor !== 1) return;
  if (!safeMethods.has(context.req.method)) context.header("connection", "close");
}

/** Hono's own errors, of which only a body that isn't JSON is expected. */
function translate(error: Error): Error {
  if (!(error instanceof HTTPException) || error.status !== 400) return error;
  return invalid("The body is not JSON.");
}

/** A browser's form or a forgotten header: said, rather than read as an empty body. */
const jsonOnly: MiddlewareHandler = async (context, next) => {
  const type = context.req.header("content-type") ?? "";
  if (!/^application\/([\w.-]+\+)?json\s*(;|$)/i.test(type)) {
    const given = type === "" ? "The request says no Content-Type" : `${type} is not taken here`;
    throw new KeelsonError("UNSUPPORTED_MEDIA_TYPE", `${given}.`, {
      remedy: "Send JSON, with Content-Type: application/json.",
    });
  }
  await next();
};

/** Every fault in one line: `name: A name is ...; pool.first: Give an IPv4 address`; and each alone. */
function explainIssues({ issues }: z.ZodError): KeelsonError {
  const found: Issue[] = issues.map(({ path, message }) => ({ field: path.join("."), message }));
  const line = found
    .map(({ field, message }) => (field === "" ? message : `${field}: ${message}`))
    .join("; ");
  return new KeelsonError("INVALID_ARGUMENT", line, {
    remedy: "See /api/v1/openapi.json for what is taken.",
    issues: found,
  });
}

/** `{200: json(schema, "What it is")}` */
export function json<Schema extends z.ZodType>(schema: Schema, description: string) {
  return { description, content: { "application/json": { schema } } };
}

export function body<Schema extends z.ZodType>(schema: Schema) {
  return { body: { required: true, content: { "application/json": { schema } } } };
}

export const noContent = { 204: { description: "Done." } };

export const idParameter = z.object({ id: z.string().max(200) });

/** Node's own stream where there is one: a web stream would copy each part once more. */
export function incomingStream(context: Context): Readable {
  const incoming = (context.env as Partial<HttpBindings> | undefined)?.incoming;
  if (incoming instanceof Readable) return incoming;
  const { body: web } = context.req.raw;
  if (web === null) throw new KeelsonError("INVALID_ARGUMENT", "The request has no body.");
  return Readable.from(web as unknown as AsyncIterable<Uint8Array>);
}

/** Its parts. Not destroyed with the loop: the refusal must still go out on the same socket. */
export function incomingBody(context: Context): AsyncIterable<Uint8Array> {
  return incomingStream(context).iterator({ destroyOnReturn: false });
}
