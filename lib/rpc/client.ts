import { once } from "node:events";
import { request as httpRequest, type IncomingMessage } from "node:http";
import { finished, pipeline, Readable } from "node:stream";
import { buffer } from "node:stream/consumers";
import type { Hono } from "hono";
import { type ClientResponse, hc } from "hono/client";
import { KeelsonError } from "#lib/model/errors.ts";
import { errorOf } from "./problem.ts";

/** Longer answers, and those that don't say how long they are, are given while they come. */
const wholeBytes = 1 << 20;
/** Without a byte of an answer's body. */
const idleMs = 300_000;

/**
 * `fetch` that goes to a unix socket; the URL's host is ignored. By node:http, since Node's own
 * fetch can't, and undici beside it would be a tenth of a second of each service's start. `timeoutMs`
 * is for the answer to begin. UNAVAILABLE if the service is gone.
 */
export function unixFetch(path: string, timeoutMs = 30_000): typeof fetch {
  return async (input, init) => {
    try {
      return await fetchByHttp(path, timeoutMs, input, init);
    } catch (cause) {
      throw noAnswer(path, cause);
    }
  };
}

async function fetchByHttp(
  socketPath: string,
  timeoutMs: number,
  input: string | URL | Request,
  init: RequestInit = {},
): Promise<Response> {
  const { method = "GET", headers, body, signal } = input instanceof Request ? input : init;
  const { pathname, search } = new URL(input instanceof Request ? input.url : input);
  const whole = typeof body === "string" ? Buffer.from(body) : body;
  const request = httpRequest({
    ...{ socketPath, path: pathname + search, method, agent: false },
    headers: {
      ...Object.fromEntries(new Headers(headers)),
      // Node leaves it out for a DELETE.
      ...(whole instanceof Uint8Array ? { "content-length": whole.length } : {}),
    },
    ...(signal == null ? {} : { signal }),
  });
  // Of one that breaks later the reader of its answer hears.
  request.on("error", () => {});
  const late = setTimeout(
    () => request.destroy(new Error(`nothing within ${timeoutMs} ms`)),
    timeoutMs,
  );
  const answered = once(request, "response") as Promise<[IncomingMessage]>;
  if (whole == null || whole instanceof Uint8Array) request.end(whole);
  else pipeline(Readable.from(whole as unknown as AsyncIterable<Uint8Array>), request, () => {});
  const [message] = await answered.finally(() => clearTimeout(late));
  return await responseOf(message, method);
}

async function responseOf(message: IncomingMessage, method: string): Promise<Response> {
  const { statusCode = 0, headersDistinct } = message;
  const headers = Object.entries(headersDistinct).flatMap(([name, values = []]) =>
    values.map((value): [string, string] => [name, value]),
  );
  const empty = method === "HEAD" || [204, 205, 304].includes(statusCode);
  message.setTimeout(idleMs, () => message.destroy(new Error("it says nothing more")));
  const length = Number(message.headers["content-length"] ?? Number.POSITIVE_INFINITY);
  const body =
    empty || length <= wholeBytes ? await buffer(message) : (Readable.toWeb(message) as never);
  return new Response(empty ? null : body, { status: statusCode, headers });
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
