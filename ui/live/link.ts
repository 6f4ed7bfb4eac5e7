/**
 * The connection that keeps the screen true.
 *
 *   closed --open()--> connecting --stream opens, all fetched--> live
 *      ^                   ^  |                                    |
 *      |                   |  +--fails--> waiting (backoff) <------+ stream ends or goes silent
 *   close(), 401           +------------------+
 *
 * Whatever isn't `live` is stale: pages show what was last known, grey and with its age.
 */
import { computed, signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import type { ApiEvent, EventResource } from "../../services/api/schema.ts";
import { asFailure, request, resumeSession, session } from "../client.ts";
import { clockOffsetMs, now } from "../components/time.tsx";
import {
  applyChanges,
  forgetAll,
  type KeptResource,
  mayRead,
  node,
  readableResources,
  replaceResource,
  tellAll,
} from "./state.ts";
import { readEvents, type StreamEvent } from "./stream.ts";

export type LinkState = "closed" | "connecting" | "live" | "waiting";

export const link = signal<LinkState>("closed");
/** When the last byte came, by this computer's clock; undefined before the first. */
export const heardAtMs = signal<number | undefined>(undefined);
/** Resources that api refused, with its words. */
export const refusals = signal<ReadonlyMap<EventResource, string>>(new Map());

/** api sends a comment each 15 s: two lost ones and some. */
const silenceMs = 35_000;
const longestWaitMs = 10_000;

/** Lost for long enough that it isn't a hiccup. */
export const isStale = computed(
  () =>
    link.value !== "live" && heardAtMs.value !== undefined && now.value - heardAtMs.value > 2500,
);

let stop: AbortController | undefined;
let wake: (() => void) | undefined;

export function openLink(): void {
  if (stop !== undefined) return;
  stop = new AbortController();
  void keepConnected(stop.signal);
}

export function closeLink(): void {
  stop?.abort();
  stop = undefined;
  link.value = "closed";
  heardAtMs.value = undefined;
  forgetAll();
}

/** Tries again at once instead of after the backoff. */
export function retryNow(): void {
  wake?.();
}

/**
 * Events tell what changed, not that time went by: when the store was last asked, when a condition
 * was last looked at. These are looked at again while somebody is looking.
 */
const movingResources = ["node", "store", "conditions"] as const;
const refreshMs = 15_000;

setInterval(() => {
  for (const resource of movingResources) refresh(resource);
}, refreshMs);

function refresh(resource: KeptResource): void {
  if (link.value !== "live" || document.hidden || !mayRead(resource)) return;
  request("GET", `/${resource}`)
    .then((value) => replaceResource(resource, value))
    .catch(() => undefined);
}

/** For pages that show what moves in a long list: thousands of rows are too much to ask for elsewhere. */
export function useRefreshed(resource: KeptResource): void {
  useEffect(() => {
    refresh(resource);
    const timer = setInterval(() => refresh(resource), refreshMs);
    return () => clearInterval(timer);
  }, [resource]);
}

addEventListener("online", retryNow);
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) retryNow();
});

async function keepConnected(stopped: AbortSignal): Promise<void> {
  let lastEventId: string | undefined;
  let waitMs = 500;
  while (!stopped.aborted) {
    link.value = "connecting";
    const feed = new Feed((id) => {
      lastEventId = id;
    });
    const status = await readEvents("/api/v1/events", lastEventId, stopped, silenceMs, {
      onOpen: () => {
        waitMs = 500;
        // With an id, api either fills the gap or says `reset`.
        void resumeSession().catch(() => undefined);
        if (lastEventId === undefined) void feed.fetchAll();
        else link.value = "live";
      },
      onLife: () => {
        heardAtMs.value = Date.now();
      },
      onEvent: (event) => feed.push(event),
    }).catch(() => 0);
    feed.end();
    if (stopped.aborted) return;
    if (status === 401) {
      session.value = null;
      return;
    }
    link.value = "waiting";
    await pause(waitMs, stopped);
    waitMs = Math.min(waitMs * 2, longestWaitMs);
  }
}

function pause(waitMs: number, stopped: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, waitMs);
    wake = () => {
      clearTimeout(timer);
      resolve();
    };
    stopped.addEventListener("abort", () => wake?.(), { once: true });
  });
}

/** One connection's events: held back while everything is fetched, then applied once a frame. */
class Feed {
  #pending: ApiEvent[] = [];
  #fetching = 0;
  #frame = 0;
  #ended = false;
  #heard = false;
  #lastId: string | undefined;
  readonly #applied: (id: string) => void;

  constructor(applied: (id: string) => void) {
    this.#applied = applied;
  }

  push(event: StreamEvent): void {
    this.#lastId = event.id ?? this.#lastId;
    const first = !this.#heard;
    this.#heard = true;
    // A connection's first `reset` asks for what is being fetched already.
    if (event.event === "reset") {
      if (!first || this.#fetching === 0) void this.fetchAll();
    } else if (event.event === "change") this.#pending.push(JSON.parse(event.data) as ApiEvent);
    if (this.#frame === 0) this.#frame = setTimeout(() => this.#flush(), 40) as unknown as number;
  }

  async fetchAll(): Promise<void> {
    this.#fetching++;
    const refused = new Map<EventResource, string>();
    await Promise.all(
      readableResources().map(async (resource) => {
        try {
          replaceResource(resource, await request("GET", `/${resource}`));
        } catch (error) {
          refused.set(resource, asFailure(error).title);
        }
      }),
    );
    this.#fetching--;
    if (this.#ended) return;
    refusals.value = refused;
    this.#flush();
    link.value = "live";
    tellAll();
  }

  end(): void {
    this.#flush();
    this.#ended = true;
  }

  #flush(): void {
    clearTimeout(this.#frame);
    this.#frame = 0;
    if (this.#fetching > 0 || this.#ended) return;
    const changes = this.#pending;
    this.#pending = [];
    applyChanges(changes);
    if (this.#lastId !== undefined) this.#applied(this.#lastId);
  }
}

node.subscribe((value) => {
  if (value !== undefined) clockOffsetMs.value = Date.parse(value.time) - Date.now();
});
