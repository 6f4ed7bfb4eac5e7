import fc from "fast-check";
import { expect, test } from "vitest";
import { headLine, readHeadLine } from "./heads.ts";

const head = { sequence: 4711, hash: "9f".repeat(32), time: "2026-11-21T08:00:00.000Z" };

test("a line is what it will be for ever: old files must be read", () => {
  expect(headLine(head, "node-1")).toBe(
    `{"hash":"${"9f".repeat(32)}","node":"node-1","sequence":4711,"time":"2026-11-21T08:00:00.000Z"}`,
  );
});

test("is read as it stands, after a collector's own words, and without a node's name", () => {
  const line = headLine(head, "node-1");
  for (const kept of [
    line,
    `${line}\r`,
    `2026-11-21T08:00:01.5+00:00 node-1 keelson ${line}`,
    `<110>1 2026-11-21T08:00:00.000Z node-1 keelson - audit-head - ${line}`,
  ]) {
    expect(readHeadLine(kept), kept).toEqual({ ...head, node: "node-1" });
  }
  expect(readHeadLine(JSON.stringify(head))).toEqual(head);
});

test.each([
  "",
  "nonsense",
  "{",
  '{"sequence":1}',
  `{"sequence":-1,"hash":"${"0".repeat(64)}","time":""}`,
  `{"sequence":1,"hash":"${"g".repeat(64)}","time":""}`,
  `${headLine(head, "node-1")} and more`,
  headLine(head, "node-1").slice(0, -1),
])("%j is no head", (line) => {
  expect(readHeadLine(line)).toBeUndefined();
});

test("a node may be called anything, and the line stays printable ASCII", () => {
  fc.assert(
    fc.property(fc.string({ unit: "binary", maxLength: 200 }), (node) => {
      const line = headLine(head, node);
      expect(line).toMatch(/^[\x20-\x7e]+$/);
      expect(readHeadLine(line)).toEqual({ ...head, node });
    }),
  );
});
