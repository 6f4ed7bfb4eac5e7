import { describe, expect, test } from "vitest";
import { type Column, formatDuration, formatTable, printable } from "./table.ts";

interface Row {
  readonly name: string;
  readonly size: number;
  readonly note: string | null;
}
const columns: Column<Row>[] = [
  { title: "NAME", value: ({ name }) => name, whole: true },
  { title: "SIZE", value: ({ size }) => size, align: "right" },
  { title: "NOTE", value: ({ note }) => note },
];
const rows: Row[] = [
  { name: "a", size: 5, note: null },
  { name: "long-name", size: 12345, note: "a note that is rather long for a narrow terminal" },
];

describe("tables", () => {
  test("columns are as wide as their content, without trailing spaces", () => {
    expect(formatTable(columns, rows, undefined)).toBe(
      [
        "NAME        SIZE  NOTE",
        "a              5  -",
        "long-name  12345  a note that is rather long for a narrow terminal",
      ].join("\n"),
    );
  });

  test.each([30, 40, 50, 80])("at %i columns nothing wraps, names stay whole", (width) => {
    const lines = formatTable(columns, rows, width).split("\n");
    for (const line of lines) expect([...line].length).toBeLessThanOrEqual(width);
    expect(lines[2]).toContain("long-name");
  });

  test("a name from the network can't reach the terminal's controls", () => {
    const evil = [{ name: "\u001b[2Jx\r\ny\u009b1m", size: 1, note: null }];
    expect(formatTable(columns, evil, 80)).not.toMatch(/[^\x20-\x7e\n]/);
    expect(printable("a\u0007b")).toBe("a b");
  });
});

test.each([
  [0, "0 s"],
  [59_400, "59 s"],
  [60_000, "1 min"],
  [3_700_000, "1 h 1 min"],
  [90_000_000, "1 d 1 h"],
])("%i ms is %s", (durationMs, text) => {
  expect(formatDuration(durationMs)).toBe(text);
});
