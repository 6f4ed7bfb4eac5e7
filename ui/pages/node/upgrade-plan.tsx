/** The steps of a plan: those that were done, the one that runs, and what is still to come. */
import type { UpgradePlan } from "../../../services/api/upgrade-schema.ts";
import { request } from "../../client.ts";
import { Icon } from "../../components/icon.tsx";
import { Badge, Meter, Panel, type Tone } from "../../components/parts.tsx";
import { clockOffsetMs, formatAge, now } from "../../components/time.tsx";
import { complain, say } from "../../components/toast.tsx";
import { may } from "../../permission.ts";
import { t } from "../../words/words.ts";

type Step = UpgradePlan["steps"][number];

const tones: Record<UpgradePlan["state"], Tone> = {
  planned: "idle",
  running: "accent",
  done: "good",
  returned: "warn",
  failed: "bad",
  cancelled: "idle",
};

interface PlanProps {
  readonly plan: UpgradePlan;
  onChanged(): Promise<void>;
}

export function PlanPanel({ plan, onChanged }: PlanProps) {
  const running = plan.state === "running";
  const versions = { from: plan.fromVersion, to: plan.toVersion };
  return (
    <Panel
      title={t(plan.kind === "upgrade" ? "upgrade.running" : "upgrade.rollingBack", versions)}
      span={12}
      aside={<Badge tone={tones[plan.state]}>{t(`upgrade.planState.${plan.state}`)}</Badge>}
    >
      {plan.failure === null ? null : <p class="bad-text panel-text">{plan.failure}</p>}
      <StepList steps={plan.steps} />
      {running && may("upgrade:write") ? (
        plan.cancellable ? (
          <button
            type="button"
            class="button meter-gap"
            onClick={() => {
              request("POST", "/upgrade/cancel")
                .then(() => say(t("upgrade.cancelled")))
                .then(onChanged)
                .catch(complain);
            }}
          >
            {t("upgrade.cancel")}
          </button>
        ) : (
          <p class="soft small meter-gap">{t("upgrade.noCancel")}</p>
        )
      ) : null}
    </Panel>
  );
}

export function StepList({ steps }: { steps: readonly Step[] }) {
  return (
    <ol class="plan" aria-label={t("upgrade.steps")}>
      {steps.map((step) => (
        <li
          key={`${step.node} ${step.id}`}
          class={step.state}
          {...(step.state === "running" ? { "aria-current": "step" } : {})}
        >
          <span class="mark">
            <Mark state={step.state} />
          </span>
          <span class="grow">
            <span class="name wrap">
              {step.title}
              <span class="unseen">, {t(`upgrade.step.${step.state}`)}</span>
            </span>
            {step.message === null ? null : (
              <span class={`under wrap${step.state === "failed" ? " bad-text" : ""}`}>
                {step.message}
              </span>
            )}
            {step.state === "running" ? (
              <Meter
                thin
                share={step.progressPercent === null ? undefined : step.progressPercent / 100}
                label={t("upgrade.progress", { step: step.title })}
              />
            ) : null}
          </span>
          <Took step={step} />
        </li>
      ))}
    </ol>
  );
}

function Mark({ state }: { state: Step["state"] }) {
  if (state === "done") return <Icon name="check" />;
  if (state === "failed") return <Icon name="close" />;
  return <i aria-hidden="true" />;
}

function Took({ step }: { step: Step }) {
  if (step.startedAt === null) return null;
  const endMs = step.endedAt === null ? now.value + clockOffsetMs.value : Date.parse(step.endedAt);
  return <span class="when number">{formatAge(endMs - Date.parse(step.startedAt))}</span>;
}
