import { useState } from "preact/hooks";
import { request } from "../client.ts";
import { Dialog } from "../components/dialog.tsx";
import { Field } from "../components/field.tsx";
import { say } from "../components/toast.tsx";

export function PasswordDialog({ onClose }: { onClose(): void }) {
  const [next, setNext] = useState("");
  const [again, setAgain] = useState("");
  const differs = again !== "" && again !== next;
  return (
    <Dialog
      title="Change your password"
      verb="Change password"
      disabled={next.length < 8 || again !== next}
      onClose={onClose}
      onSubmit={async (form) => {
        await request("PUT", "/session/password", { current: String(form.get("current")), next });
        say("Your password is changed. Other sessions have ended.");
      }}
    >
      <Field
        label="Current password"
        name="current"
        type="password"
        autocomplete="current-password"
      />
      <Field
        label="New password"
        name="next"
        type="password"
        autocomplete="new-password"
        hint="At least 8 characters."
        value={next}
        onInput={setNext}
      />
      <Field
        label="New password again"
        name="again"
        type="password"
        autocomplete="new-password"
        value={again}
        wrong={differs ? "The two differ." : undefined}
        onInput={setAgain}
      />
    </Dialog>
  );
}
