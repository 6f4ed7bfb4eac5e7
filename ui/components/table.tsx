/**
 * A table that filters, sorts, and draws only the rows near the window, so that thousands of rows
 * cost as much as forty. Rows have one height (--row), which is what makes the sums in rows.ts
 * right. Tab reaches one row and what can be done with it; arrows go from row to row, and the row
 * with the focus stays drawn wherever the window is scrolled.
 */
import type { ComponentChildren } from "preact";
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { session } from "../client.ts";
import { isTyping, singleKeyOf } from "../frame/shortcuts.tsx";
import { may } from "../permission.ts";
import { route } from "../router.ts";
import { type Column, classOf } from "./column.ts";
import { Icon } from "./icon.tsx";
import { Row } from "./row.tsx";
import { drawnRuns, rowAfterKey, sortRows, TextFilter, visibleRange } from "./rows.ts";

export type { Column } from "./column.ts";

interface TableProps<Item> {
  readonly label: string;
  /** "volume", "volumes" */
  readonly noun: readonly [one: string, many: string];
  readonly rows: readonly Item[];
  readonly columns: readonly Column<Item>[];
  readonly empty: ComponentChildren;
  readonly tools?: ComponentChildren;
  /** Rows that there are, where not all of them are here yet. */
  readonly total?: number;
  rowKey(row: Item): string;
  /** What the filter looks through: of the row alone. Without it there is no filter. */
  text?(row: Item): string;
  /** Enter, or a click on a row beside its buttons. */
  onOpen?(row: Item): void;
  /** The last rows came near the window: the moment to fetch more. */
  onNearEnd?(): void;
}

/** Until a row is drawn and can be measured; --row has the height for each screen. */
const usualRowPx = 52;
const nearEndRows = 40;
const noText = () => "";

/** The row that Tab reaches; its number counts once the row itself is gone. */
interface Current {
  readonly key: string;
  readonly index: number;
}

export function Table<Item extends object>(props: TableProps<Item>) {
  const { label, noun, rows, empty, tools, rowKey } = props;
  const columns = useMemo(
    () => props.columns.filter(({ permission }) => permission === undefined || may(permission)),
    [props.columns, session.value],
  );
  const asked = route.value.query.get("find") ?? "";
  const [filter, setFilter] = useState(asked);
  useEffect(() => setFilter(asked), [asked]);
  const [order, setOrder] = useState({ column: 0, down: false });
  const search = useRef<HTMLInputElement>(null);
  const texts = useMemo(() => new TextFilter<Item>(props.text ?? noText), []);
  const latest = useRef(columns);
  latest.current = columns;

  const shown = useMemo(() => {
    const found = texts.apply(rows, filter);
    const sort = latest.current[order.column]?.sort;
    return sort === undefined ? found : sortRows(found, sort, order.down);
  }, [rows, filter, order]);

  useEffect(() => {
    const focusFilter = (event: KeyboardEvent) => {
      if (singleKeyOf(event) !== "/" || search.current === null) return;
      event.preventDefault();
      search.current.focus();
    };
    addEventListener("keydown", focusFilter);
    return () => removeEventListener("keydown", focusFilter);
  }, []);

  if (rows.length === 0) return <div class="table-wrap">{empty}</div>;
  const total = props.total ?? rows.length;
  return (
    <div class="table-wrap">
      <div class="table-tools">
        {props.text === undefined ? null : (
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
        )}
        {tools}
        <span class="total" role="status">
          {shown.length === rows.length
            ? `${total} ${total === 1 ? noun[0] : noun[1]}`
            : `${shown.length} of ${total} ${noun[1]}`}
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
        <table
          aria-label={label}
          aria-rowcount={(shown.length === rows.length ? total : shown.length) + 1}
        >
          <thead>
            <tr aria-rowindex={1}>
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
          <Rows
            shown={shown}
            columns={columns}
            rowKey={rowKey}
            {...(props.onOpen === undefined ? {} : { onOpen: props.onOpen })}
            {...(props.onNearEnd === undefined ? {} : { onNearEnd: props.onNearEnd })}
          />
        </table>
      )}
    </div>
  );
}

interface RowsProps<Item> {
  readonly shown: readonly Item[];
  readonly columns: readonly Column<Item>[];
  rowKey(row: Item): string;
  onOpen?(row: Item): void;
  onNearEnd?(): void;
}

function Rows<Item extends object>({ shown, columns, rowKey, onOpen, onNearEnd }: RowsProps<Item>) {
  const body = useRef<HTMLTableSectionElement>(null);
  const [range, setRange] = useState<[number, number]>([0, 60]);
  const [rowPx, setRowPx] = useState(usualRowPx);
  const [current, setCurrent] = useState<Current>({ key: "", index: 0 });
  const [focused, setFocused] = useState(false);
  /** What is to have the focus once it is drawn: a row's nth control, -1 the row itself. */
  const wanted = useRef<{ readonly index: number; readonly control: number } | undefined>(
    undefined,
  );

  const found = shown.findIndex((row) => rowKey(row) === current.key);
  const currentIndex = found !== -1 ? found : Math.min(current.index, shown.length - 1);

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
    if (range[1] > shown.length - nearEndRows) onNearEnd?.();
  }, [range[1], shown.length]);

  useLayoutEffect(() => {
    if (wanted.current === undefined) return;
    const { index, control } = wanted.current;
    const row = body.current?.querySelector<HTMLElement>(`tr[aria-rowindex="${index + 2}"]`);
    // Far from the window: the next drawing has it.
    if (row == null) return;
    wanted.current = undefined;
    const target = controlsOf(row)[control] ?? row;
    target.focus({ preventScroll: true });
    row.scrollIntoView({ block: "nearest" });
  });

  const moveTo = (index: number) => setCurrent({ key: rowKey(shown[index]), index });
  const onKeyDown = (event: KeyboardEvent) => {
    const target = event.target as HTMLElement;
    const row = target.closest("tr");
    if (row === null || isTyping(target) || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Enter" && target === row && onOpen !== undefined) {
      event.preventDefault();
      onOpen(shown[currentIndex]);
      return;
    }
    const next = rowAfterKey(event.key, currentIndex, shown.length);
    if (next === undefined) return;
    event.preventDefault();
    wanted.current = { index: next, control: controlsOf(row).indexOf(target) };
    moveTo(next);
  };
  const rowOf = (target: EventTarget | null) => {
    const index = Number((target as HTMLElement).closest("tr")?.getAttribute("aria-rowindex")) - 2;
    return index >= 0 && index < shown.length ? index : undefined;
  };

  const runs = drawnRuns(
    [range[0], Math.min(range[1], shown.length)],
    focused ? currentIndex : undefined,
  );
  const ends = [0, ...runs.map(([, end]) => end)];
  return (
    <tbody
      ref={body}
      onKeyDown={onKeyDown}
      onFocusIn={(event) => {
        setFocused(true);
        const index = rowOf(event.target);
        if (index !== undefined && index !== currentIndex) moveTo(index);
      }}
      onFocusOut={(event) => {
        // Between two controls it never leaves: the row that has both must stay.
        if (!body.current?.contains(event.relatedTarget as Node | null)) setFocused(false);
      }}
      onClick={(event) => {
        const index = rowOf(event.target);
        const onControl = (event.target as HTMLElement).closest("a, button, input, select, label");
        if (onOpen !== undefined && index !== undefined && onControl === null) onOpen(shown[index]);
      }}
    >
      {runs.flatMap(([start, end], run) => [
        <Gap key={`gap-${run}`} heightPx={(start - ends[run]) * rowPx} columns={columns.length} />,
        ...shown
          .slice(start, end)
          .map((row, at) => (
            <Row
              key={rowKey(row)}
              row={row}
              columns={columns as never}
              index={start + at}
              current={start + at === currentIndex}
              opens={onOpen !== undefined}
            />
          )),
      ])}
      <Gap
        key="gap-end"
        heightPx={(shown.length - ends[ends.length - 1]) * rowPx}
        columns={columns.length}
      />
    </tbody>
  );
}

function controlsOf(row: HTMLElement): HTMLElement[] {
  return [...row.querySelectorAll<HTMLElement>("a[href], button:not(:disabled), select, input")];
}

interface HeadingProps<Item> {
  readonly column: Column<Item>;
  /** Sorted by it, downwards; undefined when it isn't what sorts. */
  readonly order: boolean | undefined;
  onSort(): void;
}

function Heading<Item>({ column, order, onSort }: HeadingProps<Item>) {
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
    // biome-ignore lint/a11y/noAriaHiddenOnFocusable: an empty row has nothing to focus.
    <tr class="gap" aria-hidden="true">
      <td colSpan={columns} style={{ height: `${heightPx}px` }} />
    </tr>
  );
}
