/** What every operation of the OpenAPI document says alike: its name, its errors, its headers. */
import type { OpenAPIHono, RouteConfig } from "@hono/zod-openapi";
import { z } from "@hono/zod-openapi";
import { errorCodes } from "#lib/rpc/problem.ts";
import { describeList, listOf } from "./list.ts";

type Registry = OpenAPIHono["openAPIRegistry"];

export const problemSchema = z
  .object({
    /** A name of the kind of problem, one for each code. */
    type: z.string(),
    status: z.int(),
    code: z.enum(errorCodes as [string, ...string[]]),
    /** What happened, with what. */
    title: z.string(),
    /** What can be done about it. */
    detail: z.string().optional(),
    /** Id, path or address that it is about. */
    object: z.string().optional(),
    /** Each fault of a request that was not understood. */
    errors: z.array(z.object({ field: z.string(), message: z.string() })).optional(),
  })
  .meta({ id: "Problem" });

const problem = (description: string) => ({
  description,
  content: { "application/problem+json": { schema: problemSchema } },
});

const idempotencyKey = {
  name: "Idempotency-Key",
  in: "header",
  required: false,
  description:
    "The same key with the same request is carried out once, and answered alike for 24 h.",
  schema: { type: "string", minLength: 1, maxLength: 255 },
};

export function takesJson({ request }: RouteConfig): boolean {
  return request?.body?.content !== undefined && "application/json" in request.body.content;
}

/** `config` with its name, summary and errors where it doesn't give its own. */
export function describeOperation<Config extends RouteConfig>(
  config: Config,
  access: string,
  taken: Set<string>,
): Config {
  const { method, path, request, responses } = config;
  const guarded = access !== "anyone";
  const list = listOf(config);
  const listed = list === undefined ? undefined : describeList(list);
  const keyed = method === "post" && guarded && (request?.body === undefined || takesJson(config));
  const success = Object.entries(responses).find(([status]) => status.startsWith("2"))?.[1];
  const noted = success as { description?: string } | undefined;
  const needs = guarded && access !== "account" ? `Needs the permission \`${access}\`. ` : "";
  const short = operationId(method, path);
  const id = config.operationId ?? (taken.has(short) ? longOperationId(method, path) : short);
  taken.add(id);
  return {
    ...config,
    operationId: id,
    summary: config.summary ?? summaryOf(method, path),
    description: needs + (config.description ?? noted?.description ?? ""),
    tags: config.tags ?? [path.split("/")[1]],
    ...(keyed ? { parameters: [...(config.parameters ?? []), idempotencyKey] } : {}),
    ...(listed === undefined ? {} : { parameters: listed.parameters }),
    responses: {
      ...(request === undefined
        ? {}
        : { 400: problem("It was not understood: `errors` says why.") }),
      ...(guarded ? { 401: problem("Log in first."), 403: problem("This account may not.") } : {}),
      ...(path.includes("{") ? { 404: problem("There is no such thing.") } : {}),
      ...(method === "get" ? {} : { 409: problem("What is there stands against it.") }),
      ...(takesJson(config)
        ? { 413: problem("The body is too large."), 415: problem("The body is not JSON.") }
        : {}),
      ...(keyed ? { 422: problem("The Idempotency-Key was used for another request.") } : {}),
      503: problem("A service that is needed does not answer."),
      default: problem("Any other problem."),
      ...responses,
      ...(listed === undefined
        ? {}
        : {
            200: { ...(responses[200] as object), headers: listed.headers },
            400: problem("A parameter was not understood."),
          }),
    },
  } as Config;
}

const verbs: Record<string, string> = { put: "set", patch: "change", delete: "delete" };

/** `GET /volumes` listVolumes, `POST /volumes` createVolume, `GET /volumes/{id}` getVolume. */
export function operationId(method: string, path: string): string {
  return joined(wordsOf(method, path));
}

/** For two that would be called alike: all of the path. */
function longOperationId(method: string, path: string): string {
  const segments = path.split("/").filter((segment) => segment !== "");
  const words = segments.map((part) => (part.startsWith("{") ? `by-${part.slice(1, -1)}` : part));
  return joined([method, ...words.flatMap((word) => word.split(/[-.]/))]);
}

function joined(words: readonly string[]): string {
  return words
    .map((word, index) => (index === 0 ? word : `${word[0].toUpperCase()}${word.slice(1)}`))
    .join("");
}

function summaryOf(method: string, path: string): string {
  const [verb, ...nouns] = wordsOf(method, path);
  return `${verb[0].toUpperCase()}${verb.slice(1)} ${nouns.join(" ")}`;
}

const singulars = new Set(["events", "settings", "tls"]);

function wordsOf(method: string, path: string): string[] {
  const segments = path.split("/").filter((segment) => segment !== "");
  const last = segments.at(-1) ?? "";
  const names = segments.filter((segment) => !segment.startsWith("{"));
  const plural = (name: string) => name.endsWith("s") && !singulars.has(name);
  const singular = (name: string) =>
    name.endsWith("ies") ? `${name.slice(0, -3)}y` : plural(name) ? name.slice(0, -1) : name;
  const nouns = names.map((name, index) => {
    const isLast = index === names.length - 1;
    const whole = isLast && name === last && (method === "get" || method === "delete");
    return whole ? name : singular(name);
  });
  const split = (name: string) => name.split(/[-.]/);
  // A verb at a thing: `POST /tasks/{id}/cancel`.
  if (method === "post" && !plural(last) && segments.length > 1 && !last.startsWith("{")) {
    return [...split(last), ...nouns.slice(0, -1).flatMap(split)];
  }
  const verb =
    method === "get"
      ? plural(last)
        ? "list"
        : "get"
      : method === "post"
        ? "create"
        : (verbs[method] ?? method);
  return [verb, ...nouns.flatMap(split)];
}

export function registerComponents(registry: Registry): void {
  registry.registerComponent("securitySchemes", "bearer", { type: "http", scheme: "bearer" });
  registry.registerComponent("securitySchemes", "cookie", {
    type: "apiKey",
    in: "cookie",
    name: "__Host-keelson",
  });
}

export function openApiDescription(version: string) {
  return {
    openapi: "3.1.0",
    info: {
      title: "Keelson",
      version,
      description: "The API of a Keelson node. Errors are problem documents (RFC 9457).",
      license: { name: "Apache-2.0", identifier: "Apache-2.0" },
    },
    servers: [{ url: "/api/v1" }],
  };
}

/** Methods of the routes that `path` would match; empty: no route has this path. */
export function allowedMethods(
  routes: readonly { readonly method: string; readonly path: string }[],
  path: string,
): string[] {
  const found = new Set<string>();
  for (const route of routes) {
    if (route.method === "ALL") continue;
    const pattern = route.path
      .split("/")
      .map((part) =>
        part.startsWith(":") ? "[^/]+" : part.replaceAll(/[.*+?^${}()|[\]\\]/g, "\\$&"),
      )
      .join("/");
    if (new RegExp(`^${pattern}$`).test(path)) found.add(route.method);
  }
  return [...found].sort();
}
