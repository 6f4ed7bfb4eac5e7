/** Navigation: the pages that the account may see, with what wants attention on them. */
import { useComputed } from "@preact/signals";
import { useEffect, useState } from "preact/hooks";
import { logOut, session } from "../client.ts";
import { Icon } from "../components/icon.tsx";
import { now } from "../components/time.tsx";
import { complain } from "../components/toast.tsx";
import { isStale, link } from "../live/link.ts";
import { activeConditions, clients, isMuted, node, tasks } from "../live/state.ts";
import { isAllowed, pageGroups } from "../pages.ts";
import { theme, toggleTheme } from "../theme.ts";
import { t } from "../words/words.ts";
import { commandKey, openPalette, openShortcuts } from "./sheet.ts";

export function Rail({ current }: { current: string }) {
  const [open, setOpen] = useState(false);
  useEffect(() => setOpen(false), [current]);
  return (
    <header class={`rail${open ? " open" : ""}`}>
      <div class="rail-top">
        <a class="brand" href="#/">
          <img src="/icon.svg" alt="" />
          Keelson
        </a>
        <button type="button" class="rail-search" onClick={openPalette}>
          <Icon name="search" />
          <span>{t("frame.search")}</span>
          <kbd>{commandKey} K</kbd>
        </button>
        <button
          type="button"
          class="rail-button rail-open"
          aria-expanded={open}
          aria-controls="pages"
          aria-label={t("frame.menu")}
          onClick={() => setOpen(!open)}
        >
          <Icon name={open ? "close" : "menu"} />
        </button>
      </div>
      <nav id="pages" aria-label={t("frame.pages")}>
        {pageGroups.map((group) => (
          <Group key={group.title ?? ""} title={group.title && t(group.title)} current={current}>
            {group.pages.filter(isAllowed)}
          </Group>
        ))}
      </nav>
      <RailFoot current={current} />
    </header>
  );
}

interface GroupProps {
  readonly title: string | undefined;
  readonly current: string;
  readonly children: (typeof pageGroups)[number]["pages"];
}

function Group({ title, current, children: pages }: GroupProps) {
  if (pages.length === 0) return null;
  return (
    <>
      {title === undefined ? null : (
        <span class="rail-group" aria-hidden="true">
          {title}
        </span>
      )}
      <ul {...(title === undefined ? {} : { "aria-label": title })}>
        {pages.map((page) => (
          <li key={page.path}>
            <a
              href={`#${page.path}`}
              {...(page.path === current ? { "aria-current": "page" } : {})}
            >
              <Icon name={page.icon} />
              {t(page.title)}
              <Count path={page.path} />
            </a>
          </li>
        ))}
      </ul>
    </>
  );
}

function RailFoot({ current }: { current: string }) {
  const dark = theme.value === "dark";
  return (
    <div class="rail-foot">
      <LinkLine />
      <div class="who">
        <a
          class="account"
          href="#/account"
          title={t("page.account")}
          {...(current === "/account" ? { "aria-current": "page" } : {})}
        >
          <Icon name="user" />
          <span class="clip">{session.value?.user}</span>
          <span class="unseen">{t("page.account")}</span>
        </a>
        <RailButton icon="keyboard" label={t("shortcuts.title")} onClick={openShortcuts} />
        <RailButton
          icon={dark ? "sun" : "moon"}
          label={t(dark ? "frame.light" : "frame.dark")}
          onClick={toggleTheme}
        />
        <RailButton
          icon="leave"
          label={t("frame.logOut")}
          onClick={() => logOut().catch(complain)}
        />
      </div>
    </div>
  );
}

interface RailButtonProps {
  readonly icon: Parameters<typeof Icon>[0]["name"];
  readonly label: string;
  onClick(): void;
}

function RailButton({ icon, label, onClick }: RailButtonProps) {
  return (
    <button type="button" class="rail-button" title={label} aria-label={label} onClick={onClick}>
      <Icon name={icon} />
    </button>
  );
}

function LinkLine() {
  const live = link.value === "live";
  const tone = live ? "good" : link.value === "connecting" ? "warn" : "bad";
  const state = live ? "live" : isStale.value ? "linkLost" : "linkConnecting";
  return (
    <div class="link-state">
      <span class={`dot ${tone}`} />
      <span class="clip">
        {node.value?.name ?? t("frame.node")} · {t(`frame.${state}`)}
      </span>
    </div>
  );
}

/** What wants attention, beside a page's name. */
function Count({ path }: { path: string }) {
  const count = useComputed(() => countOf(path));
  if (count.value === undefined) return null;
  const { number, tone, label } = count.value;
  return (
    <span class={`count ${tone}`} title={label}>
      {number}
      <span class="unseen"> {label}</span>
    </span>
  );
}

function countOf(path: string): { number: number; tone: string; label: string } | undefined {
  if (path === "/conditions") {
    const open = activeConditions.value.filter(
      (condition) => condition.status === "true" && !isMuted(condition, now.value),
    );
    const urgent = open.filter(({ severity }) => severity === "critical" || severity === "warning");
    if (urgent.length === 0) return undefined;
    const tone = urgent.some(({ severity }) => severity === "critical") ? "bad" : "warn";
    return { number: urgent.length, tone, label: t("frame.needAttention") };
  }
  if (path === "/tasks") {
    const running = (tasks.value ?? []).filter((task) => task.state === "running").length;
    return running === 0 ? undefined : { number: running, tone: "", label: t("frame.running") };
  }
  if (path === "/clients") {
    const unknown = (clients.value ?? []).filter((client) => client.bootEntryId === null).length;
    return unknown === 0
      ? undefined
      : { number: unknown, tone: "", label: t("frame.unknownMachines") };
  }
  return undefined;
}
