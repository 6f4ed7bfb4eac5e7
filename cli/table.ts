/** Tables for people: columns as wide as their content, cut to the terminal's width. */
export interface Column<Row> {
  readonly title: string;
  readonly value: (row: Row) => string | number | null;
  readonly align?: "right";
  /** Never cut: names and ids that people copy. */
  readonly whole?: boolean;
}

const gap = 2;
const leastWidth = 6;

/** `width` undefined: as wide as it takes (a pipe). No trailing spaces. */
export function formatTable<Row>(
  columns: readonly Column<Row>[],
  rows: readonly Row[],
  width: number | undefined,
): string {
  const cells = rows.map((row) =>
    columns.map(({ value }) => {
      const cell = value(row);
      return cell === null || cell === "" ? "-" : printable(String(cell));
    }),
  );
  const widths = columns.map(({ title }, index) =>
    Math.max(title.length, ...cells.map((cell) => [...cell[index]].length)),
  );
  if (width !== undefined) shrink(columns, widths, width);
  const line = (texts: readonly string[]) =>
    texts
      .map((text, index) => pad(text, widths[index], columns[index].align))
      .join(" ".repeat(gap))
      .trimEnd();
  return [line(columns.map(({ title }) => title)), ...cells.map(line)].join("\n");
}

/** Takes from the widest column that may be cut, until it fits or nothing is left to take. */
function shrink<Row>(columns: readonly Column<Row>[], widths: number[], width: number): void {
  const total = () => widths.reduce((sum, each) => sum + each, 0) + gap * (widths.length - 1);
  while (total() > width) {
    let widest = -1;
    for (const [index, { whole }] of columns.entries()) {
      if (whole || widths[index] <= leastWidth) continue;
      if (widest === -1 || widths[index] > widths[widest]) widest = index;
    }
    if (widest === -1) return;
    widths[widest]--;
  }
}

function pad(text: string, width: number, align: "right" | undefined): string {
  const letters = [...text];
  const cut = letters.length > width ? `${letters.slice(0, width - 1).join("")}…` : text;
  const space = " ".repeat(Math.max(0, width - [...cut].length));
  return align === "right" ? space + cut : cut + space;
}

/** What comes over the network can't move the cursor or recolour the terminal. */
export function printable(text: string): string {
  return text.replaceAll(/\p{Cc}/gu, " ");
}

/** `label: value` lines, aligned. */
export function formatFacts(facts: readonly (readonly [string, string | null])[]): string {
  const width = Math.max(...facts.map(([label]) => label.length));
  return facts
    .map(([label, value]) => `${label.padEnd(width)}  ${printable(value ?? "-")}`)
    .join("\n");
}

/** `3 d 4 h`, `5 min`, `12 s`. */
export function formatDuration(durationMs: number): string {
  const seconds = Math.max(0, Math.round(durationMs / 1000));
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return `${hours} h ${minutes % 60} min`;
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}
