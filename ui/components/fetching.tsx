import type { Fetched } from "../live/fetched.ts";
import { t } from "../words/words.ts";
import { Trouble } from "./parts.tsx";

/** Until there is an answer; or why there is none, with the means to ask again. */
export function Fetching({ of: { failure, reload } }: { of: Fetched<unknown> }) {
  if (failure !== undefined) {
    return (
      <div class="table-wrap fetch-failed">
        <Trouble failure={failure} />
        <button type="button" class="button small" onClick={() => void reload()}>
          {t("fetch.again")}
        </button>
      </div>
    );
  }
  return (
    <div class="table-wrap loading" role="status">
      <span class="unseen">{t("frame.loading")}</span>
      <div class="bone" />
      <div class="bone" />
      <div class="bone" />
    </div>
  );
}

/** What is shown is of an earlier answer: the last question failed. */
export function OldAnswer({ of: { value, failure, reload } }: { of: Fetched<unknown> }) {
  if (value === undefined || failure === undefined) return null;
  return (
    <div class="notice-gap">
      <Trouble failure={{ ...failure, title: t("fetch.old", { why: failure.title }) }} />
      <button type="button" class="button small" onClick={() => void reload()}>
        {t("fetch.again")}
      </button>
    </div>
  );
}
