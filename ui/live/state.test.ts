import { afterEach, describe, expect, test } from "vitest";
import {
  activeConditions,
  applyChanges,
  conditions,
  forgetAll,
  mergeChanges,
  node,
  onTold,
  tasks,
  tellAll,
  volumes,
} from "./state.ts";

afterEach(forgetAll);

test("of what pages fetch themselves is told once a burst; of what is kept here not at all", () => {
  const told: string[] = [];
  const stop = onTold((resource) => told.push(resource));
  const event = (resource: "users" | "volumes" | "node", id = "a") => ({ resource, id, value: {} });
  applyChanges([event("users"), event("volumes"), event("users", "b"), event("node", "")]);
  expect(told).toEqual(["users"]);
  tellAll();
  expect(told).toEqual(expect.arrayContaining(["roles", "settings/audit-target"]));
  expect(told).not.toContain("volumes");
  stop();
  applyChanges([event("users")]);
  expect(told.filter((each) => each === "users")).toHaveLength(2);
});

describe("changes to a list", () => {
  const rows = [
    { id: "a", n: 1 },
    { id: "b", n: 1 },
    { id: "c", n: 1 },
  ];

  test("a change stays in its place, a removal goes, what is new comes first", () => {
    const changes = [
      { id: "b", value: { id: "b", n: 2 } },
      { id: "c", value: null },
      { id: "d", value: { id: "d", n: 1 } },
      { id: "e", value: { id: "e", n: 1 } },
    ];
    expect(mergeChanges(rows, "id", changes)).toEqual([
      { id: "e", n: 1 },
      { id: "d", n: 1 },
      { id: "a", n: 1 },
      { id: "b", n: 2 },
    ]);
  });

  test("of several changes to one document the last one counts", () => {
    const changes = [
      { id: "a", value: { id: "a", n: 2 } },
      { id: "a", value: null },
      { id: "x", value: { id: "x", n: 1 } },
      { id: "x", value: null },
    ];
    expect(mergeChanges(rows, "id", changes).map(({ id }) => id)).toEqual(["b", "c"]);
  });

  test("what is unchanged is the same object, so that its row isn't drawn again", () => {
    expect(mergeChanges(rows, "id", [{ id: "b", value: null }])[0]).toBe(rows[0]);
  });
});

describe("events applied to the screen's state", () => {
  test("before the first fetch nothing is made up from events", () => {
    applyChanges([{ resource: "volumes", id: "1", value: { id: "1" } }]);
    expect(volumes.value).toBeUndefined();
  });

  test("a resource that this console doesn't know is passed over", () => {
    tasks.value = [];
    applyChanges([
      { resource: "future" as never, id: "1", value: {} },
      { resource: "tasks", id: "1", value: { id: "1" } },
    ]);
    expect(tasks.value).toEqual([{ id: "1" }]);
  });

  test("a singleton takes the last document", () => {
    applyChanges([
      { resource: "node", id: "", value: { name: "one" } },
      { resource: "node", id: "", value: { name: "two" } },
    ]);
    expect(node.value).toMatchObject({ name: "two" });
  });
});

test("conditions: worst first, what isn't known after what is, what is well not at all", () => {
  const condition = (id: string, severity: string, status: string) =>
    ({ id, severity, status, since: "2026-01-01T00:00:00Z" }) as never;
  conditions.value = [
    condition("info", "info", "true"),
    condition("unknown", "critical", "unknown"),
    condition("fine", "critical", "false"),
    condition("critical", "critical", "true"),
    condition("warning", "warning", "true"),
  ];
  expect(activeConditions.value.map(({ id }) => id)).toEqual([
    "critical",
    "unknown",
    "warning",
    "info",
  ]);
});
