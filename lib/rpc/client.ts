import { request as httpRequest } from "node:http";
import { finished, type Readable } from "node:stream";
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
      throw noAnswer(path, cause);
    }
  }) as unknown as typeof fetch;
}

/**
 * Posts `source` to a unix socket and gives its answer's status and JSON (null if it is none). Piped,
 * where fetch would take each part through two more streams: half the CPU of a large upload. An
 * answer that comes before the end stops the sending; `source` itself is never destroyed.
 * UNAVAILABLE if the service is gone, CANCELLED if `source` ends early.
 */
export function unixPost(
  socketPath: string,
  path: string,
  source: Readable,
  { headers, idleMs }: { headers: Record<string, string>; idleMs: number },
): Promise<{ status: number; document: unknown }> {
  return new Promise((resolve, reject) => {
    const request = httpRequest({ socketPath, path, method: "POST", headers, timeout: idleMs });
    const fail = (error: KeelsonError) => {
      source.unpipe(request);
      request.destroy();
      reject(error);
    };
    const gone = (cause: unknown) => fail(noAnswer(socketPath, cause));
    request.once("timeout", () => gone(new Error("it says nothing")));
    request.on("error", gone);
    request.once("response", (response) => {
      source.unpipe(request);
      const parts: Buffer[] = [];
      response.on("data", (part: Buffer) => parts.push(part));
      response.once("error", gone);
      response.once("end", () => {
        request.destroy();
        resolve({ status: response.statusCode!, document: parse(Buffer.concat(parts)) });
      });
    });
    finished(source, { writable: false }, (error) => {
      if (error == null) return;
      fail(new KeelsonError("CANCELLED", "The upload ended early.", { cause: error }));
    });
    source.pipe(request);
  });
}

function noAnswer(socketPath: string, cause: unknown): KeelsonError {
  return new KeelsonError("UNAVAILABLE", `No answer on ${socketPath}.`, {
    operation: "call",
    object: socketPath,
    remedy: "Is its service running?",
    cause,
  });
}

function parse(bytes: Buffer): unknown {
  try {
    return JSON.parse(bytes.toString());
  } catch {
    return null;
  }
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
