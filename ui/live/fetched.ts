/** Documents that come by asking, not by events: asked when shown, and again while looked at. */
import { useEffect, useRef, useState } from "preact/hooks";
import { asFailure, type Failure, request } from "../client.ts";
import { link } from "./link.ts";

export interface Fetched<Document> {
  /** Undefined until the first answer; the last one stays when a later question fails. */
  readonly value: Document | undefined;
  /** Of the last question. */
  readonly failure: Failure | undefined;
  reload(): Promise<void>;
}

const againMs = 15_000;

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
    return () => {
      clearInterval(timer);
    };
  }, [path, live]);
  const current = answer.path === path ? answer : undefined;
  return { value: current?.value, failure: current?.failure, reload };
}
