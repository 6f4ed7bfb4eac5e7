/**
 * Lists, all alike: filters, sort and pages.
 *
 *   GET /volumes?state=ready&kind=plain        equal to one of them: state=ready&state=failed
 *   GET /volumes?search=debian                 somewhere in the document's text fields
 *   GET /volumes?sort=-createdAt               `-` descending; ties by id
 *   GET /volumes?limit=100                     then `Link: <...&cursor=...>; rel="next"` (RFC 8288)
 *
 * The body is the plain array, whole without `limit`. `X-Total-Count` is what the filters let
 * through. A cursor says where the page before ended, not how many there were: what is added or
 * removed meanwhile makes no other row appear twice or get lost.
 */
import { z } from "@hono/zod-openapi";
import { KeelsonError } from "#lib/model/errors.ts";
import type { ApiContext } from "./route.ts";

export const mostPerPage = 1000;

export interface ListSpec<Row> {
  /** What tells rows apart. */
  readonly id: (row: Row) => string;
  /** Fields to compare with, by name of the query parameter. */
  readonly filters: Readonly<Record<string, (row: Row) => string | boolean | null>>;
  readonly sorts: Readonly<Record<string, (row: Row) => string | number | null>>;
}

/** A list of documents whose fields bear the parameters' names. */
export function listOf<Row extends object>(
  id: keyof Row & string,
  fields: {
    readonly filters?: readonly (keyof Row & string)[];
    readonly sorts?: readonly (keyof Row & string)[];
  },
): ListSpec<Row> {
  const pick = (names: readonly (keyof Row & string)[]) =>
    Object.fromEntries(names.map((name) => [name, (row: Row) => row[name] as never]));
  return {
    id: (row) => String(row[id]),
    filters: pick(fields.filters ?? []),
    sorts: pick(fields.sorts ?? []),
  };
}

/** For `request.query` of a list's route. */
export function listQuery<Row>({ filters, sorts }: ListSpec<Row>) {
  const names = Object.keys(sorts).flatMap((name) => [name, `-${name}`]);
  const text = z.string().max(300);
  const filter = z.union([text, z.array(text).max(50)]).optional();
  return z.strictObject({
    limit: z.coerce
      .number("Give a number.")
      .int("Give a whole number.")
      .min(1, "At least 1.")
      .max(mostPerPage, `At most ${mostPerPage}.`)
      .optional(),
    cursor: z.string().max(1000).optional(),
    search: text.optional(),
    sort: z.enum(names as [string, ...string[]], `One of ${names.join(", ")}.`).optional(),
    ...(Object.fromEntries(Object.keys(filters).map((name) => [name, filter])) as Record<
      string,
      typeof filter
    >),
  });
}

export const listHeaders = {
  "X-Total-Count": { schema: { type: "integer" as const }, description: "Rows that match." },
  Link: { schema: { type: "string" as const }, description: 'rel="next": the next page.' },
};

export interface ListRequest {
  readonly limit?: number | undefined;
  readonly cursor?: string | undefined;
  readonly search?: string | undefined;
  readonly sort?: string | undefined;
  readonly [filter: string]: unknown;
}

type Key = string | number | null;
interface Cursor {
  readonly order: string;
  readonly after: readonly [Key, string];
}

/** One page of `rows`; sets the headers. INVALID_ARGUMENT for a cursor of another order. */
export function page<Row>(
  context: ApiContext,
  spec: ListSpec<Row>,
  rows: readonly Row[],
  query: ListRequest,
): Row[] {
  const { limit, cursor, search, sort, ...filters } = query;
  const kept = rows.filter((row) => matches(spec, row, filters) && contains(row, search));
  context.header("x-total-count", String(kept.length));
  const order = sort ?? "";
  const before = cursor === undefined ? undefined : readCursor(cursor, order);
  if (sort === undefined && limit === undefined && before === undefined) return kept;
  const descending = order.startsWith("-");
  const field = spec.sorts[order.replace(/^-/, "")];
  // Without a sort, pages go by id: the list's own order may change from one to the next.
  const keyOf = (row: Row): readonly [Key, string] => [field?.(row) ?? null, spec.id(row)];
  const sign = descending ? -1 : 1;
  const ordered = kept
    .map((row) => ({ row, key: keyOf(row) }))
    .sort((a, b) => sign * compare(a.key, b.key));
  const rest =
    before === undefined
      ? ordered
      : ordered.filter(({ key }) => sign * compare(key, before.after) > 0);
  const shown = limit === undefined ? rest : rest.slice(0, limit);
  const last = shown.at(-1);
  if (last !== undefined && shown.length < rest.length) {
    const url = new URL(context.req.url);
    url.searchParams.set("cursor", writeCursor({ order, after: last.key }));
    context.header("link", `<${url.pathname}${url.search}>; rel="next"`);
  }
  return shown.map(({ row }) => row);
}

function matches<Row>(spec: ListSpec<Row>, row: Row, filters: Record<string, unknown>): boolean {
  return Object.entries(filters).every(([name, wanted]) => {
    if (wanted === undefined) return true;
    const value = spec.filters[name]?.(row);
    return [wanted].flat().includes(String(value));
  });
}

function contains(row: unknown, search: string | undefined): boolean {
  if (search === undefined || search === "") return true;
  const wanted = search.toLowerCase();
  return Object.values(row as object).some(
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

function writeCursor({ order, after }: Cursor): string {
  return Buffer.from(JSON.stringify([1, order, ...after])).toString("base64url");
}

function readCursor(text: string, order: string): Cursor {
  const refuse = (message: string) =>
    new KeelsonError("INVALID_ARGUMENT", message, {
      remedy: "Follow the Link header of the page before, or begin without a cursor.",
    });
  let parsed: ReturnType<typeof cursorSchema.safeParse>;
  try {
    parsed = cursorSchema.safeParse(JSON.parse(Buffer.from(text, "base64url").toString("utf8")));
  } catch {
    throw refuse("The cursor is none of this API's.");
  }
  if (!parsed.success) throw refuse("The cursor is none of this API's.");
  const [, its, key, id] = parsed.data;
  if (its !== order) throw refuse("The cursor is of a list with another sort.");
  return { order: its, after: [key, id] };
}
