/** A page as an 80x24 grid. Focus and choice are told by characters; bold and reverse only repeat it. */

import { Grid, type Style } from "#lib/terminal/grid.ts";
import { wrapLine } from "#lib/terminal/wrap.ts";
import { buttonFocus, type Field, type FormState, focusOf, type Page, settle } from "./form.ts";

export const screenSize = { rows: 24, columns: 80 } as const;
const bodyTop = 2;
const bodyRows = 16;
const messageRow = 19;
const buttonRow = 22;
const hintRow = 23;
const labelColumn = 4;
const valueColumn = 24;
const textWidth = 50;

interface Row {
  readonly text: string;
  readonly style: Style;
  readonly focus?: string | undefined;
  readonly field?: Field;
}

/** `product` stands at the left of the title bar. */
export function drawPage(product: string, page: Page, given: FormState): Grid {
  const state = settle(page, given);
  const grid = new Grid(screenSize);
  const right = page.title.slice(0, 50);
  const left = product.slice(0, 76 - right.length);
  const title = ` ${left}`.padEnd(screenSize.columns - right.length - 1) + right;
  grid.write(0, 0, title.padEnd(screenSize.columns), "reverse");
  drawBody(grid, page, state);
  drawMessage(grid, page, state);
  drawButtons(grid, page, state);
  grid.write(hintRow, 1, hintOf(page, state));
  return grid;
}

function drawBody(grid: Grid, page: Page, state: FormState): void {
  const rows = page.fields.flatMap((field) => rowsOf(field));
  const at = rows.findIndex(({ focus }) => focus === state.focus);
  const most = Math.max(0, rows.length - bodyRows);
  // The focused field stays in sight, with what introduces it.
  let offset = Math.min(state.offset, most);
  if (at >= 0) offset = Math.max(Math.min(offset, at - 2), at - bodyRows + 3);
  offset = Math.max(0, Math.min(offset, most));
  rows.slice(offset, offset + bodyRows).forEach((row, index) => {
    drawRow(grid, bodyTop + index, row, page, state);
  });
  if (offset > 0) grid.write(bodyTop - 1, 66, "(more above)");
  if (offset < most) grid.write(bodyTop + bodyRows, 66, "(more below)");
}

function rowsOf(field: Field): Row[] {
  if (field.kind !== "line") {
    return [{ text: "", style: "plain", focus: focusOf(field), field }];
  }
  const style = field.bold === true ? "bold" : "plain";
  const paragraph = !field.text.startsWith(" ");
  return wrapLine(field.text, screenSize.columns - 4).map((text) => ({
    text: paragraph ? text.trimStart() : text,
    style,
  }));
}

function drawRow(grid: Grid, row: number, content: Row, page: Page, state: FormState): void {
  const { field, focus } = content;
  if (field === undefined || field.kind === "line") {
    grid.write(row, 2, content.text, content.style);
    return;
  }
  const here = focus === state.focus;
  if (here) {
    grid.write(row, 1, ">", "bold");
    grid.cursor = { row, column: 1 };
  } else if (isTold(page, state, field.id) && isFirst(page, field)) {
    grid.write(row, 1, "!", "bold");
  }
  const style: Style = here ? "reverse" : "plain";
  const value = state.values[field.id] ?? "";
  switch (field.kind) {
    case "text":
    case "password":
      grid.write(row, labelColumn, field.label);
      drawText(grid, row, field.kind === "password" ? "*".repeat(value.length) : value, {
        here,
        cursor: state.cursor,
      });
      return;
    case "choice": {
      grid.write(row, labelColumn, field.label);
      const options = field.options.map(
        (option) => `${option.value === value ? "(*)" : "( )"} ${option.label}`,
      );
      grid.write(row, valueColumn, options.join("   "), style);
      return;
    }
    case "option":
      grid.write(
        row,
        labelColumn,
        `${field.value === value ? "(*)" : "( )"} ${field.label}`,
        style,
      );
      return;
    case "check":
      grid.write(row, labelColumn, `${value === "yes" ? "[x]" : "[ ]"} ${field.label}`, style);
      return;
    case "item":
      grid.write(row, labelColumn, field.label, style);
  }
}

/** Of a list's rows, the first has the mark. */
function isFirst(page: Page, field: Exclude<Field, { kind: "line" }>): boolean {
  return page.fields.find((each) => each.kind !== "line" && each.id === field.id) === field;
}

/** A long text is shown around its cursor; `<` and `>` at the brackets say that there is more. */
function drawText(
  grid: Grid,
  row: number,
  text: string,
  { here, cursor }: { here: boolean; cursor: number },
): void {
  const at = here ? cursor : text.length;
  const from = Math.max(0, Math.min(at - textWidth + 8, text.length - textWidth + 1));
  const shown = text.slice(from, from + textWidth);
  const open = from > 0 ? "<" : "[";
  const close = text.length > from + textWidth ? ">" : "]";
  grid.write(row, valueColumn, `${open}${shown.padEnd(textWidth, here ? "_" : " ")}${close}`);
  if (here) grid.cursor = { row, column: valueColumn + 1 + at - from };
}

export function isTold(page: Page, state: FormState, id: string): boolean {
  return page.problems?.[id] !== undefined && state.touched[id] === true;
}

/** Of the focused field, else the first one that is told, else the page's notice. */
function drawMessage(grid: Grid, page: Page, state: FormState): void {
  const field = page.fields.find((each) => focusOf(each) === state.focus);
  const ids = page.fields.flatMap((each) => (each.kind === "line" ? [] : [each.id]));
  const own = field !== undefined && field.kind !== "line" ? field.id : "";
  const told = [own, ...ids].find((id) => isTold(page, state, id));
  const text = told === undefined ? page.notice : `! ${page.problems![told]}`;
  if (text === undefined) return;
  const style = told === undefined ? "plain" : "bold";
  const lines = text.split("\n").flatMap((line) => wrapLine(line, screenSize.columns - 4));
  lines.slice(0, buttonRow - messageRow).forEach((line, index) => {
    grid.write(messageRow + index, 2, line, style);
  });
}

function drawButtons(grid: Grid, page: Page, state: FormState): void {
  let column = 2;
  for (const { value, label } of page.buttons) {
    const here = state.focus === buttonFocus(value);
    const text = here ? `>[ ${label} ]` : ` [ ${label} ]`;
    grid.write(buttonRow, column, text.slice(0, 1), "bold");
    grid.write(buttonRow, column + 1, text.slice(1), here ? "reverse" : "plain");
    if (here) grid.cursor = { row: buttonRow, column };
    column += text.length + 2;
  }
}

function hintOf(page: Page, state: FormState): string {
  const field = page.fields.find((each) => focusOf(each) === state.focus);
  if (state.focus === "") return "Ctrl-L: redraw";
  const redraw = "Esc: back   Ctrl-L: redraw";
  switch (field?.kind) {
    case "text":
    case "password":
      return `Tab or arrows: move   Enter: next   ${redraw}`;
    case "choice":
      return `Tab or up/down: move   left/right: choose   ${redraw}`;
    case "option":
    case "check":
      return `Tab or arrows: move   Space: choose   ${redraw}`;
    default:
      return `Tab or arrows: move   Enter: do it   ${redraw}`;
  }
}

/** For a terminal of another size: centred when larger, and what is needed when smaller. */
export function fitGrid(grid: Grid, size: { rows: number; columns: number }): Grid {
  if (size.rows === grid.rows && size.columns === grid.columns) return grid;
  const fitted = new Grid(size);
  if (size.rows >= grid.rows && size.columns >= grid.columns) {
    const row = Math.floor((size.rows - grid.rows) / 2);
    fitted.place(grid, row, Math.floor((size.columns - grid.columns) / 2));
    return fitted;
  }
  const text = [
    `This screen is ${size.columns}x${size.rows}.`,
    `Keelson needs ${grid.columns}x${grid.rows}.`,
    "Make it larger, then press Ctrl-L.",
    "Nothing that was typed is lost.",
  ];
  text
    .flatMap((line) => wrapLine(line, Math.max(8, size.columns - 1)))
    .forEach((line, row) => {
      fitted.write(row, 0, line);
    });
  return fitted;
}
