/** A secret that is shown once: to copy, or to keep as a file. */
import { t } from "../words/words.ts";
import { Icon } from "./icon.tsx";
import { complain, say } from "./toast.tsx";

export function copyText(text: string): void {
  navigator.clipboard
    .writeText(text)
    .then(() => say(t("once.copied")))
    .catch(complain);
}

/** Offers `text` as a file; nothing of it goes over the network. */
export function saveFile(name: string, text: string, type = "text/plain"): void {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const anchor = document.createElement("a");
  anchor.href = url;
  anchor.download = name;
  anchor.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

interface SecretTextProps {
  readonly label: string;
  readonly text: string;
  /** Offered as a file of this name too. */
  readonly fileName?: string;
}

export function SecretText({ label, text, fileName }: SecretTextProps) {
  return (
    <div class="secret">
      <output class="mono" aria-label={label}>
        {text}
      </output>
      <div class="actions">
        {/* The clipboard is for secure contexts; over plain HTTP it isn't there. */}
        {isSecureContext ? (
          <button type="button" class="button small" onClick={() => copyText(text)}>
            <Icon name="copy" />
            {t("once.copy")}
          </button>
        ) : null}
        {fileName === undefined ? null : (
          <button
            type="button"
            class="button small"
            onClick={() => saveFile(fileName, `${text}\n`)}
          >
            <Icon name="download" />
            {t("once.save")}
          </button>
        )}
      </div>
    </div>
  );
}
