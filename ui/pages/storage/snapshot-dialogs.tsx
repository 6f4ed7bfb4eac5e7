import { useState } from "preact/hooks";
import { formatSize } from "#lib/model/size.ts";
import type { Volume } from "../../../services/api/schema.ts";
import type { Snapshot, VolumeReverted } from "../../../services/api/snapshot-schema.ts";
import { request } from "../../client.ts";
import { Confirm, Dialog } from "../../components/dialog.tsx";
import { Field } from "../../components/field.tsx";
import { say } from "../../components/toast.tsx";
import { volumes } from "../../live/state.ts";
import { formatMoment, t } from "../../words/words.ts";
import { snapshotable, volumeOf } from "./snapshots.tsx";
import { VolumeChecks } from "./volume-checks.tsx";

interface ChangeProps {
  readonly snapshot: Snapshot;
  onClose(): void;
  onChanged(): Promise<void>;
}

interface TakeProps {
  /** Chosen already; "" for none. */
  readonly volumeId: string;
  onClose(): void;
  onChanged(): Promise<void>;
}

export function TakeDialog({ volumeId, onClose, onChanged }: TakeProps) {
  const [chosen, setChosen] = useState<readonly string[]>(volumeId === "" ? [] : [volumeId]);
  const offered = (volumes.value ?? []).filter(snapshotable);
  return (
    <Dialog
      title={t("snapshots.take")}
      verb={t("snapshots.verbTake")}
      disabled={chosen.length === 0}
      onClose={onClose}
      onSubmit={async (form) => {
        const made = await request<Snapshot[]>("POST", "/snapshots", {
          volumes: chosen,
          name: String(form.get("name")).trim(),
          description: String(form.get("description")).trim(),
        });
        say(t("snapshots.taken", { count: made.length }));
        await onChanged();
      }}
    >
      <Field label={t("snapshots.name")} name="name" required placeholder="before-upgrade" />
      <Field label={t("snapshots.description")} name="description" />
      {offered.length === 0 ? (
        <p class="soft">{t("snapshots.noVolumes")}</p>
      ) : (
        <VolumeChecks
          legend={t("snapshots.volumes")}
          volumes={offered}
          value={chosen}
          onChange={setChosen}
        />
      )}
    </Dialog>
  );
}

export function CloneDialog({ snapshot, onClose }: Omit<ChangeProps, "onChanged">) {
  return (
    <Dialog
      title={t("snapshots.clone", { name: snapshot.name })}
      verb={t("snapshots.verbClone")}
      onClose={onClose}
      onSubmit={async (form) => {
        const name = String(form.get("name")).trim();
        await request<Volume>("POST", "/volumes", {
          name,
          origin: { snapshotId: snapshot.id },
        });
        say(t("snapshots.cloned", { name }));
      }}
    >
      <Field
        label={t("snapshots.name")}
        name="name"
        required
        placeholder={`${volumeOf(snapshot)}-copy`}
        hint={t("snapshots.cloneHint")}
      />
    </Dialog>
  );
}

export function RevertDialog({ snapshot, onClose, onChanged }: ChangeProps) {
  const [keep, setKeep] = useState(true);
  const volume = volumeOf(snapshot);
  const at = formatMoment(snapshot.createdAt);
  return (
    <Confirm
      title={t("snapshots.revertTitle", { volume, name: snapshot.name })}
      verb={t("snapshots.verbRevert")}
      losses={[t("snapshots.revertLoss", { volume, at })]}
      {...(keep ? {} : { typed: volume })}
      onClose={onClose}
      onConfirm={async () => {
        await request<VolumeReverted>("POST", `/volumes/${snapshot.volumeId}/revert`, {
          snapshotId: snapshot.id,
          keepPresent: keep,
        });
        say(t("snapshots.reverted", { volume, name: snapshot.name }));
        await onChanged();
      }}
    >
      <label class="check">
        <input
          type="checkbox"
          checked={keep}
          onChange={(event) => setKeep(event.currentTarget.checked)}
        />
        <span>
          {t("snapshots.keepPresent")}
          <span class="under wrap">{t("snapshots.keepPresentHint")}</span>
        </span>
      </label>
      <p class="soft">{t("snapshots.revertOther")}</p>
    </Confirm>
  );
}

export function DeleteDialog({ snapshot, onClose, onChanged }: ChangeProps) {
  const { id, name, exclusiveBytes, clones } = snapshot;
  const at = formatMoment(snapshot.createdAt);
  return (
    <Confirm
      title={t("snapshots.deleteTitle", { name })}
      verb={t("snapshots.verbDelete")}
      losses={[
        t("snapshots.deleteLoss", { volume: volumeOf(snapshot), at }),
        exclusiveBytes === null
          ? t("snapshots.deleteFreesUnknown")
          : t("snapshots.deleteFrees", { size: formatSize(exclusiveBytes) }),
        ...(clones.length === 0 ? [] : [t("snapshots.deleteClones", { count: clones.length })]),
      ]}
      onClose={onClose}
      onConfirm={async () => {
        await request("DELETE", `/snapshots/${id}`);
        say(t("snapshots.deleted", { name }));
        await onChanged();
      }}
    />
  );
}
