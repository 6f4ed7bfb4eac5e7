/** Pages that come when they are first shown, so that the first paint doesn't wait for them. */
import { signal } from "@preact/signals";
import type { ComponentType } from "preact";
import { useEffect, useState } from "preact/hooks";
import { Trouble } from "../components/parts.tsx";
import { t } from "../words/words.ts";

export interface LazyPage {
  (): preact.ComponentChild;
  /** Fetches the code ahead; what fails is told when the page is shown. */
  prepare(): void;
}

/** `pick` takes the page from what `load` brings; parts are fetched once, however many pages they hold. */
export function lazy<Part>(
  load: () => Promise<Part>,
  pick: (part: Part) => ComponentType,
): LazyPage {
  // A signal: `prepare` may bring the part between a page's first rendering and its effects.
  const view = signal<ComponentType | undefined>(undefined);
  const fetchPart = async () => {
    view.value ??= pick(await load());
  };
  const Lazy = () => {
    const [failed, setFailed] = useState(false);
    useEffect(() => {
      fetchPart().catch(() => setFailed(true));
    }, []);
    const View = view.value;
    if (View !== undefined) return <View />;
    return failed ? <Failed /> : <Waiting />;
  };
  return Object.assign(Lazy, { prepare: () => void fetchPart().catch(() => undefined) });
}

function Waiting() {
  return (
    <div class="table-wrap loading" role="status">
      <span class="unseen">{t("frame.loading")}</span>
      <div class="bone" />
      <div class="bone" />
      <div class="bone" />
    </div>
  );
}

function Failed() {
  return (
    <>
      <h1 class="unseen">{t("part.failed")}</h1>
      <Trouble
        failure={{ title: t("part.failed"), detail: t("part.failedDetail"), code: undefined }}
      />
      <p class="actions notice-gap">
        <button type="button" class="button" onClick={() => location.reload()}>
          {t("frame.reload")}
        </button>
      </p>
    </>
  );
}
