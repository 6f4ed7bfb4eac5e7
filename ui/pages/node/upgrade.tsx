/** Version now, version offered, what will happen, the steps live through the restart, the past. */
import { useEffect, useState } from "preact/hooks";
import type { UpgradeState } from "../../../services/api/upgrade-schema.ts";
import { request } from "../../client.ts";
import { Confirm } from "../../components/dialog.tsx";
import { Fetching } from "../../components/fetching.tsx";
import { Icon } from "../../components/icon.tsx";
import { Badge, PageHead, Panel, Trouble } from "../../components/parts.tsx";
import { say } from "../../components/toast.tsx";
import { type Fetched, useFetched } from "../../live/fetched.ts";
import { link } from "../../live/link.ts";
import { upgrade as told } from "../../live/state.ts";
import { may } from "../../permission.ts";
import { t } from "../../words/words.ts";
import { OfferedPanel } from "./upgrade-bundles.tsx";
import { FailurePanel, HistoryPanel } from "./upgrade-past.tsx";
import { PlanPanel } from "./upgrade-plan.tsx";
import { SourcesPanel } from "./upgrade-sources.tsx";

/** While a plan runs its steps are asked for often: a step may take two seconds. */
const runningMs = 1500;

export function UpgradePage() {
  const upgrade = useFetched<UpgradeState>("/upgrade");
  const value = newer(told.value, upgrade.value);
  const running = value?.plan?.state === "running";
  useEffect(() => {
    if (!running) return;
    const timer = setInterval(() => {
      if (link.value === "live") void upgrade.reload();
    }, runningMs);
    return () => clearInterval(timer);
  }, [running]);
  return (
    <>
      <PageHead title={t("page.upgrade")}>{t("upgrade.lead")}</PageHead>
      {value === undefined ? (
        <Fetching of={upgrade} />
      ) : (
        <>
          <Silence of={upgrade} running={running} />
          <div class="grid">
            {value.plan === null ? null : (
              <PlanPanel plan={value.plan} onChanged={upgrade.reload} />
            )}
            {value.lastFailure === null || running ? null : (
              <FailurePanel failure={value.lastFailure} onRead={upgrade.reload} />
            )}
            <NowPanel state={value} onChanged={upgrade.reload} />
            <OfferedPanel state={value} busy={running} onChanged={upgrade.reload} />
            <SourcesPanel state={value} onChanged={upgrade.reload} />
            <HistoryPanel history={value.history} />
          </div>
        </>
      )}
    </>
  );
}

/** What was told by an event, or answered to a question: whichever is of the later state. */
function newer(
  event: UpgradeState | undefined,
  answer: UpgradeState | undefined,
): UpgradeState | undefined {
  if (event === undefined || answer === undefined) return event ?? answer;
  return event.revision > answer.revision ? event : answer;
}

/** No answer: while an upgrade runs that is expected, else it is trouble. */
function Silence({ of, running }: { of: Fetched<UpgradeState>; running: boolean }) {
  const away = link.value !== "live" || of.failure?.code === "UNAVAILABLE";
  if (running && away) {
    return (
      <div class="notice-gap expected" role="status">
        <Icon name="clock" />
        <div>
          <b>{t("upgrade.restarting")}</b>
          <p class="soft">{t("upgrade.restartingDetail")}</p>
        </div>
      </div>
    );
  }
  return of.failure === undefined ? null : (
    <div class="notice-gap">
      <Trouble failure={{ ...of.failure, title: t("fetch.old", { why: of.failure.title }) }} />
    </div>
  );
}

interface NowProps {
  readonly state: UpgradeState;
  onChanged(): Promise<void>;
}

function NowPanel({ state, onChanged }: NowProps) {
  const [returning, setReturning] = useState(false);
  const node = state.nodes[0];
  if (node === undefined) {
    return (
      <Panel title={t("upgrade.now")} span={5}>
        <p class="soft">{t("upgrade.noNode")}</p>
      </Panel>
    );
  }
  const { running, other, wayBack } = node;
  const back = wayBack.ok && other.version !== null ? other.version : undefined;
  const busy = state.plan?.state === "running";
  return (
    <Panel
      title={t("upgrade.now")}
      span={5}
      aside={
        node.developmentBuild ? <Badge tone="warn">{t("upgrade.development")}</Badge> : undefined
      }
    >
      <p class="figure">{running.version ?? t("time.unknown")}</p>
      <dl class="facts meter-gap">
        <dt>{t("upgrade.slot")}</dt>
        <dd>
          {t("upgrade.slotName", {
            slot: running.slot.toUpperCase(),
            firmware: node.firmware.toUpperCase(),
          })}
          {running.triesLeft === null
            ? ""
            : `, ${t("upgrade.tries", { count: running.triesLeft })}`}
        </dd>
        <dt>{t("upgrade.other")}</dt>
        <dd>
          {t("upgrade.otherLine", {
            slot: other.slot.toUpperCase(),
            version: other.version ?? t("upgrade.otherNothing"),
            state: t(`upgrade.slotState.${other.state}`),
          })}
        </dd>
      </dl>
      {!wayBack.ok && other.state === "good" ? <p class="soft small">{wayBack.why}</p> : null}
      {back === undefined || !may("upgrade:write") ? null : (
        <button
          type="button"
          class="button meter-gap"
          disabled={busy}
          onClick={() => setReturning(true)}
        >
          <Icon name="reset" />
          {t("upgrade.rollback", { version: back })}
        </button>
      )}
      {returning && back !== undefined ? (
        <Confirm
          title={t("upgrade.rollbackTitle", { version: back })}
          verb={t("upgrade.rollbackVerb")}
          losses={[t("upgrade.rollbackLead")]}
          onClose={() => setReturning(false)}
          onConfirm={async () => {
            await request("POST", "/upgrade/rollback");
            say(t("upgrade.rollbackStarted", { version: back }));
            await onChanged();
          }}
        />
      ) : null}
    </Panel>
  );
}
