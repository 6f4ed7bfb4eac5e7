import type { Snapshot } from "../../../services/api/snapshot-schema.ts";
import { Badge } from "../../components/parts.tsx";
import { t } from "../../words/words.ts";

export function SnapshotState({ snapshot: { state, hold, clones } }: { snapshot: Snapshot }) {
  if (state === "missing") return <Badge tone="bad">{t("snapshots.state.missing")}</Badge>;
  if (state !== "ready") return <Badge tone="accent">{t(`snapshots.state.${state}`)}</Badge>;
  if (hold) return <Badge tone="good">{t("snapshots.state.held")}</Badge>;
  if (clones.length > 0) {
    return <Badge tone="idle">{t("snapshots.clones", { count: clones.length })}</Badge>;
  }
  return <Badge tone="idle">{t("snapshots.state.ready")}</Badge>;
}
