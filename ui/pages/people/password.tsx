import { useState } from "preact/hooks";
import { request, resumeSession } from "../../client.ts";
import { Dialog } from "../../components/dialog.tsx";
import { Field } from "../../components/field.tsx";
import { say } from "../../components/toast.tsx";
import { t } from "../../words/words.ts";

export function PasswordDialog({ onClose }: { onClose(): void }) {
  const [next, setNext] = useState("");
  const [again, setAgain] = useState("");
  const differs = again !== "" && again !== next;
  return (
    <Dialog
      title={t("password.dialog")}
      verb={t("password.change")}
      disabled={next.length < 8 || again !== next}
      onClose={onClose}
      onSubmit={async (form) => {
        await request("PUT", "/session/password", { current: String(form.get("current")), next });
        say(t("password.changed"));
        await resumeSession();
      }}
    >
      <Field
        label={t("password.current")}
        name="current"
        type="password"
        autocomplete="current-password"
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
        wrong={differs ? t("password.differ") : undefined}
        onInput={setAgain}
      />
    </Dialog>
  );
}
