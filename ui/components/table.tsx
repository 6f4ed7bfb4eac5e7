/**
 * A table that filters, sorts, and draws only the rows near the window, so that thousands of rows
 * cost as much as forty. Rows have one height (--row), which is what makes the sums below right.
 */
import type { ComponentChildren } from "preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { Icon } from "./icon.tsx";

export interface Column<Row> {
  readonly title: string;
  /** Share of the width, as a CSS length or percentage. */
  readonly width?: string;
  /** `medium` is dropped on a phone, `wide` on a tablet too. */
  readonly from?: "medium" | "wide";
  readonly end?: boolean;
  readonly className?: string;
  sort?(row: Row): string | number;
  cell(row: Row): ComponentChildren;
}

interface TableProps<Row> {
  readonly label: string;
  /** "volume", "volumes" */
  readonly noun: readonly [one: string, many: string];
  readonly rows: readonly Row[];
  readonly columns: readonly Column<Row>[];
  readonly empty: ComponentChildren;
  readonly tools?: ComponentChildren;
  rowKey(row: Row): string;
  /** What the filter looks through. */
  text(row: Row): string;
}

/** Until a row is drawn and can be measured; --row has the height for each screen. */
const usualRowPx = 52;
const overscanRows = 12;
const collator = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });

function compare(a: string | number, b: string | number): number {
  return typeof a === "number" && typeof b === "number"
    ? a - b
    : collator.compare(String(a), String(b));
}

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

export function Table<Row>(props: TableProps<Row>) {
  const { label, noun, rows, columns, empty, tools } = props;
  const [filter, setFilter] = useState("");
  const [order, setOrder] = useState({ column: 0, down: false });
  const body = useRef<HTMLTableSectionElement>(null);
  const search = useRef<HTMLInputElement>(null);
  const [range, setRange] = useState<[number, number]>([0, 60]);
  const [rowPx, setRowPx] = useState(usualRowPx);

  const shown = useMemo(() => {
    const words = filter.toLowerCase().split(/\s+/).filter(Boolean);
    const found = rows.filter((row) => {
      const text = props.text(row).toLowerCase();
      return words.every((word) => text.includes(word));
    });
    const sort = columns[order.column]?.sort;
    if (sort !== undefined) {
      found.sort((a, b) => compare(sort(a), sort(b)) * (order.down ? -1 : 1));
    }
    return found;
  }, [rows, columns, filter, order]);

  useEffect(() => {
    const measure = () => {
      const top = body.current?.getBoundingClientRect().top ?? 0;
      const row = body.current?.querySelector("tr:not(.gap)")?.getBoundingClientRect().height;
      const next = visibleRange(top, innerHeight, row ?? usualRowPx, shown.length);
      setRowPx(row ?? usualRowPx);
      setRange((before) => (before[0] === next[0] && before[1] === next[1] ? before : next));
    };
    measure();
    addEventListener("scroll", measure, { passive: true });
    addEventListener("resize", measure);
    return () => {
      removeEventListener("scroll", measure);
      removeEventListener("resize", measure);
    };
  }, [shown.length]);

  useEffect(() => {
    const focusFilter = (event: KeyboardEvent) => {
      const target = event.target as HTMLElement;
      if (event.key !== "/" || /^(INPUT|SELECT|TEXTAREA)$/.test(target.tagName)) return;
      if (document.querySelector("dialog[open]") !== null) return;
      event.preventDefault();
      search.current?.focus();
    };
    addEventListener("keydown", focusFilter);
    return () => removeEventListener("keydown", focusFilter);
  }, []);

  if (rows.length === 0) return <div class="table-wrap">{empty}</div>;
  const [first, last] = range;
  return (
    <div class="table-wrap">
      <div class="table-tools">
        <label class="search">
          <span class="unseen">Filter {noun[1]}</span>
          <Icon name="search" />
          <input
            ref={search}
            class="input"
            type="search"
            placeholder={`Filter ${noun[1]}`}
            value={filter}
            onInput={(event) => setFilter(event.currentTarget.value)}
          />
          {filter === "" ? <kbd>/</kbd> : null}
        </label>
        {tools}
        <span class="total" role="status">
          {shown.length === rows.length
            ? `${rows.length} ${rows.length === 1 ? noun[0] : noun[1]}`
            : `${shown.length} of ${rows.length} ${noun[1]}`}
        </span>
      </div>
      {shown.length === 0 ? (
        <div class="empty">
          <h2>Nothing matches “{filter}”</h2>
          <button type="button" class="button" onClick={() => setFilter("")}>
            Clear the filter
          </button>
        </div>
      ) : (
        <table aria-label={label} aria-rowcount={shown.length + 1}>
          <thead>
            <tr>
              {columns.map((column, index) => (
                <Heading
                  key={column.title}
                  column={column}
                  order={order.column === index ? order.down : undefined}
                  onSort={() =>
                    setOrder({ column: index, down: order.column === index && !order.down })
                  }
                />
              ))}
            </tr>
          </thead>
          <tbody ref={body}>
            <Gap heightPx={first * rowPx} columns={columns.length} />
            {shown.slice(first, last).map((row, index) => (
              <tr key={props.rowKey(row)} aria-rowindex={first + index + 2}>
                {columns.map((column) => (
                  <td key={column.title} class={classOf(column)}>
                    {column.cell(row)}
                  </td>
                ))}
              </tr>
            ))}
            <Gap
              heightPx={(shown.length - Math.min(last, shown.length)) * rowPx}
              columns={columns.length}
            />
          </tbody>
        </table>
      )}
    </div>
  );
}

function classOf<Row>(column: Column<Row>): string {
  return [column.from, column.className, column.end ? "end" : undefined].filter(Boolean).join(" ");
}

interface HeadingProps<Row> {
  readonly column: Column<Row>;
  /** Sorted by it, downwards; undefined when it isn't what sorts. */
  readonly order: boolean | undefined;
  onSort(): void;
}

function Heading<Row>({ column, order, onSort }: HeadingProps<Row>) {
  const sorted = order === undefined ? "none" : order ? "descending" : "ascending";
  return (
    <th
      scope="col"
      class={classOf(column)}
      {...(column.width === undefined ? {} : { style: { width: column.width } })}
      {...(column.sort === undefined ? {} : { "aria-sort": sorted as "none" })}
    >
      {column.sort === undefined ? (
        <span class={column.end ? "unseen" : ""}>{column.title}</span>
      ) : (
        <button type="button" onClick={onSort}>
          {column.title}
          {order === undefined ? null : <Icon name={order ? "down" : "up"} />}
        </button>
      )}
    </th>
  );
}

/** Stands for the rows that aren't drawn. */
function Gap({ heightPx, columns }: { heightPx: number; columns: number }) {
  if (heightPx <= 0) return null;
  return (
    <tr class="gap">
      <td colSpan={columns} style={{ height: `${heightPx}px` }} />
    </tr>
  );
}
