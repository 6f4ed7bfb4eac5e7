/** Before anything else: a password that somebody else set is replaced by one's own. */
import { useState } from "preact/hooks";
import { asFailure, type Failure, logOut, request, resumeSession, session } from "../client.ts";
import { Field } from "../components/field.tsx";
import { Trouble } from "../components/parts.tsx";
import { complain, say } from "../components/toast.tsx";
import { t } from "../words/words.ts";

export function MustChangePassword() {
  const [next, setNext] = useState("");
  const [again, setAgain] = useState("");
  const [busy, setBusy] = useState(false);
  const [failure, setFailure] = useState<Failure>();
  const submit = async (event: SubmitEvent) => {
    event.preventDefault();
    if (busy || next.length < 8 || next !== again) return;
    const current = String(new FormData(event.currentTarget as HTMLFormElement).get("current"));
    setBusy(true);
    setFailure(undefined);
    try {
      await request("PUT", "/session/password", { current, next });
      say(t("password.changed"));
      await resumeSession();
    } catch (error) {
      setFailure(asFailure(error));
    }
    setBusy(false);
  };
  return (
    <div class="login">
      <main class="card">
        <div>
          <h1>{t("password.must")}</h1>
          <p class="soft">{t("password.mustLead")}</p>
        </div>
        <form onSubmit={submit} noValidate>
          <input type="hidden" name="user" autocomplete="username" value={session.value?.user} />
          <Field
            label={t("password.current")}
            name="current"
            type="password"
            autocomplete="current-password"
            takesFocus
          />
          <Field
            label={t("password.next")}
            name="next"
            type="password"
            autocomplete="new-password"
            hint={t("password.hint")}
            value={next}
            onInput={setNext}
          />
          <Field
            label={t("password.again")}
            name="again"
            type="password"
            autocomplete="new-password"
            value={again}
            wrong={again !== "" && again !== next ? t("password.differ") : undefined}
            onInput={setAgain}
          />
          {failure === undefined ? null : <Trouble failure={failure} />}
          <button
            type="submit"
            class="button primary"
            disabled={busy || next.length < 8 || next !== again}
          >
            {t("password.change")}
          </button>
          <button type="button" class="button" onClick={() => logOut().catch(complain)}>
            {t("frame.logOut")}
          </button>
        </form>
      </main>
    </div>
  );
}
