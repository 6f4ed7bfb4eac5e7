import { useState } from "preact/hooks";
import { parseIqn } from "#lib/model/ids.ts";
import { formatSize } from "#lib/model/size.ts";
import type { ExportCreated } from "../../../services/api/schema.ts";
import type { Snapshot } from "../../../services/api/snapshot-schema.ts";
import { request } from "../../client.ts";
import { Dialog } from "../../components/dialog.tsx";
import { Field, Select } from "../../components/field.tsx";
import { may } from "../../permission.ts";
import { formatMoment, t } from "../../words/words.ts";
import { originOf, volumeOf } from "./snapshots.tsx";

interface DetailsProps {
  readonly snapshot: Snapshot;
  onClose(): void;
  onCompare(): void;
  onAttach(): void;
}

export function DetailsDialog({ snapshot, onClose, onCompare, onAttach }: DetailsProps) {
  const { id, name, description, sizeBytes, referencedBytes, exclusiveBytes, clones } = snapshot;
  const size = (bytes: number | null) =>
    bytes === null ? t("snapshots.unknown") : formatSize(bytes);
  const facts: [key: string, value: string, mono?: boolean][] = [
    [t("snapshots.detail.volume"), volumeOf(snapshot)],
    [t("snapshots.column.taken"), `${formatMoment(snapshot.createdAt)}, ${originOf(snapshot)}`],
    ...(description === "" ? [] : [[t("snapshots.description"), description] as [string, string]]),
    [t("snapshots.detail.size"), formatSize(sizeBytes)],
    [t("snapshots.column.holds"), size(referencedBytes)],
    [t("snapshots.column.frees"), size(exclusiveBytes)],
    [
      t("snapshots.detail.clones"),
      clones.length === 0
        ? t("snapshots.detail.noClones")
        : clones.map((clone) => clone.name).join(", "),
    ],
    [t("snapshots.detail.id"), id, true],
  ];
  const ready = snapshot.state === "ready";
  return (
    <Dialog
      title={name}
      verb={t("snapshots.detail.close")}
      onlyVerb
      closable
      onClose={onClose}
      onSubmit={async () => {}}
    >
      <dl class="facts">
        {facts.flatMap(([key, value, mono]) => [
          <dt key={key}>{key}</dt>,
          <dd key={`${key} value`} class={mono === true ? "mono" : ""}>
            {value}
          </dd>,
        ])}
      </dl>
      <div class="actions start">
        <button type="button" class="button" disabled={!ready} onClick={onCompare}>
          {t("snapshots.compare")}
        </button>
        {may("storage:write") ? (
          <button type="button" class="button" disabled={!ready} onClick={onAttach}>
            {t("snapshots.attach")}
          </button>
        ) : null}
      </div>
    </Dialog>
  );
}

interface AttachProps {
  readonly snapshot: Snapshot;
  onClose(): void;
  onAttached(created: ExportCreated): void;
}

/** File recovery: a clone of the snapshot, exported to one machine, in one action. */
export function AttachDialog({ snapshot, onClose, onAttached }: AttachProps) {
  const [initiator, setInitiator] = useState("");
  const [chap, setChap] = useState("generate");
  const wrong =
    initiator.trim() !== "" && parseIqn(initiator.trim()) === undefined
      ? t("snapshots.attach.wrong")
      : undefined;
  return (
    <Dialog
      title={t("snapshots.attach.title", { name: snapshot.name })}
      verb={t("snapshots.attach.verb")}
      disabled={wrong !== undefined || initiator.trim() === ""}
      onClose={onClose}
      onSubmit={async () => {
        onAttached(
          await request<ExportCreated>("POST", `/snapshots/${snapshot.id}/attach`, {
            initiator: initiator.trim(),
            chap,
          }),
        );
      }}
    >
      <p class="soft">{t("snapshots.attach.lead", { volume: volumeOf(snapshot) })}</p>
      <Field
        label={t("snapshots.attach.initiator")}
        name="initiator"
        required
        placeholder="iqn.1993-08.org.debian:01:4f2c"
        hint={t("snapshots.attach.hint")}
        value={initiator}
        onInput={setInitiator}
        wrong={wrong}
      />
      <Select
        label={t("snapshots.attach.chap")}
        name="chap"
        value={chap}
        onChange={setChap}
        options={[
          { value: "generate", label: t("snapshots.attach.generate") },
          { value: "none", label: t("snapshots.attach.none") },
        ]}
      />
    </Dialog>
  );
}
