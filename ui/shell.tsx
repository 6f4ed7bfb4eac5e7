/** Around every page: navigation, what build this is, whether what is shown is still true. */
import { useEffect } from "preact/hooks";
import { Icon } from "./components/icon.tsx";
import { PageHead } from "./components/parts.tsx";
import { formatAge, now } from "./components/time.tsx";
import { Palette } from "./frame/palette.tsx";
import { Rail } from "./frame/rail.tsx";
import { listenForShortcuts, Shortcuts } from "./frame/shortcuts.tsx";
import { heardAtMs, isStale, link, retryNow } from "./live/link.ts";
import { node } from "./live/state.ts";
import { findPage, isAllowed, pages } from "./pages.ts";
import type { Permission } from "./permission.ts";
import { route } from "./router.ts";
import { t } from "./words/words.ts";

export function Shell() {
  useEffect(listenForShortcuts, []);
  useEffect(prepareParts, []);
  const { path } = route.value;
  return (
    <div class={`shell${isStale.value ? " stale" : ""}`}>
      <button type="button" class="skip" onClick={() => document.getElementById("main")?.focus()}>
        {t("frame.skip")}
      </button>
      <Rail current={path} />
      <div class="content">
        <Ribbons />
        <main id="main" tabIndex={-1}>
          <View path={path} />
        </main>
      </div>
      <Palette />
      <Shortcuts />
    </div>
  );
}

/** Fetches the other parts once there is nothing else to do: they are there while a node restarts. */
function prepareParts(): () => void {
  const prepare = () => {
    for (const { view } of pages) if ("prepare" in view) view.prepare();
  };
  const timer = setTimeout(prepare, 2000);
  return () => clearTimeout(timer);
}

function View({ path }: { path: string }) {
  const page = findPage(path);
  if (page === undefined) {
    return <Instead title={t("missing.title")}>{t("missing.detail", { address: path })}</Instead>;
  }
  if (!isAllowed(page)) return <Refused permission={page.permission!} />;
  const { view: Content } = page;
  return <Content key={path} />;
}

function Refused({ permission }: { permission: Permission }) {
  return <Instead title={t("refused.title")}>{t("refused.detail", { permission })}</Instead>;
}

function Instead({ title, children }: { title: string; children: string }) {
  return (
    <>
      <PageHead title={title}>{children}</PageHead>
      <a class="button" href="#/">
        {t("refused.back")}
      </a>
    </>
  );
}

function Ribbons() {
  return (
    <section class="ribbons" aria-label={t("frame.state")}>
      {node.value?.devBuild ? (
        <div class="ribbon build">
          <Icon name="info" />
          <span>{t("frame.devBuild")}</span>
        </div>
      ) : null}
      <NewVersionRibbon />
      <LostRibbon />
    </section>
  );
}

function LostRibbon() {
  if (!isStale.value) return null;
  const age = formatAge(now.value - (heardAtMs.value ?? now.value));
  return (
    <div class="ribbon lost" role="alert">
      <Icon name="condition" />
      <span class="number">{t("frame.lost", { age })}</span>
      <button type="button" class="button small" onClick={retryNow}>
        {link.value === "connecting" ? t("frame.connecting") : t("frame.tryNow")}
      </button>
    </div>
  );
}

/** The version that sent this page: after an upgrade the node has another console to give. */
let loadedFrom: string | undefined;

function NewVersionRibbon() {
  const version = node.value?.version;
  loadedFrom ??= version;
  if (version === undefined || version === loadedFrom) return null;
  return (
    <div class="ribbon build" role="status">
      <Icon name="upload" />
      <span>{t("frame.newVersion", { version })}</span>
      <button type="button" class="button small" onClick={() => location.reload()}>
        {t("frame.reload")}
      </button>
    </div>
  );
}
