import type { ComponentChildren } from "preact";
import type { Permission } from "../permission.ts";

export interface Column<Item> {
  readonly title: string;
  /** Share of the width, as a CSS length or percentage. */
  readonly width?: string;
  /** `medium` is dropped on a phone, `wide` on a tablet too. */
  readonly from?: "medium" | "wide";
  readonly end?: boolean;
  readonly className?: string;
  /** Left out for an account without it. */
  readonly permission?: Permission;
  sort?(row: Item): string | number;
  cell(row: Item): ComponentChildren;
}

export function classOf<Item>(column: Column<Item>): string {
  return [column.from, column.className, column.end ? "end" : undefined].filter(Boolean).join(" ");
}
