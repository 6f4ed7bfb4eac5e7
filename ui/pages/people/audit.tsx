/** The audit log: filters that api applies, entries that come as one scrolls, export. */
import { useState } from "preact/hooks";
import type { AuditHeads } from "../../../services/api/audit-schema.ts";
import { Dialog } from "../../components/dialog.tsx";
import { Fetching } from "../../components/fetching.tsx";
import { Icon } from "../../components/icon.tsx";
import { SecretText } from "../../components/once.tsx";
import { Badge, Empty, PageHead, RowAction, Trouble } from "../../components/parts.tsx";
import { type Column, Table } from "../../components/table.tsx";
import { useFetched } from "../../live/fetched.ts";
import { formatMoment, formatNumber, t } from "../../words/words.ts";
import { useAuditLog } from "./audit-log.ts";
import { type AuditEntry, type AuditFilters, noFilters } from "./audit-pages.ts";

const tones = { done: "good", refused: "warn", failed: "bad" } as const;

export function AuditPage() {
  const [filters, setFilters] = useState<AuditFilters>(noFilters);
  const [opened, setOpened] = useState<AuditEntry>();
  const [columns] = useState(() => columnsFor(setOpened));
  const log = useAuditLog(filters);
  const heads = useFetched<AuditHeads>("/audit/heads");
  const filtered = Object.values(filters).some((value) => value !== "");
  const kept =
    heads.value === undefined
      ? undefined
      : heads.value.head.sequence - heads.value.firstSequence + 1;
  return (
    <>
      <PageHead
        title={t("page.audit")}
        actions={
          <a class="button" href="/api/v1/audit/export" download="keelson-audit.ndjson">
            <Icon name="download" />
            {t("audit.export")}
          </a>
        }
      >
        {t("audit.lead")}
      </PageHead>
      <Filters filters={filters} onChange={setFilters} onClear={() => setFilters(noFilters)} />
      {log.entries === undefined ? (
        <Fetching of={{ value: undefined, failure: log.failure, reload: log.reload }} />
      ) : (
        <>
          {log.failure === undefined ? null : (
            <div class="notice-gap">
              <Trouble failure={log.failure} />
            </div>
          )}
          <Table<AuditEntry>
            label={t("page.audit")}
            noun={[t("audit.one"), t("audit.many")]}
            rows={log.entries}
            columns={columns}
            rowKey={(entry) => String(entry.sequence)}
            onOpen={setOpened}
            onNearEnd={log.more}
            {...(filtered || kept === undefined
              ? {}
              : { total: Math.max(kept, log.entries.length) })}
            empty={
              <Empty icon="audit" title={t(filtered ? "audit.noMatch" : "audit.empty")}>
                {t(filtered ? "audit.noMatchDetail" : "audit.emptyDetail")}
              </Empty>
            }
          />
          <p class="list-end soft small" role="status">
            {log.entries.length === 0 ? "" : t(log.complete ? "audit.end" : "audit.more")}
          </p>
        </>
      )}
      {heads.value === undefined ? null : <Head heads={heads.value} />}
      {opened === undefined ? null : (
        <EntryDialog entry={opened} onClose={() => setOpened(undefined)} />
      )}
    </>
  );
}

interface FiltersProps {
  readonly filters: AuditFilters;
  onChange(filters: AuditFilters): void;
  onClear(): void;
}

function Filters({ filters, onChange, onClear }: FiltersProps) {
  const set = (name: keyof AuditFilters) => (event: Event) =>
    onChange({ ...filters, [name]: (event.currentTarget as HTMLInputElement).value });
  const text = (name: "user" | "action", placeholder = "") => (
    <label class="filter">
      {t(`audit.${name}`)}
      <input
        class="input"
        type="search"
        autocomplete="off"
        spellcheck={false}
        placeholder={placeholder}
        value={filters[name]}
        onInput={set(name)}
      />
    </label>
  );
  const time = (name: "since" | "until") => (
    <label class="filter">
      {t(`audit.${name}`)}
      <input class="input" type="datetime-local" value={filters[name]} onInput={set(name)} />
    </label>
  );
  return (
    <fieldset class="filters">
      <legend class="unseen">{t("audit.filters")}</legend>
      {text("user")}
      {text("action", t("audit.actionPlaceholder"))}
      <label class="filter">
        {t("audit.outcome")}
        <select class="input" value={filters.outcome} onChange={set("outcome")}>
          <option value="">{t("audit.any")}</option>
          {(["done", "refused", "failed"] as const).map((outcome) => (
            <option key={outcome} value={outcome}>
              {t(`audit.${outcome}`)}
            </option>
          ))}
        </select>
      </label>
      {time("since")}
      {time("until")}
      <button type="button" class="button" onClick={onClear}>
        {t("audit.clear")}
      </button>
    </fieldset>
  );
}

function columnsFor(open: (entry: AuditEntry) => void): Column<AuditEntry>[] {
  return [
    {
      title: t("audit.column.what"),
      cell: (entry) => (
        <>
          <span class="name mono" title={entry.action}>
            {entry.action}
          </span>
          <span class="under" title={entry.detail ?? ""}>
            {[entry.target, entry.detail].filter(Boolean).join(" · ")}
          </span>
        </>
      ),
    },
    {
      title: t("audit.column.who"),
      width: "18%",
      from: "medium",
      cell: (entry) => (
        <>
          <span class="clip block">{entry.user ?? t("audit.nobody")}</span>
          <span class="under">{entry.via}</span>
        </>
      ),
    },
    {
      title: t("audit.column.outcome"),
      width: "120px",
      cell: (entry) => (
        <>
          <Badge tone={tones[entry.outcome]}>{t(`audit.${entry.outcome}`)}</Badge>
          <span class="narrow-only soft small"> {entry.user ?? t("audit.nobody")}</span>
        </>
      ),
    },
    {
      title: t("audit.column.where"),
      width: "150px",
      from: "wide",
      cell: (entry) => <span class="mono clip block">{entry.address}</span>,
    },
    {
      title: t("audit.column.time"),
      width: "224px",
      from: "medium",
      cell: (entry) => (
        <time class="soft number" dateTime={entry.time}>
          {formatMoment(entry.time)}
        </time>
      ),
    },
    {
      title: t("users.column.actions"),
      width: "64px",
      end: true,
      cell: (entry) => (
        <div class="row-actions">
          <RowAction
            icon="info"
            label={t("audit.entry", { sequence: entry.sequence })}
            onClick={() => open(entry)}
          />
        </div>
      ),
    },
  ];
}

function EntryDialog({ entry, onClose }: { entry: AuditEntry; onClose(): void }) {
  const facts: [string, string | null][] = [
    [t("audit.column.time"), formatMoment(entry.time)],
    [t("audit.column.who"), entry.user ?? t("audit.nobody")],
    [t("audit.via"), entry.via],
    [t("audit.column.where"), entry.address],
    [t("audit.column.what"), entry.action],
    [t("audit.target"), entry.target],
    [t("audit.column.outcome"), t(`audit.${entry.outcome}`)],
    [t("audit.status"), String(entry.status)],
    [t("audit.permission"), entry.permission],
    [t("audit.detail"), entry.detail],
    [t("audit.hash"), entry.hash],
  ];
  return (
    <Dialog
      title={t("audit.entry", { sequence: entry.sequence })}
      verb={t("users.close")}
      onlyVerb
      closable
      onClose={onClose}
      onSubmit={async () => undefined}
    >
      <dl class="facts">
        {facts
          .filter(([, value]) => value !== null)
          .map(([name, value]) => (
            <>
              <dt>{name}</dt>
              <dd>{value}</dd>
            </>
          ))}
      </dl>
    </Dialog>
  );
}

function Head({ heads: { head } }: { heads: AuditHeads }) {
  return (
    <section class="section panel audit-head" aria-label={t("audit.headTitle")}>
      <header>
        <h2>{t("audit.headTitle")}</h2>
        <span class="soft small aside">
          {t("audit.head", { sequence: formatNumber(head.sequence) })}
        </span>
      </header>
      <div class="body">
        <p class="soft panel-text">{t("audit.headLead")}</p>
        <SecretText label={t("audit.headLabel")} text={head.hash} />
      </div>
    </section>
  );
}
