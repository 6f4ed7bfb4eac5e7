/** A labelled input whose hint and error are tied to it. */
import type { TargetedEvent } from "preact";
import { useId, useLayoutEffect, useRef, useState } from "preact/hooks";

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
  const input = useRef<HTMLInputElement>(null);
  // In the frame that draws it: what is typed at once goes into it.
  useLayoutEffect(() => {
    if (props.takesFocus) input.current?.focus();
  }, []);
  const { label, name, hint, wrong, onInput, type = "text", autocomplete = "off" } = props;
  const { id, described, notes } = useNotes(hint, wrong);
  const attributes = {
    id,
    ref: input,
    class: "input",
    name,
    autocomplete,
    autocapitalize: "none",
    spellcheck: false,
    required: props.required ?? false,
    ...described,
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
      {notes}
    </div>
  );
}

type AreaProps = Pick<FieldProps, "label" | "name" | "hint" | "wrong"> & {
  readonly value: string;
  onInput(value: string): void;
};

/** Text of several lines. */
export function AreaField({ label, name, value, hint, wrong, onInput }: AreaProps) {
  const { id, described, notes } = useNotes(hint, wrong);
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
        {...described}
        value={value}
        onInput={(event) => onInput(event.currentTarget.value)}
      />
      {notes}
    </div>
  );
}

/** Hint and error of an input, and what ties them to it. */
function useNotes(hint: string | undefined, wrong: string | undefined) {
  const id = useId();
  const ids = [hint && `${id}-hint`, wrong && `${id}-wrong`].filter(Boolean).join(" ");
  return {
    id,
    described: {
      "aria-invalid": wrong !== undefined,
      ...(ids === "" ? {} : { "aria-describedby": ids }),
    },
    notes: (
      <>
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
      </>
    ),
  };
}

interface SelectProps {
  readonly label: string;
  readonly name: string;
  readonly options: readonly { value: string; label: string }[];
  readonly value?: string;
  readonly hint?: string;
  onChange?(value: string): void;
}

/**
 * One of options that may come and go while it is asked for: the first, until another is chosen.
 * "" when there is none.
 */
export function useChoice(
  options: SelectProps["options"],
): [value: string, choose: (value: string) => void] {
  const [chosen, choose] = useState<string>();
  const there = options.find(({ value }) => value === chosen) ?? options[0];
  return [there?.value ?? "", choose];
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
