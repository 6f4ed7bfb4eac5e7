import { Dialog } from "../../components/dialog.tsx";
import { usePasswordChange } from "../../components/password-change.tsx";
import { t } from "../../words/words.ts";

export function PasswordDialog({ onClose }: { onClose(): void }) {
  const { fields, ready, change } = usePasswordChange();
  return (
    <Dialog
      title={t("password.dialog")}
      verb={t("password.change")}
      disabled={!ready}
      onClose={onClose}
      onSubmit={change}
    >
      {fields}
    </Dialog>
  );
}
