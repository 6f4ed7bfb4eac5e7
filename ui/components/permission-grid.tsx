/** Permissions as a table of areas: none, see, or change. */
import { type Area, areas, closure, type Permission } from "../../services/api/permissions.ts";
import { t } from "../words/words.ts";

interface GridProps {
  readonly label: string;
  /** Those that may be given; the rest is greyed. */
  readonly offered: readonly Permission[];
  readonly value: readonly Permission[];
  onChange?(value: Permission[]): void;
}

export function PermissionGrid({ label, offered, value, onChange }: GridProps) {
  const set = (permission: Permission, on: boolean) => {
    const area = permission.split(":")[0] as Area;
    const others = value.filter((item) => item !== permission);
    // Who may change may see; who may not see may not change.
    const rest = permission.endsWith(":read")
      ? others.filter((item) => item !== `${area}:write`)
      : others;
    onChange?.(closure(on ? [...rest, permission] : rest));
  };
  const box = (permission: Permission, name: string) => (
    <td>
      <input
        type="checkbox"
        aria-label={name}
        checked={value.includes(permission)}
        disabled={onChange === undefined || !offered.includes(permission)}
        onChange={(event) => set(permission, event.currentTarget.checked)}
      />
    </td>
  );
  return (
    <table class="grid-table" aria-label={label}>
      <thead>
        <tr>
          <th scope="col">{t("permissions.area")}</th>
          <th scope="col">{t("permissions.read")}</th>
          <th scope="col">{t("permissions.write")}</th>
        </tr>
      </thead>
      <tbody>
        {areas.map((area) => (
          <tr key={area}>
            <th scope="row">
              {t(`area.${area}`)}
              <span class="under">{t(`area.${area}.what`)}</span>
            </th>
            {box(`${area}:read`, `${t("permissions.read")}: ${t(`area.${area}`)}`)}
            {box(`${area}:write`, `${t("permissions.write")}: ${t(`area.${area}`)}`)}
          </tr>
        ))}
      </tbody>
    </table>
  );
}
