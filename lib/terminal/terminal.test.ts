import xterm from "@xterm/headless";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { Grid, type Style } from "./grid.ts";
import { type Key, KeyParser } from "./keys.ts";
import { askSize, paint, resetTerminal } from "./paint.ts";
import { wrapLine } from "./wrap.ts";

const bytes = (text: string) => Buffer.from(text, "latin1");
const names = (keys: readonly Key[]) =>
  keys.map((key) =>
    key.kind === "key" ? key.name : key.kind === "text" ? `'${key.text}'` : "size",
  );

describe("keys", () => {
  test.each<[string, string, string[]]>([
    [
      "arrows of a VT100 in both modes",
      "\x1b[A\x1b[B\x1bOC\x1bOD",
      ["up", "down", "right", "left"],
    ],
    ["arrows with modifiers", "\x1b[1;5A\x1b[1;2D", ["up", "left"]],
    [
      "home and end in five ways",
      "\x1b[H\x1b[1~\x1b[7~\x1bOH\x01\x1b[F\x1b[4~\x1b[8~\x05",
      ["home", "home", "home", "home", "home", "end", "end", "end", "end"],
    ],
    ["both codes of backspace", "\x08\x7f", ["backspace", "backspace"]],
    ["delete, pages", "\x1b[3~\x1b[5~\x1b[6~", ["delete", "pageUp", "pageDown"]],
    ["tab, shift-tab of xterm and Linux", "\t\x1b[Z\x1b\t", ["tab", "backTab", "backTab"]],
    [
      "line ends of all kinds are one Enter each",
      "\r\r\n\n\r\0x",
      ["enter", "enter", "enter", "enter", "'x'"],
    ],
    ["Linux function keys are no text", "\x1b[[A\x1b[15~x", ["'x'"]],
    ["Esc and Enter right after it; Alt with a letter", "\x1b\r\x1bx", ["escape", "enter"]],
    ["Esc twice", "\x1b\x1b[A", ["escape", "up"]],
    ["a sequence ended by another", "\x1b[1;\x1b[B", ["down"]],
    ["the answer to the size question", "\x1b[24;80R", ["size"]],
    ["UTF-8", "\xc3\xa9\xe2\x82\xac", ["'é'", "'€'"]],
    ["a broken UTF-8 character and a key after it", "\xe2\x82a\xff", ["'a'"]],
    ["an 8-bit control sequence", "\x9bA", ["up"]],
  ])("%s", (_, input, expected) => {
    expect(names(new KeyParser().push(bytes(input)))).toEqual(expected);
  });

  test("a sequence cut anywhere is the same key", () => {
    for (const text of ["\x1b[1;5A", "\x1bOA", "\xe2\x82\xac", "\x1b[24;80R"]) {
      for (let cut = 0; cut <= text.length; cut++) {
        const parser = new KeyParser();
        const keys = [
          ...parser.push(bytes(text.slice(0, cut))),
          ...parser.push(bytes(text.slice(cut))),
        ];
        expect(keys, JSON.stringify([text, cut])).toEqual(new KeyParser().push(bytes(text)));
      }
    }
  });

  test("ESC alone is Esc once nothing follows", () => {
    const parser = new KeyParser();
    expect(parser.push(bytes("\x1b"))).toEqual([]);
    expect(parser.pending).toBe(true);
    expect(names(parser.idle())).toEqual(["escape"]);
    expect(parser.pending).toBe(false);
    expect(parser.idle()).toEqual([]);
  });

  test("any bytes, cut anyhow: never an exception, never stuck, only valid keys", () => {
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ maxLength: 60 }), { maxLength: 20 }), (chunks) => {
        const parser = new KeyParser();
        for (const chunk of chunks) {
          for (const key of parser.push(chunk)) {
            if (key.kind === "text") expect([...key.text]).toHaveLength(1);
            if (key.kind === "size") expect(key.rows).toBeLessThan(10_000);
          }
        }
        parser.idle();
        expect(names(parser.push(bytes("q")))).toEqual(["'q'"]);
      }),
    );
  });
});

/** A real terminal's idea of what was sent. */
async function shown(size: { rows: number; columns: number }, ...output: string[]) {
  const terminal = new xterm.Terminal({
    rows: size.rows,
    cols: size.columns,
    allowProposedApi: true,
  });
  const answers: string[] = [];
  terminal.onData((text) => answers.push(text));
  for (const text of output) await new Promise<void>((done) => terminal.write(text, done));
  const buffer = terminal.buffer.active;
  const cells = Array.from({ length: size.rows }, (_, row) =>
    Array.from({ length: size.columns }, (_, column) => {
      const cell = buffer.getLine(row)!.getCell(column)!;
      const style: Style = cell.isInverse() ? "reverse" : cell.isBold() ? "bold" : "plain";
      return { character: cell.getChars() || " ", style };
    }),
  );
  return { cells, cursor: { row: buffer.cursorY, column: buffer.cursorX }, answers };
}

const cellsOf = (grid: Grid) =>
  Array.from({ length: grid.rows }, (_, row) =>
    Array.from({ length: grid.columns }, (_, column) => grid.at(row, column)),
  );

const size = { rows: 6, columns: 20 };
const writes = fc.array(
  fc.record({
    row: fc.integer({ min: -1, max: 6 }),
    column: fc.integer({ min: -3, max: 21 }),
    text: fc.string({ maxLength: 24 }),
    style: fc.constantFrom<Style>("plain", "bold", "reverse"),
  }),
  { maxLength: 12 },
);
const drawn = (list: { row: number; column: number; text: string; style: Style }[]) => {
  const grid = new Grid(size);
  for (const { row, column, text, style } of list) grid.write(row, column, text, style);
  grid.cursor = { row: list.length % size.rows, column: (list.length * 3) % (size.columns - 1) };
  return grid;
};

describe("painting", () => {
  test("a terminal shows exactly the grid: after a whole paint, and after each difference", async () => {
    await fc.assert(
      fc.asyncProperty(writes, writes, writes, async (a, b, c) => {
        const grids = [drawn(a), drawn(b), drawn(c)];
        const output = [
          paint(undefined, grids[0]),
          paint(grids[0], grids[1]),
          paint(grids[1], grids[2]),
        ];
        const { cells, cursor } = await shown(size, ...output);
        expect(cells).toEqual(cellsOf(grids[2]));
        expect(cursor).toEqual(grids[2].cursor);
      }),
      { numRuns: 60 },
    );
  });

  test("a repaint covers what something else wrote, without blanking first", async () => {
    const grid = drawn([{ row: 1, column: 2, text: "here", style: "bold" }]);
    const noise = "\x1b[7mnoise\r\nmore noise, wrapped over lines\x1b[4;1Hx";
    const output = paint(undefined, grid);
    expect(output).not.toContain("\x1b[2J");
    const { cells } = await shown(size, resetTerminal, paint(undefined, grid), noise, output);
    expect(cells).toEqual(cellsOf(grid));
  });

  test("one changed character costs a few bytes, none costs nothing", () => {
    const before = drawn([{ row: 0, column: 0, text: "percent 41", style: "plain" }]);
    const after = drawn([{ row: 0, column: 0, text: "percent 42", style: "plain" }]);
    expect(paint(before, after).length).toBeLessThan(16);
    expect(paint(before, before)).toBe("");
  });

  test("only sequences of a VT100", () => {
    const output = paint(
      undefined,
      drawn([{ row: 0, column: 0, text: "a\u00e9\x1b[2J", style: "reverse" }]),
    );
    const sequence = new RegExp(`${String.fromCharCode(27)}\\[(?:\\d+;\\d+H|K|m|0;[17]m)`, "g");
    const rest = output.replaceAll(sequence, "");
    expect(rest).toMatch(/^[ -~]*$/);
  });

  test("the size question is answered with the corner's position", async () => {
    const { answers, cursor } = await shown(size, "ab", askSize);
    expect(answers).toEqual(["\x1b[6;20R"]);
    expect(cursor).toEqual({ row: 0, column: 2 });
    expect(names(new KeyParser().push(bytes(answers[0])))).toEqual(["size"]);
  });
});

test.each([
  ["  a  b", 79, ["  a  b"]],
  ["  one two three", 9, ["  one two", "    three"]],
  ["abcdefgh", 4, ["abcd", "  ef", "  gh"]],
  ["", 10, [""]],
])("wrapping %j at %i", (line, width, lines) => {
  expect(wrapLine(line, width)).toEqual(lines);
});
