/** Pages that come when they are first shown, so that the first paint doesn't wait for them. */
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
  let view: ComponentType | undefined;
  const fetchPart = async () => {
    view ??= pick(await load());
  };
  const Lazy = () => {
    const [state, setState] = useState<"waiting" | "there" | "failed">(
      view === undefined ? "waiting" : "there",
    );
    useEffect(() => {
      if (view !== undefined) return;
      fetchPart().then(
        () => setState("there"),
        () => setState("failed"),
      );
    }, []);
    const View = view;
    if (View !== undefined) return <View />;
    return state === "failed" ? <Failed /> : <Waiting />;
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
