import { useState } from "preact/hooks";
import type { UpgradeState } from "../../../services/api/upgrade-schema.ts";
import { request } from "../../client.ts";
import { Dialog } from "../../components/dialog.tsx";
import { Field } from "../../components/field.tsx";
import { Panel } from "../../components/parts.tsx";
import { complain, say } from "../../components/toast.tsx";
import { may } from "../../permission.ts";
import { formatMoment, t } from "../../words/words.ts";

interface SourcesProps {
  readonly state: UpgradeState;
  onChanged(): Promise<void>;
}

export function SourcesPanel({ state: { sources }, onChanged }: SourcesProps) {
  const [editing, setEditing] = useState(false);
  const [looking, setLooking] = useState(false);
  const look = async () => {
    setLooking(true);
    await request("POST", "/upgrade/sources/check").then(onChanged).catch(complain);
    setLooking(false);
  };
  return (
    <Panel title={t("upgrade.sources")} span={5}>
      <dl class="facts">
        <dt>{t("upgrade.channel")}</dt>
        <dd>{sources.channel ?? t("upgrade.noSource")}</dd>
        <dt>{t("upgrade.neighbour")}</dt>
        <dd>{sources.neighbour ?? t("upgrade.noSource")}</dd>
      </dl>
      <p class="soft small meter-gap">
        {sources.checkedAt === null
          ? t("upgrade.notChecked")
          : t("upgrade.checked", { when: formatMoment(sources.checkedAt) })}
      </p>
      {sources.message === null ? null : <p class="bad-text">{sources.message}</p>}
      {may("upgrade:write") ? (
        <div class="actions meter-gap">
          <button type="button" class="button" disabled={looking} onClick={() => void look()}>
            {t("upgrade.check")}
          </button>
          <button type="button" class="button" onClick={() => setEditing(true)}>
            {t("upgrade.editSources")}
          </button>
        </div>
      ) : null}
      {editing ? (
        <Dialog
          title={t("upgrade.sourcesTitle")}
          verb={t("upgrade.save")}
          onClose={() => setEditing(false)}
          onSubmit={async (form) => {
            const read = (name: string) => String(form.get(name)).trim() || null;
            await request("PUT", "/upgrade/sources", {
              channel: read("channel"),
              neighbour: read("neighbour"),
              neighbourFingerprint: read("neighbourFingerprint"),
            });
            say(t("upgrade.sourcesSaved"));
            await onChanged();
          }}
        >
          <Field
            label={t("upgrade.channel")}
            name="channel"
            value={sources.channel ?? ""}
            hint={t("upgrade.channelHint")}
          />
          <Field
            label={t("upgrade.neighbour")}
            name="neighbour"
            value={sources.neighbour ?? ""}
            hint={t("upgrade.neighbourHint")}
          />
          <Field
            label={t("upgrade.neighbourFingerprint")}
            name="neighbourFingerprint"
            value={sources.neighbourFingerprint ?? ""}
            hint={t("upgrade.neighbourFingerprintHint")}
          />
        </Dialog>
      ) : null}
    </Panel>
  );
}
