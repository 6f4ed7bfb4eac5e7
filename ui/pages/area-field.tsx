/** A labelled text of several lines, its hint and error tied to it. */
import { useId } from "preact/hooks";

interface AreaProps {
  readonly label: string;
  readonly name: string;
  readonly value: string;
  readonly hint?: string;
  readonly wrong?: string | undefined;
  onInput(value: string): void;
}

export function AreaField({ label, name, value, hint, wrong, onInput }: AreaProps) {
  const id = useId();
  const described = [hint && `${id}-hint`, wrong && `${id}-wrong`].filter(Boolean).join(" ");
  return (
    <div class="field">
      <label for={id}>{label}</label>
      <textarea
        id={id}
        class="input"
        name={name}
        rows={3}
        spellcheck={false}
        autocomplete="off"
        aria-invalid={wrong !== undefined}
        {...(described === "" ? {} : { "aria-describedby": described })}
        value={value}
        onInput={(event) => onInput(event.currentTarget.value)}
      />
      {hint === undefined ? null : (
        <span class="hint" id={`${id}-hint`}>
          {hint}
        </span>
      )}
      {wrong === undefined ? null : (
        <span class="wrong" id={`${id}-wrong`}>
          {wrong}
        </span>
      )}
    </div>
  );
}
