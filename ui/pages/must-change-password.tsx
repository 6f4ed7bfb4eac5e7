/** Before anything else: a password that somebody else set is replaced by one's own. */
import { useState } from "preact/hooks";
import { asFailure, type Failure, logOut, session } from "../client.ts";
import { Trouble } from "../components/parts.tsx";
import { usePasswordChange } from "../components/password-change.tsx";
import { complain } from "../components/toast.tsx";
import { t } from "../words/words.ts";

export function MustChangePassword() {
  const { fields, ready, change } = usePasswordChange({ takesFocus: true });
  const [busy, setBusy] = useState(false);
  const [failure, setFailure] = useState<Failure>();
  const submit = async (event: SubmitEvent) => {
    event.preventDefault();
    if (busy || !ready) return;
    const form = new FormData(event.currentTarget as HTMLFormElement);
    setBusy(true);
    setFailure(undefined);
    await change(form).catch((error) => setFailure(asFailure(error)));
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
          {fields}
          {failure === undefined ? null : <Trouble failure={failure} />}
          <button type="submit" class="button primary" disabled={busy || !ready}>
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
