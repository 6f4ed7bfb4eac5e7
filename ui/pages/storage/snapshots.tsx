import { useMemo, useState } from "preact/hooks";
import { formatSize } from "#lib/model/size.ts";
import type { ExportCreated, Volume } from "../../../services/api/schema.ts";
import type { Snapshot } from "../../../services/api/snapshot-schema.ts";
import { asFailure, downloadFile, request } from "../../client.ts";
import { Fetching, OldAnswer } from "../../components/fetching.tsx";
import { Icon } from "../../components/icon.tsx";
import { Empty, PageHead, RowAction } from "../../components/parts.tsx";
import { Segments } from "../../components/segments.tsx";
import { type Column, Table } from "../../components/table.tsx";
import { Age } from "../../components/time.tsx";
import { complain, say } from "../../components/toast.tsx";
import { useFetched } from "../../live/fetched.ts";
import { volumes } from "../../live/state.ts";
import { may } from "../../permission.ts";
import { go, route, useAddressAction } from "../../router.ts";
import { t } from "../../words/words.ts";
import { DifferencesDialog } from "./differences-dialog.tsx";
import { ExportSecret } from "./export-secret.tsx";
import { SchedulesTable } from "./schedules.tsx";
import { AttachDialog, DetailsDialog } from "./snapshot-details.tsx";
import { CloneDialog, DeleteDialog, RevertDialog, TakeDialog } from "./snapshot-dialogs.tsx";
import { SnapshotState } from "./snapshot-state.tsx";
import { TreeTable } from "./tree-table.tsx";

type View = "list" | "tree" | "schedules";

export type Asked =
  | { readonly what: "take" }
  | { readonly what: "secret"; readonly created: ExportCreated }
  | {
      readonly what: "open" | "compare" | "attach" | "clone" | "revert" | "delete";
      readonly snapshot: Snapshot;
    };

/** Images never change: they have none. */
export function snapshotable(volume: Volume): boolean {
  return volume.state === "ready" && volume.kind !== "image" && !volume.readOnly;
}

const views = ["tree", "schedules"] as const;

export function SnapshotsPage() {
  const view: View = views.find((name) => route.value.query.has(name)) ?? "list";
  const volumeId = route.value.query.get("volume") ?? "";
  return (
    <>
      <PageHead
        title={t("page.snapshots")}
        actions={
          <Segments
            legend={t("snapshots.views")}
            name="view"
            value={view}
            options={[
              ["list", t("snapshots.view.list")],
              ["tree", t("snapshots.view.tree")],
              ["schedules", t("snapshots.view.schedules")],
            ]}
            onChange={(to) => go(to === "list" ? "/snapshots" : `/snapshots?${to}`)}
          />
        }
      >
        {t("snapshots.lead")}
      </PageHead>
      {view === "schedules" ? (
        <SchedulesTable />
      ) : (
        <SnapshotsTable volumeId={volumeId} asTree={view === "tree"} />
      )}
    </>
  );
}

function SnapshotsTable({ volumeId, asTree }: { volumeId: string; asTree: boolean }) {
  const fetched = useFetched<Snapshot[]>("/snapshots");
  const [asked, setAsked] = useState<Asked>();
  const changed = () => fetched.reload();
  useAddressAction("new", () => setAsked({ what: "take" }));
  const columns = useMemo(() => columnsFor(setAsked, changed), []);
  const shown = useMemo(
    () =>
      (fetched.value ?? [])
        .filter((snapshot) => volumeId === "" || snapshot.volumeId === volumeId)
        .toSorted((a, b) => (a.createdAt < b.createdAt ? 1 : -1)),
    [fetched.value, volumeId],
  );
  const take = may("storage:write") ? (
    <button type="button" class="button primary" onClick={() => setAsked({ what: "take" })}>
      <Icon name="plus" />
      {t("snapshots.take")}
    </button>
  ) : undefined;
  if (fetched.value === undefined) return <Fetching of={fetched} />;
  return (
    <>
      <OldAnswer of={fetched} />
      {asTree ? (
        <TreeTable
          snapshots={fetched.value}
          onOpen={(snapshot) => setAsked({ what: "open", snapshot })}
        />
      ) : (
        <Table
          label={t("page.snapshots")}
          noun={[t("snapshots.one"), t("snapshots.many")]}
          rows={shown}
          columns={columns}
          rowKey={(snapshot) => snapshot.id}
          onOpen={(snapshot) => setAsked({ what: "open", snapshot })}
          text={(snapshot) =>
            `${snapshot.name} ${snapshot.volumeName ?? ""} ${snapshot.description} ${snapshot.scheduleName ?? ""} ${snapshot.id}`
          }
          tools={
            <>
              <select
                class="input of-volume"
                aria-label={t("snapshots.of")}
                value={volumeId}
                onChange={(event) => {
                  const id = event.currentTarget.value;
                  go(id === "" ? "/snapshots" : `/snapshots?volume=${id}`);
                }}
              >
                <option value="">{t("snapshots.ofAll")}</option>
                {(volumes.value ?? [])
                  .filter((volume) => snapshotable(volume) || volume.id === volumeId)
                  .map(({ id, name }) => (
                    <option key={id} value={id}>
                      {name}
                    </option>
                  ))}
              </select>
              {take}
            </>
          }
          empty={
            <Empty icon="snapshot" title={t("snapshots.empty")} actions={take}>
              {t("snapshots.emptyDetail")}
            </Empty>
          }
        />
      )}
      <AskedDialog
        asked={asked}
        volumeId={volumeId}
        snapshots={fetched.value}
        onAsk={setAsked}
        onChanged={changed}
      />
    </>
  );
}

interface AskedProps {
  readonly asked: Asked | undefined;
  /** Chosen in the list; "" for none. */
  readonly volumeId: string;
  readonly snapshots: readonly Snapshot[];
  onAsk(update: (now: Asked | undefined) => Asked | undefined): void;
  onChanged(): Promise<void>;
}

function AskedDialog({ asked, volumeId, snapshots, onAsk, onChanged }: AskedProps) {
  if (asked === undefined) return null;
  // What it leads to takes its place: closing this must not close that.
  const onClose = () => onAsk((now) => (now === asked ? undefined : now));
  if (asked.what === "take") {
    return <TakeDialog volumeId={volumeId} onClose={onClose} onChanged={onChanged} />;
  }
  if (asked.what === "secret") return <ExportSecret created={asked.created} onClose={onClose} />;
  const { snapshot } = asked;
  switch (asked.what) {
    case "open":
      return (
        <DetailsDialog
          snapshot={snapshot}
          onClose={onClose}
          onCompare={() => onAsk(() => ({ what: "compare", snapshot }))}
          onAttach={() => onAsk(() => ({ what: "attach", snapshot }))}
        />
      );
    case "compare":
      return <DifferencesDialog snapshot={snapshot} snapshots={snapshots} onClose={onClose} />;
    case "attach":
      return (
        <AttachDialog
          snapshot={snapshot}
          onClose={onClose}
          onAttached={(created) => onAsk(() => ({ what: "secret", created }))}
        />
      );
    case "clone":
      return <CloneDialog snapshot={snapshot} onClose={onClose} />;
    case "revert":
      return <RevertDialog snapshot={snapshot} onClose={onClose} onChanged={onChanged} />;
    case "delete":
      return <DeleteDialog snapshot={snapshot} onClose={onClose} onChanged={onChanged} />;
  }
}

export function originOf({ scheduleId, scheduleName }: Snapshot): string {
  if (scheduleId === null) return t("snapshots.byHand");
  return scheduleName === null
    ? t("snapshots.byGone")
    : t("snapshots.bySchedule", { name: scheduleName });
}

export function volumeOf({ volumeName }: Snapshot): string {
  return volumeName ?? t("snapshots.volumeGone");
}

function columnsFor(ask: (asked: Asked) => void, changed: () => Promise<void>): Column<Snapshot>[] {
  const size = (bytes: number | null) => (
    <span class="number">{bytes === null ? t("snapshots.unknown") : formatSize(bytes)}</span>
  );
  const hold = async ({ id, name }: Snapshot, held: boolean) => {
    try {
      await request("PATCH", `/snapshots/${id}`, { hold: held });
      say(held ? t("snapshots.held", { name }) : t("snapshots.released", { name }));
      await changed();
    } catch (error) {
      complain(asFailure(error));
    }
  };
  return [
    {
      title: t("snapshots.column.name"),
      // By volume, and of each in the order of time.
      sort: ({ createdAt, volumeName }) => `${volumeName ?? ""} ${createdAt}`,
      cell: (snapshot) => {
        const under = t("snapshots.under", {
          volume: volumeOf(snapshot),
          by: snapshot.description === "" ? originOf(snapshot) : snapshot.description,
        });
        return (
          <>
            <span class="name" title={snapshot.name}>
              {snapshot.name}
            </span>
            <span class="under" title={under}>
              {under}
            </span>
          </>
        );
      },
    },
    {
      title: t("snapshots.column.taken"),
      width: "130px",
      from: "medium",
      sort: ({ createdAt }) => createdAt,
      cell: ({ createdAt }) => (
        <span class="soft">
          <Age at={createdAt} />
        </span>
      ),
    },
    {
      title: t("snapshots.column.holds"),
      width: "112px",
      from: "wide",
      sort: ({ referencedBytes }) => referencedBytes ?? -1,
      cell: ({ referencedBytes }) => size(referencedBytes),
    },
    {
      title: t("snapshots.column.frees"),
      width: "132px",
      from: "medium",
      sort: ({ exclusiveBytes }) => exclusiveBytes ?? -1,
      cell: ({ exclusiveBytes }) => size(exclusiveBytes),
    },
    {
      title: t("snapshots.column.state"),
      width: "130px",
      sort: ({ state, hold: held }) => `${state} ${held}`,
      cell: (snapshot) => <SnapshotState snapshot={snapshot} />,
    },
    {
      title: t("snapshots.column.actions"),
      permission: "storage:write",
      width: may("backup:write") ? "214px" : "172px",
      end: true,
      cell: (snapshot) => {
        const { id, name, hold: held, state, volumeName } = snapshot;
        const ready = state === "ready";
        return (
          <div class="row-actions">
            <RowAction
              icon="copy"
              label={t("snapshots.clone", { name })}
              disabled={!ready}
              onClick={() => ask({ what: "clone", snapshot })}
            />
            <RowAction
              icon="reset"
              label={t("snapshots.revert", { name })}
              disabled={!ready || volumeName === null}
              onClick={() => ask({ what: "revert", snapshot })}
            />
            {may("backup:write") && (
              <RowAction
                icon="download"
                label={t("snapshots.download", { name })}
                disabled={!ready}
                onClick={() => downloadFile(`/snapshots/${id}/data?format=qcow2`)}
              />
            )}
            <RowAction
              icon={held ? "unlock" : "lock"}
              label={held ? t("snapshots.release", { name }) : t("snapshots.hold", { name })}
              disabled={!ready}
              onClick={() => void hold(snapshot, !held)}
            />
            <RowAction
              icon="trash"
              danger
              label={t("snapshots.delete", { name })}
              disabled={held || state === "deleting"}
              onClick={() => ask({ what: "delete", snapshot })}
            />
          </div>
        );
      },
    },
  ];
}
