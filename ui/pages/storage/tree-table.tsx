import { useMemo } from "preact/hooks";
import { formatSize } from "#lib/model/size.ts";
import { type TreeRow as AnyTreeRow, snapshotTree } from "#lib/model/snapshot-tree.ts";
import type { Volume } from "../../../services/api/schema.ts";
import type { Snapshot } from "../../../services/api/snapshot-schema.ts";
import { Icon } from "../../components/icon.tsx";
import { Badge, Empty } from "../../components/parts.tsx";
import { type Column, Table } from "../../components/table.tsx";
import { Age } from "../../components/time.tsx";
import { volumes } from "../../live/state.ts";
import { go } from "../../router.ts";
import { t } from "../../words/words.ts";
import { SnapshotState } from "./snapshot-state.tsx";

type TreeRow = AnyTreeRow<Volume, Snapshot>;

interface TreeProps {
  readonly snapshots: readonly Snapshot[];
  onOpen(snapshot: Snapshot): void;
}

/** A snapshot opens, a volume leads to its own snapshots. */
export function TreeTable({ snapshots, onOpen }: TreeProps) {
  const rows = useMemo(
    () => snapshotTree(volumes.value ?? [], snapshots),
    [volumes.value, snapshots],
  );
  return (
    <Table
      label={t("snapshots.view.tree")}
      noun={[t("snapshots.tree.one"), t("snapshots.tree.many")]}
      rows={rows}
      columns={columns}
      rowKey={(row) => row.record.id}
      text={(row) =>
        row.kind === "snapshot" ? `${row.record.name} ${row.record.description}` : nameOf(row)
      }
      onOpen={(row) => {
        if (row.kind === "snapshot") onOpen(row.record);
        else go(`/snapshots?volume=${row.record.id}`);
      }}
      empty={
        <Empty icon="snapshot" title={t("snapshots.tree.empty")}>
          {t("snapshots.tree.emptyDetail")}
        </Empty>
      }
    />
  );
}

function nameOf(row: TreeRow): string {
  return row.kind === "gone" ? t("snapshots.volumeGone") : row.record.name;
}

/** Deeper ones are drawn no further to the right: there is no room for it. */
const deepest = 8;

const columns: readonly Column<TreeRow>[] = [
  {
    title: t("snapshots.tree.column.name"),
    cell: (row) => (
      <span class="branch" style={{ "--depth": String(Math.min(row.depth, deepest)) }}>
        <Icon name={row.kind === "snapshot" ? "snapshot" : "volume"} />
        <span class="name" title={nameOf(row)}>
          <span class="unseen">{t("snapshots.tree.level", { level: row.depth + 1 })} </span>
          {nameOf(row)}
        </span>
      </span>
    ),
  },
  {
    title: t("snapshots.tree.column.since"),
    width: "130px",
    from: "medium",
    cell: (row) =>
      row.kind === "gone" ? null : (
        <span class="soft">
          <Age at={row.record.createdAt} />
        </span>
      ),
  },
  {
    title: t("snapshots.tree.column.space"),
    width: "132px",
    from: "medium",
    cell: (row) => {
      if (row.kind === "gone") return null;
      const bytes = row.kind === "volume" ? row.record.allocatedBytes : row.record.referencedBytes;
      return (
        <span class="number">{bytes === null ? t("snapshots.unknown") : formatSize(bytes)}</span>
      );
    },
  },
  {
    title: t("snapshots.column.state"),
    width: "130px",
    cell: (row) => {
      if (row.kind === "snapshot") return <SnapshotState snapshot={row.record} />;
      if (row.kind === "gone") return null;
      return (
        <Badge tone={row.record.state === "failed" ? "bad" : "idle"}>
          {t(`snapshots.tree.${row.record.kind}`)}
        </Badge>
      );
    },
  },
];
