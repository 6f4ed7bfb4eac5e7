/** PEM text: pasted, or read from a file. */
import { useId, useRef } from "preact/hooks";
import { t } from "../words/words.ts";
import { complain } from "./toast.tsx";

interface PemFieldProps {
  readonly label: string;
  readonly value: string;
  readonly placeholder: string;
  onInput(value: string): void;
}

export function PemField({ label, value, placeholder, onInput }: PemFieldProps) {
  const id = useId();
  const input = useRef<HTMLInputElement>(null);
  return (
    <div class="field">
      <div class="field-head">
        <label for={id}>{label}</label>
        <button type="button" class="button small" onClick={() => input.current?.click()}>
          {t("settings.fromFile")}
          <span class="unseen"> {label}</span>
        </button>
      </div>
      <input
        ref={input}
        class="unseen"
        type="file"
        tabIndex={-1}
        aria-label={`${t("settings.fromFile")} ${label}`}
        accept=".pem,.crt,.cer,.key"
        onChange={(event) => {
          const file = event.currentTarget.files?.[0];
          event.currentTarget.value = "";
          file?.text().then(onInput).catch(complain);
        }}
      />
      <textarea
        id={id}
        class="input pem"
        rows={5}
        autocomplete="off"
        spellcheck={false}
        placeholder={placeholder}
        value={value}
        onInput={(event) => onInput(event.currentTarget.value)}
      />
    </div>
  );
}
