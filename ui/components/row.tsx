/** One row of a table; drawn again only when it, its place or the columns are others. */
import { Component, createContext } from "preact";
import { useContext } from "preact/hooks";
import { type Column, classOf } from "./column.ts";

const InCurrentRow = createContext(true);

/** For a control within a row: Tab reaches those of one row only. */
export function useRowTabIndex(): 0 | -1 {
  return useContext(InCurrentRow) ? 0 : -1;
}

interface RowProps {
  readonly row: object;
  readonly columns: readonly Column<object>[];
  readonly index: number;
  readonly current: boolean;
  readonly opens: boolean;
}

export class Row extends Component<RowProps> {
  override shouldComponentUpdate(next: RowProps): boolean {
    const { row, columns, index, current, opens } = this.props;
    return (
      next.row !== row ||
      next.columns !== columns ||
      next.index !== index ||
      next.current !== current ||
      next.opens !== opens
    );
  }

  override render() {
    const { row, columns, index, current, opens } = this.props;
    return (
      <tr aria-rowindex={index + 2} tabIndex={current ? 0 : -1} class={opens ? "opens" : ""}>
        <InCurrentRow.Provider value={current}>
          {columns.map((column) => (
            <td key={column.title} class={classOf(column)}>
              {column.cell(row)}
            </td>
          ))}
        </InCurrentRow.Provider>
      </tr>
    );
  }
}
