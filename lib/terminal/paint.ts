/**
 * Grid to bytes of a DEC VT100 (ANSI X3.64): cursor position (CUP), erase (EL, ED), bold and
 * reverse (SGR). Nothing else, so that a serial line into any terminal program shows the same.
 * Only what differs is sent: at 9600 baud a whole screen takes two seconds.
 */
import type { Cell, Grid, Style } from "./grid.ts";

const esc = "\x1b";
const rendition: Record<Style, string> = {
  plain: `${esc}[m`,
  bold: `${esc}[0;1m`,
  reverse: `${esc}[0;7m`,
};

/** A gap of equal cells is sent again if that is shorter than moving over it. */
const shortGap = 6;

/** Asks for the size: far out, the cursor stops in the corner and its position is reported (CPR). */
export const askSize = `${esc}7${esc}[999;999H${esc}[6n${esc}8`;

/** Out of a scroll region, character sets and renditions that a program left behind; then blank. */
export const resetTerminal = `${esc}[m${esc}[r${esc}(B\x0f${esc}[2J${esc}[H`;

/**
 * What turns a terminal that shows `before` into one that shows `after`. With `before` undefined,
 * every cell is sent, over whatever is there: a repaint doesn't blank the screen first.
 */
export function paint(before: Grid | undefined, after: Grid): string {
  const known =
    before !== undefined && before.rows === after.rows && before.columns === after.columns
      ? before
      : undefined;
  const pen = new Pen(known === undefined);
  for (let row = 0; row < after.rows; row++) paintRow(pen, row, known, after);
  pen.finish(after.cursor, known?.cursor);
  return pen.text;
}

function paintRow(pen: Pen, row: number, before: Grid | undefined, after: Grid): void {
  const { columns } = after;
  const differs = (column: number) =>
    before === undefined || !same(before.at(row, column), after.at(row, column));
  let end = columns;
  while (end > 0 && isBlank(after.at(row, end - 1))) end--;
  let column = 0;
  while (column < end) {
    if (!differs(column)) {
      column++;
      continue;
    }
    let last = column;
    for (let next = column + 1; next < end && next - last <= shortGap; next++) {
      if (differs(next)) last = next;
    }
    pen.move(row, column);
    for (; column <= last; column++) pen.put(after.at(row, column));
  }
  let stale = false;
  for (let rest = end; rest < columns && !stale; rest++) stale = differs(rest);
  if (stale) pen.eraseRest(row, end);
}

function same(a: Cell, b: Cell): boolean {
  return a.character === b.character && a.style === b.style;
}

function isBlank(cell: Cell): boolean {
  return cell.character === " " && cell.style === "plain";
}

class Pen {
  text: string;
  #style: Style | undefined;
  #row = -1;
  #column = -1;

  constructor(fresh: boolean) {
    this.#style = fresh ? undefined : "plain";
    this.text = "";
  }

  move(row: number, column: number): void {
    if (this.#row === row && this.#column === column) return;
    this.text += `${esc}[${row + 1};${column + 1}H`;
    this.#row = row;
    this.#column = column;
  }

  put({ character, style }: Cell): void {
    this.#use(style);
    this.text += character;
    this.#column++;
  }

  eraseRest(row: number, column: number): void {
    this.#use("plain");
    this.move(row, column);
    this.text += `${esc}[K`;
  }

  finish(
    cursor: { readonly row: number; readonly column: number },
    before: { readonly row: number; readonly column: number } | undefined,
  ): void {
    this.#use("plain");
    if (this.text === "" && before?.row === cursor.row && before.column === cursor.column) return;
    this.move(cursor.row, cursor.column);
  }

  #use(style: Style): void {
    if (this.#style === style) return;
    this.text += rendition[style];
    this.#style = style;
  }
}
