/**
 * Documents that pages ask for when they are shown: again when an event tells of a change, and now
 * and then while looked at, for what moves without events.
 */
import { useEffect, useRef, useState } from "preact/hooks";
import { asFailure, type Failure, request } from "../client.ts";
import { link } from "./link.ts";
import { onTold } from "./state.ts";

export interface Fetched<Document> {
  /** Undefined until the first answer; the last one stays when a later question fails. */
  readonly value: Document | undefined;
  /** Of the last question. */
  readonly failure: Failure | undefined;
  reload(): Promise<void>;
}

const againMs = 15_000;
const soonMs = 100;

/** A resource is told of by its path; a user's sessions and tokens are counted in the user. */
export function isAbout(path: string, resource: string): boolean {
  return path === `/${resource}` || path.startsWith(`/${resource}/`);
}

/** `path` under /api/v1; another path starts anew. */
export function useFetched<Document>(path: string): Fetched<Document> {
  const [answer, setAnswer] = useState<{ path: string; value?: Document; failure?: Failure }>({
    path,
  });
  const wanted = useRef(path);
  wanted.current = path;
  const reload = async () => {
    try {
      const value = await request<Document>("GET", path);
      // An answer that comes after the question has changed answers nothing.
      if (wanted.current === path) setAnswer({ path, value });
    } catch (error) {
      if (wanted.current !== path) return;
      const failure = asFailure(error);
      setAnswer((before) => (before.path === path ? { ...before, failure } : { path, failure }));
    }
  };
  const live = link.value === "live";
  useEffect(() => {
    // Also when the connection is back: what changed meanwhile was not told.
    void reload();
    const timer = setInterval(() => {
      if (!document.hidden && link.value === "live") void reload();
    }, againMs);
    // A burst of events is one question.
    let soon: ReturnType<typeof setTimeout> | undefined;
    const stop = onTold((resource) => {
      if (!isAbout(path, resource)) return;
      soon ??= setTimeout(() => {
        soon = undefined;
        void reload();
      }, soonMs);
    });
    return () => {
      clearInterval(timer);
      clearTimeout(soon);
      stop();
    };
  }, [path, live]);
  const current = answer.path === path ? answer : undefined;
  return { value: current?.value, failure: current?.failure, reload };
}
