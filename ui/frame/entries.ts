/** Everything the palette can go to or do, of what the account may see and do. */
import { logOut } from "../client.ts";
import { complain } from "../components/toast.tsx";
import { activeConditions, bootEntries, exports, images, tasks, volumes } from "../live/state.ts";
import { isAllowed, pages } from "../pages.ts";
import { may, type Permission } from "../permission.ts";
import { go } from "../router.ts";
import { chooseTheme } from "../theme.ts";
import { type PlainKey, t } from "../words/words.ts";
import type { Searchable } from "./search.ts";
import { openShortcuts } from "./sheet.ts";

type Kind = "page" | "action" | "volume" | "image" | "client" | "export" | "condition" | "task";

export interface Entry extends Searchable {
  readonly kind: Kind;
  readonly id: string;
  run(): void;
}

interface Action {
  readonly title: PlainKey;
  readonly permission?: Permission;
  run(): void;
}

const actions: readonly Action[] = [
  {
    title: "action.createVolume",
    permission: "storage:write",
    run: () => go("/volumes?new"),
  },
  {
    title: "action.exportVolume",
    permission: "storage:write",
    run: () => go("/exports?new"),
  },
  {
    title: "action.registerClient",
    permission: "netboot:write",
    run: () => go("/clients?new"),
  },
  { title: "action.changePassword", run: () => go("/account?password") },
  { title: "action.setUpTotp", run: () => go("/account?totp") },
  { title: "action.createToken", run: () => go("/account?token") },
  {
    title: "users.create",
    permission: "users:write",
    run: () => go("/users?new"),
  },
  { title: "action.light", run: () => chooseTheme("light") },
  { title: "action.dark", run: () => chooseTheme("dark") },
  { title: "action.systemColours", run: () => chooseTheme(undefined) },
  { title: "action.shortcuts", run: openShortcuts },
  { title: "action.logOut", run: () => void logOut().catch(complain) },
];

function find(path: string, name: string): () => void {
  return () => go(`${path}?${new URLSearchParams({ find: name })}`);
}

function objects(): Entry[] {
  return [
    ...(volumes.value ?? []).map((volume) => ({
      kind: "volume" as const,
      id: volume.id,
      title: volume.name,
      detail: volume.id,
      run: find("/volumes", volume.name),
    })),
    ...(images.value ?? []).map((image) => ({
      kind: "image" as const,
      id: image.id,
      title: image.name,
      detail: "",
      run: find("/images", image.name),
    })),
    ...(bootEntries.value ?? []).map((entry) => ({
      kind: "client" as const,
      id: entry.id,
      title: entry.name,
      detail: [entry.mac, entry.uuid].filter(Boolean).join(" "),
      run: find("/clients", entry.name),
    })),
    ...(exports.value ?? []).map((item) => ({
      kind: "export" as const,
      id: item.id,
      title: item.name,
      detail: item.targetIqn,
      run: find("/exports", item.name),
    })),
    ...activeConditions.value.map((condition) => ({
      kind: "condition" as const,
      id: condition.id,
      title: condition.title,
      detail: condition.reason,
      run: () => go("/conditions"),
    })),
    ...(tasks.value ?? []).map((task) => ({
      kind: "task" as const,
      id: task.id,
      title: task.title,
      detail: "",
      run: find("/tasks", task.title),
    })),
  ];
}

/** Pages, then actions, then objects. */
export function paletteEntries(): Entry[] {
  return [
    ...pages.filter(isAllowed).map((page) => ({
      kind: "page" as const,
      id: page.path,
      title: t(page.title),
      detail: "",
      run: () => go(page.path),
    })),
    ...actions
      .filter(({ permission }) => permission === undefined || may(permission))
      .map((action) => ({
        kind: "action" as const,
        id: action.title,
        title: t(action.title),
        detail: "",
        run: action.run,
      })),
    ...objects(),
  ];
}
