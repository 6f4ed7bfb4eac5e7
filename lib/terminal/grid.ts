/**
 * What a terminal should show: rows of character cells. ASCII only: what else a disk's model or a
 * log line holds becomes `?`, so that a cell is a column on any terminal.
 */
export type Style = "plain" | "bold" | "reverse";

export interface Cell {
  readonly character: string;
  readonly style: Style;
}

export interface Position {
  readonly row: number;
  readonly column: number;
}

export interface Size {
  readonly rows: number;
  readonly columns: number;
}

const blank: Cell = { character: " ", style: "plain" };

export class Grid {
  readonly rows: number;
  readonly columns: number;
  /** Where the terminal's cursor rests; the bottom left corner where nothing is typed. */
  cursor: Position;
  readonly #cells: Cell[];

  constructor({ rows, columns }: Size) {
    this.rows = rows;
    this.columns = columns;
    this.cursor = { row: rows - 1, column: 0 };
    this.#cells = new Array<Cell>(rows * columns).fill(blank);
  }

  /** The cell, blank outside. */
  at(row: number, column: number): Cell {
    return this.#cells[row * this.columns + column] ?? blank;
  }

  /**
   * Puts text from a cell on to the right; what lies outside is cut off. The bottom right cell stays
   * blank: a terminal without deferred wrapping would scroll.
   */
  write(row: number, column: number, text: string, style: Style = "plain"): void {
    if (row < 0 || row >= this.rows) return;
    let at = column;
    for (const character of printable(text)) {
      const last = row === this.rows - 1 && at === this.columns - 1;
      if (at >= 0 && at < this.columns && !last) {
        this.#cells[row * this.columns + at] = { character, style };
      }
      at++;
    }
  }

  /** Another grid with its top left corner at a cell of this one; the cursor moves with it. */
  place(other: Grid, row: number, column: number): void {
    for (let y = 0; y < other.rows; y++) {
      for (let x = 0; x < other.columns; x++) {
        const { character, style } = other.at(y, x);
        this.write(row + y, column + x, character, style);
      }
    }
    this.cursor = { row: row + other.cursor.row, column: column + other.cursor.column };
  }

  /** The rows without blanks at their ends. */
  lines(): string[] {
    return Array.from({ length: this.rows }, (_, row) =>
      Array.from({ length: this.columns }, (_, column) => this.at(row, column).character)
        .join("")
        .trimEnd(),
    );
  }
}

/** Printable ASCII; one `?` for each other character. */
export function printable(text: string): string {
  return Array.from(text, (character) => (/^[ -~]$/.test(character) ? character : "?")).join("");
}
