/** Filters and pages of the audit log: pure. */
import type { AuditPage } from "../../../services/api/audit-schema.ts";

export type AuditEntry = AuditPage["entries"][number];

/** As typed; empty: any. Times are of the person's own zone. */
export interface AuditFilters {
  readonly user: string;
  readonly action: string;
  readonly outcome: string;
  readonly since: string;
  readonly until: string;
}

export const noFilters: AuditFilters = { user: "", action: "", outcome: "", since: "", until: "" };

/** The query that api takes; a time that can't be read is left out. */
export function auditQuery(filters: AuditFilters, limit: number, before?: number): string {
  const query = new URLSearchParams({ limit: String(limit) });
  for (const [name, value] of Object.entries(filters)) {
    const text = value.trim();
    if (text === "") continue;
    if (name !== "since" && name !== "until") query.set(name, text);
    else if (Number.isFinite(Date.parse(text))) query.set(name, new Date(text).toISOString());
  }
  if (before !== undefined) query.set("before", String(before));
  return `/audit?${query}`;
}

/** Newer entries before those at hand; undefined when there is a gap between them. */
export function withNewer(
  known: readonly AuditEntry[],
  newest: AuditPage,
): readonly AuditEntry[] | undefined {
  const top = known[0]?.sequence ?? 0;
  const newer = newest.entries.filter(({ sequence }) => sequence > top);
  if (newer.length === 0) return known;
  const reaches = newer.length < newest.entries.length || newest.next === null;
  return reaches ? [...newer, ...known] : undefined;
}
