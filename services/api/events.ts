/**
 * Changes for whoever listens. Documents are compared with what was last told, so that a change is
 * told once, whatever caused it. The newest events are kept to resume from.
 */
import { randomUUID } from "node:crypto";
import type { ApiEvent, EventResource } from "./schema.ts";

export interface NumberedEvent {
  /** Opaque to clients: of this process's life, and a count. */
  readonly id: string;
  readonly event: ApiEvent;
  /** Whose it is: nobody else hears of it. Null: whoever may get the resource. */
  readonly owner: string | null;
}

/** A document that belongs to one account. */
export class Owned {
  readonly owner: string;
  readonly value: unknown;

  constructor(owner: string, value: unknown) {
    this.owner = owner;
    this.value = value;
  }
}

interface Told {
  readonly text: string;
  readonly owner: string | null;
}

/** What a resource's documents are now, by id; "" is the id of a singleton. */
export type Documents = ReadonlyMap<string, unknown>;

const keptEvents = 4096;
const coalesceMs = 50;

/** Fields that move by themselves: no reason to tell. */
const moving = new Set([
  ...["time", "uptimeMs", "lastSeenAgeMs", "observedAt", "lastSeenAt"],
  ...["lastUsedAt", "lastUsedFrom"],
]);

export class EventHub {
  readonly #life = randomUUID().slice(0, 8);
  readonly #documents: (resource: EventResource) => Documents;
  readonly #told = new Map<EventResource, Map<string, Told>>();
  readonly #dirty = new Set<EventResource>();
  readonly #listeners = new Set<(event: NumberedEvent) => void>();
  #kept: NumberedEvent[] = [];
  #count = 0;
  #timer: NodeJS.Timeout | undefined;

  constructor(documents: (resource: EventResource) => Documents) {
    this.#documents = documents;
  }

  /** The newest event's id. */
  get lastId(): string {
    return `${this.#life}-${this.#count}`;
  }

  /** Looks at these resources soon, all that changed meanwhile together. */
  touch(...resources: EventResource[]): void {
    for (const resource of resources) this.#dirty.add(resource);
    this.#timer ??= setTimeout(() => this.flush(), coalesceMs).unref();
  }

  flush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const dirty = [...this.#dirty];
    this.#dirty.clear();
    for (const resource of dirty) this.#compare(resource);
  }

  /**
   * Tells `listener` of every event after `lastId` and then as they come. False: those after
   * `lastId` are no longer kept (or are of another life): the listener must fetch everything.
   */
  listen(
    lastId: string | undefined,
    listener: (event: NumberedEvent) => void,
  ): {
    readonly resumed: boolean;
    readonly stop: () => void;
  } {
    const missed = lastId === undefined ? undefined : this.#after(lastId);
    for (const event of missed ?? []) listener(event);
    this.#listeners.add(listener);
    return { resumed: missed !== undefined, stop: () => this.#listeners.delete(listener) };
  }

  #after(lastId: string): NumberedEvent[] | undefined {
    const [life, text] = lastId.split("-");
    const count = Number(text);
    if (life !== this.#life || !Number.isInteger(count) || count > this.#count) return undefined;
    const missing = this.#count - count;
    if (missing > this.#kept.length) return undefined;
    return missing === 0 ? [] : this.#kept.slice(-missing);
  }

  #compare(resource: EventResource): void {
    const now = this.#documents(resource);
    const told = this.#told.get(resource) ?? new Map<string, Told>();
    this.#told.set(resource, told);
    for (const [id, { owner }] of told) {
      if (now.has(id)) continue;
      told.delete(id);
      this.#tell({ resource, id, value: null }, owner);
    }
    for (const [id, document] of now) {
      const [owner, value] =
        document instanceof Owned ? [document.owner, document.value] : [null, document];
      const text = JSON.stringify(value, (key, field) => (moving.has(key) ? undefined : field));
      if (told.get(id)?.text === text) continue;
      told.set(id, { text, owner });
      this.#tell({ resource, id, value }, owner);
    }
  }

  #tell(event: ApiEvent, owner: string | null): void {
    const numbered = { id: `${this.#life}-${++this.#count}`, event, owner };
    this.#kept.push(numbered);
    if (this.#kept.length > keptEvents * 2) this.#kept = this.#kept.slice(-keptEvents);
    for (const listener of this.#listeners) listener(numbered);
  }
}
