import { beforeEach, describe, expect, test } from "vitest";
import { EventHub, type NumberedEvent } from "./events.ts";

let volumes: Map<string, unknown>;
let hub: EventHub;
beforeEach(() => {
  volumes = new Map();
  hub = new EventHub((resource) => (resource === "volumes" ? volumes : new Map()));
});

const look = () => {
  hub.touch("volumes");
  hub.flush();
};
const heard = (lastId?: string) => {
  const events: NumberedEvent[] = [];
  const { resumed } = hub.listen(lastId, (event) => events.push(event));
  return { events, resumed };
};

describe("events", () => {
  test("a document is told when it appears, changes and goes, and not in between", () => {
    const { events } = heard();
    volumes.set("a", { name: "one" });
    look();
    look();
    volumes.set("a", { name: "two" });
    look();
    volumes.delete("a");
    look();
    look();
    expect(events.map(({ event }) => event.value)).toEqual([
      { name: "one" },
      { name: "two" },
      null,
    ]);
  });

  test("what moves by itself is no change", () => {
    volumes.set("a", { name: "one", lastSeenAgeMs: 1, lastSeenAt: "1" });
    look();
    const { events } = heard();
    volumes.set("a", { name: "one", lastSeenAgeMs: 2, lastSeenAt: "2" });
    look();
    expect(events).toEqual([]);
  });

  test("a listener resumes after the last event that it had, missing and repeating none", () => {
    volumes.set("a", 1);
    look();
    const first = heard().resumed;
    expect(first).toBe(false);
    const before = hub.lastId;
    volumes.set("b", 2);
    look();
    volumes.set("c", 3);
    look();
    const { events, resumed } = heard(before);
    volumes.set("d", 4);
    look();
    expect(resumed).toBe(true);
    expect(events.map(({ event }) => event.id)).toEqual(["b", "c", "d"]);
    expect(heard(events[1].id).events.map(({ event }) => event.id)).toEqual(["d"]);
  });

  test.each(["nonsense", "", "00000000-1", "x-y-z"])("the id %j can't be resumed from", (id) => {
    volumes.set("a", 1);
    look();
    expect(heard(id).resumed).toBe(false);
  });

  test("an id of the future, or too old to be kept, can't be resumed from", () => {
    const start = hub.lastId;
    const [life] = start.split("-");
    expect(heard(`${life}-5`).resumed).toBe(false);
    for (let i = 0; i < 20_000; i++) {
      volumes.set("a", i);
      look();
    }
    expect(heard(start).resumed).toBe(false);
    expect(heard(`${life}-19999`).events.length).toBe(1);
  });
});
