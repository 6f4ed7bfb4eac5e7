/** Where the audit log's heads are sent, and whether they are taken. */
import { useState } from "preact/hooks";
import type {
  AuditTarget,
  AuditTargetChange,
  AuditTargetTest,
} from "../../../services/api/audit-target-schema.ts";
import { request } from "../../client.ts";
import { Confirm, Dialog } from "../../components/dialog.tsx";
import { Fetching, OldAnswer } from "../../components/fetching.tsx";
import { Field } from "../../components/field.tsx";
import { Badge, Panel } from "../../components/parts.tsx";
import { PemField } from "../../components/pem-field.tsx";
import { complain, say } from "../../components/toast.tsx";
import { useFetched } from "../../live/fetched.ts";
import { may } from "../../permission.ts";
import { formatMoment, formatNumber, t } from "../../words/words.ts";

const path = "/settings/audit-target";
type Settings = NonNullable<AuditTarget["settings"]>;

export function AuditTargetPanel() {
  const target = useFetched<AuditTarget>(path);
  const [asked, setAsked] = useState<"set" | "remove">();
  const { value } = target;
  const [tested, setTested] = useState<AuditTargetTest>();
  const [testing, setTesting] = useState(false);
  const close = () => setAsked(undefined);
  const test = async () => {
    setTesting(true);
    setTested(undefined);
    try {
      setTested(await request<AuditTargetTest>("POST", `${path}/test`));
      await target.reload();
    } catch (error) {
      complain(error);
    }
    setTesting(false);
  };
  return (
    <Panel
      title={t("target.title")}
      span={12}
      aside={value?.settings ? <TargetBadge of={value} /> : null}
    >
      <p class="soft panel-text">{t("target.lead")}</p>
      {value === undefined ? (
        <Fetching of={target} />
      ) : (
        <>
          <OldAnswer of={target} />
          {value.settings === null ? (
            <p class="panel-text">{t("target.none")}</p>
          ) : (
            <Facts of={value} settings={value.settings} />
          )}
          <div role="status">
            {tested === undefined ? null : (
              <p class={tested.ok ? "panel-text" : "bad-text panel-text"}>{tested.message}</p>
            )}
          </div>
          {may("settings:write") ? (
            <div class="actions meter-gap">
              <button type="button" class="button" onClick={() => setAsked("set")}>
                {t(value.settings === null ? "target.add" : "target.change")}
              </button>
              {value.settings === null ? null : (
                <>
                  <button
                    type="button"
                    class="button"
                    disabled={testing}
                    onClick={() => void test()}
                  >
                    {t(testing ? "target.testing" : "target.test")}
                  </button>
                  <button type="button" class="button danger" onClick={() => setAsked("remove")}>
                    {t("target.remove")}
                  </button>
                </>
              )}
            </div>
          ) : null}
          {asked === "set" ? (
            <TargetDialog
              of={value.settings}
              onClose={close}
              onDone={() => {
                setTested(undefined);
                return target.reload();
              }}
            />
          ) : null}
          {asked === "remove" && value.settings !== null ? (
            <Confirm
              title={t("target.removeTitle")}
              verb={t("target.remove")}
              losses={[t("target.removeLoss", { url: value.settings.url })]}
              onClose={close}
              onConfirm={async () => {
                await request("DELETE", path);
                say(t("target.removed"));
                await target.reload();
              }}
            />
          ) : null}
        </>
      )}
    </Panel>
  );
}

function TargetBadge({ of: { failure, delivered } }: { of: AuditTarget }) {
  if (failure !== null) return <Badge tone="bad">{t("target.failing")}</Badge>;
  if (delivered === null) return <Badge tone="idle">{t("target.pending")}</Badge>;
  return <Badge tone="good">{t("target.good")}</Badge>;
}

function Facts({ of, settings }: { of: AuditTarget; settings: Settings }) {
  const { delivered, waiting, failure } = of;
  return (
    <>
      <dl class="facts">
        <dt>{t("target.url")}</dt>
        <dd class="mono">{settings.url}</dd>
        <dt>{t("target.pace")}</dt>
        <dd>
          {t("target.paceText", {
            entries: formatNumber(settings.everyEntries),
            seconds: formatNumber(settings.everySeconds),
          })}
        </dd>
        <dt>{t("target.delivered")}</dt>
        <dd>
          {delivered === null
            ? t("target.notDelivered")
            : t("target.deliveredText", {
                sequence: formatNumber(delivered.sequence),
                when: formatMoment(delivered.at),
              })}
          {waiting === 0 ? null : (
            <span class="soft"> {t("target.waiting", { count: waiting })}</span>
          )}
        </dd>
      </dl>
      {failure === null ? null : (
        <p class="bad-text meter-gap">
          {t("target.failure", { when: formatMoment(failure.since), reason: failure.reason })}
        </p>
      )}
    </>
  );
}

interface DialogProps {
  readonly of: Settings | null;
  onClose(): void;
  onDone(): Promise<void>;
}

function TargetDialog({ of: settings, onClose, onDone }: DialogProps) {
  const [url, setUrl] = useState(settings?.url ?? "");
  const [seconds, setSeconds] = useState(String(settings?.everySeconds ?? 300));
  const [entries, setEntries] = useState(String(settings?.everyEntries ?? 50));
  const [token, setToken] = useState("");
  const [noToken, setNoToken] = useState(false);
  const [ca, setCa] = useState(settings?.caCertificate ?? "");
  const wrong = (text: string) =>
    /^\d{1,6}$/.test(text.trim()) ? undefined : t("target.wrongNumber");
  return (
    <Dialog
      title={t(settings === null ? "target.add" : "target.change")}
      verb={t("target.save")}
      disabled={url.trim() === "" || (wrong(seconds) ?? wrong(entries)) !== undefined}
      onClose={onClose}
      onSubmit={async () => {
        const change: AuditTargetChange = {
          url: url.trim(),
          everySeconds: Number(seconds),
          everyEntries: Number(entries),
          caCertificate: ca.trim() === "" ? null : ca,
          ...(noToken ? { token: null } : token === "" ? {} : { token }),
        };
        await request("PUT", path, change);
        say(t("target.saved", { url: change.url }));
        await onDone();
      }}
    >
      <Field
        label={t("target.url")}
        name="url"
        value={url}
        hint={t("target.urlHint")}
        takesFocus
        onInput={setUrl}
      />
      <Field
        label={t("target.everySeconds")}
        name="seconds"
        inputMode="numeric"
        value={seconds}
        wrong={wrong(seconds)}
        onInput={setSeconds}
      />
      <Field
        label={t("target.everyEntries")}
        name="entries"
        inputMode="numeric"
        value={entries}
        wrong={wrong(entries)}
        onInput={setEntries}
      />
      <Field
        label={t("target.token")}
        name="token"
        type="password"
        autocomplete="new-password"
        value={token}
        hint={t(settings?.tokenSet ? "target.tokenKept" : "target.tokenHint")}
        onInput={setToken}
      />
      {settings?.tokenSet ? (
        <label class="check">
          <input
            type="checkbox"
            checked={noToken}
            onChange={(event) => setNoToken(event.currentTarget.checked)}
          />
          {t("target.noToken")}
        </label>
      ) : null}
      <PemField
        label={t("target.ca")}
        value={ca}
        placeholder="-----BEGIN CERTIFICATE-----"
        onInput={setCa}
      />
    </Dialog>
  );
}
