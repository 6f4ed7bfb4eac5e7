/** One of a few views: a group of radio buttons that looks like a switch. */
interface SegmentsProps<Value extends string> {
  readonly legend: string;
  readonly name: string;
  readonly options: readonly (readonly [value: Value, label: string])[];
  readonly value: Value;
  onChange(value: Value): void;
}

export function Segments<Value extends string>(props: SegmentsProps<Value>) {
  const { legend, name, options, value, onChange } = props;
  return (
    <fieldset>
      <legend class="unseen">{legend}</legend>
      <div class="segments">
        {options.map(([option, label]) => (
          <label key={option}>
            <input
              type="radio"
              name={name}
              checked={option === value}
              onChange={() => onChange(option)}
            />
            {label}
          </label>
        ))}
      </div>
    </fieldset>
  );
}
