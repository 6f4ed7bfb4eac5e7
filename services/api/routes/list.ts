/**
 * Lists, all alike. Every GET that answers an array of documents without parameters of its own has:
 *
 *   GET /volumes?state=ready&kind=plain        equal; one of several: state=ready&state=failed
 *   GET /volumes?search=debian                 somewhere in the document's text fields
 *   GET /volumes?sort=-createdAt               `-` descending; ties by id
 *   GET /volumes?limit=100                     then `Link: <...&cursor=...>; rel="next"` (RFC 8288)
 *
 * The body is the plain array, whole without `limit`; `X-Total-Count` is what the filters let
 * through. A cursor says where the page before ended, not how many rows there were: what is added or
 * removed meanwhile makes no other row appear twice or get lost.
 */
import type { RouteConfig } from "@hono/zod-openapi";
import { z } from "@hono/zod-openapi";
import type { MiddlewareHandler } from "hono";
import { KeelsonError } from "#lib/model/errors.ts";

const mostPerPage = 1000;
const longestText = 300;
const ownParameters = ["limit", "cursor", "search", "sort"] as const;

type Row = Readonly<Record<string, unknown>>;
type Key = string | number | null;

/** What a list's parameters may name. */
export interface ListSpec {
  /** Fields to filter and sort by. */
  readonly fields: readonly string[];
  /** Tells rows apart. */
  readonly id: string;
}

/** The list that a route's configuration describes; undefined: it is none, or has its own query. */
export function listOf(config: RouteConfig): ListSpec | undefined {
  if (config.method !== "get" || config.request?.query !== undefined) return undefined;
  const response = config.responses[200] as
    | { content?: Record<string, { schema?: unknown }> }
    | undefined;
  const schema = response?.content?.["application/json"]?.schema;
  if (!(schema instanceof z.ZodArray) || !(schema.element instanceof z.ZodObject)) return undefined;
  const shape = schema.element.shape as Record<string, z.ZodType>;
  const names = Object.keys(shape);
  const id = ["id", "mac", "name"].find((name) => names.includes(name));
  if (id === undefined) return undefined;
  const own = new Set<string>(ownParameters);
  return { id, fields: names.filter((name) => isScalar(shape[name]) && !own.has(name)) };
}

const scalars = new Set(["string", "number", "int", "boolean", "enum", "literal"]);

function isScalar(schema: z.ZodType): boolean {
  let inner: z.ZodType = schema;
  while (
    inner instanceof z.ZodNullable ||
    inner instanceof z.ZodOptional ||
    inner instanceof z.ZodDefault
  ) {
    inner = inner.unwrap() as z.ZodType;
  }
  return scalars.has(inner.def.type);
}

/** Its parameters and headers for the OpenAPI document. */
export function describeList({ fields }: ListSpec) {
  const query = (name: string, description: string, schema: object) => ({
    name,
    in: "query" as const,
    required: false,
    description,
    schema: schema as { type: "string" },
  });
  const sorts = fields.flatMap((name) => [name, `-${name}`]);
  return {
    parameters: [
      query("limit", "Rows of a page; without it, all.", {
        type: "integer",
        minimum: 1,
        maximum: mostPerPage,
      }),
      query("cursor", "From the Link header of the page before.", { type: "string" }),
      query("search", "Text in any field, without regard to case.", { type: "string" }),
      query("sort", "`-` for descending.", { type: "string", enum: sorts }),
      ...fields.map((name) =>
        query(name, "Only rows with this value, or one of these.", {
          type: "array",
          items: { type: "string" },
        }),
      ),
    ],
    headers: {
      "X-Total-Count": {
        description: "Rows that match; told when a parameter is given.",
        schema: { type: "integer" as const },
      },
      Link: { description: '`rel="next"`: the next page.', schema: { type: "string" as const } },
    },
  };
}

/** Cuts the array that the route answers to what was asked for. */
export function listParameters(spec: ListSpec): MiddlewareHandler {
  return async (context, next) => {
    const url = new URL(context.req.url);
    if (url.search === "") return next();
    const request = readRequest(spec, url.searchParams);
    await next();
    if (context.res.status !== 200) return;
    const rows = (await context.res.json()) as Row[];
    const { shown, total, nextCursor } = page(spec, rows, request);
    const headers = new Headers(context.res.headers);
    headers.delete("content-length");
    headers.set("x-total-count", String(total));
    if (nextCursor !== undefined) {
      url.searchParams.set("cursor", nextCursor);
      headers.set("link", `<${url.pathname}${url.search}>; rel="next"`);
    }
    context.res = undefined;
    context.res = new Response(JSON.stringify(shown), { status: 200, headers });
  };
}

export interface ListRequest {
  readonly limit: number | undefined;
  readonly cursor: string | undefined;
  readonly search: string | undefined;
  readonly sort: string | undefined;
  readonly filters: ReadonlyMap<string, ReadonlySet<string>>;
}

function invalid(field: string, message: string): KeelsonError {
  return new KeelsonError("INVALID_ARGUMENT", `${field}: ${message}`, {
    remedy: "See /api/v1/openapi.json for the parameters of each list.",
    issues: [{ field, message }],
  });
}

/** INVALID_ARGUMENT for a parameter that there isn't, or that can't be what it says. */
export function readRequest({ fields }: ListSpec, query: URLSearchParams): ListRequest {
  const filters = new Map<string, ReadonlySet<string>>();
  for (const name of new Set(query.keys())) {
    const values = query.getAll(name);
    if (values.some((value) => value.length > (name === "cursor" ? 2000 : longestText))) {
      throw invalid(name, "That is too long.");
    }
    if ((ownParameters as readonly string[]).includes(name)) {
      if (values.length > 1) throw invalid(name, "Give it once.");
    } else if (fields.includes(name)) filters.set(name, new Set(values));
    else throw invalid(name, `There is no such parameter; there are ${fields.join(", ")}.`);
  }
  const text = query.get("limit");
  const limit = text === null ? undefined : Number(text);
  if (limit !== undefined && !(/^\d+$/.test(text!) && limit >= 1 && limit <= mostPerPage)) {
    throw invalid("limit", `Give a whole number from 1 to ${mostPerPage}.`);
  }
  const sort = query.get("sort") ?? undefined;
  if (sort !== undefined && !fields.includes(sort.replace(/^-/, ""))) {
    throw invalid("sort", `One of ${fields.join(", ")}, with - before it for descending.`);
  }
  const cursor = query.get("cursor") ?? undefined;
  return { limit, cursor, sort, search: query.get("search") ?? undefined, filters };
}

export function page(spec: ListSpec, rows: readonly Row[], request: ListRequest) {
  const { limit, search, sort, filters } = request;
  const kept = rows.filter((row) => matches(row, filters) && contains(row, search));
  const order = sort ?? "";
  const before = request.cursor === undefined ? undefined : readCursor(request.cursor, order);
  if (sort === undefined && limit === undefined && before === undefined) {
    return { shown: kept, total: kept.length, nextCursor: undefined };
  }
  const sign = order.startsWith("-") ? -1 : 1;
  const field = order.replace(/^-/, "");
  // Without a sort, pages go by id: the list's own order may change from one page to the next.
  const keyOf = (row: Row): readonly [Key, string] => [
    field === "" ? null : keyFrom(row[field]),
    String(row[spec.id]),
  ];
  const rest = kept
    .map((row) => ({ row, key: keyOf(row) }))
    .filter(({ key }) => before === undefined || sign * compare(key, before) > 0)
    .sort((a, b) => sign * compare(a.key, b.key));
  const shown = limit === undefined ? rest : rest.slice(0, limit);
  const last = shown.at(-1);
  const more = last !== undefined && shown.length < rest.length;
  return {
    shown: shown.map(({ row }) => row),
    total: kept.length,
    nextCursor: more ? writeCursor(order, last.key) : undefined,
  };
}

function keyFrom(value: unknown): Key {
  if (typeof value === "boolean") return Number(value);
  return typeof value === "number" || typeof value === "string" ? value : null;
}

function matches(row: Row, filters: ListRequest["filters"]): boolean {
  return [...filters].every(([name, wanted]) => wanted.has(String(row[name] ?? null)));
}

function contains(row: Row, search: string | undefined): boolean {
  if (search === undefined || search === "") return true;
  const wanted = search.toLowerCase();
  return Object.values(row).some(
    (value) => typeof value === "string" && value.toLowerCase().includes(wanted),
  );
}

/** Null first, then numbers, then text without regard to case; ties by id. */
function compare(a: readonly [Key, string], b: readonly [Key, string]): number {
  return compareKeys(a[0], b[0]) || (a[1] < b[1] ? -1 : a[1] > b[1] ? 1 : 0);
}

function compareKeys(a: Key, b: Key): number {
  const rank = (key: Key) => (key === null ? 0 : typeof key === "number" ? 1 : 2);
  if (rank(a) !== rank(b)) return rank(a) - rank(b);
  if (typeof a === "number" && typeof b === "number") return a - b;
  const [left, right] = [String(a).toLowerCase(), String(b).toLowerCase()];
  return left < right ? -1 : left > right ? 1 : 0;
}

const cursorSchema = z.tuple([
  z.literal(1),
  z.string(),
  z.union([z.string(), z.number(), z.null()]),
  z.string(),
]);

function writeCursor(order: string, after: readonly [Key, string]): string {
  return Buffer.from(JSON.stringify([1, order, ...after])).toString("base64url");
}

function readCursor(text: string, order: string): readonly [Key, string] {
  let value: unknown;
  try {
    value = JSON.parse(Buffer.from(text, "base64url").toString("utf8"));
  } catch {
    throw invalid("cursor", "It is none of this API's: follow the Link header.");
  }
  const parsed = cursorSchema.safeParse(value);
  if (!parsed.success) {
    throw invalid("cursor", "It is none of this API's: follow the Link header.");
  }
  const [, its, key, id] = parsed.data;
  if (its === order) return [key, id];
  throw invalid("cursor", "It is of a list with another sort: begin without it.");
}
