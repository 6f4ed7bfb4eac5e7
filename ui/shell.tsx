/** Around every page: navigation, what build this is, whether what is shown is still true. */
import { useComputed } from "@preact/signals";
import { useEffect, useState } from "preact/hooks";
import { logOut, session } from "./client.ts";
import { Icon, type IconName } from "./components/icon.tsx";
import { formatAge, now } from "./components/time.tsx";
import { complain } from "./components/toast.tsx";
import { heardAtMs, isStale, link, retryNow } from "./live/link.ts";
import { activeConditions, clients, isMuted, node, tasks } from "./live/state.ts";
import { ClientsPage } from "./pages/clients.tsx";
import { ConditionsPage } from "./pages/conditions.tsx";
import { ExportsPage } from "./pages/exports.tsx";
import { ImagesPage } from "./pages/images.tsx";
import { NetbootPage } from "./pages/netboot.tsx";
import { OverviewPage } from "./pages/overview.tsx";
import { PasswordDialog } from "./pages/password.tsx";
import { TasksPage } from "./pages/tasks.tsx";
import { VolumesPage } from "./pages/volumes.tsx";
import { route } from "./router.ts";
import { theme, toggleTheme } from "./theme.ts";

interface Page {
  readonly path: string;
  readonly title: string;
  readonly icon: IconName;
  readonly view: () => preact.JSX.Element;
}

const pages: readonly Page[] = [
  { path: "/", title: "Overview", icon: "overview", view: OverviewPage },
  { path: "/clients", title: "Clients", icon: "client", view: ClientsPage },
  { path: "/images", title: "Images", icon: "image", view: ImagesPage },
  { path: "/volumes", title: "Volumes", icon: "volume", view: VolumesPage },
  { path: "/exports", title: "iSCSI exports", icon: "link", view: ExportsPage },
  { path: "/netboot", title: "Network boot", icon: "netboot", view: NetbootPage },
  { path: "/conditions", title: "Conditions", icon: "condition", view: ConditionsPage },
  { path: "/tasks", title: "Tasks", icon: "task", view: TasksPage },
];

export function Shell() {
  const page = pages.find(({ path }) => path === route.value.path) ?? pages[0];
  const View = page.view;
  return (
    <div class={`shell${isStale.value ? " stale" : ""}`}>
      <button type="button" class="skip" onClick={() => document.getElementById("main")?.focus()}>
        Skip to the page
      </button>
      <Rail current={page.path} />
      <div class="content">
        {node.value?.devBuild ? (
          <div class="ribbon build">
            <Icon name="info" />
            Development build: not signed with a release key. Don’t trust it with data you need.
          </div>
        ) : null}
        <LostRibbon />
        <main id="main" tabIndex={-1}>
          <View key={page.path} />
        </main>
      </div>
    </div>
  );
}

function LostRibbon() {
  if (!isStale.value) return null;
  const age = formatAge(now.value - (heardAtMs.value ?? now.value));
  return (
    <div class="ribbon lost" role="alert">
      <Icon name="condition" />
      <span>
        Connection lost. Everything below is as it was <b class="number">{age}</b> ago.
      </span>
      <button type="button" class="button small" onClick={retryNow}>
        {link.value === "connecting" ? "Connecting…" : "Try now"}
      </button>
    </div>
  );
}

function Rail({ current }: { current: string }) {
  const [open, setOpen] = useState(false);
  const [changing, setChanging] = useState(false);
  useEffect(() => setOpen(false), [current]);
  return (
    <div class={`rail${open ? " open" : ""}`}>
      <div class="rail-top">
        <a class="brand" href="#/">
          <img src="/icon.svg" alt="" />
          Keelson
        </a>
        <button
          type="button"
          class="rail-button rail-open"
          aria-expanded={open}
          aria-label="Menu"
          onClick={() => setOpen(!open)}
        >
          <Icon name={open ? "close" : "menu"} />
        </button>
      </div>
      <nav aria-label="Pages">
        <ul>
          {pages.map((page) => (
            <li key={page.path}>
              <a
                href={`#${page.path}`}
                {...(page.path === current ? { "aria-current": "page" } : {})}
              >
                <Icon name={page.icon} />
                {page.title}
                <Count path={page.path} />
              </a>
            </li>
          ))}
        </ul>
      </nav>
      <div class="rail-foot">
        <LinkLine />
        <div class="who">
          <span class="clip">{session.value?.user}</span>
          <button
            type="button"
            class="rail-button"
            title="Change password"
            aria-label="Change password"
            onClick={() => setChanging(true)}
          >
            <Icon name="edit" />
          </button>
          <button
            type="button"
            class="rail-button"
            title={theme.value === "dark" ? "Light colours" : "Dark colours"}
            aria-label={theme.value === "dark" ? "Light colours" : "Dark colours"}
            onClick={toggleTheme}
          >
            <Icon name={theme.value === "dark" ? "sun" : "moon"} />
          </button>
          <button
            type="button"
            class="rail-button"
            title="Log out"
            aria-label="Log out"
            onClick={() => logOut().catch(complain)}
          >
            <Icon name="leave" />
          </button>
        </div>
      </div>
      {changing ? <PasswordDialog onClose={() => setChanging(false)} /> : null}
    </div>
  );
}

function LinkLine() {
  const live = link.value === "live";
  const tone = live ? "good" : link.value === "connecting" ? "warn" : "bad";
  return (
    <div class="link-state">
      <span class={`dot ${tone}`} />
      <span class="clip">
        {node.value?.name ?? "Node"} ·{" "}
        {live ? "live" : isStale.value ? "connection lost" : "connecting"}
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
    return { number: urgent.length, tone, label: "need attention" };
  }
  if (path === "/tasks") {
    const running = (tasks.value ?? []).filter((task) => task.state === "running").length;
    return running === 0 ? undefined : { number: running, tone: "", label: "running" };
  }
  if (path === "/clients") {
    const unknown = (clients.value ?? []).filter((client) => client.bootEntryId === null).length;
    return unknown === 0 ? undefined : { number: unknown, tone: "", label: "unknown machines" };
  }
  return undefined;
}
