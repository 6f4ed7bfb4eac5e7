/** Several of a few: a group of check boxes. */
interface ChecksProps {
  readonly legend: string;
  readonly options: readonly { readonly value: string; readonly hint?: string }[];
  readonly value: readonly string[];
  onChange(value: string[]): void;
}

export function Checks({ legend, options, value, onChange }: ChecksProps) {
  return (
    <fieldset class="checks">
      <legend>{legend}</legend>
      {options.map((option) => (
        <label key={option.value} class="check">
          <input
            type="checkbox"
            checked={value.includes(option.value)}
            onChange={(event) =>
              onChange(
                event.currentTarget.checked
                  ? [...value, option.value]
                  : value.filter((item) => item !== option.value),
              )
            }
          />
          <span>
            {option.value}
            {option.hint === undefined ? null : <span class="under wrap">{option.hint}</span>}
          </span>
        </label>
      ))}
    </fieldset>
  );
}
