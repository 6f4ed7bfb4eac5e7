import type { Hono } from "hono";
import { type ClientResponse, hc } from "hono/client";
import { Agent, fetch as undiciFetch } from "undici";
import { KeelsonError } from "#lib/model/errors.ts";
import { errorOf } from "./problem.ts";

/** `fetch` that goes to a unix socket; the URL's host is ignored. */
export function unixFetch(path: string, timeoutMs = 30_000): typeof fetch {
  const dispatcher = new Agent({ connect: { socketPath: path }, headersTimeout: timeoutMs });
  return (async (input: string | URL, init?: object) => {
    try {
      return await undiciFetch(input, { ...init, dispatcher } as never);
    } catch (cause) {
      throw new KeelsonError("UNAVAILABLE", `No answer on ${path}.`, {
        operation: "call",
        object: path,
        remedy: "Is its service running?",
        cause,
      });
    }
  }) as unknown as typeof fetch;
}

/** Typed client of another service: `const store = unixClient<ChunkStoreApi>(path)`. */
// biome-ignore lint/suspicious/noExplicitAny: hono's own bound for an app type.
export function unixClient<App extends Hono<any, any, any>>(path: string, timeoutMs?: number) {
  return hc<App>("http://unix", { fetch: unixFetch(path, timeoutMs) });
}

/** The JSON body of a good answer; throws the KeelsonError that a bad one carries. */
export async function unwrap<Body>(
  response: Promise<ClientResponse<Body, number, string>>,
): Promise<Body> {
  const answer = await response;
  if (answer.ok) return (answer.status === 204 ? undefined : await answer.json()) as Body;
  const body = await answer.json().catch(() => null);
  throw errorOf(body, answer.status);
}
