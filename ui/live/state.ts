/** What api said, as signals. Undefined: not known yet. */
import { batch, computed, signal } from "@preact/signals";
import { eventReaders } from "../../services/api/event-access.ts";
import type {
  ApiEvent,
  BootEntry,
  Client,
  Condition,
  EventResource,
  Export,
  Image,
  Netboot,
  Node,
  Store,
  Task,
  Volume,
} from "../../services/api/schema.ts";
import type { UpgradeState } from "../../services/api/upgrade-schema.ts";
import { may } from "../permission.ts";

export const node = signal<Node | undefined>(undefined);
export const store = signal<Store | undefined>(undefined);
export const netboot = signal<Netboot | undefined>(undefined);
export const volumes = signal<readonly Volume[] | undefined>(undefined);
export const images = signal<readonly Image[] | undefined>(undefined);
export const bootEntries = signal<readonly BootEntry[] | undefined>(undefined);
export const clients = signal<readonly Client[] | undefined>(undefined);
export const exports = signal<readonly Export[] | undefined>(undefined);
export const conditions = signal<readonly Condition[] | undefined>(undefined);
export const tasks = signal<readonly Task[] | undefined>(undefined);

/** Versions, bundles, the plan and its history: one document. */
export const upgrade = signal<UpgradeState | undefined>(undefined);

export const singletons = { node, store, netboot, upgrade } as const;

/** Collections with the name of their id. */
export const collections = {
  volumes: [volumes, "id"],
  images: [images, "id"],
  "boot-entries": [bootEntries, "id"],
  clients: [clients, "mac"],
  exports: [exports, "id"],
  conditions: [conditions, "id"],
  tasks: [tasks, "id"],
} as const;

/** Those that are always kept here; pages fetch the others when they are shown (fetched.ts). */
export type KeptResource = keyof typeof singletons | keyof typeof collections;

const resources = [...Object.keys(singletons), ...Object.keys(collections)] as KeptResource[];

/** Those that the account may read: the others aren't asked for. */
export function readableResources(): KeptResource[] {
  return resources.filter(mayRead);
}

export function mayRead(resource: EventResource): boolean {
  const reader = eventReaders[resource];
  return reader === "own" || may(reader);
}

export function isSingleton(resource: EventResource): resource is keyof typeof singletons {
  return resource in singletons;
}

function isCollection(resource: EventResource): resource is keyof typeof collections {
  return resource in collections;
}

/** What a GET of the whole resource answered. */
export function replaceResource(resource: KeptResource, value: unknown): void {
  const target = isSingleton(resource) ? singletons[resource] : collections[resource][0];
  target.value = value as never;
}

/** Applies changes at once: a thousand events cost one copy of each collection they touch. */
export function applyChanges(changes: readonly ApiEvent[]): void {
  batch(() => {
    for (const [resource, group] of Map.groupBy(changes, (change) => change.resource)) {
      if (isSingleton(resource)) replaceResource(resource, group.at(-1)!.value ?? undefined);
      else if (isCollection(resource)) applyToCollection(resource, group);
    }
  });
  tell(changes.map(({ resource }) => resource));
}

const listeners = new Set<(resource: EventResource) => void>();

/** Calls it for each resource that isn't kept here and has changed, until the function returned is called. */
export function onTold(listener: (resource: EventResource) => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

function tell(changed: readonly EventResource[]): void {
  for (const resource of new Set(changed)) {
    if (isSingleton(resource) || isCollection(resource)) continue;
    for (const listener of listeners) listener(resource);
  }
}

/** After a gap: any of those that aren't kept may have changed. */
export function tellAll(): void {
  tell(Object.keys(eventReaders) as EventResource[]);
}

function applyToCollection(resource: keyof typeof collections, changes: readonly ApiEvent[]): void {
  const [target, idName] = collections[resource];
  if (target.value === undefined) return;
  target.value = mergeChanges(target.value as readonly object[], idName, changes) as never;
}

/** New documents go first: tasks are listed newest first, the rest is sorted where it is shown. */
export function mergeChanges<Row extends object>(
  rows: readonly Row[],
  idName: string,
  changes: readonly { readonly id: string; readonly value: unknown }[],
): Row[] {
  const last = new Map(changes.map((change) => [change.id, change.value as Row | null]));
  const kept: Row[] = [];
  for (const row of rows) {
    const id = (row as Record<string, unknown>)[idName] as string;
    const next = last.get(id);
    if (next === undefined) kept.push(row);
    else if (next !== null) kept.push(next);
    last.delete(id);
  }
  const added = [...last.values()].filter((row) => row !== null);
  return [...added.reverse(), ...kept];
}

export function forgetAll(): void {
  batch(() => {
    for (const resource of resources) replaceResource(resource, undefined);
  });
}

export const activeConditions = computed(() =>
  (conditions.value ?? [])
    .filter((condition) => condition.status !== "false")
    .sort((a, b) => severityRank(a) - severityRank(b) || (a.since < b.since ? 1 : -1)),
);

const ranks = ["critical", "warning", "notice", "info"];

function severityRank(condition: Condition): number {
  const rank = ranks.indexOf(condition.severity);
  // What isn't known comes after what is.
  return (rank === -1 ? ranks.length : rank) + (condition.status === "unknown" ? 0.5 : 0);
}

export function isMuted(condition: Condition, atMs: number): boolean {
  return condition.mutedUntil !== null && Date.parse(condition.mutedUntil) > atMs;
}
