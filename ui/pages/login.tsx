import { useLayoutEffect, useState } from "preact/hooks";
import type { LogInChallenge } from "../../services/api/accounts-schema.ts";
import { asFailure, confirmLogIn, type Failure, logIn } from "../client.ts";
import { Field } from "../components/field.tsx";
import { Trouble } from "../components/parts.tsx";
import { t } from "../words/words.ts";
import { KeyStep, OtherWays } from "./login-ways.tsx";

export function LogIn() {
  const [challenge, setChallenge] = useState<LogInChallenge>();
  useLayoutEffect(() => {
    document.title = t("login.title");
  }, []);
  return (
    <div class="login">
      <main class="card">
        <div class="mark">
          <img src="/icon.svg" alt="" />
          <div>
            <h1>Keelson</h1>
            <p class="soft">{location.hostname}</p>
          </div>
        </div>
        {challenge === undefined ? (
          <>
            <PasswordForm onChallenge={setChallenge} />
            <OtherWays />
            <p class="foot">{t("login.foot")}</p>
          </>
        ) : (
          <SecondStep challenge={challenge} onBack={() => setChallenge(undefined)} />
        )}
      </main>
    </div>
  );
}

/** Runs `act` for a form: one at a time, with what went wrong in words. */
function useAttempt(act: (form: FormData) => Promise<void>) {
  const [failure, setFailure] = useState<Failure>();
  const [busy, setBusy] = useState(false);
  const submit = async (event: SubmitEvent) => {
    event.preventDefault();
    if (busy) return;
    const form = event.currentTarget as HTMLFormElement;
    setBusy(true);
    setFailure(undefined);
    try {
      await act(new FormData(form));
    } catch (error) {
      setFailure(asFailure(error));
      setBusy(false);
      form.querySelector<HTMLInputElement>("[data-secret] input")?.select();
    }
  };
  return { failure, busy, submit, setFailure };
}

function PasswordForm({ onChallenge }: { onChallenge(challenge: LogInChallenge): void }) {
  const { failure, busy, submit, setFailure } = useAttempt(async (form) => {
    const [user, password] = [String(form.get("user")).trim(), String(form.get("password"))];
    const challenge = await logIn({ user, password });
    if (challenge !== undefined) onChallenge(challenge);
  });
  const onSubmit = (event: SubmitEvent) => {
    const form = new FormData(event.currentTarget as HTMLFormElement);
    if (String(form.get("user")).trim() !== "" && form.get("password") !== "") return submit(event);
    event.preventDefault();
    setFailure({ title: t("login.empty"), detail: undefined, code: undefined });
  };
  return (
    <form onSubmit={onSubmit} noValidate>
      <Field label={t("login.user")} name="user" autocomplete="username" takesFocus required />
      <div data-secret>
        <Field
          label={t("login.password")}
          name="password"
          type="password"
          autocomplete="current-password"
          required
        />
      </div>
      {failure === undefined ? null : <Trouble failure={failure} />}
      <button type="submit" class="button primary" disabled={busy}>
        {busy ? t("login.busy") : t("login.go")}
      </button>
    </form>
  );
}

interface CodeProps {
  readonly challenge: LogInChallenge;
  onBack(): void;
}

/** A key, a code, or either: as the account has them. */
function SecondStep({ challenge, onBack }: CodeProps) {
  const byKey = challenge.methods.includes("security-key");
  const byCode = challenge.methods.includes("totp");
  return (
    <>
      {byKey ? <KeyStep challenge={challenge.challenge} /> : null}
      {byKey && byCode ? <p class="or">{t("login.codeInstead")}</p> : null}
      {byCode ? (
        <CodeForm challenge={challenge} onBack={onBack} />
      ) : (
        <button type="button" class="button" onClick={onBack}>
          {t("login.back")}
        </button>
      )}
    </>
  );
}

/** The second step: a code of the app, or a recovery code, in one field. */
function CodeForm({ challenge, onBack }: CodeProps) {
  const { failure, busy, submit } = useAttempt((form) =>
    confirmLogIn(challenge, String(form.get("code"))),
  );
  return (
    <form onSubmit={submit} noValidate>
      <div data-secret>
        <Field
          label={t("login.code")}
          name="code"
          autocomplete="one-time-code"
          hint={t("login.codeHint")}
          takesFocus
          required
        />
      </div>
      {failure === undefined ? null : <Trouble failure={failure} />}
      <button type="submit" class="button primary" disabled={busy}>
        {busy ? t("login.busy") : t("login.go")}
      </button>
      <button type="button" class="button" onClick={onBack}>
        {t("login.back")}
      </button>
    </form>
  );
}
