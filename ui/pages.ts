/**
 * Every page of the console: its address, its key after `g`, and the permission that it takes.
 * Pages that aren't needed for first paint come in parts, loaded when they are first shown.
 */
import type { IconName } from "./components/icon.tsx";
import { type LazyPage, lazy } from "./frame/lazy.tsx";
import { ClientsPage } from "./pages/clients.tsx";
import { ConditionsPage } from "./pages/conditions.tsx";
import { ExportsPage } from "./pages/exports.tsx";
import { ImagesPage } from "./pages/images.tsx";
import { NetbootPage } from "./pages/netboot.tsx";
import { OverviewPage } from "./pages/overview.tsx";
import { TasksPage } from "./pages/tasks.tsx";
import { VolumesPage } from "./pages/volumes.tsx";
import { may, type Permission } from "./permission.ts";
import type { PlainKey } from "./words/words.ts";

export interface Page {
  readonly path: string;
  readonly title: PlainKey;
  readonly icon: IconName;
  /** Pressed after `g`. */
  readonly key: string;
  /** Undefined: any account. */
  readonly permission?: Permission;
  readonly view: (() => preact.ComponentChild) | LazyPage;
}

export interface PageGroup {
  /** Undefined: stands alone at the top. */
  readonly title?: PlainKey;
  readonly pages: readonly Page[];
}

const people = () => import("./pages/people/part.ts");
const storage = () => import("./pages/storage/part.ts");
const node = () => import("./pages/node/part.ts");

export const pageGroups: readonly PageGroup[] = [
  {
    pages: [{ path: "/", title: "page.overview", icon: "overview", key: "o", view: OverviewPage }],
  },
  {
    title: "group.boot",
    pages: [
      {
        path: "/clients",
        title: "page.clients",
        icon: "client",
        key: "c",
        permission: "netboot:read",
        view: ClientsPage,
      },
      {
        path: "/netboot",
        title: "page.netboot",
        icon: "netboot",
        key: "b",
        permission: "netboot:read",
        view: NetbootPage,
      },
    ],
  },
  {
    title: "group.storage",
    pages: [
      {
        path: "/images",
        title: "page.images",
        icon: "image",
        key: "i",
        permission: "storage:read",
        view: ImagesPage,
      },
      {
        path: "/volumes",
        title: "page.volumes",
        icon: "volume",
        key: "v",
        permission: "storage:read",
        view: VolumesPage,
      },
      {
        path: "/snapshots",
        title: "page.snapshots",
        icon: "snapshot",
        key: "h",
        permission: "storage:read",
        view: lazy(storage, (part) => part.SnapshotsPage),
      },
      {
        path: "/exports",
        title: "page.exports",
        icon: "link",
        key: "e",
        permission: "storage:read",
        view: ExportsPage,
      },
    ],
  },
  {
    title: "group.watch",
    pages: [
      {
        path: "/conditions",
        title: "page.conditions",
        icon: "condition",
        key: "f",
        permission: "node:read",
        view: ConditionsPage,
      },
      {
        path: "/tasks",
        title: "page.tasks",
        icon: "task",
        key: "t",
        permission: "node:read",
        view: TasksPage,
      },
      {
        path: "/audit",
        title: "page.audit",
        icon: "audit",
        key: "a",
        permission: "audit:read",
        view: lazy(people, (part) => part.AuditPage),
      },
    ],
  },
  {
    title: "group.node",
    pages: [
      {
        path: "/users",
        title: "page.users",
        icon: "users",
        key: "u",
        permission: "users:read",
        view: lazy(people, (part) => part.UsersPage),
      },
      {
        path: "/network",
        title: "page.network",
        icon: "network",
        key: "n",
        permission: "network:read",
        view: lazy(node, (part) => part.NetworkPage),
      },
      {
        path: "/sign-in",
        title: "page.provider",
        icon: "lock",
        key: "l",
        permission: "settings:read",
        view: lazy(people, (part) => part.IdentityProviderPage),
      },
      {
        path: "/upgrade",
        title: "page.upgrade",
        icon: "upgrade",
        key: "p",
        permission: "upgrade:read",
        view: lazy(node, (part) => part.UpgradePage),
      },
      {
        path: "/settings",
        title: "page.settings",
        icon: "settings",
        key: "s",
        permission: "settings:read",
        view: lazy(node, (part) => part.SettingsPage),
      },
    ],
  },
];

/** Reached by one's own name, not from the list. */
const ownPage: Page = {
  path: "/account",
  title: "page.account",
  icon: "user",
  key: "y",
  view: lazy(people, (part) => part.AccountPage),
};

export const pages: readonly Page[] = [...pageGroups.flatMap((group) => group.pages), ownPage];

export function isAllowed(page: Page): boolean {
  return page.permission === undefined || may(page.permission);
}

export function findPage(path: string): Page | undefined {
  return pages.find((page) => page.path === path);
}
