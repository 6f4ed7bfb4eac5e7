/** A labelled input whose hint and error are tied to it. */
import type { TargetedEvent } from "preact";
import { useId, useLayoutEffect, useRef } from "preact/hooks";

interface FieldProps {
  readonly label: string;
  readonly name: string;
  readonly type?: "text" | "password";
  readonly value?: string;
  readonly placeholder?: string;
  readonly hint?: string;
  readonly wrong?: string | undefined;
  readonly autocomplete?:
    | "off"
    | "username"
    | "current-password"
    | "new-password"
    | "one-time-code";
  readonly inputMode?: "numeric";
  readonly required?: boolean;
  /** When it appears. */
  readonly takesFocus?: boolean;
  onInput?(value: string): void;
}

export function Field(props: FieldProps) {
  const id = useId();
  const input = useRef<HTMLInputElement>(null);
  // In the frame that draws it: what is typed at once goes into it.
  useLayoutEffect(() => {
    if (props.takesFocus) input.current?.focus();
  }, []);
  const { label, name, hint, wrong, onInput, type = "text", autocomplete = "off" } = props;
  const described = [hint && `${id}-hint`, wrong && `${id}-wrong`].filter(Boolean).join(" ");
  const attributes = {
    id,
    ref: input,
    class: "input",
    name,
    autocomplete,
    autocapitalize: "none",
    spellcheck: false,
    required: props.required ?? false,
    "aria-invalid": wrong !== undefined,
    ...(described === "" ? {} : { "aria-describedby": described }),
    ...(props.inputMode === undefined ? {} : { inputMode: props.inputMode }),
    ...(props.value === undefined ? {} : { value: props.value }),
    ...(props.placeholder === undefined ? {} : { placeholder: props.placeholder }),
    onInput: (event: TargetedEvent<HTMLInputElement>) => onInput?.(event.currentTarget.value),
  } as const;
  return (
    <div class="field">
      <label for={id}>{label}</label>
      {type === "password" ? (
        <input type="password" {...attributes} />
      ) : (
        <input type="text" {...attributes} />
      )}
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

interface SelectProps {
  readonly label: string;
  readonly name: string;
  readonly options: readonly { value: string; label: string }[];
  readonly value?: string;
  readonly hint?: string;
  onChange?(value: string): void;
}

export function Select({ label, name, options, value, hint, onChange }: SelectProps) {
  const id = useId();
  return (
    <div class="field">
      <label for={id}>{label}</label>
      <select
        id={id}
        class="input"
        name={name}
        {...(value === undefined ? {} : { value })}
        onChange={(event) => onChange?.(event.currentTarget.value)}
      >
        {options.map((option) => (
          <option key={option.value} value={option.value} selected={option.value === value}>
            {option.label}
          </option>
        ))}
      </select>
      {hint === undefined ? null : <span class="hint">{hint}</span>}
    </div>
  );
}
