/** The document against the routes, and against the OpenAPI 3.1 specification's rules. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createRouter } from "./app.ts";
import { TestNode } from "./platform.fixture.ts";
import { isGuard, type RouteSources } from "./routes/route.ts";

// biome-ignore lint/suspicious/noExplicitAny: the document is what is under test.
type Json = any;

const node = new TestNode();
let document: Json;
beforeAll(async () => {
  await node.start();
  document = (await node.call("GET", "/openapi.json")).body;
});
afterAll(() => node.remove());

const router = createRouter({
  sessions: { find: () => undefined },
  views: {},
  secure: true,
  unexpected: () => {},
  version: "test",
} as unknown as RouteSources & { version: string });
const routes = router.app.routes.filter(({ method }) => method !== "ALL");
const methods = ["get", "put", "post", "delete", "patch", "head", "options", "trace"];

function operations(): [string, Json, string, string][] {
  return Object.entries<Json>(document.paths).flatMap(([path, item]) =>
    Object.keys(item)
      .filter((key) => methods.includes(key))
      .map((method): [string, Json, string, string] => [
        `${method.toUpperCase()} ${path}`,
        item[method],
        method,
        path,
      ]),
  );
}

function* values(value: Json): Generator<Json> {
  if (typeof value !== "object" || value === null) return;
  yield value;
  for (const inner of Object.values(value)) yield* values(inner);
}

function resolve(reference: string): Json {
  return reference
    .replace(/^#\//, "")
    .split("/")
    .reduce((place, name) => place?.[name.replaceAll("~1", "/").replaceAll("~0", "~")], document);
}

describe("the document", () => {
  test("has each route, and no other", () => {
    const described = new Set(operations().map(([name]) => name));
    const served = new Set(
      routes.map(({ method, path }) => `${method} ${path.replaceAll(/:(\w+)/g, "{$1}")}`),
    );
    expect(served.size).toBeGreaterThan(40);
    expect([...served].filter((name) => !described.has(name))).toEqual([]);
    expect([...described].filter((name) => !served.has(name))).toEqual([]);
  });

  test("is OpenAPI 3.1 with title, version, licence, server and both ways to be known", () => {
    expect(document.openapi).toMatch(/^3\.1\.\d+$/);
    expect(document.info).toMatchObject({ title: "Keelson", license: { name: "Apache-2.0" } });
    expect(document.info.version).toBeTypeOf("string");
    expect(document.servers).toEqual([{ url: "/api/v1" }]);
    expect(Object.keys(document.components.securitySchemes).sort()).toEqual(["bearer", "cookie"]);
  });

  test("refers only to what it has", () => {
    const dangling = [...values(document)]
      .filter((value) => typeof value.$ref === "string")
      .map(({ $ref }) => $ref as string)
      .filter((reference) => !reference.startsWith("#/") || resolve(reference) === undefined);
    expect(dangling).toEqual([]);
  });

  test("has schemas of JSON Schema 2020-12: none of 3.0's words, only types that there are", () => {
    const types = new Set(["null", "boolean", "object", "array", "number", "string", "integer"]);
    for (const schema of values(document.components.schemas)) {
      expect(schema).not.toHaveProperty("nullable", true);
      expect(typeof schema.exclusiveMinimum).not.toBe("boolean");
      if (typeof schema.type === "string" && !("properties" in document.components.schemas)) {
        expect(types).toContain(schema.type);
      }
      if (Array.isArray(schema.required)) {
        for (const name of schema.required) expect(name).toBeTypeOf("string");
      }
    }
  });
});

describe("each operation", () => {
  test("has an id of its own, a summary and a tag", () => {
    const all = operations();
    const ids = all.map(([, { operationId }]) => operationId);
    expect(ids.filter((id, index) => ids.indexOf(id) !== index)).toEqual([]);
    for (const [name, operation] of all) {
      expect(operation.operationId, name).toMatch(/^[a-z][A-Za-z0-9]+$/);
      expect(operation.summary, name).toMatch(/^[A-Z].{3,}/);
      expect(operation.tags?.length, name).toBe(1);
    }
  });

  test("says who may call it, as its guard does", () => {
    const access = new Map(
      routes.flatMap(({ method, path, handler }) =>
        isGuard(handler)
          ? [[`${method} ${path.replaceAll(/:(\w+)/g, "{$1}")}`, handler.access] as const]
          : [],
      ),
    );
    for (const [name, { security, description }] of operations()) {
      const wanted = access.get(name as `${string} ${string}`);
      expect(security, name).toEqual(wanted === "anyone" ? [] : [{ bearer: [] }, { cookie: [] }]);
      if (wanted?.includes(":")) expect(description, name).toContain(`\`${wanted}\``);
    }
  });

  test("has what it answers, and its errors as problem documents", () => {
    for (const [name, { responses, security }, method, path] of operations()) {
      const good = Object.keys(responses).filter((status) => /^[23]\d\d$/.test(status));
      expect(good.length, name).toBeGreaterThan(0);
      const errors = Object.keys(responses).filter((status) => !good.includes(status));
      const least = ["default", "503", ...(security.length > 0 ? ["401", "403"] : [])];
      if (path.includes("{")) least.push("404");
      if (method !== "get") least.push("409");
      expect(errors, name).toEqual(expect.arrayContaining(least));
      for (const status of errors) {
        const { content, description } = responses[status];
        expect(description, `${name} ${status}`).toBeTypeOf("string");
        const schema = content?.["application/problem+json"]?.schema;
        expect(schema, `${name} ${status}`).toEqual({ $ref: "#/components/schemas/Problem" });
      }
    }
  });

  test("declares the parameters that its path has, and no others in it", () => {
    for (const [name, { parameters = [] }, , path] of operations()) {
      const named = [...path.matchAll(/\{(\w+)\}/g)].map(([, text]) => text).sort();
      const declared = parameters
        .filter((parameter: Json) => parameter.in === "path")
        .map((parameter: Json) => parameter.name)
        .sort();
      expect(declared, name).toEqual(named);
      for (const parameter of parameters) {
        if (parameter.in === "path") expect(parameter.required, name).toBe(true);
        expect(parameter.schema, `${name} ${parameter.name}`).toBeTypeOf("object");
      }
      const keys = parameters.map((each: Json) => `${each.in} ${each.name}`);
      expect(new Set(keys).size, name).toBe(keys.length);
    }
  });

  test("takes an Idempotency-Key where it makes something", () => {
    const keyed = operations()
      .filter(([, { parameters = [] }]) =>
        parameters.some(({ name }: Json) => name === "Idempotency-Key"),
      )
      .map(([name]) => name);
    expect(keyed).toEqual(expect.arrayContaining(["POST /volumes", "POST /exports"]));
    expect(keyed.every((name) => name.startsWith("POST "))).toBe(true);
  });

  test("pages, sorts and filters where it lists", () => {
    const lists = operations().filter(
      ([, { responses, parameters = [] }]) =>
        responses[200]?.content?.["application/json"]?.schema?.items?.$ref !== undefined &&
        !parameters.some((each: Json) => each.in === "query" && each.name === "since"),
    );
    expect(lists.length).toBeGreaterThan(8);
    for (const [name, { parameters = [], responses }] of lists) {
      const names = parameters.map((each: Json) => each.name);
      expect(names, name).toEqual(expect.arrayContaining(["limit", "cursor"]));
      expect(Object.keys(responses[200].headers ?? {}), name).toContain("Link");
    }
  });
});
