/** The certificate that browsers see: as it is, another one, and the way back; audit heads' target. */
import { useState } from "preact/hooks";
import type { Tls, TlsUpload } from "../../../services/api/tls-schema.ts";
import { request } from "../../client.ts";
import { Confirm, Dialog } from "../../components/dialog.tsx";
import { Fetching, OldAnswer } from "../../components/fetching.tsx";
import { Icon } from "../../components/icon.tsx";
import { saveFile } from "../../components/once.tsx";
import { Badge, PageHead, Panel } from "../../components/parts.tsx";
import { PemField } from "../../components/pem-field.tsx";
import { now } from "../../components/time.tsx";
import { say } from "../../components/toast.tsx";
import { type Fetched, useFetched } from "../../live/fetched.ts";
import { may } from "../../permission.ts";
import { formatDay, t } from "../../words/words.ts";
import { AuditTargetPanel } from "./audit-target.tsx";

export function SettingsPage() {
  return (
    <>
      <PageHead title={t("page.settings")}>{t("settings.lead")}</PageHead>
      <div class="grid">
        <CertificatePanels />
        <AuditTargetPanel />
      </div>
    </>
  );
}

function CertificatePanels() {
  const tls = useFetched<Tls>("/settings/tls");
  if (tls.value === undefined) {
    return (
      <Panel title={t("settings.certificate")} span={12}>
        <Fetching of={tls} />
      </Panel>
    );
  }
  return (
    <>
      <CertificatePanel tls={tls} value={tls.value} />
      <CaPanel value={tls.value} />
    </>
  );
}

const dayMs = 86_400_000;
const soonDays = 30;

function Validity({ validTo }: { validTo: string }) {
  const days = Math.floor((Date.parse(validTo) - now.value) / dayMs);
  if (days < 0) return <Badge tone="bad">{t("settings.expired")}</Badge>;
  return days >= soonDays ? null : (
    <Badge tone="warn">{t("settings.expires", { count: days })}</Badge>
  );
}

function CertificatePanel({ tls, value }: { tls: Fetched<Tls>; value: Tls }) {
  const [asked, setAsked] = useState<"upload" | "reset">();
  const { certificate } = value;
  const close = () => setAsked(undefined);
  return (
    <Panel
      title={t("settings.certificate")}
      span={7}
      aside={
        <Badge tone={value.source === "passing" ? "bad" : "idle"}>
          {t(`settings.source.${value.source}`)}
        </Badge>
      }
    >
      <OldAnswer of={tls} />
      <dl class="facts">
        <dt>{t("settings.subject")}</dt>
        <dd>{certificate.names.join(", ") || certificate.subject}</dd>
        <dt>{t("settings.issuer")}</dt>
        <dd>{certificate.issuer}</dd>
        <dt>{t("settings.valid")}</dt>
        <dd>
          {t("settings.validFromTo", {
            from: formatDay(certificate.validFrom),
            to: formatDay(certificate.validTo),
          })}{" "}
          <Validity validTo={certificate.validTo} />
        </dd>
        <dt>{t("settings.key")}</dt>
        <dd>{certificate.keyType}</dd>
        <dt>{t("settings.fingerprint")}</dt>
        <dd class="mono fingerprint">{certificate.fingerprint}</dd>
        <dt>{t("settings.names")}</dt>
        <dd>
          {value.names.map(({ name, covered }) => (
            <div key={name}>
              {name}{" "}
              <span class={covered ? "soft" : "bad-text"}>
                {t(covered ? "settings.covered" : "settings.notCovered")}
              </span>
            </div>
          ))}
        </dd>
      </dl>
      {may("settings:write") ? (
        <div class="actions meter-gap">
          <button type="button" class="button" onClick={() => setAsked("upload")}>
            <Icon name="upload" />
            {t("settings.upload")}
          </button>
          {value.source === "uploaded" ? (
            <button type="button" class="button" onClick={() => setAsked("reset")}>
              <Icon name="reset" />
              {t("settings.reset")}
            </button>
          ) : null}
        </div>
      ) : null}
      {asked === "upload" ? <UploadDialog onClose={close} onDone={tls.reload} /> : null}
      {asked === "reset" ? (
        <Confirm
          title={t("settings.resetTitle")}
          verb={t("settings.resetVerb")}
          losses={[t("settings.resetLoss"), t("settings.resetLossWarn")]}
          onClose={close}
          onConfirm={async () => {
            await request("DELETE", "/settings/tls");
            say(t("settings.resetDone"));
            await tls.reload();
          }}
        />
      ) : null}
    </Panel>
  );
}

function UploadDialog({ onClose, onDone }: { onClose(): void; onDone(): Promise<void> }) {
  const [certificate, setCertificate] = useState("");
  const [key, setKey] = useState("");
  const [anyName, setAnyName] = useState(false);
  return (
    <Dialog
      title={t("settings.upload")}
      verb={t("settings.use")}
      disabled={certificate.trim() === "" || key.trim() === ""}
      onClose={onClose}
      onSubmit={async () => {
        const upload: TlsUpload = { certificate, key, anyName };
        await request("PUT", "/settings/tls", upload);
        say(t("settings.used"));
        await onDone();
      }}
    >
      <p class="soft">{t("settings.uploadLead")}</p>
      <PemField
        label={t("settings.certificatePem")}
        value={certificate}
        placeholder="-----BEGIN CERTIFICATE-----"
        onInput={setCertificate}
      />
      <PemField
        label={t("settings.keyPem")}
        value={key}
        placeholder="-----BEGIN PRIVATE KEY-----"
        onInput={setKey}
      />
      <label class="check">
        <input
          type="checkbox"
          checked={anyName}
          onChange={(event) => setAnyName(event.currentTarget.checked)}
        />
        {t("settings.anyName")}
      </label>
    </Dialog>
  );
}

function CaPanel({ value }: { value: Tls }) {
  return (
    <Panel title={t("settings.ca")} span={5}>
      <p class="soft panel-text">{t("settings.caLead")}</p>
      <dl class="facts">
        <dt>{t("settings.fingerprint")}</dt>
        <dd class="mono fingerprint">{value.caFingerprint}</dd>
      </dl>
      <button
        type="button"
        class="button meter-gap"
        onClick={() => saveFile("keelson-ca.pem", value.caCertificate, "application/x-pem-file")}
      >
        <Icon name="download" />
        {t("settings.saveCa")}
      </button>
    </Panel>
  );
}
