/** Sums of a long list: which rows are drawn, how they are ordered, what a filter finds. */

/** A frame of fast scrolling passes fewer; each more makes a jump, which draws all anew, dearer. */
const overscanRows = 6;

/** Numbers of the first and the last row to draw, from where the window stands. */
export function visibleRange(
  topPx: number,
  heightPx: number,
  rowPx: number,
  count: number,
): [number, number] {
  const first = Math.max(0, Math.floor(-topPx / rowPx) - overscanRows);
  const last = Math.ceil((heightPx - topPx) / rowPx) + overscanRows;
  return [Math.min(first, count), Math.max(0, Math.min(last, count))];
}

/** Runs of rows to draw: those near the window, and the one that has the focus wherever it is. */
export function drawnRuns(
  [first, last]: readonly [number, number],
  kept: number | undefined,
): [number, number][] {
  if (first >= last) return kept === undefined ? [] : [[kept, kept + 1]];
  if (kept === undefined || (kept >= first && kept < last)) return [[first, last]];
  return kept < first
    ? [
        [kept, kept + 1],
        [first, last],
      ]
    : [
        [first, last],
        [kept, kept + 1],
      ];
}

const collator = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });
// biome-ignore lint/suspicious/noControlCharactersInRegex: ASCII is meant.
const plain = /^[\x00-\x7f]*$/;

/**
 * Rows by a key, numbers in names by their value: `disk-9` before `disk-10`. Names in ASCII are
 * compared by a key made once each: 10,000 take some 15 ms, with Intl.Collator twenty times that.
 */
export function sortRows<Row>(
  rows: readonly Row[],
  key: (row: Row) => string | number,
  down: boolean,
): Row[] {
  const keyed = rows.map((row) => ({ row, key: key(row) }));
  const sign = down ? -1 : 1;
  if (keyed.every((item) => typeof item.key === "number")) {
    keyed.sort((a, b) => ((a.key as number) - (b.key as number)) * sign);
  } else if (keyed.every((item) => plain.test(String(item.key)))) {
    const natural = keyed.map(({ row, key }) => ({ row, key: naturalKey(String(key)) }));
    natural.sort((a, b) => (a.key < b.key ? -sign : a.key > b.key ? sign : 0));
    return natural.map(({ row }) => row);
  } else {
    keyed.sort((a, b) => collator.compare(String(a.key), String(b.key)) * sign);
  }
  return keyed.map(({ row }) => row);
}

function naturalKey(text: string): string {
  return text
    .toLowerCase()
    .replaceAll(/\d+/g, (digits) => digits.replace(/^0+(?=\d)/, "").padStart(16, "0"));
}

/** Filters by words, each row's text made once for as long as the row is the same object. */
export class TextFilter<Row extends object> {
  readonly #texts = new WeakMap<Row, string>();
  readonly #text: (row: Row) => string;

  constructor(text: (row: Row) => string) {
    this.#text = text;
  }

  apply(rows: readonly Row[], filter: string): readonly Row[] {
    const words = filter.toLowerCase().split(/\s+/).filter(Boolean);
    if (words.length === 0) return rows;
    return rows.filter((row) => {
      const text = this.#textOf(row);
      return words.every((word) => text.includes(word));
    });
  }

  #textOf(row: Row): string {
    let text = this.#texts.get(row);
    if (text === undefined) {
      text = this.#text(row).toLowerCase();
      this.#texts.set(row, text);
    }
    return text;
  }
}

/** Where a key moves the current row to; undefined for a key that moves nothing. */
export function rowAfterKey(key: string, current: number, count: number): number | undefined {
  const moves = new Map([
    ["ArrowDown", current + 1],
    ["ArrowUp", current - 1],
    ["PageDown", current + 10],
    ["PageUp", current - 10],
    ["Home", 0],
    ["End", count - 1],
  ]);
  const next = moves.get(key);
  return next === undefined ? undefined : Math.max(0, Math.min(count - 1, next));
}
