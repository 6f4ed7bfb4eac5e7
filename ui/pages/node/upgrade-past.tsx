/** What went wrong last, with the log of the failed start; and every upgrade there was. */
import type { UpgradeState } from "../../../services/api/upgrade-schema.ts";
import { request } from "../../client.ts";
import { Icon } from "../../components/icon.tsx";
import { saveFile } from "../../components/once.tsx";
import { Badge, Panel, type Tone } from "../../components/parts.tsx";
import { complain } from "../../components/toast.tsx";
import { may } from "../../permission.ts";
import { formatMoment, t } from "../../words/words.ts";

type Failure = NonNullable<UpgradeState["lastFailure"]>;
type History = UpgradeState["history"];

export function FailurePanel({ failure, onRead }: { failure: Failure; onRead(): Promise<void> }) {
  const log = failure.log.join("\n");
  return (
    <Panel
      title={t("upgrade.failure")}
      span={12}
      aside={<Badge tone="bad">{failure.version}</Badge>}
    >
      <p class="bad-text">{failure.reason}</p>
      <p class="soft panel-text">
        {t("upgrade.failureLead", { version: failure.version, when: formatMoment(failure.at) })}
      </p>
      {failure.attempts.length === 0 ? null : (
        <>
          <h3>{t("upgrade.attempts")}</h3>
          <ol class="attempts">
            {failure.attempts.map((attempt) => (
              <li key={attempt.bootId}>
                <span class="soft number">{formatMoment(attempt.startedAt)}</span>
                <span>
                  {t("upgrade.attempt", { reached: attempt.reached })}
                  {attempt.reason === null ? "" : `. ${attempt.reason}`}
                </span>
              </li>
            ))}
          </ol>
        </>
      )}
      <h3>{t("upgrade.log")}</h3>
      {log === "" ? (
        <p class="soft">{t("upgrade.noLog")}</p>
      ) : (
        // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reached by keys (WCAG 2.1.1).
        <section class="boot-log" aria-label={t("upgrade.log")} tabIndex={0}>
          <pre>{log}</pre>
        </section>
      )}
      <div class="actions meter-gap">
        {log === "" ? null : (
          <button
            type="button"
            class="button"
            onClick={() => saveFile(`keelson-${failure.version}-failed-start.txt`, `${log}\n`)}
          >
            <Icon name="download" />
            {t("upgrade.saveLog")}
          </button>
        )}
        {may("upgrade:write") ? (
          <button
            type="button"
            class="button"
            onClick={() => {
              request("DELETE", "/upgrade/failure").then(onRead).catch(complain);
            }}
          >
            <Icon name="check" />
            {t("upgrade.dismiss")}
          </button>
        ) : null}
      </div>
    </Panel>
  );
}

const tones: Record<History[number]["result"], Tone> = {
  done: "good",
  returned: "warn",
  failed: "bad",
  cancelled: "idle",
};

export function HistoryPanel({ history }: { history: History }) {
  return (
    <Panel title={t("upgrade.history")} span={7} flush>
      {history.length === 0 ? (
        <p class="calm">{t("upgrade.noHistory")}</p>
      ) : (
        <ul class="lines">
          {history.map((entry) => (
            <li key={entry.planId}>
              <span class="grow">
                <span class="name">{titleOf(entry)}</span>
                {entry.message === null ? null : <span class="under wrap">{entry.message}</span>}
              </span>
              <Badge tone={tones[entry.result]}>{t(`upgrade.planState.${entry.result}`)}</Badge>
              <span class="when wide-when">{formatMoment(entry.endedAt)}</span>
            </li>
          ))}
        </ul>
      )}
    </Panel>
  );
}

function titleOf({ kind, fromVersion, toVersion: to }: History[number]): string {
  const word = t(`upgrade.kind.${kind}`);
  return fromVersion === null
    ? t("upgrade.only", { kind: word, to })
    : t("upgrade.fromTo", { kind: word, from: fromVersion, to });
}
