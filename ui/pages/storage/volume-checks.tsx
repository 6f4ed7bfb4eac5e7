/** Which volumes: check boxes in a list that scrolls once it is long. */
interface VolumeChecksProps {
  readonly legend: string;
  readonly volumes: readonly { readonly id: string; readonly name: string }[];
  readonly value: readonly string[];
  onChange(value: readonly string[]): void;
}

export function VolumeChecks({ legend, volumes, value, onChange }: VolumeChecksProps) {
  return (
    <fieldset class="checks volume-checks">
      <legend>{legend}</legend>
      {volumes
        .toSorted((a, b) => a.name.localeCompare(b.name))
        .map(({ id, name }) => (
          <label key={id} class="check">
            <input
              type="checkbox"
              checked={value.includes(id)}
              onChange={(event) =>
                onChange(
                  event.currentTarget.checked
                    ? [...value, id]
                    : value.filter((each) => each !== id),
                )
              }
            />
            <span class="clip">{name}</span>
          </label>
        ))}
    </fieldset>
  );
}
