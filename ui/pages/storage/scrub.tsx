/** How the store's last scrub ended, or how far it is; it is begun and stopped here. */
import type { Scrub } from "../../../services/api/scrub-schema.ts";
import { request } from "../../client.ts";
import { complain, say } from "../../components/toast.tsx";
import { useFetched } from "../../live/fetched.ts";
import { may } from "../../permission.ts";
import { formatMoment, t } from "../../words/words.ts";

const path = "/store/scrub";

/** Nothing until the node has said it: the rest of the panel doesn't wait. */
export function ScrubLine() {
  const scrub = useFetched<Scrub>(path);
  const { value } = scrub;
  if (value === undefined) return null;
  const running = value.run?.state === "running";
  const change = async () => {
    try {
      await request(running ? "DELETE" : "POST", path);
      say(t(running ? "scrub.wasStopped" : "scrub.started"));
      await scrub.reload();
    } catch (error) {
      complain(error);
    }
  };
  const bad = (value.run?.badCount ?? 0) > 0;
  return (
    <p class="scrub-line">
      <span class={bad ? "bad-text" : "soft"}>{describe(value)}</span>
      {may("storage:write") ? (
        <button type="button" class="button small" onClick={() => void change()}>
          {t(running ? "scrub.stop" : "scrub.start")}
        </button>
      ) : null}
    </p>
  );
}

function describe({ run, nextAt }: Scrub): string {
  if (run === null) {
    return nextAt === null ? t("scrub.never") : t("scrub.first", { at: formatMoment(nextAt) });
  }
  const found = run.badCount === 0 ? t("scrub.sound") : t("scrub.bad", { count: run.badCount });
  if (run.state === "running") {
    return t("scrub.running", { percent: String(run.progressPercent), found });
  }
  const at = formatMoment(run.endedAt ?? run.startedAt);
  return t(`scrub.${run.state}`, { at, found });
}
