/** A second step at log-in (RFC 6238): enrolment by QR code, recovery codes, turning it off. */
import { useMemo, useState } from "preact/hooks";
import { encode } from "uqr";
import type { RecoveryCodes, Totp, TotpEnrolment } from "../../../services/api/accounts-schema.ts";
import { request } from "../../client.ts";
import { Confirm, Dialog } from "../../components/dialog.tsx";
import { Fetching } from "../../components/fetching.tsx";
import { Field } from "../../components/field.tsx";
import { SecretText } from "../../components/once.tsx";
import { Badge, Panel } from "../../components/parts.tsx";
import { say } from "../../components/toast.tsx";
import { useFetched } from "../../live/fetched.ts";
import { useAddressAction } from "../../router.ts";
import { t } from "../../words/words.ts";

type Asked =
  | { readonly what: "prove" | "renew" | "off" }
  | { readonly what: "scan"; readonly enrolment: TotpEnrolment }
  | { readonly what: "codes"; readonly codes: readonly string[] };

const tones = { on: "good", off: "idle", pending: "warn" } as const;
const fewCodes = 3;

export function TotpPanel() {
  const totp = useFetched<Totp>("/session/totp");
  const [asked, setAsked] = useState<Asked>();
  useAddressAction("totp", () => setAsked({ what: "prove" }));
  const close = (what: Asked["what"]) => () => {
    // What follows a dialog must not be closed by the one before it.
    setAsked((now) => (now?.what === what ? undefined : now));
    void totp.reload();
  };
  const { value } = totp;
  if (value === undefined) {
    return (
      <Panel title={t("totp.title")} span={7}>
        <Fetching of={totp} />
      </Panel>
    );
  }
  const showCodes = ({ codes }: RecoveryCodes) => setAsked({ what: "codes", codes });
  return (
    <Panel
      title={t("totp.title")}
      span={7}
      aside={<Badge tone={tones[value.state]}>{t(`totp.${value.state}`)}</Badge>}
    >
      <p class="soft panel-text">{t("totp.lead")}</p>
      {value.state === "on" ? (
        <>
          <p class="panel-text">
            {t("totp.codesLeft", { count: value.recoveryCodesLeft })}
            {value.recoveryCodesLeft < fewCodes ? (
              <span class="bad-text"> {t("totp.fewCodes")}</span>
            ) : null}
          </p>
          <div class="actions">
            <button type="button" class="button" onClick={() => setAsked({ what: "renew" })}>
              {t("totp.newCodes")}
            </button>
            <button type="button" class="button" onClick={() => setAsked({ what: "off" })}>
              {t("totp.turnOff")}
            </button>
          </div>
        </>
      ) : (
        <button type="button" class="button primary" onClick={() => setAsked({ what: "prove" })}>
          {t("totp.setUp")}
        </button>
      )}
      {asked?.what === "prove" ? (
        <ProofDialog
          title={t("totp.enrolTitle")}
          verb={t("totp.next")}
          onClose={close("prove")}
          onProof={async (password) => {
            const enrolment = await request<TotpEnrolment>("POST", "/session/totp", { password });
            setAsked({ what: "scan", enrolment });
          }}
        />
      ) : null}
      {asked?.what === "scan" ? (
        <ScanDialog enrolment={asked.enrolment} onClose={close("scan")} onCodes={showCodes} />
      ) : null}
      {asked?.what === "renew" ? (
        <ProofDialog
          title={t("totp.renewTitle")}
          lead={t("totp.renewLead")}
          verb={t("totp.renew")}
          onClose={close("renew")}
          onProof={async (password) =>
            showCodes(
              await request<RecoveryCodes>("POST", "/session/totp/recovery-codes", { password }),
            )
          }
        />
      ) : null}
      {asked?.what === "off" ? <OffDialog onClose={close("off")} /> : null}
      {asked?.what === "codes" ? (
        <CodesDialog codes={asked.codes} onClose={close("codes")} />
      ) : null}
    </Panel>
  );
}

interface ProofProps {
  readonly title: string;
  readonly lead?: string;
  readonly verb: string;
  onClose(): void;
  onProof(password: string): Promise<void>;
}

/** A session left open is not enough: api wants the password for what outlasts it. */
function ProofDialog({ title, lead, verb, onClose, onProof }: ProofProps) {
  return (
    <Dialog
      title={title}
      verb={verb}
      onClose={onClose}
      onSubmit={(form) => onProof(String(form.get("password")))}
    >
      {lead === undefined ? null : <p class="soft">{lead}</p>}
      <Field
        label={t("totp.password")}
        name="password"
        type="password"
        autocomplete="current-password"
      />
    </Dialog>
  );
}

interface ScanProps {
  readonly enrolment: TotpEnrolment;
  onClose(): void;
  onCodes(codes: RecoveryCodes): void;
}

function ScanDialog({ enrolment, onClose, onCodes }: ScanProps) {
  const [code, setCode] = useState("");
  return (
    <Dialog
      title={t("totp.enrolTitle")}
      verb={t("totp.confirm")}
      disabled={!/^\d{6}$/.test(code.replaceAll(/\s/g, ""))}
      onClose={onClose}
      onSubmit={async () => {
        const codes = await request<RecoveryCodes>("POST", "/session/totp/confirm", {
          code: code.replaceAll(/\s/g, ""),
        });
        say(t("totp.onDone"));
        onCodes(codes);
      }}
    >
      <p class="soft">{t("totp.scan")}</p>
      <QrCode text={enrolment.url} />
      <div class="field">
        <span class="field-name">{t("totp.secret")}</span>
        <SecretText label={t("totp.secret")} text={enrolment.secret} />
      </div>
      <Field
        label={t("totp.code")}
        name="code"
        hint={t("totp.codeHint")}
        autocomplete="one-time-code"
        inputMode="numeric"
        value={code}
        onInput={setCode}
      />
    </Dialog>
  );
}

/** Dark on light in both themes: many scanners read nothing else. The four modules around it too. */
function QrCode({ text }: { text: string }) {
  const { path, size } = useMemo(() => {
    const { data, size } = encode(text, { border: 4 });
    const squares = data.flatMap((row, y) =>
      row.flatMap((dark, x) => (dark ? [`M${x} ${y}h1v1h-1z`] : [])),
    );
    return { path: squares.join(""), size };
  }, [text]);
  return (
    <svg
      class="qr"
      viewBox={`0 0 ${size} ${size}`}
      role="img"
      aria-label={t("totp.qr")}
      shape-rendering="crispEdges"
    >
      <path d={path} />
    </svg>
  );
}

function OffDialog({ onClose }: { onClose(): void }) {
  return (
    <Confirm
      title={t("totp.offTitle")}
      verb={t("totp.turnOff")}
      losses={[t("totp.offLoss")]}
      onClose={onClose}
      onConfirm={async (form) => {
        await request("POST", "/session/totp/disable", { password: String(form.get("password")) });
        say(t("totp.offDone"));
      }}
    >
      <Field
        label={t("totp.password")}
        name="password"
        type="password"
        autocomplete="current-password"
      />
    </Confirm>
  );
}

function CodesDialog({ codes, onClose }: { codes: readonly string[]; onClose(): void }) {
  const [kept, setKept] = useState(false);
  return (
    <Dialog
      title={t("totp.codesTitle")}
      verb={t("tokens.done")}
      disabled={!kept}
      onlyVerb
      onClose={onClose}
      onSubmit={async () => undefined}
    >
      <p class="soft">{t("totp.codesLead")}</p>
      <SecretText
        label={t("totp.codesLabel")}
        text={codes.join("\n")}
        fileName="keelson-recovery-codes.txt"
      />
      <label class="check">
        <input
          type="checkbox"
          checked={kept}
          onChange={(event) => setKept(event.currentTarget.checked)}
        />
        {t("totp.codesKept")}
      </label>
    </Dialog>
  );
}
