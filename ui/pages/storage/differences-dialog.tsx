import { useEffect, useRef, useState } from "preact/hooks";
import { formatSize } from "#lib/model/size.ts";
import type { Differences, Snapshot } from "../../../services/api/snapshot-schema.ts";
import { asFailure, type Failure, request } from "../../client.ts";
import { Dialog } from "../../components/dialog.tsx";
import { Select } from "../../components/field.tsx";
import { Trouble } from "../../components/parts.tsx";
import { formatMoment, t } from "../../words/words.ts";

interface DifferencesProps {
  readonly snapshot: Snapshot;
  /** All there are: later ones of the same volume are offered. */
  readonly snapshots: readonly Snapshot[];
  onClose(): void;
}

interface Found {
  readonly changedBytes: number | null;
  readonly ranges: Differences["ranges"];
  readonly next: number | null;
}

/** Ranges drawn at a time: a volume written at random has hundreds of thousands. */
const drawnAtOnce = 200;

export function DifferencesDialog({ snapshot, snapshots, onClose }: DifferencesProps) {
  const { id, volumeId, volumeName, createdAt } = snapshot;
  const laterOnes = snapshots
    .filter(
      (other) =>
        other.volumeId === volumeId && other.state === "ready" && other.createdAt > createdAt,
    )
    .toSorted((a, b) => (a.createdAt < b.createdAt ? -1 : 1));
  const options = [
    ...(volumeName === null
      ? []
      : [{ value: "", label: t("snapshots.differ.now", { volume: volumeName }) }]),
    ...laterOnes.map((other) => ({
      value: other.id,
      label: `${other.name}, ${formatMoment(other.createdAt)}`,
    })),
  ];
  const [to, setTo] = useState(options[0]?.value);
  const [found, setFound] = useState<Found>();
  const [failure, setFailure] = useState<Failure>();
  const [drawn, setDrawn] = useState(drawnAtOnce);

  const wanted = useRef(to);
  wanted.current = to;
  /** The page after those of `before`; what comes when another state was chosen answers nothing. */
  const load = async (before: Found | undefined) => {
    const later = to === "" ? "" : `&to=${to}`;
    const path = `/volumes/${volumeId}/differences?from=${id}${later}&after=${before?.next ?? 0}`;
    try {
      const page = await request<Differences>("GET", path);
      if (wanted.current !== to) return;
      const ranges = [...(before?.ranges ?? []), ...page.ranges];
      setFound({ ranges, next: page.next, changedBytes: (before ?? page).changedBytes });
    } catch (error) {
      if (wanted.current === to) setFailure(asFailure(error));
    }
  };
  useEffect(() => {
    if (to === undefined) return;
    setFound(undefined);
    setFailure(undefined);
    setDrawn(drawnAtOnce);
    void load(undefined);
  }, [to]);
  const more = (shown: Found) => {
    const next = drawn + drawnAtOnce;
    setDrawn(next);
    if (next > shown.ranges.length && shown.next !== null) void load(shown);
  };

  return (
    <Dialog
      title={t("snapshots.differ.title", { name: snapshot.name })}
      verb={t("snapshots.detail.close")}
      onlyVerb
      closable
      onClose={onClose}
      onSubmit={async () => {}}
    >
      {options.length === 0 ? (
        <p>{t("snapshots.differ.nothing")}</p>
      ) : (
        <Select
          label={t("snapshots.differ.with")}
          name="to"
          options={options}
          value={to ?? ""}
          onChange={setTo}
        />
      )}
      {failure === undefined ? null : <Trouble failure={failure} />}
      {to === undefined || failure !== undefined ? null : found === undefined ? (
        <p class="soft" role="status">
          {t("snapshots.differ.looking")}
        </p>
      ) : (
        <>
          <p role="status">
            {found.changedBytes === null
              ? t("snapshots.differ.many")
              : found.changedBytes === 0
                ? t("snapshots.differ.same")
                : t("snapshots.differ.changed", { size: formatSize(found.changedBytes) })}
          </p>
          {found.ranges.length === 0 ? null : (
            <section
              class="ranges"
              // biome-ignore lint/a11y/noNoninteractiveTabindex: it scrolls, by keys too.
              tabIndex={0}
              aria-label={t("snapshots.differ.ranges")}
            >
              <table>
                <thead>
                  <tr>
                    <th scope="col">{t("snapshots.differ.offset")}</th>
                    <th scope="col">{t("snapshots.differ.length")}</th>
                    <th scope="col">{t("snapshots.differ.holds")}</th>
                  </tr>
                </thead>
                <tbody>
                  {found.ranges.slice(0, drawn).map(({ offsetBytes, lengthBytes, zero }) => (
                    <tr key={offsetBytes}>
                      <td class="number">{offsetBytes}</td>
                      <td class="number">{formatSize(lengthBytes)}</td>
                      <td>{zero ? t("snapshots.differ.zero") : t("snapshots.differ.data")}</td>
                    </tr>
                  ))}
                </tbody>
              </table>
            </section>
          )}
          {found.ranges.length > drawn || found.next !== null ? (
            <button type="button" class="button" onClick={() => more(found)}>
              {t("snapshots.differ.more")}
            </button>
          ) : null}
        </>
      )}
    </Dialog>
  );
}
