import { readdirSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { setTimeout as delay } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { EmbeddedStore } from "#lib/cluster-store/embedded.ts";
import { problemType } from "#lib/rpc/problem.ts";
import { Journal } from "./journal.ts";
import { TestNode } from "./platform.fixture.ts";
import { Policy } from "./policy.ts";
import type { Image, Task } from "./schema.ts";
import { interrupted } from "./tasks.ts";

const node = new TestNode();
beforeAll(() => node.start());
afterAll(() => node.remove());

const volume = (name: string) => ({ name, sizeBytes: 1 << 20 });

describe("problem documents", () => {
  const raw = (method: string, path: string, body?: string, headers: object = {}) =>
    fetch(`${node.http}/api/v1${path}`, {
      method,
      headers: { authorization: `Bearer ${node.token}`, ...headers },
      ...(body === undefined ? {} : { body }),
    });
  const json = { "content-type": "application/json" };

  test.each<[string, number, string, () => Promise<Response>]>([
    ["a path that there isn't", 404, "NOT_FOUND", () => raw("GET", "/nonsense")],
    ["a thing that there isn't", 404, "NOT_FOUND", () => raw("GET", "/volumes/x")],
    ["another method", 405, "METHOD_NOT_ALLOWED", () => raw("PUT", "/volumes", "{}", json)],
    ["another method on a thing", 405, "METHOD_NOT_ALLOWED", () => raw("POST", "/volumes/x")],
    [
      "a body too large",
      413,
      "PAYLOAD_TOO_LARGE",
      () => raw("POST", "/volumes", `"${"x".repeat(2 << 20)}"`, json),
    ],
    [
      "a form",
      415,
      "UNSUPPORTED_MEDIA_TYPE",
      () => raw("POST", "/volumes", "name=a", { "content-type": "text/plain" }),
    ],
    ["no body at all", 415, "UNSUPPORTED_MEDIA_TYPE", () => raw("POST", "/volumes")],
    ["no JSON", 400, "INVALID_ARGUMENT", () => raw("POST", "/volumes", "{", json)],
    ["no log-in", 401, "UNAUTHENTICATED", () => fetch(`${node.http}/api/v1/volumes`)],
  ])("%s is %i %s", async (_, status, code, send) => {
    const answer = await send();
    expect(answer.status).toBe(status);
    expect(answer.headers.get("content-type")).toContain("application/problem+json");
    const body = await answer.json();
    expect(body).toMatchObject({ status, code, type: problemType(code as never) });
    expect(body.title).toMatch(/\.$/);
    if (status === 405) expect(answer.headers.get("allow")).toMatch(/^[A-Z, ]+$/);
  });

  test("every fault of a body is named by its field", async () => {
    const { body } = await node.call("POST", "/volumes", { name: "a b", sizeBytes: 3, more: 1 });
    expect(body.type).toBe("tag:keelson.org,2026:problem:invalid-argument");
    const fields = body.errors.map(({ field }: { field: string }) => field);
    expect(fields).toEqual(expect.arrayContaining(["name", "sizeBytes", ""]));
  });

  test("methods of a path are told: those that it has", async () => {
    const { headers } = await node.call("PUT", "/volumes/x", {});
    expect(headers.get("allow")).toBe("DELETE, GET, PATCH");
  });
});

describe("lists", () => {
  const names = Array.from({ length: 23 }, (_, index) => `page-${String(index).padStart(2, "0")}`);
  beforeAll(async () => {
    for (const name of names) await node.call("POST", "/images", { name });
  });
  const follow = async (
    path: string,
    between: (page: number) => Promise<void> = async () => {},
  ) => {
    const pages: string[][] = [];
    for (let next: string | undefined = path; next !== undefined; ) {
      const { status, body, headers } = await node.call("GET", next);
      expect(status).toBe(200);
      pages.push(body.map(({ name }: { name: string }) => name));
      next = /<\/api\/v1([^>]+)>; rel="next"/.exec(headers.get("link") ?? "")?.[1];
      await between(pages.length);
    }
    return pages;
  };

  test("without a parameter the whole list, as ever", async () => {
    const { body, headers } = await node.call("GET", "/images");
    expect(body).toHaveLength(names.length);
    expect(headers.get("link")).toBeNull();
  });

  test("pages hold each row once, in order, with the total", async () => {
    const pages = await follow("/images?sort=name&limit=10");
    expect(pages.map(({ length }) => length)).toEqual([10, 10, 3]);
    expect(pages.flat()).toEqual(names);
    const { headers } = await node.call("GET", "/images?limit=10");
    expect(headers.get("x-total-count")).toBe("23");
    expect((await follow("/images?limit=7")).flat().sort()).toEqual(names);
    expect((await follow("/images?sort=-name&limit=5")).flat()).toEqual(names.toReversed());
  });

  test("what comes and goes between pages makes no other row appear twice or get lost", async () => {
    const made: string[] = [];
    const pages = await follow("/images?sort=name&limit=8", async (count) => {
      const { body } = await node.call("POST", "/images", { name: `a-before-${count}` });
      made.push(body.id);
      if (count === 2) await node.call("DELETE", `/images/${made[0]}`);
    });
    expect(pages.flat()).toEqual(names);
    for (const id of made.slice(1)) await node.call("DELETE", `/images/${id}`);
  });

  test("filters and search", async () => {
    const of = async (query: string) => (await node.call("GET", `/images?${query}`)).body;
    expect(await of("state=uploading")).toHaveLength(names.length);
    expect(await of("state=ready")).toEqual([]);
    expect(await of("state=ready&state=uploading&name=page-03")).toHaveLength(1);
    expect(await of("search=PAGE-1")).toHaveLength(10);
    expect(await of("volumeId=null&limit=2")).toHaveLength(2);
  });

  test.each([
    ["limit=0", "limit"],
    ["limit=1001", "limit"],
    ["limit=1e2", "limit"],
    ["limit=5&limit=6", "limit"],
    ["sort=secret", "sort"],
    ["cursor=nonsense", "cursor"],
    ["cursor=W10", "cursor"],
    [`search=${"x".repeat(301)}`, "search"],
    ["colour=red", "colour"],
  ])("%s is refused by name", async (query, field) => {
    const { status, body } = await node.call("GET", `/images?${query}`);
    expect([status, body.errors[0].field]).toEqual([400, field]);
  });

  test("a cursor is of its own order", async () => {
    const { headers } = await node.call("GET", "/images?sort=name&limit=2");
    const cursor = /cursor=([^&>]+)/.exec(headers.get("link") ?? "")![1];
    const { status } = await node.call("GET", `/images?sort=createdAt&limit=2&cursor=${cursor}`);
    expect(status).toBe(400);
  });
});

describe("Idempotency-Key", () => {
  const post = (key: string, body: unknown, path = "/volumes") =>
    node.call("POST", path, body, { "idempotency-key": key });

  test("the same request again is answered alike and done once", async () => {
    const first = await post('"k1"', volume("once"));
    const again = await post("k1", volume("once"));
    expect([first.status, again.status]).toEqual([201, 201]);
    expect(again.body).toEqual(first.body);
    expect(first.headers.get("idempotent-replayed")).toBeNull();
    expect(again.headers.get("idempotent-replayed")).toBe("true");
    expect((await node.call("GET", "/volumes?name=once")).body).toHaveLength(1);
  });

  test("another request under the key is 422, to the same path or another", async () => {
    await post("k2", volume("two"));
    expect((await post("k2", volume("three"))).body.code).toBe("IDEMPOTENCY_KEY_REUSED");
    expect((await post("k2", { name: "two" }, "/images")).status).toBe(422);
    expect((await node.call("GET", "/volumes?name=three")).body).toEqual([]);
  });

  test("at the same time: one is carried out, the others wait for its answer", async () => {
    const answers = await Promise.all(
      Array.from({ length: 6 }, () => post("k3", volume("at-once"))),
    );
    expect(answers.map(({ status }) => status)).toEqual(Array(6).fill(201));
    expect(new Set(answers.map(({ body }) => body.id)).size).toBe(1);
    const replayed = answers.filter(({ headers }) => headers.has("idempotent-replayed"));
    expect(replayed).toHaveLength(5);
  });

  test("a refusal is remembered too; a log-in that is missing isn't", async () => {
    await node.call("POST", "/volumes", volume("taken"));
    expect((await post("k4", volume("taken"))).status).toBe(409);
    const { body } = await node.call("GET", "/volumes?name=taken");
    await node.call("DELETE", `/volumes/${body[0].id}`);
    expect((await post("k4", volume("taken"))).headers.get("idempotent-replayed")).toBe("true");
    const without = await node.call("POST", "/volumes", volume("k5"), {
      "idempotency-key": "k5",
      authorization: "Bearer aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    });
    expect(without.status).toBe(401);
    expect((await post("k5", volume("k5"))).status).toBe(201);
  });

  test("a key is one account's own", async () => {
    const user = await node.call("POST", "/users", {
      id: "other",
      password: "another long one",
      mustChangePassword: false,
      roles: ["storage"],
    });
    expect(user.body).toMatchObject({ id: "other" });
    const token = await node.logIn("other", "another long one");
    await post("k6", volume("mine"));
    const other = await node.call("POST", "/volumes", volume("theirs"), {
      "idempotency-key": "k6",
      authorization: `Bearer ${token}`,
    });
    expect([other.status, other.body.name]).toEqual([201, "theirs"]);
  });

  test.each(["", "x".repeat(256), "two words", 'a"b'])("%j is no key", async (key) => {
    expect((await post(key, volume("never"))).status).toBe(400);
  });

  test("the answer outlasts a restart, with its secret, which stands nowhere in plain text", async () => {
    const made = (await node.call("POST", "/volumes", volume("for-export"))).body;
    const body = {
      name: "kept",
      volumeId: made.id,
      initiators: ["iqn.2026-11.org.example:a"],
    };
    const first = await post("k7", body, "/exports");
    expect(first.body.chapSecret).toHaveLength(24);
    await node.restart();
    const again = await post("k7", body, "/exports");
    expect(again.body).toEqual(first.body);
    expect(node.holding(first.body.chapSecret)).toEqual([]);
  });

  test("a request that a crash cut off is not repeated blindly", async () => {
    const first = await post("k8", volume("cut-off"));
    await node.call("DELETE", `/volumes/${first.body.id}`);
    await node.stop();
    const database = new DatabaseSync(join(node.state, "api", "journal.sqlite"));
    database.exec("UPDATE answer SET value = NULL WHERE key = 'k8'");
    database.close();
    await node.start();
    const { status, body } = await post("k8", volume("cut-off"));
    expect([status, body.code]).toEqual([409, "CONFLICT"]);
    expect(body.detail).toMatch(/Look whether it happened/);
    expect((await node.call("GET", "/volumes?name=cut-off&state=creating")).body).toEqual([]);
  });
});

describe("tasks", () => {
  const upload = async (name: string) => {
    const image = (await node.call("POST", "/images", { name })).body as Image;
    let push: ReadableStreamDefaultController<Uint8Array> | undefined;
    const body = new ReadableStream<Uint8Array>({
      start: (controller) => {
        push = controller;
        controller.enqueue(new Uint8Array(2 << 20));
      },
    });
    const answer = fetch(`${node.http}/api/v1/images/${image.id}/data`, {
      method: "PUT",
      headers: {
        authorization: `Bearer ${node.token}`,
        "content-type": "application/octet-stream",
      },
      body,
      duplex: "half",
    } as RequestInit).catch(() => undefined);
    const task = async (): Promise<Task | undefined> =>
      (await node.call("GET", `/tasks?subject=${image.id}`)).body[0];
    await expect.poll(task).toMatchObject({ state: "running", phase: "upload" });
    return { image, task, answer, push: () => push };
  };

  test("an upload whose sender has gone silent is cancelled, and nothing of it is left", async () => {
    const { image, task, answer } = await upload("silent");
    const spool = join(node.state, "spool");
    await expect.poll(() => readdirSync(spool)).toEqual([expect.stringContaining(image.id)]);
    const { status, body } = await node.call("POST", `/tasks/${(await task())!.id}/cancel`);
    expect([status, body.state]).toEqual([202, "running"]);
    await expect.poll(task).toMatchObject({ state: "cancelled", failure: /cancelled/ });
    expect(readdirSync(spool)).toEqual([]);
    expect((await node.call("GET", `/images/${image.id}`)).body).toMatchObject({ state: "failed" });
    const again = await node.call("POST", `/tasks/${(await task())!.id}/cancel`);
    expect(again.status).toBe(202);
    await Promise.race([answer, delay(2000)]);
  });

  test("a restart ends it as interrupted, and it is still listed after the next", async () => {
    const { image, task } = await upload("restarted");
    const { id } = (await task())!;
    await node.restart();
    const kept = (await node.call("GET", `/tasks/${id}`)).body;
    expect(kept).toMatchObject({ state: "failed", failure: interrupted, subject: image.id });
    expect(kept.endedAt).not.toBeNull();
    await node.restart();
    expect((await node.call("GET", `/tasks/${id}`)).body).toEqual(kept);
    expect((await node.call("POST", `/tasks/${id}/cancel`)).body).toMatchObject({
      code: "CONFLICT",
      status: 409,
    });
  });

  test("a kill leaves it interrupted too, with its progress", async () => {
    await node.stop();
    const path = join(node.state, "api", "journal.sqlite");
    const journal = new Journal(path);
    const task: Task = {
      ...{ id: "killed", kind: "image-import", subject: "i", title: "Import i", failure: null },
      ...{ state: "running", phase: "convert", progressPercent: 40, bytesDone: null },
      ...{ bytesTotal: null, startedAt: "2026-11-21T00:00:00.000Z", endedAt: null },
    };
    journal.keepTask(task.id, task.startedAt, task);
    journal.keepTask("newer", task.startedAt, { id: "newer", of: "another release" });
    journal.close();
    await node.start();
    expect((await node.call("GET", "/tasks/killed")).body).toMatchObject({
      state: "failed",
      failure: interrupted,
      phase: "convert",
      progressPercent: 40,
    });
  });

  test("none that there is", async () => {
    expect((await node.call("POST", "/tasks/x/cancel")).status).toBe(404);
  });
});

describe("policy that an older release left", () => {
  test("its secrets are sealed at the start, and work as before", async () => {
    await node.stop();
    const store = new EmbeddedStore(join(node.state, "cluster.sqlite"));
    const policy = await Policy.open(store);
    const exports = policy.list("export");
    await policy.change((draft) => {
      draft.put("export", { ...exports[0], id: "old", name: "old", chapSecret: "plain-secret-1" });
    });
    policy.close();
    await store.close();
    await node.start();
    expect(node.lines.some((line) => line.includes("secrets of an older release sealed"))).toBe(
      true,
    );
    await node.stop();
    const again = new EmbeddedStore(join(node.state, "cluster.sqlite"));
    const { value } = (await again.get("policy/record/export/old"))!;
    expect(value).not.toContain("plain-secret-1");
    expect(JSON.parse(value).chapSecret).toMatch(/^sealed:1:/);
    await again.close();
    await node.start();
  });
});
