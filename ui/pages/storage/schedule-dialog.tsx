import { useState } from "preact/hooks";
import { weekdays } from "../../../services/api/local-time.ts";
import type { SnapshotSchedule } from "../../../services/api/snapshot-schema.ts";
import { request } from "../../client.ts";
import { Dialog } from "../../components/dialog.tsx";
import { Field, Select } from "../../components/field.tsx";
import { say } from "../../components/toast.tsx";
import { volumes } from "../../live/state.ts";
import { t } from "../../words/words.ts";
import {
  bodyOf,
  draftOf,
  faultsOf,
  isWhole,
  keepRules,
  type ScheduleDraft,
} from "./schedule-draft.ts";
import { snapshotable } from "./snapshots.tsx";
import { VolumeChecks } from "./volume-checks.tsx";

interface ScheduleDialogProps {
  /** Undefined: a new one. */
  readonly schedule: SnapshotSchedule | undefined;
  onClose(): void;
  onChanged(): Promise<void>;
}

const keepWords = {
  last: "schedules.keepLast",
  hours: "schedules.keepHours",
  days: "schedules.keepDays",
  weeks: "schedules.keepWeeks",
  months: "schedules.keepMonths",
} as const;

export function ScheduleDialog({ schedule, onClose, onChanged }: ScheduleDialogProps) {
  const [draft, setDraft] = useState(() => draftOf(schedule));
  const [name, setName] = useState(schedule?.name ?? "");
  const [chosen, setChosen] = useState<readonly string[]>(schedule?.volumeIds ?? []);
  const change = (part: Partial<ScheduleDraft>) => setDraft((before) => ({ ...before, ...part }));
  const faults = faultsOf(draft);
  const offered = (volumes.value ?? []).filter(
    (volume) => snapshotable(volume) || chosen.includes(volume.id),
  );
  return (
    <Dialog
      title={
        schedule === undefined
          ? t("schedules.create")
          : t("schedules.editTitle", { name: schedule.name })
      }
      verb={t("schedules.verbSave")}
      disabled={!isWhole(faults) || chosen.length === 0}
      onClose={onClose}
      onSubmit={async () => {
        const body = { name: name.trim(), volumeIds: chosen, ...bodyOf(draft) };
        if (schedule === undefined) await request("POST", "/snapshot-schedules", body);
        else await request("PATCH", `/snapshot-schedules/${schedule.id}`, body);
        say(t("schedules.saved", { name: body.name }));
        await onChanged();
      }}
    >
      <Field
        label={t("snapshots.name")}
        name="name"
        required
        placeholder="nightly"
        value={name}
        onInput={setName}
      />
      <Select
        label={t("schedules.kind")}
        name="kind"
        value={draft.kind}
        options={(["every", "daily", "weekly"] as const).map((kind) => ({
          value: kind,
          label: t(`schedules.kind.${kind}`),
        }))}
        onChange={(kind) => change({ kind: kind as ScheduleDraft["kind"] })}
      />
      {draft.kind === "every" ? (
        <Field
          label={t("schedules.minutes")}
          name="minutes"
          inputMode="numeric"
          value={draft.minutes}
          onInput={(minutes) => change({ minutes })}
          wrong={faults.minutes ? t("schedules.minutesWrong") : undefined}
        />
      ) : (
        <Field
          label={t("schedules.at")}
          name="at"
          value={draft.at}
          hint={t("schedules.atHint")}
          onInput={(at) => change({ at })}
          wrong={faults.at ? t("schedules.atWrong") : undefined}
        />
      )}
      {draft.kind === "weekly" ? (
        <fieldset class="checks">
          <legend>{t("schedules.days")}</legend>
          {weekdays.map((day) => (
            <label key={day} class="check">
              <input
                type="checkbox"
                checked={draft.days.includes(day)}
                onChange={(event) =>
                  change({
                    days: event.currentTarget.checked
                      ? [...draft.days, day]
                      : draft.days.filter((each) => each !== day),
                  })
                }
              />
              <span>{t(`weekday.${day}`)}</span>
            </label>
          ))}
        </fieldset>
      ) : null}
      <fieldset class="keep-rules">
        <legend>{t("schedules.keepLegend")}</legend>
        <p class="hint">{t("schedules.keepHint")}</p>
        <div class="keep-fields">
          {keepRules.map((rule) => (
            <Field
              key={rule}
              label={t(keepWords[rule])}
              name={`keep-${rule}`}
              inputMode="numeric"
              value={draft.keep[rule]}
              onInput={(text) => change({ keep: { ...draft.keep, [rule]: text.trim() } })}
              wrong={faults.keep.has(rule) ? t("schedules.keepWrong") : undefined}
            />
          ))}
        </div>
      </fieldset>
      <VolumeChecks
        legend={t("snapshots.volumes")}
        volumes={offered}
        value={chosen}
        onChange={setChosen}
      />
    </Dialog>
  );
}
