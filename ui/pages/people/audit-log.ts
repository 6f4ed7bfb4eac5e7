/** Pages of the audit log, put together: older ones as one scrolls, newer ones as they are written. */
import { useEffect, useRef, useState } from "preact/hooks";
import type { AuditPage } from "../../../services/api/audit-schema.ts";
import { asFailure, type Failure, request } from "../../client.ts";
import { link } from "../../live/link.ts";
import { type AuditEntry, type AuditFilters, auditQuery, withNewer } from "./audit-pages.ts";

export interface AuditLog {
  /** Newest first; undefined until the first answer. */
  readonly entries: readonly AuditEntry[] | undefined;
  /** The oldest that matches is among them. */
  readonly complete: boolean;
  readonly failure: Failure | undefined;
  more(): void;
  reload(): Promise<void>;
}

const pageSize = 500;
const newerSize = 100;
const againMs = 10_000;
const typingMs = 250;

export function useAuditLog(filters: AuditFilters): AuditLog {
  const [entries, setEntries] = useState<readonly AuditEntry[]>();
  const [next, setNext] = useState<number | null>(null);
  const [failure, setFailure] = useState<Failure>();
  /** Which filters an answer is for: one that comes late is thrown away. */
  const turn = useRef(0);
  const fetching = useRef(false);
  const latest = useRef({ entries, next });
  latest.current = { entries, next };

  const ask = async (
    before: number | undefined,
    use: (page: AuditPage) => void,
    limit = pageSize,
  ) => {
    const asked = turn.current;
    fetching.current = true;
    try {
      const page = await request<AuditPage>("GET", auditQuery(filters, limit, before));
      if (asked !== turn.current) return;
      use(page);
      setFailure(undefined);
    } catch (error) {
      if (asked === turn.current) setFailure(asFailure(error));
    } finally {
      if (asked === turn.current) fetching.current = false;
    }
  };
  const begin = () =>
    ask(undefined, (page) => {
      setEntries(page.entries);
      setNext(page.next);
    });
  const lookForNewer = () =>
    ask(
      undefined,
      (page) => {
        const joined = withNewer(latest.current.entries ?? [], page);
        setEntries(joined ?? page.entries);
        if (joined === undefined) setNext(page.next);
      },
      newerSize,
    );

  useEffect(() => {
    turn.current++;
    fetching.current = false;
    const timer = setTimeout(() => void begin(), entries === undefined ? 0 : typingMs);
    const again = setInterval(() => {
      if (!document.hidden && link.value === "live" && !fetching.current) void lookForNewer();
    }, againMs);
    return () => {
      clearTimeout(timer);
      clearInterval(again);
    };
  }, [filters]);

  return {
    entries,
    complete: next === null,
    failure,
    reload: begin,
    more: () => {
      const from = latest.current.next;
      if (from === null || fetching.current) return;
      void ask(from, (page) => {
        setEntries((known) => [...(known ?? []), ...page.entries]);
        setNext(page.next);
      });
    },
  };
}
