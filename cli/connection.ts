/** Requests to a node's API. */
import type { Readable } from "node:stream";
import { Agent, type Dispatcher, request } from "undici";
import { KeelsonError } from "#lib/model/errors.ts";
import { errorOf } from "#lib/rpc/problem.ts";
import { fetchServerCa, type ServerCa } from "#lib/rpc/server-ca.ts";
import { readSettings, serverUrl } from "./settings.ts";

export interface ConnectionOptions {
  readonly server?: string | undefined;
}

const requestTimeoutMs = 60_000;
/** api sends a comment each 15 s. */
const silenceMs = 45_000;

export interface UploadOptions {
  readonly method?: "PUT" | "POST";
  readonly headers?: Readonly<Record<string, string>>;
}

export class Connection {
  readonly url: string;
  readonly #token: string | null;
  readonly #dispatcher: Dispatcher;

  constructor(url: string, token: string | null, ca: string | null) {
    this.url = url;
    this.#token = token;
    this.#dispatcher = new Agent({
      headersTimeout: requestTimeoutMs,
      bodyTimeout: silenceMs,
      // This CA signs one node only: whatever address it is reached by, its key is what counts.
      ...(ca === null
        ? {}
        : { connect: { ca, allowPartialTrustChain: true, checkServerIdentity: () => undefined } }),
    });
  }

  /** From --server, KEELSON_SERVER or the last log-in; KEELSON_TOKEN or the saved token. */
  static open(options: ConnectionOptions, environment = process.env): Connection {
    const settings = readSettings();
    const named = options.server ?? (environment.KEELSON_SERVER || undefined);
    const url = named === undefined ? settings.current : serverUrl(named);
    if (url === null) {
      throw new KeelsonError("UNAUTHENTICATED", "No server is known.", {
        remedy: "Log in with: keelson login https://ADDRESS",
      });
    }
    const saved = settings.servers[url];
    const token = environment.KEELSON_TOKEN || saved?.token || null;
    if (token === null) {
      throw new KeelsonError("UNAUTHENTICATED", `Not logged in at ${url}.`, {
        remedy: `Log in with: keelson login ${url}`,
      });
    }
    return new Connection(url, token, saved?.ca ?? null);
  }

  get<Answer>(path: string): Promise<Answer> {
    return this.call("GET", path);
  }

  async call<Answer>(method: string, path: string, body?: unknown): Promise<Answer> {
    const answer = await this.#request(method as Dispatcher.HttpMethod, path, {
      ...(body === undefined
        ? {}
        : { body: JSON.stringify(body), headers: { "content-type": "application/json" } }),
    });
    return (await this.#read(answer)) as Answer;
  }

  /** Sends `body` of `lengthBytes`; the answer comes when all of it was taken. */
  async upload<Answer>(
    path: string,
    body: AsyncIterable<Uint8Array>,
    lengthBytes: number,
    { method = "PUT", headers = {} }: UploadOptions = {},
  ): Promise<Answer> {
    const answer = await this.#request(method, path, {
      body: body as never,
      headers: {
        "content-type": "application/octet-stream",
        "content-length": String(lengthBytes),
        ...headers,
      },
      // The node answers when it has all of it: how long that takes is the file's affair.
      headersTimeout: 0,
    });
    return (await this.#read(answer)) as Answer;
  }

  /** An answer's bytes as they come. */
  async download(path: string): Promise<Readable> {
    const answer = await this.#request("GET", path, {});
    if (answer.statusCode !== 200) await this.#read(answer);
    return answer.body;
  }

  /** The same from a byte on; `totalBytes` of the whole, `tag` of this very content. */
  async downloadFrom(
    path: string,
    from: number,
  ): Promise<{ readonly body: Readable; readonly totalBytes: number; readonly tag: string }> {
    const answer = await this.#request("GET", path, {
      headers: { range: `bytes=${from}-` },
      bodyTimeout: 120_000,
    });
    const nothingMore = answer.statusCode === 416;
    if (answer.statusCode !== 206 && !nothingMore) {
      await this.#read(answer);
      throw new KeelsonError("PROTOCOL", `${path} can't be had in parts.`);
    }
    const range = /\/(\d+)$/.exec(String(answer.headers["content-range"]));
    const tag = String(answer.headers.etag);
    if (nothingMore && Number(range?.[1]) !== from) {
      throw new KeelsonError("CONFLICT", `${path} has no byte ${from}.`);
    }
    return { body: answer.body, totalBytes: Number(range?.[1]), tag };
  }

  /** Server-sent events from now on, until `signal` aborts or the connection ends. */
  async *events(signal: AbortSignal): AsyncGenerator<{ event: string; data: string }> {
    const answer = await this.#request("GET", "/events", { signal });
    if (answer.statusCode !== 200) throw errorOf(await this.#json(answer), answer.statusCode);
    const decoder = new TextDecoder();
    let text = "";
    for await (const part of answer.body as AsyncIterable<Uint8Array>) {
      text += decoder.decode(part, { stream: true });
      const blocks = text.split("\n\n");
      text = blocks.pop() ?? "";
      for (const block of blocks) {
        const field = (name: string) => new RegExp(`^${name}: ?(.*)$`, "m").exec(block)?.[1] ?? "";
        if (field("data") !== "") yield { event: field("event"), data: field("data") };
      }
    }
  }

  async close(): Promise<void> {
    await this.#dispatcher.destroy();
  }

  async #request(
    method: Dispatcher.HttpMethod,
    path: string,
    options: Partial<Dispatcher.RequestOptions>,
  ): Promise<Dispatcher.ResponseData> {
    try {
      return await request(`${this.url}/api/v1${path}`, {
        ...options,
        method,
        dispatcher: this.#dispatcher,
        headers: {
          ...(options.headers as Record<string, string> | undefined),
          ...(this.#token === null ? {} : { authorization: `Bearer ${this.#token}` }),
        },
      } as never);
    } catch (cause) {
      throw explainFailure(this.url, cause as NodeJS.ErrnoException);
    }
  }

  async #read(answer: Dispatcher.ResponseData): Promise<unknown> {
    if (answer.statusCode === 204) return undefined;
    const document = await this.#json(answer);
    if (answer.statusCode >= 200 && answer.statusCode < 300) return document;
    const error = errorOf(document, answer.statusCode);
    if (error.code !== "UNAUTHENTICATED" || this.#token === null) throw error;
    throw new KeelsonError("UNAUTHENTICATED", `The log-in at ${this.url} has ended.`, {
      remedy: `Log in with: keelson login ${this.url}`,
    });
  }

  #json(answer: Dispatcher.ResponseData): Promise<unknown> {
    return answer.body.json().catch(() => null);
  }
}

function explainFailure(url: string, cause: NodeJS.ErrnoException): KeelsonError {
  if (cause.name === "AbortError") return new KeelsonError("CANCELLED", "Cancelled.");
  const code = cause.code ?? "";
  if (/CERT|SELF_SIGNED|UNABLE_TO|ALTNAME/.test(code)) {
    return new KeelsonError("UNAVAILABLE", `The certificate of ${url} is not the one known.`, {
      remedy: `If the node was installed anew or has another certificate, trust it again: keelson login ${url}`,
      cause,
    });
  }
  const why =
    code === "ECONNREFUSED"
      ? "nothing listens there"
      : code === "ENOTFOUND" || code === "EAI_AGAIN"
        ? "its name is not known"
        : cause.message;
  return new KeelsonError("UNAVAILABLE", `${url} does not answer: ${why}.`, {
    remedy: "Is the address right, and the node on?",
    cause,
  });
}

/** The CA that a server shows, unverified: for a first log-in. */
export async function fetchCa(url: string): Promise<ServerCa> {
  return await fetchServerCa(url).catch((cause) => {
    throw explainFailure(url, cause as NodeJS.ErrnoException);
  });
}
