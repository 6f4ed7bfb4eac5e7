import { useState } from "preact/hooks";
import { parseUuid } from "#lib/model/ids.ts";
import type { Condition } from "../../services/api/schema.ts";
import { request } from "../client.ts";
import { Icon } from "../components/icon.tsx";
import { Loading } from "../components/loading.tsx";
import { Badge, Empty, PageHead, type Tone } from "../components/parts.tsx";
import { Age, now } from "../components/time.tsx";
import { complain, say } from "../components/toast.tsx";
import { activeConditions, conditions, isMuted } from "../live/state.ts";
import { may } from "../permission.ts";

export const severityTones: Record<Condition["severity"], Tone> = {
  critical: "bad",
  warning: "warn",
  notice: "accent",
  info: "idle",
};

export const severityNames: Record<Condition["severity"], string> = {
  critical: "Critical",
  warning: "Warning",
  notice: "Notice",
  info: "Info",
};

/** With what it is about, where the title doesn't say so: "A service does not answer: netboot". */
export function titleOf({ title, subject }: Condition): string {
  const told = subject === null || parseUuid(subject) !== undefined || title.includes(subject);
  return told ? title : `${title}: ${subject}`;
}

export function ConditionsPage() {
  const [all, setAll] = useState(false);
  const open = activeConditions.value;
  const calm = (conditions.value ?? []).filter((condition) => condition.status === "false");
  return (
    <>
      <PageHead
        title="Conditions"
        actions={
          <div class="segments">
            <label>
              <input type="radio" name="shown" checked={!all} onChange={() => setAll(false)} />
              Open
            </label>
            <label>
              <input type="radio" name="shown" checked={all} onChange={() => setAll(true)} />
              All checks
            </label>
          </div>
        }
      >
        What this node has found wrong with itself, why, and what to do about it.
      </PageHead>
      {conditions.value === undefined ? (
        <Loading resource="conditions" />
      ) : (
        <>
          <div class="table-wrap">
            {open.length === 0 ? (
              <Empty icon="check" title="Nothing is wrong">
                {calm.length === 0
                  ? "No check has reported yet."
                  : `${calm.length} ${calm.length === 1 ? "check says" : "checks say"} that all is well.`}
              </Empty>
            ) : (
              <ul>
                {open.map((condition) => (
                  <ConditionItem key={condition.id} condition={condition} />
                ))}
              </ul>
            )}
          </div>
          {all && calm.length > 0 ? (
            <section class="section">
              <h2>Checks that find nothing</h2>
              <div class="table-wrap">
                <ul class="lines">
                  {calm.map((condition) => (
                    <li key={condition.id}>
                      <span class="good-icon">
                        <Icon name="check" />
                      </span>
                      <span class="grow">
                        <span class="name">{condition.reason}</span>
                        <span class="under">Looks for: {titleOf(condition)}</span>
                      </span>
                      <span class="when">
                        for <Age at={condition.since} ago={false} />
                      </span>
                    </li>
                  ))}
                </ul>
              </div>
            </section>
          ) : null}
        </>
      )}
    </>
  );
}

export function ConditionItem({ condition }: { condition: Condition }) {
  const muted = isMuted(condition, now.value);
  const unknown = condition.status === "unknown";
  const urgent = condition.severity === "critical" || condition.severity === "warning";
  return (
    <li class={`condition ${muted || unknown ? "info" : condition.severity}`}>
      <Icon name={urgent && !unknown ? "condition" : "info"} />
      <div>
        <span class="say">{titleOf(condition)}</span> <span class="code">{condition.code}</span>
        <p>{condition.reason}</p>
        {condition.remedy === null ? null : (
          <p class="remedy">
            <b>What to do:</b> {condition.remedy}
          </p>
        )}
      </div>
      <div class="side">
        <Badge tone={unknown || muted ? "idle" : severityTones[condition.severity]}>
          {unknown ? "Unknown" : muted ? "Muted" : severityNames[condition.severity]}
        </Badge>
        <p class="soft small">
          for <Age at={condition.since} ago={false} />
        </p>
        {may("node:write") ? <Mute condition={condition} muted={muted} /> : null}
      </div>
    </li>
  );
}

function Mute({ condition, muted }: { condition: Condition; muted: boolean }) {
  const mute = (seconds: number) => {
    request<Condition>("PUT", `/conditions/${encodeURIComponent(condition.id)}/mute`, { seconds })
      .then(() =>
        say(seconds === 0 ? `${condition.code} is heard again.` : `${condition.code} is muted.`),
      )
      .catch(complain);
  };
  if (muted) {
    return (
      <button type="button" class="button small" onClick={() => mute(0)}>
        Unmute
      </button>
    );
  }
  return (
    <select
      class="input mute"
      aria-label={`Mute ${condition.title}`}
      value=""
      onChange={(event) => {
        const seconds = Number(event.currentTarget.value);
        event.currentTarget.value = "";
        if (seconds > 0) mute(seconds);
      }}
    >
      <option value="">Mute…</option>
      <option value="3600">for an hour</option>
      <option value="86400">for a day</option>
      <option value="604800">for a week</option>
    </select>
  );
}
