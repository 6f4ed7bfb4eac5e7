import { useMemo, useState } from "preact/hooks";
import type { SnapshotSchedule, When } from "../../../services/api/snapshot-schema.ts";
import { asFailure, request } from "../../client.ts";
import { Confirm } from "../../components/dialog.tsx";
import { Fetching, OldAnswer } from "../../components/fetching.tsx";
import { Icon } from "../../components/icon.tsx";
import { Badge, Empty, RowAction } from "../../components/parts.tsx";
import { type Column, Table } from "../../components/table.tsx";
import { complain, say } from "../../components/toast.tsx";
import { type Fetched, useFetched } from "../../live/fetched.ts";
import { may } from "../../permission.ts";
import { formatList, formatMoment, t } from "../../words/words.ts";
import { ScheduleDialog } from "./schedule-dialog.tsx";
import { keepRules } from "./schedule-draft.ts";

type Asked =
  | { readonly what: "create" }
  | { readonly what: "edit" | "delete"; readonly schedule: SnapshotSchedule };

export function SchedulesTable() {
  const fetched: Fetched<SnapshotSchedule[]> = useFetched("/snapshot-schedules");
  const [asked, setAsked] = useState<Asked>();
  const close = () => setAsked(undefined);
  const changed = () => fetched.reload();
  const columns = useMemo(() => columnsFor(setAsked, changed), []);
  const create = may("storage:write") ? (
    <button type="button" class="button primary" onClick={() => setAsked({ what: "create" })}>
      <Icon name="plus" />
      {t("schedules.create")}
    </button>
  ) : undefined;
  if (fetched.value === undefined) return <Fetching of={fetched} />;
  return (
    <>
      <OldAnswer of={fetched} />
      <Table
        label={t("snapshots.view.schedules")}
        noun={[t("schedules.one"), t("schedules.many")]}
        rows={fetched.value}
        columns={columns}
        rowKey={(schedule) => schedule.id}
        text={({ name, when }) => `${name} ${whenText(when)}`}
        {...(may("storage:write")
          ? { onOpen: (schedule: SnapshotSchedule) => setAsked({ what: "edit", schedule }) }
          : {})}
        tools={create}
        empty={
          <Empty icon="clock" title={t("schedules.empty")} actions={create}>
            {t("schedules.emptyDetail")}
          </Empty>
        }
      />
      {asked?.what === "create" ? (
        <ScheduleDialog schedule={undefined} onClose={close} onChanged={changed} />
      ) : null}
      {asked?.what === "edit" ? (
        <ScheduleDialog schedule={asked.schedule} onClose={close} onChanged={changed} />
      ) : null}
      {asked?.what === "delete" ? (
        <DeleteDialog schedule={asked.schedule} onClose={close} onChanged={changed} />
      ) : null}
    </>
  );
}

export function whenText(when: When): string {
  if (when.kind === "daily") return t("schedules.daily", { at: when.at });
  if (when.kind === "weekly") {
    const days = formatList(when.days.map((day) => t(`weekday.${day}`)));
    return t("schedules.weekly", { days, at: when.at });
  }
  const { minutes } = when;
  return minutes % 60 === 0
    ? t("schedules.everyHours", { count: minutes / 60 })
    : t("schedules.every", { count: minutes });
}

function keepsText({ keep }: SnapshotSchedule): string {
  const parts = keepRules.flatMap((rule) => {
    const count = keep[rule];
    return count === undefined ? [] : [t(`schedules.keep.${rule}`, { count })];
  });
  return parts.length === 0 ? t("schedules.keepsAll") : formatList(parts);
}

function columnsFor(
  ask: (asked: Asked) => void,
  changed: () => Promise<void>,
): Column<SnapshotSchedule>[] {
  const turn = async ({ id, name, enabled }: SnapshotSchedule) => {
    try {
      await request("PATCH", `/snapshot-schedules/${id}`, { enabled: !enabled });
      say(enabled ? t("schedules.turnedOff", { name }) : t("schedules.turnedOn", { name }));
      await changed();
    } catch (error) {
      complain(asFailure(error));
    }
  };
  return [
    {
      title: t("schedules.column.name"),
      sort: ({ name }) => name,
      cell: (schedule) => {
        const under =
          schedule.failure ?? t("schedules.volumes", { count: schedule.volumeIds.length });
        return (
          <>
            <span class="name" title={schedule.name}>
              {schedule.name}
            </span>
            <span class={schedule.failure === null ? "under" : "under bad-text"} title={under}>
              {under}
            </span>
          </>
        );
      },
    },
    {
      title: t("schedules.column.when"),
      width: "220px",
      from: "medium",
      sort: ({ when }) => whenText(when),
      cell: ({ when }) => <span title={whenText(when)}>{whenText(when)}</span>,
    },
    {
      title: t("schedules.column.keeps"),
      width: "230px",
      from: "wide",
      cell: (schedule) => (
        <span class="soft" title={keepsText(schedule)}>
          {keepsText(schedule)}
        </span>
      ),
    },
    {
      title: t("schedules.column.next"),
      width: "236px",
      sort: ({ nextRunAt }) => nextRunAt ?? "",
      cell: ({ enabled, nextRunAt }) =>
        enabled ? (
          <span class="soft">
            {nextRunAt === null ? t("schedules.waiting") : formatMoment(nextRunAt)}
          </span>
        ) : (
          <Badge tone="idle">{t("schedules.off")}</Badge>
        ),
    },
    {
      title: t("snapshots.column.actions"),
      permission: "storage:write",
      width: "136px",
      end: true,
      cell: (schedule) => {
        const { name, enabled } = schedule;
        return (
          <div class="row-actions">
            <RowAction
              icon="clock"
              label={enabled ? t("schedules.disable", { name }) : t("schedules.enable", { name })}
              onClick={() => void turn(schedule)}
            />
            <RowAction
              icon="edit"
              label={t("schedules.edit", { name })}
              onClick={() => ask({ what: "edit", schedule })}
            />
            <RowAction
              icon="trash"
              danger
              label={t("schedules.delete", { name })}
              onClick={() => ask({ what: "delete", schedule })}
            />
          </div>
        );
      },
    },
  ];
}

interface DeleteProps {
  readonly schedule: SnapshotSchedule;
  onClose(): void;
  onChanged(): Promise<void>;
}

function DeleteDialog({ schedule: { id, name, snapshotCount }, onClose, onChanged }: DeleteProps) {
  return (
    <Confirm
      title={t("schedules.deleteTitle", { name })}
      verb={t("schedules.verbDelete")}
      losses={[
        t("schedules.deleteLoss"),
        ...(snapshotCount === 0 ? [] : [t("schedules.deleteStay", { count: snapshotCount })]),
      ]}
      onClose={onClose}
      onConfirm={async () => {
        await request("DELETE", `/snapshot-schedules/${id}`);
        say(t("schedules.deleted", { name }));
        await onChanged();
      }}
    />
  );
}
